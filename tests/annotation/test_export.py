"""The files of a study: the same numbers in every format, no name too many, and text that stays text."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import zipfile
from itertools import islice

import openpyxl
import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from annotation import export, workbook
from annotation.export import KINDS, Table, csv_parts, formats_of, jsonl_parts, prepare_export
from annotation.models import AuditEvent, Placement, RatingEvent, System, User
from annotation.reporting.numbers import rounded
from annotation.tables import Column, ratings_columns, ratings_rows
from annotation.workbook import MAX_CELL, PLAIN, Sheet, sheet_text, workbook_parts
from tests import factories
from tests.annotation.rated import rate, unblind, varied

HOSTILE = [
    "=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1:A9)", "\t=1+1", "\r=1", " \u3000=1", "＝1+1", "'=1",
    '"quoted", and; more', "two\nlines", "cr\rlf\r\nend", "bell\x07 and escape\x1b[31m", "nul\x00", "\u202egpj.exe",
    "zero\u200bwidth", "<b>&amp;</b>]]>", "_x0041_ is no A", "😀👩🏽\u200d⚕️", "  blanks  ", "未完，-1", "1e5", "TRUE",
    "0012", "2026-01-01", "NaN", "null", "\ufffe\uffff",
]  # fmt: skip
# What only XML and spreadsheets cannot hold; everything else must come back unchanged.
AS_SHEET = {text: re.sub("[\x00\x07\x1b\ufffe\uffff]", "\ufffd", text) for text in HOSTILE}


def body(client, study, kind: str, file_format: str, query: str = "") -> bytes:
    response = client.get(reverse("study_export", args=[study.public_id, kind, file_format]) + query)
    assert response.status_code == 200
    return response.getvalue()


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def read_jsonl(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.decode().split("\n")[:-1]]


def read_sheet(content: bytes, name: str) -> list[dict]:
    heading, *rows = openpyxl.load_workbook(io.BytesIO(content))[name].values
    return [dict(zip(heading, row, strict=True)) for row in rows]


def as_text(value) -> str:
    """A JSON or workbook value as CSV writes it."""
    return "" if value is None else str(value)


@pytest.fixture
def rated_study(open_study):
    rate(open_study, varied)
    return open_study


@pytest.mark.parametrize("kind", ["ratings", "numbers"])
def test_the_same_numbers_stand_in_every_format(rated_study, researcher, as_user, kind):
    client = as_user(researcher)
    exact = read_jsonl(body(client, rated_study, kind, "jsonl"))
    assert len(exact) > 4
    as_csv = [{name: as_text(value) for name, value in row.items()} for row in exact]
    assert read_csv(body(client, rated_study, kind, "csv-exact")) == as_csv
    assert read_csv(body(client, rated_study, kind, "csv")) == as_csv  # nothing here looks like a formula
    sheet = read_sheet(body(client, rated_study, "ratings", "xlsx"), kind.title())
    assert sheet == [{name: None if value == "" else value for name, value in row.items()} for row in exact]


def test_ratings_are_those_that_were_given(rated_study, researcher, as_user):
    rows = read_jsonl(body(as_user(researcher), rated_study, "ratings", "jsonl"))
    assert len(rows) == Placement.objects.filter(rater__study=rated_study).count() * 4
    expected = {
        (p.rater.code, p.assignment.study_item.number, p.study_response.arm.code, int(p.assignment.is_repeat), d.key):
        varied(p, d)
        for p in Placement.objects.filter(rater__study=rated_study)
        for d in rated_study.rubric.dimensions.all()
    }  # fmt: skip
    assert {(r["rater"], r["item"], r["arm"], r["is_repeat"], r["dimension"]): r["value"] for r in rows} == expected
    order = [(r["item"], r["arm"], int(r["rater"][1:]), r["is_repeat"]) for r in rows]
    assert order == sorted(order)
    assert [r["dimension"] for r in rows[:4]] == ["content", "empathy", "helpfulness", "safety"]
    first = rows[0]
    assert first["study"] == str(rated_study.public_id)
    assert first["rubric"] == "cehs 1.0.0"
    assert first["active_seconds"] == 1.5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["submitted_at"])


def test_only_submitted_ratings_are_there(open_study, researcher, as_user):
    rate(open_study, 1, only=lambda p: p.rater.number == 2)
    Placement.objects.filter(rater__study=open_study, rater__number=2, slot=0).update(state=Placement.State.DRAFT)
    rows = read_jsonl(body(as_user(researcher), open_study, "ratings", "jsonl"))
    assert {row["rater"] for row in rows} == {"R2"}
    assert "A" not in {row["slot"] for row in rows}


def everything(client, study) -> str:
    """All bytes of all files, workbooks unpacked."""
    texts = []
    for kind in KINDS:
        for file_format in formats_of(kind):
            response = client.get(reverse("study_export", args=[study.public_id, kind, file_format]))
            texts.append(str(response.headers))
            content = response.getvalue()
            if file_format == "xlsx":
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    texts += [archive.read(name).decode() for name in archive.namelist()]
            else:
                texts.append(content.decode())
    return "\n".join(texts)


def test_systems_are_coded_until_the_key_is_opened(rated_study, researcher, admin, as_user):
    names = [name for system in System.objects.all() for name in (system.name, system.slug)]
    for person in (researcher, admin):
        files = everything(as_user(person), rated_study)
        assert not [name for name in names if name in files]
    unblind(rated_study, admin)
    files = everything(as_user(researcher), rated_study)
    assert not [name for name in names if name not in files]
    row = read_jsonl(body(as_user(researcher), rated_study, "ratings", "jsonl"))[0]
    arm = rated_study.arms.get(code=row["arm"])
    assert (row["system"], row["system_name"]) == (arm.system.slug, arm.system.name)


def test_the_seed_that_opens_the_key_stays_inside_until_then(researcher, admin, as_user):
    study = factories.make_study(researcher=researcher, seed=987654321012345)
    factories.open_for_rating(study, by=researcher)
    rate(study, varied)
    assert "987654321012345" not in everything(as_user(researcher), study)
    unblind(study, admin)
    assert "987654321012345" in everything(as_user(researcher), study)


def test_raters_are_pseudonyms_everywhere(rated_study, researcher, as_user):
    User.objects.filter(seats__study=rated_study, seats__role="rater").update(
        first_name="Xiaoming-canary", last_name="Wang-canary", email="canary@example.org"
    )
    files = everything(as_user(researcher), rated_study)
    people = User.objects.filter(seats__study=rated_study, seats__role="rater").values_list("username", flat=True)
    assert not [name for name in (*people, "canary") if name in files]


def test_notes_are_left_out_unless_asked_for(rated_study, researcher, as_user):
    Placement.objects.filter(rater__study=rated_study).update(note='=HYPERLINK("http://x") 我认识她 😀')
    client = as_user(researcher)
    assert "HYPERLINK" not in everything(client, rated_study)
    exact = read_jsonl(body(client, rated_study, "ratings", "jsonl", "?notes=1"))
    assert {row["note"] for row in exact} == {'=HYPERLINK("http://x") 我认识她 😀'}
    safe = read_csv(body(client, rated_study, "ratings", "csv", "?notes=1"))
    assert {row["note"] for row in safe} == {'\'=HYPERLINK("http://x") 我认识她 😀'}
    sheet = read_sheet(body(client, rated_study, "ratings", "xlsx", "?notes=1"), "Ratings")
    assert {row["note"] for row in sheet} == {'=HYPERLINK("http://x") 我认识她 😀'}


# Hostile text, without a database in between: PostgreSQL would not even store some of it.


def hostile_table() -> Table:
    columns = (Column("text", "", ""), Column("number", "", ""), Column("nothing", "", ""))
    return Table(columns, lambda: [(text, -0.5, None) for text in HOSTILE])


def hostile_workbook(rows: list[tuple]) -> bytes:
    return b"".join(workbook_parts([Sheet("Text", ("text", "number"), rows, (PLAIN, PLAIN), (20, 10))]))


def test_jsonl_holds_every_text_as_it_is():
    rows = read_jsonl(b"".join(jsonl_parts(hostile_table())))
    assert [row["text"] for row in rows] == HOSTILE
    assert {row["number"] for row in rows} == {-0.5}
    assert {row["nothing"] for row in rows} == {None}


def test_exact_csv_holds_every_text_as_it_is():
    content = b"".join(csv_parts(hostile_table(), is_safe=False))
    assert not content.startswith(b"\xef\xbb\xbf")
    assert [row["text"] for row in read_csv(content)] == HOSTILE


def test_csv_for_spreadsheets_has_no_formula_and_its_numbers_stay_numbers():
    content = b"".join(csv_parts(hostile_table(), is_safe=True))
    assert content.startswith(b"\xef\xbb\xbf")
    assert b"\r\n" in content
    rows = read_csv(content)
    assert {row["number"] for row in rows} == {"-0.5"}
    for text, row in zip(HOSTILE, rows, strict=True):
        is_formula = text.lstrip(" \t\r\u3000")[:1] in ("=", "+", "-", "@", "＝") or text[:1] in "\t\r"
        assert row["text"] == ("'" + text if is_formula else text)
    assert sum(row["text"] != text for text, row in zip(HOSTILE, rows, strict=True)) == 8
    nul = Table((Column("text", "", ""),), lambda: [("\x00=1",), (" \x00",), ("a\x00",)])
    assert [row["text"] for row in read_csv(b"".join(csv_parts(nul, is_safe=True)))] == ["'\x00=1", "' \x00", "a\x00"]


def test_a_workbook_holds_text_as_text():
    sheet = openpyxl.load_workbook(io.BytesIO(hostile_workbook([(text, -0.5) for text in HOSTILE])))["Text"]
    cells = [row[0] for row in sheet.iter_rows(min_row=2)]
    assert {cell.data_type for cell in cells} == {"s"}
    # openpyxl does not undo the standard's own escape; spreadsheet programs do (see the next test)
    assert [cell.value.replace("_x005F_", "_") for cell in cells] == [AS_SHEET[text] for text in HOSTILE]
    assert {row[1].value for row in sheet.iter_rows(min_row=2)} == {-0.5}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("soffice"), reason="LibreOffice is not installed on this machine")
def test_libreoffice_reads_the_same_texts(tmp_path):
    path = tmp_path / "text.xlsx"
    path.write_bytes(hostile_workbook([(text, -0.5) for text in HOSTILE]))
    heading, *rows = libreoffice_csv(path)
    assert heading == ["text", "number"]
    texts = [row[0] for row in rows]
    # Line ends are LF inside a cell, and U+FFFD stands for what XML cannot say.
    assert texts == [AS_SHEET[text].replace("\r\n", "\n").replace("\r", "\n") for text in HOSTILE]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("soffice"), reason="LibreOffice is not installed on this machine")
def test_libreoffice_opens_the_whole_workbook(rated_study, researcher, as_user, tmp_path):
    client = as_user(researcher)
    path = tmp_path / "whole.xlsx"
    path.write_bytes(body(client, rated_study, "ratings", "xlsx"))
    heading, *rows = libreoffice_csv(path)
    exact = read_csv(body(client, rated_study, "ratings", "csv-exact"))
    assert [dict(zip(heading, row, strict=True)) for row in rows] == exact


def libreoffice_csv(path) -> list[list[str]]:
    """The first sheet, as LibreOffice reads it: UTF-8, values as they are stored."""
    subprocess.run(
        [
            "soffice", f"-env:UserInstallation=file://{path.parent}/profile", "--headless",
            "--convert-to", "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false", "--outdir", str(path.parent),
            str(path),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return list(csv.reader(io.StringIO(path.with_suffix(".csv").read_text("utf-8"), newline="")))


def test_text_that_no_cell_can_hold_is_cut_and_says_so():
    assert sheet_text("a" * MAX_CELL) == "a" * MAX_CELL
    assert sheet_text("a" * (MAX_CELL + 1)) == "a" * (MAX_CELL - 1) + "…"
    astral = sheet_text("😀" * MAX_CELL)  # two UTF-16 units each
    assert astral == "😀" * ((MAX_CELL - 1) // 2) + "…"
    book = openpyxl.load_workbook(io.BytesIO(hostile_workbook([("b" * 40_000, 1)])))
    assert len(book["Text"]["A2"].value) == MAX_CELL
    table = Table((Column("text", "", ""),), lambda: [("b" * 40_000,)])
    assert read_csv(b"".join(csv_parts(table, is_safe=True)))[0]["text"] == "b" * 40_000


def test_more_rows_than_a_sheet_holds_go_on_to_the_next(monkeypatch):
    monkeypatch.setattr(workbook, "MAX_ROWS", 11)
    for n_rows, n_sheets in ((0, 1), (9, 1), (25, 3)):
        content = hostile_workbook([(f"row {i}", i) for i in range(n_rows)])
        book = openpyxl.load_workbook(io.BytesIO(content))
        assert book.sheetnames == ["Text", "Text 2", "Text 3"][:n_sheets]
        values = [row[1] for sheet in book for row in sheet.iter_rows(min_row=2, values_only=True)]
        assert values == list(range(n_rows))


def test_a_workbook_is_sent_while_its_rows_are_read():
    read = []

    def rows():
        for number in range(3000):
            read.append(number)
            yield ("x", number)

    parts = workbook_parts([Sheet("Text", ("text", "number"), rows(), (PLAIN, PLAIN), (20, 10))])
    first = next(parts)
    assert first.startswith(b"PK")
    assert len(read) <= 500
    assert b"".join([first, *parts]).endswith(b"\x00\x00")
    assert len(read) == 3000


def test_nothing_is_computed_before_the_ratings_have_left(rated_study, researcher, monkeypatch):
    def refuse(study):
        raise AssertionError("the report was asked for")

    monkeypatch.setattr(export, "study_report", refuse)
    parts = prepare_export(study=rated_study, kind="ratings", file_format="xlsx", by=researcher).parts()
    assert next(parts)
    with pytest.raises(AssertionError, match="asked for"):
        list(parts)


def test_the_workbook_explains_itself(rated_study, researcher, as_user):
    content = body(as_user(researcher), rated_study, "ratings", "xlsx")
    book = openpyxl.load_workbook(io.BytesIO(content))
    assert [book.sheetnames[0], *book.sheetnames[-4:]] == [
        "Ratings",
        "Numbers",
        "Data dictionary",
        "Method",
        "About",
    ]
    assert {"The paper’s table", "Scores", "Agreement between raters"} < set(book.sheetnames)
    assert book["Ratings"]["A1"].font.bold
    assert book["Ratings"].freeze_panes == "A2"
    explained = {row[1].value for row in book["Data dictionary"].iter_rows()}
    endings = re.compile(" (low|high|n|reason|note)$")
    for name in book.sheetnames[:-3]:
        assert {endings.sub("", cell.value) for cell in book[name][1]} <= explained, name
    signatures = {row[2].value for row in book["Method"].iter_rows(min_row=2)}
    assert {row["signature"] for row in read_sheet(content, "Numbers")} == signatures
    assert all(all(cell.value for cell in row[:4]) for row in book["Data dictionary"].iter_rows())
    about = {row[0].value: row[2].value for row in book["About"].iter_rows()}
    assert about["Study"] == rated_study.name
    assert about["SHA-256 of the design"] == rated_study.design_hash
    assert about["Rubric and version"] == "cehs 1.0.0"
    assert about["Arms"] == "coded 编码，未揭盲"
    assert about["Ratings were saved while the file was made"] == "no 否"
    assert about["Ratings submitted (hidden repeats apart)"] == 48
    assert all(row[:1] != "=" for row in about)


def test_the_score_table_shows_two_decimals_and_holds_the_whole_number(rated_study, researcher, as_user):
    client = as_user(researcher)
    content = body(client, rated_study, "ratings", "xlsx")
    sheet = openpyxl.load_workbook(io.BytesIO(content))["Scores"]
    assert [cell.value for cell in sheet[1]][:6] == [
        "dataset", "arm", "content", "content low", "content high", "content n",
    ]  # fmt: skip
    assert sheet["C2"].number_format == "0.00"
    exact = read_jsonl(body(client, rated_study, "scores", "jsonl"))
    for line in read_sheet(content, "Scores"):
        for dimension in ("content", "empathy", "helpfulness", "safety"):
            (number,) = [r for r in exact if (r["arm"], r["dimension"]) == (line["arm"], dimension)]
            assert line[dimension] == number["value"]
            assert line[f"{dimension} n"] == number["n_responses"] == 4


def test_a_table_is_the_same_on_page_and_in_every_file(rated_study, researcher, as_user):
    client = as_user(researcher)
    page = client.get(reverse("study_report", args=[rated_study.public_id])).content.decode()
    tables = json.loads(body(client, rated_study, "tables", "json"))
    book = openpyxl.load_workbook(io.BytesIO(body(client, rated_study, "ratings", "xlsx")))
    assert {"paper", "scores", "agreement", "counts"} <= {table["key"] for table in tables}
    for table in tables:
        rows = [{name: None if value == "" else value for name, value in row.items()} for row in table["rows"]]
        heading, *lines = book[table["title"].replace("?", "")[:31]].values
        assert [dict(zip(heading, line, strict=True)) for line in lines] == rows
        address = reverse("study_table", args=[rated_study.public_id, table["key"], "csv"])
        as_csv = [{name: as_text(value) for name, value in row.items()} for row in table["rows"]]
        found = read_csv(client.get(address).getvalue())
        assert [{k: v.removeprefix("'") for k, v in row.items()} for row in found] == as_csv
        latex = client.get(address.replace(".csv", ".tex")).getvalue().decode()
        assert latex.count(r"\\") == len(rows) + 1
        numbers = {column["key"]: column["digits"] for column in table["columns"] if column["kind"] == "number"}
        for row in table["rows"]:
            for name, value in row.items():
                if isinstance(value, float) and name in numbers:
                    assert rounded(value, numbers[name]) in latex
                    assert rounded(value, numbers[name]) in page
    assert client.get(reverse("study_table", args=[rated_study.public_id, "nothing", "csv"])).status_code == 404


def test_a_file_says_if_ratings_were_saved_while_it_was_made(rated_study, researcher):
    parts = prepare_export(study=rated_study, kind="ratings", file_format="xlsx", by=researcher).parts()
    content = next(parts)
    placement = Placement.objects.filter(rater__study=rated_study).first()
    RatingEvent.objects.create(placement=placement, rev=2, scores={}, state=Placement.State.FINAL)
    content += b"".join(parts)
    about = {row["about this file"]: row["value 内容"] for row in read_sheet(content, "About")}
    assert about["Ratings were saved while the file was made"] == "yes 是"


def test_undefined_numbers_are_empty_with_their_reason(rated_study, researcher, as_user):
    client = as_user(researcher)
    rows = read_csv(body(client, rated_study, "agreement", "csv"))
    (kappa,) = [r for r in rows if (r["metric"], r["dimension"], r["arm"]) == ("fleiss_kappa", "safety", "")]
    assert (kappa["value"], kappa["reason"]) == ("", "no_variation")
    assert kappa["signature"].startswith("name:fleiss_kappa|version:")


def test_a_study_without_ratings_gives_files_with_headings(study, researcher, as_user):
    client = as_user(researcher)
    for kind in ("ratings", "numbers", "scores", "agreement"):
        assert read_jsonl(body(client, study, kind, "jsonl")) == []
        assert body(client, study, kind, "csv").decode("utf-8-sig").count("\r\n") == 1
        assert read_sheet(body(client, study, kind, "xlsx"), "Numbers") == []
    assert json.loads(body(client, study, "tables", "json")) == []


def test_rows_fit_their_columns(rated_study):
    for see_systems in (False, True):
        for with_notes in (False, True):
            options = {"see_systems": see_systems, "with_notes": with_notes}
            row = next(iter(ratings_rows(rated_study, **options)))
            assert len(row) == len(ratings_columns(**options))


def test_reading_takes_a_few_queries_per_part_of_the_study(rated_study, django_assert_max_num_queries):
    with django_assert_max_num_queries(8):
        assert len(list(ratings_rows(rated_study))) > 100


def test_no_query_stays_open_while_rows_are_taken(rated_study, monkeypatch):
    monkeypatch.setattr("annotation.tables.ROWS_PER_QUERY", 1)  # one item at a time
    whole = list(ratings_rows(rated_study))
    assert len({row[3] for row in whole}) == 4
    rows = ratings_rows(rated_study)
    taken = list(islice(rows, 3))
    Placement.objects.filter(rater__study=rated_study, rater__number=1).update(note="saved meanwhile")
    assert taken + list(rows) == whole


# The doors.


def test_files_are_downloads_that_nobody_keeps(rated_study, researcher, as_user):
    response = as_user(researcher).get(reverse("study_export", args=[rated_study.public_id, "ratings", "csv"]))
    assert response.streaming
    assert response["Cache-Control"] == "no-store"
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    name = rf'attachment; filename="qingting-{rated_study.public_id.hex[:8]}-ratings-\d{{8}}-\d{{4}}\.csv"'
    assert re.fullmatch(name, response["Content-Disposition"])


def test_the_file_name_holds_nothing_of_the_study_name(researcher, as_user):
    study = factories.make_study(researcher=researcher, name='a"\r\nSet-Cookie: x=1/../../etc/passwd')
    response = as_user(researcher).get(reverse("study_export", args=[study.public_id, "scores", "xlsx"]))
    assert re.fullmatch(
        r'attachment; filename="qingting-[0-9a-f]{8}-scores-[0-9-]{13}\.xlsx"', response["Content-Disposition"]
    )
    assert "Set-Cookie" not in response["Content-Disposition"]
    about = read_sheet(response.getvalue(), "About")
    assert about[0]["value 内容"] == 'a"\r\nSet-Cookie: x=1/../../etc/passwd'


def test_an_export_is_kept_in_the_log(rated_study, researcher, as_user):
    body(as_user(researcher), rated_study, "ratings", "csv", "?notes=1")
    event = AuditEvent.objects.get(action="study.exported")
    assert (event.actor, event.study) == (researcher, rated_study)
    assert event.detail == {"kind": "ratings", "format": "csv", "with_notes": True, "is_unblinded": False}


def test_files_are_there_for_the_people_of_the_study_only(rated_study, other_researcher, rater, as_user, client):
    for kind in KINDS:
        url = reverse("study_export", args=[rated_study.public_id, kind, "csv"])
        assert as_user(other_researcher).get(url).status_code == 404
        assert as_user(rater.user).get(url).status_code == 404
        assert client.get(url).status_code == 302
    assert not AuditEvent.objects.filter(action="study.exported").exists()


@pytest.mark.parametrize(("kind", "file_format"), [("ratings", "exe"), ("people", "csv"), ("ratings", "CSV")])
def test_a_file_that_there_is_not_is_not_found(study, researcher, as_user, kind, file_format):
    assert (
        as_user(researcher).get(reverse("study_export", args=[study.public_id, kind, file_format])).status_code == 404
    )


def test_the_command_writes_the_same_file(rated_study, researcher, as_user, tmp_path, capsys):
    for name, kind, file_format in (("a.jsonl", "ratings", "jsonl"), ("b.csv", "scores", "csv")):
        call_command("export_ratings", str(rated_study.public_id), str(tmp_path / name), "--kind", kind)
        assert (tmp_path / name).read_bytes() == body(as_user(researcher), rated_study, kind, file_format)
    call_command("export_ratings", str(rated_study.public_id), str(tmp_path / "c.xlsx"))
    assert len(read_sheet((tmp_path / "c.xlsx").read_bytes(), "Ratings")) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.csv", "c.xlsx"]


@pytest.mark.parametrize(
    ("study_id", "name", "message"),
    [
        ("5a6e0e9e-0000-4000-8000-000000000000", "a.csv", "There is no study"),
        (None, "a.txt", "end the file's name in"),
        (None, "taken.csv", "exists; choose another name"),
        (None, "no/folder.csv", "No such file or directory"),
    ],
)
def test_the_command_names_what_is_wrong(study, tmp_path, study_id, name, message):
    (tmp_path / "taken.csv").write_text("mine")
    with pytest.raises(CommandError, match=message):
        call_command("export_ratings", study_id or str(study.public_id), str(tmp_path / name))
    assert (tmp_path / "taken.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.csv"]
