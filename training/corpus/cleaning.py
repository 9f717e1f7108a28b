"""What must not be learnt: filtered strings, personal data, near duplicates. Each removal has a reason and is counted.

Nothing here is certain, so every rule says what becomes of a dialogue that it finds something in: "remove" it, "review"
(a person decides), "mask" the place and keep the rest, or "keep". A dialogue in review is left out until its line in
the queue has a verdict; whoever decides may also mend the text there.

Why these rules: the ethics statement of Chen et al. (2023), arXiv:2311.00273. It names the strings 我是, 自杀 and 跳楼,
and had people proofread what was found. 我是 stands in one of five dialogues of SMILECHAT, nearly always harmlessly;
the rule for names looks for what it gives away, and {"strings": {"我是": "review"}} brings it back. The other strings,
the patterns and the actions are ours.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from annotation.formats.dialogues import COUNSELLOR, Turn, read_turns
from annotation.formats.problems import Findings, Place
from models_runtime.engine.spec import digest_of
from training.corpus.errors import CorpusError
from training.corpus.formats import Dialogue
from training.corpus.split import beginnings

Action = Literal["remove", "review", "mask", "keep"]
Verdict = Literal["keep", "remove", "undecided"]

PERSONAL = ("phone", "id_number", "email", "wechat", "qq", "name")
NEAR_DUPLICATE = "near_duplicate"


class BadRules(CorpusError):
    """Rules of cleaning that cannot be used; the message names the place."""

    code = "bad_rules"


@dataclass(frozen=True)
class Rules:
    """What to look for, and what to do when it is found.

    strings: found anywhere in any turn.  personal: one action for each of PERSONAL.
    near_duplicate: dialogues are the same from this share of common five-character strings on (Jaccard, estimated); the
        first is kept. 1.0 finds only those that differ in punctuation and blanks; None looks for none.
    """

    strings: Mapping[str, Action] = field(
        default_factory=lambda: dict.fromkeys(("自杀", "跳楼", "割腕", "轻生"), "remove")
    )
    personal: Mapping[str, Action] = field(
        default_factory=lambda: {**dict.fromkeys(PERSONAL, "remove"), "name": "review"}
    )
    near_duplicate: float | None = 0.8

    def __post_init__(self) -> None:
        for name, actions in (("strings", self.strings), ("personal", self.personal)):
            for rule, action in actions.items():
                if not isinstance(rule, str) or not rule.strip():
                    raise BadRules(f"{name} has an empty entry; it would be found everywhere.")
                if action not in get_args(Action):
                    raise BadRules(f"{name}, {rule}: {action!r} is no action; use {', '.join(get_args(Action))}.")
        if unknown := sorted(set(self.personal) - set(PERSONAL)):
            raise BadRules(f"personal has no {', '.join(unknown)}; it has {', '.join(PERSONAL)}.")
        threshold = self.near_duplicate
        if threshold is not None and (type(threshold) not in (int, float) or not 0.5 <= threshold <= 1):
            raise BadRules(f"near_duplicate is {threshold!r}; it must be from 0.5 to 1, or null.")

    @property
    def digest(self) -> str:
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rules of a JSON object; what it leaves out is as by default. Raises BadRules."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) - known:
            raise BadRules(f"Rules are a JSON object with {', '.join(sorted(known))}.")
        for name in ("strings", "personal"):
            if not isinstance(data.get(name, {}), dict):
                raise BadRules(f"{name} must be an object of rule and action.")
        given = dict(data)
        given["personal"] = {**cls().personal, **data.get("personal", {})}
        return cls(**given)


class Hit(NamedTuple):
    """One place that a rule found: characters start to end (exclusive) of a turn, counted from 0."""

    rule: str
    turn: int
    start: int
    end: int
    action: Action


# --- Personal data ----------------------------------------------------------------------------------------

# Full-width ASCII as ASCII, so that every position stays what it was.
_NARROW = {point: point - 0xFEE0 for point in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_ASCII = r"[A-Za-z0-9]"
_PATTERNS: dict[str, re.Pattern[str]] = {
    # Mobile numbers of mainland China, 3-4-4 with or without gaps, and landlines with their area code.
    "phone": re.compile(
        r"(?<![\d.])(?:(?:\+|00)?86[- ]?)?(1[3-9]\d[- ]?\d{4}[- ]?\d{4}|0[1-9]\d{1,2}[- ]\d{7,8})(?![\d.]?\d)"
    ),
    "id_number": re.compile(r"(?<![A-Za-z\d])([1-8]\d{16}[\dXx])(?![A-Za-z\d])"),
    "email": re.compile(
        r"(?<![A-Za-z0-9._%+-])([A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4})"
    ),
    # An account begins with a letter and has 6 to 20 characters; a bare phone number is found as such.
    "wechat": re.compile(
        r"(?:微信|微信号|威信|薇信|(?<![A-Za-z])(?:wechat|weixin|wx|vx)(?![A-Za-z]))(?:号码?|id|账号|帐号)?"
        r"[ :：,，是为叫\-]{0,4}((?!wechat|weixin)[A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9_-])",
        re.IGNORECASE,
    ),
    "qq": re.compile(
        rf"(?:(?<!{_ASCII})QQ|扣扣|企鹅)(?:号码?|群号?|群)?[ :：,，是为加\-]{{0,4}}([1-9]\d{{4,11}})(?!\d)",
        re.IGNORECASE,
    ),
}
# The commonest family names. Those that often begin another word (高中生, 单亲, 安静, 曾经)
# count only after 我叫, which hardly anything but a name follows.
_FAMILY = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗郑梁谢宋唐许邓冯韩曹彭肖萧蔡潘袁董吕苏卢蒋贾丁魏薛叶阎余杜戴夏钟汪田姜范石姚谭廖"
    "邹熊陆郝孔崔邱秦史顾侯邵孟龙黎尹雷龚陶贺毛施洪赖武翟樊兰殷"
)
_FAMILY_AFTER_CALLED = _FAMILY + "高于程任沈曾方江傅金白钱万严康汤常文易乔葛温安倪庄聂章俞齐梅颜"
_DOUBLE = "欧阳|上官|司马|诸葛|司徒|东方|皇甫|尉迟|慕容|令狐|夏侯"
_AFTER_NAME = r"(?=$|[\s，。！？、；：,.!?;:（(“”\"'~～…—]|今年|来自|是一)"
_CALLED = re.compile(
    rf"(?:我|本人)(?:的名字)?叫做?(?:作)?((?:{_DOUBLE}|[{_FAMILY_AFTER_CALLED}])[\u4e00-\u9fff]{{1,2}}){_AFTER_NAME}"
)
_AM = re.compile(rf"(?:我是|我的名字是|我姓名是)((?:{_DOUBLE}|[{_FAMILY}])[\u4e00-\u9fff]{{1,2}}){_AFTER_NAME}")
# Ends of what is no name after all: 我是王老师 says less than a full name, 我是独生女 is none.
_NO_NAME_ENDS = (
    "老师", "同学", "女士", "先生", "小姐", "医生", "男生", "女生", "学生", "性格", "座", "的", "了", "吗", "呢",
)  # fmt: skip
_NO_NAMES = frozenset(("周末", "夏天", "许多", "余下", "石头", "何人", "黄种人", "武汉人", "江西人"))

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, ISO 7064 MOD 11-2
_CHECK = "10X98765432"


def is_id_number(digits: str) -> bool:
    """Whether 18 characters are an identity number of mainland China: a real birthday and the right check digit."""
    if not re.fullmatch(r"\d{17}[\dXx]", digits):
        return False
    try:
        date(int(digits[6:10]), int(digits[10:12]), int(digits[12:14]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=False))
    return 1850 <= int(digits[6:10]) <= 2100 and _CHECK[total % 11] == digits[17].upper()


def personal_data(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of every place that looks like personal data."""
    narrow = text.translate(_NARROW)
    for kind, pattern in _PATTERNS.items():
        for found in pattern.finditer(narrow):
            if kind != "id_number" or is_id_number(found[1]):
                yield kind, found.start(1), found.end(1)
    for pattern in (_CALLED, _AM):
        for found in pattern.finditer(text):
            if found[1] not in _NO_NAMES and not found[1].endswith(_NO_NAME_ENDS):
                yield "name", found.start(1), found.end(1)


def find(turns: Sequence[Turn], rules: Rules) -> list[Hit]:
    """All that the rules find in these turns but what they keep, in order of turns and places."""
    hits: list[Hit] = []
    for number, turn in enumerate(turns):
        for kind, start, end in personal_data(turn.text):
            hits.append(Hit(kind, number, start, end, rules.personal.get(kind, "keep")))
        for string, action in rules.strings.items():
            start = turn.text.find(string)
            while start >= 0:
                hits.append(Hit(f"string:{string}", number, start, start + len(string), action))
                start = turn.text.find(string, start + len(string))
    return sorted((hit for hit in hits if hit.action != "keep"), key=lambda hit: (hit.turn, hit.start, hit.rule))


# --- Decisions --------------------------------------------------------------------------------------------

MASKS: Mapping[str, str] = {
    "phone": "（电话）",
    "id_number": "（证件号）",
    "email": "（邮箱）",
    "wechat": "（微信号）",
    "qq": "（QQ号）",
    "name": "（姓名）",
}


@dataclass(frozen=True)
class Decision:
    """What becomes of a dialogue. dialogue: as it is kept, places masked or mended; hits: why."""

    verdict: Verdict
    dialogue: Dialogue
    hits: tuple[Hit, ...] = ()


@dataclass
class Review:
    """Verdicts of a person: by `name_of` the dialogue, whether it stays, and its turns as they stay."""

    kept: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    n_undecided: int = 0


def name_of(turns: Sequence[Turn]) -> str:
    """What the queue calls a dialogue: a hash of its texts, so that a verdict finds it in any file."""
    return beginnings(turns)[-1].hex()


@dataclass
class Cleaner:
    """Decides about one dialogue after the other, and counts.

    copies: `name_of` near duplicates that are to go; see `training.corpus.duplicates`.
    """

    rules: Rules = field(default_factory=Rules)
    review: Review = field(default_factory=Review)
    copies: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)

    def decide(self, dialogue: Dialogue) -> Decision:
        """The decision: of a person where there is one, else of the rules."""
        name = name_of(dialogue.turns)
        hits = find(dialogue.turns, self.rules)
        if name in self.copies:
            hits.append(Hit(NEAR_DUPLICATE, 0, 0, 0, "remove"))
        decision = self._decide(dialogue, name, tuple(hits))
        for rule, action in {(hit.rule, hit.action) for hit in hits}:
            self.counts[f"n_{action}_{rule}"] += 1
        self.counts[f"n_dialogues_{decision.verdict}"] += 1
        return decision

    def _decide(self, dialogue: Dialogue, name: str, hits: tuple[Hit, ...]) -> Decision:
        if name in self.review.removed:
            self.counts["n_removed_by_person"] += 1
            return Decision("remove", dialogue, hits)
        if (turns := self.review.kept.get(name)) is not None:
            self.counts["n_mended_by_person"] += turns != dialogue.turns
            self.counts["n_kept_by_person"] += turns == dialogue.turns
            first_target = len(turns) - 1 if dialogue.first_target else 0
            return Decision("keep", dialogue._replace(turns=turns, first_target=first_target), hits)
        actions = {hit.action for hit in hits}
        if "remove" in actions:
            return Decision("remove", dialogue, hits)
        if "review" in actions:
            return Decision("undecided", dialogue, hits)
        return Decision("keep", _masked(dialogue, hits), hits)


def _masked(dialogue: Dialogue, hits: Sequence[Hit]) -> Dialogue:
    turns = list(dialogue.turns)
    end_of = {hit.turn: len(turns[hit.turn].text) for hit in hits}
    for hit in sorted(hits, key=lambda hit: (hit.turn, hit.start), reverse=True):
        role, text = turns[hit.turn]
        end = min(hit.end, end_of[hit.turn])  # of two that overlap, the later one is masked already
        turns[hit.turn] = Turn(role, text[: hit.start] + MASKS.get(hit.rule, "（略）") + text[end:])
        end_of[hit.turn] = hit.start
    return dialogue._replace(turns=tuple(turns))


# --- The queue for a person -------------------------------------------------------------------------------


def queue_line(decision: Decision) -> dict[str, Any]:
    """A dialogue and why it waits. Set `verdict` to "keep" or "remove"; where it is kept, turns may be mended."""
    dialogue = decision.dialogue
    texts = [turn.text for turn in dialogue.turns]
    return {
        "verdict": "undecided",
        "name": name_of(dialogue.turns),
        "place": dialogue.place.file,
        "why": [
            {"rule": hit.rule, "turn": hit.turn + 1, "found": texts[hit.turn][hit.start : hit.end]}
            for hit in decision.hits
        ],
        "dialogue": dialogue.to_row(),
    }


def removal_line(decision: Decision) -> dict[str, Any]:
    """A dialogue that went, and why; without its text, for that may be why."""
    rules = sorted({(hit.rule, hit.turn + 1) for hit in decision.hits})
    dialogue = decision.dialogue
    return {
        "name": name_of(dialogue.turns),
        "place": dialogue.place.file,
        "key": dialogue.key,
        "why": [{"rule": rule, "turn": turn} for rule, turn in rules] or [{"rule": "person"}],
    }


def read_review(path: Path) -> Review:
    """The verdicts of a queue. Raises CorpusError that names the line if one cannot be understood."""
    review = Review()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would split at U+2028 as well
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as a queue of dialogues: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, verdict, row = entry["name"], entry["verdict"], entry["dialogue"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}, line {number} is no line of the queue; restore it from the original") from error
        if verdict not in get_args(Verdict):
            raise CorpusError(f"{path}, line {number}: verdict is {verdict!r}; use {', '.join(get_args(Verdict))}")
        if verdict == "undecided":
            review.n_undecided += 1
        elif verdict == "remove":
            review.removed.add(name)
        else:
            review.kept[name] = _turns_of(row, path, number)
    return review


def _turns_of(row: Any, path: Path, number: int) -> tuple[Turn, ...]:
    findings = Findings()
    place = Place(path.name, "line", number)
    turns = read_turns(row.get("turns") if isinstance(row, dict) else None, place, "turns", findings)
    reference = row.get("reference", "") if isinstance(row, dict) else None
    if turns is None or findings.problems or not isinstance(reference, str):
        raise CorpusError(f"{path}, line {number}: the dialogue has turns that cannot be read; restore or mend them")
    return (*turns, Turn(COUNSELLOR, reference.strip())) if reference.strip() else turns
