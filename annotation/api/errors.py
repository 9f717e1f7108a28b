"""exception_handler: every refusal of the API as {"code", "message", …}, with the status that fits it."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler as framework_handler

from annotation.errors import DomainError


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """The answer to an error, or None if it is none of ours (the server then answers 500)."""
    if isinstance(error, DomainError):
        return Response({**error.detail, "code": error.code, "message": error.message}, status=error.status)
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        return None
    response = framework_handler(error, context)
    if response is None:
        return None
    if isinstance(error, exceptions.ValidationError):
        response.data = {"code": "invalid", "message": _("Some fields cannot be taken."), "fields": response.data}
        response.status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
        return response
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        # The framework answers 403 wherever session authentication comes first; pages need to tell
        # "signed out" from "not allowed".
        response.status_code = status.HTTP_401_UNAUTHORIZED
        response["WWW-Authenticate"] = "Bearer"
    detail = error.detail
    code = getattr(detail, "code", error.default_code)
    response.data = {"code": code, "message": str(detail)}
    return response
