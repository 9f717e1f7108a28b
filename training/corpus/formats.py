"""Dialogues of a corpus: the SoulChatCorpus and SMILECHAT releases as they are, and our own JSONL, CSV and XLSX rows.

A row of ours whose `dialogue` is its own key is a whole dialogue: its turns, then its reference. A row that names
another dialogue is one item of it, and only its reference is taken as a target: the other turns come with other rows.

A broken record is named, counted and passed over, up to a limit; a file that cannot be read to its end is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from annotation.formats.dialogues import CLIENT, COUNSELLOR, Turn, read_smilechat, read_soulchat
from annotation.formats.limits import MAX_PROBLEMS
from annotation.formats.problems import Findings, Place, Problem, TooManyProblems
from annotation.formats.rows import read_items
from annotation.formats.source import DIALOGUE_FORMATS, ITEM_FORMATS, Format, Source, sniff
from training.corpus.errors import SourceRefused

MAX_BROKEN = 20  # records, unless the caller says otherwise
# Problems after which a reader has nothing more to give, whatever the file still holds.
_ENDS_FILE = frozenset({"encoding", "nul_byte", "line_too_long", "not_a_list"})
_ENDS_ARRAY = frozenset({"broken_json", "json_too_deep", "json_number", "dialogue_too_large"})


class Dialogue(NamedTuple):
    """One dialogue of a corpus.

    key: its own name.  group: the name of the dialogue that it is, or is a part of.
    first_target: counsellor turns before this index are context only.
    """

    key: str
    group: str
    topic_label: str
    turns: tuple[Turn, ...]
    first_target: int
    place: Place

    @property
    def targets(self) -> list[int]:
        """Indices of the counsellor turns that answer a client and are to be learnt."""
        return [
            index
            for index in range(max(self.first_target, 1), len(self.turns))
            if self.turns[index].role == COUNSELLOR and self.turns[index - 1].role == CLIENT
        ]

    def to_row(self) -> dict[str, Any]:
        """The dialogue as a row of ours, as `read_dialogues` and an import of items take it."""
        *turns, last = self.turns
        if last.role == CLIENT:
            turns, last = [*turns, last], Turn(COUNSELLOR, "")
        row: dict[str, Any] = {"key": self.key, "turns": [{"role": role, "content": text} for role, text in turns]}
        if self.group != self.key:
            row["dialogue"] = self.group
        return row | {"topic": self.topic_label, "reference": last.text}


@dataclass
class Reading:
    """What reading has brought up so far: filled while dialogues are taken from `read_dialogues`.

    counts: dialogues read, and what was mended on the way (empty turns, merged neighbours, control characters).
    problems: the first broken records, each with its place.  encoding: as annotation.formats tells it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    encoding: str = ""


class _Tolerant(Findings):
    """Findings that count records and not problems, and give up past a limit."""

    def __init__(self, file: str, max_broken: int) -> None:
        super().__init__()
        self.file = file
        self.max_broken = max_broken
        self.n_broken = 0
        self._last: Place | None = None

    def add(self, place: Place, code: str, field: str = "", /, **params: str | int) -> None:
        """Note a problem. Raises TooManyProblems past the limit of broken records."""
        if place != self._last:
            self.n_broken += 1
            self._last = place
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(place, code, field, params))
        if self.n_broken > self.max_broken or self._ends(place, code):
            raise TooManyProblems

    def _ends(self, place: Place, code: str) -> bool:
        if place.file != self.file:  # a file of its own within an archive or folder; the next one can be read
            return False
        return place.number is None or code in _ENDS_FILE or (place.unit == "entry" and code in _ENDS_ARRAY)


def read_dialogues(
    source: Source, reading: Reading, *, file_format: Format | None = None, max_broken: int = MAX_BROKEN
) -> Iterator[Dialogue]:
    """The dialogues of a file, one at a time; `reading` fills up on the way.

    Raises SourceRefused if the file is of no known format, cannot be read to its end, or has more than `max_broken`
    broken records.
    """
    findings = _Tolerant(source.name, max_broken)
    n_read = 0
    try:
        for dialogue in _dialogues(source, file_format or _sniffed(source), findings):
            n_read += 1
            yield dialogue
    except TooManyProblems:
        n, last = findings.n_broken, findings.problems[-1].place
        if n > max_broken:
            reason = f"{n} of its first {n_read + n} records are broken, and {max_broken} may be"
        else:
            reason = f"it cannot be read beyond {last.unit} {last.number}" if last.number else "it cannot be read"
        raise SourceRefused(f"{source.name}: {reason}", findings.problems, n) from None
    finally:
        reading.problems += findings.problems
        reading.encoding = findings.encoding
        reading.counts.update(findings.counts)
        reading.counts["n_broken"] += findings.n_broken
        reading.counts["n_dialogues_read"] += n_read


def _sniffed(source: Source) -> Format:
    if not source.path.exists():
        raise SourceRefused(f"There is no file {source.name}", [], 0)
    found = sniff(source)
    if found is None:
        problem = Problem(source.place, "unknown_format", "", {"expected": ", ".join(ITEM_FORMATS)})
        raise SourceRefused(f"{source.name} is of no format known here", [problem], 0)
    return found


def _dialogues(source: Source, file_format: Format, findings: Findings) -> Iterator[Dialogue]:
    if file_format in DIALOGUE_FORMATS:
        read = read_smilechat if file_format == "smilechat" else read_soulchat
        for found in read(source, findings):
            yield Dialogue(found.key, found.key, found.topic_label, found.turns, 0, found.place)
        return
    for item in read_items(source, file_format, findings):
        turns = (*item.turns, Turn(COUNSELLOR, item.reference)) if item.reference else item.turns
        first_target = 0 if item.dialogue == item.key else len(item.turns)
        yield Dialogue(item.key, item.dialogue, item.topic_label, turns, first_target, item.place)
