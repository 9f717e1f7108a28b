"""The design of a study, compiled from a few numbers and a seed into one row per placement."""

from dataclasses import dataclass

import numpy as np

from annotation.design.allocation import allocate
from annotation.design.arrays import BoolArray, IntArray
from annotation.design.ordering import (
    MAX_REPEAT_SHARE,
    Presentation,
    balanced_sequences,
    build_queue,
    choose_repeats,
    cohort_size,
    possible_repeats,
    williams_sequences,
)


@dataclass(frozen=True)
class DesignSpec:
    """All that decides who rates what, in which order. Raises ValueError if it contradicts itself.

    raters_per_item: how many raters share an item; equal to n_raters means a full crossing.
    min_gap: positions between two responses of one item in an interleaved queue.
    repeat_share: share of a rater's items shown again, 0 to MAX_REPEAT_SHARE.
    item_groups: the dataset index of each item; None = one dataset.
    is_sensitive: whether an item may distress its reader; None = no item does.
    """

    n_items: int
    n_systems: int
    n_raters: int
    raters_per_item: int
    seed: int
    presentation: Presentation = "blocked"
    min_gap: int = 8
    repeat_share: float = 0.05
    item_groups: tuple[int, ...] | None = None
    is_sensitive: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if self.n_items < 1 or self.n_systems < 1 or self.n_raters < 1:
            raise ValueError(
                "a design needs at least 1 item, 1 system and 1 rater, "
                f"got {self.n_items}, {self.n_systems} and {self.n_raters}"
            )
        if not 1 <= self.raters_per_item <= self.n_raters:
            raise ValueError(
                f"raters_per_item is {self.raters_per_item}; with {self.n_raters} raters it is 1 to {self.n_raters}"
            )
        if self.presentation not in ("blocked", "interleaved"):
            raise ValueError(f"presentation is {self.presentation!r}; it is 'blocked' or 'interleaved'")
        if self.min_gap < 1:
            raise ValueError(f"min_gap is {self.min_gap}; it is at least 1 position")
        if not 0 <= self.repeat_share <= MAX_REPEAT_SHARE:
            raise ValueError(f"repeat_share is {self.repeat_share}; it is 0 to {MAX_REPEAT_SHARE}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it is 0 or more")
        for name, values in (("item_groups", self.item_groups), ("is_sensitive", self.is_sensitive)):
            if values is not None and len(values) != self.n_items:
                raise ValueError(f"{name} has {len(values)} entries for {self.n_items} items")

    @property
    def sensitive(self) -> BoolArray:
        """Which items may distress their reader: shape (n_items,)."""
        return np.array(self.is_sensitive or (False,) * self.n_items, dtype=np.bool_)

    @property
    def groups(self) -> IntArray | None:
        """The dataset index of each item, shape (n_items,); None = one dataset."""
        return None if self.item_groups is None else np.array(self.item_groups, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Design:
    """One row per placement, sorted by (rater, position): read-only arrays of shape (n_placements,).

    rater, item, system: 0-based, in the order in which the study counts them.
    slot: 0-based order of the system within the item for this rater; slot 0 is letter A and comes first.
    position: 0-based place in the rater's queue, without gaps.
    is_repeat: whether this is the second showing of the item to this rater.
    """

    spec: DesignSpec
    rater: IntArray
    item: IntArray
    system: IntArray
    slot: IntArray
    position: IntArray
    is_repeat: BoolArray

    def __len__(self) -> int:
        return len(self.rater)


def compile_design(spec: DesignSpec) -> Design:
    """The design that belongs to this spec: the same spec gives the same arrays on every machine.

    Raises ValueError if a rater has too few items for the gap of an interleaved queue.

    The arrays are to be stored with the study: numpy keeps the stream of a seed within a release series, but
    does not promise it for ever (NEP 19).
    """
    streams = np.random.SeedSequence(spec.seed).spawn(3)
    allocation_rng, sequence_rng, queue_rng = (np.random.default_rng(stream) for stream in streams)

    allocation = allocate(spec.n_items, spec.n_raters, spec.raters_per_item, allocation_rng, spec.groups)
    rater, item = np.nonzero(allocation.T)  # the assignments, sorted by rater
    sequences = williams_sequences(spec.n_systems)
    # The square treats its systems unequally (who follows whom), so chance decides which system is which.
    sequences = sequence_rng.permutation(spec.n_systems)[sequences]
    sequence = balanced_sequences(rater, item, len(sequences), sequence_rng, spec.groups)

    is_sensitive = spec.sensitive
    n_times_repeated = np.zeros(spec.n_items, dtype=np.int64)
    n_items = np.count_nonzero(allocation, axis=0)
    queues = []
    for first, n in zip(np.cumsum(n_items) - n_items, n_items.tolist(), strict=True):
        if n == 0:
            continue
        own = slice(first, first + n)
        items = item[own]
        size = cohort_size(spec.presentation, spec.min_gap, n, spec.n_systems)
        repeated = choose_repeats(
            items, possible_repeats(n, spec.repeat_share, size), n_times_repeated, is_sensitive, queue_rng
        )
        n_times_repeated[items[repeated]] += 1
        queue = build_queue(is_sensitive[items], repeated, n_systems=spec.n_systems, size=size, rng=queue_rng)

        shown = np.concatenate([np.arange(n), repeated])[queue.showing]
        is_repeat = queue.showing >= n
        again = _other_sequences(sequence[own][repeated], len(sequences), queue_rng)
        order = np.concatenate([sequence[own], again])[queue.showing]
        queues.append(
            (
                np.full(len(shown), rater[first]),
                items[shown],
                sequences[order, queue.slot],
                queue.slot,
                np.arange(len(shown)),
                is_repeat,
            )
        )
    columns = [np.concatenate(column) for column in zip(*queues, strict=True)]
    for column in columns:
        column.setflags(write=False)
    return Design(spec, *columns)


def _other_sequences(sequence: IntArray, n_sequences: int, rng: np.random.Generator) -> IntArray:
    """For each sequence another one by chance, or the same where there is no other."""
    if n_sequences == 1:
        return sequence
    return (sequence + rng.integers(1, n_sequences, size=len(sequence))) % n_sequences
