"""Do two systems differ? The sign-flip test by dialogue, and Holm's correction where many such questions are asked.

Shapes: C = clusters (dialogues), P = questions, each a column, F = flips.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metrics.table import FloatArray

N_FLIPS = 10_000
MOST_EXACT = 13  # dialogues with a difference; up to here all 2^13 sign vectors are fewer than N_FLIPS random ones
FLIPS_AT_ONCE = 2_000_000  # coins held at once: 16 MB
ROUNDING = 1e-11  # sums that differ by less than this share of their terms are equal


class SignFlip(NamedTuple):
    """What exchanging two systems within dialogues says about the difference between them.

    p: two-sided; a trial exactly as far from 0 as observed counts against the difference, so no difference gives 1.
    p_greater: the chance of a larger gain than observed, trials that equal it counting half: exchanging the systems
    turns p_greater into 1 - p_greater.
    n_trials: sign vectors tried;  is_exact: these were all that exist.
    """

    p: float
    p_greater: float
    n_trials: int
    is_exact: bool

    @property
    def method(self) -> str:
        """The test in words."""
        how = f"all {self.n_trials} sign vectors" if self.is_exact else f"{self.n_trials} random flips"
        return f"sign-flip permutation by cluster, {how}"


def sign_flip(gains_CP: FloatArray, *, rng: np.random.Generator, n_flips: int = N_FLIPS) -> list[SignFlip]:
    """One test per column: could the gains, summed over dialogues, as well have had the other sign?

    gains_CP: shape (C, P), for each dialogue how much the first system is ahead, 0 where the two were not compared.

    With at most 13 dialogues that show a difference all sign vectors are tried and p is their exact share; else n_flips
    random ones and p = (c + 1) / (n + 1), which is never 0. All columns see the same random flips.

    Source: Fisher (1935), The Design of Experiments; Phipson & Smyth (2010) on the + 1.
    """
    # A third more and a third less is no gain, whatever is left of it in the last digit of a float.
    gains_CP = np.where(np.abs(gains_CP) > ROUNDING * np.abs(gains_CP).max(axis=0, initial=0), gains_CP, 0.0)
    is_exact_P = np.count_nonzero(gains_CP, axis=0) <= MOST_EXACT
    tests: dict[int, SignFlip] = {}
    for column in np.flatnonzero(is_exact_P):
        gains = gains_CP[gains_CP[:, column] != 0, column][:, None]
        n_trials = 2 ** len(gains)
        coins = (np.arange(n_trials)[:, None] >> np.arange(len(gains))) & 1
        [(as_far, greater, equal)] = _trial_counts(coins.astype(np.float64), gains).T
        tests[int(column)] = SignFlip(as_far / n_trials, (greater + equal / 2) / n_trials, n_trials, True)
    columns = np.flatnonzero(~is_exact_P)
    if len(columns):
        gains = gains_CP[(gains_CP[:, columns] != 0).any(axis=1)][:, columns]
        counts = np.zeros((3, len(columns)))
        n_at_once = max(1, FLIPS_AT_ONCE // len(gains))
        for first in range(0, n_flips, n_at_once):
            n = min(n_at_once, n_flips - first)
            bits = np.unpackbits(rng.integers(0, 256, (n, -(-len(gains) // 8)), dtype=np.uint8), axis=1)
            counts += _trial_counts(bits[:, : len(gains)].astype(np.float64), gains)
        for column, (as_far, greater, equal) in zip(columns, counts.T, strict=True):
            p_greater = (greater + (equal + 1) / 2) / (n_flips + 1)
            tests[int(column)] = SignFlip((as_far + 1) / (n_flips + 1), p_greater, n_flips, False)
    return [tests[column] for column in range(gains_CP.shape[1])]


def _trial_counts(coins_FC: FloatArray, gains_CP: FloatArray) -> FloatArray:
    """Shape (3, P): trials as far from 0 as observed, trials above the observed sum, trials equal to it."""
    observed_P, tolerance_P = gains_CP.sum(axis=0), ROUNDING * np.abs(gains_CP).sum(axis=0)
    trials_FP = observed_P - 2 * (coins_FC @ gains_CP)
    as_far = np.abs(trials_FP) >= np.abs(observed_P) - tolerance_P
    greater = trials_FP > observed_P + tolerance_P
    equal = np.abs(trials_FP - observed_P) <= tolerance_P
    counts_3P: FloatArray = np.stack([as_far, greater, equal]).sum(axis=1).astype(np.float64)
    return counts_3P


def holm(p_values: Sequence[float]) -> FloatArray:
    """p-values adjusted so that the chance of any false alarm among them stays below the level.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
