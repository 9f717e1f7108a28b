"""From a dialogue to the prompt that each family of models was trained on, and from its text to the response.

Too long a dialogue loses its oldest turns, never the newest: what the client said last, and the cue that asks for the
answer, are the question. (The tokenizers themselves would cut the end.) Who speaks keeps alternating: a cut history
begins with a client's turn.

Labels such as 用户 are facts about how a model was trained. Wording longer than a label (`instruction`) is ours; where
parity with a published run matters, it is replaced by the published wording. A template's version is a digest of its
content, so an edited template is another one.

Sources: the labels and layouts are those of scutcyr/SoulChat (soulchat_app.py), THUDM/ChatGLM-6B and ChatGLM2-6B
(modeling_chatglm.py) and qiuhuachuan/smile (MeChat.py, and its state of June 2023 for the first generation).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

from models_runtime.engine.errors import ContextTooLong, EmptyDialogue, PromptRefused
from models_runtime.engine.spec import digest_of

Role = Literal["client", "counsellor"]
Layout = Literal["lines", "rounds_from_0", "rounds_from_1", "lines_in_round", "chat"]
Message = dict[str, str]
Encode = Callable[[str], list[int]]
EncodeChat = Callable[[list[Message]], list[int]]


HALF_CHARACTER = re.compile("[\\ud800-\\udfff]")  # of an emoji cut in two: JSON can hold it, UTF-8 cannot


class Turn(NamedTuple):
    """One turn of a dialogue."""

    role: Role
    text: str


class BadTemplate(ValueError):
    """A template lacks a field, or has one that is unknown or of the wrong type; the message names it."""


@dataclass(frozen=True)
class Template:
    """How a dialogue becomes a prompt.

    layout: "lines": label and text of each turn, `separator` between, then the counsellor's label as the cue;
        "rounds_from_0", "rounds_from_1": the question-and-answer rounds of ChatGLM-6B and ChatGLM2-6B;
        "lines_in_round": lines, and all of it as the question of one ChatGLM2 round;
        "chat": messages for the tokenizer's own chat template, `instruction` as the system message.
    instruction: what stands before the dialogue.  closing: what stands after the cue.
    cut_at: the response ends before the first of these, wherever it stands; for text that a model writes on into.
    hides_thinking: what stands up to </think> is not part of the response.
    """

    id: str
    layout: Layout
    client: str = ""
    counsellor: str = ""
    separator: str = "\n"
    instruction: str = ""
    closing: str = ""
    cut_at: tuple[str, ...] = ()
    hides_thinking: bool = False

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise BadTemplate(f"layout is {self.layout!r}; it can be {', '.join(get_args(Layout))}")
        object.__setattr__(self, "cut_at", tuple(self.cut_at))
        texts = [getattr(self, n) for n in ("id", "client", "counsellor", "separator", "instruction", "closing")]
        if not all(isinstance(text, str) for text in (*texts, *self.cut_at)):
            raise BadTemplate("id, labels, separator, instruction, closing and the marks of cut_at must be text")
        if not self.id or not all(self.cut_at):
            raise BadTemplate("id and the marks of cut_at must not be empty")
        if self.layout in ("lines", "lines_in_round") and not (self.client and self.counsellor):
            raise BadTemplate(f"the layout {self.layout} needs the labels of client and counsellor")

    @property
    def version(self) -> str:
        """The first 12 digits of the digest of everything but the id."""
        content = self.to_json()
        del content["id"]
        return digest_of({"template": 1, **content})[:12]

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "cut_at": list(self.cut_at)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises BadTemplate if a field is missing, unknown or of the wrong type."""
        if not isinstance(data, dict):
            raise BadTemplate("a template must be a JSON object")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise BadTemplate(f"a template has no {', '.join(unknown)}; it has {', '.join(known)}")
        if missing := [name for name in ("id", "layout") if name not in data]:
            raise BadTemplate(f"the template lacks {' and '.join(missing)}")
        if not isinstance(data.get("cut_at", []), list) or not isinstance(data.get("hides_thinking", False), bool):
            raise BadTemplate("cut_at must be a list of texts, hides_thinking true or false")
        return cls(**data)


# Ours. The published wording of MeChat is another one and part of that model: paste it for exact parity.
COUNSELLOR_INSTRUCTION = (
    "你是一位受过专业训练的心理咨询师，熟悉认知行为、动机访谈和焦点解决等取向。请先理解来访者此刻的感受，再温和、"
    "具体地回应：不评判，不说教，语言自然，长短适中，必要时用一个开放的问题邀请对方多说一些。"
)
MECHAT_INSTRUCTION = COUNSELLOR_INSTRUCTION + "下面是一段咨询对话，请写出咨询师接下来的一次回复。\n\n对话：\n"

TEMPLATES: Mapping[str, Template] = {
    template.id: template
    for template in (
        Template("soulchat", "lines", client="用户：", counsellor="心理咨询师："),
        Template("chatglm-rounds", "rounds_from_0"),
        Template("chatglm2-rounds", "rounds_from_1"),
        Template(
            "mechat-2023",
            "lines",
            client="求助者：",
            counsellor="支持者：",
            separator="",
            instruction="Input: ",
            closing="\n",
            cut_at=("\nEND",),
        ),
        Template(
            "mechat-2",
            "lines_in_round",
            client="来访者：",
            counsellor="咨询师：",
            instruction=MECHAT_INSTRUCTION,
        ),
        # As the second MeChat was trained, without the round that its published script adds.
        Template(
            "mechat-2-as-trained",
            "lines",
            client="来访者：",
            counsellor="咨询师：",
            instruction=MECHAT_INSTRUCTION,
        ),
        Template("chat", "chat", instruction=COUNSELLOR_INSTRUCTION, hides_thinking=True),
        Template("chat-bare", "chat", hides_thinking=True),
    )
}
DEFAULT_TEMPLATES: Mapping[str, str] = {"chatglm": "soulchat", "chatglm2": "mechat-2", "causal": "chat"}


@dataclass(frozen=True)
class Prompt:
    """Token ids, special tokens included, and how many of the oldest turns had to go to fit."""

    ids: tuple[int, ...]
    n_turns: int  # that are in it
    n_turns_cut: int


def prompt_text(template: Template, turns: Sequence[Turn]) -> str:
    """The prompt of any layout but "chat", before special tokens. The last turn is the client's."""
    if template.layout == "rounds_from_0":
        rounds = _rounds(turns)
        if len(rounds) == 1:
            return rounds[0][0]  # without a history the published code asks the bare question
        return _as_rounds(rounds, first=0, gap="\n")
    if template.layout == "rounds_from_1":
        return _as_rounds(_rounds(turns), first=1, gap="\n\n")
    labels = {"client": template.client, "counsellor": template.counsellor}
    lines = [*(labels[turn.role] + turn.text for turn in turns), template.counsellor]
    text = template.instruction + template.separator.join(lines) + template.closing
    return _as_rounds([(text, "")], first=1, gap="\n\n") if template.layout == "lines_in_round" else text


def _rounds(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    """Questions with their answers; neighbouring turns of one speaker become one, the last answer is still empty."""
    rounds: list[tuple[list[str], list[str]]] = []
    for turn in turns:
        if not rounds or (turn.role == "client" and rounds[-1][1]):
            rounds.append(([], []))
        rounds[-1][0 if turn.role == "client" else 1].append(turn.text)
    return [("\n".join(questions), "\n".join(answers)) for questions, answers in rounds]


def _as_rounds(rounds: Sequence[tuple[str, str]], *, first: int, gap: str) -> str:
    asked = [f"[Round {number}]{gap}问：{question}{gap}答：" for number, (question, _) in enumerate(rounds, first)]
    answered = [text + answer + gap for text, (_, answer) in zip(asked[:-1], rounds[:-1], strict=True)]
    return "".join([*answered, asked[-1]])


def chat_messages(template: Template, turns: Sequence[Turn]) -> list[Message]:
    """Messages for a tokenizer's chat template; neighbouring turns of one speaker become one message."""
    messages: list[Message] = []
    if template.instruction:
        messages.append({"role": "system", "content": template.instruction})
    for turn in turns:
        role = "user" if turn.role == "client" else "assistant"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n" + turn.text
        else:
            messages.append({"role": role, "content": turn.text})
    return messages


def build_prompt(
    template: Template,
    turns: Sequence[Turn],
    *,
    encode: Encode,
    encode_chat: EncodeChat,
    max_tokens: int,
) -> Prompt:
    """The prompt with as many of the newest turns as fit into max_tokens, special tokens included.

    encode, encode_chat: text or messages ► token ids with all special tokens.

    Raises EmptyDialogue if there is no turn, a turn is empty, or the last one is not the client's; PromptRefused if a
    turn is no text; ContextTooLong if even the newest turn alone does not fit.
    """
    if not turns:
        raise EmptyDialogue("The dialogue has no turns, so there is nothing to answer.")
    for number, turn in enumerate(turns, 1):
        if turn.role not in get_args(Role):
            raise EmptyDialogue(f"Turn {number} has the role {turn.role!r}; it can be client or counsellor.")
        if not turn.text.strip():
            raise EmptyDialogue(f"Turn {number} of the dialogue is empty.")
        if found := HALF_CHARACTER.search(turn.text):
            raise PromptRefused(f"Turn {number} holds half a character (U+{ord(found[0]):04X}); correct its text.")
    if turns[-1].role != "client":
        raise EmptyDialogue("The last turn is not the client's, so there is nothing to answer.")

    def ids_from(start: int) -> list[int]:
        kept = turns[start:]
        return (
            encode_chat(chat_messages(template, kept))
            if template.layout == "chat"
            else encode(prompt_text(template, kept))
        )

    starts = [i for i, turn in enumerate(turns) if i == 0 or turn.role == "client"]
    ids = ids_from(0)
    if len(ids) <= max_tokens:
        return Prompt(tuple(ids), len(turns), 0)
    newest = ids_from(starts[-1])
    if len(newest) > max_tokens:
        raise ContextTooLong(
            f"The newest turn alone makes a prompt of {len(newest)} tokens, and it may have {max_tokens}. "
            "Shorten the turn or the template's instruction, or raise max_input_tokens."
        )
    fits, best = len(starts) - 1, newest  # the earliest start that fits: fewer turns never make a longer prompt
    too_long = 0
    while fits - too_long > 1:
        middle = (fits + too_long) // 2
        ids = ids_from(starts[middle])
        if len(ids) <= max_tokens:
            fits, best = middle, ids
        else:
            too_long = middle
    return Prompt(tuple(best), len(turns) - starts[fits], starts[fits])


def response_text(template: Template, text: str) -> str:
    """The response in what a model wrote: without thinking, an echoed label, or what follows an end mark; trimmed."""
    if template.hides_thinking:
        text = "" if _is_still_thinking(text) else text.rpartition("</think>")[2]
    for mark in template.cut_at:
        text = text.partition(mark)[0]
    text = text.strip()
    for label in {template.counsellor, template.counsellor.replace("：", ":")} - {""}:
        text = text.removeprefix(label)
    return text.strip()


def _is_still_thinking(text: str) -> bool:
    return text.lstrip().startswith("<think>") and "</think>" not in text
