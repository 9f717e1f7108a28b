"""Rewritings: ask for one, watch it, pause, go on, take the dialogues."""

from __future__ import annotations

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
from annotation.services.uploads import delete_upload, store_upload
from annotation.views.access import for_roles, person_of, uses_htmx
from annotation.views.once import key_of, keyed, launch_id, launched_once
from jobs import ledger
from jobs.tasks import conclude
from training.corpus.rewriting import STYLES
from training.forms.corpora import RewritingForm
from training.models import Rewriting
from training.selectors import rewritings as selectors
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
    """The questions to the person; sent, the file is read at once and the rest happens in the background."""
    if request.method != "POST":
        return _form_page(request, RewritingForm())
    form = RewritingForm(request.POST, request.FILES)
    name = launch_id(request, form.fields)
    return launched_once(request, Rewriting, name, "rewriting_detail", lambda: _sent(request, form, name))


def _sent(request: HttpRequest, form: RewritingForm, name: UUID) -> HttpResponse:
    if form.is_valid():
        try:
            rewriting = _launched(request, form, name)
        except DomainError as error:
            field = error.detail.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            return redirect("rewriting_detail", rewriting.public_id)
    return _form_page(request, form, status=422)


def _form_page(request: HttpRequest, form: RewritingForm, *, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "key": key_of(request),
        "problems": problem_rows(form.problems),
        "styles": STYLES.values(),
        "far": [(system, host) for system, host in selectors.systems_that_write() if host],
    }
    return render(request, "training/rewriting_new.html", context, status=status)


def _launched(request: HttpRequest, form: RewritingForm, public_id: UUID) -> Rewriting:
    data = form.cleaned_data
    upload = store_upload(data["file"], folder=services.UPLOADS)
    order = services.Order(
        name=data["name"],
        system=data["system"],
        questions={"name": data["file"].name, "upload": upload, "sha256": form.sha256},
        n_questions=len(form.read),
        style=data["how"],
        checks=data["checks"],
        n_tries=data["n_tries"],
        max_new_tokens=data["max_new_tokens"],
        seed=data["seed"],
        limit=data["limit"],
        public_id=public_id,
    )
    rewriting = None
    try:
        with transaction.atomic():
            rewriting = services.launch_rewriting(order, by=person_of(request))
            transaction.on_commit(partial(tasks.hint, rewriting.job))
        return rewriting
    finally:
        if rewriting is None or rewriting.questions["upload"] != upload:  # refused, or the other of two was faster
            delete_upload(upload, folder=services.UPLOADS)


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
