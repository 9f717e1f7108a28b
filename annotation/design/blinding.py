"""What hides a system: slot letters for raters, arm codes for researchers, one text normalisation for all.

`BlindedResponse` is the allow-list of what a rater's page may hold.
"""

import re
import unicodedata
import uuid
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np


def slot_letter(index: int) -> str:
    """The letter a slot wears on the page: 0 is "A". Raises ValueError beyond "Z"."""
    if not 0 <= index < len(ascii_uppercase):
        raise ValueError(f"slot {index} has no letter; slots are 0 to {len(ascii_uppercase) - 1}")
    return ascii_uppercase[index]


def arm_codes(n_systems: int, rng: np.random.Generator) -> tuple[str, ...]:
    """The coded arm of each system until unblinding: a random permutation of "A", "B", …

    The generator is to be another one than that of the order, so that an arm says nothing about slots.

    Raises ValueError if there are more systems than letters, or none.
    """
    if not 1 <= n_systems <= len(ascii_uppercase):
        raise ValueError(f"{n_systems} systems; there are letters for 1 to {len(ascii_uppercase)}")
    return tuple(ascii_uppercase[arm] for arm in rng.permutation(n_systems))


@dataclass(frozen=True, slots=True)
class BlindedResponse:
    """All that a rater's page may hold of a response: nothing here leads to its system.

    public_id: a random UUID (version 4) of the placement; other versions would tell when the row was made.
    slot: the letter.  turns: the dialogue before the response, as (role, text), oldest first.

    Raises ValueError if the id is no UUIDv4 or the slot no letter.
    """

    public_id: str
    slot: str
    text: str
    turns: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if uuid.UUID(self.public_id).version != 4:
            raise ValueError("public_id must be a random UUID (version 4)")
        if len(self.slot) != 1 or self.slot not in ascii_uppercase:
            raise ValueError(f"slot is {self.slot!r}; it is one letter from A to Z")

    def to_json(self) -> dict[str, object]:
        """The allow-listed fields, ready for a page or an API."""
        return {
            "public_id": self.public_id,
            "slot": self.slot,
            "text": self.text,
            "turns": [{"role": role, "text": text} for role, text in self.turns],
        }


# Control tokens that decoding can leave behind, of the families we know. Every one ends in ">" or "]", holds no
# line break and is shorter than MAX_TOKEN_LENGTH, so a search never looks far.
MAX_TOKEN_LENGTH = 48
CONTROL_MARK = (
    r"<\|[^<>|\n]{1,40}\|>"  # <|im_end|>, <|endoftext|>, <|user|>, <|blank_4|>: ChatML, GPT, Llama 3, GLM-4, Qwen
    r"|<｜[^<>｜\n]{1,40}｜>"  # DeepSeek writes the same with full-width bars
    r"|</?(?:s|n|bos|eos|sop|eop|eod|eot|eoh|eoa|eom|pad|unk|mask|sep|cls)>"  # Llama 2, ChatGLM, InternLM, MOSS
    r"|<(?:start|end)_of_turn>"  # Gemma
    r"|<(?:reserved_|TOKENS_UNUSED_)\d{1,5}>|\[UNUSED_TOKEN_\d{1,5}\]"  # Baichuan, InternLM
    r"|</?think>"  # reasoning models; a complete block goes with its text, see _strip_tokens
    r"|\[(?:[gs]?MASK|UNK|PAD|CLS|SEP|BOS|EOS)\]"  # GLM, BERT
    r"|\[/?INST\]|<</?SYS>>"  # Llama 2
)
_TOKEN_AT_END = re.compile(rf"(?:{CONTROL_MARK})\Z", re.IGNORECASE | re.ASCII)

# Pieces that end where a token can end: the machine below looks for tokens only there.
_PIECE = re.compile(r"[^>\]]*[>\]]|[^>\]]+")

# A role before the answer: "咨询师：", "Counselor:", or "assistant" alone on its line, as ChatML leaves it.
# Each repetition consumes a role word and a colon or line end, so there is one way to match.
_ROLE_PREFIX = re.compile(
    r"(?:"
    r"\*{0,2}(?:(?:专业|AI)?(?:心理)?(?:咨询师|咨询员|辅导员|治疗师|医生)|支持者|倾听者|助手|回复|回答|答"
    r"|counsell?or|therapist|supporter|listener|assistant|chatbot|response|answer)\*{0,2}[ \t]*[:：]\*{0,2}"
    r"|assistant[ \t]*(?:\n|\Z)"
    r")\s*",
    re.IGNORECASE,
)

_LINE_END = re.compile("\r\n?|[\u2028\u2029]")
# Control characters but \n and \t, and lone surrogates, which no page could encode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Zero width or direction only: soft hyphen, Arabic letter mark, Mongolian separator, zero-width space and
# non-joiner, marks, embeddings, overrides and isolates, word joiner to invisible plus, byte order mark,
# interlinear notes, tags.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_EMOJI = "\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
# The zero-width joiner holds an emoji like 👩‍⚕️ together; anywhere else it is invisible.
_STRAY_JOINER = re.compile(f"(?<![{_EMOJI}])\u200d|\u200d(?![{_EMOJI}])")
_MANY_LINE_ENDS = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class NormalisedText:
    """A text as every system's responses are shown, and the names of the steps that changed something.

    changes: of "line_ends", "characters", "unicode", "special_tokens", "reasoning", "unclosed_reasoning",
    "role_prefix", "blanks", in this order. Reasoning that never ends keeps its text, so a response with
    "unclosed_reasoning" is one to look at.
    """

    text: str
    changes: tuple[str, ...]


def normalise_text(text: str) -> NormalisedText:
    """The text without what betrays or breaks: the same steps for every system, and twice is the same as once.

    Line ends become \\n; control, direction and zero-width characters go (a joiner inside an emoji stays);
    Unicode is composed (NFC); special tokens and closed <think> blocks go; a role prefix at the very start
    goes; trailing blanks go; at most one empty line in a row.
    """
    changes: list[str] = []

    def step(name: str, new: str) -> None:
        nonlocal text
        if new != text:
            changes.append(name)
            text = new

    step("line_ends", _LINE_END.sub("\n", text))
    step("characters", _STRAY_JOINER.sub("", _INVISIBLE.sub("", _CONTROL.sub("", text))))
    step("unicode", unicodedata.normalize("NFC", text))
    stripped, has_reasoning, is_unclosed = _strip_tokens(text)
    if stripped != text:
        kinds = {"reasoning": has_reasoning, "unclosed_reasoning": is_unclosed}
        changes += [name for name, is_found in kinds.items() if is_found] or ["special_tokens"]
        text = unicodedata.normalize("NFC", stripped)  # what stood on both sides of a token may compose
    step("role_prefix", _without_role_prefix(text))
    step("blanks", _without_blanks(text))
    return NormalisedText(text, tuple(changes))


def _strip_tokens(text: str) -> tuple[str, bool, bool]:
    """The text without special tokens and reasoning; whether there was reasoning; whether some never ended.

    One pass over the text: a token is complete when its last character arrives, so a token that forms only
    because another one inside it went is found too, and hostile nesting costs no second pass.
    """
    levels: list[list[str]] = [[]]  # characters kept, one list per <think> that is open
    has_reasoning = False
    for piece in _PIECE.findall(text):
        kept = levels[-1]
        kept.extend(piece)
        token = _TOKEN_AT_END.search("".join(kept[-MAX_TOKEN_LENGTH:])) if piece[-1] in ">]" else None
        if token is None:
            continue
        del kept[len(kept) - len(token[0]) :]
        name = token[0].lower()
        if name == "<think>":
            levels.append([])
        elif name == "</think>":
            has_reasoning = True
            levels.pop()  # without an open <think> the prompt had opened it: all so far was reasoning
            levels = levels or [[]]
    # Kept on lines of their own, since tokens hold no line break and so none can form here.
    return "\n".join("".join(kept) for kept in levels if kept), has_reasoning, len(levels) > 1


def _without_role_prefix(text: str) -> str:
    start = len(text) - len(text.lstrip())
    while match := _ROLE_PREFIX.match(text, start):
        start = match.end()
    return text[start:]


def _without_blanks(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return _MANY_LINE_ENDS.sub("\n\n", lines).strip()
