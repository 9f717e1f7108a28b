"""remove_corpus, remove_run, remove_checkpoints: what is no longer needed goes, with its files; remove_files: the job.

One transaction takes the row away, writes the event down and puts a job into the queue; the job takes the files. So
there is no half of anything: before the commit all is there, and after it nothing refers to the files, which go however
often the worker dies. A folder is renamed before it is emptied, so that nobody ever reads what is left of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import System, User
from annotation.services.audit import record
from annotation.services.uploads import delete_upload, upload_path
from jobs import ledger
from jobs.errors import JobRefused
from jobs.models import Job
from jobs.registry import RunningJob
from models_runtime.models import Runtime
from training.corpus.store import partial_of
from training.finetune.protocol import CHECKPOINTS, MARKER
from training.models import Corpus, TrainingRun
from training.services.corpora import LEAKS, UPLOADS, CorpusRefused, uploads_in_use
from training.services.runs import RunRefused

REMOVE = "training.remove"
N_NAMED = 5  # of those that something rests on


@dataclass(frozen=True)
class Piece:
    """Something that goes."""

    name: str
    n_bytes: int


@dataclass(frozen=True)
class Removal:
    """What would go, what would stay, and why it may not."""

    pieces: Sequence[Piece]
    stays: str
    reasons: Sequence[str]

    @property
    def n_bytes(self) -> int:
        return sum(piece.n_bytes for piece in self.pieces)


# --- A corpus -------------------------------------------------------------------------------------------


def removal_of_corpus(corpus: Corpus) -> Removal:
    """Its folder, its uploads and verdicts; not what a run learnt from, nor what another corpus was made after."""
    reasons = []
    if corpus.job is not None and not corpus.job.is_over:
        reasons.append(_("It is still being prepared. Cancel that first."))
    if Job.objects.filter(kind=LEAKS, params__corpus_id=corpus.pk).exclude(state__in=ledger.OVER).exists():
        reasons.append(_("It is being compared with the datasets. Wait for that."))
    if names := _named(corpus.runs.all()):
        reasons.append(_("Runs learn from it: %(names)s. Remove them first, if they may go.") % {"names": names})
    if names := _named(Corpus.objects.filter(reviewed=corpus)):
        reasons.append(_("Corpora were prepared after its verdicts: %(names)s.") % {"names": names})
    if not corpus.path and (names := _named(Corpus.objects.filter(path__in=_spellings(corpus.folder)))):
        reasons.append(_("The same folder is registered under another name: %(names)s.") % {"names": names})
    pieces = [] if corpus.path else [Piece(_("What was prepared"), size_of(corpus.folder))]
    pieces += [Piece(name, size_of(upload_path(upload, folder=UPLOADS))) for name, upload in _own_uploads(corpus)]
    if n := corpus.review_cases.count():
        pieces.append(Piece(ngettext("%(n)s case of the review", "%(n)s cases of the review", n) % {"n": n}, 0))
    stays = _("%(path)s was made elsewhere and stays.") % {"path": corpus.path} if corpus.path else ""
    return Removal(pieces, stays, reasons)


def _own_uploads(corpus: Corpus) -> list[tuple[str, str]]:
    """Name and upload of the files that no other corpus needs."""
    kept = uploads_in_use(Corpus.objects.exclude(pk=corpus.pk))
    found = [(source["name"], source["upload"]) for source in corpus.sources if "upload" in source]
    if corpus.plan.get("review"):
        found.append((_("Verdicts"), corpus.plan["review"]))
    return [(name, upload) for name, upload in found if upload not in kept]


@transaction.atomic
def remove_corpus(*, corpus: Corpus, by: User | None) -> Job:
    """The corpus is gone and its name is free; the job that takes the files. The caller sends the hint.

    Raises CorpusRefused with the reasons.
    """
    corpus = Corpus.objects.select_for_update(of=("self",)).select_related("job").get(pk=corpus.pk)
    if reasons := removal_of_corpus(corpus).reasons:
        raise CorpusRefused(" ".join(reasons))
    job = _enqueue(
        corpus, by, what="corpus", has_folder=not corpus.path, uploads=[name for _n, name in _own_uploads(corpus)]
    )
    record("corpus.removed", by=by, corpus=str(corpus.public_id), content_hash=corpus.content_hash)
    corpus.delete()
    return job


# --- A run ----------------------------------------------------------------------------------------------


def removal_of_run(run: TrainingRun) -> Removal:
    """Its folder; not that of a run whose weights answer, or are learnt from."""
    reasons = _why_busy(run)
    if run.system is not None:
        reasons.append(_("The system %(system)s answers with its weights.") % {"system": run.system})
    mine = str(run.public_id)
    is_used = Q(settings__weights__icontains=mine) | Q(settings__adapter__icontains=mine)
    others = System.objects.exclude(training_run=run)
    if names := _named(others.filter(runtime__in=Runtime.objects.filter(is_used))):
        reasons.append(_("Systems answer with its weights: %(names)s.") % {"names": names})
    if names := _named(TrainingRun.objects.filter(base__contains=mine)):
        reasons.append(_("Runs began with its weights: %(names)s.") % {"names": names})
    if names := _named(Corpus.objects.filter(weights__contains=mine)):
        reasons.append(_("Corpora were prepared for its weights: %(names)s.") % {"names": names})
    pieces = [Piece(path.name, size_of(path)) for path in sorted(_entries(run.folder))]
    return Removal(pieces, _("The corpus stays, and so do the acts in the log."), reasons)


@transaction.atomic
def remove_run(*, run: TrainingRun, by: User | None) -> Job:
    """The run is gone and its name is free; the job that takes its folder. The caller sends the hint.

    Raises RunRefused with the reasons.
    """
    run = _locked(run)
    if reasons := removal_of_run(run).reasons:
        raise RunRefused(" ".join(reasons))
    job = _enqueue(run, by, what="run", has_folder=True)
    record("run.removed", by=by, run=str(run.public_id), corpus=run.content_hash)
    run.delete()
    return job


def removal_of_checkpoints(run: TrainingRun) -> Removal:
    """All but the newest two; once the weights are registered, all."""
    reasons = _why_busy(run)
    going, kept = _checkpoints(run)
    if not going:
        reasons.append(_("There is no checkpoint that is not needed."))
    told = _("%(names)s will be kept: the run goes on from the newest one that is whole.")
    stays = told % {"names": ", ".join(kept)} if kept else ""
    folder = run.folder / CHECKPOINTS
    return Removal([Piece(name, size_of(folder / name)) for name in going], stays, reasons)


@transaction.atomic
def remove_checkpoints(*, run: TrainingRun, by: User | None) -> Job:
    """The job that takes the checkpoints that are not needed. The caller sends the hint. Raises RunRefused."""
    run = _locked(run)
    if reasons := removal_of_checkpoints(run).reasons:
        raise RunRefused(" ".join(reasons))
    going, kept = _checkpoints(run)
    record("run.checkpoints_removed", by=by, run=str(run.public_id), n=len(going), kept=kept)
    return _enqueue(run, by, what="checkpoints", names=going)


def _checkpoints(run: TrainingRun) -> tuple[list[str], list[str]]:
    """Names of those that are not needed, and of those that are: the newest may be damaged, unseen until it is read."""
    folder = run.folder / CHECKPOINTS
    names = sorted((path.name for path in folder.glob("step-*")), reverse=True)
    complete = [name for name in names if (folder / name / MARKER).is_file()]
    if run.system_id is not None:
        return names, []
    kept = complete[:2]
    return [name for name in names if kept and name < kept[-1]], kept


def _why_busy(run: TrainingRun) -> list[str]:
    is_busy = run.job is not None and not run.job.is_over
    return [_("The run trains, or is about to. Stop it first.")] if is_busy else []


def _locked(run: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.select_for_update(of=("self",)).select_related("job", "system").get(pk=run.pk)


# --- Files ----------------------------------------------------------------------------------------------


def _enqueue(row: Corpus | TrainingRun, by: User | None, **params: Any) -> Job:
    told = {"about": row.name, "public_id": str(row.public_id), **params}
    return ledger.enqueue(kind=REMOVE, params=told, by_id=by.pk if by else None)


def remove_files(running: RunningJob, params: Mapping[str, Any]) -> int:
    """Take what a removal left to this job; how many folders and files it was asked for. Harmless a second time.

    Raises JobRefused where a row of this id is there again: then the files are its own.
    """
    public_id = UUID(params["public_id"])
    if params["what"] == "checkpoints":
        folders = [Path(settings.RUN_DIR, str(public_id), CHECKPOINTS, name) for name in params["names"]]
        for number, folder in enumerate(folders):
            running.heartbeat(n_done=number, n_total=len(folders))
            (folder / MARKER).unlink(missing_ok=True)  # first, so that half of it is never taken for the whole
            _take(folder, running)
        return len(folders)
    rows, root = (Corpus, settings.CORPUS_DIR) if params["what"] == "corpus" else (TrainingRun, settings.RUN_DIR)
    if rows._default_manager.filter(public_id=public_id).exists():
        raise JobRefused("It was launched again meanwhile, and the files are needed.")
    folder = Path(root, str(public_id))
    folders = [folder, partial_of(folder)] if params["has_folder"] else []
    for one in folders:
        _take(one, running)
    uploads = set(params.get("uploads", ())) - uploads_in_use(Corpus.objects.all())
    for name in uploads:
        delete_upload(name, folder=UPLOADS)
    return len(folders) + len(uploads)


def _take(folder: Path, running: RunningJob) -> None:
    """Remove a folder, or what is left of one that an earlier attempt had begun with."""
    aside = folder.with_name(f".{folder.name}.removed")
    for there in (aside, folder):
        if there.exists():
            there.rename(aside)
            for path in sorted(aside.rglob("*"), reverse=True):  # what is in a folder before the folder
                running.heartbeat()
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            aside.rmdir()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if there is none."""
    if path.is_file():
        return path.stat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if one.is_file())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _named(rows: QuerySet[Any]) -> str:
    """The first names, and dots for more."""
    names = [str(row) for row in rows[: N_NAMED + 1]]
    return ", ".join([*names[:N_NAMED], "…"] if len(names) > N_NAMED else names)


def _spellings(folder: Path) -> list[str]:
    return [str(folder), str(folder.resolve())]
