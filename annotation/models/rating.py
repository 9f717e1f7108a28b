"""Rating and RatingEvent: the value that stands for one placement and dimension, and all that led to it."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from annotation.models.assignment import Placement
from annotation.models.study import Dimension
from annotation.querysets import RatingQuerySet


class Rating(models.Model):
    """The value that stands. A trigger keeps it on its dimension's scale, whoever writes it."""

    placement = models.ForeignKey(Placement, models.PROTECT, related_name="ratings")
    dimension = models.ForeignKey(Dimension, models.PROTECT, related_name="ratings")
    value = models.PositiveSmallIntegerField()

    objects: ClassVar[models.Manager[Rating]] = RatingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["placement", "dimension"], name="one_rating_per_placement_and_dimension"),
        ]

    def __str__(self) -> str:
        return f"{self.dimension_id}={self.value}"


class RatingEvent(models.Model):
    """One acknowledged save. Append-only: triggers refuse UPDATE and DELETE on both engines."""

    op_id = models.UUIDField(default=uuid.uuid4, unique=True)
    placement = models.ForeignKey(Placement, models.PROTECT, related_name="events")
    rev = models.PositiveIntegerField()  # the placement's revision after this save
    scores = models.JSONField()  # {dimension key: value}
    note = models.TextField(blank=True)
    is_flagged = models.BooleanField(default=False)
    state = models.PositiveSmallIntegerField(choices=Placement.State)
    active_ms = models.PositiveIntegerField(default=0)  # since the save before, as counted by the browser
    hidden_ms = models.PositiveIntegerField(default=0)
    idle_ms = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["placement", "rev"], name="one_event_per_revision"),
            models.CheckConstraint(condition=Q(rev__gte=1), name="revisions_start_at_one"),
        ]

    def __str__(self) -> str:
        return str(self.op_id)
