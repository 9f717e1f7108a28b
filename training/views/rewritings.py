"""Rewritings: ask for one, watch it, pause, go on, take the dialogues."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, InvalidOperation
from functools import partial
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from annotation.errors import DomainError
from annotation.selectors.jobs import problem_rows
from annotation.services.uploads import store_upload
from annotation.views.access import for_roles, person_of, uses_htmx
from annotation.views.once import KEY, key_of, keyed, launch_id, launched_once
from jobs import ledger
from jobs.tasks import conclude
from training.corpus.rewriting import STYLES
from training.forms.corpora import RewritingForm
from training.models import Rewriting
from training.selectors import rewritings as selectors
from training.selectors.estimates import estimate
from training.services import rewriting as services
from training.tasks import corpora as tasks


@for_roles("admin")
@require_safe
def rewriting_list(request: HttpRequest) -> HttpResponse:
    return render(request, "training/rewriting_list.html", {"rewritings": selectors.rewritings()})


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
@keyed
def rewriting_new(request: HttpRequest) -> HttpResponse:
    """The questions to the person; sent, the file is read and the page says what it will take; confirmed, it starts."""
    if request.method != "POST":
        return _form_page(request, RewritingForm())
    form = RewritingForm(request.POST, request.FILES)
    if "confirmed" not in request.POST:
        return _asked(request, form)
    # Not by the upload: who sends the first page twice has two of them.
    name = launch_id(request, [name for name in form.fields if name != "upload"])
    return launched_once(request, Rewriting, name, "rewriting_detail", lambda: _confirmed(request, form, name))


def _asked(request: HttpRequest, form: RewritingForm) -> HttpResponse:
    """The page that says what it will take; the file is kept for the page after it."""
    if not form.is_valid():
        return _form_page(request, form, status=422)
    file, upload, file_name = (form.cleaned_data[name] for name in ("file", "upload", "file_name"))
    try:
        services.settings_of(_order(form, upload, file_name))  # before anything is kept
        if file:
            upload, file_name = store_upload(file, folder=services.UPLOADS), file.name
    except DomainError as error:
        _note(form, error)
        return _form_page(request, form, status=422)
    return _confirm_page(request, form, _order(form, upload, file_name))


def _confirmed(request: HttpRequest, form: RewritingForm, name: UUID) -> HttpResponse:
    if not form.is_valid() and set(form.errors) != {"limit"}:
        return _form_page(request, form, status=422)
    data = form.cleaned_data
    order = replace(_order(form, data["upload"], data["file_name"]), public_id=name)
    try:
        if form.is_valid():
            with transaction.atomic():
                rewriting = services.launch_rewriting(order, by=person_of(request))
                transaction.on_commit(partial(tasks.hint, rewriting.job))
            return redirect("rewriting_detail", rewriting.public_id)
    except DomainError as error:
        _note(form, error)
        if error.detail.get("field") != "limit":
            return _form_page(request, form, status=422)
    return _confirm_page(request, form, order, status=422)


def _note(form: RewritingForm, error: DomainError) -> None:
    field = error.detail.get("field")
    form.add_error(field if field in form.fields else None, error.message)


def _order(form: RewritingForm, upload: str, file_name: str) -> services.Order:
    data = form.cleaned_data
    return services.Order(
        name=data["name"],
        system=data["system"],
        questions={"name": file_name, "upload": upload, "sha256": form.sha256},
        n_questions=len(form.read),
        style=data["how"],
        checks=data["checks"],
        n_tries=data["n_tries"],
        max_new_tokens=data["max_new_tokens"],
        seed=data["seed"],
        limit=data.get("limit"),
    )


def _form_page(request: HttpRequest, form: RewritingForm, *, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "key": key_of(request),
        "problems": problem_rows(form.problems),
        "styles": STYLES.values(),
        "far": [(system, host) for system, host in selectors.systems_that_write() if host],
    }
    return render(request, "training/rewriting_new.html", context, status=status)


def _confirm_page(
    request: HttpRequest, form: RewritingForm, order: services.Order, *, status: int = 200
) -> HttpResponse:
    settings = services.settings_of(order)
    found = estimate(
        form.read, system=order.system, settings=settings, style=order.style, checks=order.checks, n_tries=order.n_tries
    )
    told = {name: value for name, value in form.data.items() if name in form.fields and name not in ("file", "limit")}
    told |= {KEY: str(key_of(request)), "upload": order.questions["upload"], "file_name": order.questions["name"]}
    limit = form.data.get("limit") or (found.money.limit if found.money else "")
    context = {"form": form, "order": order, "estimate": found, "hidden": told.items(), "limit": limit}
    return render(request, "training/rewriting_confirm.html", context, status=status)


def _rewriting(public_id: UUID) -> Rewriting:
    found = Rewriting.objects.select_related("system", "job__created_by", "created_by")
    return get_object_or_404(found, public_id=public_id)


@for_roles("admin")
@require_safe
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def rewriting_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """How far it is; while it is alive, htmx asks again and takes the middle out of the answer."""
    rewriting = _rewriting(public_id)
    context = {"rewriting": rewriting, "page": selectors.rewriting_page(rewriting)}
    return render(request, "training/rewriting_detail.html", context)


@for_roles("admin")
@require_POST
def rewriting_pause(request: HttpRequest, public_id: UUID) -> HttpResponse:
    job = _rewriting(public_id).job
    if job is not None and ledger.request_cancel(job.pk):
        conclude(job.pk)
    else:
        messages.warning(request, _("The job cannot be stopped now: it is over, or about to be."))
    return redirect("rewriting_detail", public_id)


@for_roles("admin")
@require_POST
def rewriting_resume(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Go on with what is missing, under a new limit of money where one is given."""
    try:
        limit = Decimal(request.POST["limit"]) if request.POST.get("limit") else None
        with transaction.atomic():
            rewriting = services.resume_rewriting(
                rewriting=_rewriting(public_id),
                limit=limit,
                more_tries=bool(request.POST.get("more_tries")),
                by=person_of(request),
            )
            transaction.on_commit(partial(tasks.hint, rewriting.job))
    except InvalidOperation:
        messages.error(request, _("A limit is a number above 0."))
    except DomainError as error:
        messages.error(request, error.message)
    return redirect("rewriting_detail", public_id)


@for_roles("admin")
@require_GET
def rewriting_download(request: HttpRequest, public_id: UUID) -> FileResponse:
    """The accepted dialogues as JSONL: what a corpus is prepared from, and an import takes."""
    rewriting = _rewriting(public_id)
    try:
        file = rewriting.dialogues_file.open("rb")
    except OSError as error:
        raise Http404 from error
    return FileResponse(
        file,
        as_attachment=True,
        filename=f"qingting-dialogues-{rewriting.public_id.hex[:8]}.jsonl",
        content_type="application/x-ndjson",
        headers={"Cache-Control": "no-store"},
    )
