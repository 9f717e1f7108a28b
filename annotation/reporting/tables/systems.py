"""Tables of systems side by side: differences, ranks, models, and what a study can detect."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from annotation.reporting.numbers import Report
from annotation.reporting.table import Cell, Column, Table
from annotation.reporting.tables.shared import (
    DATASET,
    DIMENSION,
    Named,
    beside_each,
    dimension_cell,
    estimate_cell,
    first_minus_second,
    where,
)
from metrics import power


def difference_table(report: Report) -> Table:
    """Every two systems: how far apart, how sure, how large in other words."""
    return _difference_table(report, "differences", _("Differences between systems"), is_split=False)


def dataset_difference_table(report: Report) -> Table:
    """The same within each dataset, where there are several."""
    return _difference_table(report, "differences-datasets", _("Differences within each dataset"), is_split=True)


def _difference_table(report: Report, key: str, title: Any, *, is_split: bool) -> Table:
    others = ("p_sign_flip", "p_holm", "cliffs_delta", "superiority", "win_rate", "tie_rate", "loss_rate")
    wanted = {"mean_difference", *others}
    rows = [
        [
            dimension_cell(dimension),
            *([where(report, row.stratum)] if is_split else []),
            first_minus_second(report, row.detail["systems"]),
            *(estimate_cell(one.estimate) for one in (row, *beside)),
        ]
        for dimension in report.facts.dimensions
        for row, beside in beside_each(
            [
                r
                for r in report.rows("comparison")
                if r.metric in wanted and r.dimension == dimension.key and bool(r.stratum) == is_split
            ],
            *others,
        )
    ]
    return Table(
        key,
        title,
        _(
            "First minus second system in points of the scale, with a 95 % interval by dialogue; p from exchanging the "
            "two within dialogues, then corrected for all pairs of the dimension (Holm). Cliff’s δ and superiority "
            "say how often one lies above the other; wins are counted within rater and item."
        ),
        [
            DIMENSION,
            *([DATASET] if is_split else []),
            Column("systems", _("Systems")),
            Column("difference", _("Difference"), "number"),
            Column("p", "p", "p"),
            Column("p_holm", _("p, Holm"), "p"),
            Column("cliffs_delta", _("Cliff’s δ"), "number"),
            Column("superiority", _("Superiority"), "percent"),
            Column("wins", _("Wins"), "percent"),
            Column("ties", _("Ties"), "percent"),
            Column("losses", _("Losses"), "percent"),
        ],
        rows,
        n_headings=3 if is_split else 2,
        is_detail=is_split,
    )


def rank_table(report: Report) -> Table:
    others = ("cluster", "strength")
    rows = [
        [
            dimension_cell(dimension),
            where(report, row.stratum),
            Cell(arm=report.facts.arm(row.detail["system"])),
            *(estimate_cell(one.estimate) for one in (row, *beside)),
        ]
        for dimension in report.facts.dimensions
        for row, beside in beside_each(
            [r for r in report.rows("comparison") if r.metric in ("rank", *others) and r.dimension == dimension.key],
            *others,
        )
    ]
    return Table(
        "ranks",
        _("Ranks"),
        _(
            "Rank by mean score with the range of ranks over resampled dialogues. A new cluster begins only where "
            "every system above differs from every one below after Holm. Strength: Davidson’s model of wins and "
            "ties, in log-odds against the mean system."
        ),
        [
            DIMENSION, DATASET, Column("arm", _("System")), Column("rank", _("Rank"), "count"),
            Column("cluster", _("Cluster"), "count"), Column("strength", _("Strength"), "number"),
        ],
        rows,
        is_detail=True,
        n_headings=3,
    )  # fmt: skip


def model_table(report: Report) -> Table:
    """The ordinal mixed model, and beside it the population-averaged one."""
    names = ("clmm_system", "p_clmm", "p_clmm_holm", "gee_system", "p_gee", "p_gee_holm")
    rows = [
        [
            dimension_cell(dimension),
            first_minus_second(report, row.detail["systems"]),
            *(estimate_cell(one.estimate) for one in (row, *beside)),
        ]
        for dimension in report.facts.dimensions
        for row, beside in beside_each(
            [r for r in report.rows("mixed") if r.metric in names and r.dimension == dimension.key], *names[1:]
        )
    ]
    return Table(
        "models",
        _("Ordinal models"),
        _(
            "Log-odds of a higher rating, first against second system. Mixed: cumulative logit with raters fixed and "
            "dialogues and responses random. GEE: the same averaged over dialogues, with errors clustered by dialogue."
        ),
        [
            DIMENSION,
            Column("systems", _("Systems")),
            Column("mixed", _("Mixed model"), "number"),
            Column("p_mixed", "p", "p"),
            Column("p_mixed_holm", _("p, Holm"), "p"),
            Column("gee", "GEE", "number"),
            Column("p_gee", "p", "p"),
            Column("p_gee_holm", _("p, Holm"), "p"),
        ],
        rows,
        is_detail=True,
        n_headings=2,
    )


def fit_table(report: Report) -> Table:
    """What else the mixed model says: how far dialogues and responses differ, and whether its form holds."""
    names: Named = (
        ("clmm_sd_dialogue", _("SD of dialogues"), "number"),
        ("clmm_sd_dialogue_system", _("SD of responses"), "number"),
        ("clmm_loglik", _("Log-likelihood"), "number"),
        ("p_proportional_odds", _("p, proportional odds"), "p"),
        ("friedman_chi2", _("Friedman’s χ²"), "number"),
        ("friedman", _("p, Friedman"), "p"),
    )
    rows = []
    for dimension in report.facts.dimensions:
        found = [report.estimate(name, dimension.key) for name, _title, _kind in names]
        if any(found):
            rows.append([dimension_cell(dimension), *map(estimate_cell, found)])
    return Table(
        "fit",
        _("Do systems differ at all?"),
        _(
            "Friedman’s test over the dialogues that have all systems; and the mixed model: how far dialogues and "
            "responses within them differ, in log-odds, and a test of its form. A small p there means that systems "
            "differ in more than a shift."
        ),
        [DIMENSION, *(Column(name, title, kind) for name, title, kind in names)],
        rows,
    )


def power_table(report: Report) -> Table:
    """What this study could have found."""
    rows = []
    for dimension in report.facts.dimensions:
        typical = [r for r in report.of("minimum_detectable_difference", dimension.key) if "systems" not in r.detail]
        if typical:
            variances = [report.estimate(f"variance_{name}", dimension.key) for name in ("dialogue_system", "residual")]
            only, all_pairs = typical[0].estimate, typical[-1].estimate
            rows.append(
                [
                    dimension_cell(dimension),
                    estimate_cell(only),
                    estimate_cell(all_pairs),
                    *map(estimate_cell, variances),
                ]
            )
    return Table(
        "power",
        _("What this study can detect"),
        _(
            "The true difference between two systems, in points, that a study like this one finds with a chance of "
            "80 %: as the only test, and as the hardest of all pairs under Holm. Below: what the spread consists of."
        ),
        [
            DIMENSION, Column("one_test", _("One test"), "number"), Column("all_pairs", _("All pairs"), "number"),
            Column("variance_responses", _("Variance of responses"), "number", digits=3),
            Column("variance_ratings", _("Variance of ratings"), "number", digits=3),
        ],
        rows,
    )  # fmt: skip


DIALOGUES, RATERS = (50, 100, 200, 400), (1, 2, 3, 5)


def plan_table(report: Report) -> Table:
    """Designs for the next study, cheapest first: detectable differences by dimension."""
    facts = report.facts
    plans = {}
    for dimension in facts.dimensions:
        values = [report.estimate(f"variance_{name}", dimension.key) for name in ("dialogue_system", "residual")]
        variances = [float(e.value) for e in values if e is not None and e.value is not None]
        if len(variances) == 2 and any(variances):
            designs = power.plan(
                power.Components(*variances),
                differences=(1.0,),
                dialogues=DIALOGUES,
                raters=RATERS,
                n_systems=len(facts.arms),
                cost_per_rating=facts.cost_per_rating,
            )
            plans[dimension.key] = designs
    known = [d for d in facts.dimensions if d.key in plans]
    rows = [
        [
            Cell(value=designs[0].n_dialogues), Cell(value=designs[0].n_raters), Cell(value=designs[0].n_ratings),
            Cell(value=designs[0].cost), *(Cell(value=design.detectable_all_pairs) for design in designs),
        ]
        for designs in zip(*(plans[d.key] for d in known), strict=True)
    ]  # fmt: skip
    return Table(
        "plan",
        _("Planning the next study"),
        _(
            "The difference that each design would find with a chance of 80 % as the hardest of all pairs, if "
            "responses and raters vary as they did here. Raters are those of one dialogue, who rate all systems on it."
        ),
        [
            Column("dialogues", _("Dialogues"), "count"), Column("raters", _("Raters per dialogue"), "count"),
            Column("ratings", _("Ratings"), "count"),
            Column("cost", _("Cost"), "number", digits=0, unit=facts.currency),
            *(Column(d.key, d.short_name, "number") for d in known),
        ],
        rows,
        n_headings=2,
        is_detail=True,
    )  # fmt: skip
