"""Small helpers for templates that show a job."""

from __future__ import annotations

from django import template

from jobs import registry
from jobs.models import Job

register = template.Library()


@register.filter
def sentence(job: Job) -> str:
    """Why the job's last attempt failed, in the reader's language; "" if it did not."""
    return registry.sentence_of(job)
