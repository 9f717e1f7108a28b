"""Ratings, given all at once: studies whose numbers a test knows beforehand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from annotation.models import Dimension, Placement, Rating, RatingEvent, Study, User

Value = Callable[[Placement, Dimension], int]


def rate(study: Study, value: Value | int = 1, *, only: Callable[[Placement], bool] = lambda _: True) -> None:
    """Submit every open placement for which `only` holds; `value` is the score, capped at the scale, or says which."""
    dimensions = list(study.rubric.dimensions.order_by("order"))
    placements = (
        Placement.objects.filter(rater__study=study, state=Placement.State.OPEN)
        .select_related("rater", "assignment__study_item__item", "study_response__arm")
        .order_by("pk")
    )
    chosen = [placement for placement in placements if only(placement)]
    start = timezone.now()
    for index, placement in enumerate(chosen):
        placement.state, placement.rev = Placement.State.FINAL, 1
        placement.shown_at = placement.saved_at = placement.submitted_at = start + timedelta(seconds=index)
        placement.active_ms = 1500
    Placement.objects.bulk_update(chosen, ["state", "rev", "shown_at", "saved_at", "submitted_at", "active_ms"])
    scores = {
        placement.pk: {d.key: value(placement, d) if callable(value) else min(value, d.highest) for d in dimensions}
        for placement in chosen
    }
    Rating.objects.bulk_create(
        Rating(placement=placement, dimension=d, value=scores[placement.pk][d.key])
        for placement in chosen
        for d in dimensions
    )
    RatingEvent.objects.bulk_create(
        RatingEvent(placement=placement, rev=1, scores=scores[placement.pk], state=Placement.State.FINAL)
        for placement in chosen
    )


def varied(placement: Placement, dimension: Dimension) -> int:
    """Scores that differ by item, arm and rater but repeat exactly; Safety is always 1."""
    if dimension.highest == 1:
        return 1
    arm = ord(placement.study_response.arm.code) - ord("A")
    number = placement.assignment.study_item.number
    return min(dimension.highest, (number * (arm + 2) + placement.rater.number * number // 3 + dimension.order) % 3)


def unblind(study: Study, by: User) -> None:
    """Close the study, freeze a plan and open the key."""
    now = timezone.now()
    study.state, study.closed_at = Study.State.CLOSED, now
    study.plan, study.plan_hash, study.plan_frozen_at = "plan", "0" * 64, now
    study.unblinded_at, study.unblinded_by = now, by
    study.save()
