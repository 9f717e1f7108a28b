"""A launch that is sent twice happens once, from a second tab, after a reload or by two clicks alike.

A page that asks for a launch has a key in its address, made by the server: reloaded, duplicated or gone back to, it
has the same one. Key and questions together give what is launched its id, and ids are unique in the database. So the
same answers sent again lead to what the first ones made, and other answers to the same page are another launch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any
from uuid import UUID, uuid4, uuid5

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from annotation.views.access import View

KEY = "key"


def keyed(view: View) -> View:
    """A page without a key is asked for again with one; nothing is launched without."""

    @wraps(view)
    def with_key(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if key_of(request) is not None:
            return view(request, *args, **kwargs)
        if request.method == "POST":
            raise BadRequest("A launch is sent from the page that asks for it.")
        query = request.GET.copy()
        query[KEY] = str(uuid4())
        return redirect(f"{request.path}?{query.urlencode()}")

    return with_key


def key_of(request: HttpRequest) -> UUID | None:
    """The key that the page carries."""
    try:
        return UUID((request.POST if request.method == "POST" else request.GET).get(KEY, ""))
    except ValueError:
        return None


def launch_id(request: HttpRequest, names: Iterable[str]) -> UUID:
    """The id of what this page launches, by its key and its answers to the questions `names`. For keyed views."""
    key, told = key_of(request), request.POST if request.method == "POST" else request.GET
    assert key is not None  # noqa: S101 - the view is keyed
    files = {name: [(file.name, file.size) for file in request.FILES.getlist(name)] for name in request.FILES}
    answers = [(name, told.getlist(name), files.get(name, [])) for name in names]
    return uuid5(key, json.dumps(answers, ensure_ascii=False))


def launched_once(
    request: HttpRequest, rows: type[Model], name: UUID, page: str, launch: Callable[[], HttpResponse]
) -> HttpResponse:
    """The way to the `page` of what was made under this id before, else what `launch` answers."""
    there = _made_before(request, rows, name, page)
    if there is not None:
        return there
    answer = launch()
    # Of two at once the slower one may be refused for what the faster one did: its name is taken, say.
    return (_made_before(request, rows, name, page) or answer) if answer.status_code == 422 else answer


def _made_before(request: HttpRequest, rows: type[Model], name: UUID, page: str) -> HttpResponse | None:
    if not rows._default_manager.filter(public_id=name).exists():
        return None
    messages.info(request, _("This was launched already, and nothing was launched a second time."))
    return redirect(page, name)
