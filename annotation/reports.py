"""What a study's ratings say: scores and agreement with their intervals. The one bridge to metrics/.

Nothing is computed here; this module chooses what to ask metrics/ for, keeps the answer, and arranges it for a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Q
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from annotation.models import Dataset, Placement, Study
from annotation.selectors.rater import DimensionText, dimensions
from annotation.tables import ArmLabel, Fingerprint, arm_labels, fingerprint, ratings_table
from metrics import agreement, intervals
from metrics.results import Estimate, ResultRow
from metrics.table import RatingTable

REPORT_VERSION = f"1.{agreement.VERSION}.{intervals.VERSION}"
CACHE_SECONDS = 30 * 24 * 3600  # an answer is right for as long as the fingerprint in its key is

REASONS: Mapping[str, Any] = {
    "no_ratings": _("no ratings yet"),
    "one_rater": _("undefined: only one person rated"),
    "no_overlap": _("undefined: no response was rated by two people"),
    "no_complete_responses": _("undefined: no response was rated by everyone"),
    "one_response": _("undefined: only one response was rated"),
    "no_repeats": _("no response was rated twice by one person"),
    "no_variation": _("undefined: everyone gave the same score"),
    "zero_denominator": _("undefined: the formula divides by zero here"),
}
NOTES: Mapping[str, Any] = {
    "undefined_resamples": _("some resamples had no value and were left out"),
    "degenerate_interval": _("no interval: every resample gave the same value"),
    "one_cluster": _("no interval: all ratings belong to one dialogue"),
    "few_clusters": _("fewer than 20 dialogues: the interval is rough"),
    "one_by_convention": _("set to 1 by convention"),
}
MARKS = dict(zip(NOTES, ("†", "°", "‡", "*", "§"), strict=True))  # stand beside a number, explained below the table


def rounded(value: float, digits: int = 2, *, percent: bool = False) -> str:
    """The number with `digits` decimals, halves away from zero, rounded once from its shortest exact form."""
    exact = Decimal(repr(value)).scaleb(2 if percent else 0)
    return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0:f}"  # + 0: never "-0.00"


def resampling_seed(study: Study) -> int:
    """The seed of the intervals, 0 … 2**53 - 1. Signatures print it, so it is not the study's own: from that one
    anybody could draw the arm codes again and know which system is which."""
    return study.public_id.int % 2**53


@dataclass(frozen=True)
class ArmCounts:
    """How far one arm of one dataset is: first showings only, hidden repeats are counted apart."""

    dataset: str
    arm: str
    n_responses: int = 0
    n_complete: int = 0  # responses that everyone who was to rate them has rated
    n_placed: int = 0  # ratings planned: responses times raters
    n_final: int = 0
    n_skipped: int = 0

    @property
    def n_missing(self) -> int:
        return self.n_placed - self.n_final - self.n_skipped


@dataclass(frozen=True)
class Numbers:
    """All that was computed from one state of the ratings. Holds arm codes only, so it may be kept and shared."""

    fingerprint: Fingerprint
    computed_at: datetime
    scores: tuple[ResultRow, ...]  # mean_score by dataset and system; by system over several datasets
    agreement: tuple[ResultRow, ...]  # every coefficient, pooled and by system
    repeats: tuple[ResultRow, ...]  # raters against themselves
    counts: tuple[ArmCounts, ...]
    n_repeats_placed: int
    n_repeats_final: int


def study_report(study: Study) -> StudyReport:
    """The report on the ratings as they are now; what did not change since the last report is not computed again."""
    state = fingerprint(study)
    key = f"report:{REPORT_VERSION}:{study.pk}:{state}"
    numbers: Numbers | None = cache.get(key)
    if numbers is None:
        numbers = _compute(study, state)
        cache.set(key, numbers, CACHE_SECONDS)
    return StudyReport(study, numbers)


def _compute(study: Study, state: Fingerprint) -> Numbers:
    scores: list[ResultRow] = []
    panel: list[ResultRow] = []
    repeats: list[ResultRow] = []
    for dimension in study.rubric.dimensions.order_by("order"):
        # One dimension at a time: a quarter of the memory, and no metric looks across dimensions.
        table = ratings_table(study, dimension)
        if not len(table):
            continue
        scores += intervals.mean_score(table, dimension.key, by=("dataset", "system"), seed=resampling_seed(study))
        if len(table.levels("dataset")) > 1:
            scores += intervals.mean_score(table, dimension.key, by=("system",), seed=resampling_seed(study))
        panel += agreement.agreement_panel(table, by=("system",), seed=resampling_seed(study))
        repeats += agreement.repeat_agreement(_rated_twice(table), dimension.key, seed=resampling_seed(study))
    planned = Placement.objects.filter(rater__study=study, assignment__is_repeat=True)
    return Numbers(
        fingerprint=state,
        computed_at=timezone.now(),
        scores=tuple(scores),
        agreement=tuple(panel),
        repeats=tuple(repeats),
        counts=tuple(_arm_counts(study)),
        n_repeats_placed=planned.count(),
        n_repeats_final=planned.rated().count(),
    )


def _rated_twice(table: RatingTable) -> RatingTable:
    """Only what a rater's agreement with himself rests on: the responses that he met a second time."""
    frame = table.frame
    is_twice = frame.groupby(["item", "system", "rater"])["is_repeat"].transform("any").astype(bool)
    return RatingTable(frame[is_twice].reset_index(drop=True), table.scales)


def _arm_counts(study: Study) -> list[ArmCounts]:
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
    return [ArmCounts(*key, *total) for key, total in sorted(totals.items())]


@dataclass(frozen=True)
class ScoreLine:
    """One line of the score table: the means of one arm in one dataset, in the order of the dimensions."""

    dataset: str  # name; empty = all datasets together
    arm: ArmLabel
    scores: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class AgreementLine:
    """One dimension's agreement over all ratings."""

    dimension: DimensionText
    estimates: tuple[Estimate | None, ...]  # of StudyReport.COEFFICIENTS
    other_point: Estimate | None  # set where all agree: how often another point may still occur


@dataclass(frozen=True)
class KappaLine:
    """Fleiss' kappa and percent agreement of one arm, in the order of the dimensions."""

    arm: ArmLabel
    cells: tuple[tuple[Estimate | None, Estimate | None], ...]


@dataclass(frozen=True)
class RepeatLine:
    """How far raters repeated themselves on one dimension."""

    dimension: DimensionText
    identical: Estimate | None
    kappa: Estimate | None


class StudyReport:
    """The numbers of one study, with arms named as far as the study allows."""

    COEFFICIENTS = ("percent_agreement", "fleiss_kappa", "krippendorff_alpha_ordinal", "gwet_ac2_quadratic")

    def __init__(self, study: Study, numbers: Numbers) -> None:
        self.study = study
        self.numbers = numbers
        self._found = {
            _key(row.metric, row.dimension, row.stratum): row.estimate
            for row in (*numbers.scores, *numbers.agreement, *numbers.repeats)
            if not row.detail or row.metric == "other_point_rate"
        }

    @property
    def is_empty(self) -> bool:
        return not self.numbers.fingerprint.n_final

    @cached_property
    def dimensions(self) -> tuple[DimensionText, ...]:
        """In the rubric's order, named in the reader's language."""
        return tuple(dimensions(self.study, get_language() or "en").values())

    @cached_property
    def arms(self) -> tuple[ArmLabel, ...]:
        return arm_labels(self.study)

    @cached_property
    def datasets(self) -> Mapping[str, str]:
        """Slug ► name of the datasets that items were drawn from, sorted by slug."""
        drawn = Dataset.objects.filter(items__study_items__study=self.study).distinct().order_by("slug")
        return dict(drawn.values_list("slug", "name"))

    @property
    def totals(self) -> ArmCounts:
        """All arms and datasets together."""
        counts = self.numbers.counts
        fields = ("n_responses", "n_complete", "n_placed", "n_final", "n_skipped")
        return ArmCounts("", "", **{name: sum(getattr(count, name) for count in counts) for name in fields})

    @property
    def is_complete(self) -> bool:
        totals = self.totals
        return totals.n_complete == totals.n_responses > 0

    @property
    def score_lines(self) -> list[ScoreLine]:
        """Dataset by dataset, arm by arm; then all datasets together if there are several."""
        lines = [
            self._score_line(name, arm, {"dataset": slug, "system": arm.code})
            for slug, name in self.datasets.items()
            for arm in self.arms
        ]
        if len(self.datasets) > 1:
            lines += [self._score_line("", arm, {"system": arm.code}) for arm in self.arms]
        return lines

    def _score_line(self, dataset: str, arm: ArmLabel, stratum: Mapping[str, str]) -> ScoreLine:
        scores = tuple(self.estimate("mean_score", dimension.key, stratum) for dimension in self.dimensions)
        return ScoreLine(dataset, arm, scores)

    @property
    def agreement_lines(self) -> list[AgreementLine]:
        return [
            AgreementLine(
                dimension,
                tuple(self.estimate(metric, dimension.key) for metric in self.COEFFICIENTS),
                self.estimate("other_point_rate", dimension.key),
            )
            for dimension in self.dimensions
        ]

    @property
    def kappa_lines(self) -> list[KappaLine]:
        return [
            KappaLine(
                arm,
                tuple(
                    (
                        self.estimate("fleiss_kappa", dimension.key, {"system": arm.code}),
                        self.estimate("percent_agreement", dimension.key, {"system": arm.code}),
                    )
                    for dimension in self.dimensions
                ),
            )
            for arm in self.arms
        ]

    @property
    def repeat_lines(self) -> list[RepeatLine]:
        return [
            RepeatLine(
                dimension,
                self.estimate("repeat_percent_identical", dimension.key),
                self.estimate("repeat_kappa_quadratic", dimension.key),
            )
            for dimension in self.dimensions
        ]

    @property
    def count_lines(self) -> list[tuple[str, ArmLabel, ArmCounts]]:
        """Name of the dataset, arm, counts."""
        labels = {arm.code: arm for arm in self.arms}
        return [(self.datasets[c.dataset], labels[c.arm], c) for c in self.numbers.counts]

    @property
    def marks(self) -> list[tuple[str, Any]]:
        """Each mark that stands beside a number of this report, and what it says."""
        occurring = {note for row in self.shown for note in row.estimate.notes}
        return [(MARKS[note], text) for note, text in NOTES.items() if note in occurring]

    @property
    def shown(self) -> list[ResultRow]:
        """The numbers that stand on the page; files hold more."""
        metrics = (
            "mean_score",
            *self.COEFFICIENTS,
            "other_point_rate",
            "repeat_percent_identical",
            "repeat_kappa_quadratic",
        )
        rows = (*self.numbers.scores, *self.numbers.agreement, *self.numbers.repeats)
        return [row for row in rows if row.metric in metrics and "rater" not in row.stratum]

    def estimate(self, metric: str, dimension: str, stratum: Mapping[str, str] | None = None) -> Estimate | None:
        """One number of the report; None if nothing was rated in that part."""
        return self._found.get(_key(metric, dimension, stratum or {}))


def _key(metric: str, dimension: str, stratum: Mapping[str, str]) -> tuple[str, str, frozenset[tuple[str, str]]]:
    return metric, dimension, frozenset(stratum.items())
