"""Datasets, imports and systems: what an admin brings in."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from annotation.errors import DomainError
from annotation.forms.library import ImportItemsForm, ImportResponsesForm, SystemForm
from annotation.models import Dataset, ImportRecord
from annotation.selectors import library as selectors
from annotation.services.systems import missing_presets, register_preset, register_system, update_system
from annotation.services.uploads import store_upload
from annotation.tasks import IMPORT_ITEMS, IMPORT_RESPONSES
from annotation.views.access import for_roles, person_of
from jobs import ledger
from jobs.tasks import send_hint

# --- Datasets and imports -------------------------------------------------------------------------------


@for_roles("admin")
@require_safe
def dataset_list(request: HttpRequest) -> HttpResponse:
    return render(request, "annotation/dataset_list.html", {"datasets": selectors.datasets()})


@for_roles("admin")
@require_safe
def dataset_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    dataset = get_object_or_404(Dataset, public_id=public_id)
    context = {
        "dataset": dataset,
        "topics": selectors.topic_shares(dataset),
        "answers": selectors.answers_by_system(dataset),
        "items": selectors.sample_items(dataset),
        "imports": dataset.imports.select_related("created_by"),
    }
    return render(request, "annotation/dataset_detail.html", context)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def import_new(request: HttpRequest) -> HttpResponse:
    """The form for a file; sent, the file waits for its job and the page of the job opens."""
    is_items = request.GET.get("kind") != "responses"
    form_class = ImportItemsForm if is_items else ImportResponsesForm
    if request.method != "POST":
        form = form_class(initial={"dataset": request.GET.get("dataset", "")})
        return _import_page(request, form, is_items=is_items)
    form = form_class(request.POST, request.FILES)
    if not form.is_valid():
        return _import_page(request, form, is_items=is_items, status=422)
    file = form.cleaned_data["file"]
    params = {**form.params(), "upload": store_upload(file), "file_name": file.name}
    kind = IMPORT_ITEMS if is_items else IMPORT_RESPONSES
    with transaction.atomic():
        job = ledger.enqueue(kind=kind, params=params, by_id=person_of(request).pk)
        transaction.on_commit(partial(send_hint, job.pk, job.queue))
    return redirect("job_detail", job.public_id)


def _import_page(
    request: HttpRequest, form: ImportItemsForm | ImportResponsesForm, *, is_items: bool, status: int = 200
) -> HttpResponse:
    context = {"form": form, "is_items": is_items}
    return render(request, "annotation/import_new.html", context, status=status)


@for_roles("admin")
@require_safe
def import_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    imported = get_object_or_404(ImportRecord.objects.select_related("dataset", "created_by"), public_id=public_id)
    context = {"imported": imported, "facts": selectors.facts_of(imported.counts)}
    return render(request, "annotation/import_detail.html", context)


# --- Systems --------------------------------------------------------------------------------------------


@for_roles("admin")
@require_safe
def system_list(request: HttpRequest) -> HttpResponse:
    context = {"systems": selectors.systems(), "presets": missing_presets()}
    return render(request, "annotation/system_list.html", context)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def system_new(request: HttpRequest) -> HttpResponse:
    """Register a system from the form, or a preset one by its button on the list."""
    if request.method != "POST":
        return render(request, "annotation/system_form.html", {"form": SystemForm()})
    if preset := request.POST.get("preset"):
        system = register_preset(slug=preset, by=person_of(request))
        messages.success(request, _("%(name)s is registered.") % {"name": system.name})
        return redirect("system_list")
    form = SystemForm(request.POST)
    if form.is_valid():
        try:
            system = register_system(**form.cleaned_data, by=person_of(request))
        except DomainError as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, _("%(name)s is registered.") % {"name": system.name})
            return redirect("system_list")
    return render(request, "annotation/system_form.html", {"form": form}, status=422)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def system_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    system = get_object_or_404(selectors.systems(), public_id=public_id)
    context: dict[str, object] = {"system": system, "name": system.name}
    if request.method != "POST":
        return render(request, "annotation/system_form.html", {**context, "form": SystemForm(system=system)})
    form = SystemForm(request.POST, system=system)
    if form.is_valid():
        try:
            update_system(system=system, **form.cleaned_data, by=person_of(request))
        except DomainError as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, _("Saved."))
            return redirect("system_detail", public_id)
    return render(request, "annotation/system_form.html", {**context, "form": form}, status=422)
