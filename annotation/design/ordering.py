"""Balanced orders: systems within an item, items within a rater's queue.

The order of systems comes from Williams squares, one sequence per (rater, item). The queue comes from one idea:
a rater's showings sit on seats, seats form cohorts, and a cohort shows slot A of all its items, then slot B of
all, and so on. Cohorts of one seat keep the responses of an item together (`blocked`); cohorts of `min_gap`
seats or more keep them that far apart (`interleaved`), and still finish some items early, so a rater who leaves
half-way leaves complete items behind.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

import numpy as np

from annotation.design.arrays import BoolArray, IntArray

Presentation = Literal["blocked", "interleaved"]

MAX_SENSITIVE_RUN = 2  # sensitive items in a row; our judgement: surprise and runs are what reviewers report as harm
MIN_ITEMS_FOR_REPEAT = 6  # fewer, and a rater remembers the first showing
MAX_REPEAT_SHARE = 0.5  # beyond it, the repeats no longer fit into one third of the queue


def williams_sequences(n: int) -> IntArray:
    """Orders of n systems in which place and predecessor are balanced: shape (n, n), or (2n, n) for odd n > 1.

    A row is one order, its entries are systems 0..n-1. Over all rows every system takes every place equally
    often and follows every other system equally often. One system has the single order [[0]].

    Raises ValueError if n < 1.

    Source: Williams (1949), Experimental designs balanced for the estimation of residual effects of treatments.
    """
    if n < 1:
        raise ValueError(f"an order needs at least 1 system, got {n}")
    zigzag = np.empty(n, dtype=np.int64)  # 0, 1, n-1, 2, n-2, …: neighbours differ by every residue once
    zigzag[1::2] = np.arange(1, n // 2 + 1)
    zigzag[0::2] = -np.arange((n + 1) // 2) % n
    square = (zigzag + np.arange(n)[:, None]) % n
    if n == 1 or n % 2 == 0:
        return square
    return np.concatenate([square, square[:, ::-1]])  # for odd n only the mirror image completes the pairs


def balanced_sequences(
    rater: IntArray,
    item: IntArray,
    n_sequences: int,
    rng: np.random.Generator,
    item_groups: IntArray | None = None,
) -> IntArray:
    """A sequence 0..n_sequences-1 for every assignment: shape (n_assignments,).

    rater, item: shape (n_assignments,), the two ends of each assignment.
    item_groups: shape (n_items,), the dataset of each item; None = one dataset.

    Within a rater, and among the raters of one item, the counts of two sequences differ by at most one; so
    raters who share an item see different sequences while there are enough of them. Within a rater and a
    group they differ by at most two. Where every rater rates every item, the counts over the whole study differ by
    at most two as well.

    Source: de Werra (1971), Balanced schedules: a bipartite graph has an equitable edge colouring with any
    number of colours. Raters and items are its nodes, assignments its edges, sequences its colours.
    """
    raters, rater_index = np.unique(rater, return_inverse=True)
    items, item_index = np.unique(item, return_inverse=True)
    if len(item) == len(items) * len(raters):
        groups = None if item_groups is None else item_groups[items]
        return _cyclic_sequences(rater_index, item_index, n_sequences, rng, groups)
    order = rng.permutation(len(item))
    if item_groups is not None:
        order = order[np.argsort(item_groups[item[order]], kind="stable")]  # a group fills whole nodes
    colours = _edge_colours(_split(rater[order], n_sequences), _split(item[order], n_sequences), n_sequences)
    sequences = np.empty(len(item), dtype=np.int64)
    sequences[order] = rng.permutation(n_sequences)[colours]
    return sequences


def _cyclic_sequences(
    rater: IntArray, item: IntArray, n_sequences: int, rng: np.random.Generator, item_groups: IntArray | None
) -> IntArray:
    """The full crossing: items in a random order and raters in another, each step on either side takes the next
    sequence. Consecutive numbers are even within every rater, item and run of items of one group."""
    order = rng.permutation(int(item.max()) + 1)
    if item_groups is not None:
        order = order[np.argsort(item_groups[order], kind="stable")]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    seat = rng.permutation(int(rater.max()) + 1)
    sequences: IntArray = rng.permutation(n_sequences)[(place[item] + seat[rater]) % n_sequences]
    return sequences


def _split(nodes: IntArray, size: int) -> IntArray:
    """Number the ends of edges anew so that no node has more than `size` edges and at most one per old node fewer."""
    order = np.argsort(nodes, kind="stable")
    is_first = np.diff(nodes[order], prepend=-1) != 0
    rank = np.arange(len(nodes)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    new = np.empty(len(nodes), dtype=np.int64)
    new[order] = np.cumsum(is_first | (rank % size == 0)) - 1
    return new


def _edge_colours(left: IntArray, right: IntArray, n_colours: int) -> IntArray:
    """Colour the edges of a bipartite graph so that no two of one node agree (König's alternating paths).

    left, right: the two ends of each edge; no node has more than `n_colours` edges.
    """
    n_left = int(left.max()) + 1
    ends = list(zip(left.tolist(), (right + n_left).tolist(), strict=True))
    n_nodes = n_left + int(right.max()) + 1
    edge_at = [[-1] * n_colours for _ in range(n_nodes)]
    free = [(1 << n_colours) - 1] * n_nodes  # one bit per colour
    colours = [-1] * len(ends)

    for edge, (u, v) in enumerate(ends):
        common = free[u] & free[v]
        if common:
            colour = _lowest(common)
        else:
            colour, other = _lowest(free[u]), _lowest(free[v])
            path, node, wanted = [], v, colour
            while (step := edge_at[node][wanted]) >= 0:  # in a bipartite graph this walk cannot end at u
                path.append(step)
                node = ends[step][0] if ends[step][1] == node else ends[step][1]
                wanted = other if wanted == colour else colour
            for step in path:
                for node in ends[step]:
                    edge_at[node][colour] = edge_at[node][other] = -1
            for step in path:
                colours[step] = other if colours[step] == colour else colour
                for node in ends[step]:
                    edge_at[node][colours[step]] = step
            both = (1 << colour) | (1 << other)
            for node in {node for step in path for node in ends[step]}:
                used = sum(1 << c for c in (colour, other) if edge_at[node][c] >= 0)
                free[node] = (free[node] & ~both) | (both & ~used)
        colours[edge] = colour
        for node in (u, v):
            edge_at[node][colour] = edge
            free[node] &= ~(1 << colour)
    return np.array(colours, dtype=np.int64)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


@dataclass(frozen=True, eq=False)
class Queue:
    """What one rater sees, in order: arrays of shape (n_placements,).

    showing: index into the rater's items, or n_items + index into the repeated items.
    slot: 0-based place of the response within its showing.
    """

    showing: IntArray
    slot: IntArray


def cohort_size(presentation: Presentation, min_gap: int, n_items: int, n_systems: int) -> int:
    """How many seats a cohort of the rater's queue has at least.

    Raises ValueError if the rater has too few items to keep responses of one item `min_gap` apart.
    """
    if presentation == "blocked" or n_systems == 1:
        return 1
    if n_items < min_gap:
        raise ValueError(
            f"min_gap {min_gap} needs at least {min_gap} items per rater; "
            f"a rater has {n_items}, so the largest gap possible is {n_items}"
        )
    return min_gap


def wanted_repeats(n_items: int, share: float) -> int:
    """How many of a rater's items should be shown again: round(share * n_items), 1 or more from 6 items on, else 0.

    Never more than half of the items, which is what a third of the queue can hold.
    """
    if share == 0 or n_items < MIN_ITEMS_FOR_REPEAT:
        return 0
    return min(max(1, round(share * n_items)), n_items // 2)


def possible_repeats(n_items: int, share: float, size: int) -> int:
    """How many of a rater's items are shown again.

    size: seats per cohort, from `cohort_size`. Fewer than wanted where the first and the last third of an
    interleaved queue hold fewer complete cohorts.
    """
    n = wanted_repeats(n_items, share)
    while n > min(len(seats) for seats in _repeat_seats(_cohorts(n_items + n, size))):
        n -= 1
    return n


def choose_repeats(
    items: IntArray, n: int, n_times_repeated: IntArray, is_sensitive: BoolArray, rng: np.random.Generator
) -> IntArray:
    """Indices into `items` of the n that are shown again: shape (n,).

    n_times_repeated, is_sensitive: shape (n_items of the study,). Items that are not sensitive come first,
    since nobody should read a distressing dialogue twice without need; then those repeated least so far.
    """
    shuffled = rng.permutation(len(items))
    candidates = items[shuffled]
    order = np.lexsort((n_times_repeated[candidates], is_sensitive[candidates]))
    return shuffled[order[:n]]


def build_queue(
    is_sensitive: BoolArray,
    repeated: IntArray,
    *,
    n_systems: int,
    size: int,
    rng: np.random.Generator,
) -> Queue:
    """The queue of one rater, in random order under three rules.

    is_sensitive: shape (n_items,), of the rater's items.
    repeated: shape (n_repeats,), indices of the items that are shown again.
    size: seats per cohort, from `cohort_size`.

    Responses of one showing stand together (size 1) or at least `size` positions apart, slot 0 first. The
    first showing of a repeated item lies in the first third of the queue, the repeat in the last third. At
    most MAX_SENSITIVE_RUN sensitive items (interleaved: placements) follow each other as long as at most half
    of the items are sensitive and at most a fifth are repeated, and mostly up to three in five; beyond that the
    longest run is as short as the untagged items permit on the seats that repeats and cohorts leave.
    """
    n_items, n_again = len(is_sensitive), len(repeated)
    cohorts = _cohorts(n_items + n_again, size)
    seats, slots = _visits(cohorts, n_systems)

    occupant = np.full(n_items + n_again, -1, dtype=np.int64)  # the showing on each seat
    early, late = _repeat_seats(cohorts)
    occupant[rng.choice(early, n_again, replace=False)] = repeated
    occupant[rng.choice(late, n_again, replace=False)] = n_items + np.arange(n_again)

    others = rng.permutation(np.setdiff1d(np.arange(n_items), repeated))
    is_free = occupant < 0
    is_tagged = np.ones(len(occupant), dtype=np.bool_)
    is_tagged[~is_free] = np.concatenate([is_sensitive, is_sensitive[repeated]])[occupant[~is_free]]
    n_untagged = int(np.count_nonzero(~is_sensitive[others]))
    is_tagged = _spread_tags(seats, is_tagged, is_free, n_untagged, rng)
    occupant[is_free & is_tagged] = others[is_sensitive[others]]
    occupant[is_free & ~is_tagged] = others[~is_sensitive[others]]
    return Queue(showing=occupant[seats], slot=slots)


def _cohorts(n_seats: int, size: int) -> IntArray:
    """Sizes of the cohorts: each at least `size`; surplus seats lie in the middle, so the ends stay in their thirds."""
    n_cohorts = max(1, n_seats // size)
    sizes = np.full(n_cohorts, n_seats // n_cohorts, dtype=np.int64)
    middle = sizes[1:-1] if n_cohorts > 2 else sizes
    surplus = n_seats % n_cohorts
    middle += surplus // len(middle)
    middle[: surplus % len(middle)] += 1
    return sizes


def _repeat_seats(cohorts: IntArray) -> tuple[IntArray, IntArray]:
    """The seats whose cohort lies wholly in the first third of the queue, and those in the last third."""
    end = np.repeat(np.cumsum(cohorts), cohorts)
    start = end - np.repeat(cohorts, cohorts)
    return np.flatnonzero(3 * end <= len(end)), np.flatnonzero(3 * start >= 2 * len(end))


def _visits(cohorts: IntArray, n_systems: int) -> tuple[IntArray, IntArray]:
    """Seat and slot at each position of the queue."""
    sizes = np.repeat(cohorts, cohorts)
    start = np.repeat(np.cumsum(cohorts) - cohorts, cohorts)
    seat = np.arange(len(sizes))
    slot = np.arange(n_systems)
    position = (n_systems * start + seat - start)[:, None] + slot * sizes[:, None]
    order = np.argsort(position, axis=None, kind="stable")
    return order // n_systems, order % n_systems


def _spread_tags(
    seats: IntArray, is_tagged: BoolArray, is_free: BoolArray, n_untagged: int, rng: np.random.Generator
) -> BoolArray:
    """Which seats hold sensitive items: all that `is_tagged` allows, less `n_untagged` of the free ones.

    The seats that must be untagged to cut long runs come first; the rest of the untagged fall at random.
    """
    n_free = int(np.count_nonzero(is_free))
    spread = is_tagged.copy()
    cut: IntArray = np.empty(0, dtype=np.int64)
    if n_untagged < n_free:
        walk = seats[np.diff(seats, prepend=-1) != 0].tolist()  # an item counts once while it stays on the page
        tagged, free = is_tagged.tolist(), is_free.tolist()

        def is_enough(longest: int) -> bool:
            cuts = _cuts(walk, tagged, free, longest)
            return cuts is not None and len(cuts) <= n_untagged

        # Longer runs need fewer cuts, so the shortest run that can be reached is found by halving.
        candidates = range(MAX_SENSITIVE_RUN, len(walk))
        longest = MAX_SENSITIVE_RUN + bisect_left(candidates, True, key=is_enough)
        cut = np.array(sorted(_cuts(walk, tagged, free, longest) or ()), dtype=np.int64)
    spread[cut] = False
    spread[rng.choice(np.flatnonzero(is_free & spread), n_untagged - len(cut), replace=False)] = False
    return spread


def _cuts(walk: list[int], is_tagged: list[bool], is_free: list[bool], longest: int) -> set[int] | None:
    """The fewest free seats to untag so that no run of tagged seats on the walk exceeds `longest`; None = impossible.

    Whenever a run grows too long, its latest free seat is cut: no other choice reaches further.
    """
    cuts: set[int] = set()
    run = since_free = 0
    free_seat = -1
    for seat in walk:
        if not is_tagged[seat] or seat in cuts:
            run, free_seat = 0, -1
            continue
        run += 1
        since_free += 1
        if is_free[seat]:
            free_seat, since_free = seat, 0
        if run > longest:
            if free_seat < 0:
                return None
            cuts.add(free_seat)
            run, free_seat = since_free, -1
    return cuts
