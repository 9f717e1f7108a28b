"""The sections of a report's page: which figures and tables stand together, under which heading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from annotation.reporting.figures import Figure, report_figures
from annotation.reporting.numbers import Report
from annotation.reporting.table import Table
from annotation.reporting.tables import report_tables


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, figures and tables. `key` is its address on the page."""

    key: str
    title: Any
    figures: Sequence[Figure]
    tables: Sequence[Table]


_SECTIONS: tuple[tuple[str, Any, tuple[str, ...], tuple[str, ...]], ...] = (
    ("paper", _("The paper’s table"), (), ("paper", "paper-kappa")),
    ("scores", _("Scores"), ("distributions",), ("scores",)),
    (
        "comparison",
        _("Comparison of systems"),
        ("differences",),
        ("differences", "ranks", "fit", "models", "power", "plan"),
    ),
    ("agreement", _("Agreement between raters"), ("agreement",), ("agreement", "agreement-parts", "points", "pairs")),
    ("raters", _("Raters"), (), ("raters", "habits", "repeats")),
    ("blinding", _("Blinding"), (), ("blinding", "recognised")),
    ("judges", _("Judges"), (), ("judges", "judge-raters")),
    ("texts", _("Text metrics"), (), ("texts", "text-parts", "text-differences", "metrics-people")),
    ("counts", _("What the numbers rest on"), ("progress",), ("counts",)),
)


def report_sections(report: Report) -> list[Section]:
    """All figures and tables in the order of the page; a section with neither is left out."""
    tables = {table.key: table for table in report_tables(report)}
    figures = {figure.key: figure for figure in report_figures(report)}
    sections = [
        Section(key, title, [figures[k] for k in own if k in figures], [tables[k] for k in listed if k in tables])
        for key, title, own, listed in _SECTIONS
    ]
    return [section for section in sections if section.tables or section.figures]
