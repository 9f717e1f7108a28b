"""The gate in front of every page: deny by default, sessions that end, languages, errors, start-up, admin."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from allauth.account.internal.flows import login as login_flow
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import include, path, reverse
from django.utils import timezone

from annotation import doctor
from annotation.admin import site
from annotation.errors import StudyClosed
from annotation.models import (
    AuditEvent,
    AuthorGuess,
    Dataset,
    ImportRecord,
    Judge,
    JudgeRating,
    PracticeAnswer,
    Rating,
    RatingEvent,
    System,
)
from annotation.services import people
from annotation.views.access import public
from jobs.models import Job
from models_runtime.models import (
    BatchPart,
    GenerationBatch,
    GenerationFailure,
    PromptTemplate,
    Runtime,
    RuntimeVersion,
)
from tests import factories
from tests.training import rows
from training.models import TrainingRun


def forgotten(request: HttpRequest) -> HttpResponse:
    return HttpResponse("secret")


@public
def open_to_all(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def closed_study(request: HttpRequest) -> HttpResponse:
    raise StudyClosed("The study <b>rests</b>.")


urlpatterns = [
    path("forgotten/", forgotten),
    path("api/v1/forgotten/", forgotten),
    path("open/", open_to_all),
    path("closed/", closed_study),
    path("", include("config.urls")),
]
handler404 = "annotation.views.errors.not_found"


@pytest.fixture
def odd_urls(settings):
    settings.ROOT_URLCONF = __name__


def test_a_view_that_forgot_its_decorator_is_closed(client, odd_urls, db):
    answer = client.get("/forgotten/?a=1")
    assert answer.status_code == 302
    assert answer["Location"] == "/account/login/?next=/forgotten/%3Fa%3D1"
    assert client.post("/forgotten/")["Location"] == "/account/login/?next=/"
    answer = client.get("/api/v1/forgotten/")
    assert answer.status_code == 401
    assert answer.json()["code"] == "not_authenticated"
    assert client.get("/open/").content == b"hello"


def test_a_part_of_a_page_that_polls_asks_for_the_whole_page(client, odd_urls, db):
    answer = client.get("/forgotten/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Refresh"]) == (401, "true")


def test_the_gate_asks_the_database_for_session_and_user_only(as_user, stranger, odd_urls):
    client = as_user(stranger)
    client.get("/forgotten/")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get("/forgotten/").content == b"secret"
    assert len(queries) == 2
    with CaptureQueriesContext(connection) as queries:
        Client().get("/open/")
    assert len(queries) == 0


def test_the_gate_is_as_cheap_for_staff_with_a_second_factor(as_user, researcher, settings, odd_urls):
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    researcher.set_password("correct horse battery")
    researcher.save()
    client = as_user(researcher)
    session = client.session
    session[login_flow.AUTHENTICATION_METHODS_SESSION_KEY] = [{"method": "mfa", "at": 0}]
    session[login_flow._AUTHENTICATION_METHODS_USER_SESSION_KEY] = str(researcher.pk)
    session.save()
    client.get("/forgotten/")
    with CaptureQueriesContext(connection) as queries:
        assert client.get("/forgotten/").content == b"secret"
    assert len(queries) == 2


def test_nothing_for_a_signed_in_person_is_cached(as_user, stranger, odd_urls):
    client = as_user(stranger)
    for where in ("/forgotten/", "/open/", "/help/", "/nowhere/"):
        assert client.get(where)["Cache-Control"] == "no-store"
    assert Client().get("/open/").get("Cache-Control") is None


def test_an_error_of_the_domain_becomes_a_page(as_user, stranger, odd_urls):
    answer = as_user(stranger).get("/closed/")
    assert answer.status_code == 423
    assert "The study &lt;b&gt;rests&lt;/b&gt;." in answer.content.decode()


def test_a_session_ends_at_its_absolute_age_however_busy_it_is(as_user, stranger, settings, odd_urls):
    start = timezone.now()
    with time_machine.travel(start, tick=False):
        client = as_user(stranger)
        client.get("/forgotten/")
    hours = settings.SESSION_ABSOLUTE_AGE // 3600
    for hour in range(6, hours, 6):
        with time_machine.travel(start + timedelta(hours=hour), tick=False):
            assert client.get("/forgotten/").status_code == 200, hour
    with time_machine.travel(start + timedelta(hours=hours, minutes=1), tick=False):
        assert client.get("/forgotten/").status_code == 302
        assert client.get("/api/v1/forgotten/").status_code == 401
    assert not Session.objects.exists()


def test_a_session_is_renewed_once_half_of_it_is_used_up(as_user, stranger, settings, odd_urls):
    start = timezone.now()
    with time_machine.travel(start, tick=False):
        client = as_user(stranger)
        client.get("/forgotten/")
        first = Session.objects.get().expire_date
    with time_machine.travel(start + timedelta(hours=5), tick=False):
        client.get("/forgotten/")
        assert Session.objects.get().expire_date == first  # no write for nothing
    with time_machine.travel(start + timedelta(hours=7), tick=False):
        answer = client.get("/forgotten/")
        assert Session.objects.get().expire_date > first
        assert settings.SESSION_COOKIE_NAME in answer.cookies


def test_an_idle_session_ends(as_user, stranger, settings, odd_urls):
    start = timezone.now()
    with time_machine.travel(start, tick=False):
        client = as_user(stranger)
    with time_machine.travel(start + timedelta(seconds=settings.SESSION_COOKIE_AGE + 1), tick=False):
        assert client.get("/forgotten/").status_code == 302


def test_pages_speak_the_person_s_language_unless_the_browser_chose_one(as_user, odd_urls, db):
    reader = factories.make_user(language="zh-hans")
    client = as_user(reader)
    assert '<html lang="zh-Hans">' in client.get("/help/").content.decode()
    answer = client.post(reverse("set_language"), {"language": "en", "next": "/help/"})
    assert answer["Location"] == "/help/"
    assert '<html lang="en">' in client.get("/help/").content.decode()
    answer = client.post(reverse("set_language"), {"language": "en", "next": "https://evil.example/"})
    assert "evil" not in answer.get("Location", "")


def test_help_works_signed_out_and_names_the_contact(client, settings, db, as_user, rater, open_study):
    settings.SUPPORT_CONTACT = "help@example.org"
    page = client.get(reverse("help")).content.decode()
    assert "12356" in page
    assert "help@example.org" in page
    open_study.contact = "Dr <i>Chen</i>"
    open_study.save()
    page = as_user(rater.user).get(reverse("help")).content.decode()
    assert "Dr &lt;i&gt;Chen&lt;/i&gt;" in page
    assert "help@example.org" not in page


def test_small_public_files(client, db, monkeypatch):
    assert client.get("/healthz").content == b"ok"
    assert client.get("/robots.txt").content == b"User-agent: *\nDisallow: /\n"

    class Broken:
        def cursor(self):
            raise OperationalError("password for host db-7 is wrong")

    monkeypatch.setattr("annotation.views.people.connection", Broken())
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (503, b"unavailable")


def test_home_leads_to_one_s_work(as_user, stranger, researcher):
    assert as_user(stranger).get("/")["Location"] == reverse("rater_home")
    assert as_user(researcher).get("/")["Location"] == reverse("study_list")


# --- The API's answers ----------------------------------------------------------------------------------


def test_signed_out_is_401_and_another_role_is_404(client, as_user, rater, researcher):
    url = reverse("api_next", args=[rater.public_id])
    answer = client.get(url)
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["code"] == "not_authenticated"
    answer = as_user(researcher).get(url)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_a_missing_csrf_token_is_403_in_the_api(as_user, rater):
    placement = rater.placements.first()
    client = as_user(rater.user, enforce_csrf_checks=True)
    answer = client.put(reverse("api_rating", args=[placement.public_id]), {}, content_type="application/json")
    assert answer.status_code == 403


def test_fields_that_cannot_be_taken_are_named(as_user, rater):
    placement = rater.placements.first()
    answer = as_user(rater.user).put(
        reverse("api_rating", args=[placement.public_id]), {"op_id": "no"}, content_type="application/json"
    )
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"
    assert "op_id" in answer.json()["fields"]


def test_the_description_of_the_api_names_no_system(as_user, researcher, study):
    System.objects.filter(pk=System.objects.first().pk).update(name="CANARY-NAME", description="CANARY-TEXT")
    answer = as_user(researcher).get(reverse("api_schema"))
    assert answer.status_code == 200
    assert "CANARY" not in answer.content.decode()
    page = as_user(researcher).get(reverse("api_docs"))
    assert "trusted-types" in page["Content-Security-Policy"]
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert "https://" not in page.content.decode()


# --- Django's admin -------------------------------------------------------------------------------------

MODELS = sorted(site._registry, key=lambda model: model._meta.label)


def admin_url(model, page: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def test_only_admins_with_the_second_factor_enter(as_user, admin, researcher, stranger, client, settings):
    assert client.get("/django-admin/")["Location"].startswith(reverse("account_login"))
    assert as_user(researcher).get("/django-admin/").status_code == 404
    assert as_user(stranger).get("/django-admin/").status_code == 404
    assert as_user(admin).get("/django-admin/").status_code == 200
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    assert as_user(admin).get("/django-admin/").status_code == 302


def test_its_own_sign_in_is_replaced_by_the_site_s(client, db):
    answer = client.get("/django-admin/login/?next=/django-admin/")
    assert answer["Location"].startswith(reverse("account_login"))


def test_its_tables_are_for_looking(as_user, admin, open_study, rater):
    fill_every_table(open_study, admin, rater)
    client = as_user(admin)
    for model in MODELS:
        row = model._default_manager.order_by("pk").last()
        assert row is not None, f"the test leaves {model._meta.label} empty"
        table = admin_url(model, "changelist")
        page = client.get(table)
        assert page.status_code == 200, model
        assert "delete_selected" not in page.content.decode(), model
        shown = client.get(admin_url(model, "change", row.pk))
        assert shown.status_code == 200, model
        assert client.get(admin_url(model, "history", row.pk)).status_code == 200, model
        for secret in ("token_hash", "password", "sealed_key"):
            if hasattr(row, secret):
                assert getattr(row, secret) not in page.content.decode() + shown.content.decode(), model
        for gone in (f"{table}add/", f"{table}{row.pk}/delete/"):
            assert client.get(gone).status_code == client.post(gone).status_code == 404, model

        editable = site._registry[model].editable
        frozen = [field.attname for field in model._meta.fields if field.name not in editable]
        before = model._default_manager.filter(pk=row.pk).values(*frozen).get()
        poisoned = {field.name: "7" for field in model._meta.fields if field.name not in editable}
        bulk = {"action": "delete_selected", "_selected_action": row.pk}
        assert client.post(table, poisoned | bulk).status_code < 500
        assert (
            client.post(admin_url(model, "change", row.pk), poisoned | dict.fromkeys(editable, "en")).status_code < 500
        )
        assert model._default_manager.filter(pk=row.pk).values(*frozen).get() == before, model


def fill_every_table(study, admin, rater) -> None:
    people.create_sign_in_link(person=rater.user, by=admin)
    admin.set_password("correct horse battery")
    admin.save()
    people.create_api_token(person=admin, name="t", lifetime=timedelta(days=1))
    placement = rater.placements.first()
    dimension = study.rubric.dimensions.first()
    Rating.objects.create(placement=placement, dimension=dimension, value=1)
    RatingEvent.objects.create(placement=placement, rev=1, scores={dimension.key: 1}, state=1)
    PracticeAnswer.objects.create(member=rater, practice_set=1, item_id="p1", scores={}, is_within_tolerance=True)
    ImportRecord.objects.create(
        kind="items", dataset=Dataset.objects.first(), file_name="a.csv", file_sha256="0", options_sha256="0"
    )
    Job.objects.create(kind="test")
    AuthorGuess.objects.create(placement=placement, arm=None)
    judge = Judge.objects.create(study=study, name="J", model="m", file_name="a.csv", file_sha256="0", n_ratings=1)
    JudgeRating.objects.create(judge=judge, study_response=placement.study_response, dimension=dimension, value=1)
    system, item = study.arms.first().system, study.study_items.first().item
    PromptTemplate.objects.create(template_id="t", version="1", content={})
    Runtime.objects.create(system=system, kind=Runtime.Kind.ENDPOINT, settings={}, sealed_key="sealed-canary")
    version = RuntimeVersion.objects.create(system=system, number=1, digest="0", spec={})
    batch = GenerationBatch.objects.create(dataset=item.dataset, seed=1)
    part = BatchPart.objects.create(
        batch=batch, system=system, kind=Runtime.Kind.ENDPOINT, settings={}, version=version
    )
    GenerationFailure.objects.create(part=part, item=item, code="empty", message="nothing came")
    corpus = rows.ready_corpus()
    rows.make_case(corpus)
    rows.make_rewriting(system=system)
    TrainingRun.objects.create(name="r", corpus=corpus, base="w", config={})


def test_a_harmless_field_can_be_changed_and_that_is_logged(as_user, admin, study):
    dataset = Dataset.objects.first()
    answer = as_user(admin).post(
        admin_url(Dataset, "change", dataset.pk), {"source": "a library", "licence": "CC0", "name": "x", "n_items": 9}
    )
    assert answer.status_code == 302
    dataset.refresh_from_db()
    assert (dataset.source, dataset.licence, dataset.n_items) == ("a library", "CC0", 0)
    assert dataset.name != "x"
    assert AuditEvent.objects.get(action="admin.changed").detail["fields"] == ["licence", "source"]


def test_lists_take_a_fixed_number_of_queries(as_user, admin, open_study, django_assert_max_num_queries):
    client = as_user(admin)
    client.get("/help/")
    for model in MODELS:
        with django_assert_max_num_queries(6):
            client.get(admin_url(model, "changelist"))


# --- Start-up -------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]


def production(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`manage.py …` with production settings, in a process of its own."""
    given = {
        "PATH": os.environ["PATH"],
        "QINGTING_DATA_DIR": str(tmp_path),
        "ALLOWED_HOSTS": "rate.example.org",
        "PUBLIC_URL": "https://rate.example.org",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "manage.py", *arguments, "--settings", "config.settings.production"],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_production_settings_pass_djangos_deployment_check(tmp_path):
    done = production(tmp_path, "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value"),
    [("SECRET_KEY", "short"), ("ALLOWED_HOSTS", ""), ("PUBLIC_URL", "http://plain"), ("QINGTING_DEMO", "1")],
)
def test_production_refuses_to_start_unsafely(tmp_path, setting, value):
    done = production(tmp_path, "check", **{setting: value})
    assert done.returncode != 0
    assert "ImproperlyConfigured" in done.stderr


def test_the_doctor_prints_a_table(db, capsys, settings):
    settings.SECRET_KEY = "short"
    with pytest.raises(CommandError, match="problem"):
        call_command("doctor")
    table = capsys.readouterr().out
    for what in (
        "database",
        "cache",
        "secret key",
        "fonts",
        "broker",
        "disk",
        "clock",
        "allowed hosts",
        "check --deploy",
    ):
        assert what in table
    assert "short" not in table.replace("5 characters", "")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ALLOWED_HOSTS": ["*"]}, "allowed hosts"),
        ({"FIELD_ENCRYPTION_KEYS": ["no key"]}, "field keys"),
        ({"FIELD_ENCRYPTION_KEYS": []}, "field keys"),
        ({"CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}, "cache"),
    ],
)
def test_the_doctor_finds_what_is_wrong(db, settings, change, what):
    for name, value in change.items():
        setattr(settings, name, value)
    states = {finding.what: finding.state for finding in doctor.findings()}
    assert states[what] == "problem"


def test_the_doctor_is_content_with_a_sound_installation(db):
    problems = [finding for finding in doctor.findings() if finding.state == "problem" and finding.what != "fonts"]
    assert not problems
