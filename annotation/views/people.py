"""Coming in and being here: the start page, help, invitations, accounts, people, tokens."""

from __future__ import annotations

from uuid import UUID

from allauth.account.internal.flows.login import record_authentication
from allauth.account.utils import perform_login
from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.i18n import set_language as django_set_language

from annotation.forms.people import AccountForm, AddResearcherForm, InviteStaffForm, SeatLinkForm, TokenForm
from annotation.models import ApiToken, Invitation, Role, Study, User
from annotation.selectors.people import (
    contacts_for,
    everybody,
    pending_invitations_of,
    pending_staff_invitations,
    researchers_of,
    seats_of,
    usable_invitation,
    usable_tokens,
)
from annotation.services import people as services
from annotation.services.support import read_support
from annotation.views.access import for_roles, person_of, public

# --- The door -------------------------------------------------------------------------------------------


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """To where one's work is."""
    return redirect("study_list" if person_of(request).is_site_staff else "rater_home")


@public
@require_safe
def help_page(request: HttpRequest) -> HttpResponse:
    person = request.user if request.user.is_authenticated else None
    contacts = contacts_for(person) or [settings.SUPPORT_CONTACT]
    language = "zh" if (get_language() or "zh").startswith("zh") else "en"
    support = read_support(language=language, contacts=tuple(contact for contact in contacts if contact))
    return render(request, "annotation/people/help.html", {"support": support})


@public
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """ "ok", or 503 if the database does not answer; never why."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return HttpResponse("unavailable", content_type="text/plain", status=503)
    return HttpResponse("ok", content_type="text/plain")


@public
@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    return HttpResponse("User-agent: *\nDisallow: /\n", content_type="text/plain")


@public
@require_POST
def set_language(request: HttpRequest) -> HttpResponse:
    return django_set_language(request)


@public
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def accept_invitation(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows what the link is for and changes nothing, because chat programs look at links; POST uses it."""
    person = request.user if request.user.is_authenticated else None
    if request.method != "POST":
        invitation = usable_invitation(token)
        return render(request, "annotation/people/accept.html", {"invitation": invitation})
    guest = services.accept_invitation(token=token, person=person, language=get_language() or settings.LANGUAGE_CODE)
    if person is not None and guest.pk == person.pk:
        return redirect("home")
    if person is not None:
        logout(request)  # somebody else's session: nothing of it may be carried over
    record_authentication(request, guest, method="invitation")
    response: HttpResponse = perform_login(request, guest, redirect_url=reverse("home"))
    return response


# --- One's own account ----------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    person = person_of(request)
    if request.method == "POST":
        form = AccountForm(request.POST)
        if form.is_valid():
            services.update_account(person=person, **form.cleaned_data)
            messages.success(request, _("Saved."))
            response = redirect("account")
            _remember_language(response, person.language)
            return response
    else:
        form = AccountForm(
            initial={"name": person.first_name, "language": person.language, "has_shortcuts": person.has_shortcuts}
        )
    return render(
        request,
        "annotation/people/account.html",
        {"form": form, "has_second_factor": is_mfa_enabled(person, [Authenticator.Type.TOTP])},
    )


def _remember_language(response: HttpResponse, language: str) -> None:
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=settings.LANGUAGE_COOKIE_AGE,
        path=settings.LANGUAGE_COOKIE_PATH,
        secure=settings.LANGUAGE_COOKIE_SECURE,
        httponly=settings.LANGUAGE_COOKIE_HTTPONLY,
        samesite=settings.LANGUAGE_COOKIE_SAMESITE,  # type: ignore[arg-type]
    )


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles("researcher", "admin")
def api_tokens(request: HttpRequest) -> HttpResponse:
    """One's tokens. A new one is shown in the answer to its POST and nowhere else, so no redirect follows."""
    form = TokenForm(request.POST if request.method == "POST" else None)
    secret = ""
    if request.method == "POST" and form.is_valid():
        _token, secret = services.create_api_token(
            person=person_of(request), name=form.cleaned_data["name"], lifetime=form.lifetime
        )
        form = TokenForm()
    context = {"form": form, "secret": secret, "tokens": usable_tokens(person_of(request))}
    return render(request, "annotation/people/tokens.html", context)


@require_POST
@for_roles("researcher", "admin")
def api_token_revoke(request: HttpRequest, public_id: UUID) -> HttpResponse:
    token = get_object_or_404(ApiToken, public_id=public_id, user=person_of(request))
    services.revoke_api_token(token=token, by=person_of(request))
    messages.success(request, _("The token no longer works."))
    return redirect("api_tokens")


# --- All people (admins) --------------------------------------------------------------------------------


def _people_page(
    request: HttpRequest, form: InviteStaffForm | None = None, *, link: str = "", link_for: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "people": everybody(),
        "pending": pending_staff_invitations(),
        "form": form or InviteStaffForm(),
        "link": link,
        "link_for": link_for,
        "language_next": reverse("people"),  # this may be the answer to a POST
    }
    return render(request, "annotation/people/people.html", context, status=status)


def _link(secret: str) -> str:
    return settings.PUBLIC_URL + reverse("accept_invitation", args=[secret])


@require_safe
@for_roles("admin")
def people(request: HttpRequest) -> HttpResponse:
    return _people_page(request)


@require_POST
@for_roles("admin")
def invite_staff(request: HttpRequest) -> HttpResponse:
    """The link is shown in this very answer: kept nowhere, it could not survive a redirect."""
    form = InviteStaffForm(request.POST)
    if not form.is_valid():
        return _people_page(request, form, status=422)
    invitation, secret = services.create_invitation(by=person_of(request), **form.cleaned_data)
    return _people_page(request, link=_link(secret), link_for=invitation.label or invitation.get_role_display())


@require_POST
@for_roles("admin")
def revoke_staff_invitation(request: HttpRequest) -> HttpResponse:
    invitation = _posted_invitation(request, pending_staff_invitations())
    services.revoke_invitation(invitation=invitation, by=person_of(request))
    messages.success(request, _("The link no longer works."))
    return redirect("people")


def _posted_invitation(request: HttpRequest, among: QuerySet[Invitation]) -> Invitation:
    number = request.POST.get("invitation", "")
    if not number.isdecimal() or len(number) > 18:
        raise Http404
    return get_object_or_404(among, pk=int(number))


def _person(username: str) -> User:
    return get_object_or_404(User, username=username)


@require_POST
@for_roles("admin")
def make_sign_in_link(request: HttpRequest, username: str) -> HttpResponse:
    person = _person(username)
    _invitation, secret = services.create_sign_in_link(person=person, by=person_of(request))
    return _people_page(request, link=_link(secret), link_for=person.get_full_name() or person.username)


@require_POST
@for_roles("admin")
def deactivate_person(request: HttpRequest, username: str) -> HttpResponse:
    services.deactivate_person(person=_person(username), by=person_of(request))
    messages.success(request, _("The account is closed."))
    return redirect("people")


@require_POST
@for_roles("admin")
def reactivate_person(request: HttpRequest, username: str) -> HttpResponse:
    services.reactivate_person(person=_person(username), by=person_of(request))
    messages.success(request, _("The account is open again. Send this person a sign-in link."))
    return redirect("people")


@require_POST
@for_roles("admin")
def remove_second_factor(request: HttpRequest, username: str) -> HttpResponse:
    services.remove_second_factor(person=_person(username), by=person_of(request))
    messages.success(request, _("The second factor was removed; a new one is asked for at the next sign-in."))
    return redirect("people")


# --- The people of one study ----------------------------------------------------------------------------


def _study(request: HttpRequest, public_id: UUID) -> Study:
    study: Study = get_object_or_404(Study.objects.visible_to(person_of(request)), public_id=public_id)
    return study


def _study_people_page(
    request: HttpRequest,
    study: Study,
    form: AddResearcherForm | None = None,
    *,
    link: str = "",
    link_for: str = "",
    status: int = 200,
) -> HttpResponse:
    context = {
        "study": study,
        "seats": seats_of(study),
        "researchers": researchers_of(study),
        "pending": pending_invitations_of(study).filter(role=Role.RESEARCHER),
        "form": form or AddResearcherForm(),
        "link": link,
        "link_for": link_for,
        "language_next": reverse("study_people", args=[study.public_id]),
    }
    return render(request, "annotation/people/study_people.html", context, status=status)


@require_safe
@for_roles("researcher", "admin")
def study_people(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _study_people_page(request, _study(request, public_id))


@require_POST
@for_roles("researcher", "admin")
def make_seat_link(request: HttpRequest, public_id: UUID, seat: UUID) -> HttpResponse:
    """A link for an empty seat, or one that signs the person in the seat in again."""
    study = _study(request, public_id)
    member = get_object_or_404(study.members.raters().select_related("user"), public_id=seat)
    form = SeatLinkForm(request.POST)
    label = form.cleaned_data["label"] if form.is_valid() else ""
    if member.user is None:
        _invitation, secret = services.create_invitation(
            role=Role.RATER, seat=member, by=person_of(request), label=label
        )
    else:
        _invitation, secret = services.create_sign_in_link(person=member.user, by=person_of(request))
    return _study_people_page(request, study, link=_link(secret), link_for=member.code)


@require_POST
@for_roles("researcher", "admin")
def invite_researcher(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    form = SeatLinkForm(request.POST)
    label = form.cleaned_data["label"] if form.is_valid() else ""
    _invitation, secret = services.create_invitation(
        role=Role.RESEARCHER, study=study, by=person_of(request), label=label
    )
    return _study_people_page(request, study, link=_link(secret), link_for=label or _("a researcher"))


@require_POST
@for_roles("researcher", "admin")
def revoke_study_invitation(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    invitation = _posted_invitation(request, pending_invitations_of(study))
    services.revoke_invitation(invitation=invitation, by=person_of(request))
    messages.success(request, _("The link no longer works."))
    return redirect("study_people", public_id)


@require_POST
@for_roles("researcher", "admin")
def add_researcher(request: HttpRequest, public_id: UUID) -> HttpResponse:
    study = _study(request, public_id)
    form = AddResearcherForm(request.POST)
    if form.is_valid():
        person = User.objects.filter(username=form.cleaned_data["username"], is_active=True).first()
        if person is None or person.role != Role.RESEARCHER:
            form.add_error("username", _("There is no researcher with this username."))
        else:
            services.add_researcher(study=study, person=person, by=person_of(request))
            messages.success(request, _("The researcher was added."))
            return redirect("study_people", public_id)
    return _study_people_page(request, study, form, status=422)
