"""A rater sees a letter and a clean text, and neither tells who wrote it."""

import json
import time
import uuid
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from annotation.design.blinding import BlindedResponse, arm_codes, normalise_text, slot_letter


def test_slots_wear_letters_in_order():
    assert [slot_letter(index) for index in range(4)] == ["A", "B", "C", "D"]


@pytest.mark.parametrize("index", [-1, 26])
def test_a_slot_beyond_the_alphabet_has_no_letter(index):
    with pytest.raises(ValueError, match="has no letter"):
        slot_letter(index)


def test_arm_codes_are_uniform_and_know_nothing_of_the_order_of_creation():
    rng = np.random.default_rng(1)
    counts = np.zeros((4, 4))
    for _ in range(4000):
        for system, arm in enumerate(arm_codes(4, rng)):
            counts[system, "ABCD".index(arm)] += 1
    assert (counts.sum(axis=1) == 4000).all()
    assert stats.chi2_contingency(counts).pvalue > 0.001


@pytest.mark.parametrize("n_systems", [0, 27])
def test_arm_codes_need_one_letter_per_system(n_systems):
    with pytest.raises(ValueError, match="there are letters for"):
        arm_codes(n_systems, np.random.default_rng(0))


def a_response(**changes) -> BlindedResponse:
    values = {"public_id": str(uuid.uuid4()), "slot": "A", "text": "我在听。", "turns": (("client", "我很累。"),)}
    return BlindedResponse(**(values | changes))


def test_a_blinded_response_holds_the_allow_list_and_nothing_else():
    response = a_response()
    assert [field.name for field in fields(response)] == ["public_id", "slot", "text", "turns"]
    assert json.loads(json.dumps(response.to_json())) == {
        "public_id": response.public_id,
        "slot": "A",
        "text": "我在听。",
        "turns": [{"role": "client", "text": "我很累。"}],
    }
    with pytest.raises((AttributeError, TypeError, FrozenInstanceError)):
        response.system = "SoulChat"


@pytest.mark.parametrize(
    "changes", [{"public_id": str(uuid.uuid1())}, {"public_id": "17"}, {"slot": "SoulChat"}, {"slot": ""}]
)
def test_an_id_that_tells_a_time_or_a_slot_that_is_no_letter_is_refused(changes):
    with pytest.raises(ValueError):
        a_response(**changes)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  我在听。 \n", "我在听。"),
        ("好好休息。<|im_end|>", "好好休息。"),
        ("<s> 我懂。</s>", "我懂。"),
        ("[gMASK]<sop>慢慢来。<eop>", "慢慢来。"),
        ("慢慢来。<｜end▁of▁sentence｜>", "慢慢来。"),
        ("<|im_start|>assistant\n我懂。<|im_end|>\n<|endoftext|>", "我懂。"),
        ("<reserved_107>先喝口水。", "先喝口水。"),
        ("<think>用户很难过。</think>\n\n我听到了你的难过。", "我听到了你的难过。"),
        ("用户很难过，我该安慰。</think>我听到了。", "我听到了。"),
        ("<think>一<think>二</think>三</think>我在。", "我在。"),
        ("我在。<think>还要说什么？</think>你慢慢说。", "我在。你慢慢说。"),
        ("心理咨询师：你好。", "你好。"),
        ("咨询师: 你好。", "你好。"),
        ("支持者：咨询师：你好。", "你好。"),
        ("Counselor: I hear you.", "I hear you."),
        ("**Counsellor:** I hear you.", "I hear you."),
        ("他对咨询师：你好，这样说过。", "他对咨询师：你好，这样说过。"),
        ("咨询师也会累。", "咨询师也会累。"),
        ("Assistant teachers are tired too.", "Assistant teachers are tired too."),
        ("一\r\n二\r三\u2028四", "一\n二\n三\n四"),
        ("一  \n\n\n\n二\t\n三", "一\n\n二\n三"),
        ("e\u0301te\u0301", "été"),
        ("你\u200b好\ufeff\u202e啊\u2066\x00\x1b", "你好啊"),
        ("加油👩\u200d⚕\ufe0f和👨\u200d👩\u200d👧", "加油👩\u200d⚕\ufe0f和👨\u200d👩\u200d👧"),
        ("你\u200d好", "你好"),
        ("a < b > c，3 [元]", "a < b > c，3 [元]"),
        ("<|im_<s>end|>好", "好"),
        ("", ""),
        ("咨询师：", ""),
    ],
)
def test_every_system_is_cleaned_in_the_same_way(raw, clean):
    assert normalise_text(raw).text == clean


def test_it_names_what_it_changed():
    assert normalise_text("我在听。").changes == ()
    assert normalise_text("<think>嗯</think>咨询师：好\u200b。 ").changes == (
        "characters",
        "reasoning",
        "role_prefix",
        "blanks",
    )
    assert normalise_text("好。</s>").changes == ("special_tokens",)


def test_reasoning_that_never_ends_keeps_its_text_and_is_reported():
    result = normalise_text("<think>她很难过，我应该")
    assert result.text == "她很难过，我应该"
    assert result.changes == ("unclosed_reasoning",)


PIECES = (
    *("<think>", "</think>", "<th", "ink>", "</s>", "<s", ">", "<|im_", "end|>", "[gMASK]", "[", "]", "<", "\u0338"),
    *("咨询师：", "assistant\n", "Counselor: ", "\r", "\n", "\n\n", " ", "\u3000", "\u200d", "👩", "\ufe0f", "\u200b"),
    *("e", "\u0301", "好", "｜", "\x00", "\u202e", "\ud800", "\u1100", "\u1161"),
)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
def test_twice_is_the_same_as_once(raw):
    once = normalise_text(raw)
    assert normalise_text(once.text) == type(once)(once.text, ())
    once.text.encode()  # whatever came in, a page can send it


@pytest.mark.parametrize("unit", ["<s", "<think>", "</think>", " ", "\n", "<|", "]", "咨询师：", "<th<think>"])
def test_hostile_text_takes_time_that_grows_with_its_length(unit):
    raw = unit * (50_000 // len(unit)) + "x" + ">" * 50_000
    start = time.perf_counter()
    normalise_text(raw)
    assert time.perf_counter() - start < 5  # seconds for 100,000 characters, on a slow and shared machine
