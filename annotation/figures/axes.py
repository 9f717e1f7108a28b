"""Axes: round numbers for ticks, and where a value lies between two ends in points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

MANTISSAS = (1.0, 2.0, 2.5, 5.0, 10.0)
DAY_STEPS = (1, 2, 7, 14, 28)
MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120)
_TOLERANCE = 1e-9


class Tick(NamedTuple):
    value: float
    text: str


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` drawn from `start` to `end` (points; `end` may be the smaller one)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...]
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, in points."""
        low, high, here = self.low, self.high, value
        if self.is_log:
            low, high, here = math.log(low), math.log(high), math.log(here)
        return self.start + (self.end - self.start) * (here - low) / (high - low)


def step_for(low: float, high: float, n: int) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that covers low … high in at most n steps."""
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    for mantissa in (*MANTISSAS, 20.0):
        step = mantissa * power
        if math.ceil(high / step - _TOLERANCE) - math.floor(low / step + _TOLERANCE) <= n:
            return step
    return 25.0 * power


def linear(
    values: Sequence[float], start: float, end: float, *, n: int = 5, fixed: bool = False, whole: bool = False
) -> Axis:
    """An axis over all values that begins and ends at a tick; with `fixed`, exactly from the least to the greatest.

    n: how many steps at most.  whole: ticks are whole numbers, as of what is counted. Without values it goes from 0
    to 1. ValueError unless all are finite.
    """
    low, high = _range(values)
    step = step_for(low, high, n)
    if whole and step % 1:
        step = max(1.0, 2 * step)  # 2.5 ► 5
    first, last = math.floor(low / step + _TOLERANCE), math.ceil(high / step - _TOLERANCE)
    ticks = [_exact(index, step) for index in range(first, last + 1)]
    if not fixed:
        low, high = ticks[0], ticks[-1]
    shown = [value for value in ticks if low - step * _TOLERANCE <= value <= high + step * _TOLERANCE]
    return Axis(low, high, start, end, tuple(Tick(value, tick_text(value, step)) for value in shown))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Least and greatest value, moved apart if they are the same."""
    if not all(math.isfinite(value) for value in values):
        raise ValueError("an axis needs finite numbers; leave an undefined value out and say why")
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= abs(high) * 1e-12:
        margin = abs(high) / 2 or 1.0
        low, high = low - margin, high + margin
    if not math.isfinite(high - low):
        raise ValueError(f"{low:g} … {high:g} is too wide for an axis")
    return float(low), float(high)


def _exact(index: int, step: float) -> float:
    """index * step without the dust of binary fractions: 3 * 0.1 is 0.3."""
    return float(index * Decimal(repr(float(f"{step:.6g}"))))


def tick_text(value: float, step: float) -> str:
    """As many decimals as the step needs; powers of ten where digits would only be counted."""
    if value and (abs(value) >= 1e6 or step < 1e-4):
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-").replace("-", "−")
    digits = max(0, -Decimal(repr(float(f"{step:.6g}"))).normalize().as_tuple().exponent)  # type: ignore[operator]
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def logarithmic(values: Sequence[float], start: float, end: float, *, n: int = 6, fixed: bool = False) -> Axis:
    """An axis of powers of ten, with 2 and 5 between them where they are few.

    `fixed` as in `linear`. ValueError for values that are not finite or not above zero.
    """
    if any(value <= 0 for value in values):
        raise ValueError(f"a logarithmic axis needs numbers above 0, got {min(values):g}")
    low, high = _range(values) if values else (1.0, 10.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    mantissas = (1,) if last - first > 3 else (1, 2, 5)
    every = max(1, math.ceil((last - first) / n))
    ticks = [float(f"{mantissa}e{power}") for power in range(first, last + 1, every) for mantissa in mantissas]
    below = max((tick for tick in ticks if tick <= low * (1 + _TOLERANCE)), default=low)
    above = min((tick for tick in ticks if tick >= high * (1 - _TOLERANCE)), default=high)
    if fixed:
        below, above = low, high
    shown = [tick for tick in ticks if below <= tick <= above]
    return Axis(below, above, start, end, tuple(Tick(tick, tick_text(tick, min(tick, 1.0))) for tick in shown), True)


def days(values: Sequence[float], start: float, end: float, *, n: int = 5) -> Axis:
    """An axis of days, given as `date.toordinal()`, from the first to the last; ticks on whole days or months."""
    low, high = _range(values)
    if values and min(values) == max(values):
        low, high = min(values) - 1.0, min(values) + 1.0
    first, last = math.floor(low), math.ceil(high)
    for step in DAY_STEPS:
        if (last - first) / step <= n:
            found = list(range(first, last + 1, step))
            break
    else:
        found = _months(first, last, n)
    ticks = tuple(Tick(float(day), date.fromordinal(day).isoformat()) for day in found)
    return Axis(float(first), float(last), start, end, ticks)


def _months(first: int, last: int, n: int) -> list[int]:
    """The first days of every month, second month, …: the closest that are at most n + 1."""
    one, other = date.fromordinal(first), date.fromordinal(last)
    start, end = one.year * 12 + one.month - 1, other.year * 12 + other.month - 1
    step = next((step for step in MONTH_STEPS if (end - start) / step <= n), MONTH_STEPS[-1])
    months = [month for month in range(start, end + 1) if month % step == 0]
    found = [date(month // 12, month % 12 + 1, 1).toordinal() for month in months]
    return [day for day in found if first <= day <= last] or [first, last]
