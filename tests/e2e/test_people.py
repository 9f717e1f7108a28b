"""Coming in and accounts in a real browser: readable for everybody, in both languages, on wide and narrow screens."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.conftest import follow
from tests.second_factor import six_digits

PAGES = [
    "/account/",
    "/account/tokens/",
    "/account/password/set/",
    "/account/second-factor/",
    "/account/second-factor/totp/activate/",
    "/account/logout/",
    "/people/",
    "/help/",
]


def complaints(page) -> str:
    found = Axe().run(page)
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0, f"{page.url}: the page scrolls sideways by {width} px"
    return found.generate_report() if found.violations_count else ""


def admin_link(site) -> str:
    return site.manage("createadmin").strip().splitlines()[0]


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("width", [1280, 320])
def test_every_page_can_be_read_by_everybody(site, new_context, language, width):
    context = new_context(language, width=width, dark=width == 320)
    page = context.new_page()
    for path in ("/account/login/", "/help/", "/account/inactive/", "/join/unknown/"):
        page.goto(site.url + path)
        assert not complaints(page)
    page.goto(admin_link(site))
    assert not complaints(page)
    follow(page.locator("main form button").first)
    assert page.url.endswith("/studies/")
    seeded = site.seed(n_items=1)
    study = site.rows("SELECT public_id FROM annotation_study ORDER BY id DESC LIMIT 1")[0][0]
    study = f"{study[:8]}-{study[8:12]}-{study[12:16]}-{study[16:20]}-{study[20:]}"
    for path in (
        *PAGES,
        f"/studies/{study}/people/",
        "/account/password/set/",
        "/account/second-factor/totp/activate/",
    ):
        page.goto(site.url + path)
        assert not complaints(page), path
    assert seeded


def test_a_link_is_shown_once_and_can_be_sent_on(site, new_context, enter):
    page = enter(new_context(), admin_link(site))
    page.goto(site.url + "/people/")
    page.get_by_label("Role").select_option("admin")
    page.get_by_label("For whom").fill("<script>alert(1)</script>")
    follow(page.get_by_role("button", name="Make a link"))
    link = page.get_by_label("Link", exact=True).input_value()
    assert "<script>alert(1)</script>" in page.locator("main").inner_text()
    assert not complaints(page)
    page.goto(site.url + "/people/")
    assert link not in page.content()
    newcomer = enter(new_context(), link)
    newcomer.goto(site.url + "/account/")
    assert "Admin" in newcomer.locator("dl.facts").inner_text()


def test_an_impatient_second_click_sends_nothing(site, new_context, enter):
    page = enter(new_context(), admin_link(site))
    page.goto(site.url + "/people/")
    page.get_by_label("Role").select_option("admin")
    held = []
    page.route("**/people/invite/", lambda route: held.append(route))  # the answer takes its time
    button = page.get_by_role("button", name="Make a link")
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    for _click in range(3):
        page.mouse.click(box["x"] + 5, box["y"] + 5)  # locator.click would wait for the answer
        page.wait_for_timeout(150)
    assert len(held) == 1
    held[0].continue_()
    page.get_by_label("Link", exact=True).wait_for()
    page.unroute("**/people/invite/")
    page.get_by_label("Role").select_option("admin")
    page.get_by_role("button", name="Make a link").click()  # the next page sends again
    page.wait_for_function("document.querySelectorAll('table')[1].querySelectorAll('tbody tr').length >= 2")


def test_password_and_second_factor_are_set_and_asked_for(site, new_context, enter):
    context = new_context()
    page = enter(context, admin_link(site))
    page.goto(site.url + "/account/password/set/")
    name = page.locator("strong").first.inner_text()
    page.locator("input[type=password]").nth(0).fill("a long enough sentence")
    page.locator("input[type=password]").nth(1).fill("a long enough sentence")
    follow(page.get_by_role("button", name="Save the password"))
    page.goto(site.url + "/account/second-factor/totp/activate/")
    picture = page.locator("img.seed")
    assert picture.evaluate("image => image.naturalWidth") > 0  # the policy lets the picture through
    seed = page.locator("li code").inner_text()
    page.get_by_label(re.compile("code", re.I)).fill(six_digits(seed))
    page.get_by_role("button", name="Switch on").click()
    page.wait_for_url("**/codes/")
    assert not complaints(page)
    recovery = page.locator(".codes code").first.inner_text()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/account/login/**")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill("a long enough sentence")
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/second-factor/authenticate/")
    assert not complaints(page)
    page.get_by_label("Code").fill(recovery)
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/studies/")


def test_the_description_of_the_api_is_shown_from_this_site_alone(site, new_context, enter):
    page = enter(new_context(), admin_link(site))
    page.goto(site.url + "/api/v1/docs/")
    assert "GET /api/v1/studies/" in page.locator("main article h2").all_inner_texts()


def test_signing_out_clears_what_the_browser_kept(site, new_context, enter):
    page = enter(new_context(), admin_link(site))
    page.evaluate("localStorage.setItem('kept', '1')")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/account/login/**")
    assert page.evaluate("localStorage.getItem('kept')") is None


def test_djangos_admin_works_under_the_policy(site, new_context, enter):
    page = enter(new_context(), admin_link(site))
    for path in ("", "annotation/user/", "annotation/auditevent/", "annotation/study/"):
        page.goto(f"{site.url}/django-admin/{path}")
        assert page.locator("#content h1, #content-main").first.is_visible()
