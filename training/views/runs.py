"""Runs: choose, see what one will take, launch, watch, stop, go on."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation.errors import DomainError
from annotation.views.access import for_roles, person_of, uses_htmx
from annotation.views.once import KEY, key_of, keyed, launch_id, launched_once
from jobs.tasks import conclude
from training.forms.runs import ConfirmForm, RunForm
from training.models import TrainingRun
from training.selectors import runs as selectors
from training.services import removal
from training.services import runs as services
from training.services.runs import Foresight
from training.tasks.runs import hint_run
from training.views.removal import asked_first


@for_roles("admin")
@require_safe
def run_list(request: HttpRequest) -> HttpResponse:
    found = [(run, *selectors.state_of(run), selectors.steps_of(run)) for run in selectors.runs()]
    return render(request, "training/run_list.html", {"runs": found})


@for_roles("admin")
@require_safe
@keyed
def run_new(request: HttpRequest) -> HttpResponse:
    """The questions; they are sent to the page that says what it will take."""
    return _form_page(request, RunForm(initial=request.GET.dict()))


def _form_page(request: HttpRequest, form: RunForm, *, status: int = 200) -> HttpResponse:
    return render(request, "training/run_new.html", {"form": form, "key": key_of(request)}, status=status)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
@keyed
def run_confirm(request: HttpRequest) -> HttpResponse:
    """What it will take; sent, the run is launched. Sent twice, it is launched once."""
    form = RunForm(request.POST if request.method == "POST" else request.GET)
    name = launch_id(request, form.fields)
    return launched_once(request, TrainingRun, name, "run_detail", lambda: _confirmed(request, form, name))


def _confirmed(request: HttpRequest, form: RunForm, name: UUID) -> HttpResponse:
    if not form.is_valid():
        return _form_page(request, form, status=422)
    try:
        seen = services.foresee(form.launch())
    except DomainError as error:
        form.add_error(_field_of(form, error), error.message)
        return _form_page(request, form, status=422)
    if request.method != "POST":
        return _confirm_page(request, form, ConfirmForm(has_leaks=bool(seen.leaks)), seen)
    confirm = ConfirmForm(request.POST, has_leaks=bool(seen.leaks))
    if confirm.is_valid():
        launch = form.launch(public_id=name)
        accepts = confirm.cleaned_data.get("accepts_leaks", False)
        try:
            with transaction.atomic():
                run = services.launch_run(launch, seen, accepts_leaks=accepts, by=person_of(request))
                transaction.on_commit(partial(hint_run, run))
        except DomainError as error:
            confirm.add_error(None, error.message)
        else:
            return redirect("run_detail", run.public_id)
    return _confirm_page(request, form, confirm, seen, status=422)


def _field_of(form: RunForm, error: DomainError) -> str | None:
    """The question at fault, if the error names one of this form's; weights are those of the base here."""
    name = {"weights": "base"}.get(error.detail.get("field", ""), error.detail.get("field"))
    return name if name in form.fields else None


def _confirm_page(
    request: HttpRequest, form: RunForm, confirm: ConfirmForm, seen: Foresight, *, status: int = 200
) -> HttpResponse:
    told = form.data
    hidden = [(name, value) for name in (KEY, *form.fields) for value in told.getlist(name)]  # type: ignore[attr-defined]
    context = {
        "form": form,
        "confirm": confirm,
        "hidden": hidden,
        "launch": form.launch(),
        "seen": seen,
        "parts": selectors.parts_of(seen.cost.memory),
        "back": urlencode(hidden),
    }
    return render(request, "training/run_confirm.html", context, status=status)


@for_roles("admin")
@require_safe
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def run_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    run = _run(public_id)
    context = {
        "run": run,
        "page": selectors.run_page(run),
        "curves": selectors.curves(run.folder),
        "parts": selectors.parts_of(run.cost.get("memory", {})),
    }
    return render(request, "training/run_detail.html", context)


@for_roles("admin")
@require_safe
def run_fragment(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The part of the page that tells how far it is; once the run is over it has the page loaded anew."""
    run = _run(public_id)
    page = selectors.run_page(run)
    answer = render(request, "training/_run.html", {"run": run, "page": page})
    if not page.is_alive:
        answer["HX-Refresh"] = "true"
    return answer


@for_roles("admin")
@require_safe
def run_table(request: HttpRequest, public_id: UUID, table: str) -> FileResponse:
    """All numbers of a curve, as the run wrote them."""
    run = _run(public_id)
    name = selectors.TABLES.get(table)
    if name is None or not (run.folder / name).is_file():
        raise Http404
    file_name = f"qingting-run-{run.public_id.hex[:8]}-{name}"
    return FileResponse(
        (run.folder / name).open("rb"), as_attachment=True, filename=file_name, content_type="text/csv; charset=utf-8"
    )


@for_roles("admin")
@require_POST
def run_stop(request: HttpRequest, public_id: UUID) -> HttpResponse:
    try:
        job = services.stop_run(run=_run(public_id), by=person_of(request))
    except DomainError as error:
        messages.error(request, error.message)
    else:
        if job is not None:
            conclude(job.pk)
    return redirect("run_detail", public_id)


@for_roles("admin")
@require_POST
def run_resume(request: HttpRequest, public_id: UUID) -> HttpResponse:
    try:
        run = services.resume_run(run=_run(public_id), by=person_of(request))
    except DomainError as error:
        messages.error(request, error.message)
    else:
        hint_run(run)
    return redirect("run_detail", public_id)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def run_remove(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """What goes and how large it is; sent, it goes. Sent twice, it goes once."""
    if request.method == "POST" and not TrainingRun.objects.filter(public_id=public_id).exists():
        return redirect("run_list")
    run = _run(public_id)
    return asked_first(
        request,
        question=_("Remove the run?"),
        name=run.name,
        removal=partial(removal.removal_of_run, run),
        remove=partial(removal.remove_run, run=run, by=person_of(request)),
        back=reverse("run_detail", args=[public_id]),
        then=reverse("run_list"),
    )


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def run_remove_checkpoints(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The same of the checkpoints that nobody needs; the run stays."""
    run = _run(public_id)
    detail = reverse("run_detail", args=[public_id])
    return asked_first(
        request,
        question=_("Remove the checkpoints that are not needed?"),
        name=run.name,
        removal=partial(removal.removal_of_checkpoints, run),
        remove=partial(removal.remove_checkpoints, run=run, by=person_of(request)),
        back=detail,
        then=detail,
    )


def _run(public_id: UUID) -> TrainingRun:
    found = TrainingRun.objects.select_related("corpus", "job__created_by", "system", "created_by")
    return get_object_or_404(found, public_id=public_id)
