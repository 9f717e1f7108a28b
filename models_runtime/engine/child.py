"""A child process towards its parent: lines of JSON, a wish to stop, last words and an exit code. No torch in here."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from models_runtime.engine.protocol import NOBODY_READS

Message = dict[str, Any]
Failure = tuple[int, str, bool]  # exit code, class of the error, whether trying again would be in vain
Job = TypeVar("Job")


class Child:
    """This process. What libraries print goes to the log from now on, and standard output is the channel's alone."""

    def __init__(self) -> None:
        self.is_asked_to_stop = False
        self._channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # print() and C libraries now write to the log

    def emit(self, message: Message) -> None:
        self._channel.write(json.dumps(message, ensure_ascii=False, allow_nan=False) + "\n")
        self._channel.flush()

    def heed_signals(self) -> None:
        """From now on SIGTERM and SIGINT ask to stop, and do no more."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: Any) -> None:
        self.is_asked_to_stop = True

    def hang_up(self) -> None:
        """Nobody reads any more; without this the exit would complain once more."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._channel.fileno())


def as_child(
    body: Callable[[Child], int], failure_of: Callable[[Exception], Failure], *, traced: Collection[int]
) -> int:
    """The exit code of a process that does this.  traced: codes of failures whose traceback belongs in the log."""
    child = Child()
    try:
        return body(child)
    except BrokenPipeError:
        child.hang_up()
        return NOBODY_READS
    except Exception as error:
        failure = failure_of(error)
        if failure[0] in traced:
            traceback.print_exc()
        try:
            child.emit(last_words(error, failure))
        except BrokenPipeError:
            child.hang_up()
        return failure[0]


def last_words(error: BaseException, failure: Failure) -> Message:
    exit_code, error_class, is_final = failure
    said = str(error) or repr(error)
    return {"type": "failed", "error_class": error_class, "error": said, "is_final": is_final, "exit_code": exit_code}


def read_job(argv: Sequence[str], read: Callable[[Any], Job], bad: type[Exception], *, module: str) -> Job:
    """The job in the file that the arguments name. Raises `bad`, and what `read` raises for a wrong value."""
    if len(argv) != 1:
        raise bad(f"usage: python -m {module} JOB.json")
    try:
        return read(json.loads(Path(argv[0]).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise bad(f"{argv[0]} cannot be read: {error}") from error
