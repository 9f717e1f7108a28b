"""Ticks are round, few and cover the values; places are where arithmetic says."""

from __future__ import annotations

import math
from datetime import date
from random import Random

import pytest

from annotation.figures import axes


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0, 1), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((0, 97), ["0", "20", "40", "60", "80", "100"]),
        ((-0.31, 0.44), ["−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6"]),
        ((1.9, 2.1), ["1.90", "1.95", "2.00", "2.05", "2.10"]),
        ((0, 3e7), ["0", "1e7", "2e7", "3e7"]),
        ((), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((5, 5), ["2", "3", "4", "5", "6", "7", "8"]),
    ],
)
def test_ticks_are_what_a_person_would_write(values, texts):
    n = 6 if values == (5, 5) else 5
    assert [tick.text for tick in axes.linear(values, 0, 100, n=n).ticks] == texts


def test_any_range_gets_few_round_ticks_that_cover_it():
    rng = Random(7)
    for _ in range(2000):
        low = rng.uniform(-1, 1) * 10 ** rng.randint(-6, 6)
        high = low + rng.random() * 10 ** rng.randint(-6, 6) + 1e-9 * abs(low)
        axis = axes.linear((low, high), 0, 100)
        step = axis.ticks[1].value - axis.ticks[0].value
        assert axis.low <= low + 1e-8 * step and high <= axis.high + 1e-8 * step, (low, high)
        assert 2 <= len(axis.ticks) <= 6, (low, high)
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5)) < 1e-5, (low, high, step)
        places = [axis.at(tick.value) for tick in axis.ticks]
        assert (places[0], places[-1]) == pytest.approx((0, 100)) and places == sorted(places)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1, 2), ["1", "2"]),
        ((1, 3), ["1", "2", "3"]),
        ((5, 5), ["4", "6"]),
        ((1, 12), ["5", "10"]),  # not 2.5, 5.0, 7.5
        ((1, 30_000), ["10000", "20000", "30000"]),
    ],
)
def test_what_is_counted_has_whole_ticks_however_few_there_are(values, texts):
    assert [tick.text for tick in axes.linear(values, 0, 100, fixed=True, whole=True).ticks] == texts


def test_tick_texts_are_as_exact_as_the_ticks():
    axis = axes.linear((0.1, 0.7), 0, 1)
    assert [float(tick.text) for tick in axis.ticks] == [tick.value for tick in axis.ticks]


def test_a_logarithmic_axis_gives_each_power_of_ten_the_same_length():
    axis = axes.logarithmic((1, 1000), 0, 300)
    assert [axis.at(value) for value in (1, 10, 100, 1000)] == pytest.approx([0, 100, 200, 300])
    assert [tick.text for tick in axis.ticks if tick.value in (1, 10, 100, 1000)] == ["1", "10", "100", "1000"]
    assert [tick.text for tick in axes.logarithmic((0.03, 0.4), 0, 1).ticks] == ["0.02", "0.05", "0.1", "0.2", "0.5"]


def test_a_logarithmic_axis_may_end_where_the_values_end():
    axis = axes.logarithmic((1, 30_000), 0, 100, fixed=True)
    assert (axis.low, axis.high, axis.at(30_000)) == (1, 30_000, 100)
    assert [tick.text for tick in axis.ticks][-1] == "10000"


@pytest.mark.parametrize("values", [(0, 1), (-2, 5)])
def test_a_logarithmic_axis_refuses_what_has_no_logarithm(values):
    with pytest.raises(ValueError, match="above 0"):
        axes.logarithmic(values, 0, 1)


@pytest.mark.parametrize("values", [(math.nan, 1), (0, math.inf), (-1.7e308, 1.7e308)])
@pytest.mark.parametrize("make", [axes.linear, axes.days])
def test_an_axis_refuses_what_is_no_number(make, values):
    with pytest.raises(ValueError, match=r"finite|too wide"):
        make(values, 0, 1)


def test_days_have_ticks_on_whole_weeks_or_first_days_of_months():
    start = date(2026, 5, 14).toordinal()
    weeks = axes.days((start, start + 24), 0, 1)
    assert [tick.text for tick in weeks.ticks] == ["2026-05-14", "2026-05-21", "2026-05-28", "2026-06-04"]
    years = axes.days((start, start + 900), 0, 1)
    assert [tick.text for tick in years.ticks] == ["2026-07-01", "2027-01-01", "2027-07-01", "2028-01-01", "2028-07-01"]
    assert [tick.text for tick in axes.days((start,), 0, 1).ticks] == ["2026-05-13", "2026-05-14", "2026-05-15"]
