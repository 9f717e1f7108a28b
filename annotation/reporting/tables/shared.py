"""What the tables of a report share: columns, cells, and the names of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from annotation.reporting.facts import ArmLabel, DimensionLabel
from annotation.reporting.numbers import Report
from annotation.reporting.table import EMPTY, Cell, Column, Kind
from metrics.results import Estimate, ResultRow

AUTOMATIC = (
    ("bleu_1", "B-1"), ("bleu_2", "B-2"), ("bleu_3", "B-3"), ("bleu_4", "B-4"),
    ("rouge_1", "R-1"), ("rouge_2", "R-2"), ("rouge_l", "R-L"),
)  # fmt: skip
FURTHER = (("distinct_1", "D-1"), ("distinct_2", "D-2"), ("length", _("Length")))
Named = tuple[tuple[str, Any, Kind], ...]
"""Metric, what it is called, how it is shown."""

COEFFICIENTS: Named = (
    ("percent_agreement", _("Percent agreement"), "percent"),
    ("fleiss_kappa", _("Fleiss’ κ"), "number"),
    ("krippendorff_alpha_nominal", _("Krippendorff’s α, nominal"), "number"),
    ("krippendorff_alpha_ordinal", _("Krippendorff’s α, ordinal"), "number"),
    ("krippendorff_alpha_interval", _("Krippendorff’s α, interval"), "number"),
    ("gwet_ac1", _("Gwet’s AC1"), "number"),
    ("gwet_ac2_quadratic", _("Gwet’s AC2, quadratic"), "number"),
    ("brennan_prediger", _("Brennan–Prediger"), "number"),
    ("conger_kappa", _("Conger’s κ"), "number"),
    ("icc_2_1", _("ICC(2,1)"), "number"),
    ("icc_2_k", _("ICC(2,k)"), "number"),
)
HEADLINE = ("percent_agreement", "fleiss_kappa", "krippendorff_alpha_ordinal", "gwet_ac2_quadratic")

DATASET = Column("dataset", _("Dataset"))
ARM = Column("arm", _("Arm"))
DIMENSION = Column("dimension", _("Dimension"))
N = Column("n", "n", "count")


def language() -> str:
    return get_language() or "en"


def dimension_cell(dimension: DimensionLabel) -> Cell:
    return Cell(text=dimension.name(language()))


def dimension_columns(report: Report) -> list[Column]:
    return [
        Column(d.key, d.short_name, "number", unit=f"{d.name(language())} 0–{d.highest}")
        for d in report.facts.dimensions
    ]


def dataset_cell(report: Report, slug: str) -> Cell:
    names = {dataset.slug: dataset.name for dataset in report.facts.datasets}
    return Cell(text=names[slug], is_given=True) if slug else Cell(text=_("All datasets"))


def estimate_cell(estimate: Estimate | None, counted: str = "") -> Cell:
    """The estimate; `counted` names the count that stands below it."""
    if estimate is None:
        return EMPTY
    return Cell(estimate=estimate, n=estimate.n.get(counted))


def parts(report: Report) -> Iterable[tuple[str, ArmLabel]]:
    """Dataset by dataset, arm by arm; then all datasets together (""), if there are several."""
    slugs = [dataset.slug for dataset in report.facts.datasets]
    for slug in [*slugs, *([""] if len(slugs) > 1 else [])]:
        for arm in report.facts.arms:
            yield slug, arm


def stratum_of(dataset: str, arm: str) -> dict[str, str]:
    return {"dataset": dataset, "system": arm} if dataset else {"system": arm}


def where(report: Report, stratum: Mapping[str, str]) -> Cell:
    """The dataset that a row is about, or all of them."""
    return dataset_cell(report, stratum.get("dataset", ""))


def first_minus_second(report: Report, systems: str) -> Cell:
    """Two arms by name, the order telling which is subtracted from which."""
    first, second = (report.facts.arm(code).name for code in systems.split(", "))
    return Cell(text=f"{first} − {second}", is_given=True)


def beside_each(rows: Iterable[ResultRow], *others: str) -> Iterator[tuple[ResultRow, list[ResultRow]]]:
    """Each row of the first metric, with the rows of the other metrics about the same thing."""
    found = list(rows)
    places = {(row.metric, row.dimension, _part_of(row)): row for row in found}
    first = found[0].metric if found else ""
    for row in found:
        if row.metric == first:
            yield row, [places[other, row.dimension, _part_of(row)] for other in others]


def _part_of(row: ResultRow) -> tuple[tuple[str, str], ...]:
    return (*row.stratum.items(), *row.detail.items())


LENGTH_NAMES = {"short": _("short"), "medium": _("medium"), "long": _("long")}


SHORT_NAMES: dict[str, Any] = {**dict(AUTOMATIC), **dict(FURTHER)}
