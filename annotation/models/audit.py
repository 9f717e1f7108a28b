"""AuditEvent: what was done to studies and people, append-only and hash-chained."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class AuditEvent(models.Model):
    """One act. `hash` covers the event and the hash before it, so a removed or changed line shows."""

    at = models.DateTimeField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    action = models.CharField(max_length=60)  # e.g. "study.opened"
    study = models.ForeignKey("annotation.Study", models.PROTECT, null=True, related_name="audit_events")
    detail = models.JSONField(default=dict)  # ids, counts and hashes; never text of dialogues or secrets
    previous_hash = models.CharField(max_length=64, unique=True)  # unique: the chain cannot fork
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.action} {self.at:%Y-%m-%d %H:%M}"
