"""What a study's ratings and texts say: gathered here, computed by metrics/, kept until something changes.

Nothing is computed in this file; it is the one bridge between the tables of the database and metrics/.
"""

from __future__ import annotations

import json
from datetime import UTC
from functools import cached_property
from time import perf_counter

from django.conf import settings
from django.db.models import Count, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from annotation.models import Dataset, ImportRecord, Placement, Rating, StoredNumbers, Study, System
from annotation.reporting.facts import ArmCounts, DatasetLabel, DimensionLabel, StudyFacts, moment
from annotation.reporting.numbers import Report
from annotation.selectors.text import CountingState, counting_state, text_statistics
from annotation.tables import (
    arm_labels,
    exit_answers,
    exit_state,
    fingerprint,
    judges_state,
    judges_table,
    ratings_table,
)
from metrics import (
    agreement,
    blinding,
    comparison,
    correlation,
    intervals,
    judge,
    mixed,
    power,
    raters,
    report,
    text,
)
from metrics.report import DatasetTexts, Progress, Sections, StudyData
from metrics.results import ResultRow

# Whatever gives other numbers from the same data raises its module's version, and stored numbers are stale then.
REPORT_VERSION = ".".join(
    str(part.VERSION)
    for part in (
        report, agreement, blinding, comparison, correlation, intervals, judge, mixed, power, raters, text,
    )
)  # fmt: skip
RELEASES = ("soulchat", "smilechat")  # file formats that only these two datasets have


def resampling_seed(study: Study) -> int:
    """The seed of the intervals, 0 … 2**53 - 1. Signatures print it, so it is not the study's own: from that one
    anybody could draw the arm codes again and know which system is which."""
    return study.public_id.int % 2**53


def study_report(study: Study, *, on_progress: Progress | None = None) -> Report:
    """The report on the study as it is now; what did not change since the last report is not computed again."""
    state = report_state(study)
    stored = StoredNumbers.objects.filter(study=study, state=state).first()
    if stored is None:
        started = perf_counter()
        sections = report.compute(study_data(study), on_progress=on_progress)
        stored, _ = StoredNumbers.objects.update_or_create(
            study=study,
            defaults={
                "state": state,
                "sections": json.dumps({name: [row.to_dict() for row in rows] for name, rows in sections.items()}),
                "seconds": perf_counter() - started,
                "computed_at": timezone.now(),
            },
        )
    return _report(study_facts(study), stored)


class Standing:
    """Where a study's report stands; the numbers are read only when somebody asks for `report`.

    state: of the study now;  n_counted, n_texts: responses whose texts are counted, of all.
    """

    def __init__(self, study: Study, state: str, counted: CountingState) -> None:
        self._study = study
        self.state = state
        self.n_counted, self.n_texts = counted.n_counted, counted.n_all
        self._stored = StoredNumbers.objects.filter(study=study).defer("sections").first()

    @cached_property
    def facts(self) -> StudyFacts:
        return study_facts(self._study)

    @cached_property
    def report(self) -> Report | None:
        """The last report that was computed, of whatever state; None if there never was one."""
        return _report(self.facts, self._stored) if self._stored else None

    @property
    def shown_state(self) -> str:
        """Of the last report; empty if there is none."""
        return self._stored.state if self._stored else ""

    @property
    def computed_at(self) -> str:
        return moment(self._stored.computed_at) if self._stored else ""

    @property
    def is_current(self) -> bool:
        return self.shown_state == self.state

    @property
    def is_counted(self) -> bool:
        """Whether every response's text has its counts; a report made before that lacks some."""
        return self.n_counted == self.n_texts


def standing(study: Study) -> Standing:
    """What can be shown at once, and whether it is up to date: nothing is computed unless it takes a moment only."""
    counted = counting_state(study)
    now = Standing(study, _state(study, counted), counted)
    if not now.is_current and _is_quick(study, counted.n_counted):
        study_report(study)
        now = Standing(study, now.state, counted)
    return now


def _is_quick(study: Study, n_texts: int) -> bool:
    n_values = Rating.objects.filter(placement__rater__study=study).count()
    return n_values + (0 if hides_texts(study) else n_texts) <= settings.REPORT_AT_ONCE


def report_state(study: Study) -> str:
    """What the numbers rest on, from a few aggregates: the same text means the same numbers."""
    return _state(study, counting_state(study))


def _state(study: Study, counted: CountingState) -> str:
    texts = "hidden" if hides_texts(study) else counted
    draws = f"{settings.REPORT_RESAMPLES}:{settings.REPORT_EXCHANGES}"
    return f"{REPORT_VERSION}:{draws}:{fingerprint(study)}:{exit_state(study)}:{judges_state(study)}:{texts}"


def _report(facts: StudyFacts, stored: StoredNumbers) -> Report:
    sections: Sections = {
        name: tuple(ResultRow.from_dict(row) for row in rows) for name, rows in json.loads(stored.sections).items()
    }
    return Report(facts, sections, stored.state, moment(stored.computed_at))


def study_data(study: Study) -> StudyData:
    """What the numbers are computed from: arm codes and pseudonyms, no names."""
    return StudyData(
        ratings=ratings_table(study),
        texts=_texts(study),
        seed=resampling_seed(study),
        n_bootstrap=settings.REPORT_RESAMPLES,
        n_flips=settings.REPORT_EXCHANGES,
        exit_answers=exit_answers(study),
        judges=judges_table(study),
    )


def hides_texts(study: Study) -> bool:
    """Whether text metrics wait for the unblinding: the human reference, compared with itself, would stand out."""
    return not study.is_unblinded and study.arms.filter(system__kind=System.Kind.REFERENCE).exists()


def _texts(study: Study) -> dict[str, DatasetTexts]:
    """The counts of each dataset, without the human reference: it is what the others are compared with."""
    if hides_texts(study):
        return {}
    is_reference = study.arms.filter(system__kind=System.Kind.REFERENCE)
    references = set(is_reference.values_list("code", flat=True))
    numbers = dict(study.study_items.values_list("item_id", "number"))
    found = {}
    for slug, dataset in text_statistics(study).items():
        texts = dataset.all_items
        if len(texts):
            found[slug] = DatasetTexts(
                numbers=tuple(str(numbers.get(item, "")) for item in texts.items.tolist()),
                clusters=texts.clusters,
                topics=tuple(texts.topics.tolist()),
                statistics={code: table for code, table in texts.arms.items() if code not in references},
            )
    return found


def study_facts(study: Study) -> StudyFacts:
    """What a report says of the study; systems are named after unblinding only."""
    repeats = Placement.objects.filter(rater__study=study, assignment__is_repeat=True)
    return StudyFacts(
        public_id=str(study.public_id),
        name=study.name,
        state=study.state,
        is_demo=study.is_demo,
        rubric=str(study.rubric),
        rubric_hash=study.rubric.content_hash,
        design_hash=study.design_hash,
        plan_hash=study.plan_hash,
        presentation=study.presentation,
        disclosure_policy=study.disclosure_policy,
        raters_per_item=study.raters_per_item,
        n_items=study.study_items.count(),
        n_masked=study.n_masked,
        n_dropped=study.n_dropped,
        n_repeats_placed=repeats.count(),
        n_repeats_final=repeats.rated().count(),
        opened_at=moment(study.opened_at),
        closed_at=moment(study.closed_at),
        plan_frozen_at=moment(study.plan_frozen_at),
        unblinded_at=moment(study.unblinded_at),
        seed=study.seed if study.is_unblinded else None,
        interval_seed=resampling_seed(study),
        dimensions=tuple(
            DimensionLabel(dimension.key, dimension.name, dimension.highest)
            for dimension in study.rubric.dimensions.order_by("order")
        ),
        arms=arm_labels(study),
        datasets=_datasets(study),
        counts=_counts(study),
        cost_per_rating=float(study.pay_per_response),
        currency=study.pay_currency,
        per_day=_per_day(study),
    )


def _per_day(study: Study) -> tuple[tuple[str, int], ...]:
    submitted = Placement.objects.filter(rater__study=study, state=Placement.State.FINAL)
    days = submitted.annotate(day=TruncDate("submitted_at", tzinfo=UTC)).values_list("day").order_by("day")
    return tuple((day.isoformat(), n) for day, n in days.annotate(n=Count("id")))


def _datasets(study: Study) -> tuple[DatasetLabel, ...]:
    """Sorted by slug. A dataset that came in as one of the releases behind the paper is known by its format."""
    drawn = Dataset.objects.filter(items__study_items__study=study).distinct().order_by("slug")
    imports = ImportRecord.objects.filter(kind=ImportRecord.Kind.ITEMS, dataset__in=drawn).order_by("-pk")
    formats = {record.dataset_id: record.options.get("format", "") for record in imports}  # the first import stays
    published = {pk: name for pk, name in formats.items() if name in RELEASES}
    return tuple(DatasetLabel(dataset.slug, dataset.name, published.get(dataset.pk, "")) for dataset in drawn)


def _counts(study: Study) -> tuple[ArmCounts, ...]:
    """One entry per dataset and arm, sorted."""
    responses = (
        Placement.objects.filter(rater__study=study, assignment__is_repeat=False)
        .values_list("study_response__study_item__item__dataset__slug", "study_response__arm__code", "study_response")
        .annotate(
            n_placed=Count("id"),
            n_final=Count("id", filter=Q(state=Placement.State.FINAL)),
            n_skipped=Count("id", filter=Q(state=Placement.State.SKIPPED)),
        )
    )
    totals: dict[tuple[str, str], list[int]] = {}
    for dataset, arm, _response, n_placed, n_final, n_skipped in responses:
        total = totals.setdefault((dataset, arm), [0, 0, 0, 0, 0])
        for index, count in enumerate((1, n_final == n_placed, n_placed, n_final, n_skipped)):
            total[index] += count
    return tuple(ArmCounts(*key, *total) for key, total in sorted(totals.items()))
