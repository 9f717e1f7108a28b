"""StudyFacts: what a report says of a study beside its numbers. Plain values, so that an archive can carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any, Self


@dataclass(frozen=True)
class DimensionLabel:
    """One dimension: what it is called and its highest point; the lowest is 0."""

    key: str
    names: Mapping[str, str]  # "zh", "en"
    highest: int

    def name(self, language: str) -> str:
        return self.names["zh" if language.startswith("zh") else "en"]

    @property
    def short_name(self) -> str:
        """As papers print it: "Empathy" is "Emp."."""
        return f"{self.names['en'][:3].title()}."


@dataclass(frozen=True)
class ArmLabel:
    """What an arm is called: its code, and the system's name and slug once the study is unblinded."""

    code: str
    system_name: str = ""
    system_slug: str = ""

    @property
    def name(self) -> str:
        """The system's name where it may be known, else the code."""
        return self.system_name or self.code


@dataclass(frozen=True)
class DatasetLabel:
    """One dataset that items were drawn from. `published_as` names its row in the paper's table, if it is one."""

    slug: str
    name: str
    published_as: str = ""


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
class StudyFacts:
    """The study as its report describes it. Moments are ISO 8601 in UTC, empty if they have not come."""

    public_id: str
    name: str
    state: str
    is_demo: bool
    rubric: str
    rubric_hash: str
    design_hash: str
    plan_hash: str
    presentation: str
    disclosure_policy: str
    raters_per_item: int
    n_items: int
    n_masked: int
    n_dropped: int
    n_repeats_placed: int
    n_repeats_final: int
    opened_at: str
    closed_at: str
    plan_frozen_at: str
    unblinded_at: str
    seed: int | None  # of the study: arm codes follow from it, so it is there after unblinding only
    interval_seed: int
    dimensions: tuple[DimensionLabel, ...]
    arms: tuple[ArmLabel, ...]
    datasets: tuple[DatasetLabel, ...]
    counts: tuple[ArmCounts, ...]
    cost_per_rating: float = 0.0  # what a rater is paid for one response
    currency: str = ""
    per_day: tuple[tuple[str, int], ...] = ()  # day (UTC, ISO 8601) and the ratings first submitted on it

    @property
    def is_unblinded(self) -> bool:
        return bool(self.unblinded_at)

    @property
    def totals(self) -> ArmCounts:
        """All arms and datasets together."""
        names = ("n_responses", "n_complete", "n_placed", "n_final", "n_skipped")
        return ArmCounts("", "", **{name: sum(getattr(count, name) for count in self.counts) for name in names})

    @property
    def is_empty(self) -> bool:
        """Nobody has submitted a rating yet."""
        return not self.totals.n_final and not self.n_repeats_final

    @property
    def is_complete(self) -> bool:
        totals = self.totals
        return totals.n_complete == totals.n_responses > 0

    def arm(self, code: str) -> ArmLabel:
        """KeyError if the study has no such arm."""
        return {arm.code: arm for arm in self.arms}[code]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. KeyError or TypeError if parts are missing, unknown or of another type."""
        parts = {
            "dimensions": DimensionLabel,
            "arms": ArmLabel,
            "datasets": DatasetLabel,
            "counts": ArmCounts,
        }
        values: dict[str, Any] = {field.name: plain[field.name] for field in fields(cls)}
        for name, part in parts.items():
            values[name] = tuple(part(**one) for one in values[name])
        values["per_day"] = tuple((date.fromisoformat(day).isoformat(), int(n)) for day, n in values["per_day"])
        facts = cls(**values)
        labels = (*facts.dimensions, *facts.arms, *facts.datasets, *facts.counts)
        for told in (facts, *labels):
            _refuse_other_types(told)
        return facts


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float": (int, float), "int | None": (int, type(None)),
}  # fmt: skip


def _refuse_other_types(part: Any) -> None:
    for one in fields(part):
        value = getattr(part, one.name)
        expected = _TYPES.get(str(one.type))
        is_stray_bool = isinstance(value, bool) and one.type != "bool"  # to Python a bool is a number
        if expected is not None and (is_stray_bool or not isinstance(value, expected)):
            raise TypeError(f"{one.name} is {value!r}, not {one.type}")


def moment(at: datetime | None) -> str:
    """A moment as StudyFacts holds it."""
    return at.isoformat() if at else ""
