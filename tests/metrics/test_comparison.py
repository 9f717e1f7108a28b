import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from metrics.comparison import (
    compare_all,
    friedman_chi2,
    rating_grid,
)
from metrics.table import RatingTable
from tests.metrics.cast import EMPATHY, SAFETY, make_frame, make_table


def frame_of(ratings, *, clusters=None, dimension="empathy"):
    """Long rows of an array (items, systems, raters); NaN is a row that is not there."""
    items, systems, raters = (axis.ravel() for axis in np.indices(ratings.shape))
    frame = pd.DataFrame(
        {
            "item": [f"d{i:03d}" for i in items],
            "system": ["ABCDEF"[k] for k in systems],
            "rater": [f"r{r}" for r in raters],
            "dimension": dimension,
            "value": ratings.ravel(),
            "cluster": [f"c{i if clusters is None else clusters[i]:03d}" for i in items],
        }
    )
    return frame.dropna()


def table_of(ratings, *, clusters=None):
    return RatingTable.from_frame(frame_of(ratings, clusters=clusters), (EMPATHY,))


def study(seed, *, n_items=30, n_systems=3, n_raters=3, gap=0.3):
    """Invented ratings 0, 1, 2 of shape (items, systems, raters): each system a bit better than the one before."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(1, 0.5, (n_items, 1, 1)) + rng.normal(0, 0.5, (n_items, n_systems, 1))
    quality = quality + gap * np.arange(n_systems)[:, None] + rng.normal(0, 0.4, (n_items, n_systems, n_raters))
    return np.clip(np.round(quality), 0, 2)


def compared(table, *, n_bootstrap=200, **settings):
    """Every row by metric and detail."""
    rows = compare_all(table, "empathy", seed=1, n_bootstrap=n_bootstrap, **settings)
    return {(row.metric, *row.detail.values()): row.estimate for row in rows}


def values(found):
    return {key: estimate.value for key, estimate in found.items()}


# By hand.

BY_HAND = np.array(
    [
        [[2, 2], [1, 0]],  # A − B = 1.5; A wins with both raters
        [[1, 1], [1, 2]],  # −0.5; one tie, one loss
        [[2, 0], [1, np.nan]],  # mean 1 against 1: 0; the second rater saw A alone; the first prefers A
    ],
    dtype=float,
)


def test_a_pair_by_hand():
    found = compared(table_of(BY_HAND))
    assert found["mean_difference", "A, B"].value == pytest.approx(1 / 3)
    assert found["win_rate", "A, B"].value == pytest.approx((1 + 0 + 1) / 3)
    assert found["tie_rate", "A, B"].value == pytest.approx((0 + 1 / 2 + 0) / 3)
    assert found["loss_rate", "A, B"].value == pytest.approx((0 + 1 / 2 + 0) / 3)
    assert found["superiority", "A, B"].value == pytest.approx(2 / 3 + 1 / 12)
    # Shares of 0, 1, 2 over three items: A ½ 1 1½, B ½ 2 ½. A above B: 1·½ + 1½·2½; below: ½·2½ + 1·½.
    assert found["cliffs_delta", "A, B"].value == pytest.approx((4.25 - 1.75) / 9)
    # Gains 1.5, −0.5 (and 0): of ±2, ±1 all but the middle two are as far out as 1.0, and those are 1.0 too.
    assert found["p_sign_flip", "A, B"].value == 1.0
    assert found["rank", "A"].value == 1
    n = found["mean_difference", "A, B"].n
    assert (n["items"], n["ratings"], n["raters"], n["clusters"]) == (3, 11, 2, 3)
    n = found["win_rate", "A, B"].n
    assert (n["items"], n["ratings"], n["raters"], n["clusters"]) == (3, 10, 2, 3)


def test_the_rows_in_order():
    rows = compare_all(make_table(n_items=24), "empathy", by=("dataset",), seed=1, n_bootstrap=50)
    names = [row.metric for row in rows if row.stratum == {"dataset": "smile"}]
    assert names == [
        "mean_difference", "cliffs_delta", "superiority", "win_rate", "tie_rate", "loss_rate", "p_sign_flip", "p_holm",
        "rank", "cluster", "strength", "rank", "cluster", "strength", "friedman_chi2", "friedman",
    ]  # fmt: skip
    assert len(rows) == 2 * len(names)
    signature = next(row.estimate.signature for row in rows if row.metric == "p_holm")
    assert "|systems:A, B|average:raters-then-items|stratum:dataset=smile|" in signature
    assert "|family:pairs-of-dimension-and-stratum|n_family:1" in signature


# Second packages.


def test_holm_of_a_comparison_is_over_the_pairs_of_the_dimension():
    found = compared(table_of(study(3, n_items=12)))
    p = [estimate.value for key, estimate in found.items() if key[0] == "p_sign_flip"]
    adjusted = [estimate.value for key, estimate in found.items() if key[0] == "p_holm"]
    assert adjusted == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert len(p) == 3


@pytest.mark.parametrize("seed", range(3))
def test_cliffs_delta_of_complete_ratings_agrees_with_mann_whitney(seed):
    ratings = study(seed)
    u = stats.mannwhitneyu(ratings[:, 0].ravel(), ratings[:, 1].ravel()).statistic
    found = compared(table_of(ratings))
    assert found["cliffs_delta", "A, B"].value == pytest.approx(2 * u / 90**2 - 1, abs=1e-12)


def test_friedman_agrees_with_scipy():
    ratings = study(5, n_systems=4)
    theirs = stats.friedmanchisquare(*np.round(ratings.mean(axis=2), 9).T)
    found = compared(table_of(ratings))
    assert found["friedman_chi2",].value == pytest.approx(theirs.statistic, abs=1e-9)
    assert found["friedman",].value == pytest.approx(theirs.pvalue, abs=1e-9)


def test_friedman_of_two_systems_is_the_squared_sign_test():
    scores = np.array([[1, 0], [2, 0], [1, 0], [0, 1], [1, 1]])
    assert friedman_chi2(scores) == pytest.approx((3 - 1) ** 2 / (3 + 1))  # McNemar; the tie says nothing


# Properties.


def swapped(frame):
    return frame.assign(system=frame["system"].replace({"A": "B", "B": "A"}))


def test_exchanging_two_systems_turns_every_sign():
    frame = frame_of(study(7, n_systems=2))
    one, other = (compared(RatingTable.from_frame(rows, (EMPATHY,))) for rows in (frame, swapped(frame)))
    for metric in ("mean_difference", "cliffs_delta"):
        assert one[metric, "A, B"].value == pytest.approx(-other[metric, "A, B"].value)
    assert one["superiority", "A, B"].value == pytest.approx(1 - other["superiority", "A, B"].value)
    assert one["win_rate", "A, B"].value == pytest.approx(other["loss_rate", "A, B"].value)
    assert one["p_sign_flip", "A, B"].value == other["p_sign_flip", "A, B"].value
    assert one["strength", "A"].value == pytest.approx(other["strength", "B"].value)
    assert one["rank", "A"].value == other["rank", "B"].value


def test_names_and_order_of_raters_and_items_change_nothing():
    frame = frame_of(study(8))
    renamed = frame.assign(
        rater=frame["rater"].map({"r0": "r2", "r1": "r0", "r2": "r1"}),
        item="x" + (999 - frame["item"].str[1:].astype(int)).astype(str),
    ).sample(frac=1, random_state=1)
    one, other = (values(compared(RatingTable.from_frame(rows, (EMPATHY,)))) for rows in (frame, renamed))
    assert one == pytest.approx(other, abs=1e-9)


def test_a_copy_of_a_system_is_its_equal():
    ratings = study(9, n_systems=2)
    found = compared(table_of(np.stack([ratings[:, 0], ratings[:, 0], ratings[:, 1]], axis=1)))
    difference = found["mean_difference", "A, B"]
    assert (difference.value, difference.low, difference.notes) == (0, None, ("degenerate_interval",))
    assert found["p_sign_flip", "A, B"].value == found["p_holm", "A, B"].value == 1
    assert found["superiority", "A, B"].value == 0.5
    assert found["cliffs_delta", "A, B"].value == pytest.approx(0)
    assert found["rank", "A"].value == found["rank", "B"].value
    assert found["cluster", "A"].value == found["cluster", "B"].value
    assert found["strength", "A"].value == pytest.approx(found["strength", "B"].value)
    assert found["p_sign_flip", "A, C"].value == found["p_sign_flip", "B, C"].value


def test_dialogues_are_exchanged_as_a_whole():
    ratings = study(10, n_items=24, n_systems=2)
    apart = compared(table_of(ratings))
    together = compared(table_of(ratings, clusters=np.arange(24) // 4))
    assert apart["mean_difference", "A, B"].value == pytest.approx(together["mean_difference", "A, B"].value)
    assert "all 64 sign vectors" in together["p_sign_flip", "A, B"].method
    assert together["p_sign_flip", "A, B"].value >= 2 / 64
    sums = rating_grid(table_of(ratings).matrix("empathy")).means.reshape(6, 4, 2).sum(axis=1)
    theirs = stats.permutation_test(
        (sums[:, 0], sums[:, 1]), lambda x, y: (x - y).sum(), permutation_type="samples", n_resamples=np.inf
    )
    assert together["p_sign_flip", "A, B"].value == pytest.approx(theirs.pvalue, abs=1e-9)


def test_hidden_repeats_change_no_value():
    frame = make_frame(n_items=20, n_repeats=10)
    firsts = frame[~frame["is_repeat"]]
    one, other = (values(compared(RatingTable.from_frame(rows, (EMPATHY, SAFETY)))) for rows in (frame, firsts))
    assert one == other


def test_the_same_seed_gives_the_same_rows():
    table = table_of(study(11))
    assert compare_all(table, "empathy", seed=3) == compare_all(table, "empathy", seed=3)
    assert compare_all(table, "empathy", seed=3) != compare_all(table, "empathy", seed=4)


# Ranks and clusters.


def test_clear_gaps_draw_lines_and_a_small_one_does_not():
    rng = np.random.default_rng(0)
    worst = np.where(rng.random((60, 3)) < 0.1, 1.0, 0.0)
    middle = np.where(rng.random((60, 3)) < 0.5, 1.0, 0.0)
    best = np.where(rng.random((60, 3)) < 0.1, 1.0, 2.0)
    found = compared(table_of(np.stack([middle, best, worst, middle[::-1]], axis=1)))
    assert [found["cluster", system].value for system in "ABCD"] == [2, 1, 3, 2]
    assert [(found["rank", system].low, found["rank", system].high) for system in "BC"] == [(1, 1), (4, 4)]
    low, high = found["rank", "A"].low, found["rank", "A"].high
    assert 2 <= low < high <= 3
    assert found["rank", "A"].value == found["rank", "D"].value == 2  # equal means share the better rank


# What cannot be told.


def test_items_that_only_one_system_has_are_left_out():
    ratings = study(12, n_systems=2)
    some = ratings.copy()
    some[20:, 1] = np.nan
    found, fewer = compared(table_of(some)), compared(table_of(ratings[:20]))
    for key in [("mean_difference", "A, B"), ("cliffs_delta", "A, B"), ("p_sign_flip", "A, B"), ("friedman",)]:
        assert found[key].value == pytest.approx(fewer[key].value), key
    assert found["mean_difference", "A, B"].n["items"] == 20
    assert "unequal_items" in found["rank", "A"].notes
    assert "unequal_items" not in fewer["rank", "A"].notes


def test_systems_that_share_no_dialogue():
    ratings = study(13, n_systems=2)
    ratings[::2, 0] = np.nan
    ratings[1::2, 1] = np.nan
    found = compared(table_of(ratings))
    assert found["rank", "A"].value in (1, 2)
    for key, estimate in found.items():
        if key[0] not in ("rank", "cluster"):
            assert (estimate.value, estimate.reason) == (None, "no_shared_items"), key


def test_a_pair_without_shared_dialogues_leaves_the_family():
    ratings = study(14)
    ratings[:15, 0] = np.nan
    ratings[15:, 1] = np.nan
    found = compared(table_of(ratings))
    assert found["p_holm", "A, B"].reason == "no_shared_items"
    assert "|n_family:2" in found["p_holm", "A, C"].signature
    assert found["strength", "A"].value is not None  # A and B are linked through C


def test_one_rater_and_raters_that_share_nothing():
    alone = compared(table_of(study(15, n_raters=1)))
    assert all(estimate.value is not None for estimate in alone.values())
    ratings = study(16, n_systems=2, n_raters=2)
    ratings[:, 0, 1] = np.nan
    ratings[:, 1, 0] = np.nan
    found = compared(table_of(ratings))  # each rater read one system: means can be compared, wins cannot
    assert found["mean_difference", "A, B"].value is not None
    assert found["win_rate", "A, B"].reason == "no_shared_items"


def test_one_dialogue_gives_values_without_tests_or_intervals():
    found = compared(table_of(study(17, n_items=3, gap=0.8), clusters=np.zeros(3, int)))
    for key, estimate in found.items():
        if key[0] in ("p_sign_flip", "p_holm", "friedman", "friedman_chi2"):
            assert estimate.reason == "one_dialogue"
        elif estimate.value is not None:
            assert (estimate.low, estimate.high) == (None, None)
    assert found["mean_difference", "A, B"].notes == ("one_cluster",)
    assert found["cluster", "A"].value == 1


def test_constant_ratings():
    found = compared(table_of(np.ones((25, 3, 3))))
    assert found["mean_difference", "A, B"].value == 0
    assert found["p_holm", "A, B"].value == 1
    assert found["tie_rate", "A, B"].value == 1
    assert found["friedman",].reason == "no_variation"
    assert found["strength", "A"].reason == "no_variation"


def test_a_system_that_always_wins_has_no_finite_strength():
    ratings = np.zeros((25, 2, 3))
    ratings[:, 0] = 2
    found = compared(table_of(ratings))
    assert found["strength", "A"].reason == "separation"
    assert found["cluster", "B"].value == 2


def test_one_system_and_no_rating_say_so():
    one = compared(make_table().where(system="A"))
    assert {estimate.reason for estimate in one.values()} == {"one_system"}
    none = compared(make_table().where(system="Z"))
    assert {estimate.reason for estimate in none.values()} == {"no_ratings"}


def test_few_dialogues_are_those_of_the_pair():
    ratings = study(18, n_items=40)
    ratings[10:, 0] = np.nan
    found = compared(table_of(ratings))
    assert "few_clusters" in found["mean_difference", "A, B"].notes
    assert "few_clusters" not in found["mean_difference", "B, C"].notes


# Simulation: 200 dialogues, 4 systems, 3 raters, three points, as in the studies this is for.


def simulated(rng, shifts, n_items=200):
    """Dialogue, dialogue-by-system and single-rating noise, and raters of different severity, cut at two thresholds."""
    latent = rng.normal(0, 0.6, (n_items, 1, 1)) + rng.normal(0, 0.5, (n_items, len(shifts), 1))
    latent = (
        latent + np.array(shifts)[:, None] + np.array([-0.2, 0.0, 0.2]) + rng.normal(0, 0.6, (n_items, len(shifts), 3))
    )
    return np.digitize(latent, [-1.2, 0.0]).astype(float)


def table_unchecked(ratings):
    frame = frame_of(ratings).assign(is_repeat=False)
    return RatingTable(frame, (EMPATHY,))


@pytest.mark.slow
def test_intervals_cover_and_the_test_holds_its_level():
    rng = np.random.default_rng(20)
    shifts = (0.0, 0.0, 0.3, 0.9)  # A and B are equal; the truth for others is what very many dialogues give
    many = simulated(rng, shifts, n_items=200_000)
    shares = np.stack([(many == point).mean(axis=(0, 2)) for point in EMPATHY.points], axis=1)
    sign = np.sign(np.subtract.outer(np.arange(3), np.arange(3)))
    means, deltas = many.mean(axis=(0, 2)), shares @ sign @ shares.T
    n_studies, covered, n_false = 150, {"mean_difference": [], "cliffs_delta": []}, 0
    for _ in range(n_studies):
        found = compared(table_unchecked(simulated(rng, shifts)), n_bootstrap=600, n_flips=499)
        for first, second in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]:
            label = f"{'ABCD'[first]}, {'ABCD'[second]}"
            for metric, truth in (
                ("mean_difference", means[first] - means[second]),
                ("cliffs_delta", deltas[first, second]),
            ):
                estimate = found[metric, label]
                covered[metric].append(estimate.low <= truth <= estimate.high)
        n_false += found["p_sign_flip", "A, B"].value <= 0.05
    assert 0.92 <= np.mean(covered["mean_difference"]) <= 0.97
    assert 0.92 <= np.mean(covered["cliffs_delta"]) <= 0.97
    assert stats.binomtest(n_false, n_studies, 0.05).pvalue > 0.01
