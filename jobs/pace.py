"""pace: how fast a running job goes and how long it still takes, from what this attempt has done and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobs.models import Job

LEAST_SECONDS = 3.0  # from fewer seconds nothing is said


@dataclass(frozen=True)
class Pace:
    """Items per second and seconds left; None where nobody can know."""

    per_second: float | None = None
    seconds_left: float | None = None


def pace(job: Job, *, now: datetime) -> Pace:
    """The mean since the first count of this attempt and stage, until now: while nothing comes, it falls.

    What earlier attempts did does not count as speed, and neither does the time that loading took.
    """
    if job.state != Job.State.RUNNING or job.counted_since is None or job.counted_from is None:
        return Pace()
    seconds = (now - job.counted_since).total_seconds()
    n_new = job.n_done - job.counted_from
    if seconds < LEAST_SECONDS or n_new <= 0:
        return Pace()
    per_second = n_new / seconds
    left = None if job.n_total is None else max(0, job.n_total - job.n_done) / per_second
    return Pace(per_second, left)
