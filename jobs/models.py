"""Job: one row for each piece of work done in the background. The table is the queue; messages are hints."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _


class Job(models.Model):
    """Kind, parameters, state, lease, fencing token, attempt, progress, error class."""

    class State(models.TextChoices):
        QUEUED = "queued", _("Waiting")
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(max_length=60)
    params = models.JSONField(default=dict)  # ids and options; never a secret
    queue = models.CharField(max_length=60, default="default")
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    token = models.PositiveIntegerField(default=0)  # fencing: grows with every claim; older holders cannot write
    worker = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    not_before = models.DateTimeField(null=True, blank=True)  # while it waits: nobody takes it earlier
    waits_for = models.CharField(max_length=300, blank=True)  # what a postponed job waits for
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    n_done = models.PositiveBigIntegerField(default=0)
    n_total = models.PositiveBigIntegerField(null=True, blank=True)
    counted_from = models.PositiveBigIntegerField(null=True, blank=True)  # n_done when this attempt, or stage, began
    counted_since = models.DateTimeField(null=True, blank=True)
    message = models.CharField(max_length=500, blank=True)  # what it is at, in words
    result = models.JSONField(default=dict)
    error_class = models.CharField(max_length=100, blank=True)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state="running") | Q(lease_until__isnull=False), name="running_job_has_a_lease"
            ),
            models.CheckConstraint(condition=Q(attempt__lte=F("max_attempts")), name="attempts_are_capped"),
        ]
        indexes = [
            models.Index(fields=["queue", "created_at"], name="waiting_jobs", condition=Q(state="queued")),
            models.Index(fields=["lease_until"], name="running_jobs", condition=Q(state="running")),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.public_id}"

    @property
    def is_over(self) -> bool:
        return self.state in (self.State.DONE, self.State.FAILED, self.State.CANCELLED)
