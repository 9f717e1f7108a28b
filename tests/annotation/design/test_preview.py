"""The preview says in numbers what a researcher signs for."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from annotation.design.compile import Design, DesignSpec, compile_design
from annotation.design.preview import PayTerms, PreviewWarning, preview_design

PAPER_PAY = PayTerms(Decimal("0.418"), "USD", seconds_per_response=180, floor_per_hour=Decimal("8.36"))


def preview_of(design, item_characters=100, response_characters=50, pay=PAPER_PAY, **kwargs):
    spec = design.spec
    return preview_design(
        design,
        item_characters=np.full(spec.n_items, item_characters),
        response_characters=np.full((spec.n_items, spec.n_systems), response_characters),
        pay=pay,
        **kwargs,
    )


def paper_spec(**changes) -> DesignSpec:
    """SoulChat (2023): 2 datasets of 100 dialogues, 4 systems, 3 experts who rate everything."""
    groups = (0,) * 100 + (1,) * 100
    spec = DesignSpec(n_items=200, n_systems=4, n_raters=3, raters_per_item=3, seed=2311, item_groups=groups)
    return replace(spec, **changes)


def test_the_papers_study_costs_what_the_paper_paid():
    preview = preview_of(compile_design(paper_spec(repeat_share=0)))
    assert preview.coverage.n_placements == 2400
    assert (preview.coverage.min_raters, preview.coverage.max_raters, preview.coverage.n_missing) == (3, 3, 0)
    assert [row.n_placements for row in preview.raters] == [800] * 3
    assert [row.expected_hours for row in preview.raters] == [40.0] * 3
    assert [row.cost for row in preview.raters] == [Decimal("334.40")] * 3
    assert [row.hourly_pay for row in preview.raters] == [Decimal("8.36")] * 3
    assert preview.total_cost == Decimal("1003.20")
    assert (preview.position.counts == 150).all()
    assert (preview.position.deviation, preview.neighbour.deviation) == (0, 0)
    assert (preview.sequence_counts == 50).all()
    assert preview.sequences.shape == (4, 4)
    assert preview.warnings == ()


def test_repeats_come_on_top_and_are_paid():
    preview = preview_of(compile_design(paper_spec()))
    assert preview.coverage.n_placements == 2400 + 120
    assert preview.coverage.n_repeats == 120
    assert [(row.n_items, row.n_repeats) for row in preview.raters] == [(200, 40)] * 3
    assert preview.raters[0].cost == Decimal("0.418") * 840
    assert (preview.position.counts == 150).all()  # repeats measure the rater, so balance leaves them out


def tiny_design(**changes) -> Design:
    """Two items, two systems, one rater who reads item 1 (systems 1, 0) and then item 0 (systems 1, 0)."""
    spec = DesignSpec(n_items=2, n_systems=2, n_raters=1, raters_per_item=1, seed=0, is_sensitive=(True, False))
    columns = {
        "rater": np.zeros(4, dtype=np.int64),
        "item": np.array([1, 1, 0, 0]),
        "system": np.array([1, 0, 1, 0]),
        "slot": np.array([0, 1, 0, 1]),
        "position": np.arange(4),
        "is_repeat": np.zeros(4, dtype=np.bool_),
    }
    return Design(spec=spec, **(columns | changes))


def test_a_tiny_design_by_hand():
    preview = preview_design(
        tiny_design(),
        item_characters=np.array([300, 600]),
        response_characters=np.array([[150, 150], [300, 0]]),
        pay=PayTerms(Decimal("0.10"), "CNY", seconds_per_response=60, floor_per_hour=Decimal("7")),
        characters_per_minute=300,
    )
    assert preview.position.counts.tolist() == [[0, 2], [2, 0]]
    assert (preview.position.even, preview.position.deviation) == (1.0, 1.0)
    assert preview.neighbour.counts.tolist() == [[0, 0], [2, 0]]
    assert (preview.neighbour.even, preview.neighbour.deviation) == (1.0, 1.0)
    assert preview.sequences.tolist() == [[1, 0]]
    assert preview.sequence_counts.tolist() == [[2]]
    (row,) = preview.raters
    # Item 0 takes (300 + 150 + 150) / 300 = 2 minutes, item 1 takes (600 + 300) / 300 = 3; 4 minutes are paid.
    assert row.reading_hours == pytest.approx(5 / 60)
    assert row.expected_hours == pytest.approx(5 / 60)
    assert row.cost == Decimal("0.40")
    assert row.hourly_pay == Decimal("4.8")
    assert row.sensitive_run == preview.longest_sensitive_run == 1
    assert preview.warnings == (
        PreviewWarning("position_imbalance", {"deviation": 1.0, "even": 1.0}),
        PreviewWarning("neighbour_imbalance", {"deviation": 1.0, "even": 1.0}),
        PreviewWarning(
            "reading_time_exceeds_paid_time",
            {"n_items": 1, "longest_item": 1, "reading_seconds": 180.0, "paid_seconds": 120},
        ),
        PreviewWarning(
            "pay_below_floor",
            {"n_raters": 1, "lowest_hourly_pay": Decimal("4.8"), "floor_per_hour": Decimal("7")},
        ),
    )


def test_what_is_missing_is_counted():
    design = tiny_design(item=np.array([1, 1, 1, 1]))
    assert PreviewWarning("missing_ratings", {"n_missing": 2}) in preview_of(design).warnings


def test_an_interleaved_dialogue_is_read_once_per_response():
    blocked = preview_of(compile_design(paper_spec(repeat_share=0)))
    interleaved = preview_of(compile_design(paper_spec(repeat_share=0, presentation="interleaved")))
    assert blocked.raters[0].reading_hours == pytest.approx(200 * (100 + 4 * 50) / 300 / 60)
    assert interleaved.raters[0].reading_hours == pytest.approx(200 * 4 * (100 + 50) / 300 / 60)


def test_sensitive_items_that_cannot_be_parted_are_reported():
    preview = preview_of(compile_design(paper_spec(is_sensitive=(True,) * 200, repeat_share=0)))
    assert preview.longest_sensitive_run == 200
    assert PreviewWarning("sensitive_run", {"n_raters": 3, "longest": 200, "limit": 2}) in preview.warnings


def test_repeats_that_do_not_fit_are_reported():
    spec = DesignSpec(n_items=12, n_systems=2, n_raters=1, raters_per_item=1, seed=0, presentation="interleaved")
    assert (
        PreviewWarning("repeats_left_out", {"n_wanted": 1, "n_given": 0}) in preview_of(compile_design(spec)).warnings
    )


def test_a_rater_without_work_costs_nothing():
    spec = DesignSpec(n_items=1, n_systems=1, n_raters=2, raters_per_item=1, seed=0)
    idle = next(row for row in preview_of(compile_design(spec)).raters if row.n_items == 0)
    assert (idle.cost, idle.hourly_pay, idle.expected_hours, idle.sensitive_run) == (0, None, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_characters": np.array([1])}, r"expected \(2,\)"),
        ({"response_characters": np.array([[1, 1]])}, r"expected \(2, 2\)"),
        ({"characters_per_minute": 0}, "more than 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes, message):
    fitting = {"item_characters": np.array([1, 1]), "response_characters": np.ones((2, 2), dtype=int), "pay": PAPER_PAY}
    with pytest.raises(ValueError, match=message):
        preview_design(tiny_design(), **(fitting | changes))


@pytest.mark.parametrize(
    "terms",
    [(Decimal(-1), "USD", 180, Decimal(0)), (Decimal(1), "USD", 0, Decimal(0)), (Decimal(1), "USD", 9, Decimal(-1))],
)
def test_pay_terms_that_make_no_sense_are_refused(terms):
    with pytest.raises(ValueError):
        PayTerms(*terms)
