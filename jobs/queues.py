"""Which queue a job waits in: `default`, or one for each GPU, so that a GPU does one thing at a time."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Count

from jobs.models import Job

DEFAULT = "default"


def gpu_queue() -> str:
    """The GPU queue with the fewest jobs waiting or running; DEFAULT where GPU_QUEUES names none."""
    names: list[str] = settings.GPU_QUEUES
    alive = Job.objects.filter(queue__in=names, state__in=[Job.State.QUEUED, Job.State.RUNNING])
    counts = dict(alive.order_by().values_list("queue").annotate(n=Count("pk")))
    return min(names, key=lambda name: counts.get(name, 0), default=DEFAULT)
