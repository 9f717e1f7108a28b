"""A sample that depends on the seed and on what there is to draw from, and on nothing else."""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that can be drawn: its name in the source, its stratum, and the id the caller knows it by."""

    key: str
    stratum: str
    id: int


def rank(seed: int, *names: str) -> int:
    """A number from 0 to 2**128 - 1 that is this name's place in the lottery of this seed.

    It comes from SHA-256, so neither the order of rows nor the library's random stream matters: the same
    names give the same sample on every machine, database and version.
    """
    ticket = "\x1f".join([str(seed), *names])
    return int.from_bytes(hashlib.sha256(ticket.encode()).digest()[:16])


def draw(candidates: Iterable[Candidate], n: int, seed: int, *, by_stratum: bool = False) -> tuple[list[int], int]:
    """The ids of `n` candidates in order of their rank, and how many candidates there were.

    by_stratum: each stratum gets its share of n, rounded by largest remainders; else strata do not matter.
    Fewer than n come back where there are not enough. Candidates are read once; memory grows with n and the
    number of strata, not with the candidates.
    """
    # Per stratum a heap of the n lowest ranks, the highest of them on top.
    kept: dict[str, list[tuple[int, int]]] = {}
    n_seen: dict[str, int] = {}
    for candidate in candidates:
        stratum = candidate.stratum if by_stratum else ""
        n_seen[stratum] = n_seen.get(stratum, 0) + 1
        heap = kept.setdefault(stratum, [])
        ticket = (-rank(seed, candidate.key), candidate.id)
        if len(heap) < n:
            heapq.heappush(heap, ticket)
        else:
            heapq.heappushpop(heap, ticket)
    drawn = [
        ticket
        for stratum, share in share_out(n_seen, n).items()
        for ticket in sorted(kept[stratum], reverse=True)[:share]
    ]
    return [id_ for _, id_ in sorted(drawn, reverse=True)], sum(n_seen.values())


def share_out(sizes: dict[str, int], n: int) -> dict[str, int]:
    """How many of n each stratum gets: in proportion to its size, largest remainders first, never above its size."""
    total = sum(sizes.values())
    if n >= total:
        return dict(sizes)
    given = {stratum: n * size // total for stratum, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda stratum: (-(n * sizes[stratum] % total), stratum))
    for stratum in by_remainder[: n - sum(given.values())]:
        given[stratum] += 1
    return given
