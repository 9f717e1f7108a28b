"""What a corpus is like: topics, rounds, lengths, and the words that counsellors use. Plain data, for pages and charts.

It answers figures 3 and 4 of Chen et al. (2023), arXiv:2311.00273: how topics are distributed, and which words stand
out in what counsellors say, here as a table with counts instead of a cloud.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from annotation import topics
from annotation.formats.dialogues import COUNSELLOR
from metrics import segmentation
from training.corpus.formats import Dialogue

CHUNK = 2000  # turns that are cut into words at once
N_TERMS = 200

_STOP_WORDS = Path(__file__).parent / "content" / "stop_words.txt"


@cache
def stop_words() -> frozenset[str]:
    """Words that say little by themselves and are left out of the table."""
    lines = _STOP_WORDS.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


class Term(NamedTuple):
    """A word of counsellors: how often it stands, and in how many dialogues."""

    word: str
    n: int
    n_dialogues: int


@dataclass(frozen=True)
class Statistics:
    """Counts over all dialogues.

    topics: slug ► dialogues, in the order of the content file; "" is none of the twelve.
    unknown_topics: the labels that are none of them, the most frequent first.
    rounds: counsellor turns of a dialogue ► dialogues.
    client_characters, counsellor_characters: length of a turn ► turns.
    terms: words of counsellors, the most frequent first.  segmentation: how they were cut.
    """

    n_dialogues: int
    topics: dict[str, int]
    unknown_topics: dict[str, int]
    rounds: dict[int, int]
    client_characters: dict[int, int]
    counsellor_characters: dict[int, int]
    terms: tuple[Term, ...]
    segmentation: str

    def to_json(self) -> dict[str, Any]:
        """Names of lengths become text, as JSON has it."""
        return {
            "n_dialogues": self.n_dialogues,
            "topics": self.topics,
            "unknown_topics": self.unknown_topics,
            "rounds": {str(n): count for n, count in self.rounds.items()},
            "client_characters": {str(n): count for n, count in self.client_characters.items()},
            "counsellor_characters": {str(n): count for n, count in self.counsellor_characters.items()},
            "terms": [term._asdict() for term in self.terms],
            "segmentation": self.segmentation,
        }


class Collector:
    """Takes one dialogue after the other; memory grows with the vocabulary alone."""

    def __init__(self, n_terms: int = N_TERMS) -> None:
        self._n_terms = n_terms
        self._n_dialogues = 0
        self._topics: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._rounds: Counter[int] = Counter()
        self._client: Counter[int] = Counter()
        self._counsellor: Counter[int] = Counter()
        self._terms: Counter[str] = Counter()
        self._in_dialogues: Counter[str] = Counter()
        self._waiting: list[tuple[int, str]] = []  # number of the dialogue, what its counsellor said
        self._met: tuple[int, set[str]] = (0, set())  # words of the dialogue that is being counted

    def add(self, dialogue: Dialogue) -> None:
        """Count a dialogue; of one that is an item only its reference, for its turns come with other rows."""
        self._n_dialogues += 1
        slug = topics.slug_of(dialogue.topic_label)
        self._topics[slug] += 1
        if dialogue.topic_label and not slug:
            self._unknown[dialogue.topic_label] += 1
        self._rounds[sum(turn.role == COUNSELLOR for turn in dialogue.turns)] += 1
        for turn in dialogue.turns[dialogue.first_target :]:
            lengths = self._counsellor if turn.role == COUNSELLOR else self._client
            lengths[len(turn.text)] += 1
            if turn.role == COUNSELLOR:
                self._waiting.append((self._n_dialogues, turn.text))
        if len(self._waiting) >= CHUNK:
            self._count_words()

    def result(self) -> Statistics:
        """What was counted so far."""
        self._count_words()
        # Of equally frequent words the one that sorts first, so that the order of the dialogues does not matter.
        frequent = sorted(self._terms.items(), key=lambda term: (-term[1], term[0]))[: self._n_terms]
        return Statistics(
            n_dialogues=self._n_dialogues,
            topics={slug: self._topics[slug] for slug in (*topics.names("en"), "")},
            unknown_topics=dict(self._unknown.most_common()),
            rounds=dict(sorted(self._rounds.items())),
            client_characters=dict(sorted(self._client.items())),
            counsellor_characters=dict(sorted(self._counsellor.items())),
            terms=tuple(Term(word, n, self._in_dialogues[word]) for word, n in frequent),
            segmentation=segmentation.describe("words"),
        )

    def _count_words(self) -> None:
        cut = segmentation.cut_texts([text for _, text in self._waiting])
        for (number, _), words in zip(self._waiting, cut, strict=True):
            told = [word for word in words if _is_telling(word)]
            self._terms.update(told)
            if self._met[0] != number:
                self._met = (number, set())
            new = set(told) - self._met[1]
            self._in_dialogues.update(new)
            self._met[1].update(new)
        self._waiting = []


def _is_telling(word: str) -> bool:
    """At least two Chinese characters, and no stop word."""
    return len(word) > 1 and word not in stop_words() and all("\u4e00" <= character <= "\u9fff" for character in word)
