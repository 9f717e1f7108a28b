import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from metrics.intervals import (
    bootstrap_interval,
    bootstrap_intervals,
    cluster_sums,
    event_upper_bound,
    mean_score,
    resample,
)
from metrics.table import RatingTable
from tests.metrics.cast import EMPATHY, SAFETY, make_frame, make_table


def mean_of(totals):
    return totals[..., 0] / totals[..., 1]


def resampled_mean(values, *, seed=0, n_bootstrap=2000):
    sums = np.column_stack([values, np.ones(len(values))])
    return resample(sums, rng=np.random.default_rng(seed), n_bootstrap=n_bootstrap)


def test_every_resample_draws_as_many_clusters_as_there_are():
    for n_clusters in (7, 400):  # both ways of drawing
        resamples = resampled_mean(np.arange(n_clusters) % 5, n_bootstrap=50)
        assert resamples.patterns_PS.shape == (5, 2)
        assert (resamples.counts_BP.sum(axis=1) == n_clusters).all()
        assert (resamples.totals_BS[:, 1] == n_clusters).all()
        assert resamples.n_clusters == n_clusters


def test_patterns_are_drawn_as_often_as_they_occur():
    for n_clusters in (20, 400):
        values = np.repeat([0.0, 1.0, 2.0], [n_clusters // 2, n_clusters // 4, n_clusters // 4])
        resamples = resampled_mean(values, n_bootstrap=4000)
        share = resamples.counts_BP / n_clusters
        assert share.mean(axis=0) == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
        assert share.var(axis=0) * n_clusters == pytest.approx([0.25, 0.1875, 0.1875], rel=0.1)


def test_the_order_of_clusters_changes_nothing():
    values = np.random.default_rng(3).normal(size=30)
    one, other = resampled_mean(values), resampled_mean(values[::-1])
    assert np.array_equal(one.totals_BS, other.totals_BS)


def test_percentile_interval_is_the_quantiles_of_the_replicates():
    resamples = resampled_mean(np.random.default_rng(1).normal(size=50))
    interval = bootstrap_interval(resamples, mean_of, confidence=0.9)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(mean_of(resamples.totals_BS), [0.05, 0.95]))
    assert interval.method == "percentile bootstrap by cluster, 2000 resamples, 90%"


def test_bca_interval_agrees_with_scipy():
    values = np.random.default_rng(2).exponential(size=60)
    ours = bootstrap_interval(resampled_mean(values, n_bootstrap=40_000), mean_of, kind="bca")
    theirs = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(9))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.012)
    assert ours.method.startswith("bca")
    assert theirs.confidence_interval.low > bootstrap_interval(resampled_mean(values), mean_of).low  # BCa does matter


def test_bca_says_so_where_it_has_to_fall_back():
    def undefined_without_the_last(totals):
        return np.where(totals[..., 0] > 0, mean_of(totals), np.nan)

    interval = bootstrap_interval(resampled_mean(np.eye(30)[0]), undefined_without_the_last, kind="bca")
    assert interval.method.startswith("percentile")
    assert interval.n_undefined > 0
    assert "undefined_resamples" in interval.notes


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_statistics_together_have_the_intervals_they_have_alone(kind):
    """One that is always defined, one not without the last cluster, one never, and one without width."""
    statistics = [
        mean_of,
        lambda totals: np.where(totals[..., 0] > 0, mean_of(totals), np.nan),
        lambda totals: np.full(totals.shape[:-1], np.nan),
        lambda totals: np.ones(totals.shape[:-1]),
    ]
    resamples = resampled_mean(np.eye(30)[0])
    together = bootstrap_intervals(
        resamples, lambda totals: np.stack([one(totals) for one in statistics], axis=-1), kind=kind
    )
    for interval, statistic in zip(together, statistics, strict=True):
        alone = bootstrap_interval(resamples, statistic, kind=kind)
        assert str(interval) == str(alone)
        assert str(interval.value) == str(float(statistic(resamples.observed_S)))
    assert [interval.method.split()[0] for interval in together] == [kind, "percentile", "no", "no"]


@pytest.mark.parametrize(
    ("values", "note"), [([1.0], "one_cluster"), ([1.0, 1.0, 1.0], "degenerate_interval"), ([0.0, 1.0], "few_clusters")]
)
def test_an_interval_that_cannot_be_trusted_carries_a_note(values, note):
    interval = bootstrap_interval(resampled_mean(np.array(values)), mean_of)
    assert note in interval.notes
    assert (interval.low is None) == (note != "few_clusters")


def test_an_undefined_value_has_no_interval():
    interval = bootstrap_interval(resampled_mean(np.arange(5.0)), lambda totals: np.full(totals.shape[:-1], np.nan))
    assert (interval.low, interval.high, interval.n_undefined) == (None, None, 2000)


def test_a_95_percent_interval_by_dialogue_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    n_studies, n_dialogues, n_systems = 300, 60, 4
    covered = {"by dialogue": 0, "by response": 0}
    for _ in range(n_studies):
        values = rng.normal(0, 0.6, (n_dialogues, 1)) + rng.normal(0, 0.6, (n_dialogues, n_systems))
        sums = np.column_stack([values.ravel(), np.ones(values.size)])
        for unit, clusters in (
            ("by dialogue", np.repeat(np.arange(n_dialogues), n_systems)),
            ("by response", np.arange(values.size)),
        ):
            resamples = resample(cluster_sums(sums, clusters), rng=rng, n_bootstrap=400)
            interval = bootstrap_interval(resamples, mean_of)
            covered[unit] += interval.low <= 0 <= interval.high
    assert 0.91 <= covered["by dialogue"] / n_studies <= 0.98
    assert covered["by response"] / n_studies < 0.88  # what forgetting the dialogue would cost


def test_bound_on_an_event_that_was_never_seen():
    assert event_upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100), abs=1e-12)  # 2.95 %, about 3 / n
    assert event_upper_bound(0, 100) == pytest.approx(0.0295, abs=5e-5)
    assert event_upper_bound(4, 4) == 1.0


@given(st.integers(1, 200), st.data())
@settings(max_examples=30, deadline=None)
def test_at_the_bound_so_few_events_have_the_stated_chance(n, data):
    n_events = data.draw(st.integers(0, n - 1))
    assert stats.binom.cdf(n_events, n, event_upper_bound(n_events, n)) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(("n_events", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_an_impossible_count_has_no_bound(n_events, n):
    with pytest.raises(ValueError, match="events in"):
        event_upper_bound(n_events, n)


def test_mean_is_over_raters_within_a_response_first():
    frame = make_frame(n_items=2)
    frame = frame[(frame["dimension"] == "empathy") & (frame["system"] == "A")]
    frame["value"] = [0, 0, 0, 2, 2, 2]  # d0 rated 0 by all, d1 rated 2 by all …
    kept = frame.drop(frame.index[-2:])  # … but only by one of them
    [row] = mean_score(RatingTable.from_frame(kept, (EMPATHY, SAFETY)), "empathy", seed=1)
    assert row.estimate.value == 1.0
    assert dict(row.estimate.n) == {
        "items": 2,
        "responses": 2,
        "ratings": 4,
        "raters": 3,
        "clusters": 2,
        "resamples": 2000,
        "undefined_resamples": 0,
    }


def test_mean_score_has_a_row_per_stratum_and_says_how_it_was_made():
    rows = mean_score(make_table(n_items=30), "empathy", by=("dataset", "system"), seed=1, n_bootstrap=500)
    assert [tuple(row.stratum.values()) for row in rows] == [
        ("smile", "A"),
        ("smile", "B"),
        ("soul", "A"),
        ("soul", "B"),
    ]
    for row in rows:
        assert row.estimate.low < row.estimate.value < row.estimate.high
        assert row.estimate.method.startswith("bca bootstrap by cluster, 500 resamples, 95%")
    signature = rows[0].estimate.signature
    assert signature.startswith("name:mean_score|version:1|dimension:empathy|scale:0,1,2|")
    assert (
        "|stratum:dataset=smile,system=A|interval:bca-by-cluster|confidence:0.95|n_bootstrap:500|seed:1|" in signature
    )


def test_the_same_seed_gives_the_same_numbers():
    table = make_table(n_items=20)
    first, second = (mean_score(table, "empathy", seed=4) for _ in range(2))
    assert first == second
    assert mean_score(table, "empathy", seed=5) != first


def test_mean_of_nothing_is_undefined():
    [row] = mean_score(make_table().where(system="Z"), "empathy", by=(), seed=1)
    assert (row.estimate.value, row.estimate.reason) == (None, "no_ratings")
