"""A researcher's pages, from the first draft to the key: what they do, whom they refuse, what they never say."""

from __future__ import annotations

import ast
import re
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.cache import cache
from django.urls import reverse

from annotation.errors import NotReady
from annotation.models import (
    Arm,
    Assignment,
    AuditEvent,
    Item,
    Member,
    Placement,
    Response,
    Study,
    StudyItem,
    StudyResponse,
)
from annotation.selectors import research as selectors_research
from annotation.selectors.research import disclosures_of, draft_of, key_of, preview_of
from annotation.services import studies
from tests import factories

pytestmark = pytest.mark.django_db

GET_PAGES = [
    "study_detail", "study_setup", "study_preview", "study_pause", "study_resume", "study_close", "study_progress",
    "study_progress_fragment", "study_flags", "study_plan", "study_unblind", "study_audit",
]  # fmt: skip
POST_PAGES = [
    "study_setup_name", "study_setup_items", "study_setup_remove", "study_setup_systems", "study_setup_raters",
    "study_setup_options", "study_setup_consent", "study_open",
]  # fmt: skip
BOTH = ["study_pause", "study_resume", "study_close", "study_plan", "study_unblind"]
PASSWORD = "a long enough phrase"


def url(name: str, study: Study) -> str:
    return reverse(name, args=[study.public_id])


@pytest.fixture
def desk(as_user, researcher):
    """The researcher's browser."""
    return as_user(researcher)


@pytest.fixture
def named_study(researcher):
    """A draft whose systems bear marks that no page may show once it is open."""
    systems = [factories.make_system(f"canary-slug-{i}", name=f"Canary Name {i}") for i in range(4)]
    return factories.make_study(researcher=researcher, systems=systems)


@pytest.fixture
def closed_study(open_study, researcher):
    return studies.close_study(study=open_study, by=researcher)


@pytest.fixture
def ready_study(closed_study, researcher):
    """Closed, its plan frozen: ready to be unblinded."""
    return studies.freeze_plan(study=closed_study, by=researcher, plan="Compare empathy.")


# --- Who gets in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GET_PAGES)
def test_a_study_of_others_does_not_exist(as_user, study, other_researcher, stranger, name):
    for user in (other_researcher, stranger):
        assert as_user(user).get(url(name, study)).status_code == 404


@pytest.mark.parametrize("name", POST_PAGES + BOTH)
def test_nobody_else_can_act(as_user, open_study, rater, other_researcher, name):
    before = AuditEvent.objects.count()
    for user in (other_researcher, rater.user):
        response = as_user(user).post(url(name, open_study), {"name": open_study.name, "plan": "x", "freeze": ""})
        assert response.status_code == 404
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("name", POST_PAGES)
def test_what_changes_something_takes_post_only(desk, study, name):
    assert desk.get(url(name, study)).status_code == 405


@pytest.mark.parametrize("name", POST_PAGES + BOTH)
def test_it_wants_a_csrf_token(as_user, study, researcher, name):
    assert as_user(researcher, enforce_csrf_checks=True).post(url(name, study)).status_code == 403


def test_an_admin_sees_every_study(as_user, admin, study):
    assert study.name in as_user(admin).get(reverse("study_list")).content.decode()
    assert as_user(admin).get(url("study_setup", study)).status_code == 200


def test_the_list_shows_own_studies_with_their_progress(desk, open_study, rater, other_researcher):
    factories.make_study(researcher=other_researcher, name="Somebody else's")
    Member.objects.filter(pk=rater.pk).update(n_final=8)
    page = desk.get(reverse("study_list")).content.decode()
    assert "8 of 48 responses rated" in page
    assert "3 of 3 seats taken" in page
    assert "Somebody else" not in page


# --- Set-up ---------------------------------------------------------------------------------------------


def test_a_study_is_set_up_and_opened_page_by_page(desk, researcher):
    dataset = factories.make_dataset("lib", name="Library")
    systems = [factories.make_system() for _ in range(3)]
    for _ in range(12):
        item = factories.make_item(dataset)
        for system in systems:
            factories.make_response(item, system)

    response = desk.post(reverse("study_new"), {"name": "My study"})
    study = Study.objects.get(name="My study")
    assert response.url == url("study_setup", study)
    page = desk.get(response.url).content.decode()
    assert "Choose the systems to compare." in page
    assert "Draw a sample of items." in page

    def send(name: str, **data) -> None:
        assert desk.post(url(name, study), data).status_code == 302, name

    send("study_setup_systems", systems=[s.pk for s in systems], with_reference="on")
    send("study_setup_items", dataset=dataset.pk, n=12, one_per_dialogue="on", only_answered="on")
    send(
        "study_setup_raters", n_raters=4, raters_per_item=2, pay_currency="cny", pay_per_response="3.5",
        expected_seconds=180, pay_floor_per_hour="60",
    )  # fmt: skip
    send("study_setup_options", presentation="blocked", min_gap=8, repeat_percent="0", disclosure_policy="keep")
    study.refresh_from_db()
    assert (study.raters_per_item, study.pay_currency, study.needs_practice) == (2, "CNY", False)
    assert draft_of(study).is_ready
    assert url("study_open", study) in desk.get(url("study_preview", study)).content.decode()

    assert desk.post(url("study_open", study)).url == url("study_detail", study)
    study.refresh_from_db()
    assert study.is_open
    assert Placement.objects.filter(rater__study=study).count() == 12 * 4 * 2


def test_the_consent_text_can_be_edited_in_both_languages(desk, researcher):
    study = studies.create_study(by=researcher, name="s")
    page = desk.get(url("study_setup", study)).content.decode()
    assert "参与评分的知情同意书" in page
    form = {
        "contact": "lab@example.org", "retention": "2030", "title_zh": "同意书", "title_en": "Consent",
        "body_zh": "第一段。\r\n\r\n\r\n第二段。", "body_en": "One.\r\n\r\nTwo.", "sensitive_tick_zh": "一",
        "sensitive_tick_en": "1", "agree_tick_zh": "二", "agree_tick_en": "2",
    }  # fmt: skip
    assert desk.post(url("study_setup_consent", study), form).status_code == 302
    study.refresh_from_db()
    assert study.contact == "lab@example.org"
    assert study.consent["body"] == {"zh": ["第一段。", "第二段。"], "en": ["One.", "Two."]}
    assert not draft_of(study).advice


def test_saving_the_default_consent_unchanged_changes_nothing(desk, researcher):
    from annotation.forms.research import ConsentForm

    study = studies.create_study(by=researcher, name="s")
    assert desk.post(url("study_setup_consent", study), ConsentForm.initial_of(study)).status_code == 302
    assert not AuditEvent.objects.filter(action="study.changed").exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("study_setup_items", {"n": 0}, "Dataset"),
        ("study_setup_raters", {"n_raters": 2, "raters_per_item": 3}, "more raters per item than raters"),
        ("study_setup_raters", {"n_raters": 3, "raters_per_item": 3, "pay_currency": "1$x"}, "three letters"),
        ("study_setup_options", {"presentation": "blocked", "min_gap": 8, "repeat_percent": "21"}, "20"),
        ("study_setup_name", {"name": ""}, "required"),
    ],
)
def test_a_wrong_answer_comes_back_with_what_was_wrong(desk, study, name, data, message):
    before = Study.objects.values().get(pk=study.pk)
    response = desk.post(url(name, study), data)
    assert response.status_code == 422
    assert message in response.content.decode()
    assert Study.objects.values().get(pk=study.pk) == before


def test_what_was_saved_is_said_beside_its_section(desk, study):
    """The page scrolls to the section, so a message on top would be out of sight."""
    raters = {
        "n_raters": 3, "raters_per_item": 3, "pay_currency": "USD", "pay_per_response": "1", "expected_seconds": 180,
        "pay_floor_per_hour": "8",
    }  # fmt: skip
    answer = desk.post(url("study_setup_raters", study), raters, follow=True)
    assert answer.redirect_chain[-1][0].endswith("#raters")
    page = answer.content.decode()
    assert page.count("Raters and pay are saved.") == 1
    assert page.index('id="raters"') < page.index("Raters and pay are saved.") < page.index('id="options"')
    # What was refused scrolls there as well: the address that the form is sent to says where.
    assert page.count(f'action="{url("study_setup_raters", study)}#raters"') == 1


def test_the_language_can_be_changed_after_a_refused_section(desk, study):
    page = desk.post(url("study_setup_raters", study), {"n_raters": 0})
    assert page.status_code == 422
    address = re.search(r'name="next" value="([^"]+)"', page.content.decode()).group(1)
    assert desk.get(address).status_code == 200


def test_an_address_that_only_takes_forms_is_not_a_blank_page(desk, study):
    page = desk.get(url("study_setup_raters", study))
    assert (page.status_code, page["Allow"]) == (405, "POST")
    assert "only takes what a form sends" in page.content.decode()


def test_asking_for_too_many_items_says_how_many_there_are(desk, study):
    dataset = study.study_items.first().item.dataset
    response = desk.post(url("study_setup_items", study), {"dataset": dataset.pk, "n": 5})
    assert response.status_code == 422
    assert "Only 0 items" in response.content.decode()


def test_a_missing_response_is_named_and_can_be_mended(desk, study):
    arm = study.arms.select_related("system").first()
    Response.objects.filter(system=arm.system).first().delete()
    page = desk.get(url("study_setup", study)).content.decode()
    assert f"{arm.system.name} has no response to 1 item." in page
    assert not draft_of(study).is_ready
    desk.post(url("study_setup_remove", study), {"which": "unanswered"})
    assert study.study_items.count() == 3
    assert draft_of(study).is_ready


def test_the_set_up_of_an_open_study_is_gone(desk, open_study):
    assert desk.get(url("study_setup", open_study)).url == url("study_detail", open_study)
    assert desk.get(url("study_preview", open_study)).url == url("study_detail", open_study)
    for name in POST_PAGES[:-1]:
        response = desk.post(url(name, open_study), {"name": "new", "n_raters": 1})
        assert response.status_code == 409, name
    open_study.refresh_from_db()
    assert open_study.name != "new"


def test_the_names_of_data_come_out_as_text(desk, researcher):
    hostile = "<script>alert(1)</script>"
    study = factories.make_study(researcher=researcher, name=hostile, dataset=factories.make_dataset(name=hostile))
    factories.open_for_rating(study, by=researcher)
    for name in ("study_detail", "study_progress", "study_flags", "study_plan", "study_unblind", "study_audit"):
        page = desk.get(url(name, study)).content.decode()
        assert hostile not in page, name
        assert "&lt;script&gt;alert(1)" in page, name


# --- Preview --------------------------------------------------------------------------------------------


def test_the_preview_counts_what_opening_will_write(desk, study, researcher):
    assert "Nothing to warn of" in desk.get(url("study_preview", study)).content.decode()
    numbers = preview_of(study).numbers
    factories.open_for_rating(study, by=researcher)
    assert numbers.coverage.n_placements == Placement.objects.filter(rater__study=study).count() == 48
    assert [row.n_placements for row in numbers.raters] == [seat.n_placements for seat in study.members.raters()]


def test_the_preview_is_right_about_money(study):
    preview = preview_of(study)
    assert preview.numbers.total_cost == 48 * Decimal("0.418")
    assert [row.hourly_pay for row in preview.numbers.raters] == [Decimal("8.36")] * 3
    assert preview.warnings == ()


def test_a_warning_rounds_as_the_table_beside_it():
    say = selectors_research._imbalance("%(even)s, %(deviation)s")
    assert say({"even": 2.25, "deviation": 2.25}, None, None) == "2.3, 2.3"


def test_the_preview_writes_nothing(desk, study):
    rows = (Study, StudyItem, Arm, Member, Assignment, Placement, StudyResponse, AuditEvent)
    before = [list(model.objects.order_by("pk").values()) for model in rows]
    page = desk.get(url("study_preview", study)).content.decode()
    assert [list(model.objects.order_by("pk").values()) for model in rows] == before
    assert str(study.seed) in page
    assert "USD 20.06" in page


def test_pay_below_the_floor_is_red_and_in_words(desk, study):
    Study.objects.filter(pk=study.pk).update(pay_per_response=Decimal("0.3"))
    page = desk.get(url("study_preview", study)).content.decode()
    assert "3 raters would earn less than the lowest hourly pay of USD 8.00: down to USD 6.00 an hour." in page
    assert page.count("below the floor") == 3


def test_long_texts_are_named_by_the_number_of_the_item(desk, study):
    StudyItem.objects.get(study=study, number=3).item.responses.update(text="话" * 5000)
    page = desk.get(url("study_preview", study)).content.decode()
    assert "The longest, number 3, needs about" in page


def test_the_preview_of_an_unfinished_draft_says_what_is_missing(desk, study):
    study.members.raters().delete()
    page = desk.get(url("study_preview", study)).content.decode()
    assert "Each item needs 3 raters, but there are seats for 0." in page
    assert url("study_open", study) not in page


def test_the_preview_names_no_system(desk, named_study):
    assert "canary" not in desk.get(url("study_preview", named_study)).content.decode().lower()


def test_a_large_preview_is_computed_once(study, monkeypatch):
    cache.clear()
    monkeypatch.setattr(selectors_research, "CACHE_PREVIEW_FROM", 1)
    first = preview_of(study)
    monkeypatch.setattr(selectors_research, "_compile", None)
    again = preview_of(study)
    assert again.numbers.total_cost == first.numbers.total_cost
    assert (again.numbers.position.counts == first.numbers.position.counts).all()
    StudyItem.objects.filter(study=study).first().item.responses.update(text="a longer text")
    with pytest.raises(TypeError):  # other lengths, another preview
        preview_of(study)


def test_disclosures_are_counted_with_the_names_of_the_systems(study, researcher):
    cache.clear()
    first = study.study_items.get(number=1).item
    system = study.arms.first().system
    first.responses.filter(system=system).update(text=f"我是{system.name}，我在听。")
    systems = [arm.system for arm in study.arms.all()]
    studies.choose_systems(study=study, by=researcher, systems=systems, with_reference=True)
    Item.objects.filter(study_items__study=study, study_items__number=2).update(reference="作为人工智能助手，我在听。")
    found = disclosures_of(study)
    assert (found.n_responses, found.n_disclosing, found.n_items) == (20, 2, 2)


# --- Opening, pausing, closing --------------------------------------------------------------------------


def test_opening_twice_opens_once(desk, study):
    for _ in range(2):
        assert desk.post(url("study_open", study)).url == url("study_detail", study)
    assert AuditEvent.objects.filter(action="study.opened").count() == 1
    assert "open already" in desk.get(url("study_detail", study)).content.decode()


def test_a_draft_that_is_not_ready_stays_a_draft(desk, study):
    study.study_items.all().delete()
    assert desk.post(url("study_open", study)).url == url("study_preview", study)
    study.refresh_from_db()
    assert study.is_draft


def test_each_step_is_asked_first_and_done_on_post(desk, open_study):
    for name, state in (("study_pause", "paused"), ("study_resume", "open"), ("study_close", "closed")):
        before = Study.objects.get(pk=open_study.pk).state
        assert desk.get(url(name, open_study)).status_code == 200
        assert Study.objects.get(pk=open_study.pk).state == before
        for _ in range(2):  # a double click
            assert desk.post(url(name, open_study)).status_code == 302
        assert Study.objects.get(pk=open_study.pk).state == state
    assert AuditEvent.objects.filter(study=open_study).count() == 4  # opened, paused, resumed, closed


def test_a_step_out_of_order_is_explained(desk, closed_study):
    page = desk.post(url("study_resume", closed_study), follow=True).content.decode()
    assert "Only a paused study can go on." in page


# --- Blinding -------------------------------------------------------------------------------------------


def test_no_page_names_a_system_from_opening_to_unblinding(as_user, researcher, admin, named_study):
    def check(stage: str) -> None:
        for user in (researcher, admin):
            browser = as_user(user)
            for name in GET_PAGES:
                response = browser.get(url(name, named_study), headers={"HX-Request": "true"})
                sent = response.content.decode() + str(response.headers)
                assert "canary" not in sent.lower(), (stage, name)

    assert "Canary Name 1" in as_user(researcher).get(url("study_setup", named_study)).content.decode()
    # The log keeps what was done to the draft; even there, systems have numbers only.
    systems = [arm.system for arm in named_study.arms.all()]
    studies.choose_systems(study=named_study, by=researcher, systems=systems[:2])
    studies.choose_systems(study=named_study, by=researcher, systems=systems)
    factories.open_for_rating(named_study, by=researcher)
    Placement.objects.filter(rater__study=named_study).update(is_flagged=True, rev=1)
    check("open")
    studies.pause_study(study=named_study, by=researcher)
    check("paused")
    studies.close_study(study=named_study, by=researcher)
    check("closed")
    studies.freeze_plan(study=named_study, by=researcher, plan="Compare.")
    check("frozen")
    with pytest.raises(NotReady):
        key_of(Study.objects.get(pk=named_study.pk))

    studies.unblind_study(study=named_study, by=researcher)
    page = as_user(researcher).get(url("study_unblind", named_study)).content.decode()
    for arm in named_study.arms.select_related("system"):
        assert re.search(rf">{arm.code}</th><td[^>]*>{arm.system.name}</td>", page)


# --- Progress, flags, log -------------------------------------------------------------------------------


def test_progress_shows_codes_and_no_person(desk, open_study, rater):
    page = desk.get(url("study_progress", open_study)).content.decode()
    assert "R1" in page
    assert rater.user.username not in page
    assert "never auto-reject pay" in page


def test_progress_refreshes_itself_while_the_study_is_open(desk, open_study, researcher):
    fragment = url("study_progress_fragment", open_study)
    response = desk.get(url("study_progress", open_study))
    assert f'hx-get="{fragment}" hx-trigger="every 10s"' in response.content.decode()
    assert "require-trusted-types-for" not in response.headers["Content-Security-Policy"]
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]

    part = desk.get(fragment, headers={"HX-Request": "true"})
    assert part.content.decode().lstrip().startswith('<div id="progress" hx-get')
    assert desk.get(fragment).url == url("study_progress", open_study)

    studies.close_study(study=open_study, by=researcher)
    assert "hx-get" not in desk.get(fragment, headers={"HX-Request": "true"}).content.decode()


def test_other_pages_keep_trusted_types(desk, open_study):
    headers = desk.get(url("study_detail", open_study)).headers
    assert "require-trusted-types-for" in headers["Content-Security-Policy"]


def test_flags_show_rater_arm_and_note(desk, open_study, rater):
    placement = Placement.objects.of(rater).select_related("study_response__arm").first()
    Placement.objects.filter(pk=placement.pk).update(is_flagged=True, rev=1, note="=1+1 <i>cut off</i>")
    page = desk.get(url("study_flags", open_study)).content.decode()
    assert "=1+1 &lt;i&gt;cut off&lt;/i&gt;" in page
    assert f"<td>{placement.study_response.arm.code} " in page
    assert "<td>R1</td>" in page


def test_long_lists_go_on_behind_the_last_line(desk, open_study, monkeypatch):
    monkeypatch.setattr("annotation.progress.FLAGS_PER_PAGE", 5)
    Placement.objects.filter(rater__study=open_study).update(is_flagged=True, rev=1)
    seen, page = [], desk.get(url("study_flags", open_study)).context
    while True:
        seen += [flag.pk for flag in page["flags"]]
        if not page["next"]:
            break
        page = desk.get(url("study_flags", open_study), {"before": page["next"]}).context
    assert len(seen) == len(set(seen)) == 48
    assert desk.get(url("study_flags", open_study), {"before": "x' OR 1"}).status_code == 200


def test_the_log_says_who_did_what_with_raters_by_code(desk, open_study, rater, researcher):
    from annotation.services.audit import record

    record("rater.withdrew", by=rater.user, study=open_study, rater=rater.code)
    page = desk.get(url("study_audit", open_study)).content.decode()
    assert "Study opened" in page
    assert researcher.username in page
    assert ">R1</td>" in page
    assert rater.user.username not in page
    assert "The chain is whole" in page


def test_the_log_has_words_for_all_that_is_done_to_a_study():
    """Every act that is recorded with `study=` stands in a study's log."""
    unnamed = set()
    for path in Path(selectors_research.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "record"):
                continue
            names = {n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)} if node.args else set()
            if any(keyword.arg == "study" for keyword in node.keywords):
                unnamed |= {name for name in names if isinstance(name, str) and "." in name}
    assert not unnamed - set(selectors_research.ACTIONS)


def test_a_broken_chain_is_said_loudly(desk, open_study, monkeypatch):
    monkeypatch.setattr("annotation.views.research.verify_chain", lambda: 3)
    assert "broken at entry 3" in desk.get(url("study_audit", open_study)).content.decode()


# --- Plan and key ---------------------------------------------------------------------------------------


def test_a_plan_is_saved_then_frozen(desk, open_study):
    page = url("study_plan", open_study)
    assert desk.post(page, {"plan": "Draft", "save": ""}).status_code == 302
    open_study.refresh_from_db()
    assert (open_study.plan, open_study.plan_frozen_at) == ("Draft", None)
    assert desk.post(page, {"plan": "Final", "freeze": ""}).status_code == 302
    open_study.refresh_from_db()
    assert open_study.plan_hash in desk.get(page).content.decode()
    response = desk.post(page, {"plan": "Later", "freeze": ""})
    assert response.status_code == 422
    open_study.refresh_from_db()
    assert open_study.plan == "Final"


def test_unblinding_wants_the_name_of_the_study(desk, ready_study):
    page = url("study_unblind", ready_study)
    assert ready_study.plan_hash in desk.get(page).content.decode()
    assert desk.post(page, {"name": "something"}).status_code == 422
    ready_study.refresh_from_db()
    assert not ready_study.is_unblinded
    assert "The key" not in desk.get(page).content.decode()


def test_unblinding_too_early_names_the_missing_step(desk, closed_study):
    page = desk.post(url("study_unblind", closed_study), {"name": closed_study.name}, follow=True).content.decode()
    assert "Freeze the analysis plan first" in page
    closed_study.refresh_from_db()
    assert not closed_study.is_unblinded


def test_unblinding_asks_again_who_it_is(client, researcher, ready_study, settings):
    researcher.set_password(PASSWORD)
    researcher.save()
    client.force_login(researcher)
    page = url("study_unblind", ready_study)
    asked = client.post(page, {"name": ready_study.name})
    assert asked.url.startswith(reverse("account_reauthenticate"))
    ready_study.refresh_from_db()
    assert not ready_study.is_unblinded

    assert client.post(asked.url, {"password": "wrong", "next": page}).status_code == 200
    ready_study.refresh_from_db()
    assert not ready_study.is_unblinded

    done = client.post(asked.url, {"password": PASSWORD, "next": page})
    assert done.url == page
    ready_study.refresh_from_db()
    assert ready_study.unblinded_by == researcher
    shown = client.get(page).content.decode()
    assert all(arm.system.name in shown for arm in ready_study.arms.select_related("system"))


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_every_page_can_be_read_in_both_languages(desk, study, ready_study, language):
    desk.cookies["django_language"] = language
    for name in GET_PAGES:
        assert desk.get(url(name, ready_study), follow=True).status_code == 200, name
    draft = factories.make_study(researcher=Member.objects.get(study=ready_study, role="researcher").user)
    for name in ("study_detail", "study_setup", "study_preview"):
        assert desk.get(url(name, draft)).status_code == 200, name
