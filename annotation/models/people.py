"""User, Member, Invitation, ApiToken: who is here, in which role, and how they came in."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.querysets import InvitationQuerySet, MemberQuerySet


class Role(models.TextChoices):
    RATER = "rater", _("Rater")
    RESEARCHER = "researcher", _("Researcher")
    ADMIN = "admin", _("Admin")


def hash_token(token: str) -> str:
    """SHA-256 of a link's or API token's secret, in hex; the secret has 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A secret for a link or an API token: 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


class User(AbstractUser):
    """A person with exactly one role on this site."""

    role = models.CharField(max_length=16, choices=Role, default=Role.RATER)
    language = models.CharField(max_length=16, default="zh-hans")
    has_shortcuts = models.BooleanField(default=True)  # single-key shortcuts can be switched off (WCAG 2.1.4)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(role__in=Role.values), name="user_has_a_known_role"),
            models.CheckConstraint(
                condition=Q(is_staff=False, is_superuser=False) | Q(role=Role.ADMIN),
                name="only_admins_reach_django_admin",
            ),
        ]

    @property
    def is_rater(self) -> bool:
        return self.role == Role.RATER

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def is_site_staff(self) -> bool:
        """Researcher or admin: whoever sees more than a rater does."""
        return self.role in (Role.RESEARCHER, Role.ADMIN)


class Recognised(models.TextChoices):
    """Answers to "did you at any time believe you knew who had written a response?"."""

    NO = "no", _("No")
    SOMETIMES = "sometimes", _("Sometimes")
    OFTEN = "often", _("Often")
    UNSURE = "unsure", _("Don't know")


class Member(models.Model):
    """One seat in a study. A rater's seat exists before a person takes it, so the design can be drawn first.

    The counters are kept in the transaction that changes what they count, so no page recounts.
    """

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    study = models.ForeignKey("annotation.Study", models.PROTECT, related_name="members")
    user = models.ForeignKey("annotation.User", models.PROTECT, null=True, blank=True, related_name="seats")
    role = models.CharField(max_length=16, choices=[c for c in Role.choices if c[0] != Role.ADMIN])
    number = models.PositiveSmallIntegerField(null=True, blank=True)  # raters: 1, 2, …; shown as R1, R2
    dimension_order = models.JSONField(default=list)  # keys; differs between raters, fixed for one

    consented_at = models.DateTimeField(null=True, blank=True)
    consent_hash = models.CharField(max_length=64, blank=True)
    consent_language = models.CharField(max_length=16, blank=True)
    is_ready_for_sensitive = models.BooleanField(default=False)
    practice_set = models.PositiveSmallIntegerField(default=1)  # which of the practice sets comes next
    practice_passed_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)  # "I am done": no rating changes from here on
    authors_asked_at = models.DateTimeField(null=True, blank=True)  # "Who wrote this?" was answered or skipped
    guess = models.JSONField(null=True, blank=True)  # the exit question about blinding

    n_placements = models.PositiveIntegerField(default=0)
    n_final = models.PositiveIntegerField(default=0)
    n_flagged = models.PositiveIntegerField(default=0)
    active_ms = models.PositiveBigIntegerField(default=0)
    last_saved_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[models.Manager[Member]] = MemberQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["study", "user"], name="one_role_per_person_and_study"),
            models.UniqueConstraint(fields=["study", "number"], name="one_seat_per_rater_number"),
            models.CheckConstraint(
                condition=Q(role=Role.RATER, number__isnull=False)
                | Q(role=Role.RESEARCHER, number__isnull=True, user__isnull=False),
                name="raters_have_numbered_seats",
            ),
            models.CheckConstraint(
                condition=Q(n_final__lte=models.F("n_placements")), name="no_more_final_than_placed"
            ),
            models.CheckConstraint(
                condition=Q(finished_at__isnull=True) | Q(n_final=models.F("n_placements")),
                name="finished_raters_have_rated_all",
            ),
        ]

    def __str__(self) -> str:
        return self.code

    @property
    def code(self) -> str:
        """The pseudonym used on every page and in every export."""
        return f"R{self.number}" if self.number else "researcher"

    @property
    def n_left(self) -> int:
        return self.n_placements - self.n_final


class Invitation(models.Model):
    """A single-use link. Only its hash is kept; whoever holds the link takes the role it names."""

    token_hash = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=16, choices=Role)
    seat = models.ForeignKey(
        Member, models.PROTECT, null=True, blank=True, related_name="invitations"
    )  # the rater's seat it fills
    study = models.ForeignKey(
        "annotation.Study", models.PROTECT, null=True, blank=True, related_name="invitations"
    )  # the study a researcher joins
    user = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, related_name="sign_in_links"
    )  # set: a link that signs this person in again
    label = models.CharField(max_length=100, blank=True)
    created_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[models.Manager[Invitation]] = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(role=Role.RATER) | Q(seat__isnull=False) | Q(user__isnull=False),
                name="rater_invitation_names_a_seat",
            ),
            models.CheckConstraint(
                condition=Q(used_at__isnull=True, used_by__isnull=True)
                | Q(used_at__isnull=False, used_by__isnull=False),
                name="used_invitation_names_its_user",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.label}".strip()


class ApiToken(models.Model):
    """Read access for scripts. The secret is shown once; its hash is kept."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    token_hash = models.CharField(max_length=64, unique=True)
    last_four = models.CharField(max_length=4)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} …{self.last_four}"


class PracticeAnswer(models.Model):
    """What a rater answered to one practice item; never part of a study's ratings."""

    member = models.ForeignKey(Member, models.PROTECT, related_name="practice_answers")
    practice_set = models.PositiveSmallIntegerField()
    item_id = models.CharField(max_length=50)
    scores = models.JSONField()
    is_within_tolerance = models.BooleanField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["member", "practice_set", "item_id"], name="one_answer_per_practice_item")
        ]

    def __str__(self) -> str:
        return self.item_id
