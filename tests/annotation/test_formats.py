"""Reading files: what comes out, and that everything wrong is refused with its place."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from annotation.formats import archives, limits, tables
from annotation.formats.dialogues import SourceDialogue, Turn, read_smilechat, read_soulchat
from annotation.formats.problems import Findings, Problem, TooManyProblems
from annotation.formats.rows import read_items, read_responses
from annotation.formats.source import Source, digest, sniff
from annotation.problems import CODES, describe, sentence

TALK = [
    {"role": "client", "content": "我最近总是睡不好。", "annotation": []},
    {"role": "counselor", "content": "听起来很累，愿意多说一点吗？"},
    {"role": "client", "content": "工作压力大。"},
    {"role": "counselor", "content": "嗯，压力一定不小。"},
]
DEEP = "[" * 200_000


@pytest.fixture
def write(tmp_path):
    """write(name, content) -> a source with these bytes."""

    def make(name: str, content: bytes | str) -> Source:
        path = tmp_path / "stored"  # the name that a person gave decides nothing about where the file lies
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Source(path, name)

    return make


def zipped(files: dict[str, bytes | str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(files: dict[str, bytes | str], extra: list[tarfile.TarInfo] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in extra or []:
            archive.addfile(entry)
    return packed.getvalue()


def workbook(rows: list[list[object]]) -> bytes:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for cells in book.active.iter_rows():
        for cell in cells:
            if isinstance(cell.value, str) and not cell.value.startswith("=SUM"):
                cell.data_type = "s"  # as a person types it, "=1+1" is a formula
    packed = io.BytesIO()
    book.save(packed)
    return packed.getvalue()


def collect(rows) -> list:
    found = []
    with contextlib.suppress(TooManyProblems):
        found.extend(rows)
    return found


def items_in(source: Source, file_format: str) -> tuple[list, Findings]:
    findings = Findings()
    return collect(read_items(source, file_format, findings)), findings


def responses_in(source: Source, file_format: str, **options) -> tuple[list, Findings]:
    findings = Findings()
    return collect(read_responses(source, file_format, findings, **options)), findings


def dialogues_in(reader, source: Source) -> tuple[list[SourceDialogue], Findings]:
    findings = Findings()
    return collect(reader(source, findings)), findings


def only(findings: Findings) -> Problem:
    """The one problem; it can be put into words."""
    assert len(findings.problems) == 1, [sentence(problem) for problem in findings.problems]
    assert "%(" not in sentence(findings.problems[0])
    return findings.problems[0]


# --- SMILECHAT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_smilechat_archives_give_dialogues_named_by_their_stems(write, pack):
    talk = json.dumps(TALK, ensure_ascii=False)
    source = write("smile", pack({"data/7.json": talk, "README.md": "read me", "data/.hidden.json": "no"}))
    assert sniff(source) == "smilechat"
    dialogues, findings = dialogues_in(read_smilechat, source)
    assert [dialogue.key for dialogue in dialogues] == ["7"]
    assert dialogues[0].turns[0] == Turn("client", "我最近总是睡不好。")
    assert [turn.role for turn in dialogues[0].turns] == ["client", "counsellor"] * 2
    assert findings.counts["n_ignored_files"] == 2
    assert findings.encoding == "utf-8"


def test_a_folder_is_read_without_following_links(tmp_path):
    secret = tmp_path / "elsewhere.json"
    secret.write_text(json.dumps(TALK))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "1.json").write_text(json.dumps(TALK))
    (folder / "2.json").symlink_to(secret)
    dialogues, _ = dialogues_in(read_smilechat, Source(folder, "data"))
    assert [dialogue.key for dialogue in dialogues] == ["1"]


def test_paths_in_an_archive_lead_nowhere(write, tmp_path):
    link = tarfile.TarInfo("data/9.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    talk = json.dumps(TALK)
    source = write("x", tarred({"../../../evil.json": talk, "/tmp/absolute.json": talk}, [link]))
    dialogues, findings = dialogues_in(read_smilechat, source)
    assert [dialogue.key for dialogue in dialogues] == ["evil", "absolute"]
    assert not findings.problems
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stored"]


def test_the_older_release_with_spoken_lines_is_read_too(write):
    lines = json.dumps(["求助者：我很难过。", "支持者：我在听。"], ensure_ascii=False)
    dialogues, _ = dialogues_in(read_smilechat, write("x", zipped({"1.json": lines})))
    assert dialogues[0].turns == (Turn("client", "我很难过。"), Turn("counsellor", "我在听。"))


def test_neighbours_of_one_role_are_joined_and_empty_turns_go(write):
    talk = [
        {"role": "client", "content": "一"},
        {"role": "client", "content": "二"},
        {"role": "counselor", "content": "  "},
        {"role": "client", "content": "三"},
        {"role": "counselor", "content": "四\r\n五\x07"},
    ]
    dialogues, findings = dialogues_in(read_smilechat, write("x", zipped({"1.json": json.dumps(talk)})))
    assert dialogues[0].turns == (Turn("client", "一\n二\n三"), Turn("counsellor", "四\n五"))
    assert findings.counts["n_merged_turns"] == 2
    assert findings.counts["n_empty_turns"] == 1
    assert findings.counts["n_control_characters"] == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('[{"role": "client"', "broken_json"),
        ('{"role": "client"}', "not_a_list"),
        ("[1]", "turn_type"),
        ('[{"role": "narrator", "content": "x"}]', "turn_role"),
        ('[{"role": "client", "content": 5}]', "turn_text"),
        ('[{"role": "client", "content": NaN}]', "json_number"),
        ('[{"role": "client", "content": 1e999}]', "json_number"),
        ('[{"role": "client", "content": ' + "9" * 5000 + "}]", "json_number"),
        ('[{"role": "client", "content": "a\\u0000b"}]', "nul"),
        ('[{"role": "client", "content": "a\\ud800b"}]', "surrogate"),
        (b'[{"role": "client", "content": "\x00"}]', "nul_byte"),
        (b'[{"role": "client", "content": "\xff\xff"}]', "encoding"),
        (DEEP, "json_too_deep"),
        ('["no one speaks"]', "turn_without_role"),
        (json.dumps([{"role": "client", "content": "x"}] * 401), "too_many_turns"),
        ("[" + " " * limits.MAX_DIALOGUE_BYTES + "]", "dialogue_too_large"),
    ],
)
def test_a_bad_member_is_named(write, content, code):
    source = write("smile.zip", zipped({"data/1.json": json.dumps(TALK), "data/2.json": content}))
    dialogues, findings = dialogues_in(read_smilechat, source)
    assert [dialogue.key for dialogue in dialogues] == ["1"]
    problem = only(findings)
    assert problem.code == code
    assert problem.place.file == "smile.zip: data/2.json"


def test_gb18030_is_accepted_and_said(write):
    talk = json.dumps(TALK, ensure_ascii=False)
    source = write("x", zipped({"1.json": talk.encode("gb18030"), "2.json": talk.encode("utf-8-sig")}))
    dialogues, findings = dialogues_in(read_smilechat, source)
    assert dialogues[0].turns == dialogues[1].turns
    assert findings.encoding == "gb18030+utf-8-sig"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"PK\x03\x04 and then nothing of the kind", id="zip"),
        pytest.param(b"\xfd7zXZ\x00 and then nothing of the kind", id="xz"),
        pytest.param(tarred({"1.json": json.dumps(TALK) * 50})[:-60], id="cut off"),
    ],
)
def test_a_broken_archive_is_refused(write, content):
    _, findings = dialogues_in(read_smilechat, write("x", content))
    assert "broken_archive" in {problem.code for problem in findings.problems}


def test_a_member_that_lies_about_its_size_is_counted_not_believed(write):
    bomb = zipped({"1.json": b"[" + b" " * 50_000_000 + b"]"})
    assert len(bomb) < 100_000
    _, findings = dialogues_in(read_smilechat, write("x", bomb))
    assert only(findings).code == "dialogue_too_large"


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_what_unpacking_yields_is_limited(write, monkeypatch, pack):
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 200_000)
    talk = json.dumps(TALK) + " " * 60_000
    _, findings = dialogues_in(read_smilechat, write("x", pack({f"{n}.json": talk for n in range(9)})))
    assert only(findings).code == "archive_too_large"


def test_a_skipped_file_of_a_tar_cannot_grow_without_end(write, monkeypatch):
    monkeypatch.setattr(archives, "MAX_SKIPPED_BYTES", 500_000)
    source = write("x", tarred({"notes.txt": b" " * 5_000_000, "1.json": json.dumps(TALK)}))
    _, findings = dialogues_in(read_smilechat, source)
    assert only(findings).code == "member_too_large"


def test_reading_stops_after_fifty_problems(write):
    _, findings = dialogues_in(read_smilechat, write("x", zipped({f"{n}.json": "no" for n in range(80)})))
    assert len(findings.problems) == limits.MAX_PROBLEMS


# --- SoulChatCorpus -------------------------------------------------------------------------------------


def corpus(n: int = 3, **changes) -> str:
    entries = [
        {
            "id": number,
            "topic": "成长",
            "messages": [
                {"role": "user", "content": f"问题{number}"},
                {"role": "assistant", "content": f"回答{number}"},
            ],
            **changes,
        }
        for number in range(n)
    ]
    return json.dumps(entries, ensure_ascii=False, indent=2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_soulchat_is_read_entry_by_entry(write, encoding):
    source = write("SoulChatCorpus.json", corpus().encode(encoding))
    assert sniff(source) == "soulchat"
    dialogues, findings = dialogues_in(read_soulchat, source)
    assert [dialogue.key for dialogue in dialogues] == ["0", "1", "2"]
    assert dialogues[2].turns == (Turn("client", "问题2"), Turn("counsellor", "回答2"))
    assert dialogues[2].topic_label == "成长"
    assert findings.encoding == encoding


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_entries_are_the_same_wherever_the_chunks_end(write, monkeypatch, chunk):
    monkeypatch.setattr("annotation.formats.dialogues._CHUNK_CHARACTERS", chunk)
    dialogues, findings = dialogues_in(read_soulchat, write("x", corpus()))
    assert [dialogue.key for dialogue in dialogues] == ["0", "1", "2"]
    assert not findings.problems


def test_an_empty_array_holds_nothing_and_is_no_error_in_itself(write):
    dialogues, findings = dialogues_in(read_soulchat, write("x", "[ ]\n"))
    assert dialogues == [] and findings.problems == []


@pytest.mark.parametrize(
    ("content", "code", "number"),
    [
        (corpus()[:-30], "broken_json", 3),
        (corpus().replace("},\n  {", "}\n  {", 1), "broken_json", 1),
        ('[{"id": 1, "topic": "x"}]', "missing", 1),
        ('[{"topic": "x", "messages": []}]', "missing", 1),
        ('[{"id": 1.5, "messages": []}]', "not_text", 1),
        ('[{"id": "1", "topic": 3, "messages": []}]', "not_text", 1),
        ("[3]", "not_an_object", 1),
        (corpus(1)[:-1] + ", NaN]", "json_number", 2),
        ('[{"id": ' + "9" * 5000 + "}]", "json_number", 1),
        ('[{"id": 1, "messages": [{"role": "user", "content": "\\ud83d"}]}]', "surrogate", 1),
        (DEEP, "json_too_deep", 1),
        ('[{"id": 1, "messages": ' + DEEP, "json_too_deep", 1),
        ('["' + "x" * (limits.MAX_DIALOGUE_BYTES + 10) + '"]', "dialogue_too_large", 1),
        ('["' + "x" * (3 * limits.MAX_DIALOGUE_BYTES), "dialogue_too_large", 1),
    ],
)
def test_a_bad_entry_is_named(write, content, code, number):
    _, findings = dialogues_in(read_soulchat, write("corpus.json", content))
    problem = only(findings)
    assert (problem.code, problem.place.unit, problem.place.number) == (code, "entry", number)


def test_a_broken_entry_names_its_line(write):
    broken = corpus().replace('"id": 2', '"id": ,')
    _, findings = dialogues_in(read_soulchat, write("x", broken))
    line = broken[: broken.index('"id": ,')].count("\n") + 1
    assert only(findings).params["line"] == line
    assert f"(line {line})" in describe(only(findings))


def test_what_follows_the_array_is_refused(write):
    _, findings = dialogues_in(read_soulchat, write("x", corpus() + "\n[]"))
    assert only(findings).code == "broken_json"


def test_instructions_to_a_model_are_left_out_and_counted(write):
    entry = {"id": 1, "messages": [{"role": "system", "content": "You are …"}, {"role": "user", "content": "x"}]}
    dialogues, findings = dialogues_in(read_soulchat, write("x", json.dumps([entry])))
    assert dialogues[0].turns == (Turn("client", "x"),)
    assert findings.counts["n_system_messages"] == 1


# --- Our own JSONL, CSV, XLSX ---------------------------------------------------------------------------

LINES = "来访者：我最近睡不好。\n每天都这样。\n咨询师：多久了？\n来访者：一个月。"
EXPECTED = (
    Turn("client", "我最近睡不好。\n每天都这样。"),
    Turn("counsellor", "多久了？"),
    Turn("client", "一个月。"),
)


@pytest.mark.parametrize(
    "turns",
    [
        LINES,
        LINES.replace("来访者", "用户").replace("咨询师", "心理咨询师"),
        LINES.replace("来访者：", "Client: ").replace("咨询师：", "counsellor: "),
        json.dumps([{"role": turn.role, "content": turn.text} for turn in EXPECTED]),
        json.dumps([{"role": turn.role, "text": turn.text} for turn in EXPECTED]),
    ],
)
def test_turns_can_be_written_in_several_ways(write, turns):
    row = json.dumps({"key": "a", "turns": turns})
    items, findings = items_in(write("x", row), "jsonl")
    assert not findings.problems
    assert items[0].turns == EXPECTED
    assert items[0].dialogue == "a"


def test_the_three_kinds_of_table_say_the_same(write):
    header = ["key", "dialogue", "topic", "turns", "reference"]
    rows = [["a#1", "a", "家庭", LINES, "=1+1"], ["b", None, None, "Client: hello", None]]
    lines = "\n".join(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in rows)
    cells = [['"' + (cell or "").replace('"', '""') + '"' for cell in row] for row in rows]
    csv_text = "\r\n".join(",".join(row) for row in [header, *cells])
    found = []
    for name, content in [("x.jsonl", lines), ("x.csv", csv_text), ("x.xlsx", workbook([header, *rows]))]:
        source = write(name, content)
        file_format = sniff(source)
        assert f".{file_format}" == name[1:]
        items, findings = items_in(source, file_format)
        assert not findings.problems
        found.append([item[:-1] for item in items])
    assert found[0] == found[1] == found[2]
    assert found[0][0][0] == "a#1" and found[0][0][4] == "=1+1"


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_csv_may_be_parted_by_tab_or_semicolon(write, delimiter):
    text = delimiter.join(["item", "system", "response"]) + "\n" + delimiter.join(["1", "a", "好的，谢谢"])
    responses, findings = responses_in(write("x.csv", text.encode("gb18030")), "csv")
    assert responses[0].text == "好的，谢谢"
    assert findings.encoding == "gb18030"


def test_responses_keep_their_text_byte_for_byte_and_what_is_known_of_them(write):
    text = "  <|im_end|>好\r\n的\t "
    line = json.dumps(
        {"item": 7, "system": "a", "response": text, "repeat": 2, "provenance": {"seed": 3}, "provenance.model": "m"}
    )
    responses, findings = responses_in(write("x", line), "jsonl")
    assert not findings.problems
    assert responses[0][:4] == ("7", "a", 2, text)
    assert responses[0].provenance == {"seed": 3, "model": "m"}


def test_a_file_of_one_system_need_not_name_it(write):
    responses, _ = responses_in(write("x", '{"item": "1", "response": "a"}'), "jsonl", system="mechat")
    assert responses[0].system == "mechat"


GOOD = {"key": "k", "turns": "Client: hi"}


@pytest.mark.parametrize(
    ("line", "code", "field"),
    [
        ("not json", "broken_json", ""),
        ('{"key": "a", "turns": "Client: x"', "broken_json", ""),
        ("[1]", "not_an_object", ""),
        (json.dumps({**GOOD, "refrence": "x"}), "unknown_columns", ""),
        ('{"key": "a"}', "missing", "turns"),
        (json.dumps({**GOOD, "key": ""}), "missing", "key"),
        (json.dumps({**GOOD, "key": True}), "not_text", "key"),
        (json.dumps({**GOOD, "key": "x" * 121}), "too_long", "key"),
        (json.dumps({**GOOD, "topic": 4}), "not_text", "topic"),
        (json.dumps({**GOOD, "reference": []}), "not_text", "reference"),
        (json.dumps({**GOOD, "turns": []}), "no_turns", "turns"),
        (json.dumps({**GOOD, "turns": 5}), "turns_type", "turns"),
        (json.dumps({**GOOD, "turns": "Client: a\nCounsellor: b"}), "last_turn", "turns"),
        (json.dumps({**GOOD, "turns": "[1"}), "broken_json", "turns"),
        (json.dumps({**GOOD, "turns": "hello"}), "turn_without_role", "turns"),
        ('{"key": "a", "turns": Infinity}', "json_number", ""),
        ('{"key": ' + DEEP, "json_too_deep", ""),
        ('{"key": "a", "turns": "Client: \\ud800"}', "surrogate", "turns[1]"),
        ('{"key": "a\\u0000", "turns": "Client: a"}', "nul", "key"),
    ],
)
def test_a_bad_line_is_named(write, line, code, field):
    source = write("items.jsonl", json.dumps({**GOOD, "key": "first"}) + "\n\n" + line)
    items, findings = items_in(source, "jsonl")
    assert [item.key for item in items] == ["first"]
    problem = only(findings)
    assert (problem.code, problem.field) == (code, field)
    assert problem.place == ("items.jsonl", "line", 3)
    assert "items.jsonl, line 3" in sentence(problem)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"response": ""}, "empty_response", "response"),
        ({"response": " \n "}, "empty_response", "response"),
        ({"response": None}, "empty_response", "response"),
        ({"response": 3}, "not_text", "response"),
        ({"response": "a\x00"}, "nul", "response"),
        ({"repeat": -1}, "repeat", "repeat"),
        ({"repeat": "x"}, "repeat", "repeat"),
        ({"repeat": 40000}, "repeat", "repeat"),
        ({"repeat": True}, "repeat", "repeat"),
        ({"system": ""}, "missing", "system"),
        ({"item": None}, "missing", "item"),
        ({"provenance": "x"}, "not_an_object", "provenance"),
        ({"provenance": {"a": ["\x00"]}}, "nul", "provenance"),
        ({"score": 2}, "unknown_columns", ""),
    ],
)
def test_a_bad_response_is_named(write, changes, code, field):
    line = json.dumps({"item": "1", "system": "a", "response": "x", **changes})
    _, findings = responses_in(write("r.jsonl", line), "jsonl")
    assert (only(findings).code, only(findings).field) == (code, field)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "empty_file"),
        ("a,b\n1,2", "missing_columns"),
        ("key,turns,turns\n", "repeated_columns"),
        ("\n", "no_header"),
        ('key,turns\na,"no end', "broken_csv"),
        ("key,turns\na", "row_length"),
        ("key,turns\na,Client: b,c", "row_length"),
        (b"key,turns\na,\xff\xff\xff", "encoding"),
        (b"\xff\xfek\x00e\x00y\x00", "utf16"),
        (b"key,turns\na,\x00", "nul_byte"),
        ("key,turns\n" + "x" * (limits.MAX_RECORD_BYTES + 1), "line_too_long"),
    ],
)
def test_a_bad_csv_is_named(write, content, code):
    _, findings = items_in(write("x.csv", content), "csv")
    problem = findings.problems[0]
    assert problem.code == code
    assert "%(" not in sentence(problem)


def test_a_wrong_encoding_names_line_and_byte(write):
    content = b"key,turns\n" + "a,来访者：好\n".encode() + b"b,\xff\n"
    _, findings = items_in(write("x.csv", content), "csv")
    problem = only(findings)
    assert problem.place.number == 3
    assert problem.params["offset"] == content.index(b"\xff")


def test_wrong_columns_say_what_was_found_and_expected(write):
    _, findings = items_in(write("x.csv", "name,text\n1,2"), "csv")
    told = " ".join(describe(problem) for problem in findings.problems)
    assert all(word in told for word in ("key", "turns", "name", "text", "reference"))


def test_rows_of_a_table_are_limited(write, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROWS", 3)
    content = "key,turns\n" + "\n".join(f"{n},Client: x" for n in range(5))
    items, findings = items_in(write("x.csv", content), "csv")
    assert len(items) == 3
    assert (only(findings).code, only(findings).place.number) == ("too_many_rows", 5)


def test_the_largest_line_that_is_allowed_passes(write):
    line = json.dumps({**GOOD, "turns": "Client: "})
    line = line[:-2] + "x" * (limits.MAX_RECORD_BYTES - len(line)) + '"}'
    assert len(line) == limits.MAX_RECORD_BYTES
    items, findings = items_in(write("x", f"{line}\n{json.dumps({**GOOD, 'key': 'b'})}"), "jsonl")
    assert not findings.problems and len(items) == 2


def test_a_line_of_two_gigabytes_is_refused_without_reading_it_into_memory(tmp_path):
    """In a process of its own that may not have more than 600 MB of address space."""
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(b'{"key": "' + b"a" * 2_000_000)
        file.truncate(2 * 1024**3)  # the rest is a hole of NULs, which costs no disk
    program = textwrap.dedent(f"""
        import resource
        from pathlib import Path
        from annotation.formats.problems import Findings
        from annotation.formats.rows import read_items
        from annotation.formats.source import Source, sniff
        resource.setrlimit(resource.RLIMIT_AS, (600 * 1024**2,) * 2)
        source, findings = Source(Path({str(path)!r}), "big.jsonl"), Findings()
        assert sniff(source) == "jsonl"
        assert list(read_items(source, "jsonl", findings)) == []
        print(findings.problems[0].code, findings.problems[0].place.number)
        source.path.write_bytes(b"a" * 300_000_000)
        findings = Findings()
        assert list(read_items(source, "jsonl", findings)) == []
        print(findings.problems[0].code, findings.problems[0].place.number)
    """)
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert found.stdout.split() == ["line_too_long", "1"] * 2, found.stderr


# --- XLSX -----------------------------------------------------------------------------------------------


def test_numbers_typed_into_a_sheet_are_keys(write):
    source = write("x.xlsx", workbook([["item", "system", "response"], [1042, "a", "text"], [7.0, "a", "text"]]))
    responses, _ = responses_in(source, "xlsx")
    assert [response.item for response in responses] == ["1042", "7"]


def test_empty_rows_of_a_sheet_are_passed_over(write):
    source = write("x.xlsx", workbook([["key", "turns"], [None, None], ["a", "Client: x"]]))
    items, findings = items_in(source, "xlsx")
    assert not findings.problems
    assert items[0].place.number == 3


@pytest.mark.parametrize(("cell", "code"), [("=SUM(A1:A2)", "formula"), (1.5, "not_text"), (True, "not_text")])
def test_a_cell_that_is_no_text_is_named(write, cell, code):
    source = write("x.xlsx", workbook([["item", "system", "response"], ["1", "a", cell]]))
    _, findings = responses_in(source, "xlsx")
    problem = only(findings)
    assert (problem.code, problem.field, problem.place.number) == (code, "response", 2)


def test_a_workbook_is_measured_before_it_is_opened(write, monkeypatch):
    monkeypatch.setattr(tables, "load_workbook", None)
    sheet = b"<row/>" * 10_000_000  # 60 MB that pack to 60 kB
    bomb = zipped({"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<x/>", "xl/worksheets/sheet1.xml": sheet})
    assert len(bomb) < limits.MAX_XLSX_BYTES
    assert only(items_in(write("x.xlsx", bomb), "xlsx")[1]).code == "xlsx_bomb"


def test_a_workbook_that_lies_about_its_size_is_measured_too(write, monkeypatch):
    monkeypatch.setattr(tables, "load_workbook", None)
    honest = zipped({"[Content_Types].xml": "<Types/>", "xl/s.xml": b"<row/>" * 10_000_000})
    size = (60_000_000).to_bytes(4, "little")
    liar = honest.replace(size, (1000).to_bytes(4, "little"))
    assert liar != honest
    assert only(items_in(write("x.xlsx", liar), "xlsx")[1]).code in {"xlsx_bomb", "broken_xlsx"}


def test_many_parts_or_megabytes_are_refused(write):
    parts = zipped({"[Content_Types].xml": "", **{f"{n}.xml": "" for n in range(limits.MAX_XLSX_PARTS)}})
    assert only(items_in(write("x", parts), "xlsx")[1]).code == "xlsx_bomb"
    large = b"PK\x03\x04" + os.urandom(limits.MAX_XLSX_BYTES)
    assert only(items_in(write("x", large), "xlsx")[1]).code == "xlsx_too_large"


def test_entities_do_not_multiply(write):
    """The “billion laughs”, in the sheet that openpyxl parses first."""
    good = zipfile.ZipFile(io.BytesIO(workbook([["key", "turns"]])))
    laughs = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    parts = {name: good.read(name).decode() for name in good.namelist()}
    parts["xl/workbook.xml"] = laughs + "]><workbook>&i;</workbook>"
    assert only(items_in(write("x.xlsx", zipped(parts)), "xlsx")[1]).code == "broken_xlsx"


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04rest", b"key,turns", zipped({"[Content_Types].xml": "<Types/>"}), workbook([])],
)
def test_what_is_no_workbook_is_refused(write, content):
    items, findings = items_in(write("x.xlsx", content), "xlsx")
    assert items == []
    assert only(findings).code in {"empty_file", "broken_xlsx", "no_header"}


# --- Which format ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x", zipped({"1.json": "[]"}), "smilechat"),
        ("x.json", tarred({"1.json": "[]"}), "smilechat"),
        ("x.csv", workbook([["key"]]), "xlsx"),
        ("x.csv", '\ufeff [{"id": 1}]', "soulchat"),
        ("x.txt", '{"key": 1}', "jsonl"),
        ("x", "key;turns", "csv"),
        ("x.csv", "key", "csv"),
        ("x.csv", b"\x89PNG\x00\x00", None),
        ("x", b"\x7fELF", None),
    ],
)
def test_the_content_decides_the_format(write, name, content, expected):
    assert sniff(write(name, content)) == expected


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path):
    for folder, names in (("a", "12"), ("b", "21"), ("c", "13")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.json").write_text("[]")
    a, b, c = (digest(Source(tmp_path / folder, folder)) for folder in "abc")
    assert a == b != c


def test_every_code_that_reading_uses_has_a_sentence():
    """Found in the syntax tree: the second argument of findings.add, the first of our exceptions."""
    folder = Path(archives.__file__).parent
    used: set[str] = set()
    for path in [*folder.glob("*.py"), folder.parent / "services" / "importing.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            arguments = {"add": node.args[1:2], "Problem": node.args[1:2]}.get(name, [])
            if name in {"BadJSON", "BadText", "_TooMuch"}:
                arguments = node.args[:1]
            for argument in arguments:
                values = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
                used |= {value.value for value in values if isinstance(value, ast.Constant)}
    assert len(used) > 40
    assert used <= CODES
