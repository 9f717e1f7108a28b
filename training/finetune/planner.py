"""Which samples a step trains on, with which weight, on which device and in which packed row.

All of it follows from (seed, step) and the lengths of the samples, so a run resumes from one integer and nothing is
replayed. The samples of a step and their weights come first and know nothing of devices; where they are computed comes
second and changes no number but by rounding.

The weights reproduce the mean of means that data-parallel training computes: within each of G virtual micro-batches the
mean over label tokens, then the mean of the G. So each label token of a sample weighs 1 / (G x label tokens of its
group). Source: transformers 4.28's Trainer under DeepSpeed 0.9.3, which averages every device's own mean.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig, BadData
from training.finetune.samples import Ints, Samples


class Placed(NamedTuple):
    """A sample in a row.  weight: of each of its label tokens in the step's loss."""

    sample: int
    weight: float


Row = tuple[Placed, ...]


@dataclass(frozen=True)
class StepPlan:
    """rows[rank]: what each device computes, row by row; every device has the same number of rows.

    A row that would be empty holds the step's shortest sample with weight 0, for all devices must take part in every
    exchange.
    """

    step: int
    rows: tuple[tuple[Row, ...], ...]

    @property
    def samples(self) -> list[Placed]:
        """All that count, whatever the device."""
        return [one for rows in self.rows for row in rows for one in row if one.weight > 0]


class Planner:
    """Plans of all steps of a run on `world` devices. Steps count from 0."""

    def __init__(self, samples: Samples, config: FinetuneConfig, world: int = 1) -> None:
        """Raises BadConfig if there are more devices than samples in a step."""
        if config.batch < world:
            raise BadConfig(f"a batch of {config.batch} cannot be shared by {world} devices; raise batch")
        context, target = samples.lengths()
        self.context, self.target = np.asarray(context, np.int64), np.asarray(target, np.int64)
        self.config = config
        self.world = world

    def drawn(self, step: int) -> list[int]:
        """The step's samples in order: the next ones of a stream of shuffled epochs, of which none is cut short."""
        n, batch = len(self.target), self.config.batch
        places = range(step * batch, (step + 1) * batch)
        return [int(_epoch(self.config.seed, place // n, n)[place % n]) for place in places]

    def weighted(self, step: int) -> list[Placed]:
        """The step's samples in order, with their weights. Sample i belongs to group i modulo the groups, as the
        reference's sampler deals them."""
        drawn, groups = self.drawn(step), self.config.groups
        labels = [int(self.target[drawn[group::groups]].sum()) for group in range(groups)]
        return [Placed(sample, 1 / (groups * labels[i % groups])) for i, sample in enumerate(drawn)]

    def plan(self, step: int) -> StepPlan:
        return StepPlan(step, self._rows(self.weighted(step)))

    def for_evaluation(self, n_samples: int) -> tuple[tuple[Row, ...], ...]:
        """The first n samples in rows for each device; each label token weighs 1 / their number."""
        n = min(n_samples, len(self.target))
        weight = 1 / max(1, int(self.target[:n].sum()))
        return self._rows([Placed(sample, weight) for sample in range(n)])

    def _rows(self, placed: Sequence[Placed]) -> tuple[tuple[Row, ...], ...]:
        tokens = [int(self.context[one.sample] + self.target[one.sample]) for one in placed]
        bins = pack(tokens, self.config.row_tokens, self.world)
        shortest = placed[int(np.argmin(tokens))]._replace(weight=0.0)
        rows = [tuple(placed[i] for i in sorted(held)) or (shortest,) for held in bins]
        return tuple(tuple(rows[rank :: self.world]) for rank in range(self.world))


def pack(tokens: Sequence[int], capacity: int, multiple_of: int = 1) -> list[list[int]]:
    """Places of the samples in evenly filled bins, longest first, each into the emptiest bin.

    The number of bins is the smallest multiple at which that fits. Raises BadData if a sample is longer than a bin.
    """
    if max(tokens) > capacity:
        raise BadData(f"a sample of {max(tokens)} tokens does not fit a row of {capacity}; raise row_tokens")
    longest_first = sorted(range(len(tokens)), key=lambda i: (-tokens[i], i))
    n_bins = -(-sum(tokens) // (capacity * multiple_of)) * multiple_of
    while True:
        bins: list[list[int]] = [[] for _ in range(n_bins)]
        emptiest = [(0, number) for number in range(n_bins)]
        for i in longest_first:
            filled, number = emptiest[0]
            if filled + tokens[i] > capacity:
                break
            heapq.heapreplace(emptiest, (filled + tokens[i], number))
            bins[number].append(i)
        else:
            return bins
        n_bins += multiple_of


@lru_cache(maxsize=2)  # a step can span two epochs
def _epoch(seed: int, epoch: int, n: int) -> Ints:
    """All samples in the epoch's order: sorted by random numbers that (seed, epoch) name."""
    # The raw numbers, because numpy promises them for ever, and its shuffles only within a release.
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(keys, kind="stable")
