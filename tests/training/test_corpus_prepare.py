"""From files to a folder for training: split by dialogue, nothing of the test in the training, everything counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from annotation.formats.dialogues import Turn
from annotation.formats.problems import Findings
from annotation.formats.rows import read_items
from annotation.formats.source import Source
from annotation.sampling import items_of
from tests.training.corpora import TALK, chatglm_encoder, dialogue, jsonl, messages, smilechat, soulchat
from training.corpus.errors import CorpusError, FolderTaken, SourceRefused, StoreBroken
from training.corpus.formats import Reading, read_dialogues
from training.corpus.prepare import BEGINNINGS, CARD, Plan, learnt_among, prepare
from training.corpus.samples import Limits, encode
from training.corpus.split import beginnings, hashes_of_items, is_test, item_hash, normal, opening
from training.corpus.store import Store

LIMITS = Limits(2000, 500)


@pytest.fixture(scope="module")
def encoder():
    return chatglm_encoder()


def talk(number: int) -> tuple[str, ...]:
    return tuple(f"{text}（{number}）" for text in TALK)


def release(path, n: int, start: int = 0):
    entries = [{"id": i, "topic": "情绪", "messages": messages(*talk(i))} for i in range(start, start + n)]
    return soulchat(path, entries)


def run(encoder, out, *paths, **plan):
    plan = Plan(**{"limits": LIMITS, "test_share": 0.25, **plan})
    return prepare([Source(path, path.name) for path in paths], out, encoder=encoder, plan=plan)


def samples_of(store):
    return {(tuple(context.tolist()), tuple(target.tolist())) for context, target in store}


def test_every_sample_is_in_one_part_and_the_card_counts_them(tmp_path, encoder):
    card = run(encoder, tmp_path / "out", release(tmp_path / "a.json", 40))
    train, test = Store(tmp_path / "out" / "train"), Store(tmp_path / "out" / "test")
    assert card == json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert (len(train), len(test)) == (card["train"]["n_samples"], card["test"]["n_samples"])
    assert len(train) + len(test) == card["counts"]["n_samples"] == 120
    assert card["train"]["n_dialogues"] + card["test"]["n_dialogues"] == 40
    assert 0 < card["test"]["n_dialogues"] < 20
    assert card["train"]["content_hash"] == train.content_hash
    assert train.tokenizer_digest == encoder.digest
    expected = [encode(dialogue(*talk(i)), encoder, LIMITS) for i in range(40)]
    assert np.concatenate([train.lengths()[1], test.lengths()[1]]).sum() == sum(
        s.target for e in expected for s in e.spans
    )
    assert not samples_of(train) & samples_of(test)


def test_statistics_are_of_the_training(tmp_path, encoder):
    card = run(encoder, tmp_path / "out", release(tmp_path / "a.json", 40))
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert found["n_dialogues"] == found["topics"]["emotion"] == card["train"]["n_dialogues"]
    assert found["rounds"] == {"3": found["n_dialogues"]}
    run(encoder, tmp_path / "without", tmp_path / "a.json", has_statistics=False)
    assert not (tmp_path / "without" / "statistics.json").exists()


def test_the_same_files_make_the_same_corpus_in_any_order(tmp_path, encoder):
    a, b = release(tmp_path / "a.json", 20), release(tmp_path / "b.json", 20, start=100)
    one, again, turned = (
        run(encoder, tmp_path / name, *paths) for name, paths in (("1", (a, b)), ("2", (a, b)), ("3", (b, a)))
    )
    assert one == again
    assert samples_of(Store(tmp_path / "1" / "test")) == samples_of(Store(tmp_path / "3" / "test"))
    assert one["train"]["content_hash"] != turned["train"]["content_hash"]
    other_seed = run(encoder, tmp_path / "4", a, b, seed=2)
    assert other_seed["test"]["content_hash"] != one["test"]["content_hash"]


def test_dialogues_added_later_move_no_other(tmp_path, encoder):
    run(encoder, tmp_path / "few", release(tmp_path / "a.json", 20))
    run(encoder, tmp_path / "many", release(tmp_path / "b.json", 40))
    assert samples_of(Store(tmp_path / "few" / "test")) <= samples_of(Store(tmp_path / "many" / "test"))


def test_the_tests_items_can_be_imported(tmp_path, encoder):
    """test.jsonl holds the items that an import of the release itself would make, under the same keys."""
    run(encoder, tmp_path / "out", release(tmp_path / "a.json", 40))
    findings = Findings()
    found = list(read_items(Source(tmp_path / "out" / "test.jsonl", "test.jsonl"), "jsonl", findings))
    assert not findings.problems and len(found) == len(Store(tmp_path / "out" / "test"))
    for item in found:
        original = dialogue(*talk(int(item.dialogue)), key=item.dialogue, topic="情绪")
        assert item._replace(place=original.place) in items_of(original)


def test_dialogues_that_open_alike_stay_together(tmp_path, encoder):
    """Else a test item, the opening and its reply, would be a sample of the training."""
    entries = [
        {"id": i, "topic": "", "messages": messages(*TALK[:2], *talk(i)[2:])} for i in range(30)
    ]  # the same question and reply, then thirty ways on
    card = run(encoder, tmp_path / "out", soulchat(tmp_path / "a.json", entries))
    assert 0 in (card["test"]["n_dialogues"], card["train"]["n_dialogues"])


def test_duplicates_are_left_out_across_files_and_named(tmp_path, encoder):
    again = smilechat(tmp_path / "data", {"9": messages(*(f"  {text}!! " for text in talk(3)))})
    card = run(encoder, tmp_path / "out", release(tmp_path / "a.json", 10), again)
    assert card["counts"]["n_duplicate_dialogues"] == 1
    assert card["named"] == {"n_duplicate_dialogues": ["data: 9.json: 2-9"]}


def test_no_held_out_item_is_learnt(tmp_path, encoder):
    rows = [  # a reply within dialogue 3, and a question without reply of dialogue 5
        {"key": "a", "turns": messages(*talk(3)[:3], roles=("client", "counsellor")), "reference": talk(3)[3]},
        {"key": "b", "turns": messages(*talk(5)[:5], roles=("client", "counsellor"))},
        {"key": "c", "turns": messages(talk(7)[0]), "reference": "another reply"},
    ]
    path = jsonl(tmp_path / "items.jsonl", rows)
    held_out = hashes_of_items(Source(path, path.name))
    card = run(encoder, tmp_path / "out", release(tmp_path / "a.json", 10), held_out=held_out, test_share=0.0)
    assert card["counts"]["n_held_out_dialogues"] == 2
    assert card["named"]["n_held_out_dialogues"] == ["a.json: 3", "a.json: 5"]
    learnt = samples_of(Store(tmp_path / "out" / "train"))
    for number in (3, 5, 7):
        found = encode(dialogue(*talk(number)), encoder, LIMITS)
        ids = found.ids.tolist()
        targets = {tuple(ids[s.target_at : s.target_at + s.target]) for s in found.spans}
        assert bool(targets & {target for _, target in learnt}) == (number == 7)


def test_a_held_out_item_does_not_hide_behind_its_looks():
    turns = dialogue().turns
    plain = item_hash(turns[:3], turns[3].text)
    dressed = [Turn(turn.role, turn.text.replace("，", ", ") + "……") for turn in turns]
    assert item_hash(dressed[:3], dressed[3].text) == plain == beginnings(turns)[3]
    assert item_hash(turns[:3], "别的") != plain
    assert normal("Ａb１ e\u0301。") == "ab1é"


def test_an_opening_ends_with_the_first_reply():
    turns = dialogue("你好", "我睡不好", "多久了？", "一年", first="counsellor").turns
    hashes = beginnings(turns)
    assert opening(turns, hashes) == hashes[2]
    assert opening(turns[:2], hashes[:2]) == hashes[1]


def test_the_draw_has_the_share_that_was_asked_for():
    drawn = sum(is_test(bytes([a, b]), seed=5, share=0.1) for a in range(100) for b in range(100))
    assert 900 < drawn < 1100  # 10,000 draws of 0.1: 30 is one standard deviation
    assert not is_test(b"x", seed=5, share=0.0)


def test_a_broken_file_leaves_no_folder(tmp_path, encoder):
    path = tmp_path / "a.json"
    release(path, 10)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(SourceRefused, match=r"a\.json: it cannot be read beyond entry 10"):
        run(encoder, tmp_path / "out", path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json"]


def test_a_folder_that_is_there_is_left_alone(tmp_path, encoder):
    path = release(tmp_path / "a.json", 5)
    before = run(encoder, tmp_path / "out", path)
    with pytest.raises(FolderTaken):
        run(encoder, tmp_path / "out", path, seed=9)
    assert json.loads((tmp_path / "out" / "corpus.json").read_text()) == before


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, encoder):
    path = jsonl(tmp_path / "rows.jsonl", [dialogue(*talk(i), key=str(i)).to_row() for i in range(5)])

    def append(_dialogues, _samples):
        with path.open("a") as file:
            file.write("\n")

    with pytest.raises(SourceRefused, match="changed while it was read"):
        prepare([Source(path, "rows")], tmp_path / "out", encoder=encoder, plan=Plan(LIMITS), on_progress=append)


def test_a_corpus_without_samples_says_where_they_went(tmp_path, encoder):
    path = soulchat(tmp_path / "a.json", [{"id": 1, "topic": "", "messages": messages("在吗")}])
    with pytest.raises(
        CorpusError, match="No sample is left to train on; dialogues read: 1, dialogues without samples: 1"
    ):
        run(encoder, tmp_path / "out", path)


def test_a_share_is_below_one():
    with pytest.raises(CorpusError, match="at least 0 and below 1"):
        Plan(LIMITS, test_share=1.0)


def test_rows_of_ours_are_read_back_as_they_were(tmp_path):
    whole, open_end = dialogue(key="1", topic="情绪"), dialogue(*TALK[:5], key="2")
    path = jsonl(tmp_path / "rows.jsonl", [whole.to_row(), open_end.to_row()])
    found = list(read_dialogues(Source(path, path.name), Reading()))
    assert [d._replace(place=whole.place) for d in found] == [whole, open_end]


@pytest.mark.parametrize("name", ["no.jsonl", "release.json"])
def test_held_out_items_come_in_a_file_of_items(tmp_path, name):
    release(tmp_path / "release.json", 2)
    with pytest.raises(SourceRefused, match="no file of items"):
        hashes_of_items(Source(tmp_path / name, name))


def test_the_folder_tells_what_it_learns_from(tmp_path, encoder):
    """Every reply of a training dialogue, and none of the test's."""
    out = tmp_path / "out"
    run(encoder, out, release(tmp_path / "a.json", 40))
    of_test = hashes_of_items(Source(out / "test.jsonl", "test.jsonl"))
    replies = {beginnings(dialogue(*talk(i)).turns)[index] for i in range(40) for index in (1, 3, 5)}
    assert of_test < replies and len(replies) == 120
    assert learnt_among(out, replies) == replies - of_test
    assert learnt_among(out, {item_hash([Turn("client", "别的话")])}) == set()


def test_a_folder_that_cannot_tell_what_it_learns_from_is_refused(tmp_path, encoder):
    out = tmp_path / "out"
    run(encoder, out, release(tmp_path / "a.json", 4), test_share=0.0)
    data = (out / BEGINNINGS).read_bytes()
    (out / BEGINNINGS).write_bytes(data[:-16])
    with pytest.raises(StoreBroken, match=r"beginnings\.bin was changed"):
        learnt_among(out, set())
    (out / BEGINNINGS).unlink()
    with pytest.raises(StoreBroken, match="cannot be read"):
        learnt_among(out, set())
    card = json.loads((out / CARD).read_text())
    del card["beginnings"]
    (out / CARD).write_text(json.dumps(card))
    with pytest.raises(CorpusError, match="does not tell which dialogues it learns from"):
        learnt_among(out, set())
