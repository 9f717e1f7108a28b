from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from tests.training.samples import drawn, some_lengths
from training.finetune import planner as planning
from training.finetune.config import SOULCHAT_PAPER, FinetuneConfig
from training.finetune.errors import BadConfig, BadData
from training.finetune.planner import Planner, pack
from training.finetune.samples import check_samples

CONFIG = FinetuneConfig(
    steps=50, warmup_steps=5, batch=16, groups=4, max_context_tokens=160, max_target_tokens=60, row_tokens=256
)
SAMPLES = drawn(some_lengths(100))


def test_an_epoch_shows_every_sample_once_and_the_next_in_another_order():
    planner = Planner(SAMPLES, CONFIG)
    stream = [i for step in range(25) for i in planner.drawn(step)]  # 400 samples: four epochs, not cut at a step
    epochs = [stream[i : i + 100] for i in range(0, 400, 100)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_plan_follows_from_seed_and_step_alone():
    planning._epoch.cache_clear()
    late = Planner(SAMPLES, CONFIG).plan(37)
    walked = Planner(SAMPLES, CONFIG)
    assert [walked.plan(step) for step in range(38)][-1] == late
    assert Planner(SAMPLES, dataclasses.replace(CONFIG, seed=1)).plan(37) != late


def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 of Salmon et al. (2011), in plain steps."""
    mask = 2**64 - 1
    a, b, c, d = counter, 0, 0, 0
    k, m = key
    for _round in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (second >> 64) ^ b ^ k, second & mask, (first >> 64) ^ d ^ m, first & mask
        k, m = (k + 0x9E3779B97F4A7C15) & mask, (m + 0xBB67AE8584CAA73B) & mask
    return [a, b, c, d]


def test_the_order_is_that_of_published_random_numbers():
    """So it is the same on every release: a resumed run may meet another numpy."""
    numbers = [number for counter in range(1, 6) for number in philox(counter, (3, 2))]
    assert planning._epoch(3, 2, 20).tolist() == sorted(range(20), key=numbers.__getitem__)


@pytest.mark.parametrize("world", [1, 2, 3, 8, 16])
def test_devices_change_neither_samples_nor_weights(world):
    for step in (0, 6, 7):
        alone, shared = Planner(SAMPLES, CONFIG).plan(step), Planner(SAMPLES, CONFIG, world).plan(step)
        assert Counter(shared.samples) == Counter(alone.samples) == Counter(Planner(SAMPLES, CONFIG).weighted(step))


@pytest.mark.parametrize("groups", [1, 2, 4, 16])
def test_the_weights_make_the_mean_of_means(groups):
    planner = Planner(SAMPLES, dataclasses.replace(CONFIG, groups=groups))
    rng = np.random.default_rng(5)
    losses = {i: rng.random(int(planner.target[i])) for i in range(100)}  # of every label token
    order = planner.drawn(3)
    per_group = [np.concatenate([losses[i] for i in order[g::groups]]).mean() for g in range(groups)]
    weighted = sum(one.weight * losses[one.sample].sum() for one in planner.plan(3).samples)
    assert weighted == pytest.approx(np.mean(per_group), rel=1e-12)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_every_row_fits_and_every_device_has_as_many(world):
    planner = Planner(SAMPLES, CONFIG, world)
    for step in range(20):
        rows = planner.plan(step).rows
        assert len(rows) == world and len({len(own) for own in rows}) == 1
        for row in (row for own in rows for row in own):
            assert 0 < sum(planner.context[one.sample] + planner.target[one.sample] for one in row) <= 256


def test_a_device_without_work_takes_part_with_weight_0():
    long = drawn([(100, 50)] * 3)
    config = dataclasses.replace(CONFIG, batch=3, groups=1, row_tokens=220)
    rows = Planner(long, config, world=2).plan(0).rows
    assert [len(own) for own in rows] == [2, 2]
    assert sorted(one.weight > 0 for own in rows for row in own for one in row) == [False, True, True, True]


def test_longest_first_keeps_devices_even():
    """80 samples of the paper's step over 8 devices; dealt in order, the fullest device has a quarter more."""
    samples = drawn(some_lengths(4000, context=318, target=68))
    config = dataclasses.replace(SOULCHAT_PAPER, row_tokens=16_384)
    planner = Planner(samples, config, world=8)
    worst, in_order = [], []
    for step in range(40):
        tokens = [int(planner.context[i] + planner.target[i]) for i in planner.drawn(step)]
        loads = [
            sum(int(planner.context[one.sample] + planner.target[one.sample]) for row in own for one in row)
            for own in planner.plan(step).rows
        ]
        worst.append(max(loads) / np.mean(loads))
        in_order.append(max(sum(tokens[g * 10 : g * 10 + 10]) for g in range(8)) / (sum(tokens) / 8))
    assert np.mean(worst) < 1.01 < 1.15 < np.mean(in_order)


def test_evaluation_weighs_every_label_token_alike():
    planner = Planner(SAMPLES, CONFIG, world=2)
    placed = [one for own in planner.for_evaluation(30) for row in own for one in row if one.weight > 0]
    assert sorted(one.sample for one in placed) == list(range(30))
    assert sum(one.weight * planner.target[one.sample] for one in placed) == pytest.approx(1)


def test_packing_says_when_a_sample_is_longer_than_a_row():
    assert pack([5, 5, 5], 10) == [[0, 2], [1]]
    with pytest.raises(BadData, match="11 tokens does not fit a row of 10"):
        pack([5, 11], 10)


def test_more_devices_than_samples_are_refused():
    with pytest.raises(BadConfig, match="shared by 17 devices"):
        Planner(SAMPLES, CONFIG, world=17)


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ([], "holds no samples"),
        ([(5, 5), (0, 5)], "1 of 2 samples have no context, the first is number 1"),
        ([(5, 0), (5, 5), (5, 0)], "2 of 3 samples have an empty target, the first is number 0"),
        ([(161, 5)], "more than 160 tokens"),
        ([(5, 61)], "a target of more than 60 tokens"),
    ],
)
def test_samples_that_cannot_be_trained_on_are_named(lengths, said):
    with pytest.raises(BadData, match=said):
        check_samples(drawn(lengths), CONFIG, "train")
