"""Rubric, Dimension, Study and its parts: what is asked, of whom, on which scale."""

from __future__ import annotations

import secrets
import uuid
from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.item import Item, Response, System
from annotation.querysets import StudyQuerySet


def draw_seed() -> int:
    """A fresh seed, 0 … 2**53 - 1: every such number survives JSON and spreadsheets unchanged."""
    return secrets.randbelow(2**53)


class Rubric(models.Model):
    """One version of the criteria. Ratings point at the version they were given under."""

    slug = models.SlugField(max_length=40)
    version = models.CharField(max_length=20)  # semantic: 1.0.0
    title = models.JSONField()  # {"zh": str, "en": str}, as in all texts of a rubric
    intro = models.JSONField()
    source = models.JSONField(default=dict)
    content_hash = models.CharField(max_length=64)  # SHA-256 of the whole content file
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["slug", "version"], name="one_rubric_per_version")]

    def __str__(self) -> str:
        return f"{self.slug} {self.version}"


class Dimension(models.Model):
    """One criterion with its scale (0 … highest) and an anchor for every point."""

    rubric = models.ForeignKey(Rubric, models.PROTECT, related_name="dimensions")
    key = models.SlugField(max_length=40)
    order = models.PositiveSmallIntegerField()
    highest = models.PositiveSmallIntegerField()  # the scale is 0, 1, …, highest
    name = models.JSONField()
    definition = models.JSONField()
    anchors = models.JSONField()  # [{"zh", "en"}] indexed by scale point
    considerations = models.JSONField(default=dict)
    examples = models.JSONField(default=list)

    class Meta:
        ordering = ["rubric", "order"]
        constraints = [
            models.UniqueConstraint(fields=["rubric", "key"], name="one_dimension_per_key"),
            models.CheckConstraint(condition=Q(highest__gte=1, highest__lte=9), name="scale_has_two_to_ten_points"),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def scale(self) -> tuple[int, ...]:
        return tuple(range(self.highest + 1))


class Study(models.Model):
    """One evaluation: rubric, items, systems, raters. It opens, closes and is unblinded, in this order."""

    class State(models.TextChoices):
        DRAFT = "draft", _("Draft")
        OPEN = "open", _("Open")
        PAUSED = "paused", _("Paused")
        CLOSED = "closed", _("Closed")

    class Presentation(models.TextChoices):
        BLOCKED = "blocked", _("Blocked: the responses to one dialogue follow one another")
        INTERLEAVED = "interleaved", _("Interleaved: responses to one dialogue lie apart")

    class DisclosurePolicy(models.TextChoices):
        KEEP = "keep", _("Keep: show the response as it is")
        MASK = "mask", _("Mask: put a neutral mark in place of the name")
        DROP = "drop", _("Drop: leave the whole item out")

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(_("name"), max_length=120)
    state = models.CharField(max_length=16, choices=State, default=State.DRAFT)
    rubric = models.ForeignKey(Rubric, models.PROTECT, related_name="studies")
    seed = models.PositiveBigIntegerField(default=draw_seed)  # all randomness of the study comes from it
    raters_per_item = models.PositiveSmallIntegerField(
        _("raters per item"), default=3, validators=[MinValueValidator(1), MaxValueValidator(50)]
    )
    presentation = models.CharField(
        _("presentation"), max_length=16, choices=Presentation, default=Presentation.BLOCKED
    )
    min_gap = models.PositiveSmallIntegerField(
        _("smallest gap"), default=8, validators=[MinValueValidator(1), MaxValueValidator(200)]
    )  # responses between two of one dialogue, interleaved only
    repeat_percent = models.DecimalField(
        _("hidden repeats, %"),
        max_digits=4,
        decimal_places=1,
        default=Decimal("5.0"),
        validators=[MinValueValidator(0), MaxValueValidator(20)],
    )
    disclosure_policy = models.CharField(
        _("self-disclosure"), max_length=8, choices=DisclosurePolicy, default=DisclosurePolicy.MASK
    )
    needs_practice = models.BooleanField(_("practice before rating"), default=True)

    pay_currency = models.CharField(_("currency"), max_length=3, default="USD")
    pay_per_response = models.DecimalField(
        _("pay per response"),
        max_digits=8,
        decimal_places=3,
        default=Decimal("0.418"),
        validators=[MinValueValidator(0)],
    )
    expected_seconds = models.PositiveIntegerField(
        _("expected seconds per response"),
        default=180,
        validators=[MinValueValidator(1), MaxValueValidator(3600)],
    )
    pay_floor_per_hour = models.DecimalField(
        _("lowest hourly pay"),
        max_digits=8,
        decimal_places=2,
        default=Decimal("8.00"),
        validators=[MinValueValidator(0)],
    )
    consent = models.JSONField(default=dict)  # {"title", "body", "sensitive_tick", "agree_tick"}: {"zh", "en"}
    contact = models.CharField(_("study contact"), max_length=200, blank=True)
    retention = models.CharField(_("data kept until"), max_length=200, blank=True)
    is_demo = models.BooleanField(default=False)

    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    design_hash = models.CharField(max_length=64, blank=True)  # SHA-256 of who rates what in which order
    n_masked = models.PositiveIntegerField(default=0)  # responses with at least one mask
    n_dropped = models.PositiveIntegerField(default=0)  # items left out by the disclosure policy
    closed_at = models.DateTimeField(null=True, blank=True)
    plan = models.TextField(blank=True)  # the analysis plan
    plan_hash = models.CharField(max_length=64, blank=True)
    plan_frozen_at = models.DateTimeField(null=True, blank=True)
    unblinded_at = models.DateTimeField(null=True, blank=True)
    unblinded_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")

    objects: ClassVar[models.Manager[Study]] = StudyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "studies"
        constraints = [
            models.CheckConstraint(
                condition=Q(state="draft", opened_at__isnull=True) | (~Q(state="draft") & Q(opened_at__isnull=False)),
                name="study_past_draft_was_opened",
            ),
            models.CheckConstraint(
                condition=Q(unblinded_at__isnull=True) | Q(state="closed", plan_frozen_at__isnull=False),
                name="unblinded_study_is_closed_with_a_frozen_plan",
            ),
            models.CheckConstraint(
                condition=Q(plan_frozen_at__isnull=True) | ~Q(plan_hash=""), name="frozen_plan_has_a_hash"
            ),
            models.CheckConstraint(
                condition=Q(repeat_percent__gte=0, repeat_percent__lte=20), name="repeats_are_0_to_20_percent"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_draft(self) -> bool:
        return self.state == self.State.DRAFT

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN

    @property
    def is_closed(self) -> bool:
        return self.state == self.State.CLOSED

    @property
    def is_unblinded(self) -> bool:
        return self.unblinded_at is not None


class Arm(models.Model):
    """One system in one study. Its code (A, B, …) is all that anyone sees of it before unblinding."""

    study = models.ForeignKey(Study, models.CASCADE, related_name="arms")
    system = models.ForeignKey(System, models.PROTECT, related_name="arms")
    code = models.CharField(max_length=2, null=True, blank=True)  # drawn at opening

    class Meta:
        ordering = ["study", "code", "id"]
        constraints = [
            models.UniqueConstraint(fields=["study", "system"], name="one_arm_per_system"),
            models.UniqueConstraint(fields=["study", "code"], name="one_arm_per_code"),
        ]

    def __str__(self) -> str:
        return self.code or "?"


class StudyItem(models.Model):
    """An item drawn into a study."""

    study = models.ForeignKey(Study, models.CASCADE, related_name="study_items")
    item = models.ForeignKey(Item, models.PROTECT, related_name="study_items")
    number = models.PositiveIntegerField()  # order of drawing; researchers see it, raters do not

    class Meta:
        ordering = ["study", "number"]
        constraints = [
            models.UniqueConstraint(fields=["study", "item"], name="item_is_in_study_once"),
            models.UniqueConstraint(fields=["study", "number"], name="one_study_item_per_number"),
        ]

    def __str__(self) -> str:
        return str(self.number)


class StudyResponse(models.Model):
    """A response as this study shows it. A rater's page is made from this row and never follows its keys."""

    study_item = models.ForeignKey(StudyItem, models.PROTECT, related_name="study_responses")
    arm = models.ForeignKey(Arm, models.PROTECT, related_name="study_responses")
    response = models.ForeignKey(Response, models.PROTECT, related_name="study_responses")
    text = models.TextField()  # after the study's disclosure policy
    n_masks = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["study_item", "arm"], name="one_shown_response_per_item_and_arm")
        ]

    def __str__(self) -> str:
        return str(self.pk)
