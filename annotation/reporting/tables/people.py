"""Tables of people: agreement, each rater, blinding, and judges beside them."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from annotation.reporting.numbers import Report, rounded
from annotation.reporting.table import Cell, Column, Table
from annotation.reporting.tables.shared import (
    ARM,
    COEFFICIENTS,
    DIMENSION,
    HEADLINE,
    N,
    Named,
    dataset_cell,
    dimension_cell,
    estimate_cell,
)
from metrics.report import EPSILON
from metrics.results import Estimate


def agreement_table(report: Report) -> Table:
    rows = []
    for dimension in report.facts.dimensions:
        found = [report.estimate(metric, dimension.key) for metric, *_rest in COEFFICIENTS]
        if not any(found):
            continue
        cells = [estimate_cell(estimate) for estimate in found]
        points = [row.estimate for row in report.of("other_point_rate", dimension.key)]
        if points and points[0].high is not None:
            bound = rounded(points[0].high, 1, percent=True)
            small = _("another score in at most %(bound)s %% of dialogues (95 %%, one-sided)") % {"bound": bound}
            cells[0] = Cell(estimate=found[0], small=small)
        n = found[0].n["responses_used"] if found[0] else 0
        rows.append([dimension_cell(dimension), *cells, Cell(value=n)])
    return Table(
        "agreement",
        _("Agreement between raters"),
        _(
            "All arms and datasets together, with 95 % intervals. Percent agreement is the chance that two raters gave "
            "a response the same score; the coefficients correct it for chance."
        ),
        [DIMENSION, *(Column(key, title, kind) for key, title, kind in COEFFICIENTS), N],
        rows,
        remark=_(
            "n counts responses with two or more ratings. Putting arms together raises κ where arms differ, so the "
            "table below splits it."
        ),
    )


def agreement_by_part(report: Report) -> Table:
    """The headline coefficients per arm, dataset and topic."""
    rows = []
    for dimension in report.facts.dimensions:
        for part in _agreement_parts(report):
            (column, level), *_none = part.items()
            found = [report.estimate(metric, dimension.key, part) for metric in HEADLINE]
            if not any(found):
                continue
            label = Cell(arm=report.facts.arm(level)) if column == "system" else Cell(text=level, is_given=True)
            if column == "dataset":
                label = dataset_cell(report, level)
            n = found[0].n["responses_used"] if found[0] else 0
            rows.append(
                [
                    dimension_cell(dimension),
                    Cell(text=_SPLITS[column]),
                    label,
                    *map(estimate_cell, found),
                    Cell(value=n),
                ]
            )
    kinds = {metric: (title, kind) for metric, title, kind in COEFFICIENTS}
    return Table(
        "agreement-parts",
        _("Agreement by arm, dataset and topic"),
        _("The same coefficients within each part, with 95 % intervals."),
        [DIMENSION, Column("by", _("Split by")), Column("part", _("Part"))]
        + [Column(metric, kinds[metric][0], kinds[metric][1]) for metric in HEADLINE]
        + [N],
        rows,
        is_detail=True,
        n_headings=3,
    )


_SPLITS = {"system": _("Arm"), "dataset": _("Dataset"), "topic": _("Topic")}


def _agreement_parts(report: Report) -> list[dict[str, str]]:
    """The strata that Fleiss' kappa was computed for, arms first, in the order in which they were computed."""
    found = {tuple(row.stratum.items()): dict(row.stratum) for row in report.rows("agreement")}
    return [part for part in found.values() if part]


def point_table(report: Report) -> Table:
    """Kappa of each point against all others: where raters see alike."""
    rows = [
        [dimension_cell(dimension), Cell(text=row.detail["point"]), estimate_cell(row.estimate)]
        for dimension in report.facts.dimensions
        for row in report.of("category_kappa", dimension.key)
    ]
    return Table(
        "points",
        _("Agreement on each point"),
        _("Fleiss’ κ of one point against all others, with 95 % intervals."),
        [DIMENSION, Column("point", _("Point")), Column("kappa", "κ", "number")],
        rows,
        is_detail=True,
        n_headings=2,
    )


def rater_pairs(report: Report) -> Table:
    """Weighted kappa of every two raters: finds the one who differs."""
    rows = [
        [dimension_cell(dimension), Cell(text=row.detail["raters"]), estimate_cell(row.estimate, "responses_used")]
        for dimension in report.facts.dimensions
        for row in report.of("cohen_kappa_quadratic", dimension.key)
    ]
    return Table(
        "pairs",
        _("Every two raters"),
        _("Cohen’s κ with quadratic weights, with 95 % intervals; n counts responses that both rated."),
        [DIMENSION, Column("raters", _("Raters")), Column("kappa", _("κ, quadratic"), "number")],
        rows,
        is_detail=True,
        n_headings=2,
    )


def repeat_table(report: Report) -> Table:
    rows = []
    for dimension in report.facts.dimensions:
        identical = report.estimate("repeat_percent_identical", dimension.key)
        if identical is not None and report.facts.n_repeats_placed:
            kappa = report.estimate("repeat_kappa_quadratic", dimension.key)
            pairs = Cell(value=identical.n["responses_used"])
            rows.append([dimension_cell(dimension), estimate_cell(identical), estimate_cell(kappa), pairs])
    return Table(
        "repeats",
        _("Raters against themselves"),
        _("Hidden repeats: how often a rater gave a response the same score the second time."),
        [
            DIMENSION,
            Column("identical", _("Identical"), "percent"),
            Column("kappa", _("κ, quadratic"), "number"),
            Column("pairs", _("Pairs"), "count"),
        ],
        rows,
    )


def blinding_table(report: Report) -> Table:
    """Could raters tell the writers apart?"""
    arms = {arm.code: Cell(arm=arm) for arm in report.facts.arms}
    rows = [
        [
            arms[row.detail["system"]] if "system" in row.detail else Cell(text=_("All arms")),
            Cell(text=_INDICES[row.metric]),
            estimate_cell(row.estimate),
            *(Cell(value=row.estimate.n[count]) for count in ("guesses", "right", "dont_know", "raters")),
        ]
        for row in report.rows("blinding")
        if row.metric in _INDICES
    ]
    return Table(
        "blinding",
        _("Could raters tell the writers apart?"),
        _(
            "Once done, raters saw two responses by each writer, without names, and said of others who wrote them: "
            "this is about recognising a writer’s hand, not about knowing a system. Bang’s index is 1 if everybody "
            "knows, 0 if they guess, below 0 if they are led astray; James’ index is 1 if nobody has an idea, 0.5 if "
            "they guess, 0 if everybody knows. With 95 % intervals by rater."
        ),
        [
            ARM, Column("index", _("Index")), Column("value", _("Value"), "number"),
            Column("guesses", _("Answers"), "count"), Column("right", _("Right"), "count"),
            Column("dont_know", _("Cannot tell"), "count"), Column("raters", _("Raters"), "count"),
        ],
        rows,
        remark=_(
            "Who wrote what can be told by style alone, so an index above chance does not say that a name was known."
        ),
        n_headings=2,
    )  # fmt: skip


_INDICES = {"bang_index": "Bang", "james_index": "James"}


_RECOGNISED = {"no": _("No"), "sometimes": _("Sometimes"), "often": _("Often"), "unsure": _("Don't know")}


def recognition_table(report: Report) -> Table:
    rows = [
        [
            Cell(text=_RECOGNISED.get(row.detail["answer"], row.detail["answer"])),
            estimate_cell(row.estimate),
            Cell(value=row.estimate.n["answers"]),
        ]
        for row in report.rows("blinding")
        if row.metric == "recognised"
    ]
    return Table(
        "recognised",
        _("Did raters believe they knew?"),
        _(
            "Share of raters by their answer to whether they at any time believed they knew which system or person "
            "had written a response, with exact 95 % intervals. Belief is not knowledge: see the table above."
        ),
        [Column("answer", _("Answer")), Column("share", _("Share"), "percent"), Column("n", "n", "count")],
        rows,
    )


def judge_table(report: Report) -> Table:
    """Could a language model stand in for a rater?"""
    others = ("average_advantage", "judge_bias")
    rows = [
        [
            Cell(text=row.detail["judge"], is_given=True),
            dimension_cell(dimension),
            estimate_cell(row.estimate, "responses"),
            *(estimate_cell(report.estimate(name, dimension.key, {}, row.detail)) for name in others),
        ]
        for dimension in report.facts.dimensions
        for row in report.of("winning_rate", dimension.key)
    ]
    return Table(
        "judges",
        _("Language models as judges"),
        _(
            "Alternative annotator test: each rater is left out in turn, and the judge wins if it lies as close to "
            "the others as that rater does, less a margin of %(epsilon)s. The winning rate is the share of raters "
            "beaten (paired t-test by dialogue, Benjamini–Yekutieli, 5 percent); the advantage is how often the judge "
            "lies at least as close. Bias: the judge minus the mean of the raters, in points."
        )
        % {"epsilon": f"{EPSILON:g}"},
        [
            Column("judge", _("Judge")), DIMENSION, Column("winning_rate", _("Winning rate"), "number"),
            Column("advantage", _("Advantage"), "number"), Column("bias", _("Bias"), "number"),
        ],
        sorted(rows, key=lambda cells: str(cells[0].text)),
        remark=_(
            "Judges are compared with people here and enter no other number: not scores, agreement, progress or pay."
        ),
        n_headings=2,
    )  # fmt: skip


def judge_rater_table(report: Report) -> Table:
    others = ("rater_advantage", "p_alternative_annotator_by", "judge_kappa_quadratic")
    rows = [
        [
            Cell(text=row.detail["judge"], is_given=True),
            dimension_cell(dimension),
            Cell(text=row.stratum["rater"]),
            estimate_cell(row.estimate, "responses"),
            *(estimate_cell(report.estimate(name, dimension.key, row.stratum, row.detail)) for name in others),
        ]
        for dimension in report.facts.dimensions
        for row in report.split("judge_advantage", dimension.key, by=("rater",))
    ]
    return Table(
        "judge-raters",
        _("Each judge against each rater"),
        _(
            "How often the judge, and how often the rater, lies at least as close to the other raters; p of the rater "
            "being better by more than the margin; and Cohen’s κ of the two with quadratic weights."
        ),
        [
            Column("judge", _("Judge")), DIMENSION, Column("rater", _("Rater left out")),
            Column("judge_advantage", _("Judge ahead"), "percent"),
            Column("rater_advantage", _("Rater ahead"), "percent"),
            Column("p", _("p, adjusted"), "p"), Column("kappa", _("κ, quadratic"), "number"),
        ],
        sorted(rows, key=lambda cells: str(cells[0].text)),
        is_detail=True,
        n_headings=3,
    )  # fmt: skip


def rater_table(report: Report) -> Table:
    """Per dimension and rater."""
    names: Named = (
        ("rater_severity", _("Severity"), "number"),
        ("clmm_rater", _("Severity, model"), "number"),
        ("rater_spread", _("Spread"), "number"),
        ("rater_drift", _("Drift per 100"), "number"),
    )
    rows = []
    for dimension in report.facts.dimensions:
        for row in report.split("rater_severity", dimension.key, by=("rater",)):
            found = [_rater_number(report, name, dimension.key, row.stratum["rater"]) for name, *_rest in names]
            rows.append([dimension_cell(dimension), Cell(text=row.stratum["rater"]), *map(estimate_cell, found)])
    return Table(
        "raters",
        _("Each rater"),
        _(
            "Severity: own rating minus the mean of the others on the same responses, below 0 is stricter; from the "
            "mixed model in log-odds. Spread: standard deviation of the rater’s ratings. Drift: change of severity "
            "over 100 places of the queue."
        ),
        [DIMENSION, Column("rater", _("Rater")), *(Column(name, title, kind) for name, title, kind in names)],
        rows,
        n_headings=2,
    )


def _rater_number(report: Report, metric: str, dimension: str, rater: str) -> Estimate | None:
    """The model names its raters in the detail, everything else in the stratum."""
    return report.estimate(metric, dimension, {"rater": rater}) or report.estimate(
        metric, dimension, {}, {"rater": rater}
    )


def habit_table(report: Report) -> Table:
    names: Named = (
        ("seconds_q1", _("Seconds, first quartile"), "number"),
        ("seconds_median", _("Seconds, median"), "number"),
        ("seconds_q3", _("Seconds, third quartile"), "number"),
        ("halo", _("Halo"), "number"),
        ("halo_excess", _("Halo, excess"), "number"),
        ("same_as_previous", _("Same as before"), "percent"),
        ("same_as_previous_excess", _("Same as before, excess"), "percent"),
        ("longest_run", _("Longest run"), "count"),
        ("longest_run_panel", _("Longest run, others"), "number"),
    )
    rows = []
    for row in report.split("seconds_median", "", by=("rater",)):
        found = [report.estimate(name, "", row.stratum) for name, *_rest in names]
        rows.append([Cell(text=row.stratum["rater"]), *map(estimate_cell, found)])
    return Table(
        "habits",
        _("Habits of raters"),
        _(
            "Active time per response. Halo: mean correlation between a rater’s own dimensions, and how much it "
            "exceeds the one across raters. Same as before: share of responses scored on all dimensions exactly as "
            "the one before, and how much more often than the others did. They describe; none proves carelessness."
        ),
        [
            Column("rater", _("Rater")),
            *(Column(name, title, kind, digits=1 if "second" in name else 2) for name, title, kind in names),
        ],
        rows,
        is_detail=True,
    )
