"""The rating page's own endpoints: what comes next, what was before, save, answer a notice.

They speak of placements by their random ids only, and answer as the page expects: 200, 401 (signed out), 404 (not
yours or withdrawn), 409 (changed elsewhere), 422 (refused, with the field), 423 (paused or closed).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.api.permissions import IsRater
from annotation.models import Member
from annotation.selectors.rater import Card, card, next_card, previous_card, rating_seat
from annotation.services.ratings import Change, answer_notice, mark_shown, submit_rating
from annotation.views.access import person_of

MAX_HELD = 50  # cards the browser may name as being there already
MAX_INTERVAL_MS = 24 * 3600 * 1000  # a day: more cannot have passed between two saves of one page


class ChangeInput(serializers.Serializer[Any]):
    """A save. Unknown fields are ignored; ids of systems or raters have no place here."""

    op_id = serializers.UUIDField()
    base_rev = serializers.IntegerField(min_value=0, max_value=2**31 - 1)
    scores = serializers.DictField(child=serializers.JSONField(), allow_empty=True)
    is_final = serializers.BooleanField()
    note = serializers.CharField(required=False, allow_blank=True, allow_null=True, trim_whitespace=False)
    is_flagged = serializers.BooleanField(required=False, allow_null=True, default=None)
    active_ms = serializers.IntegerField(min_value=0, max_value=MAX_INTERVAL_MS, default=0)
    hidden_ms = serializers.IntegerField(min_value=0, max_value=MAX_INTERVAL_MS, default=0)
    idle_ms = serializers.IntegerField(min_value=0, max_value=MAX_INTERVAL_MS, default=0)
    holding = serializers.ListField(child=serializers.UUIDField(), max_length=MAX_HELD, required=False)


class NoticeInput(serializers.Serializer[Any]):
    answer = serializers.ChoiceField(choices=["open", "skip", "later"])


class RaterView(APIView):
    authentication_classes = [SessionAuthentication]
    permission_classes = [IsRater]


def _with_card(rater: Member, shown: Card | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    mark_shown(rater, shown)
    return shown.to_json()


@extend_schema(exclude=True)
class NextView(RaterView):
    """The next placement that the browser does not hold (`holding`: their ids)."""

    def get(self, request: Request, seat: UUID) -> Response:
        rater = rating_seat(person_of(request), seat)
        holding = serializers.ListField(child=serializers.UUIDField(), max_length=MAX_HELD).run_validation(
            request.query_params.getlist("holding")
        )
        shown = next_card(rater, besides=tuple(holding)) if _may_rate(rater) else None
        return Response(
            {"card": _with_card(rater, shown), "progress": {"n_done": rater.n_final, "n_total": rater.n_placements}}
        )


@extend_schema(exclude=True)
class CardView(RaterView):
    """One placement of one's own, with one's own scores."""

    def get(self, request: Request, seat: UUID, public_id: UUID) -> Response:
        rater = rating_seat(person_of(request), seat)
        return Response({"card": _with_card(rater, card(rater, public_id))})


@extend_schema(exclude=True)
class PreviousView(RaterView):
    """The placement rated before this one; `card` is null at the beginning."""

    def get(self, request: Request, seat: UUID, public_id: UUID) -> Response:
        rater = rating_seat(person_of(request), seat)
        return Response({"card": _with_card(rater, previous_card(rater, public_id))})


@extend_schema(exclude=True)
class RatingView(RaterView):
    """Save; answers with what stands, and with the next placement once this one is final."""

    def put(self, request: Request, public_id: UUID) -> Response:
        given = ChangeInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        holding = values.pop("holding", None)
        saved = submit_rating(user=person_of(request), public_id=public_id, change=Change(**values), holding=holding)
        answer = {
            "op_id": str(saved.op_id),
            "rev": saved.rev,
            "is_final": saved.is_final,
            "saved_at": saved.saved_at.isoformat(),
            "n_done": saved.n_done,
        }
        if holding is not None:
            answer["next"] = saved.following.to_json() if saved.following else None
        return Response(answer)


@extend_schema(exclude=True)
class NoticeView(RaterView):
    """Open, skip (paid) or move to the end an item announced by a content notice."""

    def post(self, request: Request, public_id: UUID) -> Response:
        given = NoticeInput(data=request.data)
        given.is_valid(raise_exception=True)
        answer_notice(user=person_of(request), public_id=public_id, answer=given.validated_data["answer"])
        return Response({"answer": given.validated_data["answer"]})


def _may_rate(rater: Member) -> bool:
    return bool(
        rater.study.is_open
        and rater.withdrawn_at is None
        and rater.consented_at
        and (rater.practice_passed_at or not rater.study.needs_practice)
    )


rating_urlpatterns = [
    path("seats/<uuid:seat>/next", NextView.as_view(), name="api_next"),
    path("seats/<uuid:seat>/placements/<uuid:public_id>", CardView.as_view(), name="api_card"),
    path("seats/<uuid:seat>/placements/<uuid:public_id>/previous", PreviousView.as_view(), name="api_previous"),
    path("placements/<uuid:public_id>/rating", RatingView.as_view(), name="api_rating"),
    path("placements/<uuid:public_id>/notice", NoticeView.as_view(), name="api_notice"),
]
