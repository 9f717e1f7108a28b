"""The report of a study and its files."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from annotation.export import FORMATS, KINDS, prepare_export
from annotation.models import Study, User
from annotation.reports import study_report as report_on
from annotation.views.access import for_roles


def _study(request: HttpRequest, public_id: UUID) -> Study:
    studies = Study.objects.visible_to(cast("User", request.user))
    study: Study = get_object_or_404(studies.select_related("rubric"), public_id=public_id)
    return study


@require_GET
@for_roles("researcher", "admin")
def study_report(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Scores and agreement by arm; systems are named once the study is unblinded."""
    study = _study(request, public_id)
    report = None if study.is_draft else report_on(study)
    return render(request, "annotation/report.html", {"study": study, "report": report})


@require_GET
@for_roles("researcher", "admin")
def study_export(request: HttpRequest, public_id: UUID, kind: str, format: str) -> StreamingHttpResponse:
    """One file, made while it is sent; `?notes=1` adds what raters wrote."""
    study = _study(request, public_id)
    if kind not in KINDS or format not in FORMATS:
        raise Http404
    with_notes = kind == "ratings" and request.GET.get("notes") == "1"
    user = cast("User", request.user)
    export = prepare_export(study=study, kind=kind, file_format=format, by=user, with_notes=with_notes)
    return StreamingHttpResponse(export.parts(), content_type=export.content_type, headers=export.headers)
