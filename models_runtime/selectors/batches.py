"""What the pages on batches read: how far each system is, what went wrong, what changed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Min, Q, QuerySet
from django.utils.translation import gettext as _

from annotation.models import Response, Study
from annotation.selectors.jobs import JobRow, job_row
from annotation.selectors.research import draft_of
from jobs.models import Job
from models_runtime.explanations import explain
from models_runtime.models import BatchPart, GenerationBatch, GenerationFailure
from models_runtime.runtimes import EndpointSettings

FAILURES_PER_PAGE = 50
BATCHES_PER_PAGE = 50
State, Intent = Job.State, GenerationBatch.Intent


@dataclass(frozen=True)
class Identity:
    """What an endpoint said it was, for so many responses."""

    model: str
    fingerprint: str
    n: int


@dataclass(frozen=True)
class PartRow:
    """One system of a batch. n_answered counts what is stored, whoever made it.

    Of that, n_disclosing names a system, and n_cut ends where the limit of tokens was.
    """

    part: BatchPart
    job: JobRow | None
    n_total: int
    n_answered: int
    n_failed: int
    n_disclosing: int
    n_cut: int
    state: str  # in words
    tone: str  # of the badge
    failed_job: Job | None  # what stopped it, if anything did
    identities: Sequence[Identity]
    currency: str

    @property
    def n_left(self) -> int:
        return self.n_total - self.n_answered - self.n_failed

    @property
    def percent(self) -> int:
        return 100 * self.n_answered // self.n_total if self.n_total else 100

    @property
    def has_drifted(self) -> bool:
        return len(self.identities) > 1

    @property
    def is_over_budget(self) -> bool:
        return bool(self.job and self.job.job.error_class == "budget")


@dataclass(frozen=True)
class Reason:
    """A kind of failure, how often it happened, and its sentence."""

    code: str
    n: int
    sentence: str


@dataclass(frozen=True)
class BatchPage:
    """One batch with all that can be done with it."""

    batch: GenerationBatch
    rows: Sequence[PartRow]
    reasons: Sequence[Reason]
    failures: Page[GenerationFailure]
    is_study_ready: bool

    @property
    def is_alive(self) -> bool:
        """Something may change without anybody's doing."""
        return any(row.job and not row.job.job.is_over for row in self.rows)

    @property
    def n_total(self) -> int:
        return sum(row.n_total for row in self.rows)

    @property
    def n_answered(self) -> int:
        return sum(row.n_answered for row in self.rows)

    @property
    def n_failed(self) -> int:
        return sum(row.n_failed for row in self.rows)

    @property
    def is_complete(self) -> bool:
        return self.n_answered == self.n_total

    @property
    def can_pause(self) -> bool:
        return self.is_alive and self.batch.intent == Intent.GO

    @property
    def can_cancel(self) -> bool:
        return self.batch.intent != Intent.CANCEL and not self.is_complete

    @property
    def can_resume(self) -> bool:
        stopped = [row for row in self.rows if not (row.job and row.job.job.state == State.DONE and not row.n_left)]
        return self.batch.intent != Intent.CANCEL and not self.is_alive and bool(stopped)

    @property
    def can_retry(self) -> bool:
        return self.batch.intent != Intent.CANCEL and not self.is_alive and self.n_failed > 0


def batches(*, page: str = "1") -> Page[GenerationBatch]:
    """The newest first, with their parts. A page that does not exist is the nearest one."""
    found = GenerationBatch.objects.select_related("dataset", "study", "created_by")
    return Paginator(found.prefetch_related("parts__system", "parts__job"), BATCHES_PER_PAGE).get_page(page)


def batch_page(batch: GenerationBatch, *, page: str = "1") -> BatchPage:
    """page: of the failures; a number that does not exist is the nearest one."""
    failures = GenerationFailure.objects.filter(part__batch=batch, is_waiting=False)
    counts = failures.order_by().values_list("code").annotate(n=Count("pk")).order_by("-n", "code")
    listed = failures.select_related("part__system", "item").order_by("part", "pk")
    parts = batch.parts.select_related("system", "job__created_by", "version", "batch").order_by("system__name")
    return BatchPage(
        batch=batch,
        rows=[part_row(part) for part in parts],
        reasons=[Reason(code, n, explain(code)) for code, n in counts],
        failures=Paginator(listed, FAILURES_PER_PAGE).get_page(page),
        is_study_ready=batch.study is not None and batch.study.is_draft and is_ready(batch.study),
    )


def is_ready(study: Study) -> bool:
    """Whether a draft lacks nothing, so that it could be opened."""
    return draft_of(study).is_ready


def part_row(part: BatchPart) -> PartRow:
    settings = part.value
    counts = answers_of(part).aggregate(
        n=Count("pk"),
        n_disclosing=Count("pk", filter=~Q(disclosures=[])),
        n_cut=Count("pk", filter=Q(provenance__finish_reason="length")),
    )
    price = settings.price if isinstance(settings, EndpointSettings) else None
    state, tone = _state(part)
    job = part.job
    has_failed = job is not None and job.error_class != "" and job.state in (State.FAILED, State.QUEUED)
    return PartRow(
        part=part,
        job=job_row(job) if job else None,
        n_total=part.batch.n_items * part.batch.repeats,
        n_answered=counts["n"],
        n_failed=part.failures.filter(is_waiting=False).count(),
        n_disclosing=counts["n_disclosing"],
        n_cut=counts["n_cut"],
        state=state,
        tone=tone,
        failed_job=job if has_failed else None,
        identities=identities(part) if isinstance(settings, EndpointSettings) else (),
        currency=price.currency if price else "",
    )


def answers_of(part: BatchPart) -> QuerySet[Response]:
    """The stored responses that this part is about."""
    return Response.objects.filter(
        system=part.system_id,
        repeat__lt=part.batch.repeats,
        item__in=part.batch.batch_items.values("item"),
    )


def identities(part: BatchPart) -> list[Identity]:
    """What the endpoint said it was, in the order in which it first said so; more than one is a drift.

    Of all responses that this part is about: those of an earlier batch stand in the same study.
    """
    rows: Any = (
        answers_of(part)
        .order_by()
        .values_list("provenance__model_reported", "provenance__system_fingerprint")
        .annotate(n=Count("pk"), first=Min("pk"))
        .order_by("first")
    )
    # Imported responses say nothing; an endpoint that says nothing has said "".
    return [Identity(model, fingerprint or "", n) for model, fingerprint, n, _first in rows if model is not None]


def _state(part: BatchPart) -> tuple[str, str]:
    """The state of a part in words, and the tone of its badge."""
    job = part.job
    if job is None:
        return _("Waiting"), ""
    if not job.is_over and part.batch.intent != Intent.GO:
        return _("Stopping"), "warn"
    if job.state == State.CANCELLED:
        return (_("Cancelled"), "") if part.batch.intent == Intent.CANCEL else (_("Paused"), "warn")
    tones = {State.RUNNING: "accent", State.DONE: "good", State.FAILED: "bad"}
    return job.get_state_display(), tones.get(State(job.state), "")
