"""Corpora and rewritings in the background: doors from the job ledger to the services."""

from __future__ import annotations

from functools import partial

from django.core.files.base import File
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models import User
from annotation.services.importing import ItemOptions, NewDataset
from annotation.services.uploads import delete_upload, store_upload, uploads_before
from annotation.tasks import IMPORT_ITEMS, KEEP_UPLOADS
from jobs import ledger
from jobs.errors import JobRefused
from jobs.explanations import Explanations
from jobs.models import Job
from jobs.registry import Result, RunningJob, chore, job
from jobs.tasks import send_hint
from models_runtime.explanations import EXPLANATIONS as OF_MODELS
from models_runtime.services.batches import lane_of
from models_runtime.services.lanes import one_at_a_time
from models_runtime.services.local import remove_folder
from training.corpus.errors import CorpusError
from training.corpus.prepare import ITEMS
from training.leaks import leaked_items
from training.models import Corpus, Rewriting
from training.services.corpora import LEAKS, PREPARE, prepare_corpus, remove_remains, uploads_in_use
from training.services.corpora import UPLOADS as CORPUS_UPLOADS
from training.services.removal import REMOVE, remove_files
from training.services.rewriting import REWRITE, refresh_dialogues, rewrite_dialogues
from training.services.rewriting import UPLOADS as REWRITING_UPLOADS

MAX_LEAKS_NAMED = 200

EXPLANATIONS: Explanations = {
    **OF_MODELS,
    "SourceRefused": _("A file cannot be read, or too many of its records are broken. The places are listed."),
    "FolderTaken": _("Another process is writing the same folder."),
    "StoreBroken": _("Files of the corpus are not those that were written. Prepare it again."),
    "BadRules": _("The rules of cleaning cannot be used."),
    "CorpusError": _("The corpus cannot be made like this."),
    "BadTemplate": _("The prompt template cannot be used."),
}


def _corpus_of(row: Job) -> Corpus | None:
    return Corpus.objects.filter(job=row.pk).first()


def _conclude(row: Job) -> None:
    """Nothing half-made stays on the disk, however the worker ended."""
    remove_folder(row.pk)
    corpus = _corpus_of(row)
    if corpus is not None and not corpus.is_ready:
        remove_remains(corpus)


def _is_wanted(row: Job) -> bool:
    corpus = _corpus_of(row)
    return corpus is not None and not corpus.is_ready


@job(PREPARE, label=_("Preparing a corpus"), conclude=_conclude, can_retry=_is_wanted, explanations=EXPLANATIONS)
def run_prepare(running: RunningJob) -> Result:
    """params: corpus_id."""
    corpus = Corpus.objects.select_related("rewriting").filter(pk=running.params["corpus_id"]).first()
    if corpus is None or corpus.job_id != running.claim.job_id:
        raise JobRefused("Another job does this now, or nobody wants it any more.")
    if not corpus.is_ready:
        corpus = prepare_corpus(running, corpus)
    return {"content_hash": corpus.content_hash}


@job(LEAKS, label=_("Looking for leaks into a corpus"), explanations=EXPLANATIONS)
def run_leaks(running: RunningJob) -> Result:
    """params: corpus_id. Which items of datasets here the corpus learns from."""
    corpus = Corpus.objects.get(pk=running.params["corpus_id"])
    try:
        leaks = leaked_items(corpus.folder, beat=lambda n: running.heartbeat(n_done=n))
    except CorpusError as error:
        raise JobRefused(str(error)) from error
    return {"n_leaks": len(leaks), "leaks": leaks[:MAX_LEAKS_NAMED]}


@job(REMOVE, label=_("Removing files"))
def run_remove(running: RunningJob) -> Result:
    """params: what ("corpus", "run", "checkpoints"), public_id, and what belongs to it; see services.removal."""
    return {"n": remove_files(running, running.params)}


def _rewriting_of(row: Job) -> Rewriting | None:
    return Rewriting.objects.filter(job=row.pk).first()


def _conclude_rewriting(row: Job) -> None:
    """The dialogues are there, however the worker ended."""
    remove_folder(row.pk)
    rewriting = _rewriting_of(row)
    if rewriting is not None:
        refresh_dialogues(rewriting)


@job(
    REWRITE,
    label=_("Rewriting questions into dialogues"),
    conclude=_conclude_rewriting,
    can_retry=lambda row: _rewriting_of(row) is not None,
    explanations=EXPLANATIONS,
)
def run_rewrite(running: RunningJob) -> Result:
    """params: rewriting_id."""
    rewriting = Rewriting.objects.select_related("system").get(pk=running.params["rewriting_id"])
    if rewriting.job_id != running.claim.job_id:
        raise JobRefused("Another job does this now.")
    with one_at_a_time(running, lane_of(rewriting), wake=hint):
        rewriting = rewrite_dialogues(running, rewriting)
    return {"n_accepted": rewriting.n_accepted}


@chore
def remove_stray_uploads() -> None:
    """Files whose request died before there was a corpus or a rewriting go after a day."""
    questions = Rewriting.objects.values_list("questions__upload", flat=True)
    for folder, used in (
        (CORPUS_UPLOADS, lambda: uploads_in_use(Corpus.objects.all())),
        (REWRITING_UPLOADS, lambda: set(questions)),
    ):
        stale = uploads_before(timezone.now() - KEEP_UPLOADS, folder=folder)
        if stale:
            for name in set(stale) - used():
                delete_upload(name, folder=folder)


def leaks_soon(corpus: Corpus, *, by_id: int | None) -> Job:
    """Have the datasets of this moment compared with a corpus; a job that still waits will do."""
    queued = Job.objects.filter(kind=LEAKS, state=Job.State.QUEUED, params__corpus_id=corpus.pk)
    with transaction.atomic():
        params = {"corpus_id": corpus.pk, "about": corpus.name, "corpus": str(corpus.public_id)}
        row = queued.first() or ledger.enqueue(kind=LEAKS, params=params, by_id=by_id)
        transaction.on_commit(partial(send_hint, row.pk, row.queue))
    return row


def import_test_soon(corpus: Corpus, *, by: User) -> Job:
    """Have the test's items imported as a dataset, as an uploaded file is; a second time changes nothing."""
    with (corpus.folder / ITEMS).open("rb") as file:
        upload = store_upload(File(file))
    dataset = NewDataset(
        slug=f"test-{corpus.public_id.hex[:8]}",
        name=f"{corpus.name[:190]} (test)",
        source=f"Test part of the corpus {corpus.name}, content {corpus.content_hash[:12]}",
    )
    params = {
        "options": vars(ItemOptions(format="jsonl")),
        "new_dataset": vars(dataset),
        "upload": upload,
        "file_name": f"{corpus.name}: {ITEMS}",
    }
    with transaction.atomic():
        row = ledger.enqueue(kind=IMPORT_ITEMS, params=params, by_id=by.pk)
        transaction.on_commit(partial(send_hint, row.pk, row.queue))
    return row


def hint(row: Job | None) -> None:
    """Tell the workers that a job waits. For doors, when it is committed."""
    if row is not None and row.state == Job.State.QUEUED:
        send_hint(row.pk, row.queue)
