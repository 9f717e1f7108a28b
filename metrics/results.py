"""What a metric hands back: a number with its interval, its counts and the signature that repeats it.

Outside this package no number is ever NaN. A number that does not exist is None, and `reason` says why.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Reason = Literal[
    "no_ratings",  # nothing was rated here
    "no_pairs",  # no response with a reference, or no text to count
    "one_rater",  # agreement needs a second rater
    "no_overlap",  # two raters, but no response that both rated
    "no_complete_responses",  # no response was rated by every rater
    "one_response",  # a variance between responses needs two of them
    "no_repeats",  # no rater met the same response twice
    "no_variation",  # every rating is the same point: agreement beyond chance is 0 / 0
    "zero_denominator",  # ratings vary, yet this formula divides by zero
    "one_system",  # a comparison needs a second system
    "one_dialogue",  # a test by dialogue needs two of them
    "no_shared_items",  # no item on which both systems were rated (for wins: by the same rater)
    "no_scores",  # no response has both a rating and a score
    "no_answers",  # nobody was asked, or nobody answered
    "one_dimension",  # a relation between dimensions needs two of them that vary
    "no_positions",  # places in the queue were not recorded, or there are too few
    "no_seconds",  # times were not recorded
    "under_three_raters",  # leaving one rater out must leave two
    "separation",  # a system or rater has nothing but the lowest or highest point: its effect is infinite
    "not_identified",  # the ratings cannot tell this effect from another
    "not_converged",  # the fit found no maximum inside the range where it can be trusted
]


@dataclass(frozen=True)
class Signature:
    """Everything a stranger needs to repeat a number, as `key:value` parts joined by `|`.

    name: the metric;  version: raised whenever the same input would give another number.
    Source: Post (2018), A Call for Clarity in Reporting BLEU Scores, and the sacrebleu package.
    """

    name: str
    version: int
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, version: int, **settings: object) -> "Signature":
        """A signature from keyword settings, in the order given; a setting that is None is left out."""
        return cls(name, version, tuple((key, str(value)) for key, value in settings.items() if value is not None))

    def __str__(self) -> str:
        parts = (("name", self.name), ("version", str(self.version)), *self.settings)
        return "|".join(f"{_escaped(key)}:{_escaped(value)}" for key, value in parts)


def _escaped(text: str) -> str:
    """The text with the two separators of a signature percent-encoded, so that a part cannot forge another."""
    return text.replace("%", "%25").replace("|", "%7C").replace(":", "%3A")


@dataclass(frozen=True)
class Estimate:
    """One number and what it rests on.

    value: None when undefined, and then `reason` is set.
    low, high: the interval named in `method`; None where no honest interval exists, and `notes` says why.
    n: what was counted, by name: "items", "responses", "ratings", "raters", "clusters", "resamples", …
    notes: codes for what a reader must know: "undefined_resamples", "degenerate_interval", "one_cluster", …
    Raises ValueError for NaN or infinity, for low above high, and unless exactly one of value and reason is given.
    """

    value: float | None
    low: float | None
    high: float | None
    n: Mapping[str, int]
    method: str
    signature: str
    reason: Reason | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name} is {number}; an undefined number is None with a reason")
        if (self.value is None) != (self.reason is not None):
            raise ValueError(f"value is {self.value} and reason is {self.reason}: exactly one must be given")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval is upside down: low {self.low}, high {self.high}")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": dict(self.n),
            "method": self.method,
            "signature": self.signature,
            "reason": self.reason,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Estimate":
        """The estimate that `to_dict` wrote; a checked one, as any other. KeyError if a part is missing."""
        return cls(
            value=plain["value"],
            low=plain["low"],
            high=plain["high"],
            n=plain["n"],
            method=plain["method"],
            signature=plain["signature"],
            reason=plain["reason"],
            notes=tuple(plain["notes"]),
        )

    def rounded(self, digits: int) -> "Estimate":
        """The same with its numbers at so many significant digits, and none closer to 0 than the next one.

        Processors add in different orders, so the last digits of a float are not the same everywhere, and what is 0
        on one machine is 1e-17 on another.
        """
        value, low, high = (_significant(number, digits) for number in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high)


def _significant(number: float | None, digits: int) -> float | None:
    return None if number is None else float(f"{round(number, digits + 1):.{digits}g}") + 0.0  # + 0.0: never "-0.0"


@dataclass(frozen=True)
class ResultRow:
    """One line of a report: which metric, of which dimension, in which part of the ratings.

    stratum: column ► level, for instance {"system": "B"}; empty means all ratings pooled.
    detail: what tells rows of one metric apart, for instance {"raters": "r1, r2"} or {"point": "0"}.
    """

    metric: str
    dimension: str
    estimate: Estimate
    stratum: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types, the estimate nested."""
        return {
            "metric": self.metric,
            "dimension": self.dimension,
            "stratum": dict(self.stratum),
            "detail": dict(self.detail),
            "estimate": self.estimate.to_dict(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ResultRow":
        """The row that `to_dict` wrote. KeyError if a part is missing."""
        estimate = Estimate.from_dict(plain["estimate"])
        return cls(plain["metric"], plain["dimension"], estimate, plain["stratum"], plain["detail"])
