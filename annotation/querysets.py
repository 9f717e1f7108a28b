"""Chainable words, so that a query reads like a sentence: `Placement.objects.of(rater).open().in_order()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q, QuerySet
from django.utils import timezone

if TYPE_CHECKING:
    from annotation.models import Member, Study, User


class StudyQuerySet(QuerySet[Any]):
    def visible_to(self, user: User) -> Self:
        """Admins see all studies, researchers theirs, raters none (they meet a study through their seat)."""
        if user.is_admin:
            return self
        return self.filter(members__user=user, members__role="researcher") if user.is_site_staff else self.none()

    def drafts(self) -> Self:
        return self.filter(state="draft")

    def open(self) -> Self:
        return self.filter(state="open")


class MemberQuerySet(QuerySet[Any]):
    def raters(self) -> Self:
        return self.filter(role="rater").order_by("number")

    def researchers(self) -> Self:
        return self.filter(role="researcher")

    def of_user(self, user: User) -> Self:
        return self.filter(user=user)

    def active(self) -> Self:
        return self.filter(withdrawn_at__isnull=True)

    def rating(self) -> Self:
        """Those who may still rate: neither gone nor done."""
        return self.active().filter(finished_at__isnull=True)


class InvitationQuerySet(QuerySet[Any]):
    def usable(self) -> Self:
        return self.filter(used_at__isnull=True, revoked_at__isnull=True, expires_at__gt=timezone.now())


class ItemQuerySet(QuerySet[Any]):
    def answered_by(self, system_ids: list[int]) -> Self:
        """Items that every one of these systems has answered."""
        wanted = self
        for system_id in system_ids:
            wanted = wanted.filter(responses__system_id=system_id, responses__repeat=0)
        return wanted

    def with_reference(self) -> Self:
        return self.exclude(reference="")


class ResponseQuerySet(QuerySet[Any]):
    def first_of_each(self) -> Self:
        return self.filter(repeat=0)

    def with_disclosures(self) -> Self:
        return self.exclude(disclosures=[])

    def not_counted(self, cutting: str) -> Self:
        """Responses without counts, or with counts made in another way than this one."""
        return self.exclude(text_counts__cutting=cutting)


class TextCountsQuerySet(QuerySet[Any]):
    def made_by(self, cutting: str) -> Self:
        """Counts that were made in this way; see annotation/counting.py."""
        return self.filter(cutting=cutting)


class AssignmentQuerySet(QuerySet[Any]):
    def for_rater(self, rater: Member) -> Self:
        return self.filter(rater=rater)


class PlacementQuerySet(QuerySet[Any]):
    def of(self, rater: Member) -> Self:
        return self.filter(rater=rater)

    def of_user(self, user: User) -> Self:
        return self.filter(rater__user=user, rater__role="rater")

    def open(self) -> Self:
        return self.filter(state__lt=2)

    def done(self) -> Self:
        return self.filter(state__gte=2)

    def rated(self) -> Self:
        return self.filter(state=2)

    def in_order(self) -> Self:
        return self.order_by("queue")


class RatingQuerySet(QuerySet[Any]):
    def final(self) -> Self:
        """Ratings that count: submitted, and not of a rater who withdrew them."""
        return self.filter(placement__state=2)

    def in_study(self, study: Study) -> Self:
        return self.filter(placement__rater__study=study)

    def first_showing(self) -> Self:
        return self.filter(Q(placement__assignment__is_repeat=False))
