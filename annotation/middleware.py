"""The one gate in front of every page, and the one place that turns errors of the domain into pages.

Deny by default: a view is reached by people who are signed in, unless it is marked `@public` or named below.
Views of the REST framework are left to its own permissions, whose default refuses as well. Neither class asks the
database anything beyond the session and the user, which the request needs anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext as _
from rest_framework.views import APIView

from annotation.adapters import RENEWED_AT, SIGNED_IN_AT
from annotation.errors import DomainError
from annotation.models import User
from annotation.views.errors import error_page

GetResponse = Callable[[HttpRequest], HttpResponseBase]

# Views of others that cannot carry our mark.
PUBLIC_NAMES = frozenset({"account_login", "account_inactive", "mfa_authenticate"})

# What a member of staff may open before the account is safe enough for everything else.
_ALWAYS = frozenset({"account_logout", "account_reauthenticate", "mfa_reauthenticate"})
_TO_SET_PASSWORD = _ALWAYS | {"account_set_password"}
_TO_SET_SECOND_FACTOR = _ALWAYS | {"mfa_activate_totp"}


def has_passed_second_factor(request: HttpRequest) -> bool:
    """Was a second factor given in this very session? The answer is in the session, so it costs nothing."""
    user = request.user if request.user.is_authenticated else None
    return any(record.get("method") == "mfa" for record in get_authentication_records(request, user))


class AccessMiddleware:
    """Signed in, not for too long, with a second factor where one is due; in the person's language; not cached."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if request.user.is_authenticated:
            response.headers["Cache-Control"] = "no-store"
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponseBase], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        name = request.resolver_match.view_name if request.resolver_match else ""
        is_public = getattr(view, "is_public", False) or name in PUBLIC_NAMES
        is_api = issubclass(getattr(view, "cls", object), APIView)

        if request.user.is_authenticated and self._has_ended(request):
            logout(request)
        if not request.user.is_authenticated:
            return None if is_public or is_api else _sign_in_first(request)

        user = request.user
        if settings.LANGUAGE_COOKIE_NAME not in request.COOKIES:
            translation.activate(user.language)
            request.LANGUAGE_CODE = translation.get_language()
        if is_public or not (settings.STAFF_NEEDS_SECOND_FACTOR and user.is_site_staff):
            return None
        return _safer_account_first(request, user, name, is_api=is_api)

    def _has_ended(self, request: HttpRequest) -> bool:
        """Is the session past its absolute age? If not, renew it once half of its idle time is used up."""
        now = int(time.time())
        session = request.session
        if SIGNED_IN_AT not in session:
            session[SIGNED_IN_AT] = session[RENEWED_AT] = now
        if now - session[SIGNED_IN_AT] >= settings.SESSION_ABSOLUTE_AGE:
            return True
        if now - session.get(RENEWED_AT, 0) >= settings.SESSION_COOKIE_AGE / 2:
            session[RENEWED_AT] = now  # a changed session is saved with a fresh expiry
        return False


def _sign_in_first(request: HttpRequest) -> HttpResponseBase:
    if request.path.startswith("/api/"):
        return JsonResponse({"code": "not_authenticated", "message": _("Please sign in.")}, status=401)
    if request.headers.get("HX-Request") == "true":  # a polling part of a page: load the whole page, which redirects
        return HttpResponse(status=401, headers={"HX-Refresh": "true"})
    # After a POST there is nothing to come back to; its address may not even answer GET.
    back = request.get_full_path() if request.method in ("GET", "HEAD") else reverse("home")
    return redirect_to_login(back, reverse("account_login"))


def _safer_account_first(request: HttpRequest, user: User, name: str, *, is_api: bool) -> HttpResponseBase | None:
    """Send staff without a password, then without a second factor, to the page that sets it."""
    if not user.has_usable_password():
        if name in _TO_SET_PASSWORD:
            return None
        page = reverse("account_set_password")
    elif name in _TO_SET_SECOND_FACTOR or has_passed_second_factor(request):
        return None
    elif is_mfa_enabled(user, [Authenticator.Type.TOTP]):
        # Set up in another session; this one has only seen the first factor.
        page = f"{reverse('mfa_reauthenticate')}?next={reverse('home')}"
    else:
        page = reverse("mfa_activate_totp")
    if is_api or request.path.startswith("/api/"):
        return JsonResponse({"code": "second_factor_needed", "message": _("Set up your sign-in first.")}, status=403)
    return redirect(page)


class DomainErrorMiddleware:
    """A DomainError that leaves a view becomes a page with its status and its message.

    So does a GET of an address that only takes forms (405), which would be a blank page: a bookmark, a reload in the
    address bar, a change of language after an error.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if response.status_code == 405 and request.method == "GET" and not request.path.startswith("/api/"):
            page = error_page(
                request, 405, _("This address only takes what a form sends. Open the page with the form.")
            )
            page.headers["Allow"] = response.headers["Allow"]
            return page
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        if isinstance(exception, DomainError):
            return error_page(request, exception.status, exception.message)
        return None
