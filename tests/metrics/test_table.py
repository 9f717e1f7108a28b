import numpy as np
import pandas as pd
import pytest

from metrics.table import RatingTable, Scale
from tests.metrics.cast import EMPATHY, RATERS, SAFETY, make_frame, make_table

SCALES = (EMPATHY, SAFETY)


def test_table_gives_one_dimension_as_responses_by_raters():
    matrix = make_table(n_items=3).matrix("empathy")
    assert matrix.ratings.shape == (6, 3)
    assert matrix.raters == RATERS
    assert list(matrix.responses[:2]) == [("d0", "A"), ("d0", "B")]
    assert matrix.clusters.tolist() == [0, 0, 1, 1, 2, 2]
    assert (matrix.n_items, matrix.n_responses, matrix.n_raters) == (3, 6, 3)


def test_a_rating_that_was_not_given_is_nan_in_the_matrix():
    frame = make_frame(n_items=2)
    absent = (frame["item"] == "d1") & (frame["system"] == "B") & (frame["rater"] == "bob")
    matrix = RatingTable.from_frame(frame[~absent], SCALES).matrix("empathy")
    assert np.argwhere(np.isnan(matrix.ratings)).tolist() == [[3, 1]]


def test_dialogues_may_be_named_as_clusters():
    frame = make_frame(n_items=4)
    frame["cluster"] = frame["item"].map({"d0": "first", "d1": "first", "d2": "second", "d3": "third"})
    assert RatingTable.from_frame(frame, SCALES).matrix("safety").clusters.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_hidden_repeats_stay_out_of_the_matrix_and_form_pairs():
    table = make_table(n_items=4, n_repeats=1)
    assert table.matrix("empathy").ratings.shape == (8, 3)
    pairs = table.repeat_pairs("empathy")
    assert pairs.raters == ("first", "repeat")
    assert pairs.ratings.shape == (6, 2)
    assert (pairs.n_items, pairs.n_responses, pairs.n_raters) == (1, 2, 3)


def test_a_repeat_without_its_first_rating_makes_no_pair():
    frame = make_frame(n_items=2, n_repeats=1)
    alone = frame[frame["is_repeat"] | (frame["item"] == "d1")]
    assert RatingTable.from_frame(alone, SCALES).repeat_pairs("empathy").ratings.shape == (0, 2)


def test_strata_are_the_combinations_that_occur():
    table = make_table(n_items=4)
    strata = [stratum for stratum, _ in table.strata(["dataset", "system"])]
    assert strata[0] == {"dataset": "smile", "system": "A"}
    assert len(strata) == 4
    assert sum(len(part) for _, part in table.strata(["system"])) == len(table)
    assert [stratum for stratum, _ in table.strata([])] == [{}]
    assert set(table.where(system="B").frame["system"]) == {"B"}


def test_a_part_is_the_table_of_its_rows_alone():
    table = make_table(n_items=4, n_repeats=2)
    smile = table.where(dataset="smile").where(system="B").of_dimension("empathy")
    alone = RatingTable.from_frame(smile.frame, [EMPATHY])
    assert len(smile) == len(alone) == len(table.frame.query("dataset=='smile' & system=='B' & dimension=='empathy'"))
    assert smile.content_hash() == alone.content_hash()
    assert smile.levels("item") == alone.levels("item")
    for part, whole in ((smile.matrix, alone.matrix), (smile.repeat_pairs, alone.repeat_pairs)):
        ours, theirs = part("empathy"), whole("empathy")
        assert np.array_equal(ours.ratings, theirs.ratings)
        assert np.array_equal(ours.clusters, theirs.clusters)
        assert list(ours.responses) == list(theirs.responses)
        assert (ours.raters, ours.n_items, ours.n_responses) == (theirs.raters, theirs.n_items, theirs.n_responses)


@pytest.mark.parametrize(
    "ask", [lambda t: t.where(topic="x"), lambda t: t.levels("topic"), lambda t: list(t.strata(["topic"]))]
)
def test_a_column_that_was_not_recorded_is_named(ask):
    with pytest.raises(ValueError, match="no column 'topic'"):
        ask(make_table())


def test_the_hash_follows_content_not_order():
    frame = make_frame()
    shuffled = frame.sample(frac=1, random_state=1)[frame.columns[::-1]]
    assert RatingTable.from_frame(shuffled, SCALES[::-1]).content_hash() == make_table().content_hash()


@pytest.mark.parametrize("column", ["value", "item", "rater", "system", "dataset"])
def test_the_hash_follows_every_column(column):
    frame = make_frame()
    changed = {"value": 2 - frame.loc[0, "value"], "item": "d99", "rater": "dan", "system": "C", "dataset": "soul"}
    frame.loc[frame["item"] == "d0", column] = changed[column]
    frame.loc[frame["dimension"] == "safety", "value"] = 1
    frame = frame.drop_duplicates(["item", "system", "rater", "dimension"])
    assert RatingTable.from_frame(frame, SCALES).content_hash() != make_table().content_hash()


def test_the_hash_follows_the_declared_scale():
    frame = make_frame()
    wider = (Scale("empathy", (0, 1, 2, 3)), SAFETY)
    assert RatingTable.from_frame(frame, wider).content_hash() != RatingTable.from_frame(frame, SCALES).content_hash()


def spoiled(column: str, value: object, row: int = 4) -> pd.DataFrame:
    frame = make_frame().astype({"value": object, "is_repeat": object})
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (make_frame().drop(columns=["rater", "value"]), "missing columns: rater, value"),
        (spoiled("value", 3), r"row 4: empathy is 3, the scale is \(0, 1, 2\)"),
        (spoiled("value", 0.5), r"row 4: empathy is 0.5, the scale is"),
        (spoiled("value", None), "row 4: value is missing; a rating that was not given is a row that is not there"),
        (spoiled("rater", None), "row 4: rater is missing"),
        (spoiled("dimension", "warmth"), "row 4: no scale is declared for 'warmth'"),
        (spoiled("is_repeat", "no"), "row 4: is_repeat is 'no', not true or false"),
        (spoiled("rater", "ann"), "row 4: rated twice: item d0, system A, rater ann, dimension empathy"),
        (spoiled("dataset", "soul"), "item d0 belongs to 2 values of dataset"),
    ],
)
def test_rows_that_cannot_be_trusted_are_refused_by_name(frame, complaint):
    with pytest.raises(ValueError, match=complaint):
        RatingTable.from_frame(frame, SCALES)


@pytest.mark.parametrize("points", [(1,), (0, 0), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_a_scale_rises(points):
    with pytest.raises(ValueError, match="two or more rising points"):
        Scale("empathy", points)


def test_a_dimension_has_one_scale():
    with pytest.raises(ValueError, match="two scales"):
        RatingTable.from_frame(make_frame(), (EMPATHY, EMPATHY, SAFETY))
    with pytest.raises(ValueError, match="no scale is declared for 'warmth'"):
        make_table().matrix("warmth")


def test_an_empty_table_is_a_table():
    empty = RatingTable.from_frame(make_frame().iloc[:0], SCALES)
    assert len(empty) == 0
    assert empty.matrix("empathy").ratings.shape == (0, 0)
    assert empty.repeat_pairs("empathy").ratings.shape == (0, 2)
