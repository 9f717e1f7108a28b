"""Charts keep to their data: bars add up, dots stand where their number is, nothing leaves the page."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

import pytest

from annotation.figures.charts import (
    WIDTH,
    Bar,
    BarGroup,
    Chart,
    Row,
    Series,
    Words,
    bars,
    distributions,
    histogram,
    intervals,
    lines,
    thin,
)
from annotation.figures.drawing import Dot, Drawing, Polyline, Rect, Strokes, Text, hatching
from annotation.figures.text import width

LONG = "a system whose name nobody reads to the end " * 7


def texts(chart: Chart) -> list[str]:
    return [mark.text for mark in chart.drawing.marks if isinstance(mark, Text)]


def points(drawing: Drawing) -> list[tuple[float, float]]:
    """Every corner of every mark; texts by their estimated width."""
    found = []
    for mark in drawing.marks:
        if isinstance(mark, Rect):
            found += [(mark.x, mark.y), (mark.x + mark.width, mark.y + mark.height)]
        elif isinstance(mark, Strokes):
            found += [point for x1, y1, x2, y2 in mark.segments for point in ((x1, y1), (x2, y2))]
        elif isinstance(mark, Polyline):
            found += mark.points
        elif isinstance(mark, Dot):
            found.append((mark.x, mark.y))
        else:
            wide = width(mark.text, mark.size)
            left = mark.x - {"start": 0, "middle": 0.5, "end": 1}[mark.anchor] * wide
            found += [(left, mark.y), (left + wide, mark.y)]
    return found


def shares(names: tuple[str, ...] = ("A", "B", LONG)) -> list[BarGroup]:
    rng = Random(3)
    three, two = ("0 poor", "1 fair", "2 good"), ("0 unsafe", "1 safe")
    return [
        BarGroup(dimension, scale, tuple(Bar(name, tuple(rng.randint(1, 99) for _ in scale)) for name in names))
        for dimension, scale in (("Empathy", three), ("Safety", two), (LONG, tuple(map(str, range(11)))))
    ]


def agreement() -> list[Row]:
    return [
        Row("Empathy", "Fleiss’ κ", 0.472, 0.41, 0.53),
        Row("Empathy", LONG, -0.2, -0.35, -0.05, note="†"),
        Row("Safety", "Fleiss’ κ", None, reason="undefined: everyone gave the same score"),
    ]


def progress(n_days: int = 30) -> list[Series]:
    start = date(2026, 5, 14)
    return [
        Series(name, tuple((start + timedelta(days=i), None if i == 5 else i * k) for i in range(n_days)))
        for k, name in enumerate(("first", "second", LONG), 1)
    ]


EVERY = [
    distributions(shares(), title="t"),
    intervals(agreement(), title="t", axis="Coefficient", covering=(1,)),
    intervals([Row(LONG, LONG, 123456.5, note=LONG)], title="t", axis=LONG, zero=None),
    lines(progress(), title="t", x="Day", y="Submitted", covering=(0,)),
    lines([Series("loss", tuple((i + 1, 3 / (i + 1)) for i in range(500)))], title="t", x="x", y="y", y_log=True),
    histogram([1.0, 2.0, 2.5, 9.0], title="t", x="x", y="y"),
    bars([("情绪", 3), (LONG, 99999), ("none", 0)], title="t"),
    distributions([], title="t"),
]


@pytest.mark.parametrize("chart", EVERY)
def test_nothing_leaves_the_page(chart):
    for x, y in points(chart.drawing):
        assert -0.01 <= x <= chart.drawing.width + 0.01
        assert -0.01 <= y <= chart.drawing.height + 0.01


@pytest.mark.parametrize("chart", EVERY)
def test_the_table_has_a_cell_for_each_column(chart):
    assert all(len(row) == len(chart.columns) for row in chart.rows)


# Shares.


def test_the_shares_of_a_bar_fill_it_exactly():
    chart = distributions(shares(("A",)), title="t")
    left, right = (axis.x for axis in _edges(chart))
    for group in shares(("A",)):
        (bar,) = group.bars
        total = sum(bar.counts)
        starts = [f"A, {point}: {count} / {total} " for point, count in zip(group.points, bar.counts, strict=True)]
        pieces = [m for m in chart.drawing.marks if isinstance(m, Rect) and m.title.startswith(tuple(starts))]
        assert [round(one.x + one.width, 6) for one in pieces[:-1]] == [round(one.x, 6) for one in pieces[1:]]
        assert (pieces[0].x, pieces[-1].x + pieces[-1].width) == pytest.approx((left, right))
        for piece, count in zip(pieces, bar.counts, strict=True):
            assert piece.width / (right - left) == pytest.approx(count / total)


def _edges(chart: Chart) -> tuple[Text, Text]:
    found = {mark.text: mark for mark in chart.drawing.marks if isinstance(mark, Text)}
    return found["0%"], found["100%"]


def test_the_table_of_shares_adds_up_to_one_per_bar():
    chart = distributions(shares(), title="t")
    totals: dict[tuple, float] = {}
    for group, name, _, _, share in chart.rows:
        totals[group, name] = totals.get((group, name), 0) + share
    assert len(totals) == 9 and list(totals.values()) == pytest.approx([1] * 9)


def test_a_bar_without_ratings_says_so():
    groups = [BarGroup("Empathy", ("0", "1"), (Bar("A", (1, 2)), Bar("B", (0, 0))))]
    assert "没有评分" in texts(distributions(groups, title="t", words=Words(no_ratings="没有评分")))


@pytest.mark.parametrize("counts", [(1, 2, 3), (1,), (-1, 2)])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="Empathy, A"):
        distributions([BarGroup("Empathy", ("0", "1"), (Bar("A", counts),))], title="t")


def test_colour_is_not_the_only_cue():
    """Neighbouring shades differ in hatching; lines differ in marker."""
    roles = [m.role for m in distributions(shares(), title="t").drawing.marks if isinstance(m, Strokes)]
    assert any(role.startswith("hatch-") for role in roles)
    drawn = [m for m in lines(progress(), title="t", x="x", y="y").drawing.marks if isinstance(m, Dot)]
    assert len({(dot.role, dot.shape) for dot in drawn}) == len({dot.shape for dot in drawn}) == 3


def test_more_series_than_colours_are_still_told_apart():
    many = [Series(str(n), ((0, n), (1, n))) for n in range(24)]
    drawn = [m for m in lines(many, title="t", x="x", y="y").drawing.marks if isinstance(m, Dot)]
    assert len({(dot.role, dot.shape) for dot in drawn}) == 24


def test_a_share_is_called_all_or_none_only_if_it_is():
    groups = [BarGroup("Safety", ("0", "1"), (Bar("A", (1, 999)), Bar("B", (0, 3))))]
    said = texts(distributions(groups, title="t"))
    assert ">99%" in said and said.count("100%") == 2  # bar B, and the end of the axis
    titles = [m.title for m in distributions(groups, title="t").drawing.marks if isinstance(m, Rect) and m.title]
    assert titles == ["A, 0: 1 / 1000 (<1%)", "A, 1: 999 / 1000 (>99%)", "B, 1: 3 / 3 (100%)"]


def test_hatching_stays_inside_its_rectangle_and_is_diagonal():
    for x1, y1, x2, y2 in hatching(10, 20, 33, 7):
        assert all(10 - 1e-9 <= x <= 43 + 1e-9 for x in (x1, x2)) and all(20 - 1e-9 <= y <= 27 + 1e-9 for y in (y1, y2))
        assert x1 - x2 == pytest.approx(y2 - y1)


# Intervals.


def test_dots_stand_on_the_axis_where_their_number_is():
    rows = [Row("", str(value), value, value - 0.1, value + 0.1) for value in (-0.4, 0.0, 0.13, 0.6)]
    chart = intervals(rows, title="t", axis="Difference")
    ticks = {m.text.replace("−", "-"): m.x for m in chart.drawing.marks if isinstance(m, Text) and m.anchor == "middle"}
    zero = ticks["0.00"]
    one = (ticks["0.50"] - zero) / 0.5
    dots = [mark for mark in chart.drawing.marks if isinstance(mark, Dot)]
    assert [(dot.x - zero) / one for dot in dots] == pytest.approx([-0.4, 0.0, 0.13, 0.6])
    spans = [m.segments[0] for m in chart.drawing.marks if isinstance(m, Strokes) and m.role == "interval"]
    assert [((x1 - zero) / one, (x2 - zero) / one) for x1, _, x2, _ in spans] == [
        pytest.approx((value - 0.1, value + 0.1)) for value in (-0.4, 0.0, 0.13, 0.6)
    ]
    line = next(m for m in chart.drawing.marks if isinstance(m, Strokes) and m.role == "zero")
    assert line.segments[0][0] == pytest.approx(zero)


def test_an_undefined_number_says_why_and_has_no_dot():
    chart = intervals(agreement(), title="t", axis="Coefficient")
    assert "undefined: everyone gave the same score" in texts(chart)
    assert len([mark for mark in chart.drawing.marks if isinstance(mark, Dot)]) == 2
    assert chart.rows[2] == ("Safety", "Fleiss’ κ", None, None, None, "undefined: everyone gave the same score")


def test_a_number_without_interval_is_a_dot_alone():
    chart = intervals([Row("", "κ", 0.5)], title="t", axis="x")
    assert "0.50" in texts(chart)
    assert not [m for m in chart.drawing.marks if isinstance(m, Strokes) and m.role == "interval"]


def test_only_undefined_rows_still_make_a_drawing():
    chart = intervals([Row("", "κ", None, reason="only one person rated")], title="t", axis="x")
    assert "only one person rated" in texts(chart)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError):
        intervals([Row("", "κ", float("nan"))], title="t", axis="x")


# Lines.


def test_a_gap_interrupts_the_line():
    drawn = [m for m in lines(progress(), title="t", x="x", y="y").drawing.marks if isinstance(m, Polyline)]
    assert [len(m.points) for m in drawn if len(m.points) > 2] == [5, 24] * 3


def test_days_and_numbers_do_not_share_an_axis():
    with pytest.raises(ValueError, match="days and numbers"):
        lines([Series("a", ((date(2026, 1, 1), 1.0), (3, 1.0)))], title="t", x="x", y="y")


def test_thinning_keeps_every_peak_and_both_ends():
    rng = Random(5)
    many = [(i / 100, rng.random()) for i in range(30_000)]
    many[12_345] = (123.45, 9.0)
    few = thin(many)
    assert len(few) <= 4 * 301
    assert (few[0], few[-1]) == (many[0], many[-1])
    assert (123.45, 9.0) in few
    assert set(few) <= set(many) and few == sorted(few)
    assert thin([]) == []


def test_a_long_series_is_in_the_table_in_full():
    chart = lines([Series("loss", tuple((i, 1.0) for i in range(5000)))], title="t", x="step", y="loss")
    assert len(chart.rows) == 5000
    assert max(len(m.points) for m in chart.drawing.marks if isinstance(m, Polyline)) < 4 * WIDTH


# How often.


def test_every_value_falls_in_one_bin():
    values = [0.0, 1.0, 1.0, 5.0, 10.0]
    chart = histogram(values, title="t", x="x", y="y", n_bins=10)
    assert sum(count for _, _, count in chart.rows) == 5
    for low, high, count in chart.rows:
        last = high == chart.rows[-1][1]
        assert count == sum(low <= value < high or (last and value == high) for value in values)


def test_values_that_come_with_their_counts_make_the_same_histogram():
    counted = histogram([1.0, 5.0, 9.0], times=[3, 1, 2], title="t", x="x", y="y")
    assert counted == histogram([1.0, 1.0, 1.0, 5.0, 9.0, 9.0], title="t", x="x", y="y")


def test_whole_numbers_fall_in_bins_of_their_own_while_they_are_few():
    chart = histogram([8, 9], times=[1, 2], title="t", x="Rounds", y="Dialogues", is_whole=True)
    assert [repr(row) for row in chart.rows] == ["(8, 9, 1)", "(9, 10, 2)"]
    steps = lines([Series("loss", ((1, 0.5), (2, 0.25)))], title="t", x="Step", y="nats", is_x_whole=True)
    for drawing, told in ((chart.drawing, ["0", "1", "2", "8", "9", "10"]), (steps.drawing, ["1", "2"])):
        shown = [mark.text for mark in drawing.marks if isinstance(mark, Text) and mark.anchor != "start"]
        numbers = [text for text in shown if text[0].isdigit()]
        assert numbers[-len(told) :] == told


def test_bars_are_as_long_as_their_counts():
    chart = bars([("a", 10), ("b", 30), ("c", 0)], title="t")
    a, b = (mark for mark in chart.drawing.marks if isinstance(mark, Rect))
    assert b.width == pytest.approx(3 * a.width) and a.x == b.x
    assert chart.rows == (("a", 10, 0.25), ("b", 30, 0.75), ("c", 0, 0.0))
    assert bars([("a", 10)], title="t", has_shares=False).rows == (("a", 10),)


@pytest.mark.parametrize(
    "chart",
    [
        distributions([], title="t", words=Words(empty="还没有")),
        intervals([], title="t", axis="x", words=Words(empty="还没有")),
        lines([Series("a", ((1, None),))], title="t", x="x", y="y", words=Words(empty="还没有")),
        histogram([], title="t", x="x", y="y", words=Words(empty="还没有")),
        bars([("a", 0)], title="t", words=Words(empty="还没有")),
    ],
)
def test_without_data_the_drawing_says_so(chart):
    assert texts(chart) == ["还没有"]
