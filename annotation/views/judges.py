"""Language models as judges of a closed study: their ratings in, and out again."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation.errors import DomainError
from annotation.formats.problems import Problem
from annotation.formats.source import Source
from annotation.forms.judges import JudgeForm
from annotation.models import Judge, Study, StudyResponse
from annotation.problems import sentence
from annotation.services.judges import add_judge, remove_judge
from annotation.services.uploads import delete_upload, store_upload, upload_path
from annotation.views.access import for_roles, person_of


def _study(request: HttpRequest, public_id: UUID) -> Study:
    studies = Study.objects.visible_to(person_of(request))
    study: Study = get_object_or_404(studies.select_related("rubric"), public_id=public_id)
    return study


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("researcher", "admin")
def study_judges(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The judges of a study; POST takes in the ratings of another one, all or none."""
    study = _study(request, public_id)
    form = JudgeForm(request.POST, request.FILES) if request.method == "POST" else JudgeForm()
    problems: list[str] = []
    if form.is_valid():
        try:
            judge = _add(request, study, form)
        except DomainError as refused:
            problems = [sentence(Problem.from_json(found)) for found in refused.detail.get("problems", [])]
            form.add_error(refused.detail.get("field"), refused.message)
        else:
            told = _("%(name)s is in, with %(n)s ratings.") % {"name": judge.name, "n": judge.n_ratings}
            messages.success(request, told)
            return redirect("study_judges", public_id)
    context = {
        "study": study,
        "tab": "report",
        "form": form,
        "problems": problems,
        "judges": study.judges.select_related("created_by"),
        "n_ratings": StudyResponse.objects.filter(study_item__study=study).count() * study.rubric.dimensions.count(),
        "dimensions": list(study.rubric.dimensions.order_by("order")),
    }
    return render(request, "annotation/study_judges.html", context, status=422 if form.errors else 200)


def _add(request: HttpRequest, study: Study, form: JudgeForm) -> Judge:
    given = form.cleaned_data
    upload = store_upload(given["file"])
    try:
        return add_judge(
            study=study,
            by=person_of(request),
            source=Source(upload_path(upload), given["file"].name),
            name=given["name"],
            model=given["model"],
            prompt=given["prompt"].replace("\r\n", "\n"),
        )
    finally:
        delete_upload(upload)


@require_POST
@for_roles("researcher", "admin")
def judge_delete(request: HttpRequest, public_id: UUID, judge: UUID) -> HttpResponse:
    """Delete a judge and its ratings."""
    found = get_object_or_404(_study(request, public_id).judges.select_related("study"), public_id=judge)
    remove_judge(judge=found, by=person_of(request))
    messages.success(request, _("%(name)s and its ratings are deleted.") % {"name": found.name})
    return redirect("study_judges", public_id)
