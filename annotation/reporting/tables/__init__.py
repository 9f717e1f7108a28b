"""The tables of a report, from its numbers: which there are, in which order, with which columns.

A table that would have no row is left out. Titles are translations that are looked up when they are shown.
"""

from __future__ import annotations

from collections.abc import Callable

from annotation.reporting.numbers import Report
from annotation.reporting.table import Table
from annotation.reporting.tables.people import (
    agreement_by_part,
    agreement_table,
    blinding_table,
    habit_table,
    judge_rater_table,
    judge_table,
    point_table,
    rater_pairs,
    rater_table,
    recognition_table,
    repeat_table,
)
from annotation.reporting.tables.scores import (
    count_table,
    kappa_table,
    paper_table,
    score_table,
)
from annotation.reporting.tables.systems import (
    dataset_difference_table,
    difference_table,
    fit_table,
    model_table,
    plan_table,
    power_table,
    rank_table,
)
from annotation.reporting.tables.texts import (
    metric_table,
    text_difference_table,
    text_part_table,
    text_table,
)


def report_tables(report: Report) -> list[Table]:
    """All tables of a report that have at least one row, in the order of the page."""
    makers: tuple[Callable[[Report], Table], ...] = (
        paper_table,
        kappa_table,
        score_table,
        difference_table,
        dataset_difference_table,
        rank_table,
        fit_table,
        model_table,
        power_table,
        plan_table,
        agreement_table,
        agreement_by_part,
        point_table,
        rater_pairs,
        rater_table,
        habit_table,
        repeat_table,
        blinding_table,
        recognition_table,
        judge_table,
        judge_rater_table,
        text_table,
        text_part_table,
        text_difference_table,
        metric_table,
        count_table,
    )
    return [table for make in makers if (table := make(report)).rows]
