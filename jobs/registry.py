"""Which function does the work of which kind of job.  @job registers one;  RunningJob is what it receives."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.functional import Promise

from jobs import ledger
from jobs.errors import UnknownKind
from jobs.explanations import Explanations, explain
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
    public_id: uuid.UUID = field(default_factory=uuid.uuid4)
    seconds_between_beats: float = 1.0
    _next_beat: float = field(default=0.0, init=False)
    _told: dict[str, Any] = field(default_factory=dict, init=False)
    _counts_anew: bool = field(default=False, init=False)

    def heartbeat(self, *, n_done: int | None = None, n_total: int | None = None, message: str | None = None) -> bool:
        """Say how far the work is; call it often. Whether it was written: if not, the next heartbeat writes it.

        Raises LostLease or CancelRequested: let them pass.
        """
        is_news = message not in (None, self._told.get("message")) or (n_done is not None and n_done == n_total)
        if n_done is not None:
            before = self._told.get("n_done")
            is_new_stage = message not in (None, self._told.get("message"))
            self._counts_anew |= before is None or n_done < before or is_new_stage
        told = {"n_done": n_done, "n_total": n_total, "message": message}
        self._told |= {name: value for name, value in told.items() if value is not None}
        now = time.monotonic()
        if now < self._next_beat and not is_news:
            return False
        self._next_beat = now + self.seconds_between_beats
        counts_anew, self._counts_anew = self._counts_anew, False
        ledger.heartbeat(self.claim, **self._told, counts_anew=counts_anew)
        return True

    def hold(self) -> None:
        """Renew the lease at once. In a transaction of yours: if the job is no longer yours, nothing is committed.

        Raises LostLease, but not CancelRequested: what is done already should be kept.
        """
        ledger.hold(self.claim)


def _nothing(job: Job) -> None:
    return None


def _always(job: Job) -> bool:
    return True


@dataclass(frozen=True)
class Kind:
    """A kind of job. `conclude` is called once more whenever such a job is over; `can_retry` before one is retried.

    explanations: a sentence in the reader's language for each error class of its own; see jobs.explanations.
    """

    name: str
    label: str | Promise
    run: Callable[[RunningJob], Result]
    conclude: Callable[[Job], None] = _nothing
    can_retry: Callable[[Job], bool] = _always
    explanations: Explanations = field(default_factory=dict)


_kinds: dict[str, Kind] = {}
_chores: list[Callable[[], None]] = []


def job(
    name: str,
    *,
    label: str | Promise = "",
    conclude: Callable[[Job], None] = _nothing,
    can_retry: Callable[[Job], bool] = _always,
    explanations: Explanations | None = None,
) -> Callable[[Callable[[RunningJob], Result]], Callable[[RunningJob], Result]]:
    """Register the decorated function as the handler of jobs of kind `name`; its result is stored with the job."""

    def register(run: Callable[[RunningJob], Result]) -> Callable[[RunningJob], Result]:
        if name in _kinds and _kinds[name].run.__qualname__ != run.__qualname__:
            raise ValueError(f"{name} has a handler already: {_kinds[name].run.__qualname__}")
        _kinds[name] = Kind(name, label or name, run, conclude, can_retry, explanations or {})
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


def sentence_of(job: Job) -> str:
    """What went wrong in the job's last attempt, in the reader's language; "" if nothing did."""
    own = _kinds[job.kind].explanations if job.kind in _kinds else {}
    return explain(job.error_class, own) if job.error_class else ""


def can_retry(job: Job) -> bool:
    """Whether a job that is over could be done again."""
    return job.kind in _kinds and _kinds[job.kind].can_retry(job)


def chores() -> tuple[Callable[[], None], ...]:
    return tuple(_chores)
