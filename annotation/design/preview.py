"""What a researcher sees before a study opens: proof of coverage, balance, hours and cost, as plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np

from annotation.design.arrays import BoolArray, FloatArray, IntArray
from annotation.design.compile import Design
from annotation.design.ordering import MAX_SENSITIVE_RUN, cohort_size, wanted_repeats

# Silent, careful reading of Chinese. Our judgement: speeds of 250 to 400 characters per minute are usual figures
# for attentive reading; a study that knows its raters passes its own number.
CHARACTERS_PER_MINUTE = 300.0

# A count that is this share away from even is reported. Our judgement: 100 items and 4 systems stay far below.
IMBALANCE_TOLERANCE = 0.05

WarningCode = Literal[
    "missing_ratings",
    "repeats_left_out",
    "position_imbalance",
    "neighbour_imbalance",
    "sensitive_run",
    "reading_time_exceeds_paid_time",
    "pay_below_floor",
]


@dataclass(frozen=True)
class PayTerms:
    """What a rater is paid for one response, and what an hour must bring at least.

    amount_per_response, floor_per_hour: in units of `currency` (ISO 4217 code).
    seconds_per_response: the time the amount is meant for.

    Raises ValueError for a negative amount or floor, or a time that is not positive.
    """

    amount_per_response: Decimal
    currency: str
    seconds_per_response: int
    floor_per_hour: Decimal

    def __post_init__(self) -> None:
        if self.amount_per_response < 0 or self.floor_per_hour < 0:
            raise ValueError("an amount of money is 0 or more")
        if self.seconds_per_response <= 0:
            raise ValueError(f"seconds_per_response is {self.seconds_per_response}; it is more than 0")


@dataclass(frozen=True)
class PreviewWarning:
    """Something to look at before opening: a code that the page translates, and the numbers that belong to it."""

    code: WarningCode
    params: Mapping[str, int | float | Decimal]


@dataclass(frozen=True)
class Coverage:
    """Proof that everything is rated: first showings only, repeats counted apart.

    min_raters, max_raters: over all pairs of item and system.
    n_missing: ratings short of raters_per_item, summed over all pairs; 0 is complete.
    """

    n_placements: int
    n_repeats: int
    min_raters: int
    max_raters: int
    n_missing: int


@dataclass(frozen=True, eq=False)
class Balance:
    """A table of counts beside the count that would be even.

    counts: integers, shape as the field that holds it says.
    even: what each cell would hold in a perfectly balanced design.
    deviation: largest distance of a cell from `even`.
    """

    counts: IntArray
    even: float
    deviation: float


@dataclass(frozen=True)
class RaterPreview:
    """The work of one rater.

    n_items: different items; n_placements: responses to rate, repeats included.
    n_repeats: placements that show a response again.
    reading_hours: dialogue and responses read once each time they come onto the page anew.
    expected_hours: the time paid for, or the reading time where that is longer.
    cost, hourly_pay: in the currency of the pay terms; hourly_pay is cost by expected hours, None without work.
    sensitive_run: longest run of sensitive items (interleaved: placements).
    """

    rater: int
    n_items: int
    n_placements: int
    n_repeats: int
    reading_hours: float
    expected_hours: float
    cost: Decimal
    hourly_pay: Decimal | None
    sensitive_run: int


@dataclass(frozen=True, eq=False)
class DesignPreview:
    """All numbers of the preview.

    position: counts[system, slot]; neighbour: counts[system, next system] within an item, the diagonal empty.
    sequences: shape (n_sequences, n_systems), the orders in use.
    sequence_counts: shape (n_raters, n_sequences), how often each rater meets each order.
    total_cost: in the currency of the pay terms.
    """

    coverage: Coverage
    position: Balance
    neighbour: Balance
    sequences: IntArray
    sequence_counts: IntArray
    raters: tuple[RaterPreview, ...]
    longest_sensitive_run: int
    total_cost: Decimal
    warnings: tuple[PreviewWarning, ...]


def preview_design(
    design: Design,
    *,
    item_characters: IntArray,
    response_characters: IntArray,
    pay: PayTerms,
    characters_per_minute: float = CHARACTERS_PER_MINUTE,
) -> DesignPreview:
    """The numbers that decide whether this design is fit to open.

    item_characters: shape (n_items,), length of each dialogue.
    response_characters: shape (n_items, n_systems), length of each response.

    Raises ValueError if a shape does not fit the design or the reading speed is not positive.
    """
    spec = design.spec
    if item_characters.shape != (spec.n_items,):
        raise ValueError(f"item_characters has shape {item_characters.shape}, expected ({spec.n_items},)")
    if response_characters.shape != (spec.n_items, spec.n_systems):
        raise ValueError(
            f"response_characters has shape {response_characters.shape}, expected ({spec.n_items}, {spec.n_systems})"
        )
    if characters_per_minute <= 0:
        raise ValueError(f"characters_per_minute is {characters_per_minute}; it is more than 0")

    orders, order_of, rater_of = _orders(design)
    position, neighbour = _position_balance(orders, order_of), _neighbour_balance(orders, order_of)
    sequence_counts = np.zeros((spec.n_raters, len(orders)), dtype=np.int64)
    np.add.at(sequence_counts, (rater_of, order_of), 1)
    coverage = _coverage(design)

    seconds = _reading_seconds(design, item_characters, response_characters, characters_per_minute)
    raters = tuple(_rater_preview(design, rater, seconds, pay) for rater in range(spec.n_raters))
    total_cost = sum((row.cost for row in raters), Decimal(0))
    return DesignPreview(
        coverage=coverage,
        position=position,
        neighbour=neighbour,
        sequences=orders,
        sequence_counts=sequence_counts,
        raters=raters,
        longest_sensitive_run=max(row.sensitive_run for row in raters),
        total_cost=total_cost,
        warnings=(
            *_design_warnings(design, coverage, position, neighbour, raters),
            *_reading_warnings(design, item_characters, response_characters, pay, characters_per_minute),
            *_pay_warnings(raters, pay),
        ),
    )


def _orders(design: Design) -> tuple[IntArray, IntArray, IntArray]:
    """The different orders of systems, and for each first showing the order it has and the rater who sees it."""
    rows = np.flatnonzero(~design.is_repeat)
    rows = rows[np.lexsort((design.slot[rows], design.item[rows], design.rater[rows]))]
    systems = design.system[rows].reshape(-1, design.spec.n_systems)
    orders, order_of = np.unique(systems, axis=0, return_inverse=True)
    return orders, order_of.reshape(-1), design.rater[rows[:: design.spec.n_systems]]


def _position_balance(orders: IntArray, order_of: IntArray) -> Balance:
    n_systems = orders.shape[1]
    n_times = np.bincount(order_of, minlength=len(orders))
    counts = np.zeros((n_systems, n_systems), dtype=np.int64)
    np.add.at(counts, (orders, np.arange(n_systems)), n_times[:, None])
    return _balance(counts, np.ones_like(counts, dtype=np.bool_), len(order_of) / n_systems)


def _neighbour_balance(orders: IntArray, order_of: IntArray) -> Balance:
    n_systems = orders.shape[1]
    n_times = np.bincount(order_of, minlength=len(orders))
    counts = np.zeros((n_systems, n_systems), dtype=np.int64)
    np.add.at(counts, (orders[:, :-1], orders[:, 1:]), n_times[:, None])
    # n - 1 pairs per assignment over n (n - 1) cells off the diagonal; one system has no neighbours
    return _balance(counts, ~np.eye(n_systems, dtype=np.bool_), len(order_of) / n_systems if n_systems > 1 else 0.0)


def _balance(counts: IntArray, is_cell: BoolArray, even: float) -> Balance:
    return Balance(counts, even, float(np.max(np.abs(counts[is_cell] - even), initial=0.0)))


def _coverage(design: Design) -> Coverage:
    spec = design.spec
    first = ~design.is_repeat
    n_raters = np.zeros((spec.n_items, spec.n_systems), dtype=np.int64)
    np.add.at(n_raters, (design.item[first], design.system[first]), 1)
    return Coverage(
        n_placements=len(design),
        n_repeats=int(np.count_nonzero(design.is_repeat)),
        min_raters=int(n_raters.min()),
        max_raters=int(n_raters.max()),
        n_missing=int(np.maximum(spec.raters_per_item - n_raters, 0).sum()),
    )


def _dialogue_reads(design: Design) -> int:
    """How often the dialogue of an item is read for one rating of all its systems."""
    spec = design.spec
    # While the responses of an item stand together, one reading of the dialogue serves them all.
    is_together = cohort_size(spec.presentation, spec.min_gap, spec.n_items, spec.n_systems) == 1
    return 1 if is_together else spec.n_systems


def _reading_seconds(
    design: Design, item_characters: IntArray, response_characters: IntArray, characters_per_minute: float
) -> FloatArray:
    """Seconds of reading at each placement: shape (n_placements,)."""
    characters = response_characters[design.item, design.system].astype(np.float64)
    is_new = (design.slot == 0) | (_dialogue_reads(design) > 1)
    characters[is_new] += item_characters[design.item[is_new]]
    return characters * 60 / characters_per_minute


def _rater_preview(design: Design, rater: int, reading_seconds: FloatArray, pay: PayTerms) -> RaterPreview:
    start, end = np.searchsorted(design.rater, [rater, rater + 1])
    own = slice(int(start), int(end))
    n_placements = int(end - start)
    reading = float(reading_seconds[own].sum())
    paid = n_placements * pay.seconds_per_response
    seconds = Decimal(paid) if reading <= paid else Decimal(reading)
    cost = n_placements * pay.amount_per_response
    is_repeat = design.is_repeat[own]
    return RaterPreview(
        rater=rater,
        n_items=len(np.unique(design.item[own])),
        n_placements=n_placements,
        n_repeats=int(np.count_nonzero(is_repeat)),
        reading_hours=reading / 3600,
        expected_hours=float(seconds) / 3600,
        cost=cost,
        hourly_pay=cost * 3600 / seconds if n_placements else None,
        sensitive_run=_sensitive_run(design, own),
    )


def _sensitive_run(design: Design, own: slice) -> int:
    """The longest run of sensitive items of a queue; responses that stay on the page with their item count once."""
    is_new = (design.slot[own] == 0) | (_dialogue_reads(design) > 1)
    is_sensitive = design.spec.sensitive[design.item[own]][is_new]
    n_since_start = np.arange(1, len(is_sensitive) + 1)
    last_break = np.maximum.accumulate(np.where(is_sensitive, 0, n_since_start))
    return int(np.max(n_since_start - last_break, initial=0))


def _design_warnings(
    design: Design, coverage: Coverage, position: Balance, neighbour: Balance, raters: tuple[RaterPreview, ...]
) -> list[PreviewWarning]:
    warnings = []
    if coverage.n_missing:
        warnings.append(PreviewWarning("missing_ratings", {"n_missing": coverage.n_missing}))

    spec = design.spec
    n_wanted = sum(wanted_repeats(row.n_items, spec.repeat_share) for row in raters)
    n_given = coverage.n_repeats // spec.n_systems
    if n_given < n_wanted:
        warnings.append(PreviewWarning("repeats_left_out", {"n_wanted": n_wanted, "n_given": n_given}))

    tables: tuple[tuple[WarningCode, Balance], ...] = (
        ("position_imbalance", position),
        ("neighbour_imbalance", neighbour),
    )
    for code, table in tables:
        if table.deviation > IMBALANCE_TOLERANCE * table.even:
            warnings.append(PreviewWarning(code, {"deviation": table.deviation, "even": table.even}))

    runs = [row.sensitive_run for row in raters if row.sensitive_run > MAX_SENSITIVE_RUN]
    if runs:
        warnings.append(
            PreviewWarning("sensitive_run", {"n_raters": len(runs), "longest": max(runs), "limit": MAX_SENSITIVE_RUN})
        )
    return warnings


def _reading_warnings(
    design: Design,
    item_characters: IntArray,
    response_characters: IntArray,
    pay: PayTerms,
    characters_per_minute: float,
) -> list[PreviewWarning]:
    characters = response_characters.sum(axis=1) + item_characters * _dialogue_reads(design)
    seconds = characters * 60 / characters_per_minute
    paid_seconds = design.spec.n_systems * pay.seconds_per_response
    n_items = int(np.count_nonzero(seconds > paid_seconds))
    if n_items == 0:
        return []
    longest = int(np.argmax(seconds))
    return [
        PreviewWarning(
            "reading_time_exceeds_paid_time",
            {
                "n_items": n_items,
                "longest_item": longest,
                "reading_seconds": float(seconds[longest]),
                "paid_seconds": paid_seconds,
            },
        )
    ]


def _pay_warnings(raters: tuple[RaterPreview, ...], pay: PayTerms) -> list[PreviewWarning]:
    low = [row.hourly_pay for row in raters if row.hourly_pay is not None and row.hourly_pay < pay.floor_per_hour]
    if not low:
        return []
    return [
        PreviewWarning(
            "pay_below_floor",
            {"n_raters": len(low), "lowest_hourly_pay": min(low), "floor_per_hour": pay.floor_per_hour},
        )
    ]
