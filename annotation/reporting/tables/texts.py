"""Tables of text metrics: scores, their parts, differences, and how they stand to people."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from annotation.reporting.numbers import Report
from annotation.reporting.table import EMPTY, Cell, Column, Table
from annotation.reporting.tables.shared import (
    ARM,
    AUTOMATIC,
    DATASET,
    DIMENSION,
    FURTHER,
    LENGTH_NAMES,
    SHORT_NAMES,
    N,
    beside_each,
    dataset_cell,
    dimension_cell,
    estimate_cell,
    first_minus_second,
    where,
)
from metrics.text import PROTOCOLS


def text_table(report: Report) -> Table:
    """Every protocol, with intervals."""
    metrics = (*AUTOMATIC, *FURTHER)
    rows = []
    for dataset in report.facts.datasets:
        for protocol in PROTOCOLS:
            for arm in report.facts.arms:
                stratum = {"dataset": dataset.slug, "system": arm.code}
                found = [report.estimate(key, "", stratum, {"protocol": protocol}) for key, _title in metrics]
                if any(found):
                    first = next(estimate for estimate in found if estimate)
                    head = [dataset_cell(report, dataset.slug), Cell(arm=arm), Cell(text=protocol)]
                    rows.append([*head, *(estimate_cell(e) for e in found), Cell(value=first.n["pairs"])])
    return Table(
        "texts",
        _("Text metrics"),
        _(
            "Responses against the counsellor’s own reply, in percent, with 95 % intervals by dialogue. A metric is "
            "only comparable within one protocol. D-1 and D-2: Distinct per response; length in tokens of BLEU."
        ),
        [
            DATASET, ARM, Column("protocol", _("Protocol")),
            *(Column(key, title, "number") for key, title in metrics), N,
        ],
        rows,
        is_detail=True,
        n_headings=3,
    )  # fmt: skip


def text_part_table(report: Report) -> Table:
    """By topic and by length, the default protocol."""
    kinds = (("topic", _("Topic")), ("length", _("Length of the reference")))
    rows = []
    for kind, title in kinds:
        found = report.split("bleu_1", "", by=("dataset", "system", kind))
        for row in found:
            cells = [estimate_cell(report.estimate(key, "", row.stratum, row.detail)) for key, _title in AUTOMATIC]
            level = row.stratum[kind]
            head = [where(report, row.stratum), Cell(arm=report.facts.arm(row.stratum["system"])), Cell(text=title)]
            rows.append([*head, Cell(text=LENGTH_NAMES.get(level, level)), *cells, Cell(value=row.estimate.n["pairs"])])
    return Table(
        "text-parts",
        _("Text metrics by topic and length"),
        _("Protocol “chatglm”, with 95 % intervals by dialogue; lengths are thirds of the items."),
        [
            DATASET, ARM, Column("by", _("Split by")), Column("part", _("Part")),
            *(Column(key, title, "number") for key, title in AUTOMATIC), N,
        ],
        rows,
        is_detail=True,
        n_headings=4,
    )  # fmt: skip


def text_difference_table(report: Report) -> Table:
    rows = []
    for row in report.rows("text_differences"):
        if not row.metric.endswith("_difference"):
            continue
        score = row.metric.removesuffix("_difference")
        p, p_bootstrap = (
            report.estimate(f"{score}_{name}", "", row.stratum, row.detail)
            for name in ("p_randomisation", "p_bootstrap")
        )
        rows.append(
            [
                where(report, row.stratum),
                first_minus_second(report, row.detail["systems"]),
                Cell(text=SHORT_NAMES.get(score, score)),
                estimate_cell(row.estimate),
                estimate_cell(p),
                estimate_cell(p_bootstrap),
            ]
        )
    return Table(
        "text-differences",
        _("Differences in text metrics"),
        _(
            "First minus second system, protocol “chatglm”, with a 95 % interval by dialogue; p from exchanging the "
            "systems within dialogues, and from resampling dialogues. With thousands of items any visible gap is "
            "significant: look at its size. The response of each system is one draw; another draw would differ, too."
        ),
        [
            DATASET, Column("systems", _("Systems")), Column("score", _("Metric")),
            Column("difference", _("Difference"), "number"), Column("p", _("p, randomisation"), "p"),
            Column("p_bootstrap", _("p, bootstrap"), "p"),
        ],
        rows,
        is_detail=True,
        n_headings=3,
    )  # fmt: skip


def metric_table(report: Report) -> Table:
    """Do text metrics see what people see?"""
    others = ("item_pairwise_accuracy", "system_pairwise_accuracy", "soft_pairwise_accuracy")
    names = ("item_tau_b", *others)
    rows = []
    for dimension in report.facts.dimensions:
        found = [r for r in report.rows("correlation") if r.metric in names and r.dimension == dimension.key]
        rows += [
            [
                dimension_cell(dimension),
                Cell(text=SHORT_NAMES.get(row.detail["metric"], row.detail["metric"])),
                *(estimate_cell(one.estimate) for one in (row, *beside)),
            ]
            for row, beside in beside_each(found, *others)
        ]
        human = [report.estimate(name, dimension.key) for name in ("human_tau_b", "human_pairwise_accuracy")]
        if any(human):
            rows.append(
                [
                    dimension_cell(dimension),
                    Cell(text=_("one rater against the others")),
                    *map(estimate_cell, human),
                    EMPTY,
                    EMPTY,
                ]
            )
        ceiling = report.estimate("reliability_ceiling", dimension.key)
        if ceiling is not None:
            rows.append(
                [
                    dimension_cell(dimension),
                    Cell(text=_("reliability ceiling")),
                    estimate_cell(ceiling),
                    EMPTY,
                    EMPTY,
                    EMPTY,
                ]
            )
    return Table(
        "metrics-people",
        _("Text metrics against people"),
        _(
            "Within each item: Kendall’s τ-b over the systems, and the share of pairs in the raters’ order with ties "
            "calibrated. Between systems: the share of pairs in the raters’ order, and soft pairwise accuracy. Length "
            "alone stands beside them as a sentinel."
        ),
        [
            DIMENSION, Column("metric", _("Metric")), Column("tau_b", "τ-b", "number"),
            Column("pairwise", _("Pairwise accuracy, items"), "percent"),
            Column("systems", _("Pairwise accuracy, systems"), "percent"),
            Column("soft", _("Soft pairwise accuracy"), "percent"),
        ],
        rows,
        remark=_(
            "The ceiling is √ICC(2,k): on average, no correlation over all responses with the mean of these raters "
            "exceeds it; within an item it is lower."
        ),
        is_detail=True,
        n_headings=2,
    )  # fmt: skip
