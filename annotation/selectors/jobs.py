"""What an admin's pages on work in the background read.

They lie here and not in `jobs`, which knows neither people nor pages, nor what an import is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db.models import Case, IntegerField, Value, When
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation import problems
from annotation.formats.problems import Problem
from annotation.models import ImportRecord
from annotation.selectors.library import Fact, facts_of
from jobs import registry
from jobs.models import Job
from jobs.pace import pace

State = Job.State

JOBS_PER_PAGE = 50
LONG_WAIT = timedelta(minutes=1)  # two sweeps: a worker that runs and is idle has taken the job by then


@dataclass(frozen=True)
class JobRow:
    """One job in words and numbers."""

    job: Job
    label: str
    about: str  # the file, or the system that answers
    stage: str
    percent: int | None  # None: nobody can know
    speed: str
    time_left: str
    last_sign_at: datetime | None  # of the worker that runs it
    can_cancel: bool
    can_retry: bool
    is_left_waiting: bool


@dataclass(frozen=True)
class ProblemRow:
    file: str
    position: str
    field: str
    sentence: str


@dataclass(frozen=True)
class JobPage:
    """One job with what came of it."""

    row: JobRow
    is_repeat: bool
    is_file_gone: bool
    imported: ImportRecord | None
    facts: list[Fact]
    problems: list[ProblemRow]


@dataclass(frozen=True)
class JobList:
    """What runs, then what waits, then what is over, newest first; and what the list can be narrowed to."""

    rows: list[JobRow]
    page: Page[Job]
    is_alive: bool  # something may change without anybody's doing
    states: list[tuple[str, str]]
    kinds: list[tuple[str, str]]
    state: str
    kind: str


def job_list(*, state: str = "", kind: str = "", page: str = "1") -> JobList:
    """A state or kind that does not exist narrows nothing; a page that does not exist is the nearest one."""
    kinds = sorted(Job.objects.order_by().values_list("kind", flat=True).distinct())
    state = state if state in State.values else ""
    kind = kind if kind in kinds else ""
    found = Job.objects.select_related("created_by")
    found = found.filter(state=state) if state else found
    found = found.filter(kind=kind) if kind else found
    rank = Case(
        When(state=State.RUNNING, then=Value(0)),
        When(state=State.QUEUED, then=Value(1)),
        default=Value(2),
        output_field=IntegerField(),
    )
    shown = Paginator(found.order_by(rank, "-created_at", "-pk"), JOBS_PER_PAGE).get_page(page)
    rows = [job_row(job) for job in shown]
    return JobList(
        rows=rows,
        page=shown,
        is_alive=any(not row.job.is_over for row in rows),
        states=[(value, str(label)) for value, label in State.choices],
        kinds=[(name, registry.label_of(name)) for name in kinds],
        state=state,
        kind=kind,
    )


def job_row(job: Job) -> JobRow:
    now = timezone.now()
    measured = pace(job, now=now)
    is_ended = job.state in (State.FAILED, State.CANCELLED)
    lease = timedelta(seconds=settings.JOB_LEASE_SECONDS)
    return JobRow(
        job=job,
        label=registry.label_of(job.kind),
        about=str(job.params.get("file_name") or job.params.get("about", "")),
        stage=_(job.message) if job.message else "",
        percent=min(100, 100 * job.n_done // job.n_total) if job.n_total else None,
        speed="" if measured.per_second is None else _speed(measured.per_second),
        time_left="" if measured.seconds_left is None else duration(measured.seconds_left),
        last_sign_at=job.lease_until - lease if job.state == State.RUNNING and job.lease_until else None,
        can_cancel=not job.is_over and job.cancel_requested_at is None,
        can_retry=is_ended and registry.can_retry(job),
        is_left_waiting=job.state == State.QUEUED and now - (job.not_before or job.created_at) > LONG_WAIT,
    )


def job_page(job: Job) -> JobPage:
    told = job.result
    return JobPage(
        row=job_row(job),
        is_repeat=bool(told.get("is_repeat")),
        is_file_gone=bool(told.get("is_file_gone")),
        imported=ImportRecord.objects.select_related("dataset").filter(public_id=told.get("import")).first(),
        facts=facts_of(told.get("counts", {})),
        problems=problem_rows(Problem.from_json(problem) for problem in told.get("problems", [])),
    )


def problem_rows(found: Iterable[Problem]) -> list[ProblemRow]:
    """Problems as a page lists them."""
    return [_row(problem) for problem in found]


def _row(problem: Problem) -> ProblemRow:
    return ProblemRow(
        file=problems.plain(problem.place.file, limit=200),
        position=problems.position(problem.place),
        field=problems.plain(problem.field),
        sentence=problems.describe(problem),
    )


def _speed(per_second: float) -> str:
    if per_second >= 1:
        return _("%(n)s per second") % {"n": _number(per_second)}
    if per_second * 60 >= 1:
        return _("%(n)s per minute") % {"n": _number(per_second * 60)}
    return _("%(n)s per hour") % {"n": _number(per_second * 3600)}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return _("less than a minute")
    if minutes < 60:
        return _("%(n)s min") % {"n": minutes}
    return _("%(hours)s h %(minutes)s min") % {"hours": minutes // 60, "minutes": minutes % 60}
