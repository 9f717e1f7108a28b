"""launch_corpus, prepare_corpus, register_folder: from files to a folder that training reads, once.

A child process makes the folder, whole or not at all (training.corpus). The row tells what is in it as soon as the
folder is there, in a transaction that also holds the job.
"""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.errors import DomainError
from annotation.models import User
from annotation.services.audit import record
from annotation.services.uploads import upload_path
from jobs import ledger
from jobs.errors import ChildFailed, JobRefused
from jobs.registry import RunningJob
from jobs.supervisor import Message, run_child
from models_runtime.engine.prompts import Template
from models_runtime.services.local import folder_of_job, remove_folder
from models_runtime.services.runtimes import below, folder_of
from training.corpus.errors import CorpusError, StoreBroken
from training.corpus.prepare import CARD, QUEUE, REMOVED, STATISTICS
from training.corpus.store import Store, partial_of
from training.corpus.tokenizers import tokenizer_digest, tokenizer_files
from training.leaks import hashes_of_database
from training.models import Corpus, ReviewCase, Rewriting

PREPARE, LEAKS = "training.prepare", "training.leaks"
UPLOADS = "corpora"  # folder of uploads; they stay as long as the corpus does
STAGES = (gettext_noop("Looking for near duplicates"), gettext_noop("Reading dialogues"))
COMPARING = gettext_noop("Collecting the items that must not be learnt")
GRACE_SECONDS = 30.0
SILENT_SECONDS = 3600.0  # comparing the signatures of a million dialogues takes a while and says nothing
ITEMS_PER_BEAT = 500
CASES_PER_STATEMENT = 500
N_NAMED = 20  # dialogues for one rule of cleaning


class CorpusRefused(DomainError):
    """A corpus cannot be made or changed like this."""

    code = "corpus_refused"


class FolderChanged(JobRefused):
    """The folder is not what was written."""

    error_class = "StoreBroken"


class FilesRefused(JobRefused):
    """A file cannot be read to its end, or too many of its records are broken."""

    error_class = "SourceRefused"


@dataclass(frozen=True)
class Order:
    """What a person wants. plan and sources: see Corpus."""

    name: str
    weights: str
    plan: dict[str, Any]
    sources: Sequence[dict[str, str]] = ()
    rewriting: Rewriting | None = None
    reviewed: Corpus | None = None
    public_id: uuid.UUID = field(default_factory=uuid.uuid4)


def launch_corpus(order: Order, *, by: User | None) -> Corpus:
    """A corpus and the job that prepares it. Launched a second time, it is the one that is there.

    The caller sends the hint. Raises CorpusRefused if the name is taken or there is nothing to read, FolderRefused.
    """
    folder_of(order.weights)
    if not order.sources and order.rewriting is None:
        raise CorpusRefused(_("Choose at least one file, or a rewriting."))
    for source in order.sources:
        if "path" in source:
            file_of(source)
    try:
        with transaction.atomic():
            corpus, is_new = Corpus.objects.get_or_create(
                public_id=order.public_id,
                defaults={
                    "name": order.name,
                    "weights": order.weights,
                    "plan": order.plan,
                    "sources": list(order.sources),
                    "rewriting": order.rewriting,
                    "reviewed": order.reviewed,
                    "created_by": by,
                },
            )
            if is_new:
                params = {"corpus_id": corpus.pk, "about": corpus.name, "corpus": str(corpus.public_id)}
                corpus.job = ledger.enqueue(kind=PREPARE, params=params, by_id=by.pk if by else None)
                corpus.save(update_fields=["job"])
                record("corpus.launched", by=by, corpus=str(corpus.public_id))
    except IntegrityError as error:
        raise CorpusRefused(_("There is a corpus of this name already. Choose another name."), field="name") from error
    return corpus


def file_of(source: dict[str, str]) -> Path:
    """Where a source lies. Raises CorpusRefused for a path outside of CORPUS_DIRS."""
    if "upload" in source:
        return upload_path(source["upload"], folder=UPLOADS)
    found = below(source["path"], settings.CORPUS_DIRS)
    if found is None or not found.exists():
        raise CorpusRefused(
            _("%(path)s is no file below one of the folders that dialogues may lie in: %(roots)s.")
            % {"path": source["path"], "roots": ", ".join(map(str, settings.CORPUS_DIRS))},
            field="paths",
        )
    return found


def uploads_in_use(corpora: QuerySet[Corpus]) -> set[str]:
    """Names of the uploads that these are made of, or whose verdicts they follow."""
    used: set[str] = set()
    for sources, plan in corpora.values_list("sources", "plan"):
        used.update(source.get("upload", "") for source in sources)
        used.add(plan.get("review") or "")
    return used


# --- The job --------------------------------------------------------------------------------------------


def prepare_corpus(running: RunningJob, corpus: Corpus) -> Corpus:
    """Make the folder, unless an attempt before has made it, and write down what is in it.

    Raises FilesRefused with the places, ChildFailed, CancelRequested, LostLease.
    """
    if not corpus.folder.exists():
        try:
            _make_folder(running, corpus)
        finally:
            remove_folder(running.claim.job_id)
    try:
        card, statistics = read_folder(corpus.folder)
    except StoreBroken as error:
        raise FolderChanged(str(error)) from error
    with transaction.atomic():
        running.hold()
        return _write_down(corpus, card, statistics)


def _make_folder(running: RunningJob, corpus: Corpus) -> None:
    problems: list[dict[str, Any]] = []

    def hear(message: Message) -> None:
        if message["type"] == "problems":
            problems.extend(message["problems"])

    argv = [sys.executable, "-m", "training.corpus.worker", str(_job_file(running, corpus))]
    try:
        run_child(running, argv, on_message=hear, grace_seconds=GRACE_SECONDS, silent_seconds=SILENT_SECONDS)
    except ChildFailed as error:
        if problems:
            raise FilesRefused(str(error), {"problems": problems}) from error
        raise


def _job_file(running: RunningJob, corpus: Corpus) -> Path:
    """What the child is told; see training.corpus.worker."""
    plan = corpus.plan
    try:
        weights = folder_of(corpus.weights)
        sources = [(str(file_of(source)), source["name"]) for source in corpus.sources]
    except DomainError as error:
        raise JobRefused(error.message) from error
    if corpus.rewriting is not None:
        sources.append((str(corpus.rewriting.dialogues_file), f"{corpus.rewriting.name}.jsonl"))
    Path(settings.CORPUS_DIR).mkdir(parents=True, exist_ok=True)
    folder = folder_of_job(running.claim.job_id)
    folder.mkdir(parents=True, exist_ok=True)
    review = plan.get("review")
    job = {
        **{name: plan[name] for name in ("template", "test_share", "seed", "limits", "max_broken", "rules")},
        "folder": str(corpus.folder),
        "weights": str(weights),
        "sources": sources,
        "held_out": str(_held_out(running, folder)) if plan["is_against_database"] else None,
        "review": str(upload_path(review, folder=UPLOADS)) if review else None,
        "stages": STAGES,
    }
    job_file = folder / "job.json"
    job_file.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
    return job_file


def _held_out(running: RunningJob, folder: Path) -> Path:
    """A file with the hash of every item of every dataset here, one per line."""
    path = folder / "held-out.txt"
    with path.open("w", encoding="ascii") as file:
        for number, (found, _leak) in enumerate(hashes_of_database(), 1):
            file.write(f"{found.hex()}\n")
            if number % ITEMS_PER_BEAT == 0:
                running.heartbeat(n_done=number, message=COMPARING)
    return path


def remove_remains(corpus: Corpus) -> None:
    """What a job that is over and made no corpus has left on the disk."""
    if not corpus.path:
        shutil.rmtree(partial_of(corpus.folder), ignore_errors=True)
        shutil.rmtree(corpus.folder, ignore_errors=True)


# --- What is in a folder --------------------------------------------------------------------------------


def register_folder(*, name: str, folder: Path, weights: str, by: User | None) -> Corpus:
    """A corpus that was prepared elsewhere, once its files are found to be those that were written.

    Raises CorpusError if they are not, or if the ids were made with another tokenizer than that of `weights`;
    CorpusRefused if the name is taken.
    """
    card, statistics = read_folder(folder, check="content")
    template = Template.from_json(card["template"])
    if (
        tokenizer_digest(card["family"], template, tokenizer_files(folder_of(weights), card["family"]))
        != card["tokenizer_digest"]
    ):
        raise CorpusError(f"{folder} was prepared with another tokenizer than that of {weights}; name the right model")
    try:
        with transaction.atomic():
            corpus = Corpus.objects.create(name=name, weights=weights, path=str(folder.resolve()), created_by=by)
            record("corpus.registered", by=by, corpus=str(corpus.public_id), content_hash=card["train"]["content_hash"])
            return _write_down(corpus, card, statistics)
    except IntegrityError as error:
        raise CorpusRefused(_("There is a corpus of this name already. Choose another name."), field="name") from error


def read_folder(folder: Path, *, check: Any = "sizes") -> tuple[dict[str, Any], dict[str, Any]]:
    """Card and statistics of a corpus folder. check: see Store. Raises StoreBroken if it is not what was written."""
    card, statistics = _read_json(folder / CARD), {}
    if (folder / STATISTICS).is_file():
        statistics = _read_json(folder / STATISTICS)
    train = Store(folder / "train", check=check)
    try:
        is_same = card["train"]["content_hash"] == train.content_hash
    except (KeyError, TypeError) as error:
        raise StoreBroken(f"{folder / CARD} is no card of a corpus; prepare the corpus again") from error
    if not is_same:
        raise StoreBroken(f"{folder / CARD} is about another corpus than the one beside it; prepare the corpus again")
    for name, lengths in zip(("context_tokens", "target_tokens"), train.lengths(), strict=True):
        values, counts = np.unique(lengths, return_counts=True)
        statistics[name] = dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
    statistics["removed"] = _removed(folder / REMOVED)
    return card, statistics


def _removed(path: Path) -> dict[str, list[str]]:
    """Rule of cleaning ► the first dialogues that it removed."""
    named: dict[str, list[str]] = {}
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                for rule in {hit["rule"] for hit in row["why"]}:
                    names = named.setdefault(rule, [])
                    if len(names) < N_NAMED:
                        names.append(f"{row['place']}: {row['key']}")
    return named


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreBroken(f"{path} cannot be read ({error}); prepare the corpus again") from error
    if not isinstance(found, dict):
        raise StoreBroken(f"{path} is damaged; prepare the corpus again")
    return found


def _write_down(corpus: Corpus, card: dict[str, Any], statistics: dict[str, Any]) -> Corpus:
    corpus = Corpus.objects.select_for_update().get(pk=corpus.pk)
    corpus.card, corpus.statistics, corpus.content_hash = card, statistics, card["train"]["content_hash"]
    corpus.save(update_fields=["card", "statistics", "content_hash"])
    queue = corpus.folder / QUEUE
    if queue.is_file():
        with queue.open(encoding="utf-8") as file:
            rows = (json.loads(line) for line in file)
            cases = (ReviewCase(corpus=corpus, name=row["name"], row=row) for row in rows)
            while some := list(islice(cases, CASES_PER_STATEMENT)):
                ReviewCase.objects.bulk_create(some, ignore_conflicts=True)
    return corpus
