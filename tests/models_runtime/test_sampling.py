"""Sampling: the library's rules, noise that belongs to the response, and choices that know when they are close."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from models_runtime.engine.sampling import (
    candidates_of,
    choose,
    gumbel_noise,
    n_kept,
    noise_key,
)
from models_runtime.engine.spec import PRESETS, DecodingConfig

PAPER = PRESETS["soulchat-paper"].decoding
GREEDY = PRESETS["greedy"].decoding
ALL = DecodingConfig(is_sampled=True)


def keys(n: int, *, seed: int = 1) -> np.ndarray:
    return np.array([noise_key(seed, f"item {i}", 0) for i in range(n)])


def logits(n: int, vocabulary: int = 200, *, spread: float = 2.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize(
    "config",
    [
        PAPER,
        replace(PAPER, top_k=0),
        replace(PAPER, top_p=1.0),
        replace(PAPER, top_k=1),
        replace(PAPER, top_p=0.01),
        replace(PAPER, temperature=3.0, top_k=500),
    ],
    ids=str,
)
def test_the_tokens_left_in_are_those_of_transformers(config, spread):
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    raw = logits(40, spread=spread)
    scores = TemperatureLogitsWarper(config.temperature)(None, raw)
    if config.top_k:
        scores = TopKLogitsWarper(config.top_k)(None, scores)
    if config.top_p < 1:
        scores = TopPLogitsWarper(config.top_p)(None, scores)
    found = candidates_of(raw, config)
    n = n_kept(found.logits_BC / config.temperature, config)
    for row in range(len(raw)):
        assert set(found.tokens_BC[row, : n[row]]) == set(torch.isfinite(scores[row]).nonzero()[:, 0].tolist())


def test_whatever_ties_with_the_last_of_the_k_stays():
    raw = torch.tensor([[5.0, 4.0, 3.0, 3.0, 3.0, 1.0] + [0.0] * 30])
    config = DecodingConfig(is_sampled=True, top_k=3)
    assert n_kept(candidates_of(raw, config).logits_BC, config) == [5]


@pytest.mark.parametrize("config", [PAPER, ALL], ids=["paper", "everything"])
def test_tokens_come_as_often_as_their_probability_says(config):
    n = 20_000
    row = logits(1, 12, spread=1.0)
    drawn = choose(candidates_of(row.expand(n, -1), config), config, keys(n), np.zeros(n, dtype=np.int64)).tokens_B
    scores = (row[0] / config.temperature).double().numpy()
    probabilities = np.exp(scores) / np.exp(scores).sum()
    if config.top_p < 1:
        order = np.argsort(-probabilities)
        n_in = int(np.searchsorted(np.cumsum(probabilities[order]), config.top_p)) + 1
        probabilities[order[n_in:]] = 0
        probabilities /= probabilities.sum()
    counts = np.bincount(drawn, minlength=12)
    assert not counts[probabilities == 0].any()
    is_in = probabilities > 0
    assert stats.chisquare(counts[is_in], n * probabilities[is_in]).pvalue > 1e-3  # the keys are fixed: no flicker


def test_noise_is_gumbel_along_every_axis():
    along_rows = gumbel_noise(keys(20_000), np.zeros(20_000, dtype=np.int64), np.full((20_000, 1), 7))[:, 0]
    one_key = np.repeat(keys(1), 20_000)
    along_steps = gumbel_noise(one_key, np.arange(20_000), np.full((20_000, 1), 7))[:, 0]
    along_tokens = gumbel_noise(keys(1), np.zeros(1, dtype=np.int64), np.arange(20_000)[None])[0]
    for noise in (along_rows, along_steps, along_tokens):
        assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(along_steps, along_tokens)[0, 1]) < 0.02


def test_noise_depends_on_seed_item_repeat_step_and_token_and_on_nothing_else():
    def noise(seed=1, item="7#2", repeat=0, step=3, token=11):
        key = np.array([noise_key(seed, item, repeat)])
        return float(gumbel_noise(key, np.array([step]), np.array([[token]]))[0, 0])

    others = [noise(seed=2), noise(item="7#3"), noise(repeat=1), noise(step=4), noise(token=12)]
    assert len({noise(), *others}) == 6
    assert noise() == noise()
    assert noise_key(1, "2", 3) != noise_key(1, "3", 2)


def test_the_noise_of_today_is_the_noise_of_tomorrow():
    """A response can be repeated only while these stay as they are; they were written down on the first day."""
    key = noise_key(20231101, "1042#3", 1)
    noise = gumbel_noise(np.array([key]), np.array([5]), np.array([[0, 130527]]))
    assert int(key) == 1371024611657398575
    assert noise[0] == pytest.approx([0.654961862482377, 0.5292405008286684], abs=1e-12)


def test_a_row_does_not_see_its_neighbours():
    raw, own = logits(30), keys(30)
    steps = np.arange(30)
    together = choose(candidates_of(raw, PAPER), PAPER, own, steps).tokens_B
    order = np.random.default_rng(0).permutation(30)
    shuffled = choose(candidates_of(raw[order], PAPER), PAPER, own[order], steps[order]).tokens_B
    assert (shuffled == together[order]).all()
    for row in range(30):
        alone = choose(candidates_of(raw[row : row + 1], PAPER), PAPER, own[row : row + 1], steps[row : row + 1])
        assert alone.tokens_B[0] == together[row]


def test_greedy_takes_the_best_and_of_equals_the_first():
    raw = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, -1.0]])
    choice = choose(candidates_of(raw, GREEDY), GREEDY, keys(2), np.zeros(2, dtype=np.int64), tolerance=1e-3)
    assert choice.tokens_B.tolist() == [1, 0]
    assert choice.is_close_B.tolist() == [False, True]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_without_numbers_is_named_and_alone(bad):
    raw = logits(3)
    expected = choose(candidates_of(raw, PAPER), PAPER, keys(3), np.zeros(3, dtype=np.int64)).tokens_B
    raw[1, 50] = bad
    found = candidates_of(raw, PAPER)
    choice = choose(found, PAPER, keys(3), np.zeros(3, dtype=np.int64), tolerance=1e-4)
    assert found.is_broken_B.tolist() == [False, True, False]
    assert choice.tokens_B[[0, 2]].tolist() == expected[[0, 2]].tolist()


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "config", [PAPER, GREEDY, ALL, replace(PAPER, top_k=0), replace(PAPER, top_p=1.0), replace(PAPER, top_k=5)], ids=str
)
def test_a_choice_that_is_not_close_survives_every_error_within_the_tolerance(config, spread):
    n, tolerance = 2000, 0.003  # far more than arithmetic gives, so that many choices are close
    raw, steps = logits(n, 100, spread=spread), np.arange(n)
    choice = choose(candidates_of(raw, config), config, keys(n), steps, tolerance=tolerance)
    n_changed = 0
    for trial in range(10):
        generator = torch.Generator().manual_seed(trial)
        error = (torch.rand(raw.shape, generator=generator) * 2 - 1) * tolerance
        if trial % 2:
            error = error.sign() * tolerance  # the worst directions
        other = choose(candidates_of(raw + error, config), config, keys(n), steps).tokens_B
        is_other = other != choice.tokens_B
        n_changed += int(is_other.sum())
        assert not (is_other & ~choice.is_close_B).any()
    assert n_changed, "the errors were too small to test anything"
    assert choice.is_close_B.mean() < 0.45, "nearly everything is close: the bound is useless"


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_few_choices_are_close(spread):
    """A recheck reads the whole row again, so an over-careful bound is dear: the paper's decoding, 4,000 words."""
    found = candidates_of(logits(2000, 4000, spread=spread), PAPER)
    assert 0 < choose(found, PAPER, keys(2000), np.arange(2000), tolerance=5e-4).is_close_B.mean() < 0.015
