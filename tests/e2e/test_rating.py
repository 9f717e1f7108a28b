"""The rating page in a real browser: by keyboard alone, and through everything a network can do."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import follow, go_on


@pytest.fixture
def study(site):
    return site.seed(n_items=2, n_systems=2)


def wait_for(page, expression: str, seconds: float = 30) -> None:
    """Until the expression holds. (Playwright's own wait evaluates a string in the page, which its policy forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not within {seconds} s: {expression}"
        page.wait_for_timeout(50)


def score_all(page, keys=("1", "1", "1", "1")):
    for key in keys:
        page.keyboard.press(key)


def submit(page):
    page.keyboard.press("Enter")


def finals(site, study, seat=0):
    """(placement, number of final rows, number of ratings) of one rater, as the database has it."""
    return site.rows(
        "SELECT p.public_id, p.rev, COUNT(r.id) FROM annotation_placement p "
        "LEFT JOIN annotation_rating r ON r.placement_id = p.id "
        "WHERE p.rater_id = ? AND p.state = 2 GROUP BY p.id ORDER BY p.queue",
        study["seat_pks"][seat],
    )


def wait_until_saved(page):
    expect(page.locator("#save-state")).to_have_attribute("data-state", re.compile("saved|clean"))
    wait_for(page, "Object.keys(localStorage).filter(k => k.startsWith('qingting:')).length === 0")


def current_id(page) -> str:
    return page.url.rstrip("/").rsplit("/", 1)[1]


def rate_one(page):
    before = current_id(page)
    expect(page.locator("#response")).not_to_be_empty()
    score_all(page)
    submit(page)
    go_on(page, before)


def test_a_whole_assignment_by_keyboard_alone(site, study, new_context, enter):
    """Five keystrokes a response, from the first page to the last, without touching the mouse."""
    page = enter(new_context(), study["rater_links"][0])
    expect(page.locator("#response")).not_to_be_empty()
    for _ in range(4):
        rate_one(page)
    expect(page.locator("h1")).to_have_text("All done. Thank you.")
    rows = finals(site, study)
    assert len(rows) == 4
    assert {n for _id, _rev, n in rows} == {4}


def test_scores_go_where_the_keys_say(site, study, new_context, enter):
    page = enter(new_context(), study["rater_links"][0])
    order = page.eval_on_selector_all(".criterion", "all => all.map(f => f.dataset.dimension)")
    values = {"content": "2", "empathy": "0", "helpfulness": "1", "safety": "0"}
    before = current_id(page)
    page.keyboard.press(values[order[0]])
    page.keyboard.press("2" if order[1] != "safety" else "1")
    page.keyboard.press("Backspace")  # from the third back to the second
    page.keyboard.press(values[order[1]])
    page.keyboard.press(values[order[2]])
    page.keyboard.press(values[order[3]])
    submit(page)
    go_on(page, before)
    wait_until_saved(page)
    stored = dict(
        site.rows(
            "SELECT d.key, r.value FROM annotation_rating r JOIN annotation_dimension d ON d.id = r.dimension_id "
            "JOIN annotation_placement p ON p.id = r.placement_id WHERE p.public_id = ?",
            before.replace("-", ""),
        )
    )
    assert stored == {key: int(value) for key, value in values.items()}


def test_enter_names_what_is_missing_and_goes_there(study, new_context, enter):
    page = enter(new_context(), study["rater_links"][0])
    before = current_id(page)
    page.keyboard.press("1")
    submit(page)
    expect(page.locator("#form-error")).to_contain_text("Still without a score")
    assert current_id(page) == before
    focused = page.evaluate("document.activeElement.closest('.criterion').dataset.dimension")
    order = page.eval_on_selector_all(".criterion", "all => all.map(f => f.dataset.dimension)")
    assert focused == order[1]


def test_previous_shows_the_scores_and_takes_changes(site, study, new_context, enter):
    page = enter(new_context(), study["rater_links"][0])
    first = current_id(page)
    rate_one(page)
    second = current_id(page)
    wait_until_saved(page)  # scores that have not left the browser are changed there, and make one event in all
    page.keyboard.press("p")
    go_on(page, second)
    assert current_id(page) == first
    expect(page.locator("#revisit")).to_be_visible()
    expect(page.locator(".point input:checked")).to_have_count(4)
    page.keyboard.press("0")
    submit(page)
    go_on(page, first)
    assert current_id(page) == second
    wait_until_saved(page)
    events = site.rows("SELECT COUNT(*) FROM annotation_ratingevent e JOIN annotation_placement p ON p.id = "
                       "e.placement_id WHERE p.public_id = ? AND e.state = 2", first.replace("-", ""))  # fmt: skip
    assert events[0][0] >= 2
    assert len(finals(site, study)) == 1


def test_flag_note_guide_and_keys(site, study, new_context, enter):
    page = enter(new_context(), study["rater_links"][0])
    page.keyboard.press("g")
    expect(page.locator("#guide")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#guide")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    page.keyboard.press("c")
    page.keyboard.type("语气有点 1 急，p f g")  # keys that are shortcuts elsewhere are letters in here
    page.keyboard.press("Escape")
    rate_one(page)
    wait_until_saved(page)
    rows = site.rows(
        "SELECT note, is_flagged FROM annotation_placement WHERE rater_id = ? AND state = 2", study["seat_pks"][0]
    )
    assert rows == [("语气有点 1 急，p f g", 1)]
    assert site.rows("SELECT n_flagged FROM annotation_member WHERE id = ?", study["seat_pks"][0]) == [(1,)]


def test_composing_chinese_is_not_taken_for_shortcuts(study, new_context, enter):
    page = enter(new_context(), study["rater_links"][0])
    page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', isComposing: true, bubbles: true}))"
    )
    expect(page.locator(".point input:checked")).to_have_count(0)


def test_offline_work_survives_a_reload_and_arrives_once(site, study, new_context, enter):
    """One response online, two offline, the page reloaded in between: everything is stored exactly once."""
    context = new_context()
    page = enter(context, study["rater_links"][0])
    rate_one(page)
    wait_until_saved(page)
    page.wait_for_timeout(500)  # the next response is fetched ahead
    context.set_offline(True)
    rate_one(page)
    score_all(page)
    submit(page)
    expect(page.locator("#waiting")).to_be_visible()
    expect(page.locator("#save-text")).to_contain_text("unsent")
    unsent = page.evaluate("Object.entries(localStorage).filter(([k]) => k.startsWith('qingting:'))")
    assert len(unsent) >= 2
    assert not re.search("[\u4e00-\u9fff]", json.dumps(unsent, ensure_ascii=False)), "text in the browser's storage"
    context.set_offline(False)
    page.reload()
    expect(page.locator("#save-text")).to_contain_text(re.compile("Saved|Nothing unsaved"))
    wait_until_saved(page)
    rows = finals(site, study)
    assert len(rows) == 3 and {n for _id, _rev, n in rows} == {4}


@pytest.mark.parametrize("how_often", [1, 3])
def test_an_answer_lost_after_the_commit_is_asked_for_again(site, study, new_context, enter, how_often):
    context = new_context()
    page = enter(context, study["rater_links"][0])
    lost = []

    def lose(route):
        if route.request.method == "PUT" and len(lost) < how_often:
            route.fetch()  # the server commits …
            lost.append(route.request.post_data_json["op_id"])
            route.abort("connectionreset")  # … and the answer never arrives
        else:
            route.continue_()

    context.route("**/rating", lose)
    rate_one(page)
    for _ in range(120):
        if page.locator("#retry").is_visible():
            page.locator("#retry").click()
        page.wait_for_timeout(250)
        if len(lost) == how_often and not page.locator("#retry").is_visible():
            break
    wait_until_saved(page)
    assert len(lost) == how_often
    for op_id in set(lost):
        assert site.rows("SELECT COUNT(*) FROM annotation_ratingevent WHERE op_id = ?", op_id.replace("-", "")) == [
            (1,)
        ]
    rows = finals(site, study)
    assert len(rows) == 1 and rows[0][2] == 4
    assert site.rows("SELECT n_final FROM annotation_member WHERE id = ?", study["seat_pks"][0]) == [(1,)]


def test_two_tabs_cannot_overwrite_each_other_unseen(site, study, new_context, enter):
    context = new_context()
    one = enter(context, study["rater_links"][0])
    two = context.new_page()
    two.goto(one.url)
    expect(two.locator("#response")).not_to_be_empty()
    shared = current_id(one)
    assert current_id(two) == shared
    one.bring_to_front()
    score_all(one, ("0", "0", "0", "0"))
    submit(one)
    go_on(one, shared)
    wait_until_saved(one)
    two.bring_to_front()
    score_all(two)
    expect(two.locator("#conflict")).to_be_visible()
    two.locator("#keep-mine").click()
    expect(two.locator("#conflict")).to_be_hidden()
    score_all(two)
    submit(two)
    go_on(two, shared)
    wait_until_saved(two)
    rows = finals(site, study)
    assert len(rows) == 1 and rows[0][2] == 4
    values = site.rows("SELECT DISTINCT r.value FROM annotation_rating r JOIN annotation_placement p ON p.id = "
                       "r.placement_id WHERE p.public_id = ?", shared.replace("-", ""))  # fmt: skip
    assert values == [(1,)]
    revs = site.rows("SELECT e.rev FROM annotation_ratingevent e JOIN annotation_placement p ON p.id = e.placement_id "
                     "WHERE p.public_id = ? ORDER BY e.rev", shared.replace("-", ""))  # fmt: skip
    assert [rev for (rev,) in revs] == list(range(1, len(revs) + 1)), "every save of both windows is in the log"


def test_a_session_that_ended_loses_nothing(site, study, new_context, enter):
    context = new_context()
    page = enter(context, study["rater_links"][0])
    wait_until_saved(page)
    page.wait_for_timeout(500)
    before = current_id(page)
    context.clear_cookies(name="sessionid")
    score_all(page)
    expect(page.locator("#signed-out")).to_be_visible()
    other = context.new_page()
    other.goto(site.seed(again=study["seat_pks"][0])["link"])
    follow(other.locator("main form button").first)
    other.close()
    page.bring_to_front()
    expect(page.locator("#signed-out")).to_be_hidden()  # it noticed by itself
    wait_until_saved(page)
    kept = page.locator(".point input:checked").count()
    assert kept >= 1, "what was chosen before is still chosen"
    score_all(page, ["1"] * (4 - kept))
    submit(page)
    go_on(page, before)
    wait_until_saved(page)
    rows = finals(site, study)
    assert [row[0] for row in rows] == [before.replace("-", "")]


def test_somebody_elses_session_in_the_same_browser_loses_nothing(site, study, new_context, enter):
    """Another rater signs in in a second tab; the first one's scores wait until the first is back."""
    context = new_context()
    page = enter(context, study["rater_links"][0])
    before = current_id(page)
    wait_until_saved(page)
    other = context.new_page()
    other.goto(study["rater_links"][1])
    follow(other.locator("main form button").first)
    page.bring_to_front()
    page.keyboard.press("1")
    expect(page.locator("#signed-out")).to_be_visible()
    assert site.rows("SELECT COUNT(*) FROM annotation_ratingevent e JOIN annotation_placement p ON p.id = "
                     "e.placement_id WHERE p.public_id = ?", before.replace("-", "")) == [(0,)]  # fmt: skip
    other.goto(site.seed(again=study["seat_pks"][0])["link"])
    follow(other.locator("main form button").first)
    page.bring_to_front()
    expect(page.locator("#signed-out")).to_be_hidden()
    wait_until_saved(page)
    assert site.rows("SELECT COUNT(*) FROM annotation_ratingevent e JOIN annotation_placement p ON p.id = "
                     "e.placement_id WHERE p.public_id = ?", before.replace("-", "")) == [(1,)]  # fmt: skip


def test_a_paused_study_says_so_and_keeps_what_is_on_the_page(site, study, new_context, enter):
    page = enter(new_context(), study["rater_links"][0])
    site.write("UPDATE annotation_study SET state = 'paused' WHERE id = ?", study["study_pk"])
    page.keyboard.press("1")
    expect(page.locator("#banner")).to_contain_text("paused")
    expect(page.locator(".point input:checked")).to_have_count(1)
    assert finals(site, study) == []


def test_a_content_notice_comes_before_the_text(site, new_context, enter):
    study = site.seed(n_items=2, n_systems=2, risky=True)
    page = enter(new_context(), study["rater_links"][0])
    for _ in range(4):
        if page.locator("#notice").is_visible():
            break
        rate_one(page)
    expect(page.locator("#notice-topics")).to_contain_text("self-harm")
    expect(page.locator("#response")).to_be_hidden()
    page.get_by_role("button", name="Open it").click()
    expect(page.locator("#response")).to_be_visible()
    expect(page.locator("#response")).not_to_be_empty()


def test_hostile_text_stays_text(site, new_context, enter):
    hostile = (
        '<script>document.title="owned"</script><img src=x onerror="document.title=1">{{7*7}}'
        "\u202egnp.exe\u202c =cmd|' /C calc'!A0 \" onmouseover=alert(1) ' --><b>bold</b>"
    )
    study = site.seed(n_items=1, n_systems=2, hostile=hostile)
    page = enter(new_context(), study["rater_links"][0])
    for _ in range(2):
        expect(page.locator("#response")).to_contain_text("<script>")
        expect(page.locator("#dialogue")).to_contain_text("<b>bold</b>")
        assert page.locator("#response script, #response img, #dialogue b").count() == 0
        assert "Rate" in page.title()
        rate_one(page)


def test_it_works_without_a_script(site, study, new_context, enter):
    page = enter(new_context(java_script_enabled=False), study["rater_links"][0])
    for _ in range(4):
        for name in ("content", "empathy", "helpfulness", "safety"):
            page.locator(f"input[name={name}][value='1']").check()
        follow(page.locator("#submit"))
    expect(page.locator("h1")).to_have_text("All done. Thank you.")
    assert len(finals(site, study)) == 4


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (768, 1024), (1280, 720), (1920, 1080)])
@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_it_fits_every_width(site, study, new_context, enter, width, height, language):
    page = enter(new_context(language=language, width=width, height=height), study["rater_links"][0])
    expect(page.locator("#response")).not_to_be_empty()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width >= 1280:
        bottom = page.locator("#submit").evaluate("e => e.getBoundingClientRect().bottom")
        assert bottom <= height, "all four criteria and the action bar fit on the screen"
    small = page.eval_on_selector_all(
        ".point, .bar .button, .bar button:not(.link)",
        "all => all.filter(e => e.offsetParent).map(e => e.getBoundingClientRect())"
        ".filter(r => r.height < 44 || r.width < 44).length",
    )
    assert small == 0
