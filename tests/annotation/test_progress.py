"""How far raters are, how they work, and what it brings them an hour."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.cache import cache
from django.db.models import F, Sum
from django.utils import timezone

from annotation import progress
from annotation.models import Member, Placement, Rating, StudyItem
from annotation.progress import Tally, study_progress
from tests import factories

pytestmark = pytest.mark.django_db

VECTORS = [(0, 1, 2, 1), (2, 2, 1, 1), (1, 0, 0, 0)]


@pytest.fixture
def two_datasets(researcher):
    """An open study of 6 + 4 items, 3 systems, 2 raters; everybody rates everything."""
    study = factories.make_study(researcher=researcher, n_items=6, n_systems=3, n_raters=2, repeat_percent=0)
    other = factories.make_dataset(name="Second")
    for number in range(7, 11):
        item = factories.make_item(other)
        StudyItem.objects.create(study=study, item=item, number=number)
        for arm in study.arms.all():
            factories.make_response(item, arm.system)
    return factories.open_for_rating(study, by=researcher)


def rate(rater: Member, n: int, *, active=lambda i: 60_000, vector=lambda i: VECTORS[i % 3], idle_ms=0, flagged=()):
    """Make the next n placements of a queue final, and bring the seat's counters up to date, as a save does."""
    dimensions = list(rater.study.rubric.dimensions.order_by("order"))
    for i, placement in enumerate(Placement.objects.of(rater).open().in_order()[:n]):
        Placement.objects.filter(pk=placement.pk).update(
            state=Placement.State.FINAL, rev=1, active_ms=active(i), idle_ms=idle_ms, is_flagged=i in flagged,
            submitted_at=timezone.now() + timedelta(seconds=i),
        )  # fmt: skip
        Rating.objects.bulk_create(
            Rating(placement=placement, dimension=dimension, value=value)
            for dimension, value in zip(dimensions, vector(i), strict=True)
        )
    own = Placement.objects.of(rater)
    Member.objects.filter(pk=rater.pk).update(
        n_final=own.done().count(),
        n_flagged=own.filter(is_flagged=True).count(),
        active_ms=own.aggregate(sum=Sum("active_ms"))["sum"],
        last_saved_at=timezone.now(),
    )


def row(study, number: int = 1) -> progress.RaterProgress:
    return study_progress(study).raters[number - 1]


def test_it_counts_by_rater_and_dataset(two_datasets):
    rate(two_datasets.members.raters()[0], 12, flagged={1, 2})
    page = study_progress(two_datasets)
    assert page.datasets[1] == "Second"
    assert [cell.n_total for cell in page.raters[0].cells] == [18, 12]
    assert sum(page.raters[0].cells, Tally()) == page.raters[0].total == Tally(30, 12, 2)
    assert page.raters[1].total == Tally(30, 0, 0)
    assert page.total == sum(page.columns, Tally()) == Tally(60, 12, 2)
    assert (page.total.n_left, page.total.percent) == (48, 20)
    assert progress.totals(two_datasets) == page.total


def test_a_single_dataset_is_counted_from_the_seats(open_study, rater):
    rate(rater, 3)
    assert row(open_study).cells == (row(open_study).total,)
    assert row(open_study).total.n_done == 3


def test_skipped_content_counts_as_done(two_datasets):
    first = two_datasets.members.raters()[0]
    Placement.objects.of(first).filter(queue__lt=3).update(state=Placement.State.SKIPPED)
    Member.objects.filter(pk=first.pk).update(n_final=3)
    done = row(two_datasets)
    assert sum(cell.n_done for cell in done.cells) == 3
    assert done.pace is None


def test_nobody_has_a_pace_before_the_first_rating(two_datasets):
    fresh = row(two_datasets)
    assert fresh.pace is None
    assert fresh.hourly_pay is None
    assert fresh.hours_left is None
    assert not fresh.is_below_floor


def test_pace_is_the_median_of_the_latest_twenty(two_datasets):
    first = two_datasets.members.raters()[0]
    rate(first, 25, active=lambda i: 600_000 if i < 5 else 30_000 + 1000 * i)
    pace = row(two_datasets).pace
    assert pace.n_recent == 25
    assert pace.median_seconds == pytest.approx((44 + 45) / 2)  # of 35 … 54 s
    assert row(two_datasets).hours_left == pytest.approx(5 * 44.5 / 3600)


def test_pace_follows_the_queue_also_when_an_item_was_put_off(two_datasets):
    first = two_datasets.members.raters()[0]
    Placement.objects.of(first).filter(queue__lt=3).update(queue=100)
    rate(first, 27, active=lambda i: 50_000)
    assert row(two_datasets).pace.n_recent == 27
    rate(first, 3, active=lambda i: 10_000)
    finished = row(two_datasets)
    assert finished.total.n_left == 0
    assert finished.pace.n_fast == 3


def test_idle_time_is_a_share_of_the_time_in_view(two_datasets):
    rate(two_datasets.members.raters()[0], 4, active=lambda i: 30_000, idle_ms=10_000)
    assert row(two_datasets).pace.idle_share == pytest.approx(0.25)
    assert row(two_datasets).pace.idle_percent == 25


@pytest.mark.parametrize(("n_same", "is_marked"), [(7, False), (8, True)])
def test_straight_lining_is_eight_in_a_row(two_datasets, n_same, is_marked):
    rate(
        two_datasets.members.raters()[0],
        16,
        vector=lambda i: (1, 1, 1, 1) if 4 <= i < 4 + n_same else VECTORS[i % 3],
    )
    pace = row(two_datasets).pace
    assert pace.longest_same == n_same
    assert pace.is_straight_lining is is_marked


def test_a_vector_that_differs_in_one_dimension_ends_the_run(two_datasets):
    rate(two_datasets.members.raters()[0], 12, vector=lambda i: (1, 1, 1, int(i % 5 > 0)))
    assert row(two_datasets).pace.longest_same == 4


def test_fast_is_less_than_a_quarter_of_the_own_median(two_datasets):
    first, second = two_datasets.members.raters()
    rate(first, 20, active=lambda i: 24_000 if i % 7 == 0 else 100_000)
    rate(second, 20, active=lambda i: 25_000 if i % 7 == 0 else 100_000)
    assert (row(two_datasets, 1).pace.n_fast, row(two_datasets, 1).pace.is_fast) == (3, True)
    assert (row(two_datasets, 2).pace.n_fast, row(two_datasets, 2).pace.is_fast) == (0, False)


@pytest.mark.parametrize(
    ("seconds", "pay", "is_below"), [(180, "8.36", False), (188, "8.00", False), (189, "7.96", True)]
)
def test_hourly_pay_stands_beside_the_floor(two_datasets, seconds, pay, is_below):
    """$0.418 a response: the floor of $8 an hour is crossed between 188 and 189 seconds (0.418 × 3600 / 8 = 188.1)."""
    rate(two_datasets.members.raters()[0], 10, active=lambda i: seconds * 1000)
    paid = row(two_datasets)
    assert paid.hourly_pay.quantize(Decimal("0.01")) == Decimal(pay)
    assert paid.is_below_floor is is_below
    assert study_progress(two_datasets).n_below_floor == int(is_below)


def test_flags_and_notes_are_listed_by_code(two_datasets):
    first, second = two_datasets.members.raters()
    rate(first, 5, flagged={2})
    rate(second, 5)
    noted = Placement.objects.of(second).done().first()
    Placement.objects.filter(pk=noted.pk).update(note="cut <b>off</b>", rev=2)
    found = list(progress.flags(two_datasets))
    assert {(flag.rater, flag.is_flagged, flag.note) for flag in found} == {
        ("R1", True, ""),
        ("R2", False, "cut <b>off</b>"),
    }
    assert all(flag.arm in "ABC" for flag in found)
    newest = found[0]
    assert [flag.pk for flag in progress.flags(two_datasets, before=newest.pk)] == [found[1].pk]


def test_a_large_study_counts_on_from_where_it_was(two_datasets, monkeypatch):
    cache.clear()
    first, second = two_datasets.members.raters()
    for n in (4, 0, 3, 9):  # what is remembered never differs from a fresh count, however the work goes on
        rate(first, n)
        rate(second, 2 * n)
        Placement.objects.of(first).open().filter(queue=F("position")).filter(slot=2).update(queue=F("queue") + 1000)
        fresh = study_progress(two_datasets)
        monkeypatch.setattr(progress, "REMEMBER_FROM", 1)
        assert study_progress(two_datasets).columns == fresh.columns
        monkeypatch.undo()
        assert sum(fresh.raters[0].cells, Tally()) == fresh.raters[0].total


def test_a_large_study_reads_only_what_is_new(two_datasets, monkeypatch):
    cache.clear()
    monkeypatch.setattr(progress, "REMEMBER_FROM", 1)
    rate(two_datasets.members.raters()[0], 12)
    known = study_progress(two_datasets)
    monkeypatch.setattr(progress, "_split", None)  # nothing moved: nothing is counted
    assert study_progress(two_datasets).columns == known.columns


def test_work_done_out_of_turn_is_counted(two_datasets):
    first = two_datasets.members.raters()[0]
    Placement.objects.of(first).filter(queue__in=[5, 9]).update(state=Placement.State.FINAL)
    Member.objects.filter(pk=first.pk).update(n_final=2)
    assert sum(cell.n_done for cell in row(two_datasets).cells) == 2


def test_the_number_of_queries_does_not_grow(two_datasets, django_assert_num_queries, researcher):
    for rater in two_datasets.members.raters():
        rate(rater, 20)
    with django_assert_num_queries(7):
        study_progress(two_datasets)
    larger = factories.make_study(researcher=researcher, n_items=5, n_systems=2, n_raters=6)
    item = factories.make_item(factories.make_dataset())
    StudyItem.objects.create(study=larger, item=item, number=6)
    for arm in larger.arms.all():
        factories.make_response(item, arm.system)
    factories.open_for_rating(larger, by=researcher)
    for rater in larger.members.raters():
        rate(rater, 8)
    with django_assert_num_queries(7):
        study_progress(larger)
