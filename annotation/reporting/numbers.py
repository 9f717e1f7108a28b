"""Report: a study's facts and its computed sections, looked up by what a number is called. No database in here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import Any

from django.utils.translation import gettext_lazy as _

from annotation.reporting.facts import StudyFacts
from metrics.report import Sections
from metrics.results import Estimate, ResultRow

REASONS: Mapping[str, Any] = {
    "no_ratings": _("no ratings yet"),
    "no_pairs": _("no response has a reference to compare it with"),
    "one_rater": _("undefined: only one person rated"),
    "no_overlap": _("undefined: no response was rated by two people"),
    "no_complete_responses": _("undefined: no response was rated by everyone"),
    "one_response": _("undefined: only one response was rated"),
    "no_repeats": _("no response was rated twice by one person"),
    "no_variation": _("undefined: everyone gave the same score"),
    "zero_denominator": _("undefined: what the formula divides by is 0 or below here"),
    "one_system": _("nothing to compare: only one system"),
    "one_dialogue": _("not tested: only one dialogue"),
    "no_shared_items": _("no item on which both were rated"),
    "no_scores": _("no response has both a rating and a score"),
    "no_answers": _("nobody has answered"),
    "one_dimension": _("undefined: it needs two dimensions that vary"),
    "no_positions": _("undefined: too few places in the queue are known"),
    "no_seconds": _("no time was recorded"),
    "under_three_raters": _("undefined: it needs three raters"),
    "separation": _("infinite: only the lowest or only the highest point was given"),
    "not_identified": _("undefined: the ratings cannot tell this from other effects"),
    "not_converged": _("no answer: the fit found no maximum"),
}
NOTES: Mapping[str, Any] = {
    "undefined_resamples": _("some resamples had no value and were left out"),
    "degenerate_interval": _("no interval: every resample gave the same value"),
    "one_cluster": _("no interval: all ratings belong to one dialogue"),
    "few_clusters": _("fewer than 20 dialogues: the interval is rough"),
    "one_by_convention": _("set to 1 by convention"),
    "unequal_items": _("systems were not rated on the same items"),
    "at_boundary": _("at the edge of what is possible, so without interval"),
    "unused_points": _("a point that nobody gave was passed over"),
    "one_rater": _("no interval: only one rater answered"),
    "undefined_without_one_rater": _("no interval: without one of the raters the number would be undefined"),
    "judge_passes": _("passes: the judge beats at least half of the raters"),
}
MARKS = dict(
    zip(NOTES, ("†", "°", "‡", "*", "§", "¶", "‖", "#", "††", "‡‡", "**"), strict=True)
)  # stand beside a number, explained below the table


def rounded(value: float, digits: int = 2, *, percent: bool = False) -> str:
    """The number with `digits` decimals, halves away from zero, rounded once from its shortest exact form."""
    exact = Decimal(repr(value)).scaleb(2 if percent else 0)
    return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0:f}"  # + 0: never "-0.00"


Key = tuple[str, str, frozenset[tuple[str, str]], frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Report:
    """What is known of one study at one moment.

    state: which ratings and texts the numbers rest on;  computed_at: ISO 8601 in UTC.
    """

    facts: StudyFacts
    sections: Sections
    state: str
    computed_at: str

    def rows(self, *sections: str) -> Iterator[ResultRow]:
        """The rows of some sections, of all where none is named."""
        for section in sections or self.sections:
            yield from self.sections.get(section, ())

    @property
    def is_empty(self) -> bool:
        """Nobody has rated anything yet."""
        return self.facts.is_empty

    @cached_property
    def _found(self) -> dict[Key, Estimate]:
        return {_key(row.metric, row.dimension, row.stratum, row.detail): row.estimate for row in self.rows()}

    def estimate(
        self,
        metric: str,
        dimension: str = "",
        stratum: Mapping[str, str] | None = None,
        detail: Mapping[str, str] | None = None,
    ) -> Estimate | None:
        """One number; None if there was nothing to compute it from."""
        return self._found.get(_key(metric, dimension, stratum or {}, detail or {}))

    def of(self, metric: str, dimension: str) -> list[ResultRow]:
        """The rows of a metric over all ratings, whatever their detail."""
        return self.split(metric, dimension, by=())

    def split(self, metric: str, dimension: str, *, by: Sequence[str]) -> list[ResultRow]:
        """The rows of a metric that are split by exactly these columns."""
        rows = self._by_metric.get(metric, [])
        return [row for row in rows if row.dimension == dimension and set(row.stratum) == set(by)]

    @cached_property
    def _by_metric(self) -> dict[str, list[ResultRow]]:
        found: dict[str, list[ResultRow]] = {}
        for row in self.rows():
            found.setdefault(row.metric, []).append(row)
        return found


def _key(metric: str, dimension: str, stratum: Mapping[str, str], detail: Mapping[str, str]) -> Key:
    return metric, dimension, frozenset(stratum.items()), frozenset(detail.items())
