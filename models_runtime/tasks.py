"""Systems answer in the background: doors from the job ledger to the services."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from annotation.models import Dataset
from annotation.tasks import count_texts_soon
from jobs import ledger
from jobs.errors import CancelRequested, JobRefused
from jobs.models import Job
from jobs.registry import Result, RunningJob, job
from jobs.tasks import send_hint
from models_runtime.engine.prompts import Turn
from models_runtime.explanations import EXPLANATIONS
from models_runtime.models import BatchPart, GenerationBatch, Runtime
from models_runtime.runtimes import EndpointSettings, LocalSettings
from models_runtime.services.batches import ANSWER, lane_of, queue_of
from models_runtime.services.lanes import one_at_a_time
from models_runtime.services.local import answer_locally, remove_folder
from models_runtime.services.remote import answer_by_endpoint, ask_once
from models_runtime.services.trying import try_locally

TRY = "models_runtime.try"
GREETING = (Turn("client", "你好，我最近睡不太好。"),)  # ours; what a system is asked when it is tried out


def _is_current(row: Job) -> bool:
    part = BatchPart.objects.filter(job=row.pk).select_related("batch").first()
    return part is not None and part.batch.intent == GenerationBatch.Intent.GO


def _conclude(row: Job) -> None:
    """Nothing stays on disk, however the worker ended, and what was answered is counted for the text metrics."""
    remove_folder(row.pk)
    if row.started_at is None:
        return
    for part in BatchPart.objects.filter(job=row).select_related("batch"):
        for dataset in Dataset.objects.filter(pk__in=part.batch.items.values("dataset")):
            count_texts_soon(dataset, by_id=row.created_by_id)


def _tidy(row: Job) -> None:
    remove_folder(row.pk)


@job(ANSWER, label=_("Responses of a system"), conclude=_conclude, can_retry=_is_current, explanations=EXPLANATIONS)
def run_answer(running: RunningJob) -> Result:
    """params: part_id."""
    part = BatchPart.objects.select_related("batch", "system", "version").get(pk=running.params["part_id"])
    if part.job_id != running.claim.job_id:
        raise JobRefused("Another job does this now.")
    if part.batch.intent != GenerationBatch.Intent.GO:
        raise CancelRequested
    how = part.value
    with one_at_a_time(running, lane_of(part), wake=hint):
        if isinstance(how, LocalSettings):
            recorder = answer_locally(running, part, how)
        else:
            recorder = answer_by_endpoint(running, part, how)
    return {
        "batch": str(part.batch.public_id),
        "counts": {"n_new": recorder.n_stored},
        "n_failed": recorder.n_failed,
        "n_dropped": recorder.n_dropped,
    }


@job(TRY, label=_("Trying a system out"), conclude=_tidy, explanations=EXPLANATIONS)
def run_try(running: RunningJob) -> Result:
    """params: runtime_id. What it writes to a greeting, and what it is; nothing is stored as a response."""
    runtime = Runtime.objects.select_related("system").get(pk=running.params["runtime_id"])
    how = runtime.value
    if isinstance(how, EndpointSettings):
        answer = ask_once(running, how, runtime, GREETING)
        return {"asked": GREETING[0].text, "text": answer.text, "spec": how.spec, "seconds": answer.seconds}
    return try_locally(running, how, GREETING)


def try_soon(runtime: Runtime, *, by_id: int | None) -> Job:
    """Have a runtime tried out in the background; a trial of these settings that is not over yet will do."""
    queue = queue_of(runtime.value)
    with transaction.atomic():
        now = Runtime.objects.select_for_update(of=("self",)).select_related("check_job").get(pk=runtime.pk)
        if now.check_job is not None and not now.check_job.is_over:
            return now.check_job
        params: dict[str, Any] = {"runtime_id": runtime.pk, "about": runtime.system.name}
        row = ledger.enqueue(kind=TRY, params=params, by_id=by_id, queue=queue, max_attempts=1)
        Runtime.objects.filter(pk=runtime.pk).update(check_job=row)
        transaction.on_commit(partial(send_hint, row.pk, row.queue))
    return row


def hint_batch(batch: GenerationBatch) -> None:
    """Tell the workers about a batch's jobs that wait. For doors, when the batch is committed."""
    for row in Job.objects.filter(pk__in=batch.parts.values("job"), state=Job.State.QUEUED):
        hint(row)


def hint(row: Job) -> None:
    send_hint(row.pk, row.queue)
