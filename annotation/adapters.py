"""How allauth behaves here: no sign-up, redirects stay on this site, second-factor seeds are encrypted."""

from __future__ import annotations

import time
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext_lazy as _

from annotation.secrets import seal, unseal

SIGNED_IN_AT = "signed_in_at"  # seconds since the epoch; AccessMiddleware ends sessions that are too old
RENEWED_AT = "renewed_at"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """People enter by invitation only."""
        return False

    def is_safe_url(self, url: str) -> bool:
        """Only paths of this site: no other host that ALLOWED_HOSTS or CSRF_TRUSTED_ORIGINS may name."""
        return bool(url) and url.startswith("/") and url_has_allowed_host_and_scheme(url, allowed_hosts=None)

    def login(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        """Sign in with a fresh session key, and note when."""
        super().login(request, user)
        request.session[SIGNED_IN_AT] = request.session[RENEWED_AT] = int(time.time())

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("account")

    def send_notification_mail(self, *args: Any, **kwargs: Any) -> None:
        """Nobody's e-mail address is kept, so there is nobody to write to."""


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    error_messages = DefaultMFAAdapter.error_messages | {
        "incorrect_code": _("The code is wrong, or its time is over. Type the one shown now."),
    }

    def encrypt(self, text: str) -> str:
        return seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(encrypted_text)
