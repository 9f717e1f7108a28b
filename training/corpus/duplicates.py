"""Dialogues that say nearly the same: MinHash over strings of five characters, in bands, and the first one stays.

Of every dialogue 64 numbers of four bytes are held. Two dialogues are compared where they agree in one of 16 bands of
4; with a true overlap of 0.8 that happens in 99.98 % of pairs. The overlap is then read off all 64 numbers, with a
standard error of at most 0.06.

Source: Broder (1997), On the resemblance and containment of documents; Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, chapter 3, for the bands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from annotation.formats.dialogues import Turn
from training.corpus.split import normal

SHINGLE = 5
N_HASHES, ROWS_PER_BAND = 64, 4
ABSENT = np.iinfo(np.uint32).max

Signature = npt.NDArray[np.uint32]

_rng = np.random.default_rng(20231101)  # any numbers will do, as long as they are always the same
_FACTORS = _rng.integers(1, 2**63, N_HASHES, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _rng.integers(0, 2**63, N_HASHES, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


def shingles(turns: Sequence[Turn]) -> npt.NDArray[np.uint64]:
    """One number for each different string of five letters or digits; shorter texts are one string."""
    text = "".join(normal(turn.text) for turn in turns)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    n = max(len(points) - SHINGLE + 1, 1 if len(points) else 0)
    mixed = np.zeros(n, dtype=np.uint64)
    for offset in range(min(SHINGLE, len(points))):
        mixed = (mixed + points[offset : offset + n] + np.uint64(1)) * _BASE
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def signature(turns: Sequence[Turn]) -> Signature:
    """Shape (64,): for each hash function the least value over all shingles."""
    found = shingles(turns)
    if not len(found):
        return np.full(N_HASHES, ABSENT, dtype=np.uint32)
    hashed = found[:, None] * _FACTORS + _OFFSETS
    least: Signature = (hashed >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return least


def overlap(one: Signature, other: Signature) -> float:
    """The estimated share of shingles that two dialogues have in common, from 0 to 1."""
    return float((one == other).mean())


def copies(signatures: npt.NDArray[np.uint32], threshold: float) -> list[int]:
    """Rows that overlap by `threshold` or more with an earlier row that stays; ascending.

    signatures: shape (n, 64). A copy of a copy goes only if it is close to the one that stays.
    """
    gone: set[int] = set()
    for later, earlier in sorted(_candidates(signatures)):
        if later in gone or earlier in gone:
            continue
        if overlap(signatures[later], signatures[earlier]) >= threshold:
            gone.add(later)
    return sorted(gone)


def _candidates(signatures: npt.NDArray[np.uint32]) -> set[tuple[int, int]]:
    """Pairs (later, earlier) of rows that agree in a band. In a crowd each is compared with the first few only."""
    pairs: set[tuple[int, int]] = set()
    for start in range(0, N_HASHES, ROWS_PER_BAND):
        band = np.ascontiguousarray(signatures[:, start : start + ROWS_PER_BAND]).view("V16").ravel()
        _, crowd, sizes = np.unique(band, return_inverse=True, return_counts=True)
        members = np.flatnonzero(sizes[crowd] > 1)
        members = members[np.argsort(crowd[members], kind="stable")]
        edges = np.flatnonzero(np.diff(crowd[members], prepend=-1))
        for group in np.split(members, edges[1:]):
            pairs.update(_pairs(group.tolist()))
    return pairs


MAX_COMPARED = 8  # of a crowd: comparing everybody with everybody would take the square of its size


def _pairs(crowd: Sequence[int]) -> Iterator[tuple[int, int]]:
    for number, later in enumerate(crowd):
        for earlier in crowd[: min(number, MAX_COMPARED)]:
            yield later, earlier


def stacked(signatures: Iterable[Signature]) -> npt.NDArray[np.uint32]:
    """Signatures one below the other, shape (n, 64)."""
    rows = [row.tobytes() for row in signatures]
    return np.frombuffer(b"".join(rows), dtype=np.uint32).reshape(-1, N_HASHES)
