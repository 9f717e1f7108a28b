"""api_docs: the API's description as a page, from files of this site only."""

from __future__ import annotations

from csp.decorators import csp_replace
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension

from annotation.views.access import for_roles


# Swagger UI writes HTML and style attributes as strings. It shows nothing but our own schema, to staff.
@csp_replace({"require-trusted-types-for": None, "trusted-types": None})
@require_safe
@for_roles("researcher", "admin")
def api_docs(request: HttpRequest) -> HttpResponse:
    return render(request, "annotation/people/api_docs.html")


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the API's description names it."""

    target_class = "annotation.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
