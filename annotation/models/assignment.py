"""Assignment and Placement: who rates what, in which order. Written once, when a study opens."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from annotation.models.people import Member
from annotation.models.study import StudyItem, StudyResponse
from annotation.querysets import AssignmentQuerySet, PlacementQuerySet


class Assignment(models.Model):
    """One item placed before one rater, its responses in slots."""

    rater = models.ForeignKey(Member, models.PROTECT, related_name="assignments")
    study_item = models.ForeignKey(StudyItem, models.PROTECT, related_name="assignments")
    is_repeat = models.BooleanField(default=False)  # shown a second time, unannounced
    notice_answered_at = models.DateTimeField(null=True, blank=True)  # the content notice: "open it"

    objects: ClassVar[models.Manager[Assignment]] = AssignmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["rater", "study_item", "is_repeat"], name="item_is_assigned_once_or_repeated_once"
            )
        ]

    def __str__(self) -> str:
        return str(self.pk)


class Placement(models.Model):
    """One response in one slot before one rater. `public_id` is all that the browser ever learns of it."""

    class State(models.IntegerChoices):
        OPEN = 0, "open"  # nothing saved yet
        DRAFT = 1, "draft"  # some scores saved
        FINAL = 2, "final"  # submitted; may still be revised while the study is open
        SKIPPED = 3, "skipped"  # the rater asked not to rate this content; paid

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    assignment = models.ForeignKey(Assignment, models.PROTECT, related_name="placements")
    rater = models.ForeignKey(Member, models.PROTECT, related_name="placements")  # = assignment.rater, for the index
    study_response = models.ForeignKey(StudyResponse, models.PROTECT, related_name="placements")
    slot = models.PositiveSmallIntegerField()  # 0 = A: the order of the responses to one item
    position = models.PositiveIntegerField()  # planned place in the rater's queue, from 0
    queue = models.PositiveBigIntegerField()  # present place; differs once the rater chose "later"

    state = models.PositiveSmallIntegerField(choices=State, default=State.OPEN)
    rev = models.PositiveIntegerField(default=0)
    is_flagged = models.BooleanField(default=False)
    note = models.TextField(blank=True)
    shown_at = models.DateTimeField(null=True, blank=True)  # first sent to the rater's browser
    saved_at = models.DateTimeField(null=True, blank=True)
    submitted_at = models.DateTimeField(null=True, blank=True)  # first time it became final
    active_ms = models.PositiveIntegerField(default=0)
    hidden_ms = models.PositiveIntegerField(default=0)
    idle_ms = models.PositiveIntegerField(default=0)

    objects: ClassVar[models.Manager[Placement]] = PlacementQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["assignment", "slot"], name="one_placement_per_slot"),
            models.UniqueConstraint(fields=["assignment", "study_response"], name="response_is_placed_once"),
            models.UniqueConstraint(fields=["rater", "position"], name="one_placement_per_position"),
            models.CheckConstraint(condition=Q(state__lte=3), name="placement_has_a_known_state"),
        ]
        indexes = [
            # "What comes next?" is the first entry of this index for the rater.
            models.Index(fields=["rater", "queue"], name="open_placements", condition=Q(state__lt=2)),
            models.Index(fields=["rater", "queue", "state"], name="placements_in_order"),
            models.Index(fields=["rater"], name="flagged_placements", condition=Q(is_flagged=True)),
        ]

    def __str__(self) -> str:
        return str(self.public_id)

    @property
    def is_done(self) -> bool:
        return self.state >= self.State.FINAL
