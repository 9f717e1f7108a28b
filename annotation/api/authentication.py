"""TokenAuthentication: read access for scripts of researchers and admins, by `Authorization: Bearer …`."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from annotation.models import ApiToken, Role, User
from annotation.models.people import hash_token

_NOTED_EVERY = timedelta(minutes=1)


class TokenAuthentication(BaseAuthentication):
    """A token reads and never writes; it ends with its expiry, its revocation or its owner's account."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _space, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        now = timezone.now()
        token = (
            ApiToken.objects.select_related("user")
            .filter(
                token_hash=hash_token(secret.strip().decode("latin-1")),
                revoked_at=None,
                expires_at__gt=now,
                user__is_active=True,
                user__role__in=[Role.RESEARCHER, Role.ADMIN],
            )
            .first()
        )
        if token is None:
            raise exceptions.AuthenticationFailed(_("This token is unknown, has expired or was revoked."))
        if request.method not in SAFE_METHODS:
            raise exceptions.PermissionDenied(_("A token can read and nothing else."))
        ApiToken.objects.filter(Q(last_used_at=None) | Q(last_used_at__lt=now - _NOTED_EVERY), pk=token.pk).update(
            last_used_at=now
        )
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
