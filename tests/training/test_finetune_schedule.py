from __future__ import annotations

import pytest

from training.finetune.config import SOULCHAT_PAPER
from training.finetune.schedule import WarmupDecay

PAPER = WarmupDecay.of(SOULCHAT_PAPER)
# Read off deepspeed/runtime/lr_schedules.py at v0.9.3 for warm-up 1000, 30,000 steps, 5e-5.
DEEPSPEED = {
    0: 0.0,
    1: 5.02e-6,
    9: 1.67e-5,
    99: 3.33e-5,
    499: 4.50e-5,
    999: 5e-5,
    1000: 5e-5,
    1001: 4.99983e-5,
    15_500: 2.5e-5,
    29_998: 3.4e-9,
    30_000: 0.0,
}


@pytest.mark.parametrize(("iteration", "rate"), DEEPSPEED.items())
def test_the_schedule_is_deepspeeds(iteration, rate):
    assert PAPER.at(iteration) == pytest.approx(rate, rel=2e-2 if rate < 1e-8 else 2e-3, abs=1e-15)


def test_the_first_updates_of_deepspeed_0_9_3_are_odd():
    """Full rate, then none, then the schedule, one late; the last update has iteration 29,998."""
    assert PAPER.applied(0) == 5e-5
    assert PAPER.applied(1) == 0.0
    assert PAPER.applied(2) == PAPER.at(1) == pytest.approx(5.02e-6, rel=2e-3)
    assert PAPER.applied(29_999) == PAPER.at(29_998)


def test_from_zero_begins_at_iteration_0():
    fixed = WarmupDecay(5e-5, 1000, 30_000, "log", "from_zero")
    assert [fixed.applied(u) for u in (0, 1, 29_999)] == [fixed.at(i) for i in (0, 1, 29_999)]


@pytest.mark.parametrize(("warmup", "mean"), [("log", 0.856), ("linear", 0.4995)])
def test_the_mean_over_the_warm_up(warmup, mean):
    schedule = WarmupDecay(1.0, 1000, 30_000, warmup)
    assert sum(schedule.at(i) for i in range(1000)) / 1000 == pytest.approx(mean, abs=5e-4)


@pytest.mark.parametrize("warmup", ["log", "linear"])
@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 10])
def test_it_rises_then_falls_and_never_leaves_its_range(warmup, warmup_steps):
    schedule = WarmupDecay(1.0, warmup_steps, 10, warmup)
    rates = [schedule.at(i) for i in range(12)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) >= 0 and max(rates) <= 1 and rates[10] == 0


def test_the_curve_shows_both_ends():
    curve = PAPER.curve(50)
    assert len(curve) <= 50
    assert curve[:2] == [(1, 5e-5), (2, 0.0)] and curve[-1] == (30_000, PAPER.at(29_998))
