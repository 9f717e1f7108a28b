import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats

from metrics import randomisation
from metrics.randomisation import _different_columns, _exchanged, _whole_pairs, compare_systems
from metrics.segmentation import Normalisation
from metrics.text import (
    CHAR,
    CHATGLM,
    METRICS,
    REFERENCE,
    MixedSignatures,
    References,
    pair_scores,
    sums_of,
    text_statistics,
    tokens_of,
)
from tests.metrics.sentences import HYPOTHESES, PLAIN, REFERENCES, SENTENCES, compose

EVERYTHING = tokens_of(CHATGLM, REFERENCE, CHAR)
EXACT = 1e-12 * 100  # percent


def test_randomisation_tends_to_the_exact_p(rivals):
    """Ten dialogues: all 1,024 exchanges can be tried."""
    good, poor, dialogues, _ = rivals
    for protocol in (CHATGLM, REFERENCE):
        exact = [
            abs(value)
            for signs in itertools.product([False, True], repeat=10)
            for value in [exchanged_bleu_4(good, poor, np.array(signs)[dialogues], protocol)]
        ]
        p = np.mean(np.array(exact) >= exact[0] - 1e-9)
        result = compare_systems(good, poor, protocol, clusters=dialogues, seed=1, n_permutations=8000, n_bootstrap=50)
        assert result["bleu_4"].p_randomisation == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 8000) + 2e-4)


def exchanged_bleu_4(good, poor, is_moved, protocol):
    counts = [sums_of(table, protocol) for table in (good, poor)]
    one = np.where(is_moved[:, None], counts[1].per_pair, counts[0].per_pair).sum(axis=0)
    other = np.where(is_moved[:, None], counts[0].per_pair, counts[1].per_pair).sum(axis=0)
    return (counts[0].value(one) - counts[0].value(other))[3]


def test_randomisation_agrees_with_sacrebleus(rivals):
    good, poor, _, systems = rivals
    references = compose(60, seed=20)
    named = [(name, texts) for name, texts in systems.items()]
    test = PairedTest(named, {"BLEU": BLEU(tokenize="zh")}, [references], test_type="ar", n_samples=2000)
    theirs = test()[1]["BLEU"]
    ours = compare_systems(good, poor, REFERENCE, seed=1)["bleu_4"]
    assert (ours.first, ours.second) == pytest.approx([result.score for result in theirs], abs=EXACT)
    p = ours.p_randomisation
    assert 0 < p < 1
    assert theirs[1].p_value == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 2000) + 1e-3)


def test_bootstrap_interval_of_a_mean_difference_is_that_of_scipy(rivals):
    good, poor, _, _ = rivals
    result = compare_systems(good, poor, seed=2, n_permutations=10, n_bootstrap=999)["bleu_4"]
    gain = (pair_scores(good) - pair_scores(poor))[:, 3]
    rng = np.random.default_rng(np.random.SeedSequence(2).spawn(2)[1])  # the same draws
    theirs = stats.bootstrap((gain,), np.mean, n_resamples=999, method="percentile", rng=rng).confidence_interval
    assert result.estimate.value == pytest.approx(gain.mean())
    assert (result.estimate.low, result.estimate.high) == pytest.approx((theirs.low, theirs.high))


def test_identical_systems_do_not_differ(rivals):
    good, _, dialogues, _ = rivals
    for result in compare_systems(good, good, clusters=dialogues, seed=1, n_permutations=99, n_bootstrap=99).values():
        assert (result.estimate.value, result.p_randomisation, result.p_bootstrap) == (0, 1, 1)
        assert result.estimate.low is None and "degenerate_interval" in result.estimate.notes


def test_the_smallest_p_is_one_in_trials_plus_one():
    references = References(PLAIN * 4)
    same, other = text_statistics(PLAIN * 4, references), text_statistics([SENTENCES[-1]] * 88, references)
    result = compare_systems(same, other, seed=1, n_permutations=199, n_bootstrap=99)["bleu_1"]
    assert (result.p_randomisation, result.p_bootstrap) == (1 / 200, 1 / 100)


def test_one_dialogue_has_no_p_from_resampling():
    references = References(PLAIN)
    same, other = text_statistics(PLAIN, references), text_statistics([SENTENCES[-1]] * len(PLAIN), references)
    together = np.zeros(len(PLAIN), dtype=int)
    result = compare_systems(same, other, clusters=together, seed=1, n_permutations=99, n_bootstrap=99)["bleu_1"]
    assert (result.p_randomisation, result.p_bootstrap, result.estimate.low) == (1, None, None)


def test_changing_places_changes_the_sign_alone(rivals):
    good, poor, dialogues, _ = rivals
    there = compare_systems(good, poor, REFERENCE, clusters=dialogues, seed=5, n_permutations=500, n_bootstrap=500)
    back = compare_systems(poor, good, REFERENCE, clusters=dialogues, seed=5, n_permutations=500, n_bootstrap=500)
    for metric in METRICS:
        assert there[metric].estimate.value == -back[metric].estimate.value
        assert there[metric].p_randomisation == back[metric].p_randomisation
        assert there[metric].estimate.low == pytest.approx(-back[metric].estimate.high)


def test_pairs_that_one_system_misses_are_left_out_for_both():
    references = References(PLAIN)
    first = text_statistics([None, *PLAIN[1:]], references)
    second = text_statistics([*PLAIN[:-1], None], references)
    result = compare_systems(first, second, seed=1, n_permutations=9, n_bootstrap=9)["bleu_1"]
    assert result.estimate.n["pairs"] == len(PLAIN) - 2 and result.first == result.second
    nothing = text_statistics([None] * len(PLAIN), references)
    with pytest.raises(ValueError, match="no pair"):
        compare_systems(first, nothing, seed=1)


def test_the_tests_hold_their_level():
    """Two systems that differ by a coin per dialogue: p below 0.1 in about one study in ten."""
    rng = np.random.default_rng(7)
    references = References(compose(120, seed=30))
    one, other = (text_statistics(compose(120, seed=seed), references) for seed in (31, 32))
    dialogues, ps = np.arange(120) // 3, []
    for trial in range(200):
        is_moved = rng.random(40)[dialogues][:, None] < 0.5
        first = replace(one, values=np.where(is_moved, other.values, one.values))
        second = replace(one, values=np.where(is_moved, one.values, other.values))
        result = compare_systems(first, second, clusters=dialogues, seed=trial, n_permutations=199, n_bootstrap=199)
        ps.append((result["bleu_4"].p_randomisation, result["bleu_4"].p_bootstrap))
    randomisation, bootstrap = np.mean(np.array(ps) <= 0.1, axis=0)
    assert 0.04 <= randomisation <= 0.165  # 0.1 ± 3 standard errors
    assert 0.04 <= bootstrap <= 0.19  # rejects a little too easily, as known


@pytest.mark.parametrize(
    "other",
    [{"references": REFERENCES[::-1]}, {"normalisation": Normalisation(nfkc=True)}, {"tokens": CHATGLM.tokens}],
    ids=["references", "nfkc", "tokens"],
)
def test_systems_counted_in_different_ways_are_not_compared(other):
    settings = {"references": REFERENCES, "tokens": EVERYTHING} | other
    one = text_statistics(HYPOTHESES, References(REFERENCES, tokens=EVERYTHING))
    table = text_statistics(HYPOTHESES, References(settings.pop("references"), **settings))
    with pytest.raises(MixedSignatures):
        compare_systems(one, table, seed=1)


def test_repeated_sums_are_exchanged_once_and_nothing_is_lost():
    rng = np.random.default_rng(2)
    gain = rng.normal(size=(30, 4))
    gain = np.column_stack([gain, gain[:, 1], np.zeros(30), gain[:, 0], np.zeros(30)])
    different, of_sum = _different_columns(gain)
    assert different.shape == (30, 4)
    assert of_sum.tolist() == [0, 1, 2, 3, 1, -1, 0, -1]
    first = rng.normal(size=(30, 8))
    trials = _exchanged(first, first + gain, lambda sums: sums, np.random.default_rng(5), 50)
    # The same coins by hand: an exchange turns the sign of a cluster's difference.
    coins = np.unpackbits(np.random.default_rng(5).integers(0, 256, (50, 4), dtype=np.uint8), axis=1)[:, :30]
    np.testing.assert_allclose(trials, np.where(coins == 1, 1.0, -1.0) @ gain, rtol=0, atol=1e-12)
    assert not trials[:, [5, 7]].any()


@pytest.mark.parametrize("coins_at_once", [80_000, 400])  # 400: two bytes of coins of 25 trials, in a block of its own
def test_whole_numbers_share_a_column_and_stay_exact(monkeypatch, coins_at_once):
    monkeypatch.setattr(randomisation, "COINS_AT_ONCE", coins_at_once)
    rng = np.random.default_rng(3)
    largest = int(randomisation.FOLD / 2) // 30 - 1
    gain = rng.integers(-9, 10, (30, 6)).astype(float)
    gain[:, 1], gain[:, 4] = rng.choice([-largest, largest], (2, 30))
    gain[:, 3] = randomisation.FOLD  # too large to share
    gain[:, 5] += 0.5
    assert [pair.tolist() for pair in _whole_pairs(gain)] == [[0, 1], [2, 4]]
    trials = _exchanged(np.zeros((30, 6)), gain, lambda sums: sums, np.random.default_rng(5), 25)
    coins = np.unpackbits(np.random.default_rng(5).integers(0, 256, (25, 4), dtype=np.uint8), axis=1)[:, :30]
    assert (trials == np.where(coins == 1, 1.0, -1.0) @ gain).all()
