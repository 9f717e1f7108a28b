"""How a system answers: its settings, a trial, its versions; the templates of prompts."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation.errors import DomainError
from annotation.models import System
from annotation.views.access import for_roles, person_of, uses_htmx
from models_runtime.engine.prompts import Template
from models_runtime.forms import EndpointForm, LocalForm, NewTemplateForm, TemplateForm
from models_runtime.models import PromptTemplate, Runtime
from models_runtime.runtimes import LocalSettings
from models_runtime.selectors import runtimes as selectors
from models_runtime.services.runtimes import folder_of, look_into, save_template, set_key, set_runtime
from models_runtime.tasks import try_soon

EMPTY = Template("new", "chat")  # what a new template begins with


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def runtime(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The settings, in the form of their kind; `?kind=` chooses the other one."""
    system = get_object_or_404(System.objects.exclude(kind=System.Kind.REFERENCE), public_id=public_id)
    now = Runtime.objects.select_related("check_job").filter(system=system).first()
    default = now.kind if now else Runtime.Kind.LOCAL
    kind = request.GET.get("kind") if request.GET.get("kind") in Runtime.Kind.values else default
    form_class = LocalForm if kind == Runtime.Kind.LOCAL else EndpointForm
    if request.method != "POST":
        return _runtime_page(request, system, now, form_class(runtime=now), str(kind))
    form = form_class(request.POST, runtime=now)
    if form.is_valid():
        try:
            _save(request, system, form)
        except DomainError as error:
            form.add_error(error.detail.get("field"), error.message)
        else:
            messages.success(request, _("Saved. Batches that were launched before go on as they were."))
            return redirect("runtime", public_id)
    return _runtime_page(request, system, now, form, str(kind), status=422)


def _save(request: HttpRequest, system: System, form: LocalForm | EndpointForm) -> None:
    by, value = person_of(request), form.value()
    row = set_runtime(system=system, settings=value, by=by)
    if isinstance(form, EndpointForm):
        if form.cleaned_data["key"] or form.cleaned_data.get("forget_key"):
            set_key(runtime=row, key=form.cleaned_data["key"], by=by)
    elif isinstance(value, LocalSettings) and (advice := look_into(folder_of(value.weights))):
        messages.warning(request, advice)


def _runtime_page(
    request: HttpRequest,
    system: System,
    now: Runtime | None,
    form: LocalForm | EndpointForm,
    kind: str,
    *,
    status: int = 200,
) -> HttpResponse:
    trial = now.check_job if now else None
    context = {
        "system": system,
        "runtime": now,
        "form": form,
        "kind": kind,
        "kinds": Runtime.Kind.choices,
        "trial": trial,
        "versions": selectors.versions_of(system),
        "responses": selectors.latest_responses(system),
    }
    return render(request, "models_runtime/runtime.html", context, status=status)


@for_roles("admin")
@require_POST
def runtime_try(request: HttpRequest, public_id: UUID) -> HttpResponse:
    row = get_object_or_404(Runtime.objects.select_related("system"), system__public_id=public_id)
    try_soon(row, by_id=person_of(request).pk)
    return redirect("runtime", public_id)


@for_roles("admin")
@require_safe
def template_list(request: HttpRequest) -> HttpResponse:
    return render(request, "models_runtime/template_list.html", {"templates": selectors.template_choices()})


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def template_new(request: HttpRequest) -> HttpResponse:
    """A template under a name of its own; `?copy=` begins with one that is there."""
    copied = selectors.template_named(request.GET.get("copy", ""))
    form = NewTemplateForm(request.POST if request.method == "POST" else None, template=copied or EMPTY)
    if request.method == "POST" and (saved := _saved_template(request, form)):
        messages.success(request, _("Saved. It can be chosen on the page of a system."))
        return redirect("template_detail", saved.template_id)
    context = {"form": form, "copied": copied}
    return render(request, "models_runtime/template_new.html", context, status=422 if form.errors else 200)


def _saved_template(request: HttpRequest, form: TemplateForm) -> PromptTemplate | None:
    """The version that a valid form makes; None if it is not valid, or says so now."""
    if form.is_valid():
        try:
            return save_template(content=form.content(), by=person_of(request))
        except DomainError as error:
            form.add_error(None, error.message)
    return None


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def template_detail(request: HttpRequest, template_id: str) -> HttpResponse:
    """The newest text of a template, to be edited into a new version; `?from=` shows an older one."""
    template = selectors.newest_template(template_id)
    if template is None:
        raise Http404
    if older := selectors.template_named(f"{template_id}@{request.GET.get('from', '')}"):
        template = older
    form = TemplateForm(request.POST if request.method == "POST" else None, template=template)
    if request.method == "POST" and (saved := _saved_template(request, form)):
        told = _("Saved as version %(version)s. Systems keep the version they have until you choose this one.")
        messages.success(request, told % {"version": saved.version})
        return redirect("template_detail", template_id)
    context = {
        "template": template,
        "form": form,
        "example": selectors.example_of(template),
        "versions": PromptTemplate.objects.filter(template_id=template_id).select_related("created_by"),
    }
    return render(request, "models_runtime/template_detail.html", context, status=422 if form.errors else 200)
