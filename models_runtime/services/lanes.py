"""one_at_a_time: jobs of one system, or of one endpoint, wait for each other, so that nothing is answered twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import transaction
from django.utils.translation import gettext_noop

from jobs import ledger
from jobs.errors import Postponed
from jobs.models import Job
from jobs.registry import RunningJob
from models_runtime.models import Lane

LOOK_SECONDS = 30.0  # between looks at the lane of a job that waits; whoever leaves the lane wakes it earlier
WAITING = gettext_noop("Waiting for another batch of this system or endpoint")


@contextmanager
def one_at_a_time(running: RunningJob, name: str, *, wake: Callable[[Job], None]) -> Iterator[None]:
    """Hold the lane, and afterwards `wake` the job that has waited for it longest.

    Raises Postponed while another living job holds it: a job that waits leaves its worker to others. Raises LostLease.
    """
    if not _take(running, name):
        raise Postponed
    try:
        yield
    finally:
        mine = Lane.objects.filter(name=name, job=running.claim.job_id, token=running.claim.token)
        if mine.update(job=None) and (waiting := ledger.wake(name)) is not None:
            wake(waiting)


@transaction.atomic
def _take(running: RunningJob, name: str) -> bool:
    """Whoever holds the lane and no longer runs under the same claim holds it no more.

    The lane's row is locked until the job is back in the queue, so whoever leaves the lane then finds it there.
    """
    Lane.objects.get_or_create(name=name)
    lane = Lane.objects.select_for_update().get(name=name)
    is_mine = lane.job_id == running.claim.job_id
    if not is_mine and Job.objects.filter(pk=lane.job_id or 0, state=Job.State.RUNNING, token=lane.token).exists():
        ledger.postpone(running.claim, waits_for=name, seconds=LOOK_SECONDS, message=WAITING)
        return False
    lane.job_id, lane.token = running.claim.job_id, running.claim.token
    lane.save()
    return True
