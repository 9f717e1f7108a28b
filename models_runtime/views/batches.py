"""Batches: choose, see what it will take, launch, watch, pause, go on."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation.errors import DomainError
from annotation.views.access import for_roles, person_of, uses_htmx
from annotation.views.once import KEY, key_of, keyed, launch_id, launched_once
from jobs.tasks import conclude
from models_runtime.forms import BatchForm, LimitsForm
from models_runtime.models import GenerationBatch
from models_runtime.runtimes import BadSettings
from models_runtime.selectors import batches as selectors
from models_runtime.selectors.estimates import Estimate, estimate
from models_runtime.services import batches as services
from models_runtime.tasks import hint_batch


@for_roles("admin")
@require_safe
def batch_list(request: HttpRequest) -> HttpResponse:
    return render(
        request, "models_runtime/batch_list.html", {"page": selectors.batches(page=request.GET.get("page", "1"))}
    )


@for_roles("admin")
@require_safe
@keyed
def batch_new(request: HttpRequest) -> HttpResponse:
    """The questions; they are sent to the page that says what it will take."""
    initial: dict[str, Any] = request.GET.dict() | {"systems": request.GET.getlist("systems")}
    return _form_page(request, BatchForm(initial=initial))


def _form_page(request: HttpRequest, form: BatchForm, *, status: int = 200) -> HttpResponse:
    return render(request, "models_runtime/batch_new.html", {"form": form, "key": key_of(request)}, status=status)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
@keyed
def batch_confirm(request: HttpRequest) -> HttpResponse:
    """What it will take; sent, the batch is launched. Sent twice, it is launched once."""
    form = BatchForm(request.POST if request.method == "POST" else request.GET)
    name = launch_id(request, form.fields)
    return launched_once(request, GenerationBatch, name, "batch_detail", lambda: _confirmed(request, form, name))


def _confirmed(request: HttpRequest, form: BatchForm, name: UUID) -> HttpResponse:
    if not form.is_valid():
        return _form_page(request, form, status=422)
    try:
        ids = form.questions().item_ids()
        estimates = [estimate(s, ids, repeats=form.cleaned_data["repeats"]) for s in form.cleaned_data["systems"]]
    except (DomainError, BadSettings) as error:
        form.add_error(None, error.message if isinstance(error, DomainError) else str(error))
        return _form_page(request, form, status=422)
    priced = {one.system: one.money.currency for one in estimates if one.money}
    if request.method != "POST":
        initial = {f"limit-{one.system.slug}": one.money.limit for one in estimates if one.money}
        return _confirm_page(request, form, LimitsForm(priced=priced, initial=initial), estimates, len(ids))
    limits = LimitsForm(request.POST, priced=priced)
    if limits.is_valid():
        launch = form.launch(limits=limits.limits(), public_id=name)
        try:
            with transaction.atomic():
                batch = services.launch_batch(launch, by=person_of(request))
                transaction.on_commit(partial(hint_batch, batch))
        except DomainError as error:
            limits.add_error(None, error.message)
        else:
            return redirect("batch_detail", batch.public_id)
    return _confirm_page(request, form, limits, estimates, len(ids), status=422)


def _confirm_page(
    request: HttpRequest,
    form: BatchForm,
    limits: LimitsForm,
    estimates: list[Estimate],
    n_items: int,
    *,
    status: int = 200,
) -> HttpResponse:
    told = form.data
    hidden = [(name, value) for name in (KEY, *form.fields) for value in told.getlist(name)]  # type: ignore[attr-defined]
    context = {
        "form": form,
        "limits": limits,
        "hidden": hidden,
        "back": urlencode(hidden),
        "estimates": estimates,
        "n_items": n_items,
        "n_new": sum(one.n_new for one in estimates),
        "data": form.cleaned_data,
    }
    return render(request, "models_runtime/batch_confirm.html", context, status=status)


@for_roles("admin")
@require_safe
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def batch_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """How far it is; while something is alive, htmx asks again and takes the middle out of the answer."""
    batch = get_object_or_404(GenerationBatch.objects.select_related("dataset", "study"), public_id=public_id)
    page = selectors.batch_page(batch, page=request.GET.get("page", "1"))
    return render(request, "models_runtime/batch_detail.html", {"page": page, "batch": batch})


@for_roles("admin")
@require_POST
def batch_pause(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _stop(request, public_id, services.pause_batch)


@for_roles("admin")
@require_POST
def batch_cancel(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _stop(request, public_id, services.cancel_batch)


def _stop(request: HttpRequest, public_id: UUID, stop: Callable[..., Any]) -> HttpResponse:
    batch = get_object_or_404(GenerationBatch, public_id=public_id)
    try:
        for job in stop(batch=batch, by=person_of(request)):
            conclude(job.pk)
    except DomainError as error:
        messages.error(request, error.message)
    return redirect("batch_detail", public_id)


@for_roles("admin")
@require_POST
def batch_resume(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Go on with what is missing, under new limits of money where some are given."""
    batch = get_object_or_404(GenerationBatch, public_id=public_id)
    try:
        limits = {
            part.system_id: Decimal(request.POST[f"limit-{part.system.slug}"])
            for part in batch.parts.select_related("system")
            if request.POST.get(f"limit-{part.system.slug}")
        }
        services.resume_batch(batch=batch, limits=limits, by=person_of(request))
    except InvalidOperation:
        messages.error(request, _("A limit is a number above 0."))
    except DomainError as error:
        messages.error(request, error.message)
    else:
        hint_batch(batch)
    return redirect("batch_detail", public_id)


@for_roles("admin")
@require_POST
def batch_retry(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Try again what could not be answered, and nothing else."""
    batch = get_object_or_404(GenerationBatch, public_id=public_id)
    try:
        n = services.retry_failed(batch=batch, by=person_of(request))
    except DomainError as error:
        messages.error(request, error.message)
    else:
        hint_batch(batch)
        told = ngettext("%(n)s item is tried again.", "%(n)s items are tried again.", n)
        messages.success(request, told % {"n": n})
    return redirect("batch_detail", public_id)
