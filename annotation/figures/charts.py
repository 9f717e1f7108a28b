"""Charts of the report from plain data: each is a drawing and the table behind it.

Texts come ready from the caller, in the reader's language. Colour is never the only cue: shares are hatched and
labelled, lines have their own dash and marker. What has no value is not drawn but says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from annotation.figures import axes
from annotation.figures.axes import Axis
from annotation.figures.drawing import (
    SHAPES,
    Dot,
    Drawing,
    Mark,
    Polyline,
    Rect,
    Segment,
    Shape,
    Strokes,
    Text,
    hatching,
)
from annotation.figures.styles import N_SERIES, N_SHARES
from annotation.figures.text import clean, fit, number, width

Cell = str | float | int | None

WIDTH = 640.0
SIZE, SMALL = 12.0, 11.0
GAP = 8.0
BAR = 18.0  # height of a bar
ROW = 24.0  # from one line of a chart to the next
LABELS = 0.34  # of the width, at most, for labels at the left
PLOT = 200.0  # height of a plot with two axes


@dataclass(frozen=True)
class Words:
    """The words that a chart adds by itself."""

    empty: str = "Nothing to draw yet."
    no_ratings: str = "no ratings"
    undefined: str = "undefined"
    group: str = "Dimension"
    name: str = "Name"
    point: str = "Point"
    count: str = "Count"
    share: str = "Share"
    value: str = "Value"
    low: str = "Low"
    high: str = "High"
    note: str = "Note"
    at_least: str = "From"
    below: str = "To"


@dataclass(frozen=True)
class Chart:
    """A drawing, and the numbers it shows: columns, and one tuple per row in their order."""

    drawing: Drawing
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Bar:
    """How often each point of a scale was given, in the order of the scale."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class BarGroup:
    """Bars on one scale; `points` are what its points are called, the lowest first."""

    name: str
    points: tuple[str, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Row:
    """One number with its interval. `value` None: `reason` says why. `note` stands after the number ("†")."""

    group: str
    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points from left to right; y None interrupts the line. x are numbers, or days throughout."""

    name: str
    points: tuple[tuple[float | date, float | None], ...]


class _Page:
    """Marks collected from top to bottom."""

    def __init__(self, title: str, description: str, lang: str) -> None:
        self.title, self.description, self.lang = title, description, lang
        self.marks: list[Mark] = []
        self.y = 0.0

    def text(
        self, x: float, y: float, text: str, role: str = "label", *, space: float = WIDTH, size: float = SIZE,
        anchor: Literal["start", "middle", "end"] = "start",
    ) -> None:  # fmt: skip
        shown, full = fit(text, space, size)
        if shown:
            self.marks.append(Text(x, y, shown, role, anchor, size, full))

    def strokes(self, segments: Sequence[Segment], role: str) -> None:
        if segments:
            self.marks.append(Strokes(tuple(segments), role))

    def drawing(self) -> Drawing:
        return Drawing(WIDTH, math.ceil(self.y), tuple(self.marks), self.title, self.description, self.lang)


def _empty(page: _Page, words: Words) -> Drawing:
    """A drawing that says that there is nothing to draw."""
    page.marks.append(Rect(0.5, 0.5, WIDTH - 1, 63, "edge"))
    page.text(WIDTH / 2, 36, words.empty, "soft", space=WIDTH - 2 * GAP, anchor="middle")
    page.y = 64
    return page.drawing()


def _label_width(names: Sequence[str]) -> float:
    """Room for labels at the left: what the longest needs, within reason."""
    return min(max((width(clean(name), SIZE) for name in names), default=0.0), LABELS * WIDTH)


def _percent(count: int, total: int) -> str:
    """Whole percent; only all are 100% and only none are 0%."""
    if 0 < count < total and not 0.005 <= count / total < 0.995:
        return "<1%" if count < total / 2 else ">99%"
    return f"{number(100 * count / total, 0)}%"


def _looks(index: int) -> tuple[str, str, Shape]:
    """Roles of line and markers and the shape of the latter: different for the first 24 series."""
    kind = index % N_SERIES + 1
    return f"line-{kind}", f"mark-{kind}", SHAPES[(index + index // N_SERIES) % len(SHAPES)]


# Shares of a scale.


def distributions(
    groups: Sequence[BarGroup], *, title: str, description: str = "", lang: str = "en", words: Words | None = None
) -> Chart:
    """One bar per name and dimension, cut by the share of each point of the scale; the bar's length is 100 %.

    Raises ValueError if a bar has not one count, 0 or more, for each point of its scale.
    """
    words = words or Words()
    page = _Page(title, description, lang)
    columns = (words.group, words.name, words.point, words.count, words.share)
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        for bar in group.bars:
            if len(bar.counts) != len(group.points) or min(bar.counts, default=0) < 0:
                raise ValueError(f"{group.name}, {bar.name}: {bar.counts} are no counts of {group.points}")
            total = sum(bar.counts)
            rows += [
                (group.name, bar.name, point, count, count / total if total else None)
                for point, count in zip(group.points, bar.counts, strict=True)
            ]
    if not any(row[3] for row in rows):
        return Chart(_empty(page, words), columns, tuple(rows))
    names = _label_width([name for group in groups for name in (group.name, *(bar.name for bar in group.bars))])
    totals = max(width(f"n = {sum(bar.counts)}", SMALL) for group in groups for bar in group.bars)
    left, right = names + GAP, WIDTH - totals - GAP
    for group in groups:
        _legend_of_points(page, group, left, right)
        top = page.y
        for bar in group.bars:
            _share_bar(page, group, bar, left, right, words)
        page.y += 4
        scale = Axis(0, 1, left, right, ())
        ticks = [scale.at(quarter / 4) for quarter in range(5)]
        page.strokes([(x, top - 2, x, page.y - 4) for x in (ticks[0], ticks[-1])], "edge")
        page.strokes([(x, page.y - 4, x, page.y) for x in ticks], "axis")
        page.y += GAP
    for quarter in range(5):
        page.text(left + (right - left) * quarter / 4, page.y + 4, f"{25 * quarter}%", "soft", size=SMALL,
                  anchor="middle")  # fmt: skip
    page.y += 10
    return Chart(page.drawing(), columns, tuple(rows))


def _step(index: int, n: int) -> int:
    """Which of the N_SHARES shades the point `index` of n wears, from 1."""
    return 1 + round(index * (N_SHARES - 1) / max(1, n - 1))


def _legend_of_points(page: _Page, group: BarGroup, left: float, right: float) -> None:
    """The dimension at the left; what its shades mean at the right, on as many lines as they need."""
    page.y += 16
    page.text(0, page.y, group.name, space=left - GAP)
    x = left
    for index, point in enumerate(group.points):
        shown, _ = fit(point, 0.3 * WIDTH, SMALL)
        needed = 16 + width(shown, SMALL) + 2 * GAP
        if x > left and x + needed > right + 2 * GAP:
            x, page.y = left, page.y + 16
        _shade(page, x, page.y - 9, 12, 10, index, len(group.points), "")
        page.strokes([(x, page.y - 9, x + 12, page.y - 9), (x + 12, page.y - 9, x + 12, page.y + 1),
                      (x + 12, page.y + 1, x, page.y + 1), (x, page.y + 1, x, page.y - 9)], "edge")  # fmt: skip
        page.text(x + 16, page.y, point, "soft", space=0.3 * WIDTH, size=SMALL)
        x += needed
    page.y += 8


def _shade(page: _Page, x: float, y: float, w: float, h: float, index: int, n: int, title: str) -> None:
    """A rectangle in the shade of one point; every second one below the highest is hatched."""
    step = _step(index, n)
    page.marks.append(Rect(x, y, w, h, f"share-{step}", title))
    if (n - 1 - index) % 2:
        page.strokes(hatching(x, y, w, h), f"hatch-{step}")


def _share_bar(page: _Page, group: BarGroup, bar: Bar, left: float, right: float, words: Words) -> None:
    total = sum(bar.counts)
    baseline = page.y + BAR - 5
    page.text(0, baseline, bar.name, "soft", space=left - GAP)
    page.text(WIDTH, baseline, f"n = {total}", "soft", size=SMALL, anchor="end")
    if not total:
        page.text(left + GAP, baseline, words.no_ratings, "soft", space=right - left - GAP)
    before = 0
    n = len(group.points)
    for index, (point, count) in enumerate(zip(group.points, bar.counts, strict=True)):
        if not count:
            continue
        x, end = (left + (right - left) * part / total for part in (before, before + count))
        share = _percent(count, total)
        _shade(page, x, page.y, end - x, BAR, index, n, f"{bar.name}, {point}: {count} / {total} ({share})")
        if end - x >= width(share, SMALL) + 6:
            middle, step = (x + end) / 2, _step(index, n)
            if (n - 1 - index) % 2:  # figures are read on plain ground, not across lines
                half = width(share, SMALL) / 2 + 1
                page.marks.append(Rect(middle - half, page.y + 2, 2 * half, BAR - 4, f"share-{step}"))
            page.text(middle, baseline, share, f"on-{step}", size=SMALL, anchor="middle")
        before += count
        if before < total:
            page.strokes([(end, page.y, end, page.y + BAR)], "edge")
    page.y += BAR + 5


# Numbers with intervals.


def intervals(
    rows: Sequence[Row], *, title: str, axis: str, description: str = "", zero: float | None = 0.0, digits: int = 2,
    covering: Sequence[float] = (), lang: str = "en", words: Words | None = None,
) -> Chart:  # fmt: skip
    """A dot and its interval per row, the number beside it; rows of one group stand under its name.

    axis: what is measured.  zero: where a dashed line stands ("no difference"), None for no line; it is always in
    view.  covering: values that the axis must reach even if no row does, such as 1.
    Raises ValueError for a number that is not finite.
    """
    words = words or Words()
    page = _Page(title, description, lang)
    columns = (words.group, words.name, words.value, words.low, words.high, words.note)
    table = tuple((row.group, row.name, row.value, row.low, row.high, row.reason or row.note) for row in rows)
    if not rows:
        return Chart(_empty(page, words), columns, table)
    labels = [_interval_text(row, digits) for row in rows]
    names = _label_width([row.name for row in rows])
    room = min(max(width(label, SMALL) for label in labels), LABELS * WIDTH)
    left, right = names + 2 * GAP, WIDTH - room - 2 * GAP
    values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
    values += [*covering, *([zero] if zero is not None else [])]
    scale = axes.linear(values, left, right)
    backdrop = len(page.marks)
    clear: list[tuple[float, float]] = [(0.0, 4.0)]  # heights where no line may cross a text
    group = None
    for row, label in zip(rows, labels, strict=True):
        if row.group != group:
            group = row.group
            page.y += 6 if group else 0
            page.text(0, page.y + 16, group, space=WIDTH)
            if width(clean(group), SIZE) > left - GAP:
                clear.append((page.y - 6, page.y + 22))
            page.y += 22 if group else 0
        if row.value is None:
            clear.append((page.y, page.y + ROW))
        _interval_row(page, row, label, scale, left, room, words)
    # From the end of one clear stretch to the start of the next.
    spans = [(end, start) for (_, end), (start, _) in zip(clear, [*clear[1:], (page.y, page.y)], strict=True)]
    places = {"grid": [scale.at(tick.value) for tick in scale.ticks], "zero": [] if zero is None else [scale.at(zero)]}
    page.marks[backdrop:backdrop] = [
        Strokes(tuple((x, start, x, end) for x in xs for start, end in spans if end > start), role)
        for role, xs in places.items()
        if xs
    ]
    _bottom_axis(page, scale, axis)
    return Chart(page.drawing(), columns, table)


def _interval_text(row: Row, digits: int) -> str:
    if row.value is None:
        return "–"
    text = number(row.value, digits)
    if row.low is not None and row.high is not None:
        text += f" [{number(row.low, digits)}, {number(row.high, digits)}]"
    return text + (f" {row.note}" if row.note else "")


def _interval_row(page: _Page, row: Row, label: str, scale: Axis, left: float, room: float, words: Words) -> None:
    middle = page.y + ROW / 2
    page.text(GAP, middle + 4, row.name, "soft", space=left - 2 * GAP)
    if row.value is None:
        # The reason may be long: it takes the room of plot and number.
        page.text(left + GAP, middle + 4, row.reason or words.undefined, "soft", space=WIDTH - left - GAP, size=SMALL)
        page.y += ROW
        return
    if row.low is not None and row.high is not None:
        low, high = scale.at(row.low), scale.at(row.high)
        ends = [(x, middle - 4, x, middle + 4) for x in (low, high)]
        page.strokes([(low, middle, high, middle), *ends], "interval")
    page.marks.append(Dot(scale.at(row.value), middle, 4.5, "dot", "circle", f"{row.name}: {label}"))
    page.text(WIDTH, middle + 4, label, "label", space=room, size=SMALL, anchor="end")
    page.y += ROW


def _bottom_axis(page: _Page, scale: Axis, name: str) -> None:
    """The axis under what was drawn so far, its ticks and its name."""
    page.strokes([(scale.start, page.y, scale.end, page.y)], "axis")
    page.strokes([(scale.at(tick.value), page.y, scale.at(tick.value), page.y + 4) for tick in scale.ticks], "axis")
    reached = -math.inf
    for tick in scale.ticks:
        x, half = scale.at(tick.value), width(tick.text, SMALL) / 2
        x = min(max(x, half), WIDTH - half)  # a long tick at the end stays on the page
        if x - half > reached:
            page.text(x, page.y + 16, tick.text, "soft", size=SMALL, anchor="middle")
            reached = x + half + 4
    page.y += 20
    if name:
        page.text((scale.start + scale.end) / 2, page.y + 12, name, "soft", size=SMALL, anchor="middle")
        page.y += 16


# Lines over time or steps.


def lines(
    series: Sequence[Series], *, title: str, x: str, y: str, description: str = "", x_log: bool = False,
    y_log: bool = False, is_x_whole: bool = False, covering: Sequence[float] = (), lang: str = "en",
    words: Words | None = None,
) -> Chart:  # fmt: skip
    """One line per series over numbers or days, told apart by colour, dash and marker.

    x, y: what the axes show.  is_x_whole: x is counted, as steps are, and so has no ticks between whole numbers.
    covering: y values that must be in view, such as 0.  Long series are drawn thinner, with every peak kept; the table
    has all points.
    Raises ValueError for a number that is not finite, or not above 0 on a logarithmic axis, and for mixed x.
    """
    words = words or Words()
    page = _Page(title, description, lang)
    table = tuple(
        (one.name, at.isoformat() if isinstance(at, date) else at, value) for one in series for at, value in one.points
    )
    columns = (words.name, x, y)
    kinds = {isinstance(at, date) for one in series for at, _ in one.points}
    if len(kinds) > 1:
        raise ValueError(f"{title}: days and numbers on one axis")
    drawn = [value for one in series for _, value in one.points if value is not None]
    if not drawn:
        return Chart(_empty(page, words), columns, table)
    places = [_place(at) for one in series for at, _ in one.points]
    make_y = axes.logarithmic if y_log else axes.linear
    up = make_y([*drawn, *covering], PLOT, 0.0)
    margin = max(width(tick.text, SMALL) for tick in up.ticks) + GAP
    if True in kinds:
        across = axes.days(places, margin, WIDTH - 2 * GAP)
    elif x_log:
        across = axes.logarithmic(places, margin, WIDTH - 2 * GAP, fixed=True)
    else:
        across = axes.linear(places, margin, WIDTH - 2 * GAP, fixed=True, whole=is_x_whole)
    if len(series) > 1:
        _legend_of_series(page, series)
    _left_axis(page, up, across, y)
    top = page.y
    for index, one in enumerate(series):
        _line(page, one, index, across, up, top, is_alone=len(series) == 1)
    page.y = top + PLOT
    _bottom_axis(page, across, x)
    return Chart(page.drawing(), columns, table)


def _place(at: float | date) -> float:
    return float(at.toordinal()) if isinstance(at, date) else float(at)


def _left_axis(page: _Page, up: Axis, across: Axis, name: str) -> None:
    """The name above, ticks at the left, a line across for each; leaves page.y at the top of the plot."""
    page.y += 12
    page.text(0, page.y, name, "soft", size=SMALL)
    page.y += 12
    heights = [page.y + up.at(tick.value) for tick in up.ticks]
    page.strokes([(across.start, height, across.end, height) for height in heights], "grid")
    for tick, height in zip(up.ticks, heights, strict=True):
        page.text(across.start - 6, height + 4, tick.text, "soft", size=SMALL, anchor="end")


def _legend_of_series(page: _Page, series: Sequence[Series]) -> None:
    x, page.y = 0.0, page.y + 14
    for index, one in enumerate(series):
        shown, _ = fit(one.name, 0.4 * WIDTH, SMALL)
        needed = 34 + width(shown, SMALL) + 2 * GAP
        if x and x + needed > WIDTH:
            x, page.y = 0.0, page.y + 16
        line, mark, shape = _looks(index)
        page.marks.append(Polyline(((x, page.y - 4), (x + 28, page.y - 4)), line))
        page.marks.append(Dot(x + 14, page.y - 4, 3, mark, shape))
        page.text(x + 34, page.y, one.name, "soft", space=0.4 * WIDTH, size=SMALL)
        x += needed
    page.y += 6


MARKED = 40  # lines with more points than this have markers at a few of them only


def _line(page: _Page, one: Series, index: int, across: Axis, up: Axis, top: float, *, is_alone: bool) -> None:
    """The parts of a line between gaps; a point alone is a marker alone."""
    part: list[tuple[float, float]] = []
    parts = [part]
    for at, value in one.points:
        if value is None:
            part = []
            parts.append(part)
        else:
            part.append((across.at(_place(at)), top + up.at(value)))
    n_points = sum(map(len, parts))
    every = math.ceil(n_points / 8) if n_points > MARKED else 1
    line, mark, shape = _looks(index)
    seen = 0
    for part in parts:
        thinned = thin(part)
        if len(thinned) > 1:
            page.marks.append(Polyline(tuple(thinned), line))
        for place in part:
            if is_alone and len(part) > 1 and n_points > MARKED:
                break
            if seen % every == 0 or len(part) == 1:
                page.marks.append(Dot(*place, 3, mark, shape))
            seen += 1


def thin(points: Sequence[tuple[float, float]], *, width: float = 1.0) -> list[tuple[float, float]]:
    """The points, from left to right, with at most four for each `width` of x: first, lowest, highest and last."""
    kept: list[tuple[float, float]] = []
    start = 0
    for index in range(1, len(points) + 1):
        if index < len(points) and points[index][0] - points[start][0] < width:
            continue
        bucket = range(start, index)
        chosen = {
            start,
            index - 1,
            min(bucket, key=lambda i: points[i][1]),
            max(bucket, key=lambda i: points[i][1]),
        }
        kept += [points[i] for i in sorted(chosen)]
        start = index
    return kept


# How often.


def histogram(
    values: Sequence[float], *, title: str, x: str, y: str, description: str = "", n_bins: int = 20,
    times: Sequence[int] | None = None, is_whole: bool = False, lang: str = "en", words: Words | None = None,
) -> Chart:  # fmt: skip
    """Counts of values in bins of a round width; a bin holds its lower end, the last one its upper end too.

    n_bins: how many at most.  times: how often each value is there, once if not given.  is_whole: the values are whole
    numbers, and so are the ends of the bins; no bin holds its upper end then.
    Raises ValueError for a number that is not finite.
    """
    words = words or Words()
    page = _Page(title, description, lang)
    columns = (words.at_least, words.below, words.count)
    if not values:
        return Chart(_empty(page, words), columns, ())
    ends = [*values, max(values) + 1] if is_whole else values
    binned = axes.linear(ends, 0.0, 1.0, n=n_bins, whole=is_whole)
    edges = [int(tick.value) if is_whole else tick.value for tick in binned.ticks]
    counts = [0] * (len(edges) - 1)
    for value, n in zip(values, times or [1] * len(values), strict=True):
        counts[sum(value >= edge for edge in edges[1:-1])] += n
    up = axes.linear([0, *counts], PLOT, 0.0, whole=True)
    margin = max(width(tick.text, SMALL) for tick in up.ticks) + GAP
    across = axes.linear(edges, margin, WIDTH - 2 * GAP, n=10, fixed=True, whole=is_whole)
    _left_axis(page, up, across, y)
    top = page.y
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            left, right, height = across.at(low), across.at(high), up.at(count)
            page.marks.append(Rect(left, top + height, right - left, PLOT - height, "bar", f"{count}"))
    page.y = top + PLOT
    _bottom_axis(page, across, x)
    rows = tuple((low, high, count) for low, high, count in zip(edges, edges[1:], counts, strict=False))
    return Chart(page.drawing(), columns, rows)


def bars(
    rows: Sequence[tuple[str, int]], *, title: str, description: str = "", has_shares: bool = True, lang: str = "en",
    words: Words | None = None,
) -> Chart:  # fmt: skip
    """A bar from nought for each name, in the given order, with its count.

    has_shares: the rows are all there is, so each also has its share of them.
    Raises ValueError for a count below 0.
    """
    words = words or Words()
    page = _Page(title, description, lang)
    total = sum(n for _, n in rows)
    columns: tuple[str, ...] = (words.name, words.count)
    table: tuple[tuple[Cell, ...], ...] = tuple(rows)
    if has_shares:
        columns += (words.share,)
        table = tuple((name, n, n / total if total else None) for name, n in rows)
    if not total:
        return Chart(_empty(page, words), columns, table)
    if min(n for _, n in rows) < 0:
        raise ValueError(f"{title}: a count is below 0")
    labels = [f"{n} ({_percent(n, total)})" if has_shares else str(n) for _, n in rows]
    left = _label_width([name for name, _ in rows]) + GAP
    longest = WIDTH - left - GAP - max(width(label, SMALL) for label in labels)
    most = max(n for _, n in rows)
    for (name, n), label in zip(rows, labels, strict=True):
        length = longest * n / most
        page.text(0, page.y + BAR - 5, name, space=left - GAP)
        if n:
            page.marks.append(Rect(left, page.y, length, BAR, "bar", f"{name}: {label}"))
        page.text(left + length + GAP, page.y + BAR - 5, label, "soft", size=SMALL)
        page.y += BAR + 5
    page.strokes([(left, 0, left, page.y)], "axis")
    return Chart(page.drawing(), columns, table)
