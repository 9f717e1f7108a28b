"""allauth's pages with what this site needs on top: safe sign-out, and steps that count as having just signed in."""

from __future__ import annotations

from typing import Any

from allauth.account import views as account_views
from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY, record_authentication
from allauth.mfa.totp import views as totp_views
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from annotation.forms.people import ChangePasswordForm, SetPasswordForm


def sign_out(request: HttpRequest) -> HttpResponseBase:
    """Sign out, and let the browser drop what the rating page kept (it asks first if something is unsent)."""
    response: HttpResponseBase = account_views.logout(request)
    if request.method == "POST":
        response.headers["Clear-Site-Data"] = '"storage"'
    return response


class SetPassword(account_views.PasswordSetView):  # type: ignore[misc]  # allauth ships no types
    form_class = SetPasswordForm

    def form_valid(self, form: Form) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        # Whoever has just chosen the password need not type it again to set up the second factor.
        record_authentication(self.request, self.request.user, method="password", reauthenticated=True)
        return response


class ChangePassword(account_views.PasswordChangeView):  # type: ignore[misc]
    form_class = ChangePasswordForm


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
