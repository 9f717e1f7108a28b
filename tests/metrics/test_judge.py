import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metrics.agreement import cohen_kappa
from metrics.judge import alternative_annotator_test, judge_agreement, split_judges
from metrics.panels import agreement_panel
from metrics.table import RatingTable
from tests.metrics.cast import EMPATHY, RATERS, SAFETY, make_frame, make_table

JUDGE = "judge:x"


def with_judge(frame, value, *, dimension="empathy"):
    """The table with a judge's ratings, one per response: value(the ratings of ann, bob, cem) ► a point."""
    wide = frame[frame["dimension"] == dimension].pivot(index=["item", "system"], columns="rater", values="value")
    rows = [
        {
            "item": item,
            "system": system,
            "rater": JUDGE,
            "dimension": dimension,
            "value": value(row),
            "is_repeat": False,
        }
        for (item, system), row in wide.iterrows()
    ]
    datasets = frame.drop_duplicates("item").set_index("item")["dataset"]
    judged = pd.DataFrame(rows).assign(dataset=lambda rows: rows["item"].map(datasets))
    table = RatingTable.from_frame(pd.concat([frame, judged], ignore_index=True), (EMPATHY, SAFETY))
    return split_judges(table, [JUDGE])


def middle(row):
    return sorted(row)[1]


def elsewhere(judge):
    """The same ratings of items that nobody else met."""
    frame = judge.frame
    return RatingTable.from_frame(frame.assign(item="z" + frame["item"], cluster="z" + frame["item"]), judge.scales)


def found(rows, metric, **stratum):
    [row] = [row for row in rows if row.metric == metric and row.stratum == stratum]
    return row.estimate


# Apart from the people.


def test_a_judge_is_taken_out_of_what_people_rated():
    frame = make_frame(20)
    human, judge = with_judge(frame, middle)
    assert human.levels("rater") == RATERS
    assert judge.levels("rater") == (JUDGE,)
    assert len(judge) == 40
    alone = RatingTable.from_frame(frame, (EMPATHY, SAFETY))
    how = {"seed": 1, "n_bootstrap": 50, "by": ()}
    assert agreement_panel(human, **how) == agreement_panel(alone, **how)


def test_a_judge_has_to_be_there_alone_and_apart():
    human, judge = with_judge(make_frame(8), middle)
    with pytest.raises(ValueError, match="no ratings by judge:y; there are ratings by ann, bob, cem"):
        split_judges(human, ["judge:y"])
    with pytest.raises(ValueError, match="one judge at a time, got 3"):
        alternative_annotator_test(human, human, "empathy", epsilon=0.1)
    with pytest.raises(ValueError, match="ann is among the human raters"):
        judge_agreement(human, human.where(rater="ann"), "empathy", seed=1)
    with pytest.raises(ValueError, match="epsilon is 1"):
        alternative_annotator_test(human, judge, "empathy", epsilon=1)


# The alternative annotator test.


def by_hand(human, judge, left_out, *, accuracy, by_dialogue, epsilon):
    """Advantage of judge and rater and p, response by response."""
    wide = human.frame[human.frame["dimension"] == "empathy"].pivot(
        index=["item", "system"], columns="rater", values="value"
    )
    machine = judge.frame.set_index(["item", "system"])["value"]

    def closeness(value, others):
        return np.mean(others == value) if accuracy else -np.sqrt(np.mean((others - value) ** 2))

    judge_wins, rater_wins = [], []
    for response, row in wide.iterrows():
        others = row.drop(left_out).to_numpy()
        one, other = closeness(machine[response], others), closeness(row[left_out], others)
        judge_wins.append(one >= other - 1e-12)
        rater_wins.append(other >= one - 1e-12)
    lead = pd.Series(np.subtract(rater_wins, judge_wins, dtype=float), index=wide.index)
    if by_dialogue:
        lead = lead.groupby("item").mean()
    t = (lead.mean() - epsilon) / (lead.std() / np.sqrt(len(lead)))
    return np.mean(judge_wins), np.mean(rater_wins), stats.t.cdf(t, len(lead) - 1)


@pytest.mark.parametrize("alignment", ["rmse", "accuracy"])
@pytest.mark.parametrize("unit", ["dialogue", "response"])
def test_the_test_is_the_one_computed_by_hand(alignment, unit):
    rng = np.random.default_rng(4)
    human, judge = with_judge(make_frame(30), lambda row: rng.choice(row.to_numpy()))
    rows = alternative_annotator_test(human, judge, "empathy", epsilon=0.15, alignment=alignment, unit=unit)
    p_values = []
    for rater in RATERS:
        mine, theirs, p = by_hand(
            human, judge, rater, accuracy=alignment == "accuracy", by_dialogue=unit == "dialogue", epsilon=0.15
        )
        assert found(rows, "judge_advantage", rater=rater).value == pytest.approx(mine, abs=1e-12)
        assert found(rows, "rater_advantage", rater=rater).value == pytest.approx(theirs, abs=1e-12)
        assert found(rows, "p_alternative_annotator", rater=rater).value == pytest.approx(p, abs=1e-9)
        p_values.append(p)
    adjusted = stats.false_discovery_control(p_values, method="by")
    for rater, p in zip(RATERS, adjusted, strict=True):
        assert found(rows, "p_alternative_annotator_by", rater=rater).value == pytest.approx(p, abs=1e-9)
    assert found(rows, "winning_rate").value == pytest.approx(np.mean(adjusted < 0.05))
    advantages = [found(rows, "judge_advantage", rater=rater).value for rater in RATERS]
    assert found(rows, "average_advantage").value == pytest.approx(np.mean(advantages), abs=1e-12)
    assert f"|epsilon:0.15|alpha:0.05|alignment:{alignment}|unit:{unit}|" in found(rows, "winning_rate").signature


def test_a_judge_in_the_middle_passes_and_one_who_contradicts_does_not():
    frame = make_frame(60)
    good = alternative_annotator_test(*with_judge(frame, middle), "empathy", epsilon=0.1)
    assert (found(good, "winning_rate").value, found(good, "winning_rate").notes) == (1.0, ("judge_passes",))
    bad = alternative_annotator_test(*with_judge(frame, lambda row: 2 - middle(row)), "empathy", epsilon=0.1)
    assert (found(bad, "winning_rate").value, found(bad, "winning_rate").notes) == (0.0, ())
    assert found(good, "average_advantage").value > found(bad, "average_advantage").value
    assert {row.detail["judge"] for row in good} == {JUDGE}


def test_a_wider_margin_is_easier_to_meet():
    tables = with_judge(make_frame(40), lambda row: row["ann"])
    strict, wide = (alternative_annotator_test(*tables, "empathy", epsilon=epsilon) for epsilon in (0, 0.3))
    for rater in ("bob", "cem"):
        assert (
            found(wide, "p_alternative_annotator", rater=rater).value
            < found(strict, "p_alternative_annotator", rater=rater).value
        )
    copied = found(strict, "p_alternative_annotator", rater="ann")  # always as close as ann herself
    assert (copied.value, copied.reason) == (None, "no_variation")
    assert found(strict, "judge_advantage", rater="ann").value == 1.0


def test_names_of_raters_do_not_matter():
    frame = make_frame(20)
    rows = alternative_annotator_test(*with_judge(frame, middle), "empathy", epsilon=0.1)
    names = {"ann": "zoe", "bob": "bob", "cem": "abe"}
    renamed = frame.assign(rater=frame["rater"].map(names))
    others = alternative_annotator_test(*with_judge(renamed, middle), "empathy", epsilon=0.1)
    for old, new in names.items():
        one, other = (found(r, "p_alternative_annotator", rater=n) for r, n in ((rows, old), (others, new)))
        assert one.value == pytest.approx(other.value, abs=1e-12)


def test_constant_labels_are_refused():
    """Every judge that repeats the only point would pass."""
    rows = alternative_annotator_test(
        *with_judge(make_frame(20), lambda row: 1, dimension="safety"), "safety", epsilon=0.1
    )
    assert {row.estimate.reason for row in rows} == {"no_variation"}


def test_two_raters_are_too_few():
    frame = make_frame(20)
    human, judge = with_judge(frame[frame["rater"] != "cem"], min)
    rows = alternative_annotator_test(human, judge, "empathy", epsilon=0.1)
    assert {row.estimate.reason for row in rows} == {"under_three_raters"}


def test_only_what_all_sides_rated_counts():
    human, judge = with_judge(make_frame(20), middle)
    some = RatingTable.from_frame(judge.frame[judge.frame["item"].isin(["d0", "d1", "d2"])], judge.scales)
    rows = alternative_annotator_test(human, some, "empathy", epsilon=0.1)
    assert found(rows, "winning_rate").n["responses"] == 6
    nothing = elsewhere(judge)
    rows = alternative_annotator_test(human, nothing, "empathy", epsilon=0.1)
    assert {row.estimate.reason for row in rows} == {"no_overlap"}
    one = RatingTable.from_frame(judge.frame[judge.frame["item"] == "d0"], judge.scales)
    p = found(alternative_annotator_test(human, one, "empathy", epsilon=0.1), "p_alternative_annotator", rater="ann")
    assert (p.value, p.reason) == (None, "one_dialogue")


@pytest.mark.slow
def test_a_judge_like_any_rater_rarely_beats_one_without_a_margin():
    """Judge and raters drawn alike: with a margin of 0 a rater is beaten no more often than the level says."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(150):
        quality = rng.normal(1, 0.6, (40, 1))
        values = np.clip(np.round(quality + rng.normal(0, 0.5, (40, 4))), 0, 2)
        rows = [
            {"item": f"d{i}", "system": "A", "rater": r, "dimension": "empathy", "value": values[i, c]}
            for i in range(40)
            for c, r in enumerate((*RATERS, JUDGE))
        ]
        tables = split_judges(RatingTable.from_frame(pd.DataFrame(rows), (EMPATHY,)), [JUDGE])
        p_values.append(
            found(
                alternative_annotator_test(*tables, "empathy", epsilon=0), "p_alternative_annotator", rater="ann"
            ).value
        )
    assert np.mean(np.array(p_values) < 0.05) <= 0.11  # 0.05 + three standard errors
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.09)


# Agreement with each person.


def test_agreement_with_each_person_is_cohens_kappa():
    human, judge = with_judge(make_frame(30), middle)
    rows = judge_agreement(human, judge, "empathy", seed=1, n_bootstrap=300)
    wide = human.matrix("empathy").ratings
    machine = judge.matrix("empathy").ratings
    for column, rater in enumerate(RATERS):
        expected = cohen_kappa(np.column_stack([wide[:, column], machine]), EMPATHY, weights="quadratic")
        kappa = found(rows, "judge_kappa_quadratic", rater=rater)
        assert kappa.value == pytest.approx(expected, abs=1e-12)
        assert kappa.low < kappa.value < kappa.high


def test_bias_is_the_distance_from_the_mean_of_the_people():
    human, judge = with_judge(make_frame(30), lambda row: max(row))
    rows = judge_agreement(human, judge, "empathy", seed=1, n_bootstrap=300)
    difference = judge.matrix("empathy").ratings[:, 0] - human.matrix("empathy").ratings.mean(axis=1)
    bias = found(rows, "judge_bias")
    assert bias.value == pytest.approx(difference.mean(), abs=1e-12)
    assert bias.low > 0
    is_a = human.matrix("empathy").responses.get_level_values("system") == "A"
    assert found(rows, "judge_bias", system="A").value == pytest.approx(difference[is_a].mean(), abs=1e-12)


def test_agreement_without_shared_responses_is_undefined():
    human, judge = with_judge(make_frame(6), middle)
    nothing = elsewhere(judge)
    rows = judge_agreement(human, nothing, "empathy", seed=1, n_bootstrap=50)
    assert {row.metric for row in rows} == {"judge_kappa_quadratic", "judge_bias"}
    assert {row.estimate.reason for row in rows} == {"no_overlap"}
    unrated = judge_agreement(human, judge, "safety", seed=1, n_bootstrap=50)  # the judge rated empathy only
    assert {row.estimate.reason for row in unrated} <= {"no_overlap", "one_rater"}


def test_a_judge_on_another_scale_is_refused():
    human = make_table(4)
    frame = human.frame[human.frame["dimension"] == "safety"].assign(rater=JUDGE, dimension="empathy")
    other = RatingTable.from_frame(frame.drop_duplicates(["item", "system"]), (type(EMPATHY)("empathy", (0, 1)),))
    with pytest.raises(ValueError, match="people rate on 0,1,2, the judge on 0,1"):
        judge_agreement(human, other, "empathy", seed=1)
