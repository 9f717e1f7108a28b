"""The report of a study and its files."""

from __future__ import annotations

import hashlib
import json
from typing import TypedDict
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.utils.translation import get_language
from django.views.decorators.http import require_GET, require_safe

from annotation.archiving import archive_study, code_version
from annotation.export import Export, formats_of, prepare_export, prepare_table
from annotation.figures.pdf import pdf
from annotation.figures.svg import svg
from annotation.models import Dataset, Study
from annotation.reporting.figures import report_figures
from annotation.reporting.methods import methods_paragraph
from annotation.reporting.page import report_sections
from annotation.reports import Standing, hides_texts, report_state, standing
from annotation.reports import study_report as report_on
from annotation.tasks import REPORT, count_texts_soon, report_soon
from annotation.views.access import for_roles, person_of, uses_htmx
from jobs.models import Job

PAGE_SECONDS = 7 * 24 * 3600  # how long a page that did not change is kept
FIGURE_FORMATS = {"svg": "image/svg+xml", "pdf": "application/pdf"}


def _study(request: HttpRequest, public_id: UUID) -> Study:
    studies = Study.objects.visible_to(person_of(request))
    study: Study = get_object_or_404(studies.select_related("rubric"), public_id=public_id)
    return study


@require_safe
@for_roles("researcher", "admin")
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def study_report(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """All numbers by arm; systems are named once the study is unblinded.

    What takes longer than a reader waits is computed in the background, beside the last report.
    """
    study = _study(request, public_id)
    if study.is_draft:
        return render(request, "annotation/report.html", {"study": study})
    now = standing(study)
    context = {
        "study": study,
        "standing": now,
        "body": _body(study, now) if now.shown_state else None,
        "hides_texts": hides_texts(study),
        "job": None if now.is_current else report_soon(study, state=now.state, by_id=person_of(request).pk),
    }
    if not now.is_counted:
        for dataset in Dataset.objects.filter(items__study_items__study=study).distinct():
            count_texts_soon(dataset, by_id=person_of(request).pk)
    return render(request, "annotation/report.html", context)


class Body(TypedDict):
    """What a report says, ready to be sent: it is made of some thousand numbers, and seldom changes."""

    titles: list[tuple[str, str]]
    html: str
    methods: list[tuple[str, str]]


def _body(study: Study, now: Standing) -> Body:
    about = json.dumps(now.facts.to_dict(), sort_keys=True)
    made_by = f"{code_version()} {now.shown_state} {get_language()} {about}"
    key = f"report-page:{hashlib.sha256(made_by.encode()).hexdigest()}"
    body: Body | None = None if settings.DEBUG else cache.get(key)
    if body is None:
        report = now.report
        assert report is not None  # noqa: S101  (there is a state, so there is a report)
        sections = report_sections(report)
        body = Body(
            titles=[(section.key, str(section.title)) for section in sections],
            html=render_to_string("annotation/_report_sections.html", {"sections": sections, "study": study}),
            methods=[(code, methods_paragraph(report, code)) for code in ("zh", "en")],
        )
        cache.set(key, body, PAGE_SECONDS)
    return body


@require_safe
@for_roles("researcher", "admin")
def study_report_job(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The part of the page that tells how far the numbers are; it reloads the page when they are there."""
    study = _study(request, public_id)
    state = "" if study.is_draft else report_state(study)
    job = Job.objects.filter(kind=REPORT, params__study_id=study.pk, params__state=state).order_by("-pk").first()
    is_over = job is None or job.state in (Job.State.DONE, Job.State.CANCELLED)
    answer = render(request, "annotation/_report_job.html", {"study": study, "job": None if is_over else job})
    if is_over:
        answer["HX-Refresh"] = "true"
    return answer


@require_GET
@for_roles("researcher", "admin")
def study_figure(request: HttpRequest, public_id: UUID, key: str, format: str) -> HttpResponse:
    """One figure of the report, as SVG or PDF."""
    study = _study(request, public_id)
    found = [] if study.is_draft else [one for one in report_figures(report_on(study)) if one.key == key]
    if not found or format not in FIGURE_FORMATS:
        raise Http404
    drawing = found[0].chart.drawing
    content = svg(drawing).encode() if format == "svg" else pdf(drawing).content
    name = f"qingting-{study.public_id.hex[:8]}-{found[0].key}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return HttpResponse(content, content_type=FIGURE_FORMATS[format], headers=headers)


@require_GET
@for_roles("researcher", "admin")
def study_export(request: HttpRequest, public_id: UUID, kind: str, format: str) -> StreamingHttpResponse:
    """One file, made while it is sent; `?notes=1` adds what raters wrote."""
    study = _study(request, public_id)
    if format not in formats_of(kind):
        raise Http404
    with_notes = kind == "ratings" and request.GET.get("notes") == "1"
    return _sent(
        prepare_export(study=study, kind=kind, file_format=format, by=person_of(request), with_notes=with_notes)
    )


@require_GET
@for_roles("researcher", "admin")
def study_table(request: HttpRequest, public_id: UUID, key: str, format: str) -> StreamingHttpResponse:
    """One table of the report as a file."""
    study = _study(request, public_id)
    export = None if study.is_draft else prepare_table(study=study, key=key, file_format=format, by=person_of(request))
    if export is None:
        raise Http404
    return _sent(export)


@require_GET
@for_roles("researcher", "admin")
def study_archive(request: HttpRequest, public_id: UUID) -> FileResponse:
    """The whole study in one zip; `?texts=no` puts SHA-256 in place of dialogues and responses."""
    study = _study(request, public_id)
    if study.is_draft:
        raise Http404
    archive = archive_study(study=study, with_texts=request.GET.get("texts") != "no", by=person_of(request))
    return FileResponse(
        archive.file,
        as_attachment=True,
        filename=archive.name,
        content_type="application/zip",
        headers={"Cache-Control": "no-store"},
    )


def _sent(export: Export) -> StreamingHttpResponse:
    return StreamingHttpResponse(export.parts(), content_type=export.content_type, headers=export.headers)
