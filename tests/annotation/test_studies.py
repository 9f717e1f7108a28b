"""The life of a study: every step once, in order, and none that may not be."""

from __future__ import annotations

import hashlib

import pytest
from django.db import IntegrityError, transaction

from annotation.errors import DomainError, NotReady, StudyFrozen
from annotation.models import Arm, AuditEvent, Invitation, Member, Study, StudyItem, System
from annotation.services import studies
from annotation.services.opening import open_study
from tests import factories

pytestmark = pytest.mark.django_db

PLAN = "主要比较：共情。\n检验：置换检验。"


@pytest.fixture
def draft(researcher) -> Study:
    return studies.create_study(by=researcher, name="  Spring 2026 ")


@pytest.fixture
def library():
    """A dataset of 60 items in 30 dialogues, three topics, all answered by two systems."""
    dataset = factories.make_dataset("library")
    systems = [factories.make_system("alpha"), factories.make_system("beta")]
    for i in range(60):
        topic = "family" if i < 36 else "love" if i < 54 else "work"
        item = factories.make_item(dataset, f"i{i}", dialogue_key=f"d{i // 2}", topic=topic)
        for system in systems:
            factories.make_response(item, system)
    return dataset, systems


def actions(study: Study) -> list[str]:
    return list(AuditEvent.objects.filter(study=study).order_by("pk").values_list("action", flat=True))


# --- Beginning ------------------------------------------------------------------------------------------


def test_a_new_study_is_a_draft_with_a_researcher_and_a_consent_text(draft, researcher):
    assert draft.is_draft
    assert draft.name == "Spring 2026"
    assert draft.members.get().user == researcher
    assert set(draft.consent) == {"title", "body", "sensitive_tick", "agree_tick"}
    assert all(draft.consent[part][language] for part in draft.consent for language in ("zh", "en"))
    assert draft.rubric.slug == "cehs"
    assert actions(draft) == ["study.created"]


def test_an_admin_makes_a_study_without_a_seat(admin):
    assert not studies.create_study(by=admin, name="x").members.exists()


def test_two_studies_have_different_seeds(researcher):
    first, second = (studies.create_study(by=researcher, name=name) for name in "ab")
    assert first.seed != second.seed


# --- Settings -------------------------------------------------------------------------------------------


def test_settings_change_while_it_is_a_draft(draft, researcher):
    studies.update_settings(study=draft, by=researcher, raters_per_item=2, presentation="interleaved")
    draft.refresh_from_db()
    assert (draft.raters_per_item, draft.presentation) == (2, "interleaved")
    assert AuditEvent.objects.get(action="study.changed").detail["settings"] == ["presentation", "raters_per_item"]


def test_saving_without_a_change_is_not_an_event(draft, researcher):
    studies.update_settings(study=draft, by=researcher, raters_per_item=draft.raters_per_item)
    assert actions(draft) == ["study.created"]


@pytest.mark.parametrize("change", [{"repeat_percent": 50}, {"raters_per_item": 0}, {"presentation": "at once"}])
def test_a_setting_that_cannot_be_is_refused(draft, researcher, change):
    with pytest.raises(DomainError):
        studies.update_settings(study=draft, by=researcher, **change)
    before = Study.objects.get(pk=draft.pk)
    assert (before.repeat_percent, before.raters_per_item, before.presentation) == (5, 3, "blocked")


def test_only_settings_are_settings(draft, researcher):
    with pytest.raises(TypeError):
        studies.update_settings(study=draft, by=researcher, state="closed")


def test_a_changed_consent_text_is_asked_for_again(study, researcher):
    factories.seat_raters(study)
    studies.update_settings(study=study, by=researcher, contact="lab@example.org")
    assert not study.members.raters().exclude(consented_at=None).exists()


# --- Systems --------------------------------------------------------------------------------------------


def test_systems_become_arms_without_codes(draft, researcher, library):
    _, systems = library
    studies.choose_systems(study=draft, by=researcher, systems=systems, with_reference=True)
    arms = list(draft.arms.select_related("system"))
    assert {arm.system.kind for arm in arms} == {"stored", "reference"}
    assert [arm.code for arm in arms] == [None, None, None]


def test_the_order_of_arms_does_not_follow_from_anything_a_researcher_sees(draft, researcher):
    systems = [factories.make_system() for _ in range(6)]
    orders = set()
    for _ in range(8):
        studies.choose_systems(study=draft, by=researcher, systems=[])
        studies.choose_systems(study=draft, by=researcher, systems=systems)
        orders.add(tuple(draft.arms.order_by("pk").values_list("system_id", flat=True)))
    assert len(orders) > 1  # eight times the same of 720 orders: once in 10^20


def test_choosing_the_same_systems_again_changes_nothing(draft, researcher, library):
    _, systems = library
    first = studies.choose_systems(study=draft, by=researcher, systems=systems)
    again = studies.choose_systems(study=draft, by=researcher, systems=systems[::-1])
    assert {arm.pk for arm in first} == {arm.pk for arm in again}
    assert actions(draft).count("study.systems_chosen") == 1


def test_there_is_one_human_reference_on_the_site(draft, researcher):
    studies.choose_systems(study=draft, by=researcher, systems=[], with_reference=True)
    other = studies.create_study(by=researcher, name="other")
    studies.choose_systems(study=other, by=researcher, systems=[], with_reference=True)
    assert System.objects.filter(kind="reference").count() == 1


def test_more_systems_than_letters_are_refused(draft, researcher):
    systems = [factories.make_system() for _ in range(27)]
    with pytest.raises(DomainError, match="26"):
        studies.choose_systems(study=draft, by=researcher, systems=systems)


# --- Items ----------------------------------------------------------------------------------------------


def drawn(study: Study) -> list[str]:
    return list(study.study_items.order_by("number").values_list("item__key", flat=True))


def test_the_same_seed_draws_the_same_items(researcher, library):
    dataset, systems = library
    samples = []
    for name in "ab":
        study = studies.create_study(by=researcher, name=name)
        studies.choose_systems(study=study, by=researcher, systems=systems)
        studies.draw_items(study=study, by=researcher, dataset=dataset, n=10, seed=5)
        samples.append(drawn(study))
    assert samples[0] == samples[1]
    third = studies.create_study(by=researcher, name="c")
    studies.draw_items(study=third, by=researcher, dataset=dataset, n=10, seed=6)
    assert drawn(third) != samples[0]


def test_a_dialogue_gives_at_most_one_item_also_in_a_second_draw(draft, researcher, library):
    dataset, _ = library
    studies.draw_items(study=draft, by=researcher, dataset=dataset, n=20)
    studies.draw_items(study=draft, by=researcher, dataset=dataset, n=10)
    dialogues = draft.study_items.values_list("item__dialogue_key", flat=True)
    assert len(dialogues) == len(set(dialogues)) == 30
    assert list(draft.study_items.order_by("number").values_list("number", flat=True)) == list(range(1, 31))


def test_all_items_of_a_dialogue_come_if_that_is_wanted(draft, researcher, library):
    dataset, _ = library
    studies.draw_items(study=draft, by=researcher, dataset=dataset, n=60, one_per_dialogue=False)
    assert draft.study_items.count() == 60


def test_topics_keep_their_shares(draft, researcher, library):
    dataset, _ = library
    studies.draw_items(study=draft, by=researcher, dataset=dataset, n=10, stratify_by_topic=True)
    topics = list(draft.study_items.values_list("item__topic", flat=True))
    assert [topics.count(topic) for topic in ("family", "love", "work")] == [6, 3, 1]


def test_only_items_that_all_systems_answered_are_drawn(draft, researcher, library):
    dataset, systems = library
    dataset.items.get(key="i0").responses.filter(system=systems[0]).delete()
    dataset.items.filter(key="i1").update(reference="")
    studies.choose_systems(study=draft, by=researcher, systems=systems, with_reference=True)
    eligible = studies.eligible_items(draft, dataset)
    assert not eligible.filter(key__in=["i0", "i1"]).exists()
    assert eligible.count() == 58


def test_too_few_items_draw_none(draft, researcher, library):
    dataset, _ = library
    with pytest.raises(NotReady, match="Only 30 items"):
        studies.draw_items(study=draft, by=researcher, dataset=dataset, n=31)
    assert not draft.study_items.exists()
    assert "study.items_drawn" not in actions(draft)


def test_items_are_taken_out_by_dataset_or_where_a_response_is_missing(draft, researcher, library):
    dataset, systems = library
    studies.draw_items(study=draft, by=researcher, dataset=dataset, n=20)
    newcomer = factories.make_system("newcomer")
    for study_item in draft.study_items.all()[:15]:
        factories.make_response(study_item.item, newcomer)
    studies.choose_systems(study=draft, by=researcher, systems=[*systems, newcomer])
    assert studies.remove_items(study=draft, by=researcher, only_unanswered=True) == 5
    assert studies.remove_items(study=draft, by=researcher, dataset=factories.make_dataset()) == 0
    assert studies.remove_items(study=draft, by=researcher, dataset=dataset) == 15


# --- Seats ----------------------------------------------------------------------------------------------


def codes(study: Study) -> list[str]:
    return [seat.code for seat in study.members.raters()]


def test_seats_come_and_go_while_they_are_empty(draft, researcher):
    studies.set_raters(study=draft, by=researcher, n=4)
    assert codes(draft) == ["R1", "R2", "R3", "R4"]
    studies.set_raters(study=draft, by=researcher, n=2)
    assert studies.add_rater_seats(study=draft, by=researcher) == 3
    studies.remove_empty_seat(study=draft, by=researcher, seat=draft.members.get(number=2))
    assert codes(draft) == ["R1", "R3"]


def test_a_taken_seat_stays(draft, researcher):
    studies.set_raters(study=draft, by=researcher, n=2)
    Member.objects.filter(study=draft, number=2).update(user=factories.make_user())
    studies.set_raters(study=draft, by=researcher, n=1)
    assert codes(draft) == ["R2"]
    with pytest.raises(NotReady, match="R2"):
        studies.remove_empty_seat(study=draft, by=researcher, seat=draft.members.get(number=2))


def test_fewer_seats_than_people_are_refused_and_nothing_changes(draft, researcher):
    studies.set_raters(study=draft, by=researcher, n=3)
    for seat in draft.members.raters()[:2]:
        Member.objects.filter(pk=seat.pk).update(user=factories.make_user())
    with pytest.raises(NotReady, match="R1, R2"):
        studies.set_raters(study=draft, by=researcher, n=1)
    assert codes(draft) == ["R1", "R2", "R3"]


def test_a_seat_goes_with_the_links_to_it(draft, researcher):
    from annotation.services.people import create_invitation

    studies.set_raters(study=draft, by=researcher, n=1)
    seat = draft.members.raters().get()
    create_invitation(role="rater", by=researcher, seat=seat)
    studies.remove_empty_seat(study=draft, by=researcher, seat=seat)
    studies.remove_empty_seat(study=draft, by=researcher, seat=seat)  # a second click
    assert not Invitation.objects.exists()


# --- Frozen ---------------------------------------------------------------------------------------------


def test_after_opening_nothing_that_raters_see_can_change(open_study, researcher):
    dataset = open_study.study_items.first().item.dataset
    attempts = [
        lambda: studies.update_settings(study=open_study, by=researcher, raters_per_item=2),
        lambda: studies.update_settings(study=open_study, by=researcher, contact="new"),
        lambda: studies.choose_systems(study=open_study, by=researcher, systems=[]),
        lambda: studies.draw_items(study=open_study, by=researcher, dataset=dataset, n=1),
        lambda: studies.remove_items(study=open_study, by=researcher),
        lambda: studies.set_raters(study=open_study, by=researcher, n=9),
        lambda: studies.remove_empty_seat(study=open_study, by=researcher, seat=open_study.members.raters()[0]),
    ]
    for attempt in attempts:
        with pytest.raises(StudyFrozen):
            attempt()


def test_the_database_refuses_what_the_services_refuse(open_study):
    for change in (
        lambda: Study.objects.filter(pk=open_study.pk).update(seed=1),
        lambda: Arm.objects.filter(study=open_study).update(code="Z"),
        lambda: StudyItem.objects.filter(study=open_study).update(number=99),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            change()


def test_a_study_opens_once(study, researcher):
    factories.seat_raters(study)
    open_study(study=study, by=researcher)
    with pytest.raises(StudyFrozen):
        open_study(study=study, by=researcher)
    assert actions(study).count("study.opened") == 1


def test_a_study_that_was_set_up_by_the_services_opens(draft, researcher, library):
    dataset, systems = library
    studies.choose_systems(study=draft, by=researcher, systems=systems, with_reference=True)
    studies.draw_items(study=draft, by=researcher, dataset=dataset, n=8)
    studies.set_raters(study=draft, by=researcher, n=3)
    opened = open_study(study=draft, by=researcher)
    assert sorted(opened.arms.values_list("code", flat=True)) == ["A", "B", "C"]
    assert sum(seat.n_placements for seat in opened.members.raters()) >= 8 * 3 * 3


# --- Pause, close ---------------------------------------------------------------------------------------


def test_it_pauses_goes_on_and_closes(open_study, researcher):
    assert studies.pause_study(study=open_study, by=researcher).state == "paused"
    assert studies.resume_study(study=open_study, by=researcher).state == "open"
    closed = studies.close_study(study=open_study, by=researcher)
    assert closed.is_closed
    assert closed.closed_at
    assert actions(open_study)[-3:] == ["study.paused", "study.resumed", "study.closed"]


@pytest.mark.parametrize("name", ["pause_study", "close_study"])
def test_a_second_click_does_nothing_twice(open_study, researcher, name):
    service = getattr(studies, name)
    first = service(study=open_study, by=researcher)
    closed_at, events = first.closed_at, actions(first)
    second = service(study=open_study, by=researcher)
    assert second.closed_at == closed_at
    assert actions(second) == events


def test_steps_out_of_order_are_refused(study, open_study, researcher):
    closed = studies.close_study(study=open_study, by=researcher)
    for service in (studies.pause_study, studies.resume_study):
        with pytest.raises(NotReady):
            service(study=closed, by=researcher)
    draft = studies.create_study(by=researcher, name="draft")
    for service in (studies.pause_study, studies.resume_study, studies.close_study):
        with pytest.raises(NotReady):
            service(study=draft, by=researcher)


# --- Plan and unblinding --------------------------------------------------------------------------------


def test_a_plan_is_frozen_with_its_hash(open_study, researcher):
    studies.write_plan(study=open_study, by=researcher, plan="first thoughts")
    frozen = studies.freeze_plan(study=open_study, by=researcher, plan=PLAN.replace("\n", "\r\n") + "  ")
    assert frozen.plan == PLAN
    assert frozen.plan_hash == hashlib.sha256(PLAN.encode()).hexdigest()
    assert studies.freeze_plan(study=open_study, by=researcher, plan=PLAN).plan_frozen_at == frozen.plan_frozen_at
    for service in (studies.freeze_plan, studies.write_plan):
        with pytest.raises(StudyFrozen):
            service(study=open_study, by=researcher, plan="other")
    assert actions(open_study).count("plan.frozen") == 1


def test_an_empty_plan_is_not_frozen(open_study, researcher):
    with pytest.raises(NotReady):
        studies.freeze_plan(study=open_study, by=researcher, plan=" \n ")


def test_unblinding_names_the_step_that_is_missing(open_study, researcher):
    with pytest.raises(NotReady, match="Close the study"):
        studies.unblind_study(study=open_study, by=researcher)
    studies.close_study(study=open_study, by=researcher)
    with pytest.raises(NotReady, match="Freeze the analysis plan"):
        studies.unblind_study(study=open_study, by=researcher)
    open_study.refresh_from_db()
    assert not open_study.is_unblinded


def test_unblinding_happens_once_and_for_ever(open_study, researcher, other_researcher):
    studies.close_study(study=open_study, by=researcher)
    studies.freeze_plan(study=open_study, by=researcher, plan=PLAN)
    first = studies.unblind_study(study=open_study, by=researcher)
    again = studies.unblind_study(study=open_study, by=other_researcher)
    assert (again.unblinded_at, again.unblinded_by) == (first.unblinded_at, researcher)
    assert actions(open_study).count("study.unblinded") == 1
    assert AuditEvent.objects.get(action="study.unblinded").detail["plan_hash"] == first.plan_hash
    with pytest.raises(IntegrityError), transaction.atomic():
        Study.objects.filter(pk=open_study.pk).update(unblinded_at=None, unblinded_by=None)
