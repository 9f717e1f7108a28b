"""The canary crawl: every field that bears an identity carries a mark, and no byte a rater can fetch holds one."""

from __future__ import annotations

import json
import re
import uuid
from html import unescape

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from annotation.models import (
    AuthorGuess,
    Dataset,
    ImportRecord,
    Item,
    Member,
    Placement,
    Response,
    Study,
    StudyResponse,
    System,
    User,
)
from annotation.selectors.authors import author_draw, author_page
from annotation.services import ratings
from annotation.services.ratings import Change, submit_rating
from models_runtime.models import Runtime, RuntimeVersion
from tests import factories
from tests.annotation.rated import rate
from tests.architecture.routes import TABLE
from tests.architecture.test_routes import METHODS, world  # noqa: F401  (a fixture)

MARK = re.compile(r"canary[-_ ]?[a-z0-9]+", re.IGNORECASE)
LINK = re.compile(r'(?:href|action|src)="([^"#]+)"')
HEADERS = {
    "allow", "cache-control", "clear-site-data", "content-disposition", "content-language", "content-length",
    "content-security-policy", "content-type", "cross-origin-opener-policy", "expires", "location", "pragma",
    "referrer-policy", "vary", "www-authenticate", "x-content-type-options", "x-frame-options",
}  # fmt: skip


def canary(name: str) -> str:
    return f"canary{name}{uuid.uuid4().hex[:8]}"


@pytest.fixture
def study(db, researcher) -> Study:
    """A draft in which everything that could tell a system, a person or a source bears a mark."""
    User.objects.filter(pk=researcher.pk).update(first_name=canary("first"), last_name=canary("last"))
    User.objects.filter(pk=researcher.pk).update(email=f"{canary('mail')}@example.org", username=canary("user"))
    dataset = factories.make_dataset(
        canary("slug"), name=canary("dataset"), source=canary("source"), licence=canary("licence")
    )
    study = factories.make_study(researcher=researcher, dataset=dataset, name=canary("study"))
    record = ImportRecord.objects.create(
        kind="responses",
        dataset=dataset,
        file_name=f"{canary('file')}.jsonl",
        file_sha256="0" * 64,
        options_sha256="0" * 64,
        options={"path": canary("path")},
    )
    for item in Item.objects.filter(dataset=dataset):
        Item.objects.filter(pk=item.pk).update(
            key=canary("key"), dialogue_key=canary("dialogue"), topic_label=canary("topic"), imported_from=record
        )
    for arm in study.arms.select_related("system"):
        name, alias = canary("System"), canary("Alias")
        System.objects.filter(pk=arm.system_id).update(
            slug=canary("sslug"), name=name, aliases=[alias], description=canary("about")
        )
        runtime = {"weights": canary("folder"), "base_url": canary("host"), "model": canary("model")}
        Runtime.objects.create(system=arm.system, kind="local", settings=runtime, sealed_key=canary("key"))
        RuntimeVersion.objects.create(system=arm.system, number=1, digest=canary("digest"), spec=runtime)
        for response in Response.objects.filter(system=arm.system_id):
            # The text itself gives its system away, by name, by alias and by a token of its family.
            text = f"我是{name}。{response.text} As {alias}, I care."
            Response.objects.filter(pk=response.pk).update(
                text=text,
                original=f"<|{canary('token')}|>{text}",
                provenance={"weights": canary("weights"), "provider": canary("provider"), "seconds": 1.234567},
                disclosures=[{"matched": name}],
                imported_from=record,
            )
    return study


@pytest.fixture
def busy_study(open_study, second_rater) -> Study:
    """The other raters have rated, noted and flagged."""
    for placement in Placement.objects.of(second_rater)[:6]:
        submit_rating(
            user=second_rater.user,
            public_id=placement.public_id,
            change=Change(
                op_id=uuid.uuid4(),
                base_rev=0,
                scores={"content": 2, "empathy": 1, "helpfulness": 0, "safety": 1},
                is_final=True,
                note=canary("note"),
                is_flagged=True,
            ),
        )
    return open_study


def everything(response) -> str:
    """Body, headers and cookies of an answer, as sent and with HTML's escapes undone."""
    body = b"".join(response.streaming_content) if response.streaming else response.content
    text = body.decode(errors="replace")
    headers = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
    cookies = response.cookies.output()
    return "\n".join([text, unescape(text), headers, cookies])


def secret_ids(rater) -> set[str]:
    """Ids that lead to systems, sources or other people."""
    ids = {str(s.public_id) for model in (System, Dataset, Study, ImportRecord) for s in model.objects.all()}
    ids |= {str(p.public_id) for p in Placement.objects.exclude(rater=rater)}
    return ids | {response.sha256 for response in Response.objects.all()}


def crawl(client: Client, starts: list[str]):
    """Every page that can be reached by links from `starts`, each once."""
    waiting, seen = list(starts), set()
    while waiting:
        address = waiting.pop()
        if address in seen or not address.startswith("/") or len(seen) > 400:
            continue
        seen.add(address)
        response = client.get(address, follow=False)
        yield address, response
        if response.headers.get("Location"):
            waiting.append(response.headers["Location"])
        if response.headers.get("Content-Type", "").startswith("text/html"):
            waiting += [unescape(link) for link in LINK.findall(response.content.decode())]


@pytest.mark.usefixtures("busy_study")
class TestNoByteTellsARater:
    def check(self, rater, response, where: str) -> None:
        text = everything(response)
        assert not MARK.findall(text), f"{where} tells {MARK.findall(text)[:3]}"
        told = [secret for secret in secret_ids(rater) if secret in text]
        assert not told, f"{where} holds the id {told[:3]}"
        strange = {name.lower() for name in response.headers} - HEADERS
        assert not strange, f"{where} sends {strange}"

    @pytest.mark.parametrize("language", ["zh-hans", "en"])
    def test_on_any_route_with_any_method(self, world, rater, language):  # noqa: F811
        for row in {(row.name, row.of): row for row in TABLE}.values():
            if row.name in ("account_logout", "rater_withdraw", "accept_invitation"):
                continue  # they end the rater's session or seat; their pages are crawled below
            for method in METHODS:
                client = Client(raise_request_exception=False)
                client.force_login(rater.user)
                client.cookies[settings.LANGUAGE_COOKIE_NAME] = language
                kwargs = world.addresses[row.of]
                address = reverse(row.name, kwargs=kwargs)
                body = json.dumps(row.body) if row.is_api else row.body
                kind = {"content_type": "application/json"} if row.is_api else {}
                if method not in ("GET", "POST") and not row.is_api:
                    body, kind = b"", {"content_type": "application/octet-stream"}
                response = getattr(client, method.lower())(address, body if method != "GET" else {}, **kind)
                asked = set(map(str, kwargs.values()))
                text_ids = secret_ids(rater) & asked  # the address that was asked for may be repeated
                where = f"{method} {address}"
                text = everything(response)
                assert not MARK.findall(text), f"{where} tells {MARK.findall(text)[:3]}"
                assert not [s for s in secret_ids(rater) - text_ids if s in text], f"{where} holds a foreign id"
                assert not {n.lower() for n in response.headers} - HEADERS, where

    def test_on_any_page_that_links_lead_to(self, rater):
        client = Client()
        client.force_login(rater.user)
        addresses = [address for address, response in crawl(client, ["/"]) if not self.check(rater, response, address)]
        assert reverse("rate", args=[rater.public_id]) in addresses
        assert len(addresses) > 10

    def test_through_a_whole_queue(self, rater):
        """Every card of the API, before and after rating, with what comes next and what was before."""
        client = Client()
        client.force_login(rater.user)
        n = 0
        next_url = reverse("api_next", args=[rater.public_id])
        while card := client.get(next_url).json()["card"]:
            place = [rater.public_id, card["public_id"]]
            answers = [
                client.get(reverse("api_card", args=place)),
                client.put(
                    reverse("api_rating", args=place[1:]),
                    json.dumps({
                        "op_id": str(uuid.uuid4()), "base_rev": 0, "is_final": True, "holding": [],
                        "scores": {"content": 1, "empathy": 1, "helpfulness": 1, "safety": 1},
                    }),
                    content_type="application/json",
                ),
                client.get(reverse("api_previous", args=place)),
            ]  # fmt: skip
            for answer in answers:
                self.check(rater, answer, answer.request["PATH_INFO"])
                assert answer.status_code == 200
            n += 1
        assert n == rater.n_placements

    @pytest.mark.parametrize("language", ["zh-hans", "en"])
    def test_in_the_questions_about_writers(self, rater, language):
        """Examples by every system stand side by side there, so of all pages this one must not tell who wrote them."""
        rate(rater.study, 1, only=lambda placement: placement.rater == rater)
        Member.objects.filter(pk=rater.pk).update(n_final=rater.n_placements)
        client = Client()
        client.force_login(rater.user)
        client.cookies[settings.LANGUAGE_COOKIE_NAME] = language
        done, writers, finish = (
            reverse(name, args=[rater.public_id]) for name in ("rater_done", "rater_authors", "rater_finish")
        )
        self.check(rater, client.post(finish), finish)
        page = client.get(writers)
        shown = [response.text for row in author_page(author_draw(rater)).examples for response in row]
        assert len(shown) == 8
        assert all(text in unescape(page.content.decode()) for text in shown)
        answers = dict.fromkeys(re.findall(r'name="([0-9a-f-]{36})"', page.content.decode()), "1")
        answers_but_one = dict(list(answers.items())[1:])
        for response in (page, client.post(writers, answers_but_one), client.post(writers, answers), client.get(done)):
            self.check(rater, response, response.request["PATH_INFO"])
        assert AuthorGuess.objects.count() == len(answers) == 2

    def test_in_error_pages(self, rater, monkeypatch):
        client = Client(raise_request_exception=False)
        client.force_login(rater.user)
        system = System.objects.first()

        def break_down(*args, **kwargs):
            raise RuntimeError(f"weights of {system.name} at {system.slug}")

        placement = Placement.objects.of(rater).first()
        monkeypatch.setattr(ratings, "_save", break_down)
        monkeypatch.setattr("annotation.views.rater.next_card", break_down)
        for response in (
            client.get(reverse("rate", args=[rater.public_id])),
            client.put(
                reverse("api_rating", args=[placement.public_id]),
                json.dumps({"op_id": str(uuid.uuid4()), "base_rev": 0, "scores": {}, "is_final": False}),
                content_type="application/json",
            ),
            client.get("/no/such/page/"),
            client.get(reverse("system_detail", args=[uuid.uuid4()])),
        ):
            assert response.status_code in (404, 500)
            self.check(rater, response, response.request["PATH_INFO"])


def test_that_crawl_would_notice(busy_study, researcher, admin, as_user):
    """The same marks are there for those who may see them, so their absence above means something."""
    page = as_user(admin).get(reverse("system_list"))
    assert MARK.search(everything(page))
    assert MARK.search(everything(as_user(researcher).get(reverse("study_detail", args=[busy_study.public_id]))))


def test_a_researcher_sees_codes_and_no_names_until_unblinding(busy_study, researcher, as_user):
    names = [word for s in System.objects.filter(arms__study=busy_study) for word in (s.name, s.slug, *s.aliases)]
    client = as_user(researcher)
    for address, response in crawl(client, [reverse("study_detail", args=[busy_study.public_id])]):
        text = everything(response)
        assert not [name for name in names if name in text], address


def test_what_is_shown_has_no_way_back_to_its_system(busy_study, rater):
    """Two arms with the same text look the same: nothing but text, slot and a random id differs between cards."""
    client = Client()
    client.force_login(rater.user)
    cards = [
        client.get(reverse("api_card", args=[rater.public_id, p.public_id]))
        for p in Placement.objects.of(rater).order_by("position")
    ]
    assert len({tuple(sorted(card.headers)) for card in cards}) == 1
    assert len({tuple(sorted(card.json()["card"])) for card in cards}) == 1
    assert StudyResponse.objects.exists()
    assert StudyResponse.objects.filter(n_masks__gt=0).count() == StudyResponse.objects.count()
