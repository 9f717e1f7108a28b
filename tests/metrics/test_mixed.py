import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.miscmodels.ordinal_model import OrderedModel

from metrics.mixed import gee, mixed_model
from metrics.table import RatingTable, Scale
from tests.metrics.cast import EMPATHY, SAFETY, make_table


def simulated(
    n_dialogues=40, *, systems=(0.0, 0.5, 1.0), raters=(0.0, 0.6, -0.6), sd=(1.0, 1.0), thresholds=(-1.5, 0.5), seed=0
):
    """A table drawn from the model itself."""
    rng = np.random.default_rng(seed)
    shape = (n_dialogues, len(systems), len(raters))
    latent = np.array(systems)[:, None] + np.array(raters) + rng.logistic(size=shape)
    latent = latent + sd[0] * rng.normal(size=(n_dialogues, 1, 1)) + sd[1] * rng.normal(size=(*shape[:2], 1))
    values = np.searchsorted(thresholds, latent).astype(float)
    rows = [
        {"item": f"d{d}", "system": "ABCD"[s], "rater": f"R{r}", "dimension": "empathy", "value": values[d, s, r]}
        for d, s, r in np.ndindex(shape)
    ]
    scale = Scale("empathy", tuple(float(point) for point in range(len(thresholds) + 1)))
    return RatingTable.from_frame(pd.DataFrame(rows), (scale,))


def changed(table, change):
    """The table after a change to its frame."""
    return RatingTable.from_frame(change(table.frame), table.scales)


def found(rows, metric, **labels):
    [row] = [row for row in rows if row.metric == metric and {**row.stratum, **row.detail} == labels]
    return row.estimate


def treatment(frame):
    """Contrasts of systems and raters against the first of each."""
    columns = (("system", "B"), ("system", "C"), ("rater", "R1"), ("rater", "R2"))
    return np.column_stack([frame[column] == level for column, level in columns]).astype(float)


# The rows.


def test_pairs_of_systems_are_contrasts_of_one_fit():
    rows = mixed_model(simulated(), "empathy")
    ab, ac, bc = (found(rows, "clmm_system", systems=pair) for pair in ("A, B", "A, C", "B, C"))
    assert ab.value + bc.value == pytest.approx(ac.value, abs=1e-9)
    assert ac.value < 0 and ac.high < 0  # C was drawn a logit higher
    p = [found(rows, "p_clmm", systems=pair).value for pair in ("A, B", "A, C", "B, C")]
    error = (ac.high - ac.low) / (2 * stats.norm.ppf(0.975))
    assert p[1] == pytest.approx(2 * stats.norm.sf(abs(ac.value / error)), rel=1e-6)
    holm = [found(rows, "p_clmm_holm", systems=pair).value for pair in ("A, B", "A, C", "B, C")]
    ranked = np.maximum.accumulate(np.sort(p) * [3, 2, 1])
    assert sorted(holm) == pytest.approx(np.minimum(ranked, 1))
    assert "|random:dialogue+response|trapezoid_nodes:" in ab.signature
    severity = [found(rows, "clmm_rater", rater=f"R{r}").value for r in range(3)]
    assert sum(severity) == pytest.approx(0, abs=1e-9)
    assert severity[1] > severity[0] > severity[2]
    thresholds = [found(rows, "clmm_threshold", points=points).value for points in ("0|1", "1|2")]
    assert thresholds[0] < thresholds[1]
    assert found(rows, "clmm_loglik").n["parameters"] == 8


def test_other_names_for_systems_turn_the_sign_and_nothing_else():
    table = simulated()
    names = {"A": "C", "B": "B", "C": "A"}
    mirrored = changed(table, lambda frame: frame.assign(system=frame["system"].map(names)))
    rows, turned = mixed_model(table, "empathy"), mixed_model(mirrored, "empathy")
    for metric, pairs in (("clmm_system", ("A, B", "B, C")), ("p_clmm", ("A, C", "A, C"))):
        sign = -1 if metric == "clmm_system" else 1
        here, there = found(rows, metric, systems=pairs[0]), found(turned, metric, systems=pairs[1])
        assert here.value == pytest.approx(sign * there.value, rel=1e-5)
    for metric in ("clmm_loglik", "clmm_sd_dialogue", "clmm_sd_dialogue_system", "p_proportional_odds"):
        assert found(rows, metric).value == pytest.approx(found(turned, metric).value, rel=1e-5)


@pytest.mark.parametrize("model", [mixed_model, gee])
def test_a_copy_of_a_system_does_not_differ_from_it(model):
    def with_copy(frame):
        return pd.concat([frame, frame[frame["system"] == "A"].assign(system="D")])

    rows = model(changed(simulated(), with_copy), "empathy")
    metric, p = ("clmm_system", "p_clmm") if model is mixed_model else ("gee_system", "p_gee")
    assert found(rows, metric, systems="A, D").value == pytest.approx(0, abs=1e-6)
    assert found(rows, p, systems="A, D").value == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", [mixed_model, gee])
def test_order_of_rows_and_hidden_repeats_change_nothing(model):
    table = simulated(15)

    def with_repeats(frame):
        return pd.concat([frame, frame.head(20).assign(is_repeat=True, value=0)])

    shuffled = changed(table, lambda frame: frame.sample(frac=1, random_state=1))
    assert model(shuffled, "empathy") == model(table, "empathy")
    repeated = model(changed(table, with_repeats), "empathy")
    assert [row.estimate.value for row in repeated] == [row.estimate.value for row in model(table, "empathy")]


def test_two_points_are_a_logistic_model():
    table = simulated(thresholds=(-0.5,))
    rows = mixed_model(table, "empathy")
    assert found(rows, "clmm_system", systems="A, C").value < 0
    assert not [row for row in rows if row.metric == "p_proportional_odds"]  # one threshold cannot be unequal


def test_without_repeated_dialogues_it_is_the_model_of_statsmodels():
    table = changed(simulated(), lambda frame: frame.assign(cluster=range(len(frame)), item=range(len(frame))))
    rows = mixed_model(table, "empathy")
    frame = table.frame
    fixed = treatment(frame)
    theirs = OrderedModel(frame["value"].to_numpy(), fixed, distr="logit").fit(method="bfgs", disp=False, gtol=1e-8)
    ab = found(rows, "clmm_system", systems="A, B")
    assert ab.value == pytest.approx(-theirs.params[0], abs=1e-6)
    assert ab.high - ab.low == pytest.approx(2 * stats.norm.ppf(0.975) * theirs.bse[0], abs=1e-5)
    for metric in ("clmm_sd_dialogue", "clmm_sd_dialogue_system"):
        assert found(rows, metric).reason == "not_identified"


def test_proportional_odds_is_tested_against_free_thresholds():
    """With independent ratings of one rater, free thresholds fit every system's shares exactly."""

    def alone(frame):
        return frame[frame["rater"] == "R0"].assign(cluster=range(120), item=range(120))

    table = changed(simulated(sd=(0, 0)), alone)
    frame = table.frame
    counts = frame.groupby(["system", "value"]).size().unstack().to_numpy()
    saturated = (counts * np.log(counts / counts.sum(axis=1, keepdims=True))).sum()
    rows = mixed_model(table, "empathy")
    ratio = 2 * (saturated - found(rows, "clmm_loglik").value)
    p = found(rows, "p_proportional_odds")
    assert p.value == pytest.approx(stats.chi2.sf(ratio, 2), rel=1e-5)
    assert p.method == "likelihood ratio test, 2 degrees of freedom"


def test_a_system_that_is_spread_out_is_not_a_shift():
    def spread_out(frame):
        is_b = (frame["system"] == "B").to_numpy()
        extremes = np.random.default_rng(1).choice([0, 2], len(frame))
        return frame.assign(value=np.where(is_b & (np.arange(len(frame)) % 5 > 0), extremes, frame["value"]))

    assert found(mixed_model(simulated(), "empathy"), "p_proportional_odds").value > 0.05
    assert found(mixed_model(changed(simulated(), spread_out), "empathy"), "p_proportional_odds").value < 0.001


# Ratings that a model cannot use.


@pytest.mark.parametrize("model", [mixed_model, gee])
def test_a_system_with_only_the_highest_point_is_set_apart(model):
    table = simulated()
    stuck = changed(table, lambda frame: frame.assign(value=frame["value"].where(frame["system"] != "C", 2)))
    rows = model(stuck, "empathy")
    metric = "clmm_system" if model is mixed_model else "gee_system"
    for pair in ("A, C", "B, C"):
        assert found(rows, metric, systems=pair).reason == "separation"
    without = model(changed(table, lambda frame: frame[frame["system"] != "C"]), "empathy")
    assert found(rows, metric, systems="A, B").value == pytest.approx(
        found(without, metric, systems="A, B").value, abs=1e-9
    )
    assert found(rows, metric, systems="A, B").n["responses"] == 80


def test_a_rater_with_only_the_highest_point_is_set_apart():
    stuck = changed(simulated(), lambda frame: frame.assign(value=frame["value"].where(frame["rater"] != "R1", 2)))
    rows = mixed_model(stuck, "empathy")
    assert found(rows, "clmm_rater", rater="R1").reason == "separation"
    assert found(rows, "clmm_rater", rater="R0").reason is None
    assert found(rows, "clmm_system", systems="A, B").n["raters"] == 2


def test_effects_that_together_predict_everything_are_separation():
    """No single system or rater is at one end, yet B is never below A: the likelihood has no maximum."""
    rows = [
        {"item": f"d{d}", "system": s, "rater": "R0", "dimension": "empathy", "value": v}
        for d, (a, b) in enumerate([(0, 1), (0, 2), (0, 1), (0, 2), (1, 2), (0, 1)] * 4)
        for s, v in (("A", 0), ("B", b))
    ]
    table = RatingTable.from_frame(pd.DataFrame(rows), (EMPATHY,))
    for model, metric in ((mixed_model, "clmm_system"), (gee, "gee_system")):
        assert found(model(table, "empathy"), metric, systems="A, B").reason == "separation"


@pytest.mark.parametrize("model", [mixed_model, gee])
def test_constant_ratings_have_no_model(model):
    rows = model(make_table(), "safety")
    assert rows and {row.estimate.reason for row in rows} == {"no_variation"}
    empty = make_table().where(system="Z")
    assert {row.estimate.reason for row in model(empty, "empathy")} <= {"no_ratings"}


def test_one_rater_leaves_dialogues_alone_random():
    rows = mixed_model(changed(simulated(), lambda frame: frame[frame["rater"] == "R0"]), "empathy")
    assert found(rows, "clmm_sd_dialogue_system").reason == "not_identified"
    assert found(rows, "clmm_sd_dialogue").value >= 0
    assert found(rows, "clmm_rater", rater="R0").reason == "one_rater"
    assert "|random:dialogue|" in found(rows, "clmm_system", systems="A, B").signature


def test_raters_who_each_met_one_system_cannot_be_told_from_it():
    table = changed(
        simulated(), lambda frame: frame[(frame["system"] == "A") == (frame["rater"] == "R0")]
    )  # fmt: skip
    for model, metric in ((mixed_model, "clmm_system"), (gee, "gee_system")):
        assert found(model(table, "empathy"), metric, systems="A, B").reason == "not_identified"


def test_dialogues_that_do_not_differ_are_at_the_boundary():
    rows = mixed_model(simulated(30, sd=(0, 1.0), seed=3), "empathy")
    sd = found(rows, "clmm_sd_dialogue")
    assert (sd.value, sd.low, sd.notes) == (0.0, None, ("at_boundary",))
    assert found(rows, "clmm_system", systems="A, C").low is not None


def test_raters_who_never_differ_leave_no_bound_on_the_deviation():
    def unanimous(frame):
        return frame.assign(value=frame.groupby(["item", "system"])["value"].transform("first"))

    rows = mixed_model(changed(simulated(), unanimous), "empathy")
    assert {row.estimate.reason for row in rows if row.metric == "clmm_system"} == {"not_converged"}


def test_an_unused_point_is_passed_over_and_said():
    five = Scale("empathy", (0, 1, 2, 3, 4))
    table = simulated()
    wide = RatingTable.from_frame(table.frame.assign(value=2 * table.frame["value"]), (five,))
    rows, as_was = mixed_model(wide, "empathy"), mixed_model(table, "empathy")
    ab = found(rows, "clmm_system", systems="A, B")
    assert ab.value == found(as_was, "clmm_system", systems="A, B").value
    assert "unused_points" in ab.notes


@given(st.integers(0, 10_000))
@example(141)  # eigenvalues that do not converge
@example(968)  # two clusters whose residuals cancel: a standard error of 0
@settings(max_examples=20, deadline=None)
def test_small_studies_give_numbers_or_reasons(seed):
    rng = np.random.default_rng(seed)
    n_dialogues, n_systems, n_raters = rng.integers(1, (6, 4, 4))
    scale = (EMPATHY, SAFETY)[seed % 2]
    rows = [
        {"item": d, "system": s, "rater": r, "dimension": scale.dimension, "value": rng.choice(scale.points)}
        for d, s, r in np.ndindex(n_dialogues, n_systems, n_raters)
        if rng.random() < 0.8
    ]
    if rows:
        table = RatingTable.from_frame(pd.DataFrame(rows), (scale,))
        for row in mixed_model(table, scale.dimension) + gee(table, scale.dimension):
            assert (row.estimate.value is None) == (row.estimate.reason is not None)


# The companion.


def test_gee_of_two_points_is_logistic_regression_with_clustered_errors():
    table = simulated(thresholds=(-0.5,))
    frame = table.frame
    fixed = treatment(frame)
    theirs = sm.Logit(frame["value"].to_numpy(), sm.add_constant(fixed)).fit(
        disp=False, tol=1e-12, cov_type="cluster",
        cov_kwds={"groups": pd.factorize(frame["item"])[0], "use_correction": False},
    )  # fmt: skip
    ab = found(gee(table, "empathy"), "gee_system", systems="A, B")
    assert ab.value == pytest.approx(-theirs.params[1], abs=1e-6)
    assert ab.high - ab.low == pytest.approx(2 * stats.norm.ppf(0.975) * theirs.bse[1], abs=1e-6)


def test_gee_is_nearer_to_zero_than_the_mixed_model():
    table = simulated(100, systems=(0.0, 1.5), sd=(1.5, 1.5))
    inside = found(mixed_model(table, "empathy"), "clmm_system", systems="A, B").value
    over_all = found(gee(table, "empathy"), "gee_system", systems="A, B").value
    assert 0.4 < over_all / inside < 0.9


@pytest.mark.slow
def test_the_model_finds_what_it_was_drawn_from():
    """40 studies of 60 dialogues: no bias, honest standard errors, intervals that cover."""
    truth, values, widths, deviations = 1.0, [], [], []
    for seed in range(40):
        rows = mixed_model(simulated(60, systems=(truth, 0.0), raters=(0.0, 0.5), seed=seed), "empathy")
        ab = found(rows, "clmm_system", systems="A, B")
        values.append(ab.value)
        widths.append(ab.high - ab.low)
        deviations.append([found(rows, f"clmm_sd_{name}").value for name in ("dialogue", "dialogue_system")])
    errors = np.array(widths) / (2 * stats.norm.ppf(0.975))
    assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / np.sqrt(40))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.33)  # an SD of 40 values is known to about 11 %
    assert np.mean(np.abs(np.array(values) - truth) < np.array(widths) / 2) >= 0.88
    assert np.median(deviations, axis=0) == pytest.approx([1, 1], abs=0.15)
