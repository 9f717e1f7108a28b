"""Releases and our own rows become dialogues; broken records are named, counted and limited."""

from __future__ import annotations

import pytest

from annotation.formats.source import Source
from tests.training.corpora import TALK, dialogue, jsonl, messages, smilechat, soulchat
from training.corpus.errors import SourceRefused
from training.corpus.formats import Reading, read_dialogues


def read(path, **options):
    reading = Reading()
    return list(read_dialogues(Source(path, path.name), reading, **options)), reading


def test_it_reads_soulchat(tmp_path):
    entries = [{"id": 7, "topic": "情绪", "messages": messages()}, {"id": 8, "topic": None, "messages": messages("在")}]
    found, reading = read(soulchat(tmp_path / "soulchat.json", entries))
    assert [(d.key, d.group, d.topic_label, len(d.turns)) for d in found] == [("7", "7", "情绪", 6), ("8", "8", "", 1)]
    assert [turn.text for turn in found[0].turns] == list(TALK)
    assert found[0].targets == [1, 3, 5]
    assert reading.counts["n_dialogues_read"] == 2 and not reading.problems


def test_it_reads_smilechat_and_counts_what_was_mended(tmp_path):
    turns = messages("喂", "", "在吗", "我在", roles=("client", "counselor"))
    found, reading = read(smilechat(tmp_path / "data", {"12": turns}))
    assert [(turn.role, turn.text) for turn in found[0].turns] == [("client", "喂\n在吗"), ("counsellor", "我在")]
    assert (reading.counts["n_empty_turns"], reading.counts["n_merged_turns"]) == (1, 1)


def test_a_row_is_a_whole_dialogue_or_one_item_of_it(tmp_path):
    turns = messages(*TALK[:3], roles=("client", "counsellor"))
    rows = [
        {"key": "a", "turns": turns, "reference": TALK[3]},
        {"key": "b#2", "dialogue": "b", "turns": turns, "reference": TALK[3]},
        {"key": "c", "turns": turns},
    ]
    whole, item, open_end = read(jsonl(tmp_path / "rows.jsonl", rows))[0]
    assert (whole.group, whole.targets) == ("a", [1, 3])
    assert (item.group, item.targets) == ("b", [3])
    assert (open_end.group, open_end.targets) == ("c", [1])


def test_a_counsellor_who_speaks_first_answers_nobody():
    assert dialogue("你好", "我睡不好", "多久了？", first="counsellor").targets == [2]


def test_broken_records_are_named_and_passed_over(tmp_path):
    folder = smilechat(tmp_path / "data", {"1": messages(), "2": "[{", "3": '{"a": 1}', "4": messages()})
    found, reading = read(folder)
    assert sorted(d.key for d in found) == ["1", "4"]
    assert reading.counts["n_broken"] == 2
    assert [(p.place.file, p.code) for p in reading.problems] == [
        ("data: 2.json", "broken_json"),
        ("data: 3.json", "not_a_list"),
    ]


def test_too_many_broken_records_are_refused(tmp_path):
    rows = [{"key": str(n)} for n in range(8)]
    with pytest.raises(SourceRefused, match="4 of its first 4 records are broken, and 3 may be") as refused:
        read(jsonl(tmp_path / "rows.jsonl", rows), max_broken=3)
    assert refused.value.n_broken == 4
    with pytest.raises(SourceRefused, match="1 of its first 1 records"):
        read(tmp_path / "rows.jsonl", max_broken=0)


def test_a_record_with_two_problems_is_one_broken_record(tmp_path):
    rows = [{"key": "1", "turns": 3, "topic": 4}, {"key": "2", "turns": messages(TALK[0])}]
    found, reading = read(jsonl(tmp_path / "rows.jsonl", rows), max_broken=1)
    assert (len(found), reading.counts["n_broken"], len(reading.problems)) == (1, 1, 2)


def test_a_list_of_many_broken_records_keeps_the_first(tmp_path):
    rows = [{"key": str(n)} for n in range(200)]
    _, reading = read(jsonl(tmp_path / "rows.jsonl", rows), max_broken=200)
    assert (reading.counts["n_broken"], len(reading.problems)) == (200, 50)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.json", '[{"id": 1, "topic": "", "messages": []}, {"id": 2, "mess'),
        ("cut.jsonl", '{"key": "1", "turns": []}\n\x00'),
        ("empty.jsonl", ""),
        ("broken.tar.xz", "\xfd7zXZ\x00 and no more"),
        ("utf16.jsonl", "\xff\xfe{\x00"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_refused_whatever_the_limit(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SourceRefused, match=name):
        read(path, max_broken=1000)


def test_an_unknown_format_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\x00\x01")
    with pytest.raises(SourceRefused, match="no format known"):
        read(tmp_path / "x.bin")
    with pytest.raises(SourceRefused, match="no file missing"):
        read(tmp_path / "missing.json")
