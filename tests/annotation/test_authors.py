"""Done is done; and then: who wrote this? Asked without a name, answered once, reported as blinding indices."""

from __future__ import annotations

import json
import threading
import uuid
from html import unescape

import pandas as pd
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from annotation.errors import DomainError, NotReady, StudyClosed
from annotation.models import AuditEvent, AuthorGuess, Member, Placement, Rating, Study
from annotation.reporting.datafiles import EXIT, Unreadable, data_files, read_data
from annotation.reporting.tables.people import blinding_table, recognition_table
from annotation.reports import report_state, study_data, study_report
from annotation.selectors.authors import author_draw, author_page
from annotation.services.authors import finish_rating, skip_author_questions, store_author_guesses
from annotation.services.raters import store_guess
from annotation.services.ratings import Change, answer_notice, submit_rating
from annotation.tables import exit_answers
from metrics.blinding import blinding_indices
from tests import factories
from tests.annotation.rated import rate, unblind, varied

pytestmark = pytest.mark.django_db
ALL = {"content": 2, "empathy": 1, "helpfulness": 0, "safety": 1}


@pytest.fixture
def study(researcher) -> Study:
    """Ten items by four systems: enough for two examples and eight questions."""
    return factories.make_study(researcher=researcher, n_items=10)


def rate_all(study: Study) -> None:
    rate(study, varied)
    Member.objects.filter(study=study, role="rater").update(n_final=F("n_placements"))


@pytest.fixture
def done(open_study, rater) -> Member:
    """The first rater, who has rated everything and said so."""
    rate_all(open_study)
    finish_rating(rater=rater)
    rater.refresh_from_db()
    return rater


def change(**fields) -> Change:
    return Change(**({"op_id": uuid.uuid4(), "base_rev": 1, "scores": ALL, "is_final": True} | fields))


def true_writers(rater: Member) -> dict[uuid.UUID, int]:
    """Response asked about ► number of the writer who did write it."""
    draw = author_draw(rater)
    asked = Placement.objects.filter(pk__in=draw.questions).select_related("study_response")
    return {p.public_id: draw.writers.index(p.study_response.arm_id) + 1 for p in asked}


# Done.


def test_done_needs_everything_rated(rater, as_user):
    with pytest.raises(NotReady, match="still to be rated"):
        finish_rating(rater=rater)
    page = as_user(rater.user).post(reverse("rater_finish", args=[rater.public_id]), follow=True)
    assert "Some responses are still to be rated." in page.content.decode()
    assert Member.objects.get(pk=rater.pk).finished_at is None


def test_done_is_said_once_and_stays(open_study, rater, as_user):
    rate_all(open_study)
    client = as_user(rater.user)
    assert "I am done" in client.get(reverse("rater_done", args=[rater.public_id])).content.decode()
    for _ in range(2):  # a double click
        page = client.post(reverse("rater_finish", args=[rater.public_id]), follow=True).content.decode()
        assert "Your ratings are final." in page
        assert "I am done" not in page
    assert AuditEvent.objects.filter(action="rater.finished").count() == 1
    finished_at = Member.objects.get(pk=rater.pk).finished_at
    with pytest.raises(IntegrityError, match="done_is_done"), transaction.atomic():
        Member.objects.filter(pk=rater.pk).update(finished_at=None)
    Member.objects.filter(pk=rater.pk).update(last_saved_at=timezone.now())  # everything else may still change
    assert Member.objects.get(pk=rater.pk).finished_at == finished_at


def test_a_seat_with_open_responses_cannot_be_done_in_the_database_either(rater):
    with pytest.raises(IntegrityError, match="finished_raters_have_rated_all"), transaction.atomic():
        Member.objects.filter(pk=rater.pk).update(finished_at=timezone.now())


def test_one_who_left_is_not_asked(open_study, rater):
    rate_all(open_study)
    Member.objects.filter(pk=rater.pk).update(withdrawn_at=timezone.now())
    with pytest.raises(StudyClosed):
        finish_rating(rater=rater)


def test_nothing_changes_any_more(done, as_user):
    placement = done.placements.order_by("queue").first()
    before = dict(placement.ratings.values_list("dimension__key", "value"))
    with pytest.raises(StudyClosed, match="You said that you are done"):
        submit_rating(user=done.user, public_id=placement.public_id, change=change())
    with pytest.raises(StudyClosed, match="You said that you are done"):
        answer_notice(user=done.user, public_id=placement.public_id, answer="later")
    client = as_user(done.user)
    answer = client.put(
        reverse("api_rating", args=[placement.public_id]),
        json.dumps({"op_id": str(uuid.uuid4()), "base_rev": 1, "scores": ALL, "is_final": True}),
        content_type="application/json",
    )
    assert (answer.status_code, answer.json()["code"]) == (423, "study_closed")
    assert "You said that you are done" in answer.json()["message"]
    address = reverse("rate_placement", args=[done.public_id, placement.public_id])
    assert client.get(address).url == reverse("rater_done", args=[done.public_id])
    page = client.post(address, {"op_id": uuid.uuid4(), "base_rev": 1, **ALL})
    assert page.status_code == 423
    assert "You said that you are done" in page.content.decode()
    assert dict(placement.ratings.values_list("dimension__key", "value")) == before


def test_a_resend_of_what_was_saved_before_is_still_acknowledged(open_study, rater):
    op = change(base_rev=0)
    placement = rater.placements.order_by("queue").first()
    submit_rating(user=rater.user, public_id=placement.public_id, change=op)
    rate_all(open_study)
    finish_rating(rater=rater)
    assert submit_rating(user=rater.user, public_id=placement.public_id, change=op).is_resend


@pytest.mark.parametrize("act", ["change", "remove", "add"])
def test_the_database_holds_the_ratings_of_those_who_are_done(done, second_rater, act):
    rating = Rating.objects.filter(placement__rater=done).first()
    with pytest.raises(IntegrityError, match="ratings_of_those_who_are_done_stay"), transaction.atomic():
        if act == "change":
            Rating.objects.filter(pk=rating.pk).update(value=0)
        elif act == "remove":
            rating.delete()
        else:
            Rating.objects.create(placement=rating.placement, dimension=rating.dimension, value=0)
    Rating.objects.filter(placement__rater=second_rater).update(value=0)  # nobody else's are held


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite lets one writer in at a time")
@pytest.mark.django_db(transaction=True)
def test_a_save_that_meets_the_last_word_is_refused_whole(open_study, rater):
    """The save has looked before "I am done" is committed, and counts after."""
    rate_all(open_study)
    placement, answers = rater.placements.order_by("queue").first(), []

    def save():
        answers.append(outcome(lambda: submit_rating(user=rater.user, public_id=placement.public_id, change=change())))

    before = dict(placement.ratings.values_list("dimension__key", "value"))
    thread = threading.Thread(target=save)
    with transaction.atomic():
        finish_rating(rater=rater)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # it waits for this transaction
    thread.join()
    assert [type(answer) for answer in answers] == [StudyClosed]
    assert dict(placement.ratings.values_list("dimension__key", "value")) == before
    assert placement.events.count() == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite lets one writer in at a time")
@pytest.mark.django_db(transaction=True)
def test_of_two_answers_at_once_one_counts(done):
    answers, writers = [], true_writers(done)
    guesses = (writers, dict.fromkeys(writers))
    threads = [
        threading.Thread(
            target=lambda given=given: answers.append(outcome(lambda: store_author_guesses(rater=done, guesses=given)))
        )
        for given in guesses
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, True]
    assert AuthorGuess.objects.count() == 8


def outcome(act):
    """What it returns or raises, in a thread of its own."""
    try:
        return act()
    except DomainError as refused:
        return refused
    finally:
        connection.close()


# The questions.


def test_each_writer_is_one_arm_and_no_dialogue_serves_twice(done):
    draw = author_draw(done)
    page = author_page(draw)
    arms = {p.public_id: p.study_response.arm_id for p in done.placements.select_related("study_response")}
    assert sorted(draw.writers) == sorted(done.study.arms.values_list("pk", flat=True))
    for row in page.examples:
        assert [arms[uuid.UUID(response.public_id)] for response in row] == list(draw.writers)
        assert len({response.turns for response in row}) == 1
    shown = [row[0].turns for row in page.examples] + [response.turns for response in page.questions]
    assert (len(page.examples), len(page.questions)) == (2, 8)
    assert len(set(shown)) == 10


def test_everybody_has_an_order_of_their_own_and_keeps_it(open_study):
    rate_all(open_study)
    raters = list(open_study.members.raters().select_related("study"))
    draws = [author_draw(rater) for rater in raters]
    assert draws == [author_draw(rater) for rater in raters]
    assert len({(draw.writers, draw.questions) for draw in draws}) == len(raters)


def test_hidden_repeats_and_skipped_dialogues_are_not_used(researcher):
    study = factories.make_study(researcher=researcher, n_items=8, repeat_percent=20)
    study = factories.open_for_rating(study, by=researcher)
    rater = study.members.raters().first()
    skipped = rater.assignments.filter(is_repeat=False).first().study_item
    first = rater.placements.filter(assignment__study_item=skipped).order_by("pk").first()
    Placement.objects.filter(pk=first.pk).update(state=Placement.State.SKIPPED)
    rate_all(study)
    draw = author_draw(rater)
    used = Placement.objects.filter(pk__in=[*draw.questions, *(pk for row in draw.examples for pk in row)])
    assert not used.filter(assignment__is_repeat=True).exists()
    assert not used.filter(assignment__study_item=skipped).exists()
    assert len(draw.questions) == 5


def test_the_page_asks_in_the_language_of_the_rater_and_by_random_ids(done, as_user):
    client = as_user(done.user)
    assert (
        reverse("rater_authors", args=[done.public_id])
        in client.get(reverse("rater_done", args=[done.public_id])).content.decode()
    )
    page = unescape(client.get(reverse("rater_authors", args=[done.public_id])).content.decode())
    asked = author_page(author_draw(done))
    for response in asked.questions:
        assert page.count(response.text) == 1
        assert page.count(f'name="{response.public_id}"') == 5  # four writers, and "I cannot tell"
    for row in asked.examples:
        assert all(page.count(response.text) == 1 for response in row)
        assert not any(response.public_id in page for response in row)
    assert page.count("<legend>Who wrote response") == 8
    done.user.language = "zh-hans"
    done.user.save()
    assert "这是谁写的" in client.get(reverse("rater_authors", args=[done.public_id])).content.decode()


def test_answers_become_arms_once(done, as_user):
    client = as_user(done.user)
    address = reverse("rater_authors", args=[done.public_id])
    writers = true_writers(done)
    answers = {str(public_id): str(n) for public_id, n in writers.items()}
    unsure = next(iter(answers))
    assert client.post(address, answers | {unsure: "none"}).url == reverse("rater_done", args=[done.public_id])
    assert client.post(address, dict.fromkeys(answers, "1")).status_code == 302  # the second click changes nothing
    guesses = AuthorGuess.objects.select_related("placement__study_response")
    assert guesses.count() == 8
    for guess in guesses:
        is_unsure = str(guess.placement.public_id) == unsure
        assert guess.arm_id == (None if is_unsure else guess.placement.study_response.arm_id)
    assert AuditEvent.objects.filter(action="rater.named_writers").count() == 1
    done.refresh_from_db()
    assert not store_author_guesses(rater=done, guesses=writers)
    assert not skip_author_questions(rater=done)
    page = client.get(reverse("rater_done", args=[done.public_id])).content.decode()
    assert address not in page
    for act in (lambda: guesses.update(arm=None), lambda: guesses.first().delete()):
        with pytest.raises(IntegrityError, match="author_guesses_are_append_only"), transaction.atomic():
            act()


def test_every_question_needs_an_answer_and_nothing_is_lost_on_the_way(done, as_user):
    answers = {str(public_id): "2" for public_id in true_writers(done)}
    missing, forged = list(answers)[:2]
    del answers[missing]
    answers[forged] = "9"
    page = as_user(done.user).post(reverse("rater_authors", args=[done.public_id]), answers)
    text = unescape(page.content.decode())
    assert page.status_code == 422
    assert text.count("Choose a writer, or “I cannot tell”.") == 2
    assert text.count("checked") == 6
    assert not AuthorGuess.objects.exists()


def test_answers_to_other_questions_are_refused(done, second_rater):
    foreign = second_rater.placements.first().public_id
    for guesses in ({}, {foreign: 1}, dict.fromkeys(true_writers(done), 5)):
        with pytest.raises(DomainError, match="Load the page again"):
            store_author_guesses(rater=done, guesses=guesses)
    assert not AuthorGuess.objects.exists()


def test_skipping_ends_the_questions(done, as_user):
    client = as_user(done.user)
    address = reverse("rater_authors", args=[done.public_id])
    assert "Skipped." in client.post(address, {"skip": "1"}, follow=True).content.decode()
    assert client.get(address).status_code == 302
    assert client.post(address, {str(p): "1" for p in author_draw(done).questions}).status_code == 302
    assert not AuthorGuess.objects.exists()


def test_they_come_only_when_nothing_can_change_and_nobody_has_opened_the_key(open_study, rater, admin, as_user):
    rate_all(open_study)
    address = reverse("rater_authors", args=[rater.public_id])
    client = as_user(rater.user)
    assert client.get(address).url == reverse("rater_done", args=[rater.public_id])
    with pytest.raises(NotReady):
        store_author_guesses(rater=rater, guesses={})
    with pytest.raises(NotReady):
        skip_author_questions(rater=rater)
    Study.objects.filter(pk=open_study.pk).update(state=Study.State.CLOSED)
    assert client.get(address).status_code == 200  # a closed study changes no more, whether they said so or not
    open_study.refresh_from_db()
    unblind(open_study, admin)
    assert client.get(address).status_code == 302


def test_a_study_too_small_for_them_leaves_them_out(researcher, as_user):
    study = factories.open_for_rating(factories.make_study(researcher=researcher, n_items=3), by=researcher)
    rate_all(study)
    rater = study.members.raters().first()
    finish_rating(rater=rater)
    assert author_draw(rater) is None
    client = as_user(rater.user)
    assert client.get(reverse("rater_authors", args=[rater.public_id])).status_code == 302
    assert "/writers/" not in client.get(reverse("rater_done", args=[rater.public_id])).content.decode()


# The report.


def test_the_report_says_whether_blinding_held(open_study, researcher, as_user, settings):
    settings.REPORT_RESAMPLES = settings.REPORT_EXCHANGES = 20  # of other numbers, which take their time
    rate_all(open_study)
    states = {report_state(open_study)}
    for rater in open_study.members.raters().select_related("study"):
        finish_rating(rater=rater)
        rater.refresh_from_db()
        store_author_guesses(rater=rater, guesses=true_writers(rater))
    states.add(report_state(open_study))
    store_guess(rater=rater, is_recognised="often", words="long sentences")
    store_guess(rater=rater, is_recognised="no", words="a second thought")
    states.add(report_state(open_study))
    assert len(states) == 3  # each answer makes the stored report old
    report = study_report(open_study)
    assert [report.estimate("bang_index", detail={"system": code}).value for code in "ABCD"] == [1.0] * 4
    assert report.estimate("james_index").value == 0.0
    assert report.estimate("james_index").n == {"guesses": 24, "right": 24, "dont_know": 0, "raters": 3}
    rows = blinding_table(report).rows
    assert [row[0].arm.code if row[0].arm else "" for row in rows] == ["A", "B", "C", "D", ""]
    assert [row[2].value for row in recognition_table(report).rows] == [0, 0, 1, 0]
    page = as_user(researcher).get(reverse("study_report", args=[open_study.public_id])).content.decode()
    assert "Could raters tell the writers apart?" in page
    assert "Did raters believe they knew?" in page


def test_those_who_cannot_tell_are_no_sign_of_a_leak(open_study, done):
    assert exit_answers(open_study).guesses == ()
    store_author_guesses(rater=done, guesses=dict.fromkeys(true_writers(done)))
    answers = exit_answers(open_study)
    assert answers.systems == ("A", "B", "C", "D")
    assert {(guess.rater, guess.guess) for guess in answers.guesses} == {("R1", None)}
    rows = blinding_indices(pd.DataFrame(list(answers.guesses), columns=["rater", "system", "guess"]), answers.systems)
    assert {row.metric: row.estimate.value for row in rows} == {"bang_index": 0.0, "james_index": 1.0}


def test_an_archive_carries_the_answers(open_study, done):
    writers = true_writers(done)
    store_author_guesses(rater=done, guesses=writers | {next(iter(writers)): None})
    store_guess(rater=done, is_recognised="sometimes", words="")
    files = data_files(study_data(open_study))
    assert read_data(files).exit_answers == exit_answers(open_study)
    for broken in (b"[]", b"{", b'{"guesses": [["R1", "A"]]}'):
        with pytest.raises(Unreadable, match=EXIT):
            read_data(files | {EXIT: broken})
