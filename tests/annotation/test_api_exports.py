"""Exports for scripts: by session or token, for the people of a study, with fields that were chosen one by one."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotation.api.exports import ResultOutput
from annotation.export import result_columns
from annotation.models import ApiToken, System, User
from annotation.models.people import hash_token, new_token
from tests import factories
from tests.annotation.rated import rate, unblind, varied

NAMES = ("api_study_detail", "api_study_ratings", "api_study_scores")


def token_of(user: User, **fields) -> dict[str, str]:
    """The header that carries a fresh token of this user."""
    secret = new_token()
    fields.setdefault("expires_at", timezone.now() + timedelta(days=1))
    ApiToken.objects.create(user=user, name="script", token_hash=hash_token(secret), last_four=secret[-4:], **fields)
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def rated_study(open_study):
    rate(open_study, varied)
    return open_study


def test_a_token_lists_the_studies_of_its_owner(rated_study, researcher, other_researcher, admin):
    (study,) = Client().get(reverse("api_study_list"), headers=token_of(researcher)).json()
    assert study == {
        "public_id": str(rated_study.public_id),
        "name": rated_study.name,
        "state": "open",
        "rubric": "cehs 1.0.0",
        "is_unblinded": False,
        "n_items": 4,
        "created_at": study["created_at"],
        "opened_at": study["opened_at"],
        "closed_at": None,
    }
    assert Client().get(reverse("api_study_list"), headers=token_of(other_researcher)).json() == []
    assert len(Client().get(reverse("api_study_list"), headers=token_of(admin)).json()) == 1


def test_a_study_names_its_arms_by_code(rated_study, researcher, as_user):
    study = as_user(researcher).get(reverse("api_study_detail", args=[rated_study.public_id])).json()
    assert study["arms"] == [{"code": code, "system_slug": "", "system_name": ""} for code in "ABCD"]
    assert [(d["key"], d["scale"]) for d in study["dimensions"]] == [
        ("content", [0, 1, 2]), ("empathy", [0, 1, 2]), ("helpfulness", [0, 1, 2]), ("safety", [0, 1]),
    ]  # fmt: skip
    assert study["n_placements"] == sum(m.n_placements for m in rated_study.members.raters())
    assert study["raters_per_item"] == 3


def test_ratings_come_as_the_same_files_the_pages_offer(rated_study, researcher, as_user):
    url = reverse("api_study_ratings", args=[rated_study.public_id])
    for query, file_format in (("", "jsonl"), ("?format=jsonl", "jsonl"), ("?format=csv", "csv")):
        response = Client().get(url + query, headers=token_of(researcher))
        page = as_user(researcher).get(reverse("study_export", args=[rated_study.public_id, "ratings", file_format]))
        assert response.status_code == 200
        assert response.streaming
        assert response["Cache-Control"] == "no-store"
        assert response["Content-Type"] == page["Content-Type"]
        assert response.getvalue() == page.getvalue()
    workbook = Client().get(url + "?format=xlsx", headers=token_of(researcher))
    assert workbook.getvalue().startswith(b"PK")


def test_scores_are_the_numbers_of_the_files(rated_study, researcher, as_user):
    client = as_user(researcher)
    scores = client.get(reverse("api_study_scores", args=[rated_study.public_id])).json()
    for name in ("scores", "agreement"):
        file = client.get(reverse("study_export", args=[rated_study.public_id, name, "jsonl"])).getvalue()
        assert scores[name] == [json.loads(line) for line in file.splitlines()]
    assert (scores["n_responses"], scores["n_responses_complete"]) == (16, 16)
    (kappa,) = [
        row for row in scores["agreement"]
        if (row["metric"], row["dimension"], row["arm"]) == ("fleiss_kappa", "safety", "")
    ]  # fmt: skip
    assert (kappa["value"], kappa["reason"]) == (None, "no_variation")


def test_the_described_fields_are_those_of_the_files():
    assert list(ResultOutput().fields) == [column.name for column in result_columns(see_systems=True)]


def test_systems_are_named_after_unblinding_only(rated_study, researcher, admin, as_user):
    names = [name for system in System.objects.all() for name in (system.name, system.slug)]
    urls = [reverse(name, args=[rated_study.public_id]) for name in NAMES] + [reverse("api_study_list")]
    for person in (researcher, admin):
        for url in urls:
            content = as_user(person).get(url).getvalue().decode()
            assert not [name for name in names if name in content]
    unblind(rated_study, admin)
    for name in NAMES:
        content = as_user(researcher).get(reverse(name, args=[rated_study.public_id])).getvalue().decode()
        assert not [system.name for system in System.objects.all() if system.name not in content]


def test_it_is_there_for_the_people_of_the_study_only(rated_study, other_researcher, rater, as_user):
    for name in NAMES:
        url = reverse(name, args=[rated_study.public_id])
        assert Client().get(url).status_code == 401
        assert Client().get(url, headers={"authorization": "Bearer nonsense"}).status_code == 401
        assert Client().get(url, headers=token_of(other_researcher)).status_code == 404
        assert as_user(other_researcher).get(url).status_code == 404
        assert as_user(rater.user).get(url).status_code == 404
    assert as_user(rater.user).get(reverse("api_study_list")).status_code == 404
    assert Client().get(reverse("api_study_list")).status_code == 401


def test_a_token_that_ended_opens_nothing(rated_study, researcher):
    url = reverse("api_study_list")
    past = timezone.now() - timedelta(seconds=1)
    assert Client().get(url, headers=token_of(researcher, expires_at=past)).status_code == 401
    assert Client().get(url, headers=token_of(researcher, revoked_at=past)).status_code == 401


def test_nothing_can_be_written(rated_study, researcher, as_user):
    for name in NAMES:
        url = reverse(name, args=[rated_study.public_id])
        for method in ("post", "put", "patch", "delete"):
            assert getattr(as_user(researcher), method)(url).status_code == 405


def test_an_unknown_format_is_refused_by_name(rated_study, researcher, as_user):
    for name in ("api_study_ratings", "api_study_scores"):
        response = as_user(researcher).get(reverse(name, args=[rated_study.public_id]) + "?format=exe")
        assert response.status_code == 422
        assert "xlsx, csv, csv-exact, jsonl" in response.json()["fields"]["format"]


def test_the_list_takes_no_more_queries_when_it_is_longer(researcher, as_user):
    client = as_user(researcher)

    def n_queries(n_studies: int) -> int:
        factories.make_study(researcher=researcher)
        with CaptureQueriesContext(connection) as queries:
            assert len(client.get(reverse("api_study_list")).json()) == n_studies
        return len(queries)

    n_queries(1)  # the first request also settles the session
    assert n_queries(2) == n_queries(3)
