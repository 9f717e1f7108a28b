"""Rewriting many questions: tried again where a text is refused, gone on with where a run stopped.

The file of attempts is its own ledger. Each line is one text that a model wrote, with what became of it; it is on the
disk before the next question is asked, so a stop of any kind loses nothing that was paid for.

Who writes is a callable, `ask(messages) -> text`: a local system, a fake in a test. Endpoints are asked many at once
through `endpoints.batch.generate_many`, with its limits, retries and budget.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from annotation.formats.dialogues import Turn, clean, read_key, read_topic
from annotation.formats.problems import Findings, Place, TooManyProblems
from annotation.formats.source import RESPONSE_FORMATS, Source, sniff
from annotation.formats.tables import Columns, Row, read_rows
from models_runtime.endpoints.batch import Answered, Asks, Outcome, Patience, WorkItem, generate_many
from models_runtime.endpoints.budget import Budget
from models_runtime.endpoints.limiter import Limiter
from models_runtime.endpoints.values import Answer, Message
from models_runtime.engine.spec import digest_of
from training.corpus.errors import CorpusError, FolderTaken, SourceRefused
from training.corpus.formats import Dialogue
from training.corpus.rewriting import Checks, Question, Refused, Style, digest, messages, read_dialogue
from training.corpus.store import disk_errors

QUESTION_COLUMNS = Columns(required=("key", "question", "answer"), optional=("topic",))
ACCEPTED = "accepted"

Ask = Callable[[Sequence[Message]], str]
Progress = Callable[[int, int], None]  # questions that are done with, questions in all


class NoAnswer(Exception):
    """An `ask` got no text for this question, and the others may go on; `reason` is a stable word that is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_questions(source: Source) -> list[Question]:
    """Every row of a JSONL, CSV or XLSX file with the columns key, question, answer and, where known, topic.

    Raises SourceRefused if anything is wrong with the file.
    """
    findings = Findings()
    found = sniff(source) if source.path.exists() else None
    if found not in RESPONSE_FORMATS:
        raise SourceRefused(f"{source.name} is no file of questions (JSONL, CSV or XLSX)", [], 0)
    questions: dict[str, Question] = {}
    try:
        for place, row in read_rows(source, found, QUESTION_COLUMNS, findings):
            question = _question(place, row, findings)
            if question is not None and question.key in questions:
                findings.add(place, "duplicate_key", "key", key=question.key, first="above")
            elif question is not None:
                questions[question.key] = question
    except TooManyProblems:
        pass
    if not findings.problems and not questions:
        findings.add(source.place, "no_items")
    if findings.problems:
        first = findings.problems[0].place
        where = f": {first.unit} {first.number}" if first.number else ""
        raise SourceRefused(f"{source.name}{where} cannot be taken", findings.problems, len(findings.problems))
    return list(questions.values())


def _question(place: Place, row: Row, findings: Findings) -> Question | None:
    key = read_key(row.get("key"), place, "key", findings)
    topic = read_topic(row.get("topic"), place, "topic", findings)
    texts: list[str] = []
    for name in ("question", "answer"):
        raw = row.get(name)
        if not isinstance(raw, str):
            findings.add(place, "missing" if raw is None else "not_text", name)
        elif (text := clean(raw, place, name, findings)) == "":
            findings.add(place, "missing", name)
        elif text is not None:
            texts.append(text)
    return Question(key, topic, *texts) if key is not None and topic is not None and len(texts) == 2 else None


@dataclass
class Rewriting:
    """Questions, what is asked about them, and the attempts so far. Made by `open_attempts`.

    counts: attempts by what became of them: "accepted", or the reason of refusal.
    """

    path: Path
    questions: Mapping[str, Question]
    style: Style
    checks: Checks
    n_tries: int
    handle: int
    counts: Counter[str] = field(default_factory=Counter)
    _n_attempts: Counter[str] = field(default_factory=Counter)
    _accepted: set[str] = field(default_factory=set)

    @property
    def digest(self) -> str:
        return digest(self.style, self.checks)

    @property
    def n_done(self) -> int:
        """Questions with an accepted dialogue or no try left."""
        return sum(not self._is_pending(key) for key in self.questions)

    @property
    def n_accepted(self) -> int:
        return len(self._accepted)

    def n_attempts(self, key: str) -> int:
        """How often this question was asked so far."""
        return self._n_attempts[key]

    def pending(self) -> Iterator[WorkItem]:
        """What is to be asked, each question once; ask again for those that were refused and may be tried again."""
        for key, question in self.questions.items():
            if self._is_pending(key):
                yield WorkItem(key, messages(self.style, self.checks, question))

    def take(self, key: str, text: str, provenance: Mapping[str, Any] | None = None) -> tuple[Turn, ...] | None:
        """Note what was written about a question; its turns if they are accepted."""
        try:
            turns = read_dialogue(text, self.style, self.checks)
        except Refused as refused:
            self._note(key, refused.reason, text, None, provenance)
            return None
        self._note(key, ACCEPTED, text, turns, provenance)
        return turns

    def fail(self, key: str, reason: str, provenance: Mapping[str, Any] | None = None) -> None:
        """Note an attempt that brought no text."""
        self._note(key, reason, "", None, provenance)

    def dialogues(self) -> Iterator[Dialogue]:
        """The accepted dialogues, in the order in which they came."""
        for number, row in _rows(self.path):
            if row["result"] == ACCEPTED:
                question = self.questions[row["key"]]
                turns = tuple(Turn(role, text) for role, text in row["turns"])
                place = Place(self.path.name, "line", number)
                yield Dialogue(question.key, question.key, question.topic_label, turns, 0, place)

    def write_dialogues(self, path: Path) -> int:
        """The accepted dialogues as rows of ours, for cleaning and preparing; how many."""
        n = 0
        partial = path.with_name(f".{path.name}.partial")
        with disk_errors(path.parent), partial.open("w", encoding="utf-8") as file:
            for dialogue in self.dialogues():
                file.write(json.dumps(dialogue.to_row(), ensure_ascii=False) + "\n")
                n += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        return n

    def _is_pending(self, key: str) -> bool:
        return key not in self._accepted and self._n_attempts[key] < self.n_tries

    def _note(
        self, key: str, result: str, text: str, turns: tuple[Turn, ...] | None, provenance: Mapping[str, Any] | None
    ) -> None:
        row = {
            "key": key,
            "settings": self.digest,
            "question": _name(self.questions[key]),
            "result": result,
            "turns": turns,
            "text": text,
            "provenance": dict(provenance or {}),
        }
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        with disk_errors(self.path.parent):
            while data:
                data = data[os.write(self.handle, data) :]
            os.fsync(self.handle)
        self._count(key, result)

    def _count(self, key: str, result: str) -> None:
        self.counts[result] += 1
        self._n_attempts[key] += 1
        if result == ACCEPTED:
            self._accepted.add(key)


@contextmanager
def open_attempts(
    path: Path, questions: Sequence[Question], *, style: Style, checks: Checks, n_tries: int = 3
) -> Iterator[Rewriting]:
    """The file of attempts, made or gone on with; nobody else adds to it meanwhile.

    Raises FolderTaken if another run holds it; CorpusError if a line other than a half-written last one is no attempt,
    was made with another style or other checks, or about another text under the same key.
    """
    if n_tries < 1:
        raise CorpusError(f"{n_tries} tries are none; a question is asked at least once.")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderTaken(f"Another run is writing {path}; wait for it, or choose another file") from error
        rewriting = Rewriting(path, {question.key: question for question in questions}, style, checks, n_tries, handle)
        os.truncate(path, _whole_bytes(path))  # without the half of a line that a killed run left
        for number, row in _rows(path):
            _check(rewriting, number, row)
            rewriting._count(row["key"], row["result"])
        yield rewriting
    finally:
        os.close(handle)


def rewrite(
    rewriting: Rewriting,
    ask: Ask,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Progress = lambda _done, _total: None,
) -> None:
    """Ask about one question after the other until each has a dialogue or no try left.

    What `ask` raises ends the run, NoAnswer apart; the next run goes on from there.
    """
    for n_done, item in _again(rewriting):
        if should_stop():
            return
        on_progress(n_done, len(rewriting.questions))
        try:
            text = ask(item.messages)
        except NoAnswer as error:
            rewriting.fail(item.key, error.reason)
        else:
            rewriting.take(item.key, text)
    on_progress(rewriting.n_done, len(rewriting.questions))


def rewrite_by_endpoint(
    rewriting: Rewriting,
    client: Asks,
    new_limiter: Callable[[], Limiter],
    *,
    budget: Budget | None = None,
    patience: Patience | None = None,
    cancel: threading.Event | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> None:
    """The same through an endpoint, many at once; a limiter serves one pass over what is pending.

    Raises endpoints.batch.Stopped if the endpoint, the account or the budget says no; the next run goes on from there.
    """
    cancel = cancel or threading.Event()
    total = len(rewriting.questions)
    while not cancel.is_set() and rewriting.n_done < total:
        n_done = rewriting.n_done
        outcomes = generate_many(
            rewriting.pending(), client, new_limiter(), budget=budget, patience=patience, cancel=cancel
        )
        with closing(cast(Generator[Outcome], outcomes)):  # whatever happens here, its threads end first
            for outcome in outcomes:
                if not isinstance(outcome, Answered):
                    rewriting.fail(outcome.key, f"endpoint_{outcome.error.kind}")
                elif outcome.answer.is_withheld or outcome.answer.is_truncated:
                    reason = "withheld" if outcome.answer.is_withheld else "cut_at_limit"
                    rewriting.fail(outcome.key, reason, _provenance(outcome.answer))
                else:
                    rewriting.take(outcome.key, outcome.answer.text, _provenance(outcome.answer))
                n_done += not rewriting._is_pending(outcome.key)
                on_progress(n_done, total)


def _again(rewriting: Rewriting) -> Iterator[tuple[int, WorkItem]]:
    """Pending questions in order, each until it is done with."""
    n_done = rewriting.n_done
    for item in rewriting.pending():
        while rewriting._is_pending(item.key):
            yield n_done, item
        n_done += 1


def _provenance(answer: Answer) -> dict[str, Any]:
    usage = answer.usage._asdict() if answer.usage else None
    return {"model": answer.model, "fingerprint": answer.system_fingerprint, "usage": usage}


def _name(question: Question) -> str:
    return digest_of([question.question, question.answer])[:12]


def _whole_bytes(path: Path) -> int:
    """Up to and with the last line end."""
    size = 0
    with path.open("rb") as file:
        for line in file:
            size += len(line) if line.endswith(b"\n") else 0
    return size


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise CorpusError(f"{path}, line {number} is no attempt at rewriting; choose another file") from error


def _check(rewriting: Rewriting, number: int, row: Any) -> None:
    where = f"{rewriting.path}, line {number}"
    try:
        key, settings, question, _ = row["key"], row["settings"], row["question"], row["result"]
    except (KeyError, TypeError) as error:
        raise CorpusError(f"{where} is no attempt at rewriting; choose another file") from error
    if settings != rewriting.digest:
        raise CorpusError(f"{where} was made with another style or other checks; choose another file for these")
    if key not in rewriting.questions or question != _name(rewriting.questions[key]):
        raise CorpusError(f"{where} is about a question {key} that is not among these; choose another file")
