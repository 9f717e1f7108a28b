"""The learning rate of every update: warm-up, then a straight line to zero.

DeepSpeed's WarmupDecayLR by name and by what it does: its warm-up is logarithmic unless told otherwise, and its first
two updates are odd up to release 0.9.3. Source: deepspeed/runtime/lr_schedules.py and engine.py at v0.9.3; the change
is microsoft/DeepSpeed#6597.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.finetune.config import FinetuneConfig, FirstSteps, WarmUp


@dataclass(frozen=True)
class WarmupDecay:
    """Rates between 0 and max_rate.

    first_steps: "deepspeed-0.9.3": the first update has the full rate, for the schedule is not asked before it, the
    second has that of iteration 0, which is zero, and so on, one late. "from_zero": update u has that of iteration
    u - 1.
    """

    max_rate: float
    warmup_steps: int
    total_steps: int
    warmup: WarmUp = "log"
    first_steps: FirstSteps = "deepspeed-0.9.3"

    @classmethod
    def of(cls, config: FinetuneConfig) -> WarmupDecay:
        return cls(config.learning_rate, config.warmup_steps, config.steps, config.warmup, config.first_steps)

    def at(self, iteration: int) -> float:
        """The schedule itself at an iteration, counted from 0."""
        if iteration < self.warmup_steps:
            if self.warmup == "log":
                share = math.log(iteration + 1) / math.log(max(2, self.warmup_steps))
            else:
                share = iteration / self.warmup_steps
        else:
            share = (self.total_steps - iteration) / max(1, self.total_steps - self.warmup_steps)
        return self.max_rate * max(0.0, share)

    def applied(self, n_updates: int) -> float:
        """The rate of the next update after n_updates. Steps skipped for an overflow are no updates."""
        if self.first_steps == "from_zero":
            return self.at(n_updates)
        return self.max_rate if n_updates == 0 else self.at(n_updates - 1)

    def curve(self, n_points: int = 200) -> list[tuple[int, float]]:
        """(update counted from 1, its rate) at up to n_points updates, the first, second and last among them."""
        spaced = {round(i * (self.total_steps - 1) / max(1, n_points - 3)) for i in range(n_points - 2)}
        updates = sorted(u for u in spaced | {0, 1, self.total_steps - 1} if u < self.total_steps)
        return [(u + 1, self.applied(u)) for u in updates]
