"""Read access for scripts: studies, their ratings and their scores, by session or token.

Fields are listed one by one, so nothing joins an answer by accident. Systems are named after unblinding only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from django.db.models import Count, QuerySet, Sum
from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.api.permissions import IsStaffRole
from annotation.export import FORMATS, prepare_export, result_columns, result_rows
from annotation.models import Study, User
from annotation.reports import study_report
from annotation.tables import arm_labels


class StudyOutput(serializers.Serializer[Any]):
    """One study as a list shows it."""

    public_id = serializers.UUIDField()
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=Study.State.choices)
    rubric = serializers.CharField(help_text="Slug and version.")
    is_unblinded = serializers.BooleanField()
    n_items = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    opened_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)


class ArmOutput(serializers.Serializer[Any]):
    """One arm; both names are empty until the study is unblinded."""

    code = serializers.CharField()
    system_slug = serializers.CharField(allow_blank=True)
    system_name = serializers.CharField(allow_blank=True)


class DimensionOutput(serializers.Serializer[Any]):
    """One dimension with its scale."""

    key = serializers.CharField()
    name = serializers.DictField(child=serializers.CharField(), help_text="zh and en.")
    scale = serializers.ListField(child=serializers.IntegerField())


class StudyDetailOutput(StudyOutput):
    """One study with its arms, its dimensions and how far it is."""

    raters_per_item = serializers.IntegerField()
    design_hash = serializers.CharField()
    arms = ArmOutput(many=True)
    dimensions = DimensionOutput(many=True)
    n_placements = serializers.IntegerField(help_text="Planned ratings, hidden repeats included.")
    n_done = serializers.IntegerField(help_text="Of these, submitted or skipped.")


class ResultOutput(serializers.Serializer[Any]):
    """One number with its interval, counts and signature."""

    metric = serializers.CharField()
    dimension = serializers.CharField()
    dataset = serializers.CharField(allow_blank=True, help_text="Empty: all together.")
    arm = serializers.CharField(allow_blank=True, help_text="Empty: all together.")
    system = serializers.CharField(required=False, help_text="After unblinding only.")
    system_name = serializers.CharField(required=False, help_text="After unblinding only.")
    topic = serializers.CharField(allow_blank=True, help_text="Empty: all together.")
    rater = serializers.CharField(allow_blank=True, help_text="Empty: all together.")
    part = serializers.CharField(allow_blank=True, help_text="Which point or which pair of raters.")
    value = serializers.FloatField(allow_null=True, help_text="Null: undefined, see reason.")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    notes = serializers.CharField(allow_blank=True)
    n_items = serializers.IntegerField(allow_null=True)
    n_responses = serializers.IntegerField(allow_null=True)
    n_responses_used = serializers.IntegerField(allow_null=True)
    n_ratings = serializers.IntegerField(allow_null=True)
    n_raters = serializers.IntegerField(allow_null=True)
    n_clusters = serializers.IntegerField(allow_null=True, help_text="Dialogues.")
    n_pairs = serializers.IntegerField(allow_null=True, help_text="Of response and reference.")
    n_resamples = serializers.IntegerField(allow_null=True)
    n_undefined_resamples = serializers.IntegerField(allow_null=True)
    method = serializers.CharField()
    signature = serializers.CharField()


class ScoresOutput(serializers.Serializer[Any]):
    """Scores and agreement as they are now."""

    study = serializers.UUIDField()
    is_unblinded = serializers.BooleanField()
    n_responses = serializers.IntegerField()
    n_responses_complete = serializers.IntegerField(help_text="Rated by everyone who was to rate them.")
    computed_at = serializers.CharField(help_text="ISO 8601, UTC.")
    scores = ResultOutput(many=True)
    agreement = ResultOutput(many=True)


class _OwnFormat(DefaultContentNegotiation):
    """`format` names a file format here, so the framework must not choose a renderer by it."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class StaffView(APIView):
    permission_classes = [IsStaffRole]
    content_negotiation_class = _OwnFormat

    def studies(self) -> QuerySet[Study]:
        """Those the caller may see; all others do not exist for them."""
        studies: QuerySet[Study] = Study.objects.visible_to(cast("User", self.request.user))
        return (
            studies.select_related("rubric")
            .annotate(n_items=Count("study_items", distinct=True))
            .order_by("-created_at", "pk")
        )

    def study(self, public_id: UUID) -> Study:
        study: Study = get_object_or_404(self.studies(), public_id=public_id)
        return study

    def file(self, study: Study, kind: str, file_format: str) -> StreamingHttpResponse:
        """The answer that carries a file. Raises ValidationError for a format there is not."""
        if file_format not in FORMATS:
            raise serializers.ValidationError(
                {"format": _("Choose one of: %(formats)s.") % {"formats": ", ".join(FORMATS)}}
            )
        user = cast("User", self.request.user)
        export = prepare_export(study=study, kind=kind, file_format=file_format, by=user)
        return StreamingHttpResponse(export.parts(), content_type=export.content_type, headers=export.headers)


def _format(default: str) -> OpenApiParameter:
    choices = sorted({default, *FORMATS})
    return OpenApiParameter(
        "format",
        str,
        enum=choices,
        default=default,
        description="“csv” is safe for spreadsheets, “csv-exact” and “jsonl” hold every text as it is.",
    )


class StudyListView(StaffView):
    @extend_schema(summary="Studies you may see", responses=StudyOutput(many=True))
    def get(self, request: Request) -> Response:
        return Response(StudyOutput(self.studies(), many=True).data)


class StudyDetailView(StaffView):
    @extend_schema(summary="One study", responses=StudyDetailOutput)
    def get(self, request: Request, public_id: UUID) -> Response:
        study = self.study(public_id)
        done = study.members.raters().order_by().aggregate(placed=Sum("n_placements"), done=Sum("n_final"))
        output = StudyOutput(study).data | {
            "raters_per_item": study.raters_per_item,
            "design_hash": study.design_hash,
            "arms": ArmOutput(arm_labels(study), many=True).data,
            "dimensions": DimensionOutput(study.rubric.dimensions.order_by("order"), many=True).data,
            "n_placements": done["placed"] or 0,
            "n_done": done["done"] or 0,
        }
        return Response(output)


class StudyRatingsView(StaffView):
    @extend_schema(
        summary="All submitted ratings, one value per row",
        parameters=[_format("jsonl")],
        responses={(200, "application/x-ndjson"): OpenApiResponse(OpenApiTypes.BINARY, "A streamed file.")},
    )
    def get(self, request: Request, public_id: UUID) -> HttpResponseBase:
        return self.file(self.study(public_id), "ratings", request.query_params.get("format", "jsonl"))


class StudyScoresView(StaffView):
    @extend_schema(
        summary="Means by arm and agreement, each with interval and signature",
        parameters=[_format("json")],
        responses=ScoresOutput,
    )
    def get(self, request: Request, public_id: UUID) -> HttpResponseBase:
        study = self.study(public_id)
        file_format = request.query_params.get("format", "json")
        if file_format != "json":
            return self.file(study, "scores", file_format)
        report = study_report(study)
        names = [column.name for column in result_columns(see_systems=study.is_unblinded)]
        found = {
            name: [dict(zip(names, row, strict=True)) for row in result_rows(report, report.rows(*sections))]
            for name, sections in (("scores", ("scores",)), ("agreement", ("agreement", "repeats")))
        }
        output = {
            "study": study.public_id,
            "is_unblinded": study.is_unblinded,
            "n_responses": report.facts.totals.n_responses,
            "n_responses_complete": report.facts.totals.n_complete,
            "computed_at": report.computed_at,
            **found,
        }
        return Response(ScoresOutput(output).data, headers={"Cache-Control": "no-store"})


export_urlpatterns: list[URLPattern] = [
    path("studies/", StudyListView.as_view(), name="api_study_list"),
    path("studies/<uuid:public_id>/", StudyDetailView.as_view(), name="api_study_detail"),
    path("studies/<uuid:public_id>/ratings", StudyRatingsView.as_view(), name="api_study_ratings"),
    path("studies/<uuid:public_id>/scores", StudyScoresView.as_view(), name="api_study_scores"),
]
