"""run_job(job_id), sweep: the only Celery tasks with logic of delivery. A message carries an id and is only a hint."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from jobs import ledger, registry
from jobs.errors import CancelRequested, ChildFailed, JobRefused, LostLease, Postponed, UnknownKind
from jobs.ledger import Claim
from jobs.logs import remove_logs
from jobs.models import Job
from jobs.registry import RunningJob

log = logging.getLogger(__name__)

HINT_AFTER = timedelta(seconds=5)  # a job that waits longer may have lost its hint
HINTS_PER_SWEEP = 20
PAUSE_SECONDS = 1.0  # between tries to write to a database that does not answer
KEEP_LOGS = timedelta(days=30)
HINT_LIFETIME_SECONDS = 60  # the next sweep sends it again; so hints do not pile up before a busy worker


def send_hint(job_id: int, queue: str = "default", *, expires: float | None = None) -> None:
    """Tell the workers of a queue that a job waits. If the broker is away, the next sweep tells them."""
    try:
        run_job.apply_async(args=[job_id], queue=queue, expires=expires, retry=False)
    except (BrokerError, OSError):
        log.warning("No hint was sent for job %s: the broker does not answer.", job_id, exc_info=True)


@shared_task(name="jobs.run_job")  # type: ignore[untyped-decorator]  # Celery has no types
def run_job(job_id: int) -> None:
    """Claim the job, do its work, write down how it ended. If it cannot be claimed, it is none of our business."""
    claim = ledger.claim(job_id, worker=f"{socket.gethostname()}:{os.getpid()}")
    if claim is None:
        return
    try:
        _run(claim)
    except LostLease:
        log.warning("Job %s was taken back while it ran; what it still did was not written.", job_id)
        return
    conclude(job_id)


def _run(claim: Claim) -> None:
    row = Job.objects.get(pk=claim.job_id)
    running = RunningJob(claim, row.kind, row.params, row.attempt, row.created_by_id, row.public_id)
    try:
        result = registry.kind_of(row.kind).run(running)
    except LostLease:
        raise
    except Postponed:
        pass
    except CancelRequested:
        _patiently(lambda: ledger.cancel(claim))
    except (JobRefused, UnknownKind) as error:
        refusal = error
        _patiently(lambda: ledger.fail(claim, error=refusal, result=getattr(refusal, "result", {}), is_final=True))
    except (SystemExit, KeyboardInterrupt):
        ledger.give_back(claim)  # should it not come through: the lease ends by itself
        raise
    except Exception as error:  # the boundary of all handlers: whatever went wrong must end up in the job's row
        log.exception("Job %s (%s) failed in attempt %s.", row.public_id, row.kind, row.attempt)
        failure, is_final = error, isinstance(error, ChildFailed) and error.is_final
        _patiently(lambda: ledger.fail(claim, error=failure, is_final=is_final))
    else:
        _patiently(lambda: ledger.finish(claim, result=result))


def _patiently(write: Callable[[], object]) -> None:
    """Write how it ended, again while the database does not answer: work that is done should not be done twice.

    Only for as long as a lease lasts; after that the job is somebody else's.
    """
    deadline = time.monotonic() + settings.JOB_LEASE_SECONDS
    while True:
        try:
            write()
            return
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or time.monotonic() > deadline:
                raise
            connection.close_if_unusable_or_obsolete()
            time.sleep(PAUSE_SECONDS)


@registry.chore
def remove_old_logs() -> None:
    remove_logs(before=timezone.now() - KEEP_LOGS)


def conclude(job_id: int) -> None:
    """If the job is over, let its kind put its things away. Doing so twice must do no harm."""
    row = Job.objects.get(pk=job_id)
    if row.is_over:
        try:
            kind = registry.kind_of(row.kind)
        except UnknownKind:
            return
        kind.conclude(row)


@shared_task(name="jobs.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Take back what dead workers held, hint again at what waits, do the chores."""
    now = timezone.now()
    swept = ledger.sweep(now=now)
    for job_id in (*swept.failed, *swept.cancelled):
        conclude(job_id)
    hinted = set(swept.requeued)
    queues = dict(Job.objects.filter(pk__in=hinted).values_list("pk", "queue"))
    queues |= dict(ledger.waiting(older_than=HINT_AFTER, at_most=HINTS_PER_SWEEP, now=now))
    for job_id, queue in queues.items():
        send_hint(job_id, queue, expires=HINT_LIFETIME_SECONDS)
    for chore in registry.chores():
        chore()
