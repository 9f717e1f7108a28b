"""The page that asks whether something should go: what, how large, what stays, and why it may not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from jobs.models import Job
from training.services.removal import Removal
from training.tasks.corpora import hint


def asked_first(
    request: HttpRequest, *, question: str, name: str, removal: Callable[[], Removal], remove: Callable[[], Job],
    back: str, then: str,
) -> HttpResponse:  # fmt: skip
    """The page for GET; for POST it goes. back, then: addresses of where it is, and of where nobody misses it."""
    if request.method != "POST":
        context = {"question": question, "name": name, "removal": removal(), "back": back}
        return render(request, "training/removal.html", context)
    try:
        with transaction.atomic():
            job = remove()
            transaction.on_commit(partial(hint, job))
    except DomainError as error:
        messages.error(request, error.message)
        return redirect(request.path)
    messages.success(request, _("%(name)s: removed. A worker takes the files.") % {"name": name})
    return redirect(then)
