"""Every page of every role, in both languages and at two widths: axe finds nothing, nothing overflows.

The screenshots of the README are taken on the way, so they cannot grow old.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import resolve
from playwright.sync_api import Error, Page, expect

from tests.e2e.conftest import SCREENSHOTS, follow, go_on

WIDTHS = ((1280, 800), (390, 844))
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
# Files, and Django's own admin, whose pages are not ours to write.
NOT_PAGES = re.compile(
    r"/export/|/api/v1/schema|download|/django-admin/|/static/|#|^mailto:|^tel:|\.(csv|tex|json|svg|pdf|zip)($|\?)"
)


def check(page: Page, *, axe_at: tuple[int, ...] = tuple(width for width, _height in WIDTHS)) -> list[str]:
    """What is wrong with the page that is open: at every width whether it fits, and at some what axe finds."""
    page.wait_for_load_state()
    try:
        return look(page, axe_at)
    except Error:  # it follows a job and came anew in the middle
        page.wait_for_load_state()
        return look(page, axe_at)


def look(page: Page, axe_at: tuple[int, ...]) -> list[str]:
    wrong = []
    for width, height in WIDTHS:
        page.set_viewport_size({"width": width, "height": height})
        address = UUID.sub("…", page.url)
        # Where the sticky bar comes to rest: anywhere else it covers half of whatever passes below it.
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            wrong.append(f"{address} at {width}: {wide} px wide")
        if width not in axe_at:
            continue
        for found in Axe().run(page, options=RULES).response["violations"]:
            nodes = "; ".join(node["html"][:160] for node in found["nodes"][:3])
            wrong.append(f"{address} at {width}: {found['id']} ({found['help']}): {nodes}")
    page.set_viewport_size({"width": WIDTHS[0][0], "height": WIDTHS[0][1]})
    return wrong


def kind_of(address: str) -> str:
    """One name for all pages of one view with the same questions: a job, a job among the failed ones, …"""
    parts = urlsplit(address)
    return "?".join([resolve(parts.path).view_name, *sorted(parse_qs(parts.query))])


def walk(
    page: Page, *, axe_at: tuple[int, ...], known: frozenset[str] = frozenset(), most: int = 80
) -> tuple[set[str], list[str]]:
    """Follow every link from the open page; the kinds of pages seen, and what is wrong.

    known: kinds that axe has seen in another role; they are only looked at for their width.
    """
    waiting, seen, wrong = [page.url], set(), []
    while waiting and len(seen) < most:
        address = waiting.pop(0)
        kind = kind_of(address)
        if kind in seen:
            continue
        seen.add(kind)
        response = page.goto(address)
        assert response.status < 400, f"{response.status} {address}"
        wrong += check(page, axe_at=() if kind in known else axe_at)
        links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
        waiting += [link for link in links if link.startswith("http://127.0.0.1:") and not NOT_PAGES.search(link)]
    return seen, wrong


def said(wrong: list[str]) -> str:
    return "\n".join(dict.fromkeys(wrong))


@pytest.fixture(scope="module")
def states(demo_site, chromium, tmp_path_factory):
    """Signed-in browser states of the demo's staff, by role; the links work once."""
    kept = {}
    for role in ("researcher", "admin"):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(demo_site.links[role])
        follow(page.locator("main form button").first)
        kept[role] = tmp_path_factory.mktemp("state") / f"{role}.json"
        context.storage_state(path=kept[role])
        context.close()
    return kept


# What axe says of a layout is the same in both languages, and what it says of words at both widths.
@pytest.mark.parametrize(("language", "axe_at"), [("zh-hans", (1280, 390)), ("en", (390,))])
def test_staff_pages(demo_site, states, new_context, language, axe_at):
    known: frozenset[str] = frozenset()
    for role, at_least in (("researcher", 15), ("admin", 25)):
        page = new_context(language, storage_state=states[role]).new_page()
        page.goto(demo_site.url)
        seen, wrong = walk(page, axe_at=axe_at, known=known)
        assert not wrong, said(wrong)
        assert len(seen) >= at_least, sorted(seen)
        known |= seen


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_pages_of_somebody_signed_out(demo_site, new_context, language):
    page = new_context(language).new_page()
    wrong = []
    for path in ("/", "/help/", "/join/no-such-link/", "/account/login/"):
        page.goto(demo_site.url + path)
        wrong += check(page)
    assert not wrong, said(wrong)


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_a_raters_way_from_consent_to_thanks(site, new_context, enter, language):
    """Consent, guide, practice with feedback, notice, rating, break, progress, withdrawal, thanks, and 404."""
    study = site.seed(n_items=2, n_systems=2, risky=True, needs_practice=True, is_new=True)
    page = enter(new_context(language), study["rater_links"][0])
    wrong = check(page)
    page.locator("input[name=has_agreed]").check()
    page.locator("input[name=is_ready_for_sensitive]").check()
    follow(page.locator("main form .primary"))
    expect(page.locator(".scale").first).to_be_visible()
    wrong += check(page)
    follow(page.locator("main a.primary"))
    for number in range(6):
        expect(page.locator("fieldset.criterion")).to_have_count(4)
        if number == 0:
            wrong += check(page)
        for fieldset in page.locator("fieldset.criterion").all():
            fieldset.locator("input").nth(1).check()
        follow(page.locator("form.scores .primary"))
        expect(page.locator("table.feedback")).to_be_visible()
        if number == 0:
            wrong += check(page)
        follow(page.locator("main .actions .primary"))
    if "practice" in page.url:  # all ones: not close enough; the next set opens, and here a person lets them in
        passed = "UPDATE annotation_member SET practice_passed_at = datetime('now') WHERE id = ?"
        site.write(passed, study["seat_pks"][0])
    page.goto(f"{site.url}/rater/{study['seats'][0]}/rate/")
    for number in range(4):
        if page.locator("#notice").is_visible():
            wrong += check(page)
            page.locator("#notice-form .primary").click()
            expect(page.locator("#response")).to_be_visible()
        before = page.url
        for key in "g?" if number == 0 else "":
            page.keyboard.press(key)
            wrong += check(page)
            page.keyboard.press("Escape")
        page.locator("#response-heading").focus()
        for key in "1111":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        go_on(page, before)
    expect(page.locator("form [name=words]")).to_be_visible()
    wrong += check(page)
    for name in ("break", "progress", "guide", "consent", "withdraw"):
        page.goto(f"{site.url}/rater/{study['seats'][0]}/{name}/")
        wrong += check(page)
    for path in ("/rater/", "/account/", "/help/", "/nothing/here/"):
        page.goto(site.url + path)
        wrong += check(page)
    assert not wrong, said(wrong)


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_a_raters_last_questions_need_no_script(site, new_context, enter, language):
    """Done, then "Who wrote this?": first with a question left out, then whole; both pages pass with a script, too."""
    study = site.seed(n_items=5, n_systems=2)
    for pk in study["seat_pks"][:1]:
        site.write("UPDATE annotation_placement SET state = 2, rev = 1 WHERE rater_id = ?", pk)
        site.write("UPDATE annotation_member SET n_final = n_placements WHERE id = ?", pk)
    context = new_context(language)
    page = enter(context, study["rater_links"][0])
    plain = new_context(language, java_script_enabled=False, storage_state=context.storage_state()).new_page()
    done, writers = (f"{site.url}/rater/{study['seats'][0]}/{name}/" for name in ("done", "writers"))
    page.goto(done)
    wrong = check(page)
    plain.goto(done)
    follow(plain.locator("form[action*=finish] button"))
    page.goto(done)
    wrong += check(page)
    page.goto(writers)
    wrong += check(page)
    page.locator("main summary").first.click()
    wrong += check(page)
    plain.goto(writers)
    fieldsets = plain.locator("main fieldset")
    expect(fieldsets).to_have_count(3)
    for fieldset in fieldsets.all()[1:]:
        fieldset.locator("input").nth(1).check()
    follow(plain.locator("main form .primary"))
    expect(plain.locator("main fieldset .error")).to_have_count(1)
    expect(plain.locator("main fieldset :checked")).to_have_count(2)
    fieldsets.first.locator("input").last.check()
    follow(plain.locator("main form .primary"))
    expect(plain).to_have_url(done)
    guesses = site.rows(
        "SELECT g.arm_id FROM annotation_authorguess g JOIN annotation_placement p ON p.id = g.placement_id "
        "WHERE p.rater_id = ?",
        study["seat_pks"][0],
    )
    assert [arm is None for (arm,) in guesses].count(True) == 1
    assert len(guesses) == 3
    assert not wrong, said(wrong)


def test_screenshots_for_the_readme(demo_site, states, new_context, enter):
    """The rating page (zh), a researcher's progress and report: as they are today."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page = enter(new_context("zh-hans", device_scale_factor=1), demo_site.links["rater"])
    page.locator("input[name=has_agreed]").check()
    page.locator("input[name=is_ready_for_sensitive]").check()
    follow(page.locator("main form .primary"))
    follow(page.locator("main a.primary"))
    expect(page.locator("#response")).not_to_be_empty()
    for key in "21":
        page.keyboard.press(key)
    expect(page.locator("#save-state")).to_have_attribute("data-state", "saved")
    page.set_viewport_size({"width": 1280, "height": 760})
    page.screenshot(path=SCREENSHOTS / "rating-zh.png")
    page = new_context("zh-hans", storage_state=states["researcher"]).new_page()
    page.goto(demo_site.url)
    follow(page.get_by_role("link", name="示例研究").first)
    study = page.url
    page.goto(f"{study}progress/")
    page.screenshot(path=SCREENSHOTS / "progress-zh.png", full_page=True)
    page.goto(f"{demo_site.url}/studies/")
    follow(page.get_by_role("link", name="Demonstration").first)
    page.goto(f"{page.url}report/")
    page.set_viewport_size({"width": 1280, "height": 1400})
    page.screenshot(path=SCREENSHOTS / "report-zh.png")
