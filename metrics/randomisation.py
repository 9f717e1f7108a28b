"""Two systems on text metrics: paired approximate randomisation and a paired bootstrap over one table of counts.

Both draw dialogues as a whole. A trial is arithmetic on sums over dialogues, whatever the protocol, so that ten
thousand of them are a few products of matrices.

Shapes: C = clusters, S = sums, D = sums that differ, K = columns that are multiplied, M = metrics, B = trials.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metrics.intervals import N_BOOTSTRAP, bootstrap_intervals, cluster_sums
from metrics.results import Estimate
from metrics.table import FloatArray, IntArray
from metrics.text import (
    CHATGLM,
    DRAWS_AT_ONCE,
    METRICS,
    MixedSignatures,
    Protocol,
    TextStatistics,
    clusters_of,
    draw_settings,
    resamples_of,
    signature_of,
    sums_of,
)

N_PERMUTATIONS = 10_000
FOLD = 2.0**26  # half of a double's digits
COINS_AT_ONCE = 80_000  # of them multiplied at once: half of a core's second cache
TOLERANCE = 1e-9  # in percent: a difference this close to the observed one equals it


class Difference(NamedTuple):
    """One metric of two systems on the pairs that both have.

    estimate: first minus second, in points of percent, with its interval by dialogue.
    p_randomisation: two-sided, by exchanging the systems within dialogues;  p_bootstrap: two-sided, by resampling
    dialogues and centring. Both are (c + 1) / (trials + 1), c counting the trials at least as far from 0 as observed.
    One dialogue drawn again and again never varies, so p_bootstrap is None then.
    """

    estimate: Estimate
    first: float
    second: float
    p_randomisation: float
    p_bootstrap: float | None


def compare_systems(
    first: TextStatistics,
    second: TextStatistics,
    protocol: Protocol = CHATGLM,
    *,
    clusters: IntArray | None = None,
    seed: int,
    n_permutations: int = N_PERMUTATIONS,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """First minus second system on every metric, with paired approximate randomisation and a paired bootstrap.

    clusters: shape (N,), the dialogue of each pair: dialogues are exchanged and drawn as a whole.

    A trial that equals the observed difference counts against it, so identical systems get p = 1; sacrebleu does not
    count it, and gives them its smallest p. Prefer randomisation: the bootstrap rejects a little too easily.
    MixedSignatures if the tables were cut differently or have other references; ValueError if no pair is shared.

    Source: Riezler & Maxwell (2005); Koehn (2004); Phipson & Smyth (2010) on the + 1.
    """
    if first.source != second.source or first.columns != second.columns or len(first) != len(second):
        different = set(first.source) ^ set(second.source)
        raise MixedSignatures(f"these tables were made in different ways: {sorted(different) or 'other columns'}")
    complete = first.is_complete & second.is_complete
    if not complete.any():
        raise ValueError("no pair has a response of both systems and a reference")
    first, second = first.rows(complete), second.rows(complete)
    clusters_N = clusters_of(first, None if clusters is None else clusters[complete])
    sums, other = sums_of(first, protocol), sums_of(second, protocol)
    first_CS, second_CS = cluster_sums(sums.per_pair, clusters_N), cluster_sums(other.per_pair, clusters_N)
    # Two generators, so that either test gives the same numbers whatever the other one draws.
    flips, draws = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    value = sums.value
    values, other_values = value(first_CS.sum(axis=0)), value(second_CS.sum(axis=0))
    observed = values - other_values
    p_randomisation = _p_values(_exchanged(first_CS, second_CS, value, flips, n_permutations), observed)
    n_sums = first_CS.shape[1]
    resamples = resamples_of(np.hstack([first_CS, second_CS]), draws, n_bootstrap)

    def difference(totals: FloatArray) -> FloatArray:
        return value(totals[..., :n_sums]) - value(totals[..., n_sums:])

    differences = difference(resamples.totals)
    p_bootstrap = _p_values(differences[1:] - observed, observed)
    intervals = bootstrap_intervals(resamples, lambda _totals: differences, confidence=confidence)
    n = first.n() | {"clusters": len(first_CS), "permutations": n_permutations, "resamples": n_bootstrap}
    settings = draw_settings(seed, n_bootstrap, confidence) | {"n_permutations": n_permutations}
    results = {}
    for i, metric in enumerate(METRICS):
        interval = intervals[i]
        signature = signature_of(metric, first, protocol, n["pairs"], {"compare": "first-minus-second", **settings})
        estimate = Estimate(
            float(observed[i]), interval.low, interval.high, n, interval.method, str(signature), None, interval.notes
        )
        resampled = float(p_bootstrap[i]) if len(first_CS) > 1 else None
        results[metric] = Difference(
            estimate, float(values[i]), float(other_values[i]), float(p_randomisation[i]), resampled
        )
    return results


def _p_values(trials_BM: FloatArray, observed_M: FloatArray) -> FloatArray:
    """Two-sided, shape (M,): the share of trials at least as far from 0 as observed, the observed one included."""
    as_far = np.sum(np.abs(trials_BM) >= np.abs(observed_M) - TOLERANCE, axis=0)
    p: FloatArray = (as_far + 1) / (len(trials_BM) + 1)
    return p


def _exchanged(
    first_CS: FloatArray,
    second_CS: FloatArray,
    value: Callable[[FloatArray], FloatArray],
    rng: np.random.Generator,
    n_permutations: int,
) -> FloatArray:
    """The difference in each trial, shape (B, M), when a coin per cluster decides whether the systems change places."""
    gain_CD, of_sum_S = _different_columns(second_CS - first_CS)
    high, low = _whole_pairs(gain_CD)
    folded_CD = gain_CD.copy()
    folded_CD[:, low] += FOLD * gain_CD[:, high]
    kept = np.setdiff1d(np.arange(gain_CD.shape[1]), high)
    folded_CK = np.ascontiguousarray(folded_CD[:, kept])
    n_clusters, n_at_once = len(gain_CD), max(1, DRAWS_AT_ONCE // len(gain_CD))
    moved_BD = np.zeros((n_permutations, gain_CD.shape[1] + 1))  # the last one for the sums that gain nothing
    for begin in range(0, n_permutations, n_at_once):
        n = min(n_at_once, n_permutations - begin)
        flips = np.frombuffer(rng.bytes(n * -(-n_clusters // 8)), dtype=np.uint8).reshape(n, -1)
        moved_BD[begin : begin + n, kept] = _where_heads(flips, folded_CK)
    moved_BD[:, high] = np.rint(moved_BD[:, low] / FOLD)
    moved_BD[:, low] -= FOLD * moved_BD[:, high]
    moved_BS = moved_BD[:, of_sum_S]
    return value(first_CS.sum(axis=0) + moved_BS) - value(second_CS.sum(axis=0) - moved_BS)


def _whole_pairs(gain_CD: FloatArray) -> tuple[IntArray, IntArray]:
    """Columns of whole numbers, two and two, whose sums have room side by side in one: high * FOLD + low."""
    is_whole_D = (gain_CD == np.rint(gain_CD)).all(axis=0) & (np.abs(gain_CD).sum(axis=0) < FOLD / 2)
    whole = np.flatnonzero(is_whole_D)
    half = len(whole) // 2
    return whole[:half], whole[half : 2 * half]


def _where_heads(flips: npt.NDArray[np.uint8], gain_CD: FloatArray) -> FloatArray:
    """Sums over the clusters whose coin shows heads, shape (B, D). flips: a bit per cluster, shape (B, C / 8)."""
    width = 8 * max(1, COINS_AT_ONCE // (8 * len(flips)))
    coins = np.empty((len(flips), width))
    moved_BD = np.zeros((len(flips), gain_CD.shape[1]))
    for begin in range(0, len(gain_CD), width):
        part = gain_CD[begin : begin + width]
        bits = flips[:, begin // 8 : (begin + width) // 8]
        coins[:, : len(part)] = np.unpackbits(bits, axis=1, count=len(part))
        moved_BD += coins[:, : len(part)] @ part
    return moved_BD


def _different_columns(gain_CS: FloatArray) -> tuple[FloatArray, IntArray]:
    """The columns that neither repeat nor are all 0, shape (C, D), and which of them each of the S is, -1 if all 0.

    Many repeat: length and the numbers of n-grams gain the same, and what belongs to the references gains nothing.
    """
    places: dict[bytes, int] = {np.zeros(len(gain_CS)).tobytes(): -1}
    columns_D: list[FloatArray] = []
    of_sum_S = np.empty(gain_CS.shape[1], dtype=np.int64)
    for s, column in enumerate(gain_CS.T):
        of_sum_S[s] = place = places.setdefault(column.tobytes(), len(columns_D))
        if place == len(columns_D):
            columns_D.append(column)
    return np.column_stack([np.zeros((len(gain_CS), 0)), *columns_D]), of_sum_S
