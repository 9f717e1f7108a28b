"""Answers from file to file, without a database: items in, one line of JSON for each response out, as they come.

The file of responses is its own ledger: what stands in it is done, and a run that ended early, however it ended, goes
on from there. Every line is written whole; the disk is asked to keep them (fsync) every few seconds and at the end, so
a power cut costs seconds of work, and a half-written last line is taken away before going on. A response that has to be
made again comes out the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from annotation.formats.problems import Findings, Problem, TooManyProblems
from annotation.formats.rows import read_items
from annotation.formats.source import Source, sniff
from jobs import launcher
from models_runtime.engine.prompts import Role, Turn
from models_runtime.engine.protocol import Work, WorkerJob, write_work
from models_runtime.engine.spec import digest_of

ROOT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_SYNCS = 5.0
KILL_SECONDS = 30.0  # for a killed process to be gone

Key = tuple[str, int]  # item and repeat
Message = dict[str, Any]


class AnsweringFailed(Exception):
    """It cannot go on; the message says why and what to do."""


class ItemsRefused(AnsweringFailed):
    """The file of items has problems; each names its place."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("The items cannot be used.")
        self.problems = problems


@dataclass(frozen=True)
class Outcome:
    """What a run did. is_stopped: somebody asked it to stop before all was done."""

    n_responses: int
    n_errors: int
    n_there_before: int
    is_stopped: bool
    counts: Mapping[str, Any] = field(default_factory=dict)


def read_questions(path: Path, repeats: int) -> list[Work]:
    """Every item of a JSONL, CSV or XLSX file, as often as asked. Raises ItemsRefused."""
    source, findings = Source(path, path.name), Findings()
    found = sniff(source)
    if found not in ("jsonl", "csv", "xlsx"):
        findings.add(source.place, "unknown_format", expected="jsonl, csv, xlsx")
        raise ItemsRefused(findings.problems)
    work: list[Work] = []
    places: dict[str, str] = {}
    with suppress(TooManyProblems):
        for item in read_items(source, found, findings):
            here = f"{item.place.unit} {item.place.number}"
            if item.key in places:
                findings.add(item.place, "duplicate_key", "key", key=item.key, first=places[item.key])
                continue
            places[item.key] = here
            turns = tuple(Turn(cast(Role, turn.role), turn.text) for turn in item.turns)
            work += [Work(item.key, repeat, turns) for repeat in range(repeats)]
    if not work and not findings.problems:
        findings.add(source.place, "no_items")
    if findings.problems:
        raise ItemsRefused(findings.problems)
    return work


@dataclass
class ResponsesFile:
    """The file that responses are added to. done: what stands in it, with the digest of the dialogue answered."""

    path: Path
    handle: int
    done: dict[Key, str] = field(default_factory=dict)
    known: Message | None = None  # provenance of the first line
    synced_at: float = 0.0

    def add(self, row: Message) -> None:
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        while data:
            data = data[os.write(self.handle, data) :]
        if time.monotonic() - self.synced_at > SECONDS_BETWEEN_SYNCS:
            os.fsync(self.handle)
            self.synced_at = time.monotonic()


@contextmanager
def responses_file(path: Path) -> Iterator[ResponsesFile]:
    """The file of responses, made or gone on with; nobody else adds to it meanwhile. None stays where none came.

    Raises AnsweringFailed if another run holds it, or a line other than a half-written last one is no response.
    """
    is_new = not path.exists()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise AnsweringFailed(f"{path} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AnsweringFailed(f"Another run is writing {path}. Wait for it, or choose another file.") from error
        responses = ResponsesFile(path, handle, synced_at=time.monotonic())
        _read_done(responses)
        try:
            yield responses
        finally:
            if is_new and not os.fstat(handle).st_size:
                path.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            os.fsync(handle)
        os.close(handle)


def _read_done(responses: ResponsesFile) -> None:
    end = 0
    with responses.path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break  # the run before ended in the middle of it
            end += len(line)
            try:
                row = json.loads(line)
                key, known = (row["item"], row.get("repeat", 0)), row["provenance"]
                digest, named = known["dialogue_digest"], (known["spec_digest"], known["seed"])
            except (ValueError, TypeError, KeyError) as error:
                raise AnsweringFailed(
                    f"{responses.path}, line {number} is no response of a run like this one. Choose another file."
                ) from error
            responses.known = responses.known or known
            if named != (responses.known["spec_digest"], responses.known["seed"]):
                raise AnsweringFailed(f"{responses.path}, line {number} is of another system or seed than line 1.")
            responses.done[key] = digest
    os.ftruncate(responses.handle, end)


def answer(
    job: WorkerJob,
    work: list[Work],
    responses: ResponsesFile,
    *,
    system: str,
    on_ready: Callable[[Message], None] = lambda message: None,
    on_error: Callable[[Message], None] = lambda message: None,
    on_progress: Callable[[int, int, float], None] = lambda n_done, n_total, seconds: None,
) -> Outcome:
    """Have a child process answer what is not in the file yet.

    job: its `items` and `expected_spec` are filled in here.  system: the name written beside each response.
    on_progress(n_done, n_total, seconds): of this run. Ctrl-C lets the child finish its step.

    Raises AnsweringFailed if the file holds responses of another system, seed or dialogue, or the child fails.
    """
    digests = {one.item: digest_of([turn._asdict() for turn in one.turns]) for one in work}
    for (item, _), digest in responses.done.items():
        if item in digests and digests[item] != digest:
            raise AnsweringFailed(
                f"{responses.path} answers another dialogue under the key {item!r}. Choose another file."
            )
    if responses.known:
        _check_same(job, responses.known, responses.path)
        job = replace(job, expected_spec=responses.known["spec_digest"])
    left = [one for one in work if (one.item, one.repeat) not in responses.done]
    if not left:
        return Outcome(0, 0, len(work), is_stopped=False)
    tally, last, started = {"response": 0, "error": 0}, {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qingting-") as folder:
        items, job_file = Path(folder, "items.jsonl"), Path(folder, "job.json")
        write_work(items, left)
        job_file.write_text(json.dumps(replace(job, items=items).to_json(), ensure_ascii=False), encoding="utf-8")
        with closing(child_messages("models_runtime.engine.worker", job_file)) as messages:
            for message in messages:
                kind, last = message["type"], message
                if kind == "ready":
                    on_ready(message)
                    started = time.monotonic()
                elif kind in tally:
                    tally[kind] += 1
                    if kind == "error":
                        on_error(message)
                    else:
                        responses.add(_row(message, system, digests[message["item"]]))
                    on_progress(sum(tally.values()), len(left), time.monotonic() - started)
    if last.get("type") not in ("done", "stopped"):
        raise AnsweringFailed(str(last.get("error") or "The answering process ended without a word; see above."))
    n_before = len(work) - len(left)
    return Outcome(tally["response"], tally["error"], n_before, last["type"] == "stopped", last["counts"])


def _row(message: Message, system: str, dialogue_digest: str) -> Message:
    """A line of the file, in the form that import_responses reads."""
    return {
        "item": message["item"],
        "system": system,
        "repeat": message["repeat"],
        "response": message["text"],
        "provenance": {**message["provenance"], "dialogue_digest": dialogue_digest},
    }


def _check_same(job: WorkerJob, known: Message, path: Path) -> None:
    """What can be compared before the weights are read. The child compares the rest."""
    if job.seed != known["seed"]:
        raise AnsweringFailed(f"{path} was begun with seed {known['seed']}. Give the same one, or choose another file.")
    spec = known.get("spec", {})
    asked: dict[str, Any] = {"decoding": job.decoding.to_json(), "dtype": job.dtype}
    if job.template:
        asked |= {"template_id": job.template.id, "template_version": job.template.version}
    for name, value in asked.items():
        if spec.get(name) != value:
            raise AnsweringFailed(
                f"{path} was begun with {name} {json.dumps(spec.get(name), ensure_ascii=False)}, not "
                f"{json.dumps(value, ensure_ascii=False)}. Ask for the same, or choose another file."
            )


def child_messages(module: str, job_file: Path) -> Generator[Message, None, int]:
    """What a child that runs this module says, and its exit code at last (below 0: the signal that ended it).

    It and all it started are gone when this ends, and if this process is killed.

    The first Ctrl-C lets the child finish its step; a second one raises KeyboardInterrupt as usual.
    """
    command = [sys.executable, "-m", module, str(job_file)]
    child = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-I", "-S", launcher.__file__, *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # the launcher's lifeline
        stdout=subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C reaches this process alone, which passes it on once
    )
    assert child.stdin is not None and child.stdout is not None  # noqa: S101 - both were asked for

    def stop(number: int, frame: Any) -> None:
        child.terminate()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    # A handler of its own, since an exception in the middle of readline would lose what was read of the line.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, stop) if is_main else None
    try:
        for line in child.stdout:
            yield json.loads(line)
        return child.wait(KILL_SECONDS)
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
        child.stdin.close()  # the lifeline: whatever is left is killed
        child.stdout.close()
        child.wait(KILL_SECONDS)
