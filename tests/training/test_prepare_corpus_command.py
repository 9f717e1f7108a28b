"""prepare_corpus: files in, a folder for training out, without a database unless it is asked for."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from tests.factories import make_dataset, make_item
from tests.models_runtime import tiny
from tests.training.corpora import TALK, jsonl, messages, smilechat, soulchat
from training.corpus.store import Store

# But for one test, none has a mark for the database, so pytest refuses any query.


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny.chatglm(tmp_path_factory.mktemp("models") / "chatglm")


def prepare(weights, folder, *arguments, **options) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    arguments = [str(folder), *map(str, arguments), "--weights", str(weights)]
    call_command("prepare_corpus", *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def release(path, n: int = 20):
    entries = [{"id": i, "topic": "情绪", "messages": messages(*(f"{text}（{i}）" for text in TALK))} for i in range(n)]
    return soulchat(path, entries)


def test_it_makes_a_folder_and_says_what_is_in_it(weights, tmp_path):
    said, complained = prepare(weights, tmp_path / "out", release(tmp_path / "a.json"), test_share=0.2)
    train = Store(tmp_path / "out" / "train")
    card = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert f"train: {len(train)} samples of {len(train) // 3} dialogues" in said
    assert f"content {train.content_hash[:12]}" in said
    assert card["limits"] == {"max_context": 1536, "max_target": 512, "cut": "ends"}
    assert complained.strip() == ""


def test_broken_records_are_shown_in_words(weights, tmp_path):
    folder = smilechat(tmp_path / "data", {"1": messages(), "2": "[{"})
    _, complained = prepare(weights, tmp_path / "out", folder, test_share=0.0)
    assert "data: 2.json" in complained and "not valid JSON" in complained
    with pytest.raises(CommandError, match="1 of its first") as refused:
        prepare(weights, tmp_path / "other", folder, max_broken=0)
    assert "not valid JSON" in str(refused.value)


def test_a_file_that_is_no_utf_8_is_named(weights, tmp_path):
    path = release(tmp_path / "a.json")
    path.write_bytes(path.read_text(encoding="utf-8").encode("gb18030"))
    _, complained = prepare(weights, tmp_path / "out", path, test_share=0.0)
    assert "a.json was read as GB18030" in complained
    card = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert [source["encoding"] for source in card["sources"]] == ["gb18030"]


def test_it_cleans_by_rules_and_review(weights, tmp_path):
    rows = [
        {"key": "1", "turns": messages("我很累", roles=("client", "counsellor")), "reference": "辛苦了"},
        {"key": "2", "turns": messages("累啊，13912345678", roles=("client", "counsellor")), "reference": "在"},
        {"key": "3", "turns": messages("没事", roles=("client", "counsellor")), "reference": "好"},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rules.json").write_text('{"strings": {"累": "review"}, "near_duplicate": null}')
    said, _ = prepare(weights, tmp_path / "out", path, "--clean", tmp_path / "rules.json", test_share=0.0)
    assert "dialogues undecided: 1" in said and "remove phone: 1" in said
    queue = (tmp_path / "out" / "review.jsonl").read_text().replace('"undecided"', '"keep"')
    (tmp_path / "verdicts.jsonl").write_text(queue)
    options = ("--clean", tmp_path / "rules.json", "--review", tmp_path / "verdicts.jsonl")
    said, _ = prepare(weights, tmp_path / "second", path, *options, test_share=0.0)
    assert "kept by person: 1" in said and len(Store(tmp_path / "second" / "train")) == 2


def test_held_out_items_are_left_out(weights, tmp_path):
    first = messages(f"{TALK[0]}（3）", roles=("client", "counsellor"))
    items = jsonl(tmp_path / "items.jsonl", [{"key": "x", "turns": first, "reference": f"{TALK[1]}（3）"}])
    said, _ = prepare(weights, tmp_path / "out", release(tmp_path / "a.json"), "--held-out", items, test_share=0.0)
    assert "held out dialogues: 1" in said


@pytest.mark.django_db
def test_no_item_of_the_database_is_learnt(weights, tmp_path):
    turns = [{"role": "client", "text": f"{TALK[0]}（5）"}]
    make_item(make_dataset(), turns=turns, reference=f"{TALK[1]}（5）")
    said, _ = prepare(weights, tmp_path / "out", release(tmp_path / "a.json"), test_share=0.0, against_database=True)
    assert "held out dialogues: 1" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--template", "nothing.json"], "no template nothing.json"),
        (["--clean", "nothing.json"], "no file of rules"),
        (["--review", "nothing.jsonl"], "cannot be read"),
        (["--held-out", "nothing.jsonl"], "no file of items"),
        (["--test-share", "1"], "below 1"),
        (["--max-target", "1"], "hold nothing"),
    ],
)
def test_a_bad_option_is_named(weights, tmp_path, arguments, message):
    with pytest.raises(CommandError, match=message):
        prepare(weights, tmp_path / "out", release(tmp_path / "a.json", 2), *arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match=r"config\.json"):
        prepare(tmp_path / "empty", tmp_path / "out", release(tmp_path / "a.json", 2))
