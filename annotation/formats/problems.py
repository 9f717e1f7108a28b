"""Problem: what is wrong, and where.  Findings: what reading a file has brought up so far."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from annotation.formats.limits import MAX_PROBLEMS

Unit = Literal["line", "row", "entry", ""]


class Place(NamedTuple):
    """Where in a file: the file's name, and the line, row (the header is row 1) or array entry, from 1."""

    file: str
    unit: Unit = ""
    number: int | None = None


@dataclass(frozen=True)
class Problem:
    """One thing wrong. `code` and `params` become a sentence in the reader's language elsewhere."""

    place: Place
    code: str
    field: str = ""
    params: dict[str, str | int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**self.place._asdict(), "field": self.field, "code": self.code, "params": self.params}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Problem:
        place = Place(data["file"], data["unit"], data["number"])
        return cls(place, data["code"], data["field"], data["params"])


class TooManyProblems(Exception):
    """MAX_PROBLEMS were found; reading on would only add to the list."""


@dataclass
class Findings:
    """Problems and counts of one reading."""

    problems: list[Problem] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    encodings: set[str] = dataclasses.field(default_factory=set)

    def add(self, place: Place, code: str, field: str = "", /, **params: str | int) -> None:
        """Note a problem. Raises TooManyProblems when the list is full."""
        self.problems.append(Problem(place, code, field, params))
        if len(self.problems) >= MAX_PROBLEMS:
            raise TooManyProblems

    @property
    def encoding(self) -> str:
        """How the text was encoded, e.g. "utf-8"; several are joined by "+"; "" where the format leaves no choice."""
        return "+".join(sorted(self.encodings))
