"""answer_locally: a child process answers, for it alone holds the model; what it says is stored as it comes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from django.conf import settings as site

from annotation.models import Item
from jobs.errors import JobRefused, LostLease
from jobs.registry import RunningJob
from jobs.supervisor import Message, run_child
from models_runtime.engine.prompts import Role, Turn
from models_runtime.engine.protocol import Work, WorkerJob, write_work
from models_runtime.models import BatchPart
from models_runtime.runtimes import LocalSettings
from models_runtime.services.batches import Todo, items_with_turns, work_left
from models_runtime.services.recording import Recorder
from models_runtime.services.runtimes import FolderRefused, folder_of, note_version

GRACE_SECONDS = 60.0  # between asking the child to stop and killing it: a step of a large batch takes a while
ITEMS_AT_ONCE = 500


class SettingsRefused(JobRefused):
    """The part's settings cannot be used on this machine."""

    def __init__(self, error: FolderRefused) -> None:
        super().__init__(error.message)
        self.error_class = type(error).__name__


class OtherFamily(JobRefused):
    """The folder holds a model of another family."""

    error_class = "WrongArchitecture"


@dataclass
class _Beats(RunningJob):
    """The job as the supervisor knows it. It beats some five times a second, so what waits is stored soon."""

    recorder: Recorder | None = None

    def heartbeat(self, *, n_done: int | None = None, n_total: int | None = None, message: str | None = None) -> bool:
        if self.recorder is not None:
            self.recorder.flush_if_due()
        return super().heartbeat(n_done=n_done, n_total=n_total, message=message)


def answer_locally(running: RunningJob, part: BatchPart, settings: LocalSettings) -> Recorder:
    """Answer what is missing; one child for each dataset, since keys are names within a dataset.

    The seed of a response is drawn from the item's key, so `manage.py generate` on the same file gives the same texts.
    Raises ChildFailed, CancelRequested, LostLease; what came before is stored, but for the last.
    """
    recorder, left = Recorder(running, part), work_left(part)
    n_before = part.batch.n_items * part.batch.repeats - len(left)
    for dataset_id, todo in groupby(left, key=lambda one: one.dataset_id):
        these = list(todo)
        _answer_dataset(running, part, settings, dataset_id, these, recorder, n_before)
        n_before += len(these)
    return recorder


def _answer_dataset(
    running: RunningJob,
    part: BatchPart,
    settings: LocalSettings,
    dataset_id: int,
    todo: list[Todo],
    recorder: Recorder,
    n_before: int,
) -> None:
    ids: dict[str, int] = dict(
        Item.objects.filter(pk__in=part.batch.batch_items.values("item"), dataset_id=dataset_id).values_list(
            "key", "pk"
        )
    )

    def hear(message: Message) -> None:
        kind = message["type"]
        if kind == "ready":
            check_family(settings, message["spec"]["family"])
            part.version = note_version(part.system, message["spec_digest"], message["spec"])
            part.notes = message["notes"]
            part.save(update_fields=["version", "notes"])
        elif kind == "response":
            provenance = _provenance(message, part)
            recorder.response(ids[message["item"]], message["repeat"], message["text"], provenance)
        elif kind == "error":
            recorder.failure(ids[message["item"]], message["repeat"], message["code"], message["message"])

    version = part.version
    job = replace(job_of(settings), seed=part.batch.seed, expected_spec=version.digest if version else None)
    try:
        run_worker(_beats(running, recorder), job, _work(todo), hear, n_before=n_before)
    except LostLease:
        raise
    except BaseException:  # also when the worker is told to stop: what was answered is kept
        recorder.flush()
        raise
    recorder.flush()


def check_family(settings: LocalSettings, found: str) -> None:
    """Raises JobRefused if the folder holds a model of another family than the system says."""
    if settings.family not in ("", found):
        raise OtherFamily(f"{settings.weights} holds a model of the family {found}, not {settings.family}.")


def run_worker(
    running: RunningJob, job: WorkerJob, work: Iterable[Work], hear: Callable[[Message], None], *, n_before: int = 0
) -> None:
    """Have a child answer `work`, and `hear` all it says. See run_child for n_before and what is raised."""
    folder = folder_of_job(running.claim.job_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        items, job_file = folder / "items.jsonl", folder / "job.json"
        write_work(items, work)
        job_file.write_text(json.dumps(replace(job, items=items).to_json(), ensure_ascii=False), encoding="utf-8")
        argv = [sys.executable, "-m", "models_runtime.engine.worker", str(job_file)]
        run_child(running, argv, on_message=hear, n_before=n_before, grace_seconds=GRACE_SECONDS)
    finally:
        remove_folder(running.claim.job_id)


def folder_of_job(job_id: int) -> Path:
    """What is handed to the job's child lies here while it runs."""
    return Path(site.BATCH_DIR) / str(job_id)


def remove_folder(job_id: int) -> None:
    shutil.rmtree(folder_of_job(job_id), ignore_errors=True)


def job_of(settings: LocalSettings) -> WorkerJob:
    """What the worker is told, but for items and seed. Raises SettingsRefused."""
    try:
        weights = folder_of(settings.weights)
        adapter = folder_of(settings.adapter) if settings.adapter else None
    except FolderRefused as error:
        raise SettingsRefused(error) from error
    return WorkerJob(
        weights=weights,
        adapter=adapter,
        items=Path(),
        decoding=settings.decoding,
        seed=0,
        template=settings.template,
        dtype=settings.dtype,
        device=settings.device,
        batch_rows=settings.batch_rows,
        digest_cache=Path(site.WEIGHTS_DIGESTS),
    )


def _work(todo: list[Todo]) -> Iterable[Work]:
    """Texts are read some hundred at a time, however long the list is."""
    for start in range(0, len(todo), ITEMS_AT_ONCE):
        some = todo[start : start + ITEMS_AT_ONCE]
        items = items_with_turns(one.item_id for one in some)
        for one in some:
            item = items[one.item_id]
            yield Work(item.key, one.repeat, turns_of(item))


def turns_of(item: Item) -> tuple[Turn, ...]:
    return tuple(Turn(cast(Role, turn["role"]), turn["text"]) for turn in item.turns)


def _provenance(message: Message, part: BatchPart) -> dict[str, Any]:
    version = part.version
    return {
        **message["provenance"],
        "batch": str(part.batch.public_id),
        "runtime_version": version.number if version else None,
    }


def _beats(running: RunningJob, recorder: Recorder) -> _Beats:
    return _Beats(
        running.claim,
        running.kind,
        running.params,
        running.attempt,
        running.created_by_id,
        running.public_id,
        recorder=recorder,
    )
