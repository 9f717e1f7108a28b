import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from metrics import panels
from metrics.agreement import (
    category_counts,
    cohen_kappa,
    conger_kappa,
    fleiss_kappa,
    gwet_ac,
    icc_agreement,
    krippendorff_alpha,
)
from metrics.panels import agreement_panel, repeat_agreement
from metrics.table import RatingTable
from tests.metrics.cast import EMPATHY, RATERS, SAFETY, make_frame, make_table
from tests.metrics.test_comparison import simulated, table_unchecked


def rows_by_metric(rows, **stratum):
    return {row.metric: row.estimate for row in rows if row.stratum == stratum and not row.detail}


def test_panel_has_every_coefficient_pooled_and_by_stratum():
    rows = agreement_panel(make_table(), seed=1, n_bootstrap=200)
    strata = [dict(pairs) for pairs in dict.fromkeys(tuple(row.stratum.items()) for row in rows)]
    assert strata == [{}, {"system": "A"}, {"system": "B"}, {"dataset": "smile"}, {"dataset": "soul"}]
    pooled = [row for row in rows if row.dimension == "empathy" and not row.stratum]
    assert list(rows_by_metric(pooled)) == [
        "percent_agreement",
        "fleiss_kappa",
        "krippendorff_alpha_nominal",
        "krippendorff_alpha_ordinal",
        "krippendorff_alpha_interval",
        "gwet_ac1",
        "gwet_ac2_quadratic",
        "brennan_prediger",
        "conger_kappa",
        "icc_2_1",
        "icc_2_k",
    ]
    assert [row.detail["point"] for row in pooled if row.metric == "category_kappa"] == ["0", "1", "2"]
    pairs = [row.detail["raters"] for row in pooled if row.metric == "cohen_kappa_quadratic"]
    assert pairs == ["ann, bob", "ann, cem", "bob, cem"]


def test_panel_gives_the_values_of_the_plain_functions_with_their_counts():
    table = make_table(n_items=30)
    ratings = table.matrix("empathy").ratings
    found = rows_by_metric(agreement_panel(table, by=(), seed=1, n_bootstrap=200)[:20])
    assert found["fleiss_kappa"].value == fleiss_kappa(ratings, EMPATHY)
    assert found["krippendorff_alpha_ordinal"].value == krippendorff_alpha(ratings, EMPATHY)
    assert found["gwet_ac2_quadratic"].value == gwet_ac(ratings, EMPATHY, weights="quadratic")
    assert found["conger_kappa"].value == conger_kappa(ratings, EMPATHY)
    assert found["icc_2_k"].value == icc_agreement(ratings, EMPATHY, of_mean=True)
    assert dict(found["fleiss_kappa"].n) == {
        "items": 30,
        "responses": 60,
        "ratings": 180,
        "raters": 3,
        "clusters": 30,
        "responses_used": 60,
        "resamples": 200,
        "undefined_resamples": 0,
    }
    assert found["fleiss_kappa"].signature == (
        "name:fleiss_kappa|version:2|dimension:empathy|scale:0,1,2|stratum:all|interval:percentile-by-cluster"
        f"|confidence:0.95|n_bootstrap:200|seed:1|numpy:{np.__version__}"
        f"|data:{table.of_dimension('empathy').content_hash()}"
    )


def test_a_stratum_has_the_same_numbers_whatever_else_is_asked():
    table = make_table(n_items=20)
    among_others = [row for row in agreement_panel(table, seed=4) if not row.stratum]
    assert agreement_panel(table, by=(), seed=4) == among_others


def test_interval_of_fleiss_equals_a_plain_loop_over_statsmodels(monkeypatch):
    table = make_table(n_items=25)
    drawn = []
    plain = panels.resample
    monkeypatch.setattr(panels, "resample", lambda *args, **kw: drawn.append(plain(*args, **kw)) or drawn[-1])
    found = rows_by_metric(agreement_panel(table.of_dimension("empathy"), by=(), seed=1, n_bootstrap=300))

    matrix = table.matrix("empathy")
    counts = category_counts(matrix.ratings, EMPATHY)
    [resamples] = drawn
    looped = []
    for times in resamples.counts_BP:
        clusters = np.repeat(resamples.member_P, times)
        rows = np.concatenate([np.flatnonzero(matrix.clusters == cluster) for cluster in clusters])
        looped.append(statsmodels_fleiss(counts[rows]))
    kappa = found["fleiss_kappa"]
    assert (kappa.low, kappa.high) == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=1e-12)


def test_interval_of_fleiss_covers_about_as_often_as_it_says():
    # A rater gives the true point with chance 3/4, else any point; both responses to a dialogue share the truth.
    rng = np.random.default_rng(8)
    p_right = 3 / 4 + 1 / 12
    true_kappa = (p_right**2 + 2 * (1 / 12) ** 2 - 1 / 3) / (1 - 1 / 3)
    n_studies, n_items = 120, 60
    n_covered = 0
    for _ in range(n_studies):
        truth = np.repeat(rng.integers(0, 3, n_items), 6)
        guess = np.where(rng.random(truth.size) < 3 / 4, truth, rng.integers(0, 3, truth.size))
        places = pd.MultiIndex.from_product([range(n_items), list("AB"), RATERS], names=["item", "system", "rater"])
        frame = places.to_frame(index=False).assign(dimension="empathy", value=guess)
        rows = agreement_panel(RatingTable.from_frame(frame, [EMPATHY]), by=(), seed=1, n_bootstrap=300)
        kappa = rows_by_metric(rows)["fleiss_kappa"]
        n_covered += kappa.low <= true_kappa <= kappa.high
    assert 0.89 <= n_covered / n_studies <= 0.99


@pytest.mark.slow
def test_intervals_of_agreement_cover_on_800_responses_by_3_raters():
    rng, shifts = np.random.default_rng(21), (0.0, 0.0, 0.3, 0.9)
    many = simulated(rng, shifts, n_items=200_000).reshape(-1, 3)  # the truth is what very many dialogues give
    truth = {
        "fleiss_kappa": fleiss_kappa(many, EMPATHY),
        "krippendorff_alpha_ordinal": krippendorff_alpha(many, EMPATHY),
        "gwet_ac2_quadratic": gwet_ac(many, EMPATHY, weights="quadratic"),
        "icc_2_1": icc_agreement(many, EMPATHY),
    }
    covered = {name: [] for name in truth}
    for _ in range(200):
        found = rows_by_metric(agreement_panel(table_unchecked(simulated(rng, shifts)), by=(), seed=1, n_bootstrap=300))
        for name, value in truth.items():
            covered[name].append(found[name].low <= value <= found[name].high)
    for name, hits in covered.items():
        assert 0.92 <= np.mean(hits) <= 0.97, name


def test_constant_ratings_are_reported_in_full():
    rows = [row for row in agreement_panel(make_table(), seed=1, n_bootstrap=200) if row.dimension == "safety"]
    pooled = rows_by_metric(rows)
    for name in ("fleiss_kappa", "krippendorff_alpha_ordinal", "conger_kappa", "icc_2_1"):
        assert (pooled[name].value, pooled[name].reason) == (None, "no_variation")
    for name in ("percent_agreement", "gwet_ac1", "brennan_prediger"):
        assert (pooled[name].value, pooled[name].low, pooled[name].high) == (1.0, None, None)
        assert pooled[name].notes == ("degenerate_interval",)
    [bound] = [row for row in rows if row.metric == "other_point_rate" and not row.stratum]
    assert dict(bound.detail) == {"point": "1"}
    assert (bound.estimate.value, bound.estimate.low) == (0.0, 0.0)
    assert bound.estimate.high == pytest.approx(1 - 0.05 ** (1 / 12), abs=1e-12)


def test_the_convention_of_the_paper_has_to_be_asked_for_and_is_named():
    rows = agreement_panel(make_table(), by=(), seed=1, n_bootstrap=200, constant_kappa="paper_one")
    safety = rows_by_metric(row for row in rows if row.dimension == "safety")
    assert (safety["fleiss_kappa"].value, safety["fleiss_kappa"].low) == (1.0, None)
    assert safety["fleiss_kappa"].notes == ("one_by_convention",)
    assert safety["fleiss_kappa"].signature.endswith("|constant_kappa:paper_one")
    assert safety["krippendorff_alpha_nominal"].reason == "no_variation"
    empathy = rows_by_metric(row for row in rows if row.dimension == "empathy")
    assert empathy["fleiss_kappa"].value < 1
    assert "constant_kappa" not in empathy["fleiss_kappa"].signature


def test_resamples_without_a_kappa_are_counted():
    frame = make_frame(n_items=40)
    frame = frame[frame["dimension"] == "safety"].reset_index(drop=True)
    frame.loc[0, "value"] = 0
    kappa = rows_by_metric(agreement_panel(RatingTable.from_frame(frame, [SAFETY]), by=(), seed=1))["fleiss_kappa"]
    assert kappa.n["undefined_resamples"] / kappa.n["resamples"] == pytest.approx((1 - 1 / 40) ** 40, abs=0.03)
    assert "undefined_resamples" in kappa.notes


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda f: f["rater"] == "ann", "one_rater"),
        (lambda f: (f["rater"] == "ann") == (f["item"] == "d0"), None),
        (
            lambda f: (f["rater"] == "ann") & (f["item"] == "d0") | (f["rater"] == "bob") & (f["item"] == "d1"),
            "no_overlap",
        ),
        (lambda f: f["item"] == "none", "no_ratings"),
    ],
)
def test_panel_says_why_there_is_no_agreement_instead_of_failing(keep, reason):
    frame = make_frame(n_items=6)
    table = RatingTable.from_frame(frame[keep(frame)], (EMPATHY, SAFETY))
    found = rows_by_metric(row for row in agreement_panel(table, by=(), seed=1) if row.dimension == "empathy")
    assert found["fleiss_kappa"].reason == reason


def test_icc_says_how_many_complete_responses_it_used():
    frame = make_frame(n_items=10)
    gap = (frame["rater"] == "cem") & frame["item"].isin(["d0", "d1", "d2"])
    table = RatingTable.from_frame(frame[~gap], (EMPATHY, SAFETY))
    found = rows_by_metric(agreement_panel(table, by=(), seed=1)[:20])
    assert found["icc_2_1"].n["responses_used"] == 14
    assert found["fleiss_kappa"].n["responses_used"] == 20
    never_complete = frame[~((frame["rater"] == "cem") ^ frame["item"].isin(["d9"]))]
    table = RatingTable.from_frame(never_complete, (EMPATHY, SAFETY))
    assert rows_by_metric(agreement_panel(table, by=(), seed=1)[:20])["icc_2_1"].reason == "no_complete_responses"


def test_raters_are_compared_with_themselves():
    frame = make_frame(n_items=20, n_repeats=10)
    frame = frame[frame["dimension"] == "empathy"].reset_index(drop=True)
    first = frame[~frame["is_repeat"]].set_index(["item", "system", "rater"])["value"]
    second = frame[frame["is_repeat"]].set_index(["item", "system", "rater"])["value"]
    rows = repeat_agreement(RatingTable.from_frame(frame, [EMPATHY]), "empathy", seed=1, n_bootstrap=300)
    assert [dict(row.stratum) for row in rows[::2]] == [{}, *({"rater": rater} for rater in RATERS)]

    identical, kappa = rows[0].estimate, rows[1].estimate
    assert identical.value == pytest.approx((second == first.loc[second.index]).mean())
    paired = np.column_stack([first.loc[second.index], second]).astype(float)
    assert kappa.value == pytest.approx(cohen_kappa(paired, EMPATHY, weights="quadratic"))
    assert kappa.low < kappa.value < kappa.high
    assert (kappa.n["responses_used"], kappa.n["responses"], kappa.n["raters"]) == (60, 20, 3)


def test_without_repeats_nobody_can_be_compared_with_themselves():
    rows = repeat_agreement(make_table(), "empathy", seed=1)
    assert {row.estimate.reason for row in rows} == {"no_repeats"}
