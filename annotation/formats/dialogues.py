"""SourceDialogue: one whole dialogue as its source tells it, from the SMILECHAT and SoulChatCorpus releases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from annotation.formats.archives import json_members
from annotation.formats.limits import MAX_DIALOGUE_BYTES, MAX_DIALOGUE_TURNS, MAX_KEY_CHARACTERS, MAX_TOPIC_CHARACTERS
from annotation.formats.problems import Findings, Place
from annotation.formats.source import Source, decode_member, encoding_of, open_text
from annotation.formats.strict import BadJSON, BadText, check_text, clean_text, decode, decode_at

CLIENT, COUNSELLOR = "client", "counsellor"


class Turn(NamedTuple):
    """What one side said: role is CLIENT or COUNSELLOR."""

    role: str
    text: str


class SourceDialogue(NamedTuple):
    """Turns in order, cleaned: none is empty, no two neighbours have the same role."""

    key: str
    topic_label: str
    turns: tuple[Turn, ...]
    place: Place


# As releases, tables and people call the two sides; compared in lower case.
_ROLES = {
    **dict.fromkeys(("client", "user", "seeker", "help-seeker", "patient", "human"), CLIENT),
    **dict.fromkeys(("来访者", "求助者", "用户", "患者", "来访"), CLIENT),
    **dict.fromkeys(("counsellor", "counselor", "assistant", "supporter", "therapist", "helper"), COUNSELLOR),
    **dict.fromkeys(("咨询师", "心理咨询师", "支持者", "倾听者", "治疗师", "心理师"), COUNSELLOR),
}
_LINE_ROLE = re.compile(
    rf"\s*({'|'.join(sorted(map(re.escape, _ROLES), key=len, reverse=True))})\s*[:：]\s*", re.IGNORECASE
)


# --- Turns ----------------------------------------------------------------------------------------------


def read_turns(raw: Any, place: Place, field: str, findings: Findings) -> tuple[Turn, ...] | None:
    """Cleaned turns from a list of {"role", "content" or "text"}, a list of "来访者：…" strings, or lines of them.

    Empty turns go, neighbours of one role become one turn with a line break between; both are counted. None, with
    the problem noted, if it is anything else.
    """
    if isinstance(raw, str):
        spoken = _from_lines(raw, place, field, findings)
    elif isinstance(raw, list):
        spoken = _from_list(raw, place, field, findings)
    else:
        findings.add(place, "turns_type", field)
        return None
    if spoken is None:
        return None
    if len(spoken) > MAX_DIALOGUE_TURNS:
        findings.add(place, "too_many_turns", field, found=len(spoken), limit=MAX_DIALOGUE_TURNS)
        return None
    return _joined(spoken, place, field, findings)


def _from_lines(raw: str, place: Place, field: str, findings: Findings) -> list[Turn] | None:
    if raw.lstrip().startswith("["):
        try:
            decoded = decode(raw)
        except BadJSON as error:
            findings.add(place, error.code, field, **{"position": error.position + 1, **error.params})
            return None
        return _from_list(decoded, place, field, findings)
    spoken: list[Turn] = []
    for line in raw.splitlines():
        if found := _LINE_ROLE.match(line):
            spoken.append(Turn(_ROLES[found[1].lower()], line[found.end() :]))
        elif spoken:  # a paragraph of the same turn
            spoken[-1] = Turn(spoken[-1].role, f"{spoken[-1].text}\n{line}")
        elif line.strip():
            findings.add(place, "turn_without_role", field, found=line.strip()[:40])
            return None
    return spoken


def _from_list(raw: list[Any], place: Place, field: str, findings: Findings) -> list[Turn] | None:
    spoken: list[Turn] = []
    for number, entry in enumerate(raw, 1):
        where = f"{field}[{number}]"
        if isinstance(entry, str):
            found = _LINE_ROLE.match(entry)
            if not found:
                findings.add(place, "turn_without_role", where, found=entry[:40])
                return None
            spoken.append(Turn(_ROLES[found[1].lower()], entry[found.end() :]))
            continue
        if not isinstance(entry, dict):
            findings.add(place, "turn_type", where)
            return None
        role = entry.get("role")
        text = entry.get("content", entry.get("text"))
        if role == "system":  # instructions to a model, not part of what was said
            findings.counts["n_system_messages"] += 1
            continue
        if not isinstance(role, str) or role.strip().lower() not in _ROLES:
            findings.add(place, "turn_role", where, found=str(role)[:40])
            return None
        if not isinstance(text, str):
            findings.add(place, "turn_text", where)
            return None
        spoken.append(Turn(_ROLES[role.strip().lower()], text))
    return spoken


def _joined(spoken: list[Turn], place: Place, field: str, findings: Findings) -> tuple[Turn, ...] | None:
    turns: list[Turn] = []
    for number, (role, raw) in enumerate(spoken, 1):
        text = clean(raw, place, f"{field}[{number}]", findings)
        if text is None:
            return None
        if not text:
            findings.counts["n_empty_turns"] += 1
        elif turns and turns[-1].role == role:
            turns[-1] = Turn(role, f"{turns[-1].text}\n{text}")
            findings.counts["n_merged_turns"] += 1
        else:
            turns.append(Turn(role, text))
    return tuple(turns)


def clean(raw: str, place: Place, field: str, findings: Findings) -> str | None:
    """The text as it is kept; None, with the problem noted, if a character cannot be kept."""
    try:
        check_text(raw)
    except BadText as error:
        findings.add(place, error.code, field, position=error.position + 1)
        return None
    text, has_lost = clean_text(raw)
    findings.counts["n_control_characters"] += has_lost
    return text


def read_key(raw: Any, place: Place, field: str, findings: Findings, limit: int = MAX_KEY_CHARACTERS) -> str | None:
    """A name as text: whole numbers count as text. None, with the problem noted, if it is none."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str):
        findings.add(place, "missing" if raw is None else "not_text", field)
        return None
    key = clean(raw, place, field, findings)
    if key is None:
        return None
    if not key:
        findings.add(place, "missing", field)
        return None
    if len(key) > limit:
        findings.add(place, "too_long", field, found=len(key), limit=limit)
        return None
    return key


def read_topic(raw: Any, place: Place, field: str, findings: Findings) -> str | None:
    """The label of a topic, "" if there is none. None, with the problem noted, if it is no text."""
    if raw is None:
        return ""
    if not isinstance(raw, str):
        findings.add(place, "not_text", field)
        return None
    label = clean(raw, place, field, findings)
    if label is not None and len(label) > MAX_TOPIC_CHARACTERS:
        findings.add(place, "too_long", field, found=len(label), limit=MAX_TOPIC_CHARACTERS)
        return None
    return label


# --- SMILECHAT: a file for each dialogue ----------------------------------------------------------------


def read_smilechat(source: Source, findings: Findings) -> Iterator[SourceDialogue]:
    """Dialogues of a folder, .zip or .tar.xz of {n}.json files, each a list of turns; the stem is the key."""
    for member in json_members(source, findings):
        text = decode_member(member.data, member.place, findings)
        if text is None:
            continue
        try:
            raw = decode(text)
        except BadJSON as error:
            line = text.count("\n", 0, error.position) + 1
            findings.add(Place(member.place.file, "line", line), error.code, **error.params)
            continue
        if not isinstance(raw, list):
            findings.add(member.place, "not_a_list")
            continue
        key = read_key(member.stem, member.place, "key", findings)
        turns = read_turns(raw, member.place, "turns", findings)
        if key is not None and turns is not None:
            yield SourceDialogue(key, "", turns, member.place)


# --- SoulChatCorpus: one array for all ------------------------------------------------------------------


def read_soulchat(source: Source, findings: Findings) -> Iterator[SourceDialogue]:
    """Dialogues of one JSON array of {"id", "topic", "messages"}, an entry at a time."""
    encoding = encoding_of(source, findings)
    if encoding is None:
        return
    for place, entry in _entries(source, encoding, findings):
        if not isinstance(entry, dict):
            findings.add(place, "not_an_object")
            continue
        key = read_key(entry.get("id"), place, "id", findings)
        topic = read_topic(entry.get("topic"), place, "topic", findings)
        if "messages" not in entry:
            findings.add(place, "missing", "messages")
            continue
        turns = read_turns(entry["messages"], place, "messages", findings)
        if key is not None and topic is not None and turns is not None:
            yield SourceDialogue(key, topic, turns, place)


_CHUNK_CHARACTERS = 512 * 1024
_BLANKS = re.compile(r"[ \t\r\n]*")


def _entries(source: Source, encoding: str, findings: Findings) -> Iterator[tuple[Place, Any]]:
    """The elements of the array that the file is. A broken or overlong element ends the reading.

    The standard decoder, applied where the next element begins, instead of an event parser: it is held to the same
    rules as all other JSON here, and an element has a size limit. (ijson's C back end was measured to turn half
    surrogate pairs into "?" and to crash the process on an integer of 5,000 digits.)
    """
    with open_text(source, encoding) as file:
        window = _Window(file)
        if not window.expect("["):
            findings.add(Place(source.name, "line", 1), "not_a_list")
            return
        number = 0
        while True:
            if window.peek() == "]" and number == 0:
                window.expect("]")
                break
            number += 1
            place = Place(source.name, "entry", number)
            try:
                yield place, window.value()
            except BadJSON as error:
                findings.add(place, error.code, **{"line": window.line_of(error.position), **error.params})
                return
            if window.expect(","):
                continue
            if window.expect("]"):
                break
            reason = "Expecting ',' or ']'" if window.peek() else "The file ends in the middle"
            findings.add(place, "broken_json", line=window.line_of(), reason=reason)
            return
        if window.peek():
            findings.add(source.place, "broken_json", line=window.line_of(), reason="Extra data")


class _Window:
    """A stretch of a long text that moves on as it is read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._lines_before = 0  # line ends before the stretch
        self._is_whole = False  # the file has no more

    def peek(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            found = _BLANKS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._is_whole:
                return self._text[self._at : self._at + 1]
            self._read()

    def expect(self, character: str) -> bool:
        """Step over `character` if it is the next one."""
        if self.peek() != character:
            return False
        self._at += 1
        return True

    def value(self) -> Any:
        """The JSON value that comes next. Raises BadJSON, also if it is larger than a dialogue can be."""
        self.peek()
        while True:
            try:
                value, end = decode_at(self._text, self._at)
            except BadJSON as error:
                # A value cut off by the end of the stretch looks broken, or like a bad number: read on and see.
                if self._is_whole or error.code == "json_too_deep":
                    raise
                if len(self._text) - self._at > MAX_DIALOGUE_BYTES:
                    is_cut = error.position >= len(self._text) - 16 or "Unterminated" in str(error.params)
                    if is_cut:
                        raise BadJSON("dialogue_too_large", self._at, limit=MAX_DIALOGUE_BYTES // 1024) from error
                    raise
                self._read()
            else:
                if end - self._at > MAX_DIALOGUE_BYTES:
                    raise BadJSON("dialogue_too_large", self._at, limit=MAX_DIALOGUE_BYTES // 1024)
                if end < len(self._text) or self._is_whole:  # a number may go on in the next stretch
                    self._at = end
                    return value
                self._read()

    def line_of(self, position: int | None = None) -> int:
        """The line, from 1, of an index of the present stretch; without one, of where reading stands."""
        return self._lines_before + self._text.count("\n", 0, self._at if position is None else position) + 1

    def _read(self) -> None:
        more = self._file.read(_CHUNK_CHARACTERS)
        self._is_whole = not more
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + more
        self._at = 0
