"""Prompts: the layouts of each family, cuts that take the oldest turns, responses without what is echoed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from models_runtime.engine.errors import ContextTooLong, EmptyDialogue
from models_runtime.engine.prompts import (
    DEFAULT_TEMPLATES,
    TEMPLATES,
    BadTemplate,
    Template,
    Turn,
    build_prompt,
    chat_messages,
    prompt_text,
    response_text,
)

HELLO = Turn("client", "我睡不着。")
REPLY = Turn("counsellor", "多久了？")
AGAIN = Turn("client", "两个星期。")
DIALOGUE = [HELLO, REPLY, AGAIN]


def by_character(text: str) -> list[int]:
    return [ord(character) for character in text]


def by_message(messages: list[dict[str, str]]) -> list[int]:
    return by_character("".join(f"<{message['role']}>{message['content']}" for message in messages))


def prompt(template: str | Template, turns, max_tokens=10_000):
    chosen = TEMPLATES[template] if isinstance(template, str) else template
    return build_prompt(chosen, turns, encode=by_character, encode_chat=by_message, max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        ("soulchat", [HELLO], "用户：我睡不着。\n心理咨询师："),
        ("soulchat", DIALOGUE, "用户：我睡不着。\n心理咨询师：多久了？\n用户：两个星期。\n心理咨询师："),
        ("chatglm-rounds", [HELLO], "我睡不着。"),
        ("chatglm-rounds", DIALOGUE, "[Round 0]\n问：我睡不着。\n答：多久了？\n[Round 1]\n问：两个星期。\n答："),
        ("chatglm2-rounds", [HELLO], "[Round 1]\n\n问：我睡不着。\n\n答："),
        (
            "chatglm2-rounds",
            DIALOGUE,
            "[Round 1]\n\n问：我睡不着。\n\n答：多久了？\n\n[Round 2]\n\n问：两个星期。\n\n答：",
        ),
        ("mechat-2023", DIALOGUE, "Input: 求助者：我睡不着。支持者：多久了？求助者：两个星期。支持者：\n"),
    ],
)
def test_each_family_gets_the_prompt_it_was_trained_on(template, turns, expected):
    assert prompt_text(TEMPLATES[template], turns) == expected


def test_the_second_mechat_gets_an_instruction_and_lines_in_one_round():
    template = replace(TEMPLATES["mechat-2"], instruction="请回复。\n\n对话：\n")
    lines = "请回复。\n\n对话：\n来访者：我睡不着。\n咨询师：多久了？\n来访者：两个星期。\n咨询师："
    assert prompt_text(template, DIALOGUE) == f"[Round 1]\n\n问：{lines}\n\n答："
    assert prompt_text(replace(template, layout="lines"), DIALOGUE) == lines


def test_a_chat_model_gets_messages():
    assert chat_messages(TEMPLATES["chat-bare"], [HELLO, HELLO, REPLY, AGAIN]) == [
        {"role": "user", "content": "我睡不着。\n我睡不着。"},
        {"role": "assistant", "content": "多久了？"},
        {"role": "user", "content": "两个星期。"},
    ]
    assert chat_messages(replace(TEMPLATES["chat"], instruction="你好"), [HELLO])[0] == {
        "role": "system",
        "content": "你好",
    }


def test_neighbouring_turns_of_one_speaker_make_one_round():
    text = prompt_text(TEMPLATES["chatglm-rounds"], [HELLO, AGAIN, REPLY, REPLY, HELLO])
    assert text == "[Round 0]\n问：我睡不着。\n两个星期。\n答：多久了？\n多久了？\n[Round 1]\n问：我睡不着。\n答："


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("n_rounds", [0, 1, 5, 19])
def test_a_long_history_loses_its_oldest_turns_and_no_more_than_needed(template, n_rounds):
    turns = [turn for i in range(n_rounds) for turn in (Turn("client", f"问{i}" * 9), Turn("counsellor", f"答{i}" * 7))]
    turns.append(Turn("client", "最新的一句"))
    whole = prompt(template, turns)
    newest = len(prompt(template, turns[-1:]).ids)
    for limit in range(newest, len(whole.ids) + 1, 17):
        found = prompt(template, turns, limit)
        assert found.n_turns + found.n_turns_cut == len(turns)
        assert found.ids == prompt(template, turns[found.n_turns_cut :]).ids
        assert len(found.ids) <= limit
        assert turns[found.n_turns_cut].role == "client"
        if found.n_turns_cut:
            assert len(prompt(template, turns[found.n_turns_cut - 2 :]).ids) > limit
    assert prompt(template, turns, len(whole.ids)).n_turns_cut == 0


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_newest_turn_that_does_not_fit_is_never_cut(template):
    turns = [HELLO, REPLY, Turn("client", "长" * 500)]
    with pytest.raises(ContextTooLong, match="may have 300"):
        prompt(template, turns, 300)


@pytest.mark.parametrize(
    ("turns", "named"),
    [
        ([], "no turns"),
        ([HELLO, REPLY], "last turn"),
        ([Turn("client", " \n")], "Turn 1"),
        ([HELLO, Turn("therapist", "x"), AGAIN], "therapist"),
    ],
)
def test_a_dialogue_with_nothing_to_answer_is_refused(turns, named):
    with pytest.raises(EmptyDialogue, match=named):
        prompt("soulchat", turns)


@pytest.mark.parametrize(
    ("template", "written", "response"),
    [
        ("soulchat", " 心理咨询师：听起来很累。\n", "听起来很累。"),
        ("soulchat", "心理咨询师:听起来很累。", "听起来很累。"),
        ("soulchat", "我是心理咨询师：很高兴", "我是心理咨询师：很高兴"),
        ("mechat-2023", "听起来很累。\nEND\n求助者：是", "听起来很累。"),
        ("chat", "<think>他很累。</think>\n\n听起来很累。", "听起来很累。"),
        ("chat", "<think>他很累，我该", ""),
        ("chatglm-rounds", "答：好", "答：好"),
        ("soulchat", "   ", ""),
    ],
)
def test_what_is_echoed_is_no_part_of_the_response(template, written, response):
    assert response_text(TEMPLATES[template], written) == response


def test_an_edited_template_is_another_version_and_a_renamed_one_is_not():
    mechat = TEMPLATES["mechat-2"]
    assert replace(mechat, instruction="别的").version != mechat.version
    assert replace(mechat, id="mine").version == mechat.version
    assert len({template.version for template in TEMPLATES.values()}) == len(TEMPLATES)
    assert set(DEFAULT_TEMPLATES.values()) <= set(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.id)
def test_a_template_goes_to_json_and_back(template):
    assert Template.from_json(json.loads(json.dumps(template.to_json()))) == template


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "JSON object"),
        ({"layout": "lines"}, "id"),
        ({"id": "x", "layout": "verse"}, "verse"),
        ({"id": "x", "layout": "lines"}, "labels"),
        ({"id": "x", "layout": "chat", "instructions": "y"}, "instructions"),
        ({"id": "x", "layout": "chat", "instruction": 3}, "text"),
        ({"id": "x", "layout": "chat", "cut_at": "END"}, "cut_at"),
        ({"id": "x", "layout": "chat", "cut_at": [""]}, "cut_at"),
    ],
)
def test_a_broken_template_is_named(data, named):
    with pytest.raises(BadTemplate, match=named):
        Template.from_json(data)
