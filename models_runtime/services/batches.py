"""launch_batch, pause_batch, resume_batch, cancel_batch, retry_failed: which systems answer what.

What is done is what is stored: a response, or a failure that nobody wants tried again. So whatever is interrupted goes
on with what is missing (work_left), and nothing is kept twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, Protocol

from django.db import transaction
from django.utils.translation import gettext as _

from annotation.design.sampling import Candidate, draw
from annotation.errors import DomainError, NotReady
from annotation.models import Dataset, Item, Response, Study, System, User
from annotation.services.audit import record
from jobs import ledger
from jobs.models import Job
from jobs.queues import DEFAULT, gpu_queue
from models_runtime.endpoints.errors import ACTIONS, Action
from models_runtime.models import BatchItem, BatchPart, GenerationBatch, GenerationFailure, Lane, Runtime
from models_runtime.runtimes import BadSettings, EndpointSettings, LocalSettings

ANSWER = "models_runtime.answer"
MAX_ATTEMPTS = 5  # of a job: a batch of hours may meet more than one accident
ROWS_PER_STATEMENT = 1000
# Not the item's fault: a new attempt tries these again by itself.
PASSING = tuple(kind.value for kind, action in ACTIONS.items() if action is Action.RETRY)
Intent = GenerationBatch.Intent


class BatchRefused(DomainError):
    """A batch cannot be launched or changed like this."""

    code = "batch_refused"


class Todo(NamedTuple):
    """One response that is missing."""

    item_id: int
    dataset_id: int
    repeat: int


@dataclass(frozen=True)
class Questions:
    """What is to be answered: the items of a draft study, or of a dataset, all of them or a sample drawn by seed."""

    dataset: Dataset | None = None
    study: Study | None = None
    n: int | None = None
    draw_seed: int = 1

    def item_ids(self) -> list[int]:
        """Raises BatchRefused if there is nothing to answer, or less than asked for."""
        if self.study is not None:
            ids = list(self.study.study_items.order_by("number").values_list("item_id", flat=True))
        else:
            items = Item.objects.filter(dataset=self.dataset).order_by("pk")
            if self.n is None:
                ids = list(items.values_list("pk", flat=True))
            else:
                rows = items.values_list("pk", "key").iterator()
                ids, n_there = draw((Candidate(key, "", pk) for pk, key in rows), self.n, self.draw_seed)
                if self.n > n_there:
                    raise BatchRefused(
                        _("The sample asks for %(n)s items, but there are only %(found)s.")
                        % {"n": self.n, "found": n_there}
                    )
        if not ids:
            raise BatchRefused(_("There are no items to answer. Import items, or draw a sample for the study."))
        return ids


@dataclass(frozen=True)
class Launch:
    """What a person wants. limits: the most that a system's answers may cost, by its id."""

    systems: Sequence[System]
    questions: Questions
    repeats: int = 1
    seed: int = 1
    limits: Mapping[int, Decimal] = field(default_factory=dict)
    public_id: uuid.UUID = field(default_factory=uuid.uuid4)


@transaction.atomic
def launch_batch(launch: Launch, *, by: User | None) -> GenerationBatch:
    """A batch with a job for each system. Launched a second time, it is the one that is there.

    The caller sends the hints. Raises BatchRefused if a system cannot answer, a limit is missing, or nothing is asked.
    """
    questions = launch.questions
    if not launch.systems:
        raise BatchRefused(_("Choose at least one system."))
    if questions.study is not None and not questions.study.is_draft:
        raise BatchRefused(_("The study has been opened: its responses are fixed."))
    batch, is_new = GenerationBatch.objects.get_or_create(
        public_id=launch.public_id,
        defaults={
            "dataset": questions.dataset,
            "study": questions.study,
            "repeats": launch.repeats,
            "seed": launch.seed,
            "draw": {} if questions.n is None else {"n": questions.n, "seed": questions.draw_seed},
            "created_by": by,
        },
    )
    if not is_new:
        return batch
    ids = questions.item_ids()
    rows = (BatchItem(batch=batch, item_id=item_id) for item_id in ids)
    BatchItem.objects.bulk_create(rows, batch_size=ROWS_PER_STATEMENT)
    batch.n_items = len(ids)
    batch.save(update_fields=["n_items"])
    for system in launch.systems:
        _make_part(batch, system, launch.limits.get(system.pk))
    record(
        "batch.launched",
        by=by,
        study=questions.study,
        batch=str(batch.public_id),
        systems=[system.pk for system in launch.systems],
        n_items=len(ids),
        repeats=launch.repeats,
        seed=launch.seed,
    )
    return batch


def _make_part(batch: GenerationBatch, system: System, limit: Decimal | None) -> None:
    runtime = Runtime.objects.filter(system=system).first()
    if runtime is None:
        raise BatchRefused(_("%(system)s has no model that answers. Say how it answers first.") % {"system": system})
    try:
        settings = runtime.value
    except BadSettings as error:
        raise BatchRefused(f"{system}: {error}") from error
    if isinstance(settings, EndpointSettings) and settings.price is not None:
        if limit is None or not limit.is_finite() or limit <= 0:
            raise BatchRefused(
                _("%(system)s costs money: give a limit above 0 for it.") % {"system": system}, system=system.pk
            )
    else:
        limit = None
    part = BatchPart.objects.create(
        batch=batch,
        system=system,
        kind=runtime.kind,
        settings=runtime.settings,
        limit="" if limit is None else str(limit),
    )
    Lane.objects.get_or_create(name=lane_of(part))
    _new_job(part)


class Asking(Protocol):
    """Work for one system under settings of its own: a part of a batch, say."""

    @property
    def system_id(self) -> int: ...

    @property
    def value(self) -> LocalSettings | EndpointSettings: ...


def lane_of(work: Asking) -> str:
    """Jobs that must wait for each other: of one system, or of one endpoint's account."""
    settings = work.value
    if isinstance(settings, EndpointSettings):
        return f"endpoint {settings.base_url}"[:300]
    return f"system {work.system_id}"


def queue_of(settings: LocalSettings | EndpointSettings) -> str:
    """Where the jobs of a system wait."""
    if isinstance(settings, LocalSettings):
        return settings.queue or (DEFAULT if settings.device == "cpu" else gpu_queue())
    return DEFAULT


def _new_job(part: BatchPart) -> None:
    part.job = ledger.enqueue(
        kind=ANSWER,
        params={"part_id": part.pk, "about": part.system.name, "batch": str(part.batch.public_id)},
        by_id=part.batch.created_by_id,
        queue=queue_of(part.value),
        max_attempts=MAX_ATTEMPTS,
    )
    part.save(update_fields=["job"])


# --- While it runs --------------------------------------------------------------------------------------


def pause_batch(*, batch: GenerationBatch, by: User | None) -> list[Job]:
    """Stop all of it where it is, to go on later; the jobs that were asked."""
    return _stop(batch, Intent.PAUSE, by)


def cancel_batch(*, batch: GenerationBatch, by: User | None) -> list[Job]:
    """Stop all of it for good. What was answered stays; the jobs that were asked."""
    return _stop(batch, Intent.CANCEL, by)


def _stop(batch: GenerationBatch, intent: str, by: User | None) -> list[Job]:
    with transaction.atomic():
        batch = GenerationBatch.objects.select_for_update().get(pk=batch.pk)
        if batch.intent == Intent.CANCEL:
            raise BatchRefused(_("The batch has been cancelled already."))
        batch.intent = intent
        batch.save(update_fields=["intent"])
        record(f"batch.{intent}", by=by, study=batch.study, batch=str(batch.public_id))
    # The wish is stored; a worker that cannot be asked at this instant meets it when it next stores something.
    alive = [part.job for part in batch.parts.select_related("job") if part.job and not part.job.is_over]
    return [job for job in alive if ledger.request_cancel(job.pk)]


@transaction.atomic
def resume_batch(
    *,
    batch: GenerationBatch,
    limits: Mapping[int, Decimal] | None = None,
    only: Collection[int] | None = None,
    by: User | None,
) -> GenerationBatch:
    """Go on with whatever is missing. The caller sends the hints.

    limits: new ones, by system id.  only: ids of parts; the others stay as they are.
    Raises BatchRefused if it was cancelled, or NotReady while it is still stopping.
    """
    batch = GenerationBatch.objects.select_for_update().get(pk=batch.pk)
    if batch.intent == Intent.CANCEL:
        raise BatchRefused(_("The batch has been cancelled. Launch a new one: what was answered is not done again."))
    parts = list(batch.parts.select_related("job", "system", "batch"))
    if any(part.job and not part.job.is_over and part.job.cancel_requested_at for part in parts):
        raise NotReady(_("The batch is still stopping. Try again in a moment."))
    for part in parts:
        if only is not None and part.pk not in only:
            continue
        limit = (limits or {}).get(part.system_id)
        if limit is not None and part.limit:
            if not limit.is_finite() or limit <= 0:
                raise BatchRefused(_("%(system)s costs money: give a limit above 0 for it.") % {"system": part.system})
            part.limit = str(limit)
            part.save(update_fields=["limit"])
        job = part.job
        is_finished = job is not None and job.state == Job.State.DONE and not has_work(part)
        if job is None or (job.is_over and not is_finished and not ledger.retry(job.pk)):
            _new_job(part)
    batch.intent = Intent.GO
    batch.save(update_fields=["intent"])
    record("batch.resumed", by=by, study=batch.study, batch=str(batch.public_id))
    return batch


@transaction.atomic
def retry_failed(*, batch: GenerationBatch, by: User | None) -> int:
    """Try the items again that could not be answered; how many. The caller sends the hints."""
    failures = GenerationFailure.objects.filter(part__batch=batch, is_waiting=False)
    parts = set(failures.values_list("part", flat=True))
    n = failures.update(is_waiting=True)
    resume_batch(batch=batch, only=parts, by=by)
    return n


# --- What is missing ------------------------------------------------------------------------------------


def work_left(part: BatchPart) -> list[Todo]:
    """What is neither answered nor given up, by dataset, then in the order of the batch."""
    repeats = part.batch.repeats
    answered = Response.objects.filter(
        system=part.system_id, repeat__lt=repeats, item__in=part.batch.batch_items.values("item")
    )
    done = set(answered.values_list("item_id", "repeat"))
    done |= set(part.failures.filter(is_waiting=False).values_list("item_id", "repeat"))
    items = list(part.batch.batch_items.order_by("item__dataset_id", "pk").values_list("item_id", "item__dataset_id"))
    return [Todo(*item, repeat) for item in items for repeat in range(repeats) if (item[0], repeat) not in done]


def has_work(part: BatchPart) -> bool:
    """Whether anything is left to try, passing failures included."""
    return part.failures.filter(code__in=PASSING).exists() or bool(work_left(part))


def try_passing_again(part: BatchPart) -> int:
    """Let this attempt try again what failed through nobody's fault; how many."""
    return part.failures.filter(code__in=PASSING, is_waiting=False).update(is_waiting=True)


def items_with_turns(ids: Iterable[int]) -> dict[int, Item]:
    """The items by id, with what a prompt is made of."""
    return {item.pk: item for item in Item.objects.filter(pk__in=list(ids)).only("pk", "key", "turns", "dataset_id")}
