"""A researcher's pages on a study, from the first draft to the key. Whose study it is not finds nothing (404)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.core.paginator import Paginator
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation import progress
from annotation.design.blinding import slot_letter
from annotation.errors import DomainError, NotReady, StudyFrozen
from annotation.forms.research import (
    ConsentForm,
    DrawForm,
    OptionsForm,
    PlanForm,
    RatersForm,
    StudyForm,
    SystemsForm,
    UnblindForm,
)
from annotation.models import Dataset, Study, System
from annotation.selectors.research import (
    EVENTS_PER_PAGE,
    SCAN_NOW_AT_MOST,
    audit_lines,
    disclosures_of,
    draft_of,
    key_of,
    preview_of,
    studies_of,
)
from annotation.services import studies as services
from annotation.services.audit import verify_chain
from annotation.services.opening import open_study
from annotation.tasks import count_texts_soon
from annotation.views.access import for_roles, person_of, uses_htmx

STUDIES_PER_PAGE = 50
for_researchers = for_roles("researcher", "admin")
get_and_post = require_http_methods(["GET", "HEAD", "POST"])


def _study(request: HttpRequest, public_id: UUID) -> Study:
    visible = Study.objects.visible_to(person_of(request)).select_related("rubric")
    study: Study = get_object_or_404(visible, public_id=public_id)
    return study


def _before(request: HttpRequest) -> int | None:
    """Where the next page of a long list goes on: an id, or None for the first page."""
    value = request.GET.get("before", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


# --- Studies --------------------------------------------------------------------------------------------


@for_researchers
@require_safe
def study_list(request: HttpRequest) -> HttpResponse:
    page = Paginator(studies_of(person_of(request)), STUDIES_PER_PAGE).get_page(request.GET.get("page"))
    for study in page:
        study.tally = progress.Tally(study.n_placements, study.n_final, study.n_flagged)
    return render(request, "annotation/study_list.html", {"page": page})


@for_researchers
@get_and_post
def study_new(request: HttpRequest) -> HttpResponse:
    form = StudyForm(request.POST or None)
    if form.is_valid():
        study = services.create_study(by=person_of(request), name=form.cleaned_data["name"])
        return redirect("study_setup", study.public_id)
    return render(request, "annotation/study_new.html", {"form": form}, status=422 if form.is_bound else 200)


@for_researchers
@require_safe
def study_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    context = {
        "study": study,
        "tab": "overview",
        "draft": draft_of(study) if study.is_draft else None,
        "total": progress.totals(study),
        "n_items": study.study_items.count(),
        "n_arms": study.arms.count(),
        "n_raters": study.members.raters().count(),
        "key": key_of(study) if study.is_unblinded else None,
    }
    return render(request, "annotation/study_detail.html", context)


# --- Set-up ---------------------------------------------------------------------------------------------


def _setup_forms(study: Study) -> dict[str, BaseForm]:
    """The unbound form of every section."""
    systems = list(study.arms.values_list("system_id", "system__kind"))
    return {
        "name": StudyForm(initial={"name": study.name}),
        "items": DrawForm(),
        "systems": SystemsForm(
            initial={
                "systems": [pk for pk, _kind in systems],
                "with_reference": any(kind == System.Kind.REFERENCE for _pk, kind in systems),
            }
        ),
        "raters": RatersForm(instance=study, initial={"n_raters": study.members.raters().count() or 3}),
        "options": OptionsForm(instance=study),
        "consent": ConsentForm(initial=ConsentForm.initial_of(study)),
    }


def _setup_page(request: HttpRequest, study: Study, section: str = "", bound: BaseForm | None = None) -> HttpResponse:
    """The set-up page; with a section's bound form in place of its fresh one where that was refused."""
    study = _study(request, study.public_id)  # a refused form has written its values into the one it was given
    forms = _setup_forms(study) | ({section: bound} if bound else {})
    context = {
        "study": study,
        "tab": "setup",
        "forms": forms,
        "section": section,
        "draft": draft_of(study),
        "disclosures": disclosures_of(study, at_most=SCAN_NOW_AT_MOST),
        "notes": list(messages.get_messages(request)),
        "language_next": reverse("study_setup", args=[study.public_id]),  # a section's own address takes POST only
    }
    return render(request, "annotation/study_setup.html", context, status=422 if bound else 200)


def _setup_section(
    request: HttpRequest, study: Study, section: str, form: BaseForm, save: Callable[[dict[str, Any]], str]
) -> HttpResponse:
    """Save one section and go back to it, or show the page again with what was wrong."""
    if not study.is_draft:
        raise StudyFrozen(_("The study has been opened, so its set-up can no longer change."))
    if form.is_valid():
        try:
            messages.success(request, save(form.cleaned_data), extra_tags=section)
        except StudyFrozen:
            raise
        except DomainError as error:
            form.add_error(None, error.message)
        else:
            return redirect(reverse("study_setup", args=[study.public_id]) + f"#{section}")
    return _setup_page(request, study, section, form)


@for_researchers
@require_safe
def study_setup(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    if not study.is_draft:
        return redirect("study_detail", public_id)
    return _setup_page(request, study)


@for_researchers
@require_POST
def study_setup_name(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)

    def save(cleaned: dict[str, Any]) -> str:
        services.update_settings(study=study, by=person_of(request), name=cleaned["name"])
        return _("Saved.")

    return _setup_section(request, study, "name", StudyForm(request.POST), save)


@for_researchers
@require_POST
def study_setup_items(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)

    def save(cleaned: dict[str, Any]) -> str:
        n = services.draw_items(study=study, by=person_of(request), **cleaned)
        return _("%(n)s items were drawn.") % {"n": n}

    return _setup_section(request, study, "items", DrawForm(request.POST), save)


@for_researchers
@require_POST
def study_setup_remove(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    slug = request.POST.get("dataset")
    dataset = get_object_or_404(Dataset, slug=slug, items__study_items__study=study) if slug else None
    only_unanswered = request.POST.get("which") == "unanswered"
    n = services.remove_items(study=study, by=person_of(request), dataset=dataset, only_unanswered=only_unanswered)
    messages.success(request, _("%(n)s items were taken out.") % {"n": n}, extra_tags="items")
    return redirect(reverse("study_setup", args=[public_id]) + "#items")


@for_researchers
@require_POST
def study_setup_systems(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)

    def save(cleaned: dict[str, Any]) -> str:
        services.choose_systems(study=study, by=person_of(request), **cleaned)
        return _("The choice of systems is saved.")

    return _setup_section(request, study, "systems", SystemsForm(request.POST), save)


@for_researchers
@require_POST
def study_setup_raters(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)

    def save(cleaned: dict[str, Any]) -> str:
        services.set_raters_and_pay(study=study, by=person_of(request), **cleaned)
        return _("Raters and pay are saved.")

    form = RatersForm(request.POST, instance=_study(request, public_id))
    return _setup_section(request, study, "raters", form, save)


@for_researchers
@require_POST
def study_setup_options(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)

    def save(cleaned: dict[str, Any]) -> str:
        services.update_settings(study=study, by=person_of(request), **cleaned)
        return _("The options are saved.")

    form = OptionsForm(request.POST, instance=_study(request, public_id))
    return _setup_section(request, study, "options", form, save)


@for_researchers
@require_POST
def study_setup_consent(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    form = ConsentForm(request.POST)

    def save(cleaned: dict[str, Any]) -> str:
        services.update_settings(study=study, by=person_of(request), **form.changes())
        return _("The consent text is saved.")

    return _setup_section(request, study, "consent", form, save)


# --- Preview and opening --------------------------------------------------------------------------------


@for_researchers
@require_safe
def study_preview(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    if not study.is_draft:
        return redirect("study_detail", public_id)
    draft = draft_of(study)
    context: dict[str, Any] = {"study": study, "tab": "preview", "draft": draft}
    if draft.is_ready:
        try:
            preview = preview_of(study)
        except NotReady as error:
            context["obstacle"] = error.message
        else:
            context |= {
                "preview": preview,
                "slots": [slot_letter(i) for i in range(preview.spec.n_systems)],
                "position": list(enumerate(preview.numbers.position.counts.tolist(), start=1)),
                "neighbour": list(enumerate(preview.numbers.neighbour.counts.tolist(), start=1)),
                "disclosures": disclosures_of(study),
            }
    return render(request, "annotation/study_preview.html", context)


@for_researchers
@require_POST
def study_open(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    try:
        open_study(study=study, by=person_of(request))
    except StudyFrozen:  # a second click
        messages.info(request, _("The study was open already."))
    except NotReady as error:
        messages.error(request, error.message)
        return redirect("study_preview", public_id)
    else:
        for dataset in Dataset.objects.filter(items__study_items__study=study).distinct():
            count_texts_soon(dataset, by_id=person_of(request).pk)  # opening makes the human reference's responses
        messages.success(request, _("The study is open. Raters can begin."))
    return redirect("study_detail", public_id)


def _confirmed(
    request: HttpRequest, public_id: UUID, act: str, service: Callable[..., Study], done: str
) -> HttpResponse:
    """A page that says what will happen (GET), then the act (POST)."""
    study = _study(request, public_id)
    if request.method != "POST":
        return render(
            request,
            f"annotation/study_{act}.html",
            {"study": study, "tab": "overview", "total": progress.totals(study)},
        )
    try:
        service(study=study, by=person_of(request))
    except NotReady as error:
        messages.error(request, error.message)
    else:
        messages.success(request, done)
    return redirect("study_detail", public_id)


@for_researchers
@get_and_post
def study_pause(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _confirmed(request, public_id, "pause", services.pause_study, _("The study is paused."))


@for_researchers
@get_and_post
def study_resume(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _confirmed(request, public_id, "resume", services.resume_study, _("The study goes on."))


@for_researchers
@get_and_post
def study_close(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _confirmed(request, public_id, "close", services.close_study, _("The study is closed."))


# --- Watching -------------------------------------------------------------------------------------------


def _progress_context(study: Study) -> dict[str, Any]:
    return {
        "study": study,
        "tab": "progress",
        "progress": progress.study_progress(study),
        "limits": progress,
    }


@for_researchers
@require_safe
@uses_htmx  # type: ignore[arg-type]  # typed for views without further arguments
def study_progress(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return render(request, "annotation/study_progress.html", _progress_context(_study(request, public_id)))


@for_researchers
@require_safe
def study_progress_fragment(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The part that refreshes; whoever opens its address directly is sent to the whole page."""
    study = _study(request, public_id)
    if "HX-Request" not in request.headers:
        return redirect("study_progress", public_id)
    return render(request, "annotation/_progress.html", _progress_context(study))


@for_researchers
@require_safe
def study_flags(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    flags = list(progress.flags(study, before=_before(request)))
    shown = flags[: progress.FLAGS_PER_PAGE]
    context = {
        "study": study,
        "tab": "flags",
        "flags": shown,
        "next": shown[-1].pk if len(flags) > len(shown) else None,
    }
    return render(request, "annotation/study_flags.html", context)


# --- Plan, key, log -------------------------------------------------------------------------------------


@for_researchers
@get_and_post
def study_plan(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    form = PlanForm(request.POST if request.method == "POST" else None, initial={"plan": study.plan})
    if form.is_valid():
        is_freezing = "freeze" in request.POST
        act = services.freeze_plan if is_freezing else services.write_plan
        try:
            act(study=study, by=person_of(request), plan=form.cleaned_data["plan"])
        except (NotReady, StudyFrozen) as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, _("The analysis plan is frozen.") if is_freezing else _("Saved."))
            return redirect("study_plan", public_id)
    context = {"study": study, "tab": "plan", "form": form}
    return render(request, "annotation/study_plan.html", context, status=422 if form.is_bound else 200)


@for_researchers
@get_and_post
def study_unblind(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    form = UnblindForm(request.POST if request.method == "POST" else None, study=study)
    if form.is_valid():
        return cast(HttpResponse, _unblind(request, study))
    context = {
        "study": study,
        "tab": "plan",
        "form": form,
        "total": progress.totals(study),
        "key": key_of(study) if study.is_unblinded else None,
    }
    return render(request, "annotation/study_unblind.html", context, status=422 if form.is_bound else 200)


@reauthentication_required  # type: ignore[untyped-decorator]
def _unblind(request: HttpRequest, study: Study) -> HttpResponse:
    """Only whoever has just shown again that it is them; a person without password or second factor cannot be asked."""
    try:
        services.unblind_study(study=study, by=person_of(request))
    except NotReady as error:
        messages.error(request, error.message)
    else:
        messages.success(request, _("The study is unblinded."))
    return redirect("study_unblind", study.public_id)


@for_researchers
@require_safe
def study_audit(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    lines = audit_lines(study, before=_before(request))
    shown = lines[:EVENTS_PER_PAGE]
    context = {
        "study": study,
        "tab": "audit",
        "lines": shown,
        "next": shown[-1].pk if len(lines) > len(shown) else None,
        "broken_at": verify_chain(),
    }
    return render(request, "annotation/study_audit.html", context)
