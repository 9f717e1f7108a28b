"""enqueue, claim, heartbeat, finish, fail, give_back, postpone, wake, cancel, sweep: each one conditional UPDATE.

    queued ──claim──► running ──finish──► done
      ▲  ▲              │ │ └──fail, attempts used up──► failed ──retry──► queued
      │  └──fail, sweep─┘ └──cancel──► cancelled ◄──request_cancel── queued

A worker that is told to stop puts its job back too (give_back), and so does one whose job must wait for another
(postpone). What failed waits a while before it can be claimed again (not_before), longer each time.

A claim raises the job's token. Every later write of that claim names the token, so a worker that was thought dead and
wakes up again writes nothing: its UPDATE finds no row, and it gets LostLease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from jobs.errors import CancelRequested, LostLease
from jobs.models import Job

State = Job.State
OVER = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Claim:
    """The right to run one job, until the lease ends. `token` fences it off from earlier and later claims."""

    job_id: int
    token: int


@dataclass
class Swept:
    """What a sweep found, as ids of jobs."""

    requeued: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)


def enqueue(
    *,
    kind: str,
    params: Mapping[str, Any],
    by_id: int | None = None,
    queue: str = "default",
    max_attempts: int = 3,
) -> Job:
    """A new job in the queue. The caller sends the hint once its transaction has committed."""
    return Job.objects.create(
        kind=kind, params=dict(params), queue=queue, max_attempts=max_attempts, created_by_id=by_id
    )


def claim(job_id: int, *, worker: str, lease_seconds: float | None = None) -> Claim | None:
    """Take a queued job; None if it is not to be had, since somebody else took it, ended it or is running it."""
    token = Job.objects.filter(pk=job_id, state=State.QUEUED).values_list("token", flat=True).first()
    if token is None:
        return None
    now = timezone.now()
    n_taken = Job.objects.filter(
        _is_due(now),
        pk=job_id,
        state=State.QUEUED,
        token=token,
        cancel_requested_at=None,
        attempt__lt=F("max_attempts"),
    ).update(
        state=State.RUNNING,
        token=token + 1,
        attempt=F("attempt") + 1,
        worker=worker[:120],
        lease_until=_lease_end(now, lease_seconds),
        started_at=now,
        not_before=None,
        waits_for="",
        n_done=0,
        n_total=None,
        counted_from=None,
        counted_since=None,
        message="",
        error_class="",
        error="",
    )
    return Claim(job_id, token + 1) if n_taken else None


def heartbeat(
    claim: Claim,
    *,
    n_done: int | None = None,
    n_total: int | None = None,
    message: str | None = None,
    counts_anew: bool = False,
    lease_seconds: float | None = None,
) -> None:
    """Renew the lease and note how far the work is. Raises LostLease, or CancelRequested where a person asked.

    counts_anew: speed is measured from this n_done on.
    """
    now = timezone.now()
    told = {"n_done": n_done, "n_total": n_total, "message": message and message[:500]}
    changes: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if counts_anew:
        changes |= {"counted_from": n_done, "counted_since": now}
    if not _held(claim).update(lease_until=_lease_end(now, lease_seconds), **changes):
        raise LostLease
    if _held(claim).filter(cancel_requested_at__isnull=False).exists():
        raise CancelRequested


def hold(claim: Claim) -> None:
    """Renew the lease, and in a transaction make sure that nobody who lost the job commits. Raises LostLease."""
    if not _held(claim).update(lease_until=_lease_end(timezone.now(), None)):
        raise LostLease


def finish(claim: Claim, *, result: Mapping[str, Any]) -> None:
    """The work is done. Raises LostLease."""
    _end(_held(claim), State.DONE, result=dict(result), message="")


def fail(claim: Claim, *, error: BaseException, result: Mapping[str, Any] | None = None, is_final: bool = False) -> str:
    """The work went wrong: back to the queue while attempts are left, unless `is_final`; the new state.

    The next attempt waits JOB_RETRY_SECONDS, and twice as long each time. Raises LostLease.
    """
    name = getattr(error, "error_class", "") or type(error).__name__
    told = {"error_class": name[:100], "error": str(error)[:4000]}
    if not is_final:
        held = _held(claim).filter(attempt__lt=F("max_attempts"), cancel_requested_at=None)
        attempt = held.values_list("attempt", flat=True).first() or 1
        later = timezone.now() + timedelta(seconds=settings.JOB_RETRY_SECONDS * 2 ** (attempt - 1))
        if held.update(state=State.QUEUED, lease_until=None, not_before=later, **told):
            return State.QUEUED
    _end(_held(claim), State.FAILED, result=dict(result or {}), **told)
    return State.FAILED


def give_back(claim: Claim) -> None:
    """The worker has to stop, for no fault of the job's: back to the queue, and the attempt does not count.

    Raises LostLease.
    """
    _put_back(claim)


def postpone(claim: Claim, *, waits_for: str, seconds: float, message: str) -> None:
    """The job has to wait for something: as give_back, and it begins again after `seconds`, or when woken.

    waits_for: a name; see wake.  message: the same in words, for a page. Raises LostLease.
    """
    later = timezone.now() + timedelta(seconds=seconds)
    _put_back(claim, not_before=later, waits_for=waits_for[:300], message=message[:500])


def wake(waits_for: str) -> Job | None:
    """The oldest job that was postponed for this, which may begin now. The caller sends the hint."""
    waiting = Job.objects.filter(state=State.QUEUED, waits_for=waits_for[:300])
    job = waiting.order_by("created_at").first()
    is_woken = job is not None and waiting.filter(pk=job.pk).update(not_before=None, waits_for="")
    return job if is_woken else None


def cancel(claim: Claim) -> None:
    """The worker stopped because it was asked to. Raises LostLease."""
    _end(_held(claim), State.CANCELLED)


def request_cancel(job_id: int) -> bool:
    """Ask for a job to end: at once if it waits, at its next heartbeat if it runs; whether it could be asked.

    It cannot if it is over, or while its worker is in a transaction that has the job's row: then it is about to be
    done, and nobody should wait for that.
    """
    now = timezone.now()
    with transaction.atomic():
        if not Job.objects.select_for_update(skip_locked=True).filter(pk=job_id).exists():
            return False
        waiting = Job.objects.filter(pk=job_id, state=State.QUEUED)
        running = Job.objects.filter(pk=job_id, state=State.RUNNING)
        return bool(
            waiting.update(state=State.CANCELLED, cancel_requested_at=now, finished_at=now)
            or running.update(cancel_requested_at=now)
        )


def retry(job_id: int) -> bool:
    """Put a failed or cancelled job back into the queue with all its attempts; whether that happened."""
    over = Job.objects.filter(pk=job_id, state__in=[State.FAILED, State.CANCELLED])
    return bool(
        over.update(
            state=State.QUEUED,
            attempt=0,
            not_before=None,
            waits_for="",
            cancel_requested_at=None,
            lease_until=None,
            started_at=None,
            finished_at=None,
            n_done=0,
            n_total=None,
            message="",
            result={},
            error_class="",
            error="",
        )
    )


def sweep(*, now: datetime | None = None) -> Swept:
    """Take back the jobs whose worker has been silent past its lease."""
    now = now or timezone.now()
    swept = Swept()
    silent = Job.objects.filter(state=State.RUNNING, lease_until__lt=now)
    for job_id, token in silent.values_list("pk", "token"):
        with transaction.atomic():
            # A worker in a long transaction of its own has renewed its lease in there: leave its row alone.
            if not Job.objects.select_for_update(skip_locked=True).filter(pk=job_id).exists():
                continue
            still = _held(Claim(job_id, token)).filter(lease_until__lt=now)
            told = {"error_class": "WorkerLost", "error": "", "lease_until": None}
            left = still.filter(attempt__lt=F("max_attempts"), cancel_requested_at=None)
            if still.filter(cancel_requested_at__isnull=False).update(
                state=State.CANCELLED, finished_at=now, lease_until=None
            ):
                swept.cancelled.append(job_id)
            elif left.update(state=State.QUEUED, **told):
                swept.requeued.append(job_id)
            elif still.update(state=State.FAILED, finished_at=now, **told):
                swept.failed.append(job_id)
    return swept


def waiting(*, older_than: timedelta, at_most: int, now: datetime | None = None) -> list[tuple[int, str]]:
    """(id, queue) of the jobs that could have begun longest ago; `older_than` counts from when they were made."""
    now = now or timezone.now()
    queued = Job.objects.filter(_is_due(now), state=State.QUEUED, created_at__lt=now - older_than)
    queued = queued.order_by(Coalesce("not_before", "created_at"))  # so what is postponed lets the others pass
    return list(queued.values_list("pk", "queue")[:at_most])


def _is_due(now: datetime) -> Q:
    return Q(not_before=None) | Q(not_before__lte=now)


def _held(claim: Claim) -> QuerySet[Job]:
    return Job.objects.filter(pk=claim.job_id, token=claim.token, state=State.RUNNING)


def _put_back(claim: Claim, **changes: Any) -> None:
    wanted = _held(claim).filter(cancel_requested_at=None)
    if not wanted.update(state=State.QUEUED, lease_until=None, attempt=F("attempt") - 1, **changes):
        _end(_held(claim), State.CANCELLED)


def _end(held: QuerySet[Job], state: str, **changes: Any) -> None:
    if not held.update(state=state, finished_at=timezone.now(), lease_until=None, **changes):
        raise LostLease


def _lease_end(now: datetime, lease_seconds: float | None) -> datetime:
    return now + timedelta(seconds=settings.JOB_LEASE_SECONDS if lease_seconds is None else lease_seconds)
