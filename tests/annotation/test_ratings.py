"""A rating is saved exactly once, whatever the network does."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from django.urls import reverse
from django.utils import timezone

from annotation.errors import DomainError, Incomplete, NotFound, OffScale, StaleRevision, StudyClosed
from annotation.models import Member, Placement, Rating, RatingEvent, Study
from annotation.selectors.rater import card, next_card, previous_card
from annotation.services import ratings as service
from annotation.services.ratings import Change, answer_notice, submit_rating
from tests import factories

ALL = {"content": 2, "empathy": 1, "helpfulness": 0, "safety": 1}


def change(**fields) -> Change:
    return Change(**({"op_id": uuid.uuid4(), "base_rev": 0, "scores": ALL, "is_final": True} | fields))


@pytest.fixture
def placement(rater) -> Placement:
    return Placement.objects.of(rater).open().in_order().first()


def save(rater, placement, **fields):
    return submit_rating(user=rater.user, public_id=placement.public_id, change=change(**fields))


def stored(placement) -> dict[str, int]:
    return dict(Rating.objects.filter(placement=placement).values_list("dimension__key", "value"))


def test_it_stores_every_score_with_one_event_and_counts_it(rater, placement):
    saved = save(rater, placement, note="hm", is_flagged=True)
    assert (saved.rev, saved.is_final, saved.n_done) == (1, True, 1)
    assert stored(placement) == ALL
    event = RatingEvent.objects.get()
    assert (event.scores, event.note, event.is_flagged, event.rev) == (ALL, "hm", True, 1)
    rater.refresh_from_db()
    assert (rater.n_final, rater.n_flagged) == (1, 1)


def test_a_draft_may_be_partial_and_shrink(rater, placement):
    save(rater, placement, scores={"content": 2, "safety": 1}, is_final=False)
    save(rater, placement, scores={"content": 0}, is_final=False, base_rev=1)
    assert stored(placement) == {"content": 0}
    rater.refresh_from_db()
    assert rater.n_final == 0


def test_the_same_operation_again_gets_the_same_answer_and_writes_nothing(rater, placement):
    op = change()
    first = submit_rating(user=rater.user, public_id=placement.public_id, change=op)
    again = submit_rating(user=rater.user, public_id=placement.public_id, change=op)
    assert (again.rev, again.op_id, again.is_final, again.n_done) == (first.rev, first.op_id, True, 1)
    assert again.is_resend and not first.is_resend
    assert RatingEvent.objects.count() == 1
    rater.refresh_from_db()
    assert rater.n_final == 1


def test_a_late_resend_does_not_undo_a_later_save(rater, placement):
    first = change()
    submit_rating(user=rater.user, public_id=placement.public_id, change=first)
    save(rater, placement, scores=ALL | {"content": 0}, base_rev=1)
    submit_rating(user=rater.user, public_id=placement.public_id, change=first)
    assert stored(placement)["content"] == 0
    assert RatingEvent.objects.count() == 2


def test_a_stale_revision_is_refused_with_the_current_state(rater, placement):
    save(rater, placement)
    with pytest.raises(StaleRevision) as refused:
        save(rater, placement, scores=ALL | {"content": 0})
    assert refused.value.detail["current"]["scores"] == ALL
    assert refused.value.detail["current"]["rev"] == 1
    assert stored(placement) == ALL


def test_an_operation_id_serves_one_placement_only(rater, placement):
    other = Placement.objects.of(rater).open().in_order()[1]
    op = change()
    submit_rating(user=rater.user, public_id=placement.public_id, change=op)
    with pytest.raises(DomainError):
        submit_rating(user=rater.user, public_id=other.public_id, change=op)
    assert not stored(other)


def test_a_final_rating_stays_final_when_revised(rater, placement):
    save(rater, placement)
    saved = save(rater, placement, scores=ALL | {"empathy": 2}, base_rev=1, is_final=False)
    assert saved.is_final
    assert stored(placement)["empathy"] == 2
    with pytest.raises(Incomplete):
        save(rater, placement, scores={"content": 1}, base_rev=2, is_final=False)


@pytest.mark.parametrize(
    "scores",
    [{"content": 3}, {"content": -1}, {"safety": 2}, {"content": True}, {"content": 1.0}, {"content": "1"}, {"x": 1}],
)
def test_a_score_off_the_scale_is_refused(rater, placement, scores):
    with pytest.raises(OffScale):
        save(rater, placement, scores=ALL | scores)
    assert not RatingEvent.objects.exists()


def test_even_the_database_refuses_a_value_off_the_scale(rater, placement):
    safety = rater.study.rubric.dimensions.get(key="safety")
    with pytest.raises(IntegrityError, match="rating_is_on_its_scale"), transaction.atomic():
        Rating.objects.create(placement=placement, dimension=safety, value=2)


def test_final_with_a_gap_names_what_is_missing(rater, placement):
    with pytest.raises(Incomplete) as refused:
        save(rater, placement, scores={"content": 1})
    assert set(refused.value.detail["missing"]) == {"empathy", "helpfulness", "safety"}


def test_someone_elses_placement_does_not_exist(second_rater, placement, stranger):
    for user in (second_rater.user, stranger):
        with pytest.raises(NotFound):
            submit_rating(user=user, public_id=placement.public_id, change=change())


@pytest.mark.parametrize("state", ["paused", "closed"])
def test_nothing_is_saved_in_a_study_that_is_not_open(rater, placement, state):
    Study.objects.filter(pk=rater.study_id).update(state=state)
    with pytest.raises(StudyClosed):
        save(rater, placement)
    assert not RatingEvent.objects.exists()


def test_a_withdrawn_rater_saves_nothing_more(rater, placement):
    Member.objects.filter(pk=rater.pk).update(withdrawn_at=timezone.now())
    with pytest.raises(StudyClosed):
        save(rater, placement)


@pytest.mark.parametrize("place", ["bulk_create", "create"])
def test_a_failure_after_the_first_write_leaves_nothing_behind(rater, placement, monkeypatch, place):
    """The database is locked or gone in the middle: the whole save is undone, and the resend then succeeds."""
    op = change()

    def fail(*args, **kwargs):
        raise OSError("database is locked")

    manager = Rating.objects if place == "bulk_create" else RatingEvent.objects
    with monkeypatch.context() as patched:
        patched.setattr(type(manager), place, fail)
        with pytest.raises(OSError, match="locked"):
            submit_rating(user=rater.user, public_id=placement.public_id, change=op)
    placement.refresh_from_db()
    assert (placement.rev, placement.state) == (0, Placement.State.OPEN)
    assert not stored(placement) and not RatingEvent.objects.exists()
    assert submit_rating(user=rater.user, public_id=placement.public_id, change=op).rev == 1


def test_active_time_never_exceeds_the_time_that_has_passed(rater, placement):
    start = timezone.now()
    service.mark_shown(rater, card(rater, placement.public_id))
    placement.refresh_from_db()
    with time_machine.travel(start + timedelta(seconds=60), tick=False):
        save(rater, placement, active_ms=3_600_000)
    placement.refresh_from_db()
    assert 55_000 <= placement.active_ms <= 61_000


def test_events_are_append_only(rater, placement):
    save(rater, placement)
    for act in (lambda: RatingEvent.objects.update(rev=9), lambda: RatingEvent.objects.all().delete()):
        with pytest.raises(IntegrityError, match="rating_events_are_append_only"), transaction.atomic():
            act()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite lets one writer in at a time")
@pytest.mark.django_db(transaction=True)
def test_of_two_tabs_at_once_the_second_is_told_what_stands(rater, placement):
    """The other tab's save is not committed yet when this one has looked, and is when this one writes."""
    answers = []

    def other_tab():
        try:
            save(rater, placement, scores=ALL | {"content": 0})
        except DomainError as refused:
            answers.append(refused)
        finally:
            connection.close()

    thread = threading.Thread(target=other_tab)
    with transaction.atomic():
        save(rater, placement)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # it waits for this transaction
    thread.join()
    assert [type(answer) for answer in answers] == [StaleRevision]
    assert stored(placement) == ALL and RatingEvent.objects.count() == 1


class TestTheQueue:
    def test_next_follows_the_plan_and_ends(self, rater):
        plan = [str(p) for p in Placement.objects.of(rater).order_by("position").values_list("public_id", flat=True)]
        seen = []
        while shown := next_card(rater):
            seen.append(shown.public_id)
            submit_rating(user=rater.user, public_id=uuid.UUID(shown.public_id), change=change())
        assert seen == plan

    def test_what_the_browser_holds_is_not_sent_again(self, rater):
        first = next_card(rater)
        second = next_card(rater, besides=(uuid.UUID(first.public_id),))
        assert second.public_id != first.public_id

    def test_previous_is_the_one_rated_before(self, rater, placement):
        assert previous_card(rater, placement.public_id) is None
        save(rater, placement)
        following = next_card(rater)
        before = previous_card(rater, uuid.UUID(following.public_id))
        assert (before.public_id, before.scores, before.is_final) == (str(placement.public_id), ALL, True)

    def test_a_card_holds_the_allow_list_and_nothing_else(self, rater, placement):
        assert set(card(rater, placement.public_id).to_json()) == {
            "public_id", "slot", "text", "turns", "n_slots", "rev", "is_final", "is_flagged", "scores", "note",
            "notice",
        }  # fmt: skip


class TestContentNotice:
    @pytest.fixture
    def sensitive(self, researcher) -> Member:
        study = factories.make_study(researcher=researcher)
        first = study.study_items.first().item
        first.risks = ["self_harm"]
        first.save()
        opened = factories.open_for_rating(study, by=researcher)
        return opened.members.raters().first()

    def waiting(self, rater) -> Placement:
        placements = Placement.objects.of(rater).exclude(assignment__study_item__item__risks=[])
        return placements.filter(slot=0).first()

    def test_the_text_stays_away_until_it_is_opened(self, sensitive):
        placement = self.waiting(sensitive)
        closed = card(sensitive, placement.public_id).to_json()
        assert closed["notice"] == ["self_harm"] and "text" not in closed and "turns" not in closed
        answer_notice(user=sensitive.user, public_id=placement.public_id, answer="open")
        assert card(sensitive, placement.public_id).response is not None

    def test_skipping_is_counted_as_done_and_cannot_be_rated(self, sensitive):
        placement = self.waiting(sensitive)
        answer_notice(user=sensitive.user, public_id=placement.public_id, answer="skip")
        sensitive.refresh_from_db()
        assert sensitive.n_final == 4
        with pytest.raises(StaleRevision):
            submit_rating(user=sensitive.user, public_id=placement.public_id, change=change())
        answer_notice(user=sensitive.user, public_id=placement.public_id, answer="skip")
        sensitive.refresh_from_db()
        assert sensitive.n_final == 4

    def test_later_puts_the_whole_item_at_the_end_in_order(self, sensitive):
        placement = self.waiting(sensitive)
        answer_notice(user=sensitive.user, public_id=placement.public_id, answer="later")
        last = list(Placement.objects.of(sensitive).order_by("-queue").values_list("assignment", "slot")[:4])
        assert last == [(placement.assignment_id, slot) for slot in (3, 2, 1, 0)]


class TestTheCostOfARating:
    """Statements per request: what the benchmark's figures rest on. One more is a decision, not an accident."""

    SAVE = {"scores": ALL, "is_final": True, "active_ms": 0, "hidden_ms": 0, "idle_ms": 0}

    @pytest.fixture
    def browser(self, rater, as_user):
        client = as_user(rater.user)
        self.next(client, rater)  # what a process learns once: criteria and number of slots
        service.dimensions(rater.study)
        return client

    def next(self, client, rater, **holding):
        answer = client.get(reverse("api_next", args=[rater.public_id]), holding)
        assert answer.status_code == 200
        return answer.json()["card"]

    def put(self, client, shown, **fields):
        body = self.SAVE | {"op_id": str(uuid.uuid4()), "base_rev": 0} | fields
        answer = client.put(reverse("api_rating", args=[shown["public_id"]]), body, content_type="application/json")
        assert answer.status_code == 200
        return answer.json()

    def test_next(self, rater, browser, django_assert_num_queries):
        shown = self.next(browser, rater)
        Placement.objects.filter(public_id=shown["public_id"]).update(shown_at=None)
        with django_assert_num_queries(5):  # session, person, seat, card, note that it was shown
            self.next(browser, rater)
        with django_assert_num_queries(4):
            self.next(browser, rater)

    def test_save(self, rater, browser, django_assert_num_queries):
        shown = self.next(browser, rater)
        with django_assert_num_queries(
            9
        ):  # session, person, placement; begin, revision, values, event, counters, commit
            self.put(browser, shown)

    def test_save_that_brings_the_next_card(self, rater, browser, django_assert_num_queries):
        shown = self.next(browser, rater)
        held = self.next(browser, rater, holding=shown["public_id"])
        with django_assert_num_queries(11):  # the same, with card and note inside the one transaction
            answer = self.put(browser, shown, holding=[held["public_id"]])
        assert answer["next"]["public_id"] not in (shown["public_id"], held["public_id"])
        assert Placement.objects.get(public_id=answer["next"]["public_id"]).shown_at is not None
        again = self.put(browser, shown, op_id=answer["op_id"], holding=[held["public_id"]])
        assert again["next"] == answer["next"]
