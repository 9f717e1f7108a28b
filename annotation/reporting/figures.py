"""The figures of a report: charts drawn from its numbers, for the page and, as PDF, for the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from annotation.figures import charts
from annotation.figures.charts import Bar, BarGroup, Chart, Row, Series, Words
from annotation.reporting.numbers import MARKS, REASONS, Report
from annotation.reporting.tables.shared import COEFFICIENTS, HEADLINE
from metrics.results import Estimate


@dataclass(frozen=True)
class Figure:
    """A chart with the name that its file and its place on the page go by."""

    key: str
    title: str
    caption: str
    chart: Chart


CAPTIONS: Mapping[str, Any] = {
    "distributions": gettext_lazy("Share of each point among all ratings, hidden repeats left out."),
    "agreement": gettext_lazy("All arms and datasets together, with 95 % intervals by dialogue."),
    "differences": gettext_lazy(
        "First minus second system, all datasets together, with 95 % intervals by dialogue. An interval that "
        "crosses the line leaves open which is better."
    ),
    "progress": gettext_lazy("Responses rated until the end of each day (UTC), hidden repeats included."),
}


def report_figures(report: Report) -> list[Figure]:
    """All figures of a report, in the reader's language; none before the first rating."""
    if report.is_empty:
        return []
    found = (
        Figure("distributions", _("Score distributions"), str(CAPTIONS["distributions"]), _distributions(report)),
        Figure("differences", _("Pairwise differences"), str(CAPTIONS["differences"]), _differences(report)),
        Figure("agreement", _("Agreement with intervals"), str(CAPTIONS["agreement"]), _agreement(report)),
        Figure("progress", _("Progress"), str(CAPTIONS["progress"]), _progress(report)),
    )
    return [figure for figure in found if figure.chart.rows]


def _language() -> str:
    return get_language() or "en"


def _words() -> Words:
    return Words(
        empty=_("Nothing to draw yet."),
        no_ratings=_("no ratings"),
        undefined=_("undefined"),
        group=_("Dimension"),
        name=_("Name"),
        point=_("Point"),
        count=_("Count"),
        share=_("Share"),
        value=_("Value"),
        low=_("Low"),
        high=_("High"),
        note=_("Note"),
        at_least=_("From"),
        below=_("To"),
    )


def _distributions(report: Report) -> Chart:
    counts: dict[tuple[str, str, str], int] = {}
    for row in report.rows("distribution"):
        key = row.dimension, row.stratum["system"], row.detail["point"]
        counts[key] = counts.get(key, 0) + int(row.estimate.value or 0)
    groups = []
    for dimension in report.facts.dimensions:
        points = tuple(str(point) for point in range(dimension.highest + 1))
        bars = [
            Bar(arm.name, tuple(counts.get((dimension.key, arm.code, point), 0) for point in points))
            for arm in report.facts.arms
        ]
        groups.append(BarGroup(dimension.name(_language()), points, tuple(bars)))
    title = _("Score distributions")
    return charts.distributions(groups, title=title, lang=_language(), words=_words())


def _differences(report: Report) -> Chart:
    rows = []
    for dimension in report.facts.dimensions:
        for row in report.of("mean_difference", dimension.key):
            first, second = (report.facts.arm(code).name for code in row.detail["systems"].split(", "))
            rows.append(_row(dimension.name(_language()), f"{first} − {second}", row.estimate))
    return charts.intervals(
        rows, title=_("Pairwise differences"), axis=_("Difference in points"), lang=_language(), words=_words()
    )


def _agreement(report: Report) -> Chart:
    titles = {metric: title for metric, title, _kind in COEFFICIENTS}
    rows = []
    for dimension in report.facts.dimensions:
        for metric in HEADLINE:
            estimate = report.estimate(metric, dimension.key)
            if estimate is not None:
                rows.append(_row(dimension.name(_language()), str(titles[metric]), estimate))
    return charts.intervals(
        rows,
        title=_("Agreement with intervals"),
        axis=_("Agreement, 1 is perfect"),
        covering=(1.0,),
        lang=_language(),
        words=_words(),
    )


def _row(group: str, name: str, estimate: Estimate) -> Row:
    reason = str(REASONS.get(estimate.reason or "", ""))
    note = "".join(MARKS.get(note, "") for note in estimate.notes)
    return Row(group, name, estimate.value, estimate.low, estimate.high, reason, note)


def _progress(report: Report) -> Chart:
    """Cumulative, one point per day on which somebody rated."""
    total, points = 0, []
    for day, n in report.facts.per_day:
        total += n
        points.append((date.fromisoformat(day), float(total)))
    series = [Series(_("Ratings submitted"), tuple(points))]
    return charts.lines(
        series,
        title=_("Progress"),
        x=_("Day"),
        y=_("Ratings submitted"),
        covering=(0.0,),
        lang=_language(),
        words=_words(),
    )
