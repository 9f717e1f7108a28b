"""Cleaning finds what it names, leaves ordinary talk alone, and hands doubts to a person."""

from __future__ import annotations

import json

import numpy as np
import pytest

from annotation.formats.dialogues import Turn
from annotation.formats.source import Source
from tests.training.corpora import TALK, chatglm_encoder, dialogue, jsonl
from training.corpus import duplicates
from training.corpus.cleaning import BadRules, Cleaner, Review, Rules, find, is_id_number, personal_data, read_review
from training.corpus.errors import CorpusError
from training.corpus.prepare import Plan, prepare
from training.corpus.samples import Limits
from training.corpus.split import item_hash

LIMITS = Limits(2000, 500)


def found(text):
    return [(kind, text[start:end]) for kind, start, end in personal_data(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("打给我13912345678吧", [("phone", "13912345678")]),
        ("电话：１３９ １２３４ ５６７８", [("phone", "１３９ １２３４ ５６７８")]),
        ("+86-139-1234-5678", [("phone", "139-1234-5678")]),
        ("办公室020-87654321", [("phone", "020-87654321")]),
        # The example of GB 11643-1999, and the same with a digit changed.
        ("身份证11010519491231002X。", [("id_number", "11010519491231002X")]),
        ("身份证110105194912310021", []),
        ("写信到 some.one@example.com.cn 吧", [("email", "some.one@example.com.cn")]),
        ("加我微信：abc_12345", [("wechat", "abc_12345")]),
        ("我的VX是abcdef1", [("wechat", "abcdef1")]),
        ("QQ号 12345678", [("qq", "12345678")]),
        ("扣扣：99887766", [("qq", "99887766")]),
        ("我叫张小华，今年高三", [("name", "张小华")]),
        ("你好，我是欧阳明月。", [("name", "欧阳明月")]),
        ("我的名字叫高远", [("name", "高远")]),
    ],
)
def test_it_finds_personal_data(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "我是高中生，压力很大。",
        "我是一个人来的",
        "我是独生女。",
        "我叫他别走，他不听",
        "我是王老师的学生",
        "我是马上要毕业的人",
        "我是张老师。",
        "从2019年到2023年，一共1500元，考了139分",
        "圆周率3.1415926535897932384",
        "订单号139123456789012",
        "在微信上聊了很久，微信 ok 的",
        "我在微信wechat上加了他",
        "每天3-4小时，2020-2021年",
        "我是许多人眼里的乖孩子",
        "@所有人 注意",
    ],
)
def test_ordinary_talk_is_left_alone(text):
    assert found(text) == []


def test_the_check_digit_of_an_identity_number_counts():
    """ISO 7064 MOD 11-2: of the eleven check digits exactly one fits, and a change of any digit is noticed."""
    body = "44010619900230123"
    assert not any(is_id_number(body + digit) for digit in "0123456789X")  # there is no 30 February
    body = "44010619900228123"
    right = [body + digit for digit in "0123456789X" if is_id_number(body + digit)]
    assert len(right) == 1
    for position in range(17):
        other = right[0][:position] + str((int(right[0][position]) + 1) % 10) + right[0][position + 1 :]
        assert not is_id_number(other)


def test_the_hardest_action_decides():
    rules = Rules(strings={"难过": "review", "绝望": "remove"}, personal={"phone": "mask"})
    verdicts = {
        text: Cleaner(rules).decide(dialogue(text, "我在听。")).verdict
        for text in ("还好", "有点难过", "难过，绝望", "号码13912345678", "难过，13912345678")
    }
    assert list(verdicts.values()) == ["keep", "undecided", "remove", "keep", "undecided"]


def test_masked_places_say_what_stood_there():
    rules = Rules(strings={"单位": "mask"}, personal={"phone": "mask", "email": "mask", "name": "mask"})
    talk = dialogue("我叫张小华，电话13912345678或a@b.cn，单位在城东", "好的，13912345678，我记下了。")
    kept = Cleaner(rules).decide(talk).dialogue
    assert [turn.text for turn in kept.turns] == [
        "我叫（姓名），电话（电话）或（邮箱），（略）在城东",
        "好的，（电话），我记下了。",
    ]


def test_every_place_is_named():
    hits = find(dialogue("自杀，自杀", "13912345678").turns, Rules())
    assert [(hit.rule, hit.turn, hit.start, hit.end) for hit in hits] == [
        ("string:自杀", 0, 0, 2),
        ("string:自杀", 0, 3, 5),
        ("phone", 1, 0, 11),
    ]


def test_counts_are_of_dialogues_and_of_each_rule():
    cleaner = Cleaner(Rules())
    for texts in (TALK, ("想自杀，跳楼", "我在"), ("我叫李雷。", "你好"), ("13912345678", "好")):
        cleaner.decide(dialogue(*texts))
    assert cleaner.counts == {
        "n_dialogues_keep": 1,
        "n_dialogues_remove": 2,
        "n_dialogues_undecided": 1,
        "n_remove_string:自杀": 1,
        "n_remove_string:跳楼": 1,
        "n_remove_phone": 1,
        "n_review_name": 1,
    }


# --- Near duplicates --------------------------------------------------------------------------------------


def signatures(*texts):
    return duplicates.stacked(duplicates.signature([Turn("client", text)]) for text in texts)


def test_the_estimated_overlap_is_that_of_the_sets():
    """Against the exact Jaccard index of the shingles; 64 hashes have a standard error of at most 0.0625."""
    rng = np.random.default_rng(0)
    alphabet = [chr(point) for point in range(0x4E00, 0x4E00 + 3000)]
    errors = []
    for share in (0.1, 0.5, 0.8, 0.95, 1.0):
        for _ in range(20):
            text = "".join(rng.choice(alphabet, 400))
            cut = int(400 * share)
            other = text[:cut] + "".join(rng.choice(alphabet, 400 - cut))
            a, b = (set(duplicates.shingles([Turn("client", t)]).tolist()) for t in (text, other))
            one, two = signatures(text, other)
            errors.append(duplicates.overlap(one, two) - len(a & b) / len(a | b))
    assert abs(np.mean(errors)) < 0.02
    assert np.sqrt(np.mean(np.square(errors))) < 0.0625


def test_the_first_of_near_duplicates_stays():
    text = "".join(TALK) * 2
    rows = signatures(
        text, "别的话，说的是另一件事情，与前面毫无关系", text + "嗯嗯。", text.replace("，", "。"), "在吗"
    )
    assert duplicates.copies(rows, 0.8) == [2, 3]


def test_a_copy_of_one_that_went_is_compared_with_those_that_stay():
    """Each is close to its neighbour and the ends are not alike: only what is close to one that stays may go."""
    alphabet = [chr(point) for point in range(0x4E00, 0x4E00 + 1000)]
    text = "".join(alphabet)
    rows = signatures(*(text[start : start + 600] for start in range(0, 300, 60)))
    gone = duplicates.copies(rows, 0.7)
    assert gone and 0 not in gone
    stay = [row for row in range(5) if row not in gone]
    for row in gone:
        assert any(duplicates.overlap(rows[row], rows[other]) >= 0.7 for other in stay)


def test_texts_without_letters_have_a_signature():
    assert (signatures("……", "。") == duplicates.ABSENT).all()
    assert len(duplicates.shingles([Turn("client", "短")])) == 1


# --- Rules and review -------------------------------------------------------------------------------------


def test_rules_survive_json_and_change_their_digest():
    rules = Rules.from_json({"strings": {"我是": "review"}, "personal": {"phone": "mask"}})
    assert Rules.from_json(json.loads(json.dumps(rules.to_json()))) == rules
    assert (rules.personal["phone"], rules.personal["email"]) == ("mask", "remove")
    assert rules.digest != Rules().digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "JSON object"),
        ({"string": {}}, "JSON object with"),
        ({"strings": ["自杀"]}, "strings must be an object"),
        ({"strings": {"": "remove"}}, "empty entry"),
        ({"strings": {"自杀": "delete"}}, "'delete' is no action"),
        ({"personal": {"passport": "remove"}}, "no passport"),
        ({"near_duplicate": 0.2}, "from 0.5 to 1"),
        ({"near_duplicate": True}, "from 0.5 to 1"),
    ],
)
def test_bad_rules_are_named(data, message):
    with pytest.raises(BadRules, match=message):
        Rules.from_json(data)


def corpus(tmp_path):
    texts = {
        "1": TALK,
        "2": ("我叫李雷，睡不着", "慢慢说"),
        "3": ("想自杀", "我在"),
        "4": ("我叫韩梅，也睡不着", "我在听"),
    }
    return jsonl(tmp_path / "rows.jsonl", [dialogue(*talk, key=key).to_row() for key, talk in texts.items()])


def run(path, out, **plan):
    plan = Plan(**{"limits": LIMITS, "test_share": 0.0, "rules": Rules(), **plan})
    return prepare([Source(path, path.name)], out, encoder=chatglm_encoder(), plan=plan)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_held_back_is_written_with_its_reason(tmp_path):
    card = run(corpus(tmp_path), tmp_path / "out")
    queue, removed = lines(tmp_path / "out" / "review.jsonl"), lines(tmp_path / "out" / "removed.jsonl")
    assert [(entry["verdict"], entry["dialogue"]["key"], entry["why"]) for entry in queue] == [
        ("undecided", "2", [{"rule": "name", "turn": 1, "found": "李雷"}]),
        ("undecided", "4", [{"rule": "name", "turn": 1, "found": "韩梅"}]),
    ]
    assert [(entry["key"], entry["why"]) for entry in removed] == [("3", [{"rule": "string:自杀", "turn": 1}])]
    assert "想自杀" not in (tmp_path / "out" / "removed.jsonl").read_text()
    assert (card["train"]["n_dialogues"], card["counts"]["n_dialogues_cleaned_out"]) == (1, 3)
    assert card["cleaning"]["counts"]["n_dialogues_undecided"] == 2


def test_a_persons_verdicts_are_followed_and_mended_turns_are_learnt(tmp_path):
    path = corpus(tmp_path)
    run(path, tmp_path / "first")
    first, second = lines(tmp_path / "first" / "review.jsonl")
    first["verdict"] = "keep"
    first["dialogue"]["turns"][0]["content"] = "睡不着\u2028"  # a line break to some, and no line of the file
    second["verdict"] = "remove"
    review = read_review(jsonl(tmp_path / "review.jsonl", [first, second]))
    card = run(path, tmp_path / "second", review=review)
    assert card["train"]["n_dialogues"] == 2
    counts = card["cleaning"]["counts"]
    assert (counts["n_mended_by_person"], counts["n_removed_by_person"], counts["n_dialogues_remove"]) == (1, 1, 2)
    assert lines(tmp_path / "second" / "review.jsonl") == []
    expected = jsonl(tmp_path / "plain.jsonl", [dialogue().to_row(), dialogue("睡不着", "慢慢说", key="2").to_row()])
    plain = run(expected, tmp_path / "third", rules=None)
    assert plain["train"]["content_hash"] == card["train"]["content_hash"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "yes"}, "line 1: verdict is 'yes'"),
        ({"verdict": "keep", "dialogue": {"turns": 3}}, "line 1: the dialogue has turns"),
        ({"verdict": "keep", "dialogue": None}, "line 1: the dialogue has turns"),
    ],
)
def test_a_bad_verdict_names_its_line(tmp_path, change, message):
    entry = {"name": "0", "verdict": "keep", "dialogue": dialogue().to_row()}
    with pytest.raises(CorpusError, match=message):
        read_review(jsonl(tmp_path / "review.jsonl", [entry | change]))
    (tmp_path / "review.jsonl").write_text('{"name": 1}\n')
    with pytest.raises(CorpusError, match="line 1 is no line of the queue"):
        read_review(tmp_path / "review.jsonl")


def test_near_duplicates_go_and_items_of_one_dialogue_do_not(tmp_path):
    text = tuple(text * 3 for text in TALK)
    rows = [
        dialogue(*text, key="1").to_row(),
        dialogue(*text[:-1], text[-1] + "好吗？", key="2").to_row(),
        *({**dialogue(*text[:n], key=f"x#{n}").to_row(), "dialogue": "x"} for n in (2, 4)),
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    card = run(path, tmp_path / "out")
    assert card["cleaning"]["counts"] == {
        "n_dialogues_keep": 3,
        "n_dialogues_remove": 1,
        "n_remove_near_duplicate": 1,
    }
    assert lines(tmp_path / "out" / "removed.jsonl")[0]["key"] == "2"
    assert run(path, tmp_path / "all", rules=Rules(near_duplicate=None))["train"]["n_dialogues"] == 4


def test_a_mask_hides_no_held_out_item_and_moves_nothing_to_the_other_part(tmp_path):
    talks = {str(n): (f"第{n}次打13912345678", "嗯，我听着", "好", "好") for n in range(30)}
    path = jsonl(tmp_path / "rows.jsonl", [dialogue(*talk, key=key).to_row() for key, talk in talks.items()])
    rules = Rules(personal={"phone": "mask"}, near_duplicate=None)
    held_out = frozenset({item_hash(dialogue(*talks["7"]).turns[:1], talks["7"][1])})
    card = run(path, tmp_path / "out", rules=rules, held_out=held_out)
    assert card["named"]["n_held_out_dialogues"] == ["rows.jsonl: 7"]
    parts = [run(path, tmp_path / f"{n}", rules=r, test_share=0.3) for n, r in enumerate((rules, None))]
    assert parts[0]["test"]["n_dialogues"] == parts[1]["test"]["n_dialogues"] > 0
    names = [{row["dialogue"] for row in lines(tmp_path / f"{n}" / "test.jsonl")} for n in range(2)]
    assert names[0] == names[1]
    assert "（电话）" in (tmp_path / "0" / "test.jsonl").read_text()


def test_without_a_review_nothing_is_decided():
    assert Cleaner(Rules(), Review()).decide(dialogue("我叫李雷。", "好")).verdict == "undecided"
