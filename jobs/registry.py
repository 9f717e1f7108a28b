"""Which function does the work of which kind of job.  @job registers one;  RunningJob is what it receives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.functional import Promise

from jobs import ledger
from jobs.errors import UnknownKind
from jobs.ledger import Claim
from jobs.models import Job

Result = Mapping[str, Any]


@dataclass
class RunningJob:
    """A job in the hands of its handler.

    seconds_between_beats: more frequent heartbeats are not written, but for those with a new message or the last one.
    """

    claim: Claim
    kind: str
    params: dict[str, Any]
    attempt: int
    created_by_id: int | None
    seconds_between_beats: float = 1.0
    _next_beat: float = field(default=0.0, init=False)
    _message: str | None = field(default=None, init=False)

    def heartbeat(self, *, n_done: int | None = None, n_total: int | None = None, message: str | None = None) -> None:
        """Say how far the work is; call it often. Raises LostLease or CancelRequested: let them pass."""
        now = time.monotonic()
        is_news = message != self._message or (n_done is not None and n_done == n_total)
        if now >= self._next_beat or is_news:
            self._next_beat, self._message = now + self.seconds_between_beats, message
            ledger.heartbeat(self.claim, n_done=n_done, n_total=n_total, message=message)


def _nothing(job: Job) -> None:
    return None


def _always(job: Job) -> bool:
    return True


@dataclass(frozen=True)
class Kind:
    """A kind of job. `conclude` is called once more whenever such a job is over; `can_retry` before one is retried."""

    name: str
    label: str | Promise
    run: Callable[[RunningJob], Result]
    conclude: Callable[[Job], None] = _nothing
    can_retry: Callable[[Job], bool] = _always


_kinds: dict[str, Kind] = {}
_chores: list[Callable[[], None]] = []


def job(
    name: str,
    *,
    label: str | Promise = "",
    conclude: Callable[[Job], None] = _nothing,
    can_retry: Callable[[Job], bool] = _always,
) -> Callable[[Callable[[RunningJob], Result]], Callable[[RunningJob], Result]]:
    """Register the decorated function as the handler of jobs of kind `name`; its result is stored with the job."""

    def register(run: Callable[[RunningJob], Result]) -> Callable[[RunningJob], Result]:
        if name in _kinds and _kinds[name].run.__qualname__ != run.__qualname__:
            raise ValueError(f"{name} has a handler already: {_kinds[name].run.__qualname__}")
        _kinds[name] = Kind(name, label or name, run, conclude, can_retry)
        return run

    return register


def chore(run: Callable[[], None]) -> Callable[[], None]:
    """Register a short piece of tidying that every sweep does."""
    _chores.append(run)
    return run


def kind_of(name: str) -> Kind:
    """Raises UnknownKind: a job of a later version, or of an app that is not installed."""
    try:
        return _kinds[name]
    except KeyError:
        raise UnknownKind(name) from None


def label_of(name: str) -> str:
    """The kind in words; its name if nobody knows it."""
    return str(_kinds[name].label) if name in _kinds else name


def can_retry(job: Job) -> bool:
    """Whether a job that is over could be done again."""
    return job.kind in _kinds and _kinds[job.kind].can_retry(job)


def chores() -> tuple[Callable[[], None], ...]:
    return tuple(_chores)
