"""Who may open a page. A page that is not for your role does not exist for you: 404."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from csp.decorators import csp_replace
from django.http import Http404, HttpRequest, HttpResponseBase
from rest_framework.request import Request

from annotation.models import User


def person_of(request: HttpRequest | Request) -> User:
    """Whoever is signed in; for views behind the gate, where nobody else comes."""
    return cast(User, request.user)


View = Callable[..., HttpResponseBase]


def for_roles(*roles: str) -> Callable[[View], View]:
    """Only people in one of `roles` reach the view; for everyone else there is nothing here."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if getattr(request.user, "role", None) not in roles:
                raise Http404
            return view(request, *args, **kwargs)

        guarded.roles = roles  # type: ignore[attr-defined]  # read by the access table in the tests
        return guarded

    return decorate


def public(view: View) -> View:
    """Reachable without signing in."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


# htmx cannot work under trusted types; pages that poll keep every other directive.
uses_htmx = csp_replace({"require-trusted-types-for": None, "trusted-types": None})
