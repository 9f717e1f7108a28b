"""agree: the agreement panel of any ratings, long or wide, without a database."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from django.core.management import CommandError

from annotation.management.commands.agree import EXAMPLES
from metrics.panels import agreement_panel
from tests.annotation.plain_files import examples, jsonl, run, run_elsewhere, table
from tests.metrics.cast import make_frame, make_table
from tests.metrics.reference.agreement_tables import FOUR_OBSERVERS


def wide(path, ratings) -> object:
    """A CSV with a row per unit and a column per observer; an empty cell is a missing rating."""
    lines = [",".join("" if np.isnan(value) else f"{value:g}" for value in row) for row in ratings]
    names = ",".join(f"r{n}" for n in range(ratings.shape[1]))
    return table(path, "\n".join([f"item,{names}", *(f"u{n},{line}" for n, line in enumerate(lines))]))


def numbers(file, *arguments) -> list[dict]:
    return json.loads(run("agree", file, "--format", "json", *arguments).out)


def estimate(rows: list[dict], metric: str, **stratum: str) -> dict:
    (row,) = [row for row in rows if row["metric"] == metric and row["stratum"] == stratum]
    return row["estimate"]


def test_a_wide_table_gives_the_published_alphas(tmp_path):  # Krippendorff (2011): 12 units, 4 observers
    said = run("agree", wide(tmp_path / "w.csv", FOUR_OBSERVERS), "--scale", "1,2,3,4,5", "--format", "json")
    rows = json.loads(said.out)
    for level, alpha in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        assert estimate(rows, f"krippendorff_alpha_{level}")["value"] == pytest.approx(alpha, abs=5e-4)
    assert said.err.startswith("7 cells are empty")


def test_a_long_table_gives_the_panel_of_the_metrics_package(tmp_path):
    frame = make_frame().drop(columns="is_repeat")
    frame.to_csv(tmp_path / "r.csv", index=False)
    found = numbers(
        tmp_path / "r.csv", "--scale", "empathy=0,1,2", "--scale", "safety=0,1", "--by", "system", "--seed", 4
    )
    expected = agreement_panel(make_table(), by=("system",), seed=4)
    assert [(row["metric"], row["stratum"], row["detail"]) for row in found] == [
        (row.metric, dict(row.stratum), dict(row.detail)) for row in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["estimate"]["value"] == theirs.estimate.value
        assert (ours["estimate"]["low"], ours["estimate"]["high"]) == (theirs.estimate.low, theirs.estimate.high)


def test_long_and_wide_layouts_of_the_same_ratings_agree(tmp_path):
    rows = [
        {"item": f"u{unit}", "rater": f"r{rater}", "value": FOUR_OBSERVERS[unit, rater]}
        for unit, rater in np.argwhere(~np.isnan(FOUR_OBSERVERS))
    ]
    long = jsonl(tmp_path / "long.jsonl", rows)
    one, other = (numbers(file, "--scale", "1,2,3,4,5") for file in (long, wide(tmp_path / "wide.csv", FOUR_OBSERVERS)))
    assert one == other


def test_every_format_shows_the_same_number(tmp_path):
    file = wide(tmp_path / "w.csv", FOUR_OBSERVERS)
    exact = estimate(numbers(file, "--scale", "1,2,3,4,5"), "krippendorff_alpha_ordinal")["value"]
    out = run("agree", file, "--scale", "1,2,3,4,5").out
    (line,) = [line for line in out.splitlines() if "α, ordinal" in line]
    assert re.search(r"[\d.]+", line.split("ordinal")[1])[0] == f"{exact:.3f}"
    assert f"{exact:.3f}" in run("agree", file, "--scale", "1,2,3,4,5", "--format", "latex").out
    records = list(csv.DictReader(io.StringIO(run("agree", file, "--scale", "1,2,3,4,5", "--format", "csv").out)))
    assert float(next(r for r in records if r["metric"] == "krippendorff_alpha_ordinal")["value"]) == exact


def test_an_unused_point_counts(tmp_path):
    file = wide(tmp_path / "w.csv", FOUR_OBSERVERS)
    few, many = (numbers(file, "--scale", scale) for scale in ("1,2,3,4,5", "1,2,3,4,5,6,7"))
    assert estimate(few, "brennan_prediger")["value"] < estimate(many, "brennan_prediger")["value"]
    assert estimate(few, "fleiss_kappa")["value"] == estimate(many, "fleiss_kappa")["value"]


def test_a_number_too_large_for_a_float_is_no_number(tmp_path):
    file = jsonl(tmp_path / "r.jsonl", [{"item": 1, "rater": "ann", "value": 10**400}])
    with pytest.raises(CommandError, match=r"line 1 \[value\]: .* is no number"):
        run("agree", file, "--scale", "0,1")


def test_latex_marks_its_numbers_and_no_name_becomes_a_command(tmp_path):
    file = table(tmp_path / "w.csv", "item,ann,bob\n1,1,1\n2,1,1")
    out = run("agree", file, "--scale", r"50%}\input{x}=0,1", "--constant-kappa", "paper_one", "--format", "latex").out
    assert r"\label{tab:agreement-50-input-x-}" in out
    assert r"\input" not in out
    assert r"Fleiss' $\kappa$ & 1.000\S{} &" in out  # one by convention, and it says so below
    assert r"{\footnotesize \S{} set to 1 by convention}" in out
    assert "exact one-sided upper bound over clusters" in out


def test_dialogues_are_resampled_as_a_whole(tmp_path):
    lines = ["id,talk,ann,bob", *(f"{n},t{n // 4},{n % 3},{(n * 7 // 3) % 3}" for n in range(40))]
    file = table(tmp_path / "w.csv", "\n".join(lines))
    arguments = (file, "--scale", "0,1,2", "--item", "id", "--rater", "ann,bob")
    alone, together = numbers(*arguments), numbers(*arguments, "--dialogue", "talk")
    assert [estimate(rows, "fleiss_kappa")["n"]["clusters"] for rows in (alone, together)] == [40, 10]
    assert estimate(alone, "fleiss_kappa")["value"] == estimate(together, "fleiss_kappa")["value"]


def test_constant_ratings_are_undefined_or_one_by_convention(tmp_path):
    file = table(tmp_path / "w.csv", "item,ann,bob\n1,1,1\n2,1,1\n3,1,1")
    kappa = estimate(numbers(file, "--scale", "safety=0,1"), "fleiss_kappa")
    assert (kappa["value"], kappa["reason"]) == (None, "no_variation")
    kappa = estimate(numbers(file, "--scale", "safety=0,1", "--constant-kappa", "paper_one"), "fleiss_kappa")
    assert (kappa["value"], kappa["notes"]) == (1.0, ["one_by_convention"])
    out = run("agree", file, "--scale", "safety=0,1").out
    assert "undefined: everyone gave the same score" in out
    assert not re.search(r"\bnan\b", out, re.IGNORECASE)


def test_one_rater_or_one_item_is_answered_without_a_number(tmp_path):
    one_rater = numbers(table(tmp_path / "a.csv", "item,ann\n1,1\n2,0"), "--scale", "0,1")
    assert estimate(one_rater, "fleiss_kappa")["reason"] == "one_rater"
    one_item = numbers(table(tmp_path / "b.csv", "item,ann,bob\n1,1,0"), "--scale", "0,1")
    assert estimate(one_item, "percent_agreement")["value"] == 0
    assert "one_cluster" in estimate(one_item, "percent_agreement")["notes"]
    assert estimate(one_item, "icc_2_1")["reason"] == "one_response"


def test_a_dimension_that_nobody_rated_says_so(tmp_path):
    file = table(tmp_path / "r.csv", "item,rater,dimension,value\n1,ann,empathy,1\n1,bob,empathy,1")
    rows = numbers(file, "--scale", "empathy=0,1", "--scale", "safety=0,1")
    reasons = {row["estimate"]["reason"] for row in rows if row["dimension"] == "safety"}
    assert reasons == {"no_ratings"}


def test_a_text_in_gb18030_and_a_byte_order_mark_are_read(tmp_path):
    text = "item,评分员甲,评分员乙\n一,1,0\n二,1,1"
    said = run("agree", table(tmp_path / "g.csv", text, "gb18030"), "--scale", "0,1", "--format", "json")
    assert "was read as GB18030" in said.err
    assert json.loads(said.out) == numbers(table(tmp_path / "u.csv", text, "utf-8-sig"), "--scale", "0,1")


LONG = "item,rater,dimension,value"
BAD = [
    ("", ["--scale", "0,1"], "The file is empty"),
    (f"{LONG}\n", ["--scale", "x=0,1"], "There is nothing in it"),
    (f"{LONG}\n1,ann,x,3", ["--scale", "x=0,1,2"], "row 2 [value]: 3 is not on the scale 0, 1, 2."),
    (f"{LONG}\n1,ann,x,good", ["--scale", "x=0,1"], "row 2 [value]: “good” is no number"),
    (f"{LONG}\n1,ann,x,nan", ["--scale", "x=0,1"], "row 2 [value]: “nan” is no number"),
    (f"{LONG}\n1,ann,y,1", ["--scale", "x=0,1"], "row 2 [dimension]: No scale was given for “y”"),
    (f"{LONG}\n1,ann,x,1\n1,ann,x,0", ["--scale", "x=0,1"], "row 3 [value]: “1, x, ann” is there already: row 2"),
    (f"{LONG}\n,ann,x,1", ["--scale", "x=0,1"], "row 2 [item]: The value is missing"),
    (f"{LONG}\n1,,x,1", ["--scale", "x=0,1"], "row 2 [rater]: The value is missing"),
    ("item,rater,value\n1,ann,1", ["--scale", "x=0,1", "--scale", "y=0,1"], "These columns are missing: dimension"),
    ("item,rater,value\n1,ann,", ["--scale", "0,1"], "there is no rating in it; 1 cells are empty"),
    ("id,ann,bob\n1,1,1", ["--scale", "0,1"], "These columns are missing: item. Found: id, ann, bob."),
    ("id,ann,bob\n1,1,1", ["--scale", "0,1"], "say so with --item"),
    ("item,ann,note\n1,1,fine", ["--scale", "0,1"], "name the columns that hold ratings with --rater"),
    ("item\n1", ["--scale", "0,1"], "These columns are missing: rater, value"),
    ("item,ann,bob\n1,1,1", ["--scale", "0,1", "--rater", "ann,cem"], "These columns are missing: cem"),
    ("item,ann,bob\n1,1,1", ["--scale", "0,1", "--layout", "long"], "These columns are missing: rater, value"),
    ("item,ann,bob\n1,1,1", ["--scale", "0,1", "--by", "topic"], "These columns are missing: topic"),
    ("item,dialogue,system,ann\n1,a,A,1\n1,b,B,1", ["--scale", "0,1"], "row 3 [dialogue]: “1” has another value"),
    ("item,ann,bob\n1,1,1", ["--scale", "one,two"], "in rising order, such as empathy=0,1,2"),
    ("item,ann,bob\n1,1,1", ["--scale", "2,1"], "in rising order"),
    ("item,ann,bob\n1,1,1", ["--scale", "0,nan"], "in rising order"),
    ("item,ann,bob\n1,1,1", ["--scale", "0,1e400"], "in rising order"),
    ("item,ann,bob\n1,1,1_0", ["--scale", "1,10"], "row 2 [bob]: “1_0” is no number"),
    ("item,ann,bob\n1,1,1", ["--scale", "0,1", "--seed", "-1"], "-1 is no whole number from 0 on"),
    ("item,ann,bob\n1,1,1", ["--scale", "x=0,1", "--scale", "x=0,2"], "a dimension has two scales"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "arguments", "said"), BAD)
def test_what_is_wrong_is_said_with_its_place(tmp_path, content, arguments, said):
    file = tmp_path / "r.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError) as error:
        run("agree", file, *arguments)
    assert said in str(error.value)
    assert error.value.returncode == 1


@pytest.mark.parametrize("arguments", examples(EXAMPLES, "agree"), ids=" ".join)
def test_the_examples_of_the_help_work(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    frame = make_frame().drop(columns="is_repeat").rename(columns={"dataset": "corpus"})
    chosen = [text.partition("=")[0] for text in arguments if "=" in text]
    frame = frame[frame["dimension"].isin(chosen)] if chosen else frame
    frame.to_csv("ratings.csv", index=False)
    frame.assign(conversation=frame["item"]).to_json("ratings.jsonl", orient="records", lines=True, force_ascii=False)
    table(tmp_path / "sheet.csv", "id,ann,bob,cem,note\n1,0,1,0,x\n2,2,2,2,y\n3,1,,1,z")
    assert "fleiss" in run("agree", *arguments, "--format", "csv").out
    assert run("agree", *arguments).out


def test_no_database_is_needed_and_a_mistake_is_no_traceback(tmp_path):
    table(tmp_path / "w.csv", "item,ann,bob\n1,1,9")
    done = run_elsewhere(tmp_path, "agree", "w.csv", "--scale", "0,1")
    assert done.returncode == 1
    assert "w.csv" in done.stderr and "[bob]" in done.stderr
    assert "Traceback" not in done.stderr
