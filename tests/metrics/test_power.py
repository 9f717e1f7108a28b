import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from metrics.power import (
    Components,
    detectable_shift,
    minimum_detectable_difference,
    plan,
    power_of,
    variance_components,
    variance_rows,
)
from metrics.table import RatingTable, Scale
from tests.metrics.cast import make_table

HOW = {"seed": 1, "n_bootstrap": 300}


def fine_table(n_dialogues, *, dialogue_system, residual, systems="ABC", n_raters=3, seed=0, shift=0.0):
    """Ratings to a hundredth of a point, so that what was drawn is what is rated; raters favour systems by `shift`."""
    rng = np.random.default_rng(seed)
    shape = (n_dialogues, len(systems), n_raters)
    values = rng.normal(0, 1, (n_dialogues, 1, 1)) + rng.normal(0, 0.5, (1, 1, n_raters))
    values = values + shift * rng.normal(0, 1, (1, *shape[1:]))
    values = values + rng.normal(0, dialogue_system**0.5, (*shape[:2], 1)) + rng.normal(0, residual**0.5, shape)
    points = tuple(float(point) for point in np.round(np.arange(-900, 901) / 100, 2))
    rows = [
        {"item": f"d{d}", "system": systems[s], "rater": f"R{r}", "dimension": "fine",
         "value": float(np.round(values[d, s, r], 2))}
        for d, s, r in np.ndindex(shape)
    ]  # fmt: skip
    return RatingTable.from_frame(pd.DataFrame(rows), (Scale("fine", points),))


def found(rows, **detail):
    [row] = [row for row in rows if row.detail == detail]
    return row.estimate


@pytest.mark.parametrize("n", [12, 40, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_power_is_that_of_statsmodels(n, alpha):
    for effect in (0.05, 0.3, 0.8):
        theirs = TTestPower().power(effect, n, alpha)  # rests on scipy's noncentral t, good to seven digits or so
        assert power_of(effect, 1 / np.sqrt(n), n, alpha=alpha) == pytest.approx(theirs, abs=1e-6)
    theirs = TTestPower().solve_power(nobs=n, alpha=alpha, power=0.8) * np.sqrt(n)
    assert detectable_shift(n, alpha=alpha) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_power_is_an_integral_over_the_observed_spread(n):
    critical = stats.t.ppf(0.975, n - 1)

    def found_at(chi):
        bar = critical * chi / np.sqrt(n - 1)
        return (stats.norm.sf(bar - 2.5) + stats.norm.cdf(-bar - 2.5)) * stats.chi.pdf(chi, n - 1)

    exact = integrate.quad(found_at, 0, 20, epsabs=1e-13, limit=200)[0]
    assert power_of(2.5, 1, n) == pytest.approx(exact, abs=1e-10)


def test_no_difference_is_found_as_often_as_the_level_says():
    assert power_of(0, 1, 40, alpha=0.05) == pytest.approx(0.05, abs=1e-9)
    assert power_of(50, 1, 100) == 1.0


def test_100_dialogues_by_3_raters_detect_what_the_normal_formula_says():
    """SD of a dialogue's difference 0.6, as in ratings like ours: 0.17 points alone and 0.21 among six pairs."""
    error = 0.6 / np.sqrt(100)
    alone, among_six = detectable_shift(100) * error, detectable_shift(100, alpha=0.05 / 6) * error
    assert (round(alone, 2), round(among_six, 2)) == (0.17, 0.21)
    normal = stats.norm.ppf(0.8) - stats.norm.ppf(0.05 / 12)
    assert among_six == pytest.approx(normal * error, rel=0.02)


def test_detectable_difference_of_a_table():
    table = fine_table(50, dialogue_system=0.2, residual=0.3)
    means = table.frame.groupby(["item", "system"])["value"].mean().unstack()
    rows = minimum_detectable_difference(table, "fine", **HOW)
    spreads = {}
    for pair in ("A, B", "A, C", "B, C"):
        one, other = pair.split(", ")
        spreads[pair] = (means[one] - means[other]).std()
        for n_tests in (1, 3):
            shift = TTestPower().solve_power(nobs=50, alpha=0.05 / n_tests, power=0.8)
            estimate = found(rows, systems=pair, tests=str(n_tests))
            assert estimate.value == pytest.approx(shift * spreads[pair], rel=1e-4)
            assert estimate.low < estimate.value < estimate.high
    typical = np.sqrt(np.mean(np.square(list(spreads.values()))))
    shift = TTestPower().solve_power(nobs=50, alpha=0.05, power=0.8)
    assert found(rows, tests="1").value == pytest.approx(shift * typical, rel=1e-4)
    assert "|power:0.8|alpha:0.05|" in rows[0].estimate.signature


def test_two_systems_are_one_test():
    rows = minimum_detectable_difference(make_table(20), "empathy", **HOW)
    assert [dict(row.detail) for row in rows] == [{"systems": "A, B", "tests": "1"}, {"tests": "1"}]
    assert rows[0].estimate.value == pytest.approx(rows[1].estimate.value)


def test_only_dialogues_with_both_systems_count():
    frame = fine_table(30, dialogue_system=0.2, residual=0.3, systems="AB").frame
    missing = frame[~((frame["system"] == "B") & frame["item"].isin(["d0", "d1", "d2"]))]
    scales = fine_table(2, dialogue_system=0.2, residual=0.3).scales
    rows = minimum_detectable_difference(RatingTable.from_frame(missing, scales), "fine", **HOW)
    assert rows[0].estimate.n["dialogues_used"] == 27
    without = frame[~frame["item"].isin(["d0", "d1", "d2"])]
    same = minimum_detectable_difference(RatingTable.from_frame(without, scales), "fine", **HOW)
    assert rows[0].estimate.value == pytest.approx(same[0].estimate.value, abs=1e-9)


def test_what_has_no_detectable_difference():
    constant = minimum_detectable_difference(make_table(), "safety", **HOW)
    assert {row.estimate.reason for row in constant} == {"no_variation"}
    one = minimum_detectable_difference(make_table(1), "empathy", **HOW)
    assert {row.estimate.reason for row in one} == {"one_dialogue"}
    assert minimum_detectable_difference(make_table().where(system="A"), "empathy", **HOW) == []


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_components_are_found_again(shift):
    """Also where raters favour systems, since that is the same in every dialogue."""
    table = fine_table(600, dialogue_system=0.2, residual=0.3, shift=shift)
    components = variance_components(table, "fine")
    assert components.dialogue_system == pytest.approx(0.2, rel=0.15)
    assert components.residual == pytest.approx(0.3, rel=0.1)
    for row, truth in zip(variance_rows(table, "fine", **HOW), (0.2, 0.3), strict=True):
        assert row.estimate.low - 0.02 < truth < row.estimate.high + 0.02


def test_components_give_back_the_standard_error_of_the_table():
    """With complete ratings the two parts add up exactly to the variance of the differences themselves."""
    table = fine_table(40, dialogue_system=0.2, residual=0.3, systems="AB")
    means = table.frame.groupby(["item", "system"])["value"].mean().unstack()
    observed = (means["A"] - means["B"]).std() / np.sqrt(40)
    assert variance_components(table, "fine").standard_error(40, 3) == pytest.approx(observed, rel=1e-9)


def test_components_of_unequal_numbers_of_raters():
    table = fine_table(600, dialogue_system=0.2, residual=0.3)
    frame = table.frame
    is_dropped = (frame["rater"] == "R2") & (frame["item"].str[1:].astype(int) % 2 == 0)
    components = variance_components(RatingTable.from_frame(frame[~is_dropped], table.scales), "fine")
    assert components.dialogue_system == pytest.approx(0.2, rel=0.15)
    assert components.residual == pytest.approx(0.3, rel=0.1)


def test_one_rater_cannot_tell_the_components_apart():
    table = fine_table(10, dialogue_system=0.2, residual=0.3, n_raters=1)
    assert {row.estimate.reason for row in variance_rows(table, "fine", **HOW)} == {"not_identified"}
    assert variance_components(table, "fine") is None
    assert variance_components(make_table(), "safety") is None
    one_system = variance_rows(make_table().where(system="A"), "empathy", **HOW)
    assert {row.estimate.reason for row in one_system} == {"one_system"}


def test_a_plan_holds_in_simulated_studies():
    components = Components(dialogue_system=0.14, residual=0.13)
    [design] = plan(components, differences=[0.2], dialogues=[60], raters=[3], n_systems=4, cost_per_rating=0.5)
    rng = np.random.default_rng(0)
    n_studies = 4000
    dialogue = rng.normal(0, 0.14**0.5, (n_studies, 60, 2))
    rating = rng.normal(0, 0.13**0.5, (n_studies, 60, 2, 3)).mean(axis=3)
    scores = dialogue + rating + np.array([0.2, 0.0])
    p = stats.ttest_1samp(scores[..., 0] - scores[..., 1], 0, axis=1).pvalue
    error = 3 * np.sqrt(0.25 / n_studies)
    assert np.mean(p < 0.05) == pytest.approx(design.power_one_test, abs=error)
    assert np.mean(p < 0.05 / 6) == pytest.approx(design.power_all_pairs, abs=error)
    assert (design.n_ratings, design.cost) == (720, 360.0)


def test_more_dialogues_are_worth_more_than_more_raters():
    """300 ratings per system, spent three ways, beside the powers of simulated ratings on three points."""
    components = Components(dialogue_system=0.14, residual=0.127)
    spent = [(300, 1, 0.93), (100, 3, 0.67), (60, 5, 0.54)]
    powers = []
    for n_dialogues, n_raters, simulated in spent:
        [design] = plan(
            components, differences=[0.145], dialogues=[n_dialogues], raters=[n_raters], n_systems=4, cost_per_rating=1
        )
        assert design.cost == 1200
        assert design.power_one_test == pytest.approx(simulated, abs=0.06)
        powers.append(design.power_one_test)
    assert powers == sorted(powers, reverse=True)


def test_a_plan_lists_every_design_cheapest_first():
    designs = plan(
        Components(0.1, 0.2), differences=[0.1, 0.2], dialogues=[50, 100], raters=[1, 3], n_systems=3, cost_per_rating=2
    )
    assert len(designs) == 8
    assert [design.cost for design in designs] == sorted(design.cost for design in designs)
    for design in designs:
        reached = power_of(design.detectable_all_pairs, design.standard_error, design.n_dialogues, alpha=0.05 / 3)
        assert reached == pytest.approx(0.8, abs=1e-6)
        assert design.power_all_pairs < design.power_one_test


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_systems": 1},
        {"dialogues": [1]},
        {"raters": [0]},
        {"differences": [0]},
        {"cost_per_rating": -1},
        {"power": 1},
    ],
)
def test_an_impossible_plan_is_refused(wrong):
    fine = {"differences": [0.1], "dialogues": [50], "raters": [3], "n_systems": 3, "cost_per_rating": 1}
    with pytest.raises(ValueError, match=r"a design needs|a difference to find|power is 1"):
        plan(Components(0.1, 0.2), **{**fine, **wrong})


def test_impossible_variances_are_refused():
    for wrong in ((-0.1, 0.2), (0.0, 0.0)):
        with pytest.raises(ValueError, match="variances are 0 or more"):
            Components(*wrong)
    with pytest.raises(ValueError, match="1 dialogues"):
        power_of(0.1, 0.1, 1)
