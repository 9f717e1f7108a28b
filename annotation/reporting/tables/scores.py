"""Tables of scores: the paper's, the means, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext_lazy as _

from annotation.reporting.numbers import Report
from annotation.reporting.published import published
from annotation.reporting.table import Cell, Column, Table
from annotation.reporting.tables.shared import (
    ARM,
    AUTOMATIC,
    DATASET,
    DIMENSION,
    dataset_cell,
    dimension_cell,
    dimension_columns,
    estimate_cell,
    parts,
    stratum_of,
)
from metrics.results import Estimate
from metrics.text import CHATGLM


def paper_table(report: Report) -> Table:
    """The table as the SoulChat paper prints it, with the published figures below ours once systems are named."""
    columns = [DATASET, Column("arm", _("System")), Column("line", _("Source"))]
    columns += [Column(key, title, "number") for key, title in AUTOMATIC]
    columns += [Column(d.key, d.short_name, "number") for d in report.facts.dimensions]
    scores = [key for key, _title in AUTOMATIC] + [d.key for d in report.facts.dimensions]
    rows: list[list[Cell]] = []
    has_published, lacks_texts = False, False
    for dataset in report.facts.datasets:
        for arm in report.facts.arms:
            found = {score: _paper_value(report, dataset.slug, arm.code, score) for score in scores}
            if not any(found.values()):
                continue
            lacks_texts |= not any(e and e.value is not None for e in (found[key] for key, _title in AUTOMATIC))
            head = [dataset_cell(report, dataset.slug), Cell(arm=arm)]
            rows.append([*head, Cell(text=_("this study")), *(_without_interval(found[score]) for score in scores)])
            if published().has_row(dataset.published_as, arm.system_slug):
                has_published = True
                rows += _published_rows(head, dataset.published_as, arm.system_slug, found)
    return Table(
        "paper",
        _("The paper’s table"),
        _(
            "BLEU-1 to 4 and ROUGE-1, 2 and L in percent (protocol “chatglm”), on all items of the dataset that every "
            "arm answered and that have a reference; means of the ratings on the items that were rated."
        ),
        columns,
        rows,
        remark=_paper_remark(has_published=has_published, lacks_texts=lacks_texts),
        n_headings=2,
    )


def _paper_remark(*, has_published: bool, lacks_texts: bool) -> str:
    remarks: list[Any] = []
    if lacks_texts:
        remarks.append(
            _(
                "Where BLEU and ROUGE are missing, no item has a reference, the arm is the reference itself, texts are "
                "not counted yet, or a human reference among the arms keeps them hidden until the unblinding."
            )
        )
    if has_published:
        remarks.append(
            _(
                "Rounded once, halves away from zero. Published: %(source)s. The difference is taken between figures "
                "rounded to the paper’s decimals (Safety one, all others two)."
            )
            % {"source": published().source}
        )
    return " ".join(map(str, remarks))


def _paper_value(report: Report, dataset: str, arm: str, score: str) -> Estimate | None:
    stratum = {"dataset": dataset, "system": arm}
    if score in dict(AUTOMATIC):
        return report.estimate(score, "", stratum, {"protocol": CHATGLM.label})
    return report.estimate("mean_score", score, stratum)


def _without_interval(estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return Cell(text="–")
    return Cell(value=estimate.value)


def _published_rows(
    head: Sequence[Cell], dataset: str, system: str, found: dict[str, Estimate | None]
) -> list[list[Cell]]:
    theirs, differences = [], []
    for score, ours in found.items():
        theirs.append(Cell(text=published().value(dataset, system, score) or "–"))
        is_known = ours is not None and ours.value is not None
        difference = published().difference(ours.value, dataset, system, score) if is_known else ""  # type: ignore[union-attr, arg-type]
        differences.append(Cell(text=difference or "–"))
    return [[*head, Cell(text=_("published")), *theirs], [*head, Cell(text=_("difference")), *differences]]


def kappa_table(report: Report) -> Table:
    """Fleiss' kappa as the paper reports it, once a study of its systems is unblinded."""
    is_same = any(
        published().has_row(dataset.published_as, arm.system_slug)
        for dataset in report.facts.datasets
        for arm in report.facts.arms
    )
    rows = []
    for dimension in report.facts.dimensions if is_same else ():
        ours = report.estimate("fleiss_kappa", dimension.key)
        theirs = published().fleiss_kappa.get(dimension.key, "")
        if ours is not None and theirs:
            is_constant = ours.reason == "no_variation"
            conventional = Cell(value=1.0, small=_("by convention")) if is_constant else estimate_cell(ours)
            rows.append([dimension_cell(dimension), conventional, Cell(text=theirs)])
    return Table(
        "paper-kappa",
        _("The paper’s agreement"),
        _(
            "Fleiss’ κ over all ratings. Where everyone gave the same score it is 0 / 0; the paper prints 1 there, and "
            "so does this table, by that convention only. The paper does not say whether it put systems together."
        ),
        [
            DIMENSION,
            Column("this_study", _("this study"), "number", digits=3),
            Column("published", _("published"), "text"),
        ],
        rows,
    )


def score_table(report: Report) -> Table:
    rows = []
    for slug, arm in parts(report):
        cells = [
            estimate_cell(report.estimate("mean_score", d.key, stratum_of(slug, arm.code)), "responses")
            for d in report.facts.dimensions
        ]
        if any(cell.estimate for cell in cells):
            rows.append([dataset_cell(report, slug), Cell(arm=arm), *cells])
    return Table(
        "scores",
        _("Scores"),
        _(
            "Mean rating with its 95 % interval, and n, the number of responses with at least one rating. Arms stand "
            "in the order of their codes, which says nothing about their scores."
        ),
        [DATASET, ARM, *dimension_columns(report)],
        rows,
        n_headings=2,
    )


def count_table(report: Report) -> Table:
    counts = [
        ("n_responses", _("Responses")),
        ("n_complete", _("Complete")),
        ("n_final", _("Ratings submitted")),
        ("n_missing", _("Missing")),
        ("n_skipped", _("Skipped by the rater")),
    ]
    rows = [
        [
            dataset_cell(report, count.dataset),
            Cell(arm=report.facts.arm(count.arm)),
            *(Cell(value=getattr(count, name)) for name, _title in counts),
        ]
        for count in report.facts.counts
    ]
    return Table(
        "counts",
        _("What the numbers rest on"),
        _("Hidden repeats are left out. A response is complete when everyone who was to rate it has done so."),
        [DATASET, ARM, *(Column(name, title, "count") for name, title in counts)],
        rows,
        n_headings=2,
    )
