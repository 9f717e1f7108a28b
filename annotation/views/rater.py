"""A rater's pages. Each works without a script; the rating page is then taken over by static/js/rate.js."""

from __future__ import annotations

import uuid
from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotation.errors import DomainError, Incomplete, NotReady, StaleRevision, StudyClosed
from annotation.forms.rater import AuthorsForm, ConsentForm, GuessForm, WithdrawForm
from annotation.models import Member
from annotation.selectors.authors import author_draw, author_page, may_name_authors
from annotation.selectors.rater import (
    Card,
    card,
    dimensions_for,
    earned,
    median_active_seconds,
    next_card,
    previous_card,
    progress,
    rater_seat,
)
from annotation.services.authors import finish_rating, skip_author_questions, store_author_guesses
from annotation.services.raters import (
    N_SETS,
    answer_practice,
    consent_text,
    finish_practice,
    give_consent,
    next_step,
    practice_items,
    store_guess,
    withdraw,
)
from annotation.services.ratings import Change, answer_notice, mark_shown, submit_rating
from annotation.views.access import for_roles, person_of

ANSWERS: dict[str, Literal["open", "skip", "later"]] = {"open": "open", "skip": "skip", "later": "later"}
STEP_PAGES = {"consent": "rater_consent", "practice": "rater_practice", "rate": "rate", "done": "rater_done"}


def _language() -> str:
    """The content language that goes with the page: "zh" or "en"."""
    return "zh" if (get_language() or "zh").startswith("zh") else "en"


def _to_next_step(seat: Member) -> HttpResponse:
    page = STEP_PAGES.get(next_step(seat))
    return redirect(page, seat=seat.public_id) if page else redirect("rater_home")


@require_safe
@for_roles("rater")
def home(request: HttpRequest) -> HttpResponse:
    """All seats of this rater; straight on to the next step where there is only one."""
    seats = list(Member.objects.raters().of_user(person_of(request)).select_related("study"))
    if len(seats) == 1 and next_step(seats[0]) != "wait":
        return _to_next_step(seats[0])
    rows = [{"seat": s, "step": next_step(s), "page": STEP_PAGES.get(next_step(s))} for s in seats]
    return render(request, "annotation/rater_home.html", {"rows": rows})


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("rater")
def consent(request: HttpRequest, seat: UUID) -> HttpResponse:
    """Consent and pay terms; agreeing leads to the guide."""
    rater = rater_seat(person_of(request), seat)
    form = ConsentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        give_consent(
            rater=rater, language=_language(), is_ready_for_sensitive=form.cleaned_data["is_ready_for_sensitive"]
        )
        return redirect("rater_guide", seat=seat)
    study = rater.study
    return render(
        request,
        "annotation/rater_consent.html",
        {
            "seat": rater,
            "study": study,
            "form": form,
            "text": consent_text(rater, _language()),
            "hours": round(rater.n_placements * study.expected_seconds / 3600, 1),
            "pay_per_hour": round(study.pay_per_response * 3600 / study.expected_seconds, 2),
            "minutes": round(study.expected_seconds / 60, 1),
        },
    )


@require_safe
@for_roles("rater")
def guide(request: HttpRequest, seat: UUID) -> HttpResponse:
    """The rubric with its considerations and worked examples."""
    rater = rater_seat(person_of(request), seat)
    return render(
        request,
        "annotation/rater_guide.html",
        {
            "seat": rater,
            "intro": rater.study.rubric.intro[_language()].split("\n\n"),
            "dimensions": dimensions_for(rater, get_language() or "en"),
            "next_page": STEP_PAGES.get(next_step(rater)),
        },
    )


def _scores(request: HttpRequest, rater: Member) -> dict[str, int]:
    """The chosen points of a submitted form, by dimension key; what is not a digit is not chosen."""
    chosen = ((d.key, request.POST.get(d.key, "")) for d in dimensions_for(rater, "en"))
    return {key: int(value) for key, value in chosen if value.isascii() and value.isdigit() and len(value) < 3}


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("rater")
def practice(request: HttpRequest, seat: UUID) -> HttpResponse:
    """Six practice items with feedback, then the gate."""
    rater = rater_seat(person_of(request), seat)
    if rater.consented_at is None:
        return redirect("rater_consent", seat=seat)
    if rater.practice_passed_at or not rater.study.needs_practice:
        return _to_next_step(rater)
    context: dict[str, Any] = {"seat": rater, "dimensions": dimensions_for(rater, get_language() or "en")}
    if rater.practice_set > N_SETS:
        return render(request, "annotation/rater_practice_over.html", context)
    items = practice_items(rater.practice_set, _language())
    by_id = {item.id: item for item in items}
    if request.method == "POST" and "finish" in request.POST:
        is_passed = finish_practice(rater=rater, language=_language())
        if is_passed:
            messages.success(request, _("Practice passed. Thank you; the study comes next."))
        else:
            messages.info(request, _("Not yet close enough. Here are six fresh items; take your time."))
        return _to_next_step(rater_seat(person_of(request), seat))
    answered = set(rater.practice_answers.filter(practice_set=rater.practice_set).values_list("item_id", flat=True))
    if request.method == "POST" and (item := by_id.get(request.POST.get("item", ""))):
        scores = _scores(request, rater)
        if set(scores) != set(item.expected):
            context |= {"item": item, "scores": scores, "error": _("Some criteria have no score yet.")}
        else:
            answer = answer_practice(rater=rater, item_id=item.id, scores=scores, language=_language())
            answered.add(item.id)
            context |= {
                "item": item,
                "answer": answer,
                "feedback": [
                    {
                        "dimension": d,
                        "given": answer.scores[d.key],
                        "expected": item.expected[d.key],
                        "why": item.why[d.key],
                        "is_close": abs(answer.scores[d.key] - item.expected[d.key]) <= item.tolerance[d.key],
                    }
                    for d in context["dimensions"]
                ],
            }
    else:
        context["item"] = next((item for item in items if item.id not in answered), None)
    context |= {"n_answered": len(answered), "n_items": len(items), "is_complete": len(answered) == len(items)}
    status = 422 if context.get("error") else 200
    return render(request, "annotation/rater_practice.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("rater")
def rate(request: HttpRequest, seat: UUID, public_id: UUID | None = None) -> HttpResponse:
    """The rating page: the next open placement, or the one asked for. POST saves it (used without a script)."""
    rater = rater_seat(person_of(request), seat)
    step = next_step(rater)
    if step in ("consent", "practice", "wait") or (step == "done" and public_id is None):
        return _to_next_step(rater)
    if rater.finished_at and request.method != "POST":
        return redirect("rater_done", seat=seat)
    error, status, posted = "", 200, None
    if request.method == "POST" and public_id:
        try:
            _submit(request, rater, public_id)
            return redirect("rate", seat=seat)
        except (Incomplete, StaleRevision, StudyClosed, DomainError) as refused:
            if refused.status == 404:
                raise
            error, status = refused.message, refused.status
            posted = _scores(request, rater) if not isinstance(refused, StaleRevision) else None
    shown = card(rater, public_id) if public_id else next_card(rater)
    if shown is None:
        return redirect("rater_done", seat=seat)
    mark_shown(rater, shown)
    texts = dimensions_for(rater, get_language() or "en")
    return render(
        request,
        "annotation/rate.html",
        {
            "seat": rater,
            "card": shown,
            "error": error,
            "op_id": uuid.uuid4(),
            "dimensions": texts,
            "chosen": posted if posted is not None else shown.scores,
            "progress": progress(rater),
            "intro": rater.study.rubric.intro[_language()].split("\n\n"),
            "setup": _setup(rater, shown),
        },
        status=status,
    )


def _submit(request: HttpRequest, rater: Member, public_id: UUID) -> None:
    try:
        op_id, base_rev = UUID(request.POST.get("op_id", "")), int(request.POST.get("base_rev", ""))
    except ValueError as error:
        raise DomainError(_("The form was incomplete. Load the page again.")) from error
    change = Change(
        op_id=op_id,
        base_rev=base_rev,
        scores=_scores(request, rater),
        is_final=True,
        note=request.POST.get("note", "").replace("\r\n", "\n"),
        is_flagged="is_flagged" in request.POST,
    )
    submit_rating(user=person_of(request), public_id=public_id, change=change)


def _setup(rater: Member, shown: Card) -> dict[str, Any]:
    """What rate.js starts from: addresses, the shown card, pace. Only what a rater may have."""
    nobody = "00000000-0000-4000-8000-000000000000"
    per_response = median_active_seconds(rater)
    return {
        "card": shown.to_json(),
        "nobody": nobody,
        "urls": {
            "next": reverse("api_next", args=[rater.public_id]),
            "card": reverse("api_card", args=[rater.public_id, nobody]),
            "previous": reverse("api_previous", args=[rater.public_id, nobody]),
            "rating": reverse("api_rating", args=[nobody]),
            "notice": reverse("api_notice", args=[nobody]),
            "page": reverse("rate_placement", args=[rater.public_id, nobody]),
            "break": reverse("rater_break", args=[rater.public_id]),
            "done": reverse("rater_done", args=[rater.public_id]),
            "login": reverse("account_login"),
        },
        "seat": str(rater.public_id),
        "progress": {"n_done": rater.n_final, "n_total": rater.n_placements},
        "seconds_per_response": per_response or rater.study.expected_seconds,
        "has_shortcuts": rater.user.has_shortcuts if rater.user else True,
        "idle_after_seconds": settings.IDLE_AFTER_SECONDS,
        "break_after_minutes": settings.BREAK_AFTER_MINUTES,
    }


@require_safe
@for_roles("rater")
def previous(request: HttpRequest, seat: UUID, public_id: UUID) -> HttpResponse:
    """To the response rated before this one; stays where it is at the beginning."""
    rater = rater_seat(person_of(request), seat)
    before = previous_card(rater, public_id)
    return redirect("rate_placement", seat=seat, public_id=before.public_id if before else public_id)


@require_POST
@for_roles("rater")
def notice(request: HttpRequest, seat: UUID, public_id: UUID) -> HttpResponse:
    """Open, skip or put off an item (used without a script)."""
    rater_seat(person_of(request), seat)
    answer = ANSWERS.get(request.POST.get("answer", ""))
    if answer is None:
        raise DomainError(_("Choose to open the item, to skip it or to leave it for later."))
    answer_notice(user=person_of(request), public_id=public_id, answer=answer)
    if answer == "open":
        return redirect("rate_placement", seat=seat, public_id=public_id)
    return redirect("rate", seat=seat)


@require_safe
@for_roles("rater")
def take_break(request: HttpRequest, seat: UUID) -> HttpResponse:
    """A page without any content of the study."""
    return render(request, "annotation/rater_break.html", {"seat": rater_seat(person_of(request), seat)})


@require_safe
@for_roles("rater")
def progress_page(request: HttpRequest, seat: UUID) -> HttpResponse:
    """Counts, pace and pay."""
    rater = rater_seat(person_of(request), seat)
    seconds = median_active_seconds(rater)
    left = rater.n_left * (seconds or rater.study.expected_seconds)
    return render(
        request,
        "annotation/rater_progress.html",
        {
            "seat": rater,
            "study": rater.study,
            "earned": earned(rater),
            "seconds": seconds,
            "hours_left": round(left / 3600, 1),
            "active_hours": round(rater.active_ms / 3_600_000, 1),
        },
    )


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("rater")
def done(request: HttpRequest, seat: UUID) -> HttpResponse:
    """Thanks, counts, pay, and the question about blinding."""
    rater = rater_seat(person_of(request), seat)
    if next_step(rater) not in ("done",):
        return _to_next_step(rater)
    form = GuessForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        store_guess(rater=rater, **form.cleaned_data)
        messages.success(request, _("Thank you, your answer is stored."))
        return redirect("rater_done", seat=seat)
    context = {
        "seat": rater,
        "study": rater.study,
        "earned": earned(rater),
        "form": form,
        "has_questions": may_name_authors(rater) and author_draw(rater) is not None,
    }
    return render(request, "annotation/rater_done.html", context)


@require_POST
@for_roles("rater")
def finish(request: HttpRequest, seat: UUID) -> HttpResponse:
    """ "I am done": ratings stay as they are."""
    rater = rater_seat(person_of(request), seat)
    try:
        finish_rating(rater=rater)
    except NotReady as error:
        messages.error(request, error.message)
        return _to_next_step(rater)
    messages.success(request, _("Thank you. Your ratings are final now."))
    return redirect("rater_done", seat=seat)


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("rater")
def authors(request: HttpRequest, seat: UUID) -> HttpResponse:
    """Who wrote this? Two responses by each writer, then responses to put a writer to; all of it may be skipped."""
    rater = rater_seat(person_of(request), seat)
    if request.method == "POST" and "skip" in request.POST:
        if skip_author_questions(rater=rater):
            messages.info(request, _("Skipped. Thank you all the same."))
        return redirect("rater_done", seat=seat)
    draw = author_draw(rater) if may_name_authors(rater) else None
    if draw is None:
        return redirect("rater_done", seat=seat)
    page = author_page(draw)
    form = AuthorsForm(
        request.POST if request.method == "POST" else None,
        responses=[response.public_id for response in page.questions],
        n_writers=page.n_writers,
    )
    if form.is_valid():
        store_author_guesses(rater=rater, guesses=form.guesses())  # False after a double click: the same thanks
        messages.success(request, _("Thank you, your answers are stored."))
        return redirect("rater_done", seat=seat)
    context = {
        "seat": rater,
        "examples": page.examples,
        "writers": list(zip(*page.examples, strict=True)),
        "questions": [(response, form[response.public_id]) for response in page.questions],
        "has_errors": bool(form.errors),
    }
    return render(request, "annotation/rater_authors.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("rater")
def withdraw_page(request: HttpRequest, seat: UUID) -> HttpResponse:
    """Leave the study; asks once."""
    rater = rater_seat(person_of(request), seat)
    form = WithdrawForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        withdraw(rater=rater)
        return redirect("rater_done", seat=seat)
    return render(request, "annotation/rater_withdraw.html", {"seat": rater, "form": form, "earned": earned(rater)})
