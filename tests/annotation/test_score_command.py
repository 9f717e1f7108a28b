"""score: numbers of metrics/ from plain files, without a database; what is wrong with a file is said with its place."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from django.core.management import CommandError
from openpyxl import Workbook

from annotation.management.commands.score import EXAMPLES
from metrics.randomisation import compare_systems
from metrics.text import CHAR, CHATGLM, METRICS, REFERENCE, References, pair_scores, text_scores
from metrics.text import text_statistics as count
from tests.annotation.plain_files import (
    REFERENCES,
    RESPONSES,
    examples,
    jsonl,
    pair_rows,
    run,
    run_elsewhere,
    table,
)

TOKENS = (*CHATGLM.tokens, *REFERENCE.tokens, *CHAR.tokens)


@pytest.fixture
def pairs(tmp_path):
    """Two systems, four items in two dialogues."""
    return jsonl(tmp_path / "pairs.jsonl", pair_rows())


def numbers(file, *arguments) -> list[dict]:
    return json.loads(run("score", file, "--format", "json", *arguments).out)


def value(rows: list[dict], metric: str, protocol: str = "chatglm", **stratum: str) -> float:
    (row,) = [
        row for row in rows
        if row["metric"] == metric and row["stratum"] == stratum and row["detail"]["protocol"] == protocol
    ]  # fmt: skip
    return row["estimate"]["value"]


@pytest.mark.parametrize("protocol", [CHATGLM, REFERENCE, CHAR], ids=lambda p: p.name)
def test_scores_are_those_of_the_metrics_package(pairs, protocol):
    rows = numbers(pairs, "--protocol", "all")
    for system, responses in RESPONSES.items():
        expected = text_scores(count(responses, References(REFERENCES, tokens=TOKENS)), protocol)
        for metric in METRICS:
            assert value(rows, metric, protocol.name, system=system) == pytest.approx(expected[metric].value, abs=1e-9)


def test_a_file_without_names_of_anything_is_one_system(tmp_path):
    rows = [{"hypothesis": text, "reference": text} for text in REFERENCES]
    found = numbers(jsonl(tmp_path / "p.jsonl", rows), "--protocol", "reference")
    assert value(found, "bleu_4", "reference") == pytest.approx(100)
    assert value(found, "rouge_l", "reference") == pytest.approx(100)


def test_csv_xlsx_and_a_file_of_references_give_the_same_numbers(tmp_path, pairs):
    expected = [row["estimate"]["value"] for row in numbers(pairs)]
    names = ["item", "system", "dialogue", "hypothesis", "reference"]
    lines = [[row[name] for name in names] for row in pair_rows()]
    with (tmp_path / "p.csv").open("w", encoding="utf-8-sig", newline="") as file:  # with a byte order mark
        csv.writer(file).writerows([names, *lines])
    book = Workbook()
    for line in [names, *lines]:
        book.active.append(line)
    book.save(tmp_path / "p.xlsx")
    assert [row["estimate"]["value"] for row in numbers(tmp_path / "p.csv")] == expected
    assert [row["estimate"]["value"] for row in numbers(tmp_path / "p.xlsx")] == expected
    references = jsonl(
        tmp_path / "r.jsonl", [{"item": f"i{n}", "reference": text} for n, text in enumerate(REFERENCES)]
    )
    apart = jsonl(tmp_path / "h.jsonl", [{k: v for k, v in row.items() if k != "reference"} for row in pair_rows()])
    assert [row["estimate"]["value"] for row in numbers(apart, "--references", references)] == expected


def test_every_format_shows_the_same_number(pairs):
    exact = value(numbers(pairs), "rouge_1", system="calm")
    shown = f"{exact:.2f}"
    (line,) = [line for line in run("score", pairs).out.splitlines() if line.startswith("calm")]
    assert shown in line.split()
    assert f" & {shown} & " in run("score", pairs, "--format", "latex").out
    records = list(csv.DictReader(io.StringIO(run("score", pairs, "--format", "csv").out)))
    (record,) = [r for r in records if (r["metric"], r["system"]) == ("rouge_1", "calm")]
    assert float(record["value"]) == exact
    assert record["signature"].startswith("name:rouge_1|version:")


def test_protocols_never_share_a_table(pairs):
    out = run("score", pairs, "--protocol", "all", "--smoothing", "nltk-method1").out
    assert [line.split(".")[0] for line in out.splitlines() if line.startswith("Scores")] == [
        "Scores, protocol chatglm*", "Scores, protocol reference*", "Scores, protocol char*",
    ]  # fmt: skip


def test_settings_change_the_number_and_its_signature(pairs):
    plain = numbers(pairs)
    for arguments, part in (
        (("--punctuation", "drop"), "punctuation:drop"),
        (("--smoothing", "nltk-method0"), "smoothing:nltk-method0"),
        (("--aggregate", "corpus"), "aggregate:corpus"),
    ):
        other = numbers(pairs, *arguments)
        signature = next(row["estimate"]["signature"] for row in other if row["metric"] == "bleu_4")
        assert part in signature
        label = "chatglm" if "--punctuation" in arguments else "chatglm*"
        assert value(other, "bleu_4", label, system="calm") != value(plain, "bleu_4", system="calm")
    wide = jsonl(pairs.parent / "w.jsonl", [{"hypothesis": "ＡＢＣＤ", "reference": "ABCD"}])
    assert (value(numbers(wide), "bleu_1"), value(numbers(wide, "--nfkc"), "bleu_1")) == pytest.approx((0, 100))


def test_a_breakdown_scores_each_part_alone(pairs):
    rows = numbers(pairs, "--by", "topic")
    counted = count(RESPONSES["calm"][:2], References(REFERENCES[:2], tokens=TOKENS))
    assert value(rows, "rouge_l", topic="work", system="calm") == pytest.approx(text_scores(counted)["rouge_l"].value)
    assert value(rows, "rouge_l", system="calm") == value(numbers(pairs), "rouge_l", system="calm")


def test_a_part_may_be_called_like_one_of_our_columns(tmp_path):
    rows = [{"hypothesis": text, "reference": text, "value": "x"} for text in REFERENCES]
    file = jsonl(tmp_path / "p.jsonl", rows)
    records = list(csv.DictReader(io.StringIO(run("score", file, "--by", "value", "--format", "csv").out)))
    assert {record["by value"] for record in records} == {"", "x"}
    assert all(float(record["value"]) > 0 for record in records)


def test_intervals_are_by_dialogue(pairs):
    (row,) = [
        row for row in numbers(pairs, "--interval", "--seed", 3)
        if row["metric"] == "rouge_l" and row["stratum"] == {"system": "calm"}
    ]  # fmt: skip
    assert row["estimate"]["n"]["clusters"] == 2
    assert row["estimate"]["low"] < row["estimate"]["value"] < row["estimate"]["high"]
    assert "seed:3" in row["estimate"]["signature"]


def test_systems_are_compared_pair_by_pair(pairs):
    rows = numbers(pairs, "--compare", "--seed", 5)
    found = {row["metric"]: row["estimate"] for row in rows if row["detail"].get("systems") == "calm, plain"}
    references = References(REFERENCES, tokens=TOKENS)
    expected = compare_systems(
        *(count(texts, references) for texts in RESPONSES.values()), CHATGLM, clusters=np.array([0, 0, 1, 1]), seed=5
    )["bleu_1"]
    assert found["bleu_1_difference"]["value"] == pytest.approx(expected.estimate.value)
    assert found["bleu_1_p_randomisation"]["value"] == expected.p_randomisation
    assert found["bleu_1_p_randomisation_holm"]["value"] == expected.p_randomisation  # one pair: nothing to adjust
    out = run("score", pairs, "--compare").out
    assert "Differences, protocol chatglm" in out and "calm, plain" in out


def test_three_systems_are_adjusted_after_holm(tmp_path):
    rows = [*pair_rows(), *({**row, "system": "third"} for row in pair_rows(("calm",)))]
    found = numbers(jsonl(tmp_path / "p.jsonl", rows), "--compare")
    p, adjusted = (
        {row["detail"]["systems"]: row["estimate"]["value"] for row in found if row["metric"] == f"bleu_1_{name}"}
        for name in ("p_randomisation", "p_randomisation_holm")
    )
    assert len(p) == 3 and p["calm, third"] == adjusted["calm, third"] == 1  # the same texts
    assert all(adjusted[systems] >= p[systems] for systems in p)
    assert min(adjusted.values()) == pytest.approx(min(1, 3 * min(p.values())))


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_scores_of_every_pair_go_into_a_file(pairs, ending):
    out = pairs.parent / f"scores.{ending}"
    run("score", pairs, "--pairs", out)
    text = out.read_text(encoding="utf-8")
    lines = (
        [json.loads(line) for line in text.splitlines()]
        if ending == "jsonl"
        else list(csv.DictReader(io.StringIO(text)))
    )
    expected = pair_scores(count(RESPONSES["plain"], References(REFERENCES, tokens=TOKENS)))
    plain = [line for line in lines if line["system"] == "plain"]
    assert [line["item"] for line in plain] == ["i0", "i1", "i2", "i3"]
    for line, scores in zip(plain, expected, strict=True):
        assert [float(line[metric]) for metric in METRICS] == pytest.approx(list(scores))


def test_missing_and_blank_are_counted_and_differ(tmp_path):
    rows = pair_rows(("calm",))
    rows[0]["hypothesis"], rows[1]["hypothesis"], rows[2]["reference"] = "", None, None
    file = jsonl(tmp_path / "p.jsonl", rows)
    estimate = numbers(file)[0]["estimate"]
    assert estimate["n"] == {"pairs": 2, "blank_hypotheses": 1, "blank_references": 0, "missing": 2}
    out = tmp_path / "out.jsonl"
    run("score", file, "--pairs", out)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["bleu_1"] is None for line in lines] == [False, True, True, False]
    assert lines[0]["bleu_1"] == 0


def test_an_empty_cell_is_a_blank_response_but_a_missing_reference(tmp_path):
    file = table(tmp_path / "p.csv", "hypothesis,reference\n,睡不好有多久了？\n早点睡。,\n早点睡。,早点睡。")
    assert numbers(file)[0]["estimate"]["n"] == {
        "pairs": 2, "blank_hypotheses": 1, "blank_references": 0, "missing": 1,
    }  # fmt: skip


def test_without_any_reference_the_scores_say_so(tmp_path):
    file = jsonl(tmp_path / "p.jsonl", [{"hypothesis": "早点睡。", "reference": None}])
    out = run("score", file).out
    assert "no response has a reference to compare it with" in out
    assert not re.search(r"\bnan\b", out, re.IGNORECASE)
    assert numbers(file)[0]["estimate"]["reason"] == "no_pairs"


def test_a_text_in_gb18030_is_read_and_said(tmp_path):
    file = table(tmp_path / "p.csv", "hypothesis,reference\n早点睡。,早点睡。", encoding="gb18030")
    said = run("score", file, "--format", "json")
    assert "was read as GB18030" in said.err
    assert value(json.loads(said.out), "rouge_1") == pytest.approx(100)


def test_hostile_names_do_no_harm(tmp_path):
    name = "a\x1b[2J_{$}\u202e%"
    file = jsonl(tmp_path / "p.jsonl", [{"hypothesis": "好的", "reference": "好的", "system": name}])
    out = run("score", file).out
    assert "\x1b" not in out and "\u202e" not in out
    assert r"\_\{\$\}" in run("score", file, "--format", "latex").out


BAD = [
    ("", [], "The file is empty"),
    ("hypothesis,reference\n", [], "There is nothing in it"),
    ('[{"hypothesis": "a"}]', [], "Give JSONL"),
    ("\x00\x01", [], "cannot be read here"),
    ("prediction,gold\na,b", [], "row 1: These columns are missing: hypothesis, reference. Found: prediction, gold."),
    ("prediction,gold\na,b", [], "say so with --hypothesis, --reference"),
    ("hypothesis,reference\na", [], "row 2: The row has 1 cells, but the header has 2."),
    ('{"hypothesis": 1.5, "reference": "b"}', [], "line 1 [hypothesis]: Expected text"),
    ('{"hypothesis": "a", "reference": "b"}\n{"hypothesis": ', [], "line 2: This is not valid JSON"),
    ('{"hypothesis": "a"}', [], "line 1 [reference]: The value is missing"),
    ("item,hypothesis,reference\n1,a,b\n1,c,b", [], "row 3 [item]: “1” is there already: row 2"),
    ("item,system,hypothesis,reference\n1,A,a,b\n1,B,c,d", [], "row 3 [reference]: “1” has another value"),
    ("item,dialogue,system,hypothesis,reference\n1,x,A,a,b\n1,y,B,c,b", [],
     "row 3 [dialogue]: “1” has another value here than in row 2"),
    ("system,hypothesis,reference\n,a,b", [], "row 2 [system]: The value is missing"),
    ("hypothesis,reference\na,b", ["--compare"], "--compare needs two systems"),
    ("hypothesis,reference\na,b", ["--by", "topic"], "These columns are missing: topic"),
    ("system,hypothesis,reference\nA,a,b", ["--by", "system"], "every system has scores of its own"),
    ("hypothesis,reference\na,b", ["--system", "who"], "These columns are missing: who"),
    ("item,hypothesis,reference\na,b,c", ["--processes", "0"], "--processes must be 1 or more"),
    ("item,hypothesis,reference\na,b,c", ["--pairs", "out.txt"], "end the file's name in .jsonl or .csv"),
    ("item,system,hypothesis,reference\n1,A,a,b\n2,B,c,d", ["--compare"], "no item has a reference"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "arguments", "said"), BAD)
def test_what_is_wrong_is_said_with_its_place(tmp_path, content, arguments, said):
    file = tmp_path / "p.csv"
    file.write_text(content, encoding="utf-8")
    if content == "\x00\x01":
        file = file.rename(tmp_path / "p.bin")
    with pytest.raises(CommandError) as error:
        run("score", file, *arguments)
    assert said in str(error.value)
    assert error.value.returncode == 1


def test_a_file_that_is_not_there_or_is_a_folder_is_said(tmp_path):
    with pytest.raises(CommandError, match="no file or folder"):
        run("score", tmp_path / "none.csv")
    with pytest.raises(CommandError, match="cannot be read here"):
        run("score", tmp_path)


def test_a_file_of_scores_is_never_written_over(pairs):
    out = pairs.parent / "mine.csv"
    out.write_text("dear")
    with pytest.raises(CommandError, match="exists"):
        run("score", pairs, "--pairs", out)
    assert out.read_text() == "dear"


def test_a_reference_twice_is_refused(tmp_path, pairs):
    twice = jsonl(tmp_path / "r.jsonl", [{"item": "i0", "reference": "a"}, {"item": "i0", "reference": "b"}])
    with pytest.raises(CommandError, match=r"r\.jsonl, line 2 \[item\]: “i0” is there already: line 1"):
        run("score", pairs, "--references", twice)


@pytest.mark.parametrize("arguments", examples(EXAMPLES, "score"), ids=" ".join)
def test_the_examples_of_the_help_work(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "pairs.jsonl", pair_rows(("calm",)))
    rows = [{"item": row["item"], "system": row["system"], "response": row["hypothesis"]} for row in pair_rows()]
    jsonl(tmp_path / "responses.jsonl", rows)
    jsonl(tmp_path / "items.jsonl", [{"item": f"i{n}", "reference": text} for n, text in enumerate(REFERENCES)])
    table(tmp_path / "outputs.csv", "prediction,gold\n早点睡。,睡不好有多久了？")
    if "--processes" in arguments:  # processes are the metrics package's, and tested there
        arguments = [*arguments[:-1], "1"]
    assert run("score", *arguments).out


def test_no_database_is_needed_and_a_mistake_is_no_traceback(pairs):
    done = run_elsewhere(pairs.parent, "score", "pairs.jsonl", "--compare")
    assert done.returncode == 0, done.stderr
    assert "Scores, protocol chatglm" in done.stdout
    assert "Traceback" not in done.stderr
