"""From a draft to who rates what: everything is placed, frozen and coded, or nothing is."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import IntegrityError, transaction

from annotation.errors import NotReady, StudyFrozen
from annotation.models import Arm, Assignment, AuditEvent, Item, Placement, Response, Study, StudyItem, StudyResponse
from annotation.services.audit import verify_chain
from annotation.services.opening import open_study
from tests import factories


def test_every_response_is_placed_before_every_rater(open_study):
    placed = Counter(
        Placement.objects.filter(assignment__is_repeat=False).values_list("rater__number", "study_response")
    )
    assert len(placed) == 3 * 4 * 4  # raters × items × systems
    assert set(placed.values()) == {1}
    for rater in open_study.members.raters():
        positions = list(Placement.objects.of(rater).order_by("position").values_list("position", flat=True))
        assert positions == list(range(rater.n_placements))


def test_arms_get_codes_and_raters_different_orders_of_dimensions(open_study):
    assert sorted(open_study.arms.values_list("code", flat=True)) == ["A", "B", "C", "D"]
    orders = [tuple(rater.dimension_order) for rater in open_study.members.raters()]
    assert len(set(orders)) == 3
    assert all(set(order) == {"content", "empathy", "helpfulness", "safety"} for order in orders)


def test_opening_twice_is_refused_and_changes_nothing(open_study, researcher):
    before = Placement.objects.count()
    with pytest.raises(StudyFrozen):
        open_study_service(study=open_study, by=researcher)
    assert Placement.objects.count() == before


open_study_service = open_study  # the fixture of the same name is the opened study


def test_a_missing_response_is_named_and_nothing_is_half_open(study, researcher):
    response = Response.objects.first()
    response.delete()
    with pytest.raises(NotReady, match=response.item.key):
        open_study_service(study=study, by=researcher)
    study.refresh_from_db()
    assert study.is_draft
    assert not StudyResponse.objects.exists() and not Assignment.objects.exists()
    assert set(study.arms.values_list("code", flat=True)) == {None}


def test_too_few_raters_is_said(study, researcher):
    study.raters_per_item = 5
    study.save()
    with pytest.raises(NotReady, match="5 raters"):
        open_study_service(study=study, by=researcher)


@pytest.mark.parametrize("policy", ["keep", "mask", "drop"])
def test_self_disclosure_follows_the_policy(study, researcher, policy):
    response = Response.objects.first()
    Response.objects.filter(pk=response.pk).update(text="我是ChatGLM，很高兴认识你。你最近怎么样？")
    study.disclosure_policy = policy
    study.save()
    opened = factories.open_for_rating(study, by=researcher)
    texts = list(StudyResponse.objects.values_list("text", flat=True))
    told = [text for text in texts if "ChatGLM" in text]
    assert len(told) == (1 if policy == "keep" else 0)
    assert opened.n_masked == (1 if policy == "mask" else 0)
    assert opened.n_dropped == (1 if policy == "drop" else 0)
    assert opened.study_items.count() == (3 if policy == "drop" else 4)


def test_the_name_of_a_compared_system_is_masked_too(study, researcher):
    arm = study.arms.first()
    response = Response.objects.filter(system=arm.system).first()
    Response.objects.filter(pk=response.pk).update(text=f"I am {arm.system.name}, tell me more.")
    factories.open_for_rating(study, by=researcher)
    assert not StudyResponse.objects.filter(text__contains=arm.system.name).exists()


def test_the_reference_arm_shows_the_counsellors_own_reply(study, researcher):
    reference = factories.make_system("reference", kind="reference", name="Human reference")
    Arm.objects.create(study=study, system=reference)
    factories.open_for_rating(study, by=researcher)
    shown = StudyResponse.objects.filter(arm__system=reference).select_related("study_item__item")
    assert len(shown) == 4
    assert all(row.text == row.study_item.item.reference for row in shown)


def test_the_same_seed_gives_the_same_design(researcher):
    hashes = set()
    for _ in range(2):
        with transaction.atomic():
            study = factories.make_study(researcher=researcher, seed=99)
            opened = factories.open_for_rating(study)
            order = Placement.objects.filter(rater__study=opened).order_by("rater__number", "position")
            arms = list(opened.arms.order_by("id").values_list("id", flat=True))
            items = list(opened.study_items.order_by("number").values_list("id", flat=True))
            rows = order.values_list("study_response__arm_id", "study_response__study_item_id")
            hashes.add(tuple((arms.index(arm), items.index(item)) for arm, item in rows))
    assert len(hashes) == 1


def test_visible_ids_say_nothing_of_creation_order(open_study):
    """Rank correlation between creation and the visible id, over all placements: what chance gives, not more."""
    by_creation = list(Placement.objects.order_by("id").values_list("public_id", flat=True))
    ranks = {public_id: rank for rank, public_id in enumerate(sorted(by_creation))}
    n = len(by_creation)
    squares = sum((rank - ranks[public_id]) ** 2 for rank, public_id in enumerate(by_creation))
    rho = 1 - 6 * squares / (n * (n * n - 1))
    assert {public_id.version for public_id in by_creation} == {4}
    assert abs(rho) < 4 / n**0.5  # four standard errors


def test_opening_is_in_the_log_and_the_log_is_whole(open_study):
    event = AuditEvent.objects.get(action="study.opened")
    assert event.detail["design_hash"] == open_study.design_hash
    assert verify_chain() is None


class TestTheDatabaseItselfRefuses:
    """Whatever code runs: a view, the admin, a shell."""

    def refused(self, rule, act):
        with pytest.raises(IntegrityError, match=rule), transaction.atomic():
            act()

    def test_new_settings_of_an_opened_study(self, open_study):
        for change in ({"seed": 1}, {"raters_per_item": 1}, {"disclosure_policy": "keep"}, {"pay_per_response": 9}):
            self.refused("opened_studies_are_frozen", lambda c=change: Study.objects.update(**c))

    def test_other_texts_once_shown(self, open_study):
        self.refused("shown_responses_are_frozen", lambda: StudyResponse.objects.update(text="x"))
        self.refused("placed_responses_are_frozen", lambda: Response.objects.update(text="x"))
        self.refused("placed_items_are_frozen", lambda: Item.objects.update(reference="x"))

    def test_another_rubric_wording(self, open_study):
        self.refused("used_rubrics_are_frozen", lambda: open_study.rubric.dimensions.update(highest=5))

    def test_items_and_arms_coming_or_going(self, open_study):
        item = factories.make_item(factories.make_dataset())
        self.refused(
            "items_of_opened_studies_stay",
            lambda: StudyItem.objects.create(study=open_study, item=item, number=99),
        )
        self.refused("arms_of_opened_studies_stay", lambda: Arm.objects.filter(study=open_study).update(code="Z"))

    def test_moving_a_placement(self, open_study):
        self.refused("placements_stay", lambda: Placement.objects.update(slot=0))

    def test_rewriting_the_log(self, open_study):
        self.refused("audit_events_are_append_only", lambda: AuditEvent.objects.update(action="x"))
        self.refused("audit_events_are_append_only", lambda: AuditEvent.objects.all().delete())
