"""A question and its one long answer as a dialogue of many turns: what a model is asked, and what is accepted.

Two styles. "empathy" asks for what the four requirements in figure 2 of Chen et al. (2023), arXiv:2311.00273, ask for;
"plain" asks for a dialogue alone, as the approach compared there does (SMILE, Qiu et al. 2023, arXiv:2305.00450). The
wording of both is ours and can be replaced; what came out is told apart by the digest of style and checks.

Models write more than a dialogue: thoughts before it, a closing remark, bold labels, numbers. Reading is lenient about
that and strict about the dialogue itself; a text that is no such dialogue is refused for a named reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

from annotation.formats.dialogues import CLIENT, COUNSELLOR, Turn
from annotation.formats.strict import BadText, check_text, clean_text
from models_runtime.endpoints.values import Message
from models_runtime.engine.spec import digest_of
from training.corpus.errors import CorpusError


class Question(NamedTuple):
    """One question and its long answer; key is its name in the source."""

    key: str
    topic_label: str
    question: str
    answer: str


@dataclass(frozen=True)
class Style:
    """What a model is asked.

    client, counsellor: the labels of the two sides.
    instruction: holds {question} and {answer}, and may hold {client}, {counsellor}, {least} and {most} (rounds).
    """

    id: str
    client: str
    counsellor: str
    instruction: str

    def __post_init__(self) -> None:
        values = (self.id, self.client, self.counsellor, self.instruction)
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise CorpusError("A style needs id, client, counsellor and instruction, all of them text.")
        if self.client == self.counsellor:
            raise CorpusError(f"Both sides are called {self.client}; they need labels of their own.")
        for name in ("{question}", "{answer}"):
            if self.instruction.count(name) != 1:
                raise CorpusError(f"The instruction of a style must hold {name} once.")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises CorpusError if a field is missing, unknown or no text."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != known:
            raise CorpusError(f"A style is a JSON object with {', '.join(sorted(known))}.")
        return cls(**data)


EMPATHY = Style(
    id="empathy",
    client="用户",
    counsellor="心理咨询师",
    instruction="""\
你熟悉心理咨询，也擅长改写文字。下面有一位求助者的长段提问和一篇长回答，请据此写出一段来回交谈的咨询对话。

写作时请做到四点：
一、每次发言单独成段，以“{client}：”或“{counsellor}：”开头；第一句由{client}说，最后一句由{counsellor}说，双方轮流发言。
二、{counsellor}每次都要贴着{client}刚说的内容回应，并让对方感到被共情：倾听、安慰、理解、信任、肯定、真诚、情感上的支持。
三、一问一答算一轮，总共{least}到{most}轮，具体多少由内容决定。
四、每次发言顺着前文自然展开，口语化，不要太长；原文的信息分散到各轮里说，不要一次倒完。

【提问】
{question}

【回答】
{answer}

请先想一想提问的人需要什么、回答里用了哪些共情的方法，然后写出对话：
""",
)
PLAIN = Style(
    id="plain",
    client="求助者",
    counsellor="支持者",
    instruction="""\
请把下面这一问一答改写成{client}与{counsellor}之间的多轮对话。意思不变，可以补上自然的过渡。

格式：每次发言单独成段，以“{client}：”或“{counsellor}：”开头，{client}先说，{counsellor}最后说，轮流发言，共{least}到{most}轮
（一问一答为一轮）。

提问：
{question}

回答：
{answer}

对话：
""",
)
STYLES: Mapping[str, Style] = {style.id: style for style in (EMPATHY, PLAIN)}


@dataclass(frozen=True)
class Checks:
    """What a dialogue must be. rounds: of client and counsellor; characters: of one turn.

    The paper asks for 8 to 20 rounds; the dialogues of its public release have 5.9 in the mean, so a lower limit lets
    more through, and is a choice to be stated.
    """

    least_rounds: int = 8
    most_rounds: int = 20
    most_characters: int = 500

    def __post_init__(self) -> None:
        if not 1 <= self.least_rounds <= self.most_rounds or self.most_characters < 1:
            rounds = f"{self.least_rounds} to {self.most_rounds} rounds"
            raise CorpusError(f"{rounds} of at most {self.most_characters} characters cannot be met.")


class Refused(Exception):
    """The text is no dialogue as asked for; `reason` is a stable word that is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def digest(style: Style, checks: Checks) -> str:
    """The first 12 digits of a SHA-256 over all that decides what is asked and accepted."""
    return digest_of({"style": style.to_json(), "checks": dataclasses.asdict(checks)})[:12]


def messages(style: Style, checks: Checks, question: Question) -> list[Message]:
    """What a model is sent. Braces in the question and the answer stay as they are."""
    values = {
        "client": style.client,
        "counsellor": style.counsellor,
        "least": str(checks.least_rounds),
        "most": str(checks.most_rounds),
        "question": question.question,
        "answer": question.answer,
    }
    text = re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), style.instruction)
    return [Message("user", text)]


def read_dialogue(text: str, style: Style, checks: Checks) -> tuple[Turn, ...]:
    """The turns in what a model wrote. Raises Refused."""
    try:
        check_text(text.replace("\x00", ""))
    except BadText:
        raise Refused("broken_character") from None
    turns = _parse(text, style)
    if not turns:
        raise Refused("declined" if _DECLINES.search(text) and len(text) < MOST_OF_A_REFUSAL else "no_turns")
    if turns[0].role != CLIENT:
        raise Refused("starts_with_counsellor")
    if turns[-1].role != COUNSELLOR:
        raise Refused("ends_with_client")
    if any(one.role == other.role for one, other in pairwise(turns)):
        raise Refused("does_not_alternate")
    if not all(turn.text for turn in turns):
        raise Refused("empty_turn")
    n_rounds = len(turns) // 2
    if n_rounds < checks.least_rounds:
        raise Refused("too_few_rounds")
    if n_rounds > checks.most_rounds:
        raise Refused("too_many_rounds")
    if any(len(turn.text) > checks.most_characters for turn in turns):
        raise Refused("turn_too_long")
    if any(_REMAINS.search(turn.text) for turn in turns):
        raise Refused("placeholder")
    return turns


MOST_OF_A_REFUSAL = 400  # characters; more is an answer to something
_DECLINES = re.compile(
    r"抱歉|对不起|无法(?:完成|协助|提供|满足)|不能(?:完成|协助|提供|满足)|I'm sorry|I cannot|I can't"
)
_THOUGHTS = re.compile(r"^.*?</think>", re.DOTALL)
# Lines around and between turns that nobody says: rules, fences, headings, "(end of the dialogue)".
_NOT_SAID = re.compile(
    r"^\s*(?:[-=*_—]{3,}|```\w*|#{1,6}\s.*|[【\[（(](?:对话|改写|第).{0,20}[】\]）)]|第.{1,3}轮[:：]?)\s*$"
)
_REMAINS = re.compile(r"\{(?:question|answer|client|counsellor)\}|<(?:user|psy)_utt>|［?此处.{0,10}(?:省略|略)］?")


def _parse(text: str, style: Style) -> tuple[Turn, ...]:
    """Turns by their labels; what stands before the first one is dropped, other lines go on with the turn."""
    roles = {style.client: CLIENT, style.counsellor: COUNSELLOR}
    names = "|".join(sorted(map(re.escape, roles), key=len, reverse=True))
    label = re.compile(rf"^\s*(?:[-*•]\s+)?(?:\d{{1,3}}\s*[.、)）]\s*)?[*_【\[]*({names})[*_】\]]*\s*[:：][*_]*\s*")
    plain, _ = clean_text(_THOUGHTS.sub("", text))
    spoken: list[tuple[str, list[str]]] = []
    for line in plain.split("\n"):
        if found := label.match(line):
            spoken.append((roles[found[1]], [line[found.end() :]]))
        elif spoken and not _NOT_SAID.match(line):
            spoken[-1][1].append(line)
    return tuple(Turn(role, "\n".join(part.strip() for part in lines if part.strip())) for role, lines in spoken)
