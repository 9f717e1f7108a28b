"""Every route × method × role answers as routes.py says; a route that is not in it, or no longer exists, fails."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotation.models import ImportRecord, Invitation, Judge, Member, Role, Study, User
from annotation.services import people
from jobs.models import Job
from models_runtime.models import GenerationBatch
from models_runtime.runtimes import LocalSettings
from models_runtime.services.batches import Launch, Questions, launch_batch
from models_runtime.services.runtimes import set_runtime
from tests import factories
from tests.architecture.routes import ADMIN_RULE, PASSWORD, ROLES, TABLE, Row
from tests.training import rows
from training.models import Corpus, TrainingRun

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
UNSAFE = METHODS[1:]


def all_routes(resolver: URLResolver | None = None, namespace: str = "") -> list[tuple[str, URLPattern]]:
    """(name with its namespace, pattern) for all that the resolver knows."""
    found = []
    for entry in (resolver or get_resolver()).url_patterns:
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            found += all_routes(entry, inner)
        else:
            found.append((f"{namespace}{entry.name}", entry))
    return found


SITE_ROUTES = sorted({name for name, _pattern in all_routes() if not name.startswith("admin:")})


@dataclass
class World:
    """One of everything that an address can belong to, and somebody in each role."""

    cast: dict[str, User | None]
    addresses: dict[str, dict[str, Any]]

    def client(self, role: str, **options: Any) -> Client:
        client = Client(raise_request_exception=False, **options)
        if (user := self.cast[role]) is not None:
            client.force_login(user)
        return client

    def ask(
        self, client: Client, row: Row, method: str = "", before_undo: Callable[[], None] | None = None, **options: Any
    ) -> int:
        """The status of the answer; whatever the request changed, here and in the browser, is undone."""
        address = reverse(row.name, kwargs=self.addresses[row.of])
        method = method or row.method
        if row.is_api and method not in ("GET", "HEAD"):
            options["content_type"] = "application/json"
        elif method not in ("GET", "POST"):
            options["content_type"] = "application/octet-stream"
        body = b"" if options.get("content_type") == "application/octet-stream" else row.body
        cookies = deepcopy(client.cookies)
        with transaction.atomic():
            answer = getattr(client, method.lower())(address, body, **options)
            if answer.streaming:
                b"".join(answer)
            if before_undo:
                before_undo()
            transaction.set_rollback(True)
        client.cookies = cookies
        return answer.status_code


def make_batch(study: Study) -> GenerationBatch:
    """One of a single system that could answer if there were weights."""
    system = study.arms.first().system
    weights = settings.MODEL_DIRS[0] / "toy"
    set_runtime(system=system, settings=LocalSettings(weights=str(weights)), by=None)
    questions = Questions(dataset=study.study_items.first().item.dataset)
    return launch_batch(Launch(systems=[system], questions=questions), by=None)


def make_run() -> TrainingRun:
    """One that was launched, and has taken a step."""
    corpus = Corpus.objects.create(name="c", weights="toy", content_hash="0")
    run = TrainingRun.objects.create(
        name="r", corpus=corpus, base="toy", config={}, job=Job.objects.create(kind="test")
    )
    run.folder.mkdir(parents=True)
    (run.folder / "steps.csv").write_text("step\n")
    return run


@pytest.fixture
def world(admin, researcher, other_researcher, rater, second_rater, open_study) -> World:
    draft = factories.make_study(researcher=researcher)
    factories.make_study(researcher=other_researcher)
    empty_seat = Member.objects.create(study=open_study, role=Role.RATER, number=99)
    _link, secret = people.create_invitation(role=Role.RATER, seat=empty_seat, by=researcher)
    researcher.set_password(PASSWORD)
    researcher.save()
    token, _secret = people.create_api_token(person=researcher, name="t", lifetime=timedelta(days=1))
    placement = rater.placements.order_by("queue").first()
    dataset = open_study.study_items.first().item.dataset
    imported = ImportRecord.objects.create(
        kind="items", dataset=dataset, file_name="a.csv", file_sha256="0", options_sha256="0"
    )
    judge = Judge.objects.create(study=open_study, name="j", model="m", file_name="j.csv", n_ratings=0)
    run = {"public_id": make_run().public_id}
    prepared = rows.ready_corpus()
    rewriting = rows.make_rewriting()
    rows.write_dialogues(rewriting)
    study, seat = {"public_id": open_study.public_id}, {"seat": rater.public_id}
    return World(
        cast={
            "anonymous": None,
            "rater": rater.user,
            "other_rater": second_rater.user,
            "researcher": researcher,
            "other_researcher": other_researcher,
            "admin": admin,
        },
        addresses={
            "": {},
            "study": study,
            "draft": {"public_id": draft.public_id},
            "export": study | {"kind": "ratings", "format": "csv"},
            "table": study | {"key": "counts", "format": "csv"},
            "figure": study | {"key": "progress", "format": "svg"},
            "judge": study | {"judge": judge.public_id},
            "study seat": study | seat,
            "seat": seat,
            "seat link": {"token": secret},
            "placement": seat | {"public_id": placement.public_id},
            "placement only": {"public_id": placement.public_id},
            "dataset": {"public_id": dataset.public_id},
            "import": {"public_id": imported.public_id},
            "system": {"public_id": open_study.arms.first().system.public_id},
            "template": {"template_id": "soulchat"},
            "batch": {"public_id": make_batch(open_study).public_id},
            "corpus": {"public_id": prepared.public_id},
            "corpus figure": {"public_id": prepared.public_id, "key": "rounds", "format": "svg"},
            "corpus case": {"public_id": prepared.public_id, "name": rows.make_case(prepared).name},
            "rewriting": {"public_id": rewriting.public_id},
            "run": run,
            "run table": run | {"table": "steps"},
            "job": {"public_id": Job.objects.create(kind="test").public_id},
            "person": {"username": factories.make_user("somebody").username},
            "token": {"public_id": token.public_id},
        },
    )


def test_every_route_is_in_the_table_and_nothing_else_is():
    rows = {row.name for row in TABLE}
    missing = [name for name in SITE_ROUTES if name not in rows]
    gone = sorted(rows - set(SITE_ROUTES))
    lines = "\n".join(f'    Row("{name}", "GET", "", 302, 404, 404, 404, 404, 404),' for name in missing)
    assert not missing, f"Add to tests/architecture/routes.py, with the right numbers:\n{lines}"
    assert not gone, f"No such routes any more: {gone}"
    assert all(name.rpartition(":")[2] for name, _pattern in all_routes())
    assert "None" not in SITE_ROUTES, "every route of the site has a name"


def test_every_row_is_there_once_and_somebody_gets_through_on_every_route():
    keys = [(row.name, row.method) for row in TABLE]
    assert len(keys) == len(set(keys))
    for name in {row.name for row in TABLE}:
        answers = [getattr(row, role) for row in TABLE if row.name == name for role in ROLES]
        # Turning off and looking at what nobody here has set up is test_people.py's; an unknown link is its too.
        assert min(answers) < 400, name


@pytest.mark.parametrize("role", ROLES)
def test_everybody_gets_what_the_table_says(world, role):
    wrong, client = [], world.client(role)
    for row in TABLE:
        expected, got = getattr(row, role), world.ask(client, row)
        if got != expected:
            wrong.append(f"{row.method} {row.name}: {got}, the table says {expected}")
    assert not wrong, "\n".join([f"as {role}:", *wrong])


@pytest.mark.parametrize("role", ROLES[1:])
def test_nothing_is_changed_without_the_csrf_token(world, role):
    """Every route and every unsafe method, also those a route does not know."""
    wrong, client = [], world.client(role, enforce_csrf_checks=True)
    for row in {row.name: row for row in TABLE}.values():
        for method in UNSAFE:
            got = world.ask(client, row, method)
            if got != 403:
                wrong.append(f"{method} {row.name}: {got}")
    assert not wrong, "\n".join([f"as {role}, without a token:", *wrong])


@pytest.mark.parametrize("role", ROLES[1:5])
def test_no_field_makes_anybody_more_than_they_are(world, role):
    """Every write, with fields on top that would raise somebody if they were taken."""
    poison = {
        "role": "admin", "is_staff": "on", "is_superuser": "on", "is_active": "on", "user": "1", "user_id": "1",
        "by": "1", "groups": "1", "seat": "1", "number": "1", "surprise": "1",
    }  # fmt: skip
    fields = ("pk", "role", "is_staff", "is_superuser", "is_active")
    client, wrong = world.client(role), []
    for row in TABLE:
        if row.method == "GET":
            continue
        people_before = list(User.objects.order_by("pk").values(*fields))
        seats_before = list(Member.objects.order_by("pk").values("pk", "user", "study", "role"))
        changed = []

        def look(before=people_before, seats=seats_before, changed=changed):
            known = [person["pk"] for person in before]
            changed.append(list(User.objects.filter(pk__in=known).order_by("pk").values(*fields)) != before)
            changed.append(User.objects.exclude(pk__in=known).filter(role=Role.ADMIN).exists())
            sat = [seat["pk"] for seat in seats]
            rows = Member.objects.filter(pk__in=sat).order_by("pk").values("pk", "user", "study", "role")
            changed.append(list(rows) != [seat for seat in seats if rows.filter(pk=seat["pk"]).exists()])
            changed.append(Invitation.objects.filter(role=Role.ADMIN).exists())

        world.ask(client, replace(row, body=poison | row.body), before_undo=look)
        if any(changed):
            wrong.append(f"{row.method} {row.name}: {changed}")
    assert not wrong, "\n".join([f"as {role}:", *wrong])


@pytest.mark.parametrize("role", ROLES)
def test_methods_that_the_table_does_not_name_lead_nowhere(world, role):
    known = {(row.name, row.method) for row in TABLE}
    wrong, client = [], world.client(role)
    for row in {row.name: row for row in TABLE}.values():
        for method in METHODS if row.is_api else ("GET", "POST"):
            if (row.name, method) in known:
                continue
            got = world.ask(client, row, method)
            allowed = {404, 405} | ({401} if row.is_api else {302}) if role == "anonymous" else {404, 405}
            if got not in allowed:
                wrong.append(f"{method} {row.name}: {got}")
    assert not wrong, "\n".join([f"as {role}:", *wrong])


@pytest.mark.parametrize("role", ROLES)
def test_djangos_admin_follows_one_rule(world, admin, role):
    client = world.client(role)
    wrong = []
    for name, _pattern in all_routes():
        if not name.startswith("admin:"):
            continue
        short = name.removeprefix("admin:")
        page = short if short in ADMIN_RULE else short.rpartition("_")[2]
        is_row = page in ("change", "history")
        if page == "app_list":
            address = reverse(name, kwargs={"app_label": "annotation"})
        elif is_row:
            address = reverse(name, args=[admin.pk if "_user_" in name else 0])
        else:
            address = "/django-admin/nowhere/" if page == "None" else reverse(name)
        expected = ADMIN_RULE[page]
        if role == "anonymous":
            expected = 302
        elif role != "admin":
            expected = 302 if page == "login" else 404
        elif is_row and "_user_" not in name:
            expected = 302  # there is no row 0: back to the index, with a word
        got = client.get(address).status_code
        if got != expected:
            wrong.append(f"GET {name}: {got}, the rule says {expected}")
        if role != "admin" and (got := client.post(address).status_code) not in (302, 404):
            wrong.append(f"POST {name}: {got}")
    assert not wrong, "\n".join([f"as {role}:", *wrong])
