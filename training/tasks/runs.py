"""Runs in the background: doors from the job ledger to the services."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from jobs.errors import CancelRequested, JobRefused
from jobs.models import Job
from jobs.registry import Result, RunningJob, job
from jobs.tasks import send_hint
from training.corpus.errors import CorpusError
from training.explanations import EXPLANATIONS
from training.models import TrainingRun
from training.services.runs import TRAIN, train_run

Intent = TrainingRun.Intent


def _can_retry(row: Job) -> bool:
    return TrainingRun.objects.filter(job=row, intent=Intent.GO, system=None).exists()


def _conclude(row: Job) -> None:
    """A job that was cancelled on its own page leaves a run that was stopped."""
    if row.state == Job.State.CANCELLED:
        TrainingRun.objects.filter(job=row, intent=Intent.GO).update(intent=Intent.STOP)


class CorpusGone(JobRefused):
    """The corpus cannot be read any more."""

    error_class = "StoreBroken"


@job(TRAIN, label=_("Training"), conclude=_conclude, can_retry=_can_retry, explanations=EXPLANATIONS)
def run_training(running: RunningJob) -> Result:
    """params: run_id."""
    run = TrainingRun.objects.select_related("corpus").get(pk=running.params["run_id"])
    if run.job_id != running.claim.job_id:
        raise JobRefused("Another job does this now.")
    if run.intent != Intent.GO:
        raise CancelRequested
    try:
        run = train_run(running, run)
    except CorpusError as error:
        raise CorpusGone(str(error)) from error
    return {"run": str(run.public_id), "system": run.system and run.system.slug}


def hint_run(run: TrainingRun) -> None:
    """Tell the workers about a run's job. For doors, when it is committed."""
    if run.job is not None and run.job.state == Job.State.QUEUED:
        send_hint(run.job.pk, run.job.queue)
