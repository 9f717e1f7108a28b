"""The verifier of the load benchmark notices what it is there to notice."""

from __future__ import annotations

import uuid

import pytest
from django.db.models import F

from annotation.models import Assignment, Member, Placement, Rating, RatingEvent
from annotation.services.ratings import Change, submit_rating
from benchmarks.verify import verify
from tests import factories

ALL = {"content": 2, "empathy": 1, "helpfulness": 0, "safety": 1}


@pytest.fixture
def ledger(rater) -> list[dict]:
    """Three ratings, acknowledged and kept."""
    return [save(rater, placement) for placement in Placement.objects.of(rater).open().in_order()[:3]]


def save(rater, placement, base_rev: int = 0) -> dict:
    change = Change(op_id=uuid.uuid4(), base_rev=base_rev, scores=ALL, is_final=True)
    saved = submit_rating(user=rater.user, public_id=placement.public_id, change=change)
    return entry(placement, op_id=change.op_id, rev=saved.rev, base_rev=base_rev)


def entry(placement, *, op_id=None, rev=1, base_rev=0, outcome="acknowledged") -> dict:
    return {
        "placement": str(placement.public_id),
        "op_id": str(op_id or uuid.uuid4()),
        "base_rev": base_rev,
        "scores": ALL,
        "rev": rev,
        "outcome": outcome,
    }


def placement_of(line: dict) -> Placement:
    return Placement.objects.get(public_id=line["placement"])


def test_a_whole_database_is_clean(rater, ledger):
    refused = entry(placement_of(ledger[0]), outcome="refused", rev=None)
    revised = save(rater, placement_of(ledger[1]), base_rev=1)
    verdict = verify([*ledger, refused, revised])
    assert verdict.is_clean
    assert (verdict.n_acknowledged, verdict.n_refused, verdict.n_stored) == (4, 1, 4)


def test_an_acknowledged_save_that_is_not_there_is_lost(rater, ledger):
    missing = entry(Placement.objects.of(rater).open().first())
    assert verify([*ledger, missing]).lost == [missing["op_id"]]


def test_a_save_that_was_never_sent_is_doubled(rater, ledger):
    assert verify(ledger[:2]).doubled == [ledger[2]["op_id"]]


def test_a_refused_save_that_was_written_is_doubled(ledger):
    ledger[0]["outcome"] = "refused"
    assert verify(ledger).doubled == [ledger[0]["op_id"]]


def test_values_of_a_placement_that_nobody_saved_are_doubled(rater, ledger):
    untouched = Placement.objects.of(rater).open().first()
    Rating.objects.create(placement=untouched, dimension=rater.study.rubric.dimensions.first(), value=1)
    assert verify(ledger).doubled == [str(untouched.pk)]


def test_a_second_event_for_one_save_is_noticed(ledger):
    placement = placement_of(ledger[0])
    RatingEvent.objects.create(op_id=uuid.uuid4(), placement=placement, rev=2, scores=ALL, state=2)
    verdict = verify(ledger)
    assert verdict.doubled and verdict.gaps == [str(placement.public_id)]


def test_another_value_than_was_sent_is_altered(ledger):
    ledger[0]["scores"] = ALL | {"content": 0}
    Rating.objects.filter(placement=placement_of(ledger[1]), dimension__key="content").update(value=0)
    assert verify(ledger).altered == [ledger[0]["op_id"], ledger[1]["placement"]]


def test_a_standing_value_that_vanished_is_altered(ledger):
    Rating.objects.filter(placement=placement_of(ledger[2]), dimension__key="safety").delete()
    assert verify(ledger).altered == [ledger[2]["placement"]]


def test_a_revision_that_was_skipped_is_a_gap(ledger):
    Placement.objects.filter(public_id=ledger[0]["placement"]).update(rev=2)
    assert verify(ledger).gaps == [ledger[0]["placement"]]


@pytest.mark.parametrize("counter", ["n_final", "n_flagged", "active_ms"])
def test_a_counter_that_is_off_by_one_is_miscounted(rater, ledger, counter):
    Member.objects.filter(pk=rater.pk).update(**{counter: F(counter) + 1})
    assert verify(ledger).miscounted == [str(rater.public_id)]


def test_a_rater_too_many_is_above_plan(researcher):
    study = factories.make_study(researcher=researcher, n_raters=2, raters_per_item=1)
    first, second = factories.open_for_rating(study, by=researcher).members.raters()
    planned = Placement.objects.of(first).open().first()
    extra = Placement.objects.create(
        assignment=Assignment.objects.create(rater=second, study_item=planned.assignment.study_item),
        rater=second,
        study_response=planned.study_response,
        slot=0,
        position=999,
        queue=999,
    )
    saved = [save(first, planned)]
    assert verify(saved).above_plan == [str(second.public_id)]  # a placement more than planned
    saved.append(save(second, extra))
    assert verify(saved).above_plan == [str(second.public_id), str(planned.assignment.study_item_id)]
