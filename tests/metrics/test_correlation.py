from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metrics.agreement import icc_agreement
from metrics.correlation import correlate_all, tie_epsilon
from metrics.table import RatingTable, Scale

EMPATHY = Scale("empathy", (0, 1, 2))
SYSTEMS = "ABCD"


def study(seed=0, *, n_items=40, n_systems=4, noise=0.5):
    """Invented ratings (items, systems, 3 raters), and a score that follows the same quality with noise."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(1, 0.4, (n_items, 1)) + rng.normal(0, 0.6, (n_items, n_systems)) + 0.2 * np.arange(n_systems)
    ratings = np.clip(np.round(quality[:, :, None] + rng.normal(0, 0.4, (n_items, n_systems, 3))), 0, 2)
    return ratings, quality + rng.normal(0, noise, quality.shape)


def table_of(ratings, clusters=None):
    items, systems, raters = (axis.ravel() for axis in np.indices(ratings.shape))
    frame = pd.DataFrame(
        {
            "item": [f"d{i:03d}" for i in items],
            "system": [SYSTEMS[k] for k in systems],
            "rater": [f"r{r}" for r in raters],
            "dimension": "empathy",
            "value": ratings.ravel(),
            "cluster": [f"c{i if clusters is None else clusters[i]:03d}" for i in items],
        }
    )
    return RatingTable.from_frame(frame.dropna(), (EMPATHY,))


def scores_of(**metrics):
    """The table of scores, each metric an array (items, systems)."""
    items, systems = (axis.ravel() for axis in np.indices(next(iter(metrics.values())).shape))
    names = {"item": [f"d{i:03d}" for i in items], "system": [SYSTEMS[k] for k in systems]}
    return pd.DataFrame(names | {name: scores.ravel() for name, scores in metrics.items()})


def correlated(ratings, *, clusters=None, n_bootstrap=100, n_flips=2000, **metrics):
    rows = correlate_all(
        table_of(ratings, clusters), "empathy", scores_of(**metrics), seed=1, n_bootstrap=n_bootstrap, n_flips=n_flips
    )
    return {(row.metric, *row.detail.values()): row.estimate for row in rows}


# Witnesses.


def test_tau_b_is_the_mean_over_items_of_scipys():
    ratings, scores = study()
    scores = np.round(scores, 1)
    theirs = [stats.kendalltau(human, score).statistic for human, score in zip(ratings.mean(2), scores, strict=True)]
    found = correlated(ratings, bleu=scores)["item_tau_b", "bleu"]
    assert found.value == pytest.approx(np.nanmean(theirs), abs=1e-9)
    assert found.n["items"] == np.isfinite(theirs).sum() < 40  # where raters tie all four there is no order to find
    assert found.low < found.value < found.high


def by_loop(gaps, human, epsilon):
    return np.mean(
        [h == 0 if abs(g) <= epsilon else np.sign(g) == np.sign(h) for g, h in zip(gaps, human, strict=True)]
    )


@pytest.mark.parametrize("seed", range(5))
def test_epsilon_is_the_best_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    human = rng.integers(-1, 2, 60)
    gaps = np.round(human + rng.normal(0, 0.8, 60), 1)
    found = tie_epsilon(gaps, human, np.ones(60))
    tried = [0.0, *np.unique(np.abs(gaps))]
    right = [by_loop(gaps, human, epsilon) for epsilon in tried]
    assert found == tried[int(np.argmax(right))]
    assert by_loop(gaps, human, found) > by_loop(gaps, human, 0.0)


def test_accuracy_by_hand():
    assert tie_epsilon(np.array([0.1, 0.2, 0.5, 0.9]), np.array([0, 0, 1, -1]), np.ones(4)) == 0.2
    assert tie_epsilon(np.array([]), np.array([]), np.array([])) == 0
    ratings = np.repeat([[[0.0], [0.0], [2.0]]], 30, axis=0)  # every item: A and B tied, C better
    scores = np.tile([0.0, 0.1, 5.0], (30, 1))
    found = correlated(ratings, good=scores, tied=np.zeros((30, 3)), turned=-scores)
    assert found["item_pairwise_accuracy", "good"].value == 1
    assert found["tie_epsilon", "good"].value == pytest.approx(0.1)
    assert found["item_pairwise_accuracy", "tied"].value == pytest.approx(1 / 3)
    assert found["item_pairwise_accuracy", "turned"].value == pytest.approx(1 / 3)  # the tie is all it can get right
    assert found["item_tau_b", "tied"].reason == "no_variation"


def test_epsilon_is_chosen_on_other_dialogues():
    rng = np.random.default_rng(0)
    ratings, scores = rng.integers(0, 3, (30, 4, 3)).astype(float), rng.normal(size=(30, 4))
    first, second = zip(*combinations(range(4), 2), strict=True)
    gaps, human = (values[:, first] - values[:, second] for values in (scores, ratings.mean(axis=2)))
    found = correlated(ratings, noise=scores)
    human = np.where(np.abs(human) < 1e-9, 0, human)
    best = max(by_loop(gaps.ravel(), human.ravel(), epsilon) for epsilon in np.append(0, np.abs(gaps)))
    assert by_loop(gaps.ravel(), human.ravel(), found["tie_epsilon", "noise"].value) == pytest.approx(best)
    assert found["item_pairwise_accuracy", "noise"].value < best  # chosen on the answer itself it would flatter


def test_pairs_of_systems_are_counted():
    ratings, _ = study(3, n_items=30)
    means = ratings.mean(axis=(0, 2))
    scores = np.tile([3.0, 1.0, 2.0, 4.0], (30, 1))
    in_order = [(means[i] - means[j]) * (scores[0, i] - scores[0, j]) > 0 for i, j in combinations(range(4), 2)]
    found = correlated(ratings, fixed=scores)["system_pairwise_accuracy", "fixed"]
    assert found.value == pytest.approx(np.mean(in_order))
    assert 0 < found.value < 1
    assert found.n["pairs"] == 6


def test_soft_accuracy_agrees_with_scipys_permutation_test():
    rng = np.random.default_rng(5)
    ratings, scores = study(5, n_items=10)
    ratings[:, :, :] = rng.integers(0, 3, ratings.shape)
    expected = []
    for i, j in combinations(range(4), 2):
        p = []
        for values in (ratings.mean(axis=2), scores):
            gain = values[:, i] - values[:, j]
            theirs = [
                stats.permutation_test(
                    (sign * gain, np.zeros(10)),
                    lambda x, y: (x - y).sum(),
                    permutation_type="samples",
                    n_resamples=np.inf,
                    alternative="greater",
                ).pvalue
                for sign in (1, -1)
            ]
            p.append((theirs[0] + 1 - theirs[1]) / 2)  # trials equal to the observed one count half
        expected.append(1 - abs(p[0] - p[1]))
    found = correlated(ratings, bleu=scores)["soft_pairwise_accuracy", "bleu"]
    assert found.value == pytest.approx(np.mean(expected), abs=1e-9)


def test_difference_of_metrics_agrees_with_scipys_permutation_test():
    ratings, scores = study(6, n_items=11, noise=0.3)
    other = study(7, n_items=11)[1]
    found = correlated(ratings, bleu=scores, other=other)
    tau = [
        np.array([stats.kendalltau(h, s).statistic for h, s in zip(ratings.mean(2), metric, strict=True)])
        for metric in (scores, other)
    ]
    kept = np.isfinite(tau[0]) & np.isfinite(tau[1])
    theirs = stats.permutation_test(
        (tau[0][kept], tau[1][kept]),
        lambda x, y: (x - y).mean(),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert found["tau_b_difference", "bleu, other"].value == pytest.approx((tau[0] - tau[1])[kept].mean(), abs=1e-9)
    assert found["p_tau_b_difference", "bleu, other"].value == pytest.approx(theirs.pvalue, abs=1e-9)


def test_ceiling_is_the_root_of_the_reliability_of_the_mean():
    ratings, scores = study(8)
    found = correlated(ratings, bleu=scores)["reliability_ceiling",]
    icc = icc_agreement(ratings.reshape(-1, 3), EMPATHY, of_mean=True)
    assert found.value == pytest.approx(np.sqrt(icc), abs=1e-12)
    assert found.low < found.value < found.high < 1


def test_each_rater_against_the_mean_of_the_others():
    ratings, scores = study(9)
    found = correlated(ratings, bleu=scores)
    every = []
    for rater in range(3):
        others = np.delete(ratings, rater, axis=2).mean(axis=2)
        tau = [stats.kendalltau(h, s).statistic for h, s in zip(others, ratings[:, :, rater], strict=True)]
        assert found["human_tau_b", f"r{rater}"].value == pytest.approx(np.nanmean(tau), abs=1e-9)
        every += tau
    assert found["human_tau_b",].value == pytest.approx(np.nanmean(every), abs=1e-9)
    assert found["human_tau_b",].n["raters"] == 3


# Properties.


def test_the_raters_mean_itself_is_a_perfect_metric():
    ratings, _ = study(10)
    found = correlated(ratings, oracle=ratings.mean(axis=2))
    for metric in ("item_tau_b", "item_pairwise_accuracy", "system_pairwise_accuracy", "soft_pairwise_accuracy"):
        assert found[metric, "oracle"].value == pytest.approx(1), metric
    assert found["tie_epsilon", "oracle"].value == 0


def test_turning_a_metric_turns_tau_and_lower_is_better_turns_it_back():
    ratings, scores = study(11)
    found = correlated(ratings, up=scores, down=-scores, stretched=scores**3)
    assert found["item_tau_b", "down"].value == pytest.approx(-found["item_tau_b", "up"].value)
    assert found["item_tau_b", "stretched"].value == pytest.approx(found["item_tau_b", "up"].value)
    rows = correlate_all(
        table_of(ratings), "empathy", scores_of(down=-scores), lower_is_better=["down"], seed=1, n_bootstrap=50
    )
    assert rows[0].estimate.value == pytest.approx(found["item_tau_b", "up"].value)


def test_a_shift_of_a_whole_dialogue_changes_nothing():
    ratings, scores = study(12)
    shift = np.random.default_rng(0).normal(0, 50, (40, 1))
    found = correlated(ratings, plain=scores, shifted=scores + shift)
    for metric in ("item_tau_b", "item_pairwise_accuracy", "system_pairwise_accuracy"):
        assert found[metric, "plain"].value == pytest.approx(found[metric, "shifted"].value), metric


def test_a_copy_of_a_metric_does_not_differ():
    ratings, scores = study(13)
    found = correlated(ratings, one=scores, copy=scores)
    difference = found["tau_b_difference", "one, copy"]
    assert (difference.value, difference.low, difference.notes) == (0, None, ("degenerate_interval",))
    assert found["p_tau_b_difference", "one, copy"].value == 1
    assert found["p_accuracy_difference", "one, copy"].value == 1


def test_a_metric_that_sees_quality_beats_length():
    ratings, scores = study(14, noise=0.2)
    length = np.random.default_rng(1).integers(40, 200, scores.shape).astype(float)
    found = correlated(ratings, embedding=scores, length=length)
    assert found["tau_b_difference", "embedding, length"].low > 0
    assert found["p_tau_b_difference", "embedding, length"].value < 0.01
    assert found["p_accuracy_difference", "embedding, length"].value < 0.01


def test_rows_repeat_and_say_which_scores_they_are_of():
    ratings, scores = study(15)
    one, again = (correlated(ratings, bleu=scores) for _ in range(2))
    assert one == again
    other = correlated(ratings, bleu=scores + 1e-6 * np.arange(4))
    parts = [
        dict(part.split(":", 1) for part in each["item_tau_b", "bleu"].signature.split("|")) for each in (one, other)
    ]
    assert parts[0]["scores"] != parts[1]["scores"]
    assert parts[0]["data"] == parts[1]["data"]


def test_strata_are_reported_apart():
    ratings, scores = study(16)
    frame = table_of(ratings).frame
    frame["dataset"] = np.where(frame["item"] < "d020", "soul", "smile")
    rows = correlate_all(
        RatingTable.from_frame(frame, (EMPATHY,)), "empathy", scores_of(bleu=scores), by=("dataset",), seed=1,
        n_bootstrap=50,
    )  # fmt: skip
    found = {row.stratum["dataset"]: row.estimate for row in rows if row.metric == "item_tau_b"}
    alone = correlated(ratings[:20], bleu=scores[:20])["item_tau_b", "bleu"]
    assert found["soul"].value == pytest.approx(alone.value)
    assert found["smile"].value != found["soul"].value


# What cannot be told.


def test_responses_without_a_score_or_a_rating_are_left_out():
    ratings, scores = study(17)
    holes = scores.copy()
    holes[:10] = np.nan
    found = correlated(ratings, whole=scores, holes=holes)
    alone = correlated(ratings[10:], holes=scores[10:])
    for metric in ("item_tau_b", "system_pairwise_accuracy"):
        assert found[metric, "holes"].value == pytest.approx(alone[metric, "holes"].value), metric
    assert found["item_pairwise_accuracy", "holes"].n["items"] == 30
    nothing = correlated(ratings, whole=scores, empty=np.full_like(scores, np.nan))
    for key, estimate in nothing.items():
        if "empty" in key[-1:]:
            assert estimate.reason == "no_scores", key


def test_one_system_one_rater_one_dialogue_and_constant_ratings():
    ratings, scores = study(18)
    assert {e.reason for e in correlated(ratings[:, :1], bleu=scores[:, :1]).values()} >= {"one_system"}
    one_rater = correlated(ratings[:, :, :1], bleu=scores)
    assert one_rater["human_tau_b",].reason == one_rater["reliability_ceiling",].reason == "one_rater"
    assert one_rater["item_tau_b", "bleu"].value is not None
    one_dialogue = correlated(ratings, bleu=scores, other=-scores, clusters=np.zeros(40, int))
    assert one_dialogue["item_tau_b", "bleu"].notes == ("one_cluster",)
    for metric in ("item_pairwise_accuracy", "soft_pairwise_accuracy"):
        assert one_dialogue[metric, "bleu"].reason == "one_dialogue"
    assert one_dialogue["p_tau_b_difference", "bleu, other"].reason == "one_dialogue"
    constant = correlated(np.ones_like(ratings), bleu=scores)
    assert constant["item_tau_b", "bleu"].reason == "no_variation"
    assert constant["item_pairwise_accuracy", "bleu"].value == pytest.approx(
        1, abs=0.05
    )  # all is tied, at some epsilon
    assert constant["reliability_ceiling",].reason == "no_variation"
    none = correlate_all(table_of(ratings).where(system="Z"), "empathy", scores_of(bleu=scores), seed=1)
    assert {row.estimate.reason for row in none} == {"no_ratings"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="system"), "missing columns: system"),
        (lambda frame: frame.drop(columns="bleu"), "no column beside item and system"),
        (lambda frame: pd.concat([frame, frame[:1]]), "row 0: item d000, system A comes twice"),
        (lambda frame: frame.astype({"bleu": object}).replace({"bleu": {1.0: "good"}}), "row 1: bleu is good"),
        (lambda frame: frame.replace({"bleu": {2.0: np.inf}}), "row 2: bleu is inf"),
    ],
)
def test_scores_that_cannot_be_read_are_refused_by_row(change, message):
    ratings, _ = study(19, n_items=2)
    frame = scores_of(bleu=np.arange(8.0).reshape(2, 4))
    with pytest.raises(ValueError, match=message):
        correlate_all(table_of(ratings), "empathy", change(frame), seed=1)


def test_a_metric_to_turn_must_exist():
    ratings, scores = study(20, n_items=2)
    with pytest.raises(ValueError, match="lower_is_better names ter; the metrics are bleu"):
        correlate_all(table_of(ratings), "empathy", scores_of(bleu=scores), lower_is_better=["ter"], seed=1)
