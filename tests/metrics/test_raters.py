import itertools

import numpy as np
import pandas as pd
import pytest

from metrics.raters import _longest_runs, rater_effects, rater_habits
from metrics.table import RatingTable, Scale
from tests.metrics.cast import EMPATHY, SAFETY, make_frame

CONTENT = Scale("content", (0, 1, 2))
HOW = {"seed": 1, "n_bootstrap": 300}


def make_session(n_items=30, seed=0, *, n_repeats=0):
    """Ratings of empathy and content by ann, bob and cem, each in a queue of their own, with times."""
    rng = np.random.default_rng(seed)
    frame = make_frame(n_items, seed, n_repeats)
    frame = frame[frame["dimension"] == "empathy"].reset_index(drop=True)
    for rater, rows in frame.groupby("rater"):
        frame.loc[rows.index, "position"] = rng.permutation(len(rows))
        frame.loc[rows.index, "seconds"] = rng.integers(5, 60, len(rows)).astype(float) + (rater == "cem")
    second = frame.assign(dimension="content", value=rng.integers(0, 3, len(frame)))
    return pd.concat([frame, second], ignore_index=True)


def table_of(frame):
    return RatingTable.from_frame(frame, (EMPATHY, CONTENT))


def found(rows, metric, **stratum):
    [row] = [row for row in rows if row.metric == metric and row.stratum == stratum]
    return row.estimate


def test_severity_is_the_distance_from_the_other_raters():
    frame = make_session()
    wide = frame[frame["dimension"] == "empathy"].pivot(index=["item", "system"], columns="rater", values="value")
    deviation = wide["ann"] - (wide["bob"] + wide["cem"]) / 2
    rows = rater_effects(table_of(frame), "empathy", **HOW)
    overall = found(rows, "rater_severity", rater="ann")
    assert overall.value == pytest.approx(deviation.mean(), abs=1e-12)
    assert overall.low < overall.value < overall.high
    by_system = deviation.groupby("system").mean()
    assert found(rows, "rater_severity", rater="ann", system="A").value == pytest.approx(by_system["A"], abs=1e-12)
    shift = found(rows, "rater_severity_shift", rater="ann", system="A")
    assert shift.value == pytest.approx(by_system["A"] - by_system["B"], abs=1e-12)
    spread = found(rows, "rater_spread", rater="ann")
    assert spread.value == pytest.approx(wide["ann"].std(), abs=1e-12)


def test_severity_uses_shared_responses_only():
    frame = make_session(4)
    alone = (frame["item"] == "d0") & (frame["rater"] != "ann")  # nobody else rated d0
    rows = rater_effects(table_of(frame[~alone]), "empathy", **HOW)
    without = rater_effects(table_of(frame[frame["item"] != "d0"]), "empathy", **HOW)
    one, other = found(rows, "rater_severity", rater="ann"), found(without, "rater_severity", rater="ann")
    assert one.value == pytest.approx(other.value, abs=1e-12)
    assert (one.n["responses_used"], one.n["ratings"]) == (6, 8)


def test_a_rater_who_is_stricter_by_a_point_shows_it_in_severity_alone():
    frame = make_session()
    is_cem = (frame["rater"] == "cem") & (frame["dimension"] == "empathy")
    five = Scale("empathy", (0, 1, 2, 3, 4))
    rows = rater_effects(RatingTable.from_frame(frame, (five, CONTENT)), "empathy", **HOW)
    frame.loc[is_cem, "value"] += 1
    lifted = rater_effects(RatingTable.from_frame(frame, (five, CONTENT)), "empathy", **HOW)
    for metric, change in (("rater_severity", 1), ("rater_spread", 0), ("rater_drift", 0)):
        before, after = found(rows, metric, rater="cem").value, found(lifted, metric, rater="cem").value
        assert after - before == pytest.approx(change, abs=1e-9)
    assert found(lifted, "rater_severity", rater="ann").value == pytest.approx(
        found(rows, "rater_severity", rater="ann").value - 0.5, abs=1e-9
    )


def test_drift_is_the_slope_over_100_places():
    frame = make_session()
    empathy = frame[frame["dimension"] == "empathy"].set_index(["item", "system"])
    wide = empathy.pivot(columns="rater", values="value")
    deviation = wide["bob"] - (wide["ann"] + wide["cem"]) / 2
    place = empathy[empathy["rater"] == "bob"]["position"].reindex(wide.index)
    drift = found(rater_effects(table_of(frame), "empathy", **HOW), "rater_drift", rater="bob")
    assert drift.value == pytest.approx(100 * np.polyfit(place, deviation, 1)[0], abs=1e-9)
    assert drift.low < drift.value < drift.high
    assert "|per_places:100|" in drift.signature


def test_drift_needs_places_and_severity_needs_company():
    frame = make_session(5)
    rows = rater_effects(table_of(frame.drop(columns="position")), "empathy", **HOW)
    assert found(rows, "rater_drift", rater="ann").reason == "no_positions"
    alone = rater_effects(table_of(frame[frame["rater"] == "ann"]), "empathy", **HOW)
    assert found(alone, "rater_severity", rater="ann").reason == "no_overlap"
    assert found(alone, "rater_drift", rater="ann").reason == "no_overlap"
    one_system = rater_effects(table_of(frame[frame["system"] == "A"]), "empathy", **HOW)
    assert not [row for row in one_system if "system" in row.stratum]


def correlations(frame, first, second, pairs):
    wide = frame.pivot(index=["item", "system"], columns=["rater", "dimension"], values="value")
    return np.mean([np.corrcoef(wide[first, a], wide[second, b])[0, 1] for a, b in pairs])


def test_halo_is_the_mean_correlation_between_dimensions():
    frame = make_session()
    extra = frame[frame["dimension"] == "content"].assign(dimension="safety")
    extra["value"] = np.random.default_rng(5).integers(0, 2, len(extra))
    frame = pd.concat([frame, extra], ignore_index=True)
    names = ("empathy", "content", "safety")
    rows = rater_habits(RatingTable.from_frame(frame, (EMPATHY, CONTENT, SAFETY)), **HOW)
    own = correlations(frame, "ann", "ann", list(itertools.combinations(names, 2)))
    across = [correlations(frame, "ann", other, list(itertools.permutations(names, 2))) for other in ("bob", "cem")]
    halo, excess = found(rows, "halo", rater="ann"), found(rows, "halo_excess", rater="ann")
    assert halo.value == pytest.approx(own, abs=1e-12)
    assert excess.value == pytest.approx(own - np.mean(across), abs=1e-12)
    assert halo.n["dimension_pairs"] == 3


def test_a_rater_who_copies_one_dimension_into_the_other_has_full_halo():
    frame = make_session()
    is_copy = (frame["rater"] == "cem") & (frame["dimension"] == "content")
    source = frame[(frame["rater"] == "cem") & (frame["dimension"] == "empathy")]
    frame.loc[is_copy, "value"] = source["value"].to_numpy()
    rows = rater_habits(table_of(frame), **HOW)
    assert found(rows, "halo", rater="cem").value == pytest.approx(1)
    assert found(rows, "halo_excess", rater="cem").low > 0.3
    assert found(rows, "halo", rater="ann").value < 0.5


def test_halo_needs_two_dimensions_that_vary():
    frame = make_frame(6)  # safety is always 1
    rows = rater_habits(RatingTable.from_frame(frame, (EMPATHY, SAFETY)), **HOW)
    for metric in ("halo", "halo_excess"):
        assert found(rows, metric, rater="ann").reason == "one_dimension"


def test_repetition_is_counted_in_the_order_of_the_queue():
    scores = {"ann": [0, 0, 0, 2, 2, 1], "bob": [0, 1, 2, 0, 1, 1]}
    rows = [
        {"item": f"d{place}", "system": "A", "rater": rater, "dimension": "empathy", "value": value, "position": place}
        for rater, values in scores.items()
        for place, value in enumerate(values)
    ]
    frame = pd.DataFrame(rows).sample(frac=1, random_state=3)
    rows = rater_habits(RatingTable.from_frame(frame, (EMPATHY,)), **HOW)
    assert found(rows, "same_as_previous", rater="ann").value == pytest.approx(3 / 5)
    assert found(rows, "same_as_previous_excess", rater="ann").value == pytest.approx(3 / 5 - 1 / 5)
    assert found(rows, "longest_run", rater="ann").value == 3
    assert found(rows, "longest_run_panel", rater="ann").value == 2
    orders = [np.array(order) for order in itertools.permutations(scores["ann"])]
    share = np.mean([np.mean(order[1:] == order[:-1]) for order in orders])
    runs = np.mean([max(len(list(group)) for _, group in itertools.groupby(order)) for order in orders])
    assert found(rows, "same_as_previous_expected", rater="ann").value == pytest.approx(share, abs=1e-12)
    assert found(rows, "longest_run_expected", rater="ann").value == pytest.approx(runs, abs=0.1)


def test_repetition_needs_places():
    rows = rater_habits(table_of(make_session(4).drop(columns="position")), **HOW)
    for metric in ("same_as_previous", "same_as_previous_excess", "longest_run", "longest_run_expected"):
        assert found(rows, metric, rater="ann").reason == "no_positions"


def test_times_are_quartiles_per_response_not_per_rating():
    frame = make_session()
    seconds = frame[(frame["rater"] == "cem") & (frame["dimension"] == "empathy")]["seconds"]
    rows = rater_habits(table_of(frame), **HOW)
    for metric, share in (("seconds_q1", 0.25), ("seconds_median", 0.5), ("seconds_q3", 0.75)):
        assert found(rows, metric, rater="cem").value == pytest.approx(seconds.quantile(share))
    assert found(rows, "seconds_median", rater="cem").n["responses_used"] == 60
    untimed = rater_habits(table_of(frame.drop(columns="seconds")), **HOW)
    assert found(untimed, "seconds_median", rater="cem").reason == "no_seconds"


def test_fast_is_measured_against_reading_time():
    frame = make_session()
    reading = dict.fromkeys(set(zip(frame["item"], frame["system"], strict=True)), 90.0)
    seconds = frame[(frame["rater"] == "ann") & (frame["dimension"] == "empathy")]["seconds"]
    rows = rater_habits(table_of(frame), reading_seconds=reading, fast=0.25, **HOW)
    share = found(rows, "fast_share", rater="ann")
    assert share.value == pytest.approx((seconds < 22.5).mean())
    assert share.low < share.value < share.high
    with pytest.raises(ValueError, match="item d0, system A: reading takes 0 seconds"):
        rater_habits(table_of(frame), reading_seconds={("d0", "A"): 0}, **HOW)
    with pytest.raises(ValueError, match="fast is 0"):
        rater_habits(table_of(frame), reading_seconds=reading, fast=0, **HOW)


def test_hidden_repeats_and_the_order_of_rows_change_nothing():
    once, twice = make_session(12), make_session(12, n_repeats=3)
    first = twice[~twice["is_repeat"]]
    for panel in (lambda frame: rater_effects(table_of(frame), "empathy", **HOW), lambda frame: rater_habits(
        table_of(frame), **HOW
    )):  # fmt: skip
        kept = [(row.metric, row.stratum, row.estimate.value, row.estimate.low) for row in panel(first)]
        assert kept == [(row.metric, row.stratum, row.estimate.value, row.estimate.low) for row in panel(twice)]
        assert panel(once) == panel(once.sample(frac=1, random_state=1))


def test_no_ratings_no_rows():
    empty = table_of(make_session(3)).where(system="Z")
    assert rater_effects(empty, "empathy", **HOW) == []
    assert rater_habits(empty, **HOW) == []


def test_the_longest_run_of_each_row():
    codes = np.random.default_rng(1).integers(0, 3, (40, 12))
    codes[0] = 1
    by_hand = [max(len(list(run)) for _, run in itertools.groupby(row)) for row in codes.tolist()]
    assert _longest_runs(codes).tolist() == by_hand
    assert _longest_runs(codes[:, :1]).tolist() == [1] * 40
