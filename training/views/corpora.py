"""Corpora: prepare, look at, review, prepare again."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from annotation.errors import DomainError
from annotation.figures.pdf import pdf
from annotation.figures.svg import svg
from annotation.services.uploads import delete_upload, store_upload
from annotation.views.access import for_roles, person_of, uses_htmx
from annotation.views.once import key_of, keyed, launch_id, launched_once
from annotation.views.reports import FIGURE_FORMATS
from training.figures import corpus_figures
from training.forms.corpora import CorpusForm, PrepareAgainForm
from training.models import Corpus, ReviewCase
from training.selectors import corpora as selectors
from training.services import corpora as services
from training.services import removal, review
from training.tasks import corpora as tasks
from training.views.removal import asked_first


@for_roles("admin")
@require_safe
def corpus_list(request: HttpRequest) -> HttpResponse:
    return render(request, "training/corpus_list.html", {"corpora": selectors.corpora()})


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
@keyed
def corpus_new(request: HttpRequest) -> HttpResponse:
    """The questions; sent, the corpus is prepared in the background. Sent twice, it is prepared once."""
    if request.method != "POST":
        return _form_page(request, CorpusForm(initial={"rewriting": request.GET.get("rewriting", "")}))
    form = CorpusForm(request.POST, request.FILES)
    name = launch_id(request, form.fields)
    return launched_once(request, Corpus, name, "corpus_detail", lambda: _sent(request, form, name))


def _form_page(request: HttpRequest, form: CorpusForm, *, status: int = 200) -> HttpResponse:
    return render(request, "training/corpus_new.html", {"form": form, "key": key_of(request)}, status=status)


def _sent(request: HttpRequest, form: CorpusForm, name: UUID) -> HttpResponse:
    if form.is_valid():
        try:
            corpus = _launched(request, form, name)
        except DomainError as error:
            form.add_error(_field(form, error), error.message)
        else:
            return redirect("corpus_detail", corpus.public_id)
    return _form_page(request, form, status=422)


def _field(form: CorpusForm, error: DomainError) -> str | None:
    field = error.detail.get("field")
    return field if field in form.fields else None


def _launched(request: HttpRequest, form: CorpusForm, public_id: UUID) -> Corpus:
    data = form.cleaned_data
    uploads: list[str] = []
    try:
        for file in data["uploads"]:
            uploads.append(store_upload(file, folder=services.UPLOADS))
        sources = [{"name": file.name, "upload": name} for file, name in zip(data["uploads"], uploads, strict=True)]
        sources += [{"name": path.rstrip("/").rpartition("/")[2], "path": path} for path in data["paths"]]
        order = services.Order(
            name=data["name"],
            weights=data["weights"].strip(),
            plan=form.plan(),
            sources=sources,
            rewriting=data["rewriting"],
            public_id=public_id,
        )
        with transaction.atomic():
            corpus = services.launch_corpus(order, by=person_of(request))
            transaction.on_commit(partial(tasks.hint, corpus.job))
    except BaseException:
        _forget(uploads)
        raise
    if list(corpus.sources) != sources:  # the other of two was faster
        _forget(uploads)
    return corpus


def _forget(uploads: list[str]) -> None:
    for name in uploads:
        delete_upload(name, folder=services.UPLOADS)


def _corpus(public_id: UUID, *, is_ready: bool = False) -> Corpus:
    corpus = get_object_or_404(
        Corpus.objects.select_related("job__created_by", "rewriting", "reviewed", "created_by"), public_id=public_id
    )
    if is_ready and not corpus.is_ready:
        raise Http404
    return corpus


@for_roles("admin")
@require_safe
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def corpus_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """How far it is, then what it is like; while something is alive, htmx asks again and takes the page's body."""
    corpus = _corpus(public_id)
    context = {
        "corpus": corpus,
        "page": selectors.corpus_page(corpus),
        "figures": corpus_figures(corpus) if corpus.is_ready else [],
        "terms": corpus.statistics.get("terms", []),
    }
    return render(request, "training/corpus_detail.html", context)


def _next_name(name: str) -> str:
    return _("%(name)s, reviewed") % {"name": name[:180]}


@for_roles("admin")
@require_GET
def corpus_figure(request: HttpRequest, public_id: UUID, key: str, format: str) -> HttpResponse:
    """One figure of a corpus, as SVG or PDF."""
    corpus = _corpus(public_id, is_ready=True)
    found = next((figure for figure in corpus_figures(corpus) if figure.key == key), None)
    if found is None or format not in FIGURE_FORMATS:
        raise Http404
    drawing = found.chart.drawing
    content = svg(drawing).encode() if format == "svg" else pdf(drawing).content
    name = f"qingting-corpus-{corpus.public_id.hex[:8]}-{key}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return HttpResponse(content, content_type=FIGURE_FORMATS[format], headers=headers)


@for_roles("admin")
@require_http_methods(["GET", "HEAD", "POST"])
def corpus_remove(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """What goes and how large it is; sent, it goes. Sent twice, it goes once."""
    if request.method == "POST" and not Corpus.objects.filter(public_id=public_id).exists():
        return redirect("corpus_list")
    corpus = _corpus(public_id)
    return asked_first(
        request,
        question=_("Remove the corpus?"),
        name=corpus.name,
        removal=partial(removal.removal_of_corpus, corpus),
        remove=partial(removal.remove_corpus, corpus=corpus, by=person_of(request)),
        back=reverse("corpus_detail", args=[public_id]),
        then=reverse("corpus_list"),
    )


@for_roles("admin")
@require_POST
def corpus_leaks(request: HttpRequest, public_id: UUID) -> HttpResponse:
    tasks.leaks_soon(_corpus(public_id, is_ready=True), by_id=person_of(request).pk)
    return redirect("corpus_detail", public_id)


@for_roles("admin")
@require_POST
def corpus_import_test(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The test's items as a dataset; the page of the import's job opens."""
    corpus = _corpus(public_id, is_ready=True)
    try:
        job = tasks.import_test_soon(corpus, by=person_of(request))
    except OSError:
        messages.error(request, _("The folder of the corpus has no items of a test, or is not on this machine."))
        return redirect("corpus_detail", public_id)
    return redirect("job_detail", job.public_id)


# --- Review -----------------------------------------------------------------------------------------------


@for_roles("admin")
@require_safe
def corpus_review(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """One dialogue that waits, what was found in it, and what was decided before."""
    corpus = _corpus(public_id, is_ready=True)
    page = selectors.review_page(corpus, name=request.GET.get("case", ""), page=request.GET.get("page", "1"))
    again = PrepareAgainForm(initial={"name": _next_name(corpus.name)})
    return render(request, "training/corpus_review.html", {"corpus": corpus, "page": page, "again": again})


@for_roles("admin")
@require_POST
def corpus_decide(request: HttpRequest, public_id: UUID, name: str) -> HttpResponse:
    """Keep, keep in other words, or remove; then comes the next one that is open."""
    case = get_object_or_404(ReviewCase, corpus__public_id=public_id, name=name)
    asked = {"verdict": request.POST.get("verdict", ""), "seen": request.POST.get("seen", "")}
    try:
        now, is_taken = review.decide(case=case, by=person_of(request), texts=request.POST.getlist("text"), **asked)
    except DomainError as error:
        messages.error(request, error.message)
        return redirect(f"{reverse('corpus_review', args=[public_id])}?{urlencode({'case': name})}")
    if not is_taken:
        told = {"who": now.decided_by.username if now.decided_by else "–", "verdict": now.get_verdict_display()}
        messages.warning(request, _("%(who)s was faster: “%(verdict)s” stands for that dialogue.") % told)
    return redirect("corpus_review", public_id)


@for_roles("admin")
@require_POST
def corpus_again(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """A new corpus that follows the verdicts; asked for twice, it is prepared once."""
    corpus = _corpus(public_id, is_ready=True)
    form = PrepareAgainForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("Name the new corpus."))
        return redirect("corpus_review", public_id)
    data: dict[str, Any] = form.cleaned_data
    try:
        with transaction.atomic():
            made = review.prepare_again(corpus=corpus, name=data["name"], by=person_of(request))
            transaction.on_commit(partial(tasks.hint, made.job))
    except DomainError as error:
        messages.error(request, error.message)
        return redirect("corpus_review", public_id)
    return redirect("corpus_detail", made.public_id)
