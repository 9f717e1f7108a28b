"""What an admin's pages on datasets, systems, imports and jobs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, QuerySet
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from annotation import problems, topics
from annotation.formats.problems import Problem
from annotation.models import Dataset, ImportRecord, Item, Response, System
from jobs import registry
from jobs.models import Job

N_SAMPLE_ITEMS = 5
N_JOBS_SHOWN = 200
LONG_WAIT = timedelta(minutes=1)  # two sweeps: a worker that runs and is idle has taken the job by then


# --- Datasets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A part of a whole: how many, and of a hundred."""

    name: str
    n: int
    percent: float
    is_label: bool = False  # the name is the source's own word, not one of the twelve topics


def datasets() -> QuerySet[Dataset]:
    return Dataset.objects.annotate(n_imports=Count("imports"))


def topic_shares(dataset: Dataset) -> list[Share]:
    """Items by topic: the twelve first, in their order, then other labels by size, then items without any."""
    rows = Item.objects.filter(dataset=dataset).values_list("topic", "topic_label").annotate(n=Count("pk")).order_by()
    by_topic: dict[str, int] = {}
    by_label: dict[str, int] = {}
    for topic, label, n in rows:
        group, name = (by_topic, topic) if topic else (by_label, label)
        group[name] = group.get(name, 0) + n
    total = sum(by_topic.values()) + sum(by_label.values()) or 1
    n_none = by_label.pop("", 0)
    shares = [
        Share(name, by_topic[slug], 100 * by_topic[slug] / total)
        for slug, name in topics.names(get_language() or "").items()
        if slug in by_topic
    ]
    shares += [
        Share(label, n, 100 * n / total, is_label=True)
        for label, n in sorted(by_label.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return shares + ([Share(_("no topic"), n_none, 100 * n_none / total)] if n_none else [])


def answers_by_system(dataset: Dataset) -> list[Share]:
    """How many items of the dataset each system has answered."""
    rows = (
        Response.objects.first_of_each()
        .filter(item__dataset=dataset)
        .values_list("system__name")
        .annotate(n=Count("pk"))
        .order_by("system__name")
    )
    return [Share(name, n, 100 * n / (dataset.n_items or 1)) for name, n in rows]


def sample_items(dataset: Dataset) -> QuerySet[Item]:
    return Item.objects.filter(dataset=dataset).order_by("pk")[:N_SAMPLE_ITEMS]


# --- Imports --------------------------------------------------------------------------------------------

_COUNT_NAMES: dict[str, Promise] = {
    "n_new": gettext_lazy("New"),
    "n_unchanged": gettext_lazy("There before, unchanged"),
    "n_dialogues": gettext_lazy("Dialogues in the file"),
    "n_sampled_dialogues": gettext_lazy("Dialogues drawn"),
    "n_duplicates": gettext_lazy("Duplicate dialogues, kept once"),
    "n_without_reply": gettext_lazy("Dialogues without a counsellor’s reply, left out"),
    "n_merged_turns": gettext_lazy("Turns joined to the one before (same speaker)"),
    "n_empty_turns": gettext_lazy("Empty turns, left out"),
    "n_system_messages": gettext_lazy("Instructions to a model, left out"),
    "n_control_characters": gettext_lazy("Texts that lost control characters"),
    "n_ignored_files": gettext_lazy("Other files in the archive, not read"),
    "n_repeated_rows": gettext_lazy("Rows that say the same twice"),
    "n_with_risks": gettext_lazy("Items with a content notice"),
    "n_with_disclosures": gettext_lazy("Responses that may name their system"),
    "n_new_systems": gettext_lazy("Systems registered"),
    "encoding": gettext_lazy("Encoding"),
}


@dataclass(frozen=True)
class Fact:
    name: str
    value: int | str


def facts_of(counts: Mapping[str, Any]) -> list[Fact]:
    """The counts of an import in words, in a fixed order; noughts that say nothing are left out."""
    always = {"n_new", "n_unchanged"} & counts.keys()
    return [Fact(str(name), counts[key]) for key, name in _COUNT_NAMES.items() if counts.get(key) or key in always]


# --- Systems --------------------------------------------------------------------------------------------


def systems() -> QuerySet[System]:
    return System.objects.annotate(n_responses=Count("responses"))


# --- Jobs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProblemRow:
    file: str
    position: str
    field: str
    sentence: str


@dataclass(frozen=True)
class JobPage:
    """One job as its page shows it."""

    job: Job
    label: str
    file_name: str
    stage: str
    percent: int | None  # None: nobody can know
    can_cancel: bool
    can_retry: bool
    is_left_waiting: bool
    is_repeat: bool
    is_file_gone: bool
    imported: ImportRecord | None
    facts: list[Fact]
    problems: list[ProblemRow]


def jobs() -> list[tuple[Job, str]]:
    """The newest jobs, each with its kind in words."""
    rows = Job.objects.select_related("created_by").order_by("-created_at")[:N_JOBS_SHOWN]
    return [(job, registry.label_of(job.kind)) for job in rows]


def job_page(job: Job) -> JobPage:
    told = job.result
    imported = ImportRecord.objects.select_related("dataset").filter(public_id=told.get("import")).first()
    is_ended = job.state in (Job.State.FAILED, Job.State.CANCELLED)
    return JobPage(
        job=job,
        label=registry.label_of(job.kind),
        file_name=job.params.get("file_name", ""),
        stage=_(job.message) if job.message else "",
        percent=min(100, 100 * job.n_done // job.n_total) if job.n_total else None,
        can_cancel=not job.is_over and job.cancel_requested_at is None,
        can_retry=is_ended and registry.can_retry(job),
        is_left_waiting=job.state == Job.State.QUEUED and timezone.now() - job.created_at > LONG_WAIT,
        is_repeat=bool(told.get("is_repeat")),
        is_file_gone=bool(told.get("is_file_gone")),
        imported=imported,
        facts=facts_of(told.get("counts", {})),
        problems=[_row(Problem.from_json(problem)) for problem in told.get("problems", [])],
    )


def _row(problem: Problem) -> ProblemRow:
    return ProblemRow(
        file=problems.plain(problem.place.file, limit=200),
        position=problems.position(problem.place),
        field=problems.plain(problem.field),
        sentence=problems.describe(problem),
    )
