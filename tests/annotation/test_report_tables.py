"""The tables of a report from plain data: the same cells as text, LaTeX and values, whatever the ratings are."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from annotation.export import result_columns, result_rows
from annotation.reporting.facts import ArmCounts, ArmLabel, DatasetLabel, DimensionLabel, StudyFacts
from annotation.reporting.figures import report_figures
from annotation.reporting.latex import latex, latex_table
from annotation.reporting.numbers import Report
from annotation.reporting.page import report_sections
from annotation.reporting.published import published
from annotation.reporting.table import Cell, Column, Table, flat, shown, shown_number
from annotation.reporting.tables import report_tables
from metrics.report import StudyData, compute
from metrics.results import Estimate
from metrics.table import RatingTable, Scale
from tests.annotation.small_data import small_data


def facts(*, systems=("A", "B"), unblinded=False) -> StudyFacts:
    return StudyFacts(
        public_id="0", name="Study", state="closed", is_demo=False, rubric="cehs 1", rubric_hash="", design_hash="",
        plan_hash="", presentation="blocked", disclosure_policy="mask", raters_per_item=3, n_items=4, n_masked=0,
        n_dropped=0, n_repeats_placed=0, n_repeats_final=0, opened_at="", closed_at="", plan_frozen_at="",
        unblinded_at="2026-01-01" if unblinded else "", seed=None, interval_seed=1,
        dimensions=(DimensionLabel("empathy", {"zh": "共情", "en": "Empathy"}, 2),),
        arms=tuple(ArmLabel(code, f"System_{code} & co" if unblinded else "") for code in systems),
        datasets=(DatasetLabel("set", "Set"),),
        counts=tuple(ArmCounts("set", code, 4, 4, 12, 12, 0) for code in systems),
        per_day=(("2026-01-01", 5), ("2026-01-03", 7)),
    )  # fmt: skip


def report(*, items=4, systems="AB", raters=3, value=None, unblinded=False) -> Report:
    rng = np.random.default_rng(5)
    rows = [
        (str(i), f"R{r}", s, "empathy", int(rng.integers(3)) if value is None else value, "set", f"d{i}")
        for i in range(items) for s in systems for r in range(raters)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["item", "rater", "system", "dimension", "value", "dataset", "cluster"])
    table = RatingTable.from_frame(frame, [Scale("empathy", (0, 1, 2))])
    data = StudyData(table, n_bootstrap=40, n_flips=40)
    return Report(facts(systems=tuple(systems), unblinded=unblinded), compute(data), "state", "")


@pytest.mark.parametrize(
    "options",
    [{}, {"raters": 1}, {"items": 1}, {"systems": "A"}, {"value": 1}, {"items": 1, "systems": "A", "raters": 1},
     {"unblinded": True}],
    ids=str,
)  # fmt: skip
def test_every_table_can_be_shown_in_every_form(options):
    made = report(**options)
    tables = report_tables(made)
    assert {"scores", "agreement", "counts"} <= {table.key for table in tables}
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.key
        plain = flat(table)
        assert len(set(plain.names)) == len(plain.names), table.key
        assert all(len(row) == len(plain.names) for row in plain.rows)
        lines = latex_table(table).split("\n")
        assert all(
            line.count("&") - line.count(r"\&") == len(table.columns) - 1 for line in lines if line.endswith(r"\\")
        )
        for row in table.rows:
            for cell, column in zip(row, table.columns, strict=True):
                assert "nan" not in shown(cell, column).lower()
                assert "None" not in shown(cell, column)
    listed = [table.key for section in report_sections(made) for table in section.tables]
    assert sorted(listed) == sorted(table.key for table in tables)  # each stands on the page, and once
    assert all(figure.chart.drawing.width for figure in report_figures(made))


def test_a_number_is_rounded_once_and_p_is_a_bound_where_its_digits_mean_little():
    assert shown_number(1.005, Column("", "", "number")) == "1.01"  # halves go away from zero, from the shortest form
    assert shown_number(-0.001, Column("", "", "number")) == "0.00"
    assert shown_number(0.66666667, Column("", "", "percent")) == "66.7"
    assert shown_number(0.0001, Column("", "", "p")) == "< 0.001"
    assert shown_number(3.0, Column("", "", "count")) == "3"


def test_latex_takes_every_sign_literally():
    hostile = "50% & _x_ {a} $b$ #1 ~^\\ <tag> [x] \u202e\n\x07"
    told = latex(hostile)
    assert told.startswith(r"50\% \& \_x\_ \{a\} \$b\$ \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}")
    assert not re.search(r"[\x00-\x1f\u202e]", told)
    assert "{[}x{]}" in told  # else it would be read as an option of \\ in the line before


def test_intervals_reasons_and_counts_have_columns_of_their_own():
    there = Estimate(0.5, 0.25, 0.75, {"responses": 3}, "", "")
    gone = Estimate(None, None, None, {"responses": 0}, "", "", "no_variation")
    rows = [[Cell(text="=1+1", is_given=True), Cell(estimate=there, n=3)], [Cell(text="b"), Cell(estimate=gone, n=0)]]
    table = Table("t", "T", "C", [Column("name", "Name"), Column("kappa", "K", "number")], rows)
    assert flat(table).names == ["name", "kappa", "kappa low", "kappa high", "kappa n", "kappa reason"]
    assert flat(table).rows == [["=1+1", 0.5, 0.25, 0.75, 3, None], ["b", None, None, None, 0, "no_variation"]]


def test_what_must_be_known_of_a_number_stands_in_files_and_beside_it_in_latex():
    rough = Estimate(0.5, 0.25, 0.75, {"responses": 3}, "", "", notes=("few_clusters",))
    rows = [[Cell(text="a"), Cell(estimate=rough)], [Cell(text="b"), Cell(value=1.0, small="by convention")]]
    table = Table("t", "T", "C", [Column("name", "Name"), Column("kappa", "K", "number")], rows)
    assert flat(table).names == ["name", "kappa", "kappa low", "kappa high", "kappa note"]
    assert [row[-1] for row in flat(table).rows] == ["few_clusters", "by convention"]
    lines = latex_table(table).split("\n")
    assert r"a & 0.50$^{*}$ {\footnotesize {[}0.25, 0.75{]}} \\" in lines
    assert r"b & 1.00 {\footnotesize by convention} \\" in lines
    assert any(line.startswith(r"\par\smallskip{\footnotesize $^{*}$ fewer than 20 dialogues") for line in lines)


def test_every_number_has_a_place_of_its_own_in_an_export():
    made = Report(facts(), compute(small_data()), "", "")
    names = [column.name for column in result_columns(see_systems=False)]
    named = names[: names.index("value")]
    places = Counter(row[: len(named)] for row in result_rows(made, made.rows()))
    assert [place for place, n in places.items() if n > 1] == []
    assert ("bleu_4", "", "set", "A", "", "", "length long; protocol chatglm") in places


def test_the_published_figures_are_those_of_the_paper():
    paper = published()
    assert paper.value("soulchat", "soulchat", "bleu_1") == "33.78"  # table 1, first and last column of the last row
    assert paper.value("soulchat", "soulchat", "safety") == "1.0"
    assert paper.value("smilechat", "chatglm-6b", "empathy") == "1.39"
    assert paper.difference(1.3951, "smilechat", "chatglm-6b", "empathy") == "+0.01"
    assert paper.difference(0.96, "smilechat", "chatglm-6b", "safety") == "+0.0"  # rounded to one decimal, as printed
    assert paper.value("elsewhere", "soulchat", "bleu_1") == ""
    assert all(len(row) == 11 for rows in paper.table.values() for row in rows.values())


def test_facts_survive_json():
    told = facts(unblinded=True)
    assert StudyFacts.from_dict(told.to_dict()) == told
