"""Work in the background: doors from the job ledger to the services."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.errors import DomainError
from annotation.formats.source import Source
from annotation.models import Dataset, Study, User
from annotation.reports import study_report
from annotation.services.importing import (
    ImportResult,
    ItemOptions,
    NewDataset,
    Progress,
    ResponseOptions,
    import_items,
    import_responses,
)
from annotation.services.text_counts import count_texts
from annotation.services.uploads import delete_upload, has_upload, upload_path, uploads_before
from jobs import ledger
from jobs.errors import JobRefused
from jobs.models import Job
from jobs.registry import Result, RunningJob, chore, job
from jobs.tasks import send_hint

IMPORT_ITEMS, IMPORT_RESPONSES = "annotation.import_items", "annotation.import_responses"
COUNT_TEXTS, REPORT = "annotation.count_texts", "annotation.report"
KEEP_UPLOADS = timedelta(hours=24)  # of a job that failed for reasons of ours, so that it can be tried again


def _put_away(row: Job) -> None:
    """The uploaded file goes as soon as nobody can need it."""
    is_worth_a_retry = row.state == Job.State.FAILED and row.error_class != JobRefused.__name__
    if not is_worth_a_retry:
        delete_upload(row.params.get("upload", ""))


def _has_file(row: Job) -> bool:
    return has_upload(row.params.get("upload", ""))


@job(IMPORT_ITEMS, label=_("Import of items"), conclude=_put_away, can_retry=_has_file)
def run_import_items(running: RunningJob) -> Result:
    """params: upload, file_name, options, and dataset_id or new_dataset."""
    params = running.params
    dataset: Dataset | NewDataset
    if "dataset_id" in params:
        dataset = Dataset.objects.get(pk=params["dataset_id"])
    else:
        dataset = NewDataset(**params["new_dataset"])
    try:
        result = import_items(
            source=_source(params),
            dataset=dataset,
            options=ItemOptions(**params["options"]),
            by=_creator(running),
            on_progress=_beats(running),
        )
    except DomainError as error:
        raise _refused(error) from error
    return _told(result)


@job(IMPORT_RESPONSES, label=_("Import of responses"), conclude=_put_away, can_retry=_has_file)
def run_import_responses(running: RunningJob) -> Result:
    """params: upload, file_name, options, dataset_id."""
    params = running.params
    dataset = Dataset.objects.get(pk=params["dataset_id"])
    try:
        result = import_responses(
            source=_source(params),
            dataset=dataset,
            options=ResponseOptions(**params["options"]),
            by=_creator(running),
            on_progress=_beats(running),
        )
    except DomainError as error:
        raise _refused(error) from error
    count_texts_soon(dataset, by_id=running.created_by_id)
    return _told(result)


@job(COUNT_TEXTS, label=_("Counting of texts"))
def run_count_texts(running: RunningJob) -> Result:
    """params: dataset_id."""
    done = count_texts(dataset=Dataset.objects.get(pk=running.params["dataset_id"]), on_progress=_beats(running))
    return {"counts": {"n_counted": done.n_counted, "n_unchanged": done.n_unchanged}}


def count_texts_soon(dataset: Dataset, *, by_id: int | None = None) -> None:
    """Have new responses counted in the background. For doors, when the responses are committed.

    A job that is still in the queue will find them too, so there is never more than one waiting for a dataset.
    """
    queued = Job.objects.filter(kind=COUNT_TEXTS, state=Job.State.QUEUED, params__dataset_id=dataset.pk)
    waiting = queued.first() or ledger.enqueue(kind=COUNT_TEXTS, params={"dataset_id": dataset.pk}, by_id=by_id)
    transaction.on_commit(partial(send_hint, waiting.pk, waiting.queue))


@job(REPORT, label=_("Numbers of a report"))
def run_report(running: RunningJob) -> Result:
    """params: study_id, and state: what the study was like when the numbers were asked for."""
    study = Study.objects.select_related("rubric").get(pk=running.params["study_id"])

    def beat(done: int, total: int) -> None:
        running.heartbeat(n_done=done, n_total=total)

    study_report(study, on_progress=beat)
    return {}


def report_soon(study: Study, *, state: str, by_id: int | None) -> Job:
    """The job that computes the study's numbers of this state; a new one unless it was asked for already."""
    asked = Job.objects.filter(kind=REPORT, params__study_id=study.pk, params__state=state)
    found = asked.exclude(state__in=[Job.State.DONE, Job.State.CANCELLED]).order_by("-pk").first()
    if found is None:
        found = ledger.enqueue(kind=REPORT, params={"study_id": study.pk, "state": state}, by_id=by_id)
    if found.state == Job.State.QUEUED:
        transaction.on_commit(partial(send_hint, found.pk, found.queue))
    return found


@chore
def remove_stale_uploads() -> None:
    """Files whose job is over, or whose request died before there was one, go after a day."""
    stale = uploads_before(timezone.now() - KEEP_UPLOADS)
    if stale:
        alive = Job.objects.filter(state__in=[Job.State.QUEUED, Job.State.RUNNING])
        needed = set(alive.filter(params__upload__in=stale).values_list("params__upload", flat=True))
        for name in stale:
            if name not in needed:
                delete_upload(name)


def _source(params: dict[str, Any]) -> Source:
    if not has_upload(params["upload"]):
        raise JobRefused("the uploaded file is gone", {"is_file_gone": True})
    return Source(upload_path(params["upload"]), params["file_name"])


def _creator(running: RunningJob) -> User | None:
    return User.objects.get(pk=running.created_by_id) if running.created_by_id else None


def _beats(running: RunningJob) -> Progress:
    # While the file is written this happens inside the import's own transaction, the last time just before its end.
    # That is meant: a worker that lost its lease cannot commit, and the lease is renewed by the commit itself.
    def beat(stage: str, done: int, total: int | None) -> None:
        running.heartbeat(n_done=done, n_total=total, message=stage)

    return beat


def _told(result: ImportResult) -> Result:
    return {"import": str(result.record.public_id), "is_repeat": result.is_repeat, "counts": result.counts}


def _refused(error: DomainError) -> JobRefused:
    return JobRefused(error.message, {"problems": error.detail.get("problems", [])})
