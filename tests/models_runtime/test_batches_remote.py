"""Batches of endpoints: a stub server answers, money is counted to the last digit, nothing is asked twice in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import connection, connections
from django.utils import timezone

from annotation import triggers
from annotation.models import Response, System
from jobs import ledger
from jobs.errors import LostLease
from jobs.models import Job
from jobs.registry import sentence_of
from jobs.tasks import run_job
from models_runtime import tasks
from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.limiter import Limits
from models_runtime.endpoints.values import Sampling
from models_runtime.engine.prompts import TEMPLATES
from models_runtime.models import Reservation, Runtime
from models_runtime.runtimes import EndpointSettings
from models_runtime.selectors.batches import batch_page, part_row
from models_runtime.selectors.estimates import estimate
from models_runtime.services.batches import lane_of, pause_batch, resume_batch, retry_failed, work_left
from models_runtime.services.lanes import WAITING, one_at_a_time
from models_runtime.services.remote import answer_by_endpoint
from models_runtime.services.runtimes import RuntimeRefused, set_key, set_runtime
from models_runtime.services.spending import DatabaseLedger, DatabaseThread
from models_runtime.tasks import TRY, try_soon
from tests import factories
from tests.models_runtime.batches import claimed, launch, make_dataset, run
from tests.models_runtime.stub_server import Stub, fails, finishes, redirects, says, stub

# The heart and the ledger write from threads of their own, so these tests commit.
pytestmark = pytest.mark.django_db(transaction=True)

PRICE = Price("USD", Decimal("0.5"), Decimal("1.5"), date(2026, 11, 1))
KEY = "sk-canary0123456789abcdef"


@pytest.fixture(autouse=True)
def log_of_acts(transactional_db) -> Iterator[None]:
    """The log of acts cannot be emptied; its triggers come back by themselves afterwards."""
    yield
    with connection.schema_editor() as editor:
        triggers.remove(editor)


@pytest.fixture(autouse=True)
def quick(settings, monkeypatch):
    settings.JOB_RETRY_SECONDS = 0
    monkeypatch.setattr("models_runtime.services.remote.SECONDS_BETWEEN_BEATS", 0.02)
    monkeypatch.setattr("models_runtime.endpoints.limiter.BACKOFF_SECONDS", 0.01)


@pytest.fixture
def hints(monkeypatch) -> list[int]:
    """The jobs that workers were told of."""
    told: list[int] = []
    monkeypatch.setattr(tasks, "send_hint", lambda job_id, queue: told.append(job_id))
    return told


def remote_system(server: Stub, settings, slug: str | None = None, **changed) -> System:
    settings.ALLOWED_ENDPOINTS = [*settings.ALLOWED_ENDPOINTS, server.origin]
    system = factories.make_system(slug)
    values = {
        "base_url": f"{server.origin}/v1",
        "model": "toy-1",
        "sampling": Sampling(temperature=0.7, max_new_tokens=64),
        "limits": Limits(max_concurrency=3, start_concurrency=3),
    }
    set_runtime(system=system, settings=EndpointSettings(**{**values, **changed}), by=None)
    return system


def test_a_batch_with_price_key_and_provenance(settings):
    with stub(says("我在听，你慢慢说。")) as server:
        system, dataset = remote_system(server, settings, price=PRICE), make_dataset(5)
        set_key(runtime=system.runtime, key=KEY, by=None)
        batch = launch(system, dataset=dataset, repeats=2, limits={system.pk: Decimal("1")})
        (job,) = run(batch)
        assert (job.state, job.error, job.n_done, job.n_total) == ("done", "", 10, 10)
        assert all(request["headers"]["Authorization"] == f"Bearer {KEY}" for request in server.requests)
        assert len(server.requests) == 10
    part = batch.parts.get()
    # 11 tokens in and 5 out, ten times: 10 × (11 × 0.5 + 5 × 1.5) millionths
    assert (Decimal(part.spent), Decimal(part.reserved)) == (Decimal("0.00013"), 0)
    assert set(Reservation.objects.values_list("state", flat=True)) == {"certain"}
    told = Response.objects.filter(system=system)[0].provenance
    assert told["model_reported"] == "toy-1" and told["system_fingerprint"] == "fp_a"
    assert (told["tokens_in"], told["tokens_out"], Decimal(told["cost"])) == (11, 5, Decimal("0.000013"))
    assert told["spec_digest"] == part.version.digest and told["finish_reason"] == "stop"
    assert Response.objects.filter(system=system).count() == 10


def test_the_key_is_in_nothing_that_is_stored_or_shown(settings):
    with stub(fails(401, message=f"Incorrect key {KEY}")) as server:
        system, dataset = remote_system(server, settings), make_dataset(3)
        set_key(runtime=system.runtime, key=KEY, by=None)
        batch = launch(system, dataset=dataset)
        (job,) = run(batch)
    assert (job.state, job.error_class) == ("failed", "auth") and job.attempt == 1
    assert len(work_left(batch.parts.get())) == 3
    row = part_row(batch.parts.get())
    assert "does not accept the key" in sentence_of(row.failed_job)
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            assert "canary" not in str(cursor.fetchall()), table
    assert KEY not in str(Runtime.objects.get().sealed_key)


@pytest.mark.parametrize(
    ("step", "code", "sentence"),
    [
        (redirects("http://127.0.0.1:9/v1"), "redirect", "redirects, which is never followed"),
        (fails(404, code="model_not_found", message="no such model"), "no_model", "no such model"),
        (fails(429, code="insufficient_quota"), "quota", "used up"),
    ],
)
def test_what_every_item_would_meet_stops_the_part_with_a_sentence(settings, step, code, sentence):
    with stub(step) as server:
        system = remote_system(server, settings)
        (job,) = run(batch := launch(system, dataset=make_dataset(3)))
    assert (job.state, job.error_class) == ("failed", code)
    row = part_row(batch.parts.get())
    assert sentence in sentence_of(row.failed_job) and row.n_left == 3 and row.failed_job.error


def test_one_item_that_is_refused_fails_alone_and_can_be_tried_again(settings):
    def decide(body):
        is_bad = "坏" in body["messages"][-1]["content"] and not healed.is_set()
        return fails(400, code="context_length_exceeded") if is_bad else says()

    healed = threading.Event()
    with stub(decide=decide) as server:
        system, dataset = remote_system(server, settings), make_dataset(3)
        factories.make_item(dataset, "bad", turns=[{"role": "client", "text": "坏"}])
        batch = launch(system, dataset=dataset)
        (job,) = run(batch)
        assert (job.state, job.result["n_failed"], job.result["counts"]) == ("done", 1, {"n_new": 3})
        page = batch_page(batch)
        assert [(reason.code, reason.n) for reason in page.reasons] == [("context_length", 1)]
        assert page.can_retry and [failure.item.key for failure in page.failures] == ["bad"]
        healed.set()
        n_before = len(server.requests)
        assert retry_failed(batch=batch, by=None) == 1
        run(batch)
        assert len(server.requests) == n_before + 1
    assert batch_page(batch).is_complete and not batch_page(batch).reasons
    assert Job.objects.filter(kind="models_runtime.answer").count() == 2  # the first is over and stays as it was


def test_an_answer_that_was_withheld_is_counted(settings):
    with stub(finishes("content_filter", "")) as server:
        batch = launch(remote_system(server, settings), dataset=make_dataset(2))
        run(batch)
    assert [(reason.code, reason.n) for reason in batch_page(batch).reasons] == [("withheld", 2)]


def test_an_endpoint_that_is_down_is_tried_again_by_itself(settings):
    with stub(says()) as server:
        system = remote_system(server, settings)
    batch = launch(system, dataset=make_dataset(12))
    (job,) = run(batch)
    assert (job.state, job.error_class, job.attempt) == ("queued", "unreachable", 1)
    row = part_row(batch.parts.get())
    assert "cannot be reached" in sentence_of(row.failed_job) and row.n_failed >= 10  # then it was given up
    assert len(work_left(batch.parts.get())) == 12 - row.n_failed
    attempts = max(batch.parts.get().failures.values_list("attempts", flat=True))
    run(batch)
    assert max(batch.parts.get().failures.values_list("attempts", flat=True)) > attempts


def test_the_limit_of_money_stops_the_part_and_a_higher_one_lets_it_go_on(settings):
    price = Price("CNY", Decimal(1_000_000), Decimal(1_000_000), date(2026, 11, 1))  # one for each token
    with stub(says()) as server:
        system = remote_system(server, settings, price=price)
        dataset = make_dataset(3)
        ids = list(dataset.items.values_list("pk", flat=True))
        most = estimate(system, ids[:1], repeats=1).money.most  # that one answer can cost; it costs 16
        batch = launch(system, dataset=dataset, limits={system.pk: most + 20})
        (job,) = run(batch)
        assert (job.state, job.error_class) == ("failed", "budget")
        part = batch.parts.get()
        assert (Decimal(part.spent), Decimal(part.reserved), Response.objects.count()) == (32, 0, 2)
        resume_batch(batch=batch, limits={system.pk: Decimal(5000)}, by=None)
        run(batch)
    assert batch_page(batch).is_complete
    assert Decimal(batch.parts.get().spent) == 48  # 16 tokens each, and nothing was asked twice


def test_what_a_dead_process_reserved_counts_in_full(settings):
    with stub(says()) as server:
        system = remote_system(server, settings, price=PRICE)
        batch = launch(system, dataset=make_dataset(2), limits={system.pk: Decimal("0.5")})
        part = batch.parts.get()
        with DatabaseThread() as database:
            ledger_before = DatabaseLedger(part.pk, database)
            assert ledger_before.try_reserve("a" * 32, Decimal("0.25"), limit=Decimal("0.5"))
            assert ledger_before.try_reserve("a" * 32, Decimal("0.25"), limit=Decimal("0.5"))  # asked twice, kept once
            assert not ledger_before.try_reserve("b" * 32, Decimal("0.2500001"), limit=Decimal("0.5"))
        run(batch)
    assert Decimal(batch.parts.get().spent) == Decimal("0.25") + 2 * Decimal("0.000013")


def test_another_model_behind_the_name_is_shown(settings):
    answers = [says(), says(model="toy-2", system_fingerprint="fp_b")]
    with stub(*answers) as server:
        system = remote_system(server, settings, limits=Limits(max_concurrency=1, start_concurrency=1))
        batch = launch(system, dataset=make_dataset(3))
        run(batch)
        later = launch(system, dataset=batch.dataset)  # has nothing to ask; what it is about drifted before
    for row in (part_row(batch.parts.get()), part_row(later.parts.get())):
        assert row.has_drifted
        assert [(i.model, i.fingerprint, i.n) for i in row.identities] == [("toy-1", "fp_a", 1), ("toy-2", "fp_b", 2)]


def test_a_pause_waits_for_what_is_under_way_and_keeps_it(settings):
    """Requests that were sent are paid for; nothing new is sent; the next run asks for the rest only."""
    asked = threading.Event()

    def decide(body):
        if asked.is_set():
            return says()
        asked.set()

        def slowly(handler):
            pause_batch(batch=batch, by=None)
            connection.close()
            says()(handler)

        return slowly

    with stub(decide=decide) as server:
        system = remote_system(server, settings, limits=Limits(max_concurrency=1, start_concurrency=1))
        batch = launch(system, dataset=make_dataset(30))
        (job,) = run(batch)
        assert job.state == "cancelled"
        n_stored = Response.objects.count()
        assert 1 <= n_stored < 30 and len(server.requests) == n_stored
        resume_batch(batch=batch, by=None)
        run(batch)
        assert len(server.requests) == 30
    assert Response.objects.count() == 30


def test_whoever_lost_the_job_stores_nothing(settings):
    def decide(body):
        def rob(handler):
            Job.objects.update(token=99)
            connection.close()
            says()(handler)

        return rob

    with stub(decide=decide) as server:
        system = remote_system(server, settings)
        batch = launch(system, dataset=make_dataset(2))
        part, running = claimed(batch)
        with pytest.raises(LostLease):
            answer_by_endpoint(running, part, part.value)
    assert Response.objects.count() == 0


def test_a_private_address_that_is_not_listed_is_refused_at_once_and_again_when_it_runs(settings):
    with stub(says()) as server:
        system = remote_system(server, settings)
        batch = launch(system, dataset=make_dataset(1))
        settings.ALLOWED_ENDPOINTS = []
        with pytest.raises(RuntimeRefused, match="may not be called"):
            set_runtime(system=system, settings=system.runtime.value, by=None)
        (job,) = run(batch)
        assert not server.requests
    assert (job.state, job.error_class) == ("failed", "NotAllowed")
    assert "ALLOWED_ENDPOINTS" in sentence_of(part_row(batch.parts.get()).failed_job)


def test_a_key_goes_to_the_server_it_was_entered_for_and_no_other(settings):
    with stub(says()) as first, stub(says()) as second:
        system = remote_system(first, settings)
        set_key(runtime=system.runtime, key=KEY, by=None)
        batch = launch(system, dataset=make_dataset(1))
        settings.ALLOWED_ENDPOINTS = [first.origin, second.origin]
        moved = EndpointSettings(base_url=f"{second.origin}/v1", model="toy-1")
        assert set_runtime(system=system, settings=moved, by=None).sealed_key == ""
        set_key(runtime=Runtime.objects.get(), key="another-key-of-theirs", by=None)
        run(batch)
        assert "Authorization" not in first.requests[0]["headers"] and not second.requests


def test_two_batches_at_one_endpoint_take_turns_and_who_waits_keeps_no_worker(settings, hints):
    with stub(says()) as server:
        one, two = remote_system(server, settings), remote_system(server, settings, base_url=f"{server.origin}/v1/")
        dataset = make_dataset(1)
        first, running = claimed(launch(one, dataset=dataset))
        waiting, last, cancelled = (launch(two, dataset=dataset) for _ in range(3))
        with one_at_a_time(running, lane_of(first), wake=tasks.hint):
            for job in (*run(waiting), *run(last), *run(cancelled), *run(waiting)):
                assert (job.state, job.attempt, job.message, job.not_before is None) == ("queued", 0, WAITING, False)
            pause_batch(batch=cancelled, by=None)
            assert not hints and not server.requests
        assert hints == [job.pk]  # the oldest goes on at once
        assert [job.state for job in (*run(waiting), *run(last), *run(cancelled))] == ["done", "done", "cancelled"]
        assert hints == [job.pk, last.parts.get().job_id] and len(server.requests) == 1


def test_the_lane_of_a_worker_that_died_is_free(settings, hints):
    with stub(says()) as server:
        system, dataset = remote_system(server, settings), make_dataset(1)
        first, running = claimed(launch(system, dataset=dataset))
        waiting = launch(system, dataset=dataset)
        with one_at_a_time(running, lane_of(first), wake=tasks.hint):  # and never seems to leave
            run(waiting)
            ledger.sweep(now=timezone.now() + timedelta(days=1))
            assert ledger.wake(lane_of(first))  # as time does
            assert [job.state for job in run(waiting)] == ["done"] and not hints


def test_trying_out_an_endpoint_asks_once_and_stores_no_response(settings):
    with stub(says("我在听。")) as server:
        system = remote_system(server, settings)
        run_job(try_soon(system.runtime, by_id=None).pk)
        assert len(server.requests) == 1
    with stub(fails(401)) as server:
        run_job(try_soon(remote_system(server, settings).runtime, by_id=None).pk)
    good, bad = Job.objects.filter(kind=TRY).order_by("pk")
    assert (good.state, good.result["text"], good.result["spec"]["model"]) == ("done", "我在听。", "toy-1")
    assert (bad.state, bad.error_class) == ("failed", "auth") and not Response.objects.exists()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="a database in memory lives as long as a connection to it")
def test_the_ledgers_thread_leaves_no_connection_behind():
    with DatabaseThread() as database:
        used = database.call(lambda: (connection.ensure_connection(), connections["default"])[1])
        assert used is not connections["default"] and used.connection is not None
    assert used.connection is None


def test_thinking_is_no_part_of_the_response(settings):
    with stub(says("<think>他很累。</think>听起来你很累。")) as server:
        system = remote_system(server, settings, template=TEMPLATES["chat-bare"])
        run(launch(system, dataset=make_dataset(1)))
    response = Response.objects.get()
    assert response.original == "听起来你很累。" and response.provenance["raw_text"].startswith("<think>")
