"""Work in the background: what runs, where, since when, how fast; stop it, try it again."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from annotation.selectors import jobs as selectors
from annotation.views.access import for_roles, uses_htmx
from jobs import ledger, registry
from jobs.logs import log_tail
from jobs.models import Job
from jobs.tasks import conclude, send_hint


@for_roles("admin")
@require_safe
@uses_htmx
def job_list(request: HttpRequest) -> HttpResponse:
    """All of it; while something is alive, htmx asks again and takes the table out of the answer."""
    asked = {name: request.GET[name] for name in ("state", "kind", "page") if name in request.GET}
    found = selectors.job_list(**asked)
    return render(request, "annotation/job_list.html", {"jobs": found})


@for_roles("admin")
@require_safe
@uses_htmx  # type: ignore[arg-type]  # the decorator is typed for views without arguments
def job_detail(request: HttpRequest, public_id: UUID) -> HttpResponse:
    return _job_page(request, public_id, "annotation/job_detail.html", log=log_tail(public_id))


@for_roles("admin")
@require_safe
def job_fragment(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The part of the job's page that refreshes itself."""
    return _job_page(request, public_id, "annotation/_job.html")


def _job_page(request: HttpRequest, public_id: UUID, template: str, **context: str) -> HttpResponse:
    job = get_object_or_404(Job.objects.select_related("created_by"), public_id=public_id)
    page = selectors.job_page(job)
    return render(request, template, {"page": page, "row": page.row, "job": job, **context})


@for_roles("admin")
@require_POST
def job_cancel(request: HttpRequest, public_id: UUID) -> HttpResponse:
    job = get_object_or_404(Job, public_id=public_id)
    if ledger.request_cancel(job.pk):
        conclude(job.pk)
    else:
        messages.warning(request, _("The job cannot be stopped now: it is over, or about to be."))
    return redirect("job_detail", public_id)


@for_roles("admin")
@require_POST
def job_retry(request: HttpRequest, public_id: UUID) -> HttpResponse:
    job = get_object_or_404(Job, public_id=public_id)
    with transaction.atomic():
        if registry.can_retry(job) and ledger.retry(job.pk):
            transaction.on_commit(partial(send_hint, job.pk, job.queue))
        else:
            messages.error(request, _("This job cannot be tried again. Start it anew."))
    return redirect("job_detail", public_id)
