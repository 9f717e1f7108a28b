"""What the commands import_items and import_responses share: arguments, progress, the list of problems."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.utils.translation import gettext

from annotation import problems
from annotation.errors import DomainError
from annotation.formats.problems import Problem
from annotation.formats.source import Source
from annotation.models import User
from annotation.services.importing import ImportResult

SECONDS_BETWEEN_LINES = 0.5


def add_common(parser: ArgumentParser, formats: tuple[str, ...]) -> None:
    parser.add_argument("dataset", help="slug of the dataset")
    parser.add_argument("path", help="the file, or the folder of a SMILECHAT release")
    parser.add_argument("--format", choices=formats, help="default: found out from the content")
    parser.add_argument("--by", metavar="USERNAME", help="who does this, for the log of acts")


def source_at(path: str) -> Source:
    """The source at a path. Raises CommandError if there is nothing to read."""
    found = Path(path)
    if not found.exists():
        raise CommandError(f"There is no file or folder {problems.plain(path, limit=300)}.")
    return Source(found, found.resolve().name)


def user_named(name: str | None) -> User | None:
    """The person of that name. Raises CommandError if there is none."""
    if name is None:
        return None
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user {problems.plain(name)}.")
    return user


class ProgressLine:
    """One line on a terminal that is written over; silent where nobody watches."""

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self._is_watched = stream.isatty()
        self._next = 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._is_watched and now >= self._next:
            self._next = now + SECONDS_BETWEEN_LINES
            of = f" / {total}" if total is not None else ""
            self._stream.write(f"\r\033[K{gettext(stage)} {done}{of}", ending="")
            self._stream.flush()

    def end(self) -> None:
        if self._is_watched:
            self._stream.write("\r\033[K", ending="")


def report(result: ImportResult) -> str:
    """One line: what came in."""
    told = ", ".join(f"{name} {value}" for name, value in result.counts.items())
    if result.is_repeat:
        return f"Nothing changed: this file came in before, {result.record.created_at:%Y-%m-%d %H:%M} ({told})"
    return f"Done: {told}"


def refused(error: DomainError) -> CommandError:
    """All problems, one on a line; exit code 1."""
    found: list[dict[str, Any]] = error.detail.get("problems", [])
    lines = [problems.sentence(Problem.from_json(problem)) for problem in found] or [error.message]
    return CommandError("\n".join(["Nothing was taken in.", *(f"  {line}" for line in lines)]), returncode=1)
