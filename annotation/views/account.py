"""allauth's pages with what this site needs on top: safe sign-out, and steps that count as having just signed in."""

from __future__ import annotations

import time
from typing import Any

from allauth.account import views as account_views
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY, record_authentication
from allauth.mfa.totp import views as totp_views
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from annotation.forms.people import ChangePasswordForm, SetPasswordForm

_LINK_COUNTS_SECONDS = 3600


def sign_out(request: HttpRequest) -> HttpResponseBase:
    """Sign out, and let the browser drop what the rating page kept (it asks first if something is unsent)."""
    response: HttpResponseBase = account_views.logout(request)
    if request.method == "POST":
        response.headers["Clear-Site-Data"] = '"storage"'
    return response


def came_by_link(request: HttpRequest) -> bool:
    """Was this session begun with a one-time link within the last hour? Then the old password is not asked for."""
    records = get_authentication_records(request, request.user)
    return any(r.get("method") == "invitation" and time.time() - r["at"] < _LINK_COUNTS_SECONDS for r in records)


class SetPassword(account_views.PasswordSetView):  # type: ignore[misc]  # allauth ships no types
    """For whoever has no password, or came by a link because it was forgotten."""

    form_class = SetPasswordForm

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response: HttpResponseBase
        if came_by_link(request):
            response = super(account_views.PasswordSetView, self).dispatch(request, *args, **kwargs)
        else:
            response = super().dispatch(request, *args, **kwargs)
        return response

    def form_valid(self, form: Form) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        # Whoever has just chosen the password need not type it again to set up the second factor.
        record_authentication(self.request, self.request.user, method="password", reauthenticated=True)
        return response


class ChangePassword(account_views.PasswordChangeView):  # type: ignore[misc]
    form_class = ChangePasswordForm

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if came_by_link(request):
            return redirect("account_set_password")
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        return response


class ActivateTOTP(totp_views.ActivateTOTPView):  # type: ignore[misc]
    def form_valid(self, form: Form) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        record_authentication(self.request, self.request.user, method="mfa", type="totp")
        return response


class DeactivateTOTP(totp_views.DeactivateTOTPView):  # type: ignore[misc]
    def form_valid(self, form: Form) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        records: list[dict[str, Any]] = self.request.session.get(AUTHENTICATION_METHODS_SESSION_KEY, [])
        self.request.session[AUTHENTICATION_METHODS_SESSION_KEY] = [r for r in records if r.get("method") != "mfa"]
        return response
