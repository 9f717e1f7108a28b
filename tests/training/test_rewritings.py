"""Rewritings on the site: a stub endpoint or a toy writes; no text is asked for twice, and no money is overspent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.db import connection, connections

from annotation import triggers
from annotation.errors import NotReady
from annotation.services.uploads import store_upload
from jobs import ledger
from jobs.errors import LostLease
from jobs.models import Job
from jobs.registry import RunningJob
from jobs.tasks import run_job
from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.limiter import Limits
from models_runtime.endpoints.values import Sampling
from models_runtime.models import BaseReservation, Lane
from models_runtime.runtimes import LocalSettings
from models_runtime.services.batches import lane_of
from models_runtime.services.runtimes import set_runtime
from models_runtime.toy import make_toy
from tests import factories
from tests.models_runtime.stub_server import fails, finishes, says, stub, waits
from tests.training import rows
from training.corpus.rewriting import EMPATHY, PLAIN, Checks
from training.models import Rewriting
from training.selectors.rewritings import far_host, rewriting_page
from training.services.rewriting import (
    REWRITE,
    UPLOADS,
    Order,
    RewritingRefused,
    attempts_of,
    bare_template,
    launch_rewriting,
    resume_rewriting,
    rewrite_dialogues,
    work_of,
)
from training.tasks import corpora as tasks

# The heart and the ledger write from threads of their own, so these tests commit.
pytestmark = pytest.mark.django_db(transaction=True)

PRICE = Price("USD", Decimal("0.5"), Decimal("1.5"), date(2026, 11, 1))
GOOD = "求助者：睡不着。\n支持者：有多久了？\n求助者：两个月。\n支持者：真不容易。"
BAD = "支持者：你好。"


@pytest.fixture(autouse=True)
def log_of_acts(transactional_db) -> Iterator[None]:
    """The log of acts cannot be emptied; its triggers come back by themselves afterwards."""
    yield
    with connection.schema_editor() as editor:
        triggers.remove(editor)


@pytest.fixture(autouse=True)
def quick(settings, monkeypatch, tmp_path, tmp_path_factory):
    settings.JOB_RETRY_SECONDS = 0
    settings.REWRITING_DIR = tmp_path / "rewritings"
    settings.BATCH_DIR = tmp_path / "batches"
    settings.JOB_LOG_DIR = tmp_path / "logs"
    settings.MEDIA_ROOT = tmp_path / "uploads"
    settings.WEIGHTS_DIGESTS = tmp_path / "digests.json"
    settings.MODEL_DIRS = [tmp_path_factory.getbasetemp()]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("models_runtime.services.remote.SECONDS_BETWEEN_BEATS", 0.02)
    monkeypatch.setattr("models_runtime.endpoints.limiter.BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr("training.services.rewriting.SECONDS_BETWEEN_NOTES", 0)


def questions(n: int) -> dict[str, str]:
    lines = [
        {"key": f"q{i}", "question": f"我睡不着（{i}）。", "answer": "慢慢来。", "topic": "情绪"} for i in range(n)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return {"name": "q.jsonl", "upload": store_upload(ContentFile(text.encode()), folder=UPLOADS), "sha256": "0"}


def launched(system, n: int = 4, **changed) -> Rewriting:
    given = {"name": "r", "questions": questions(n), "n_questions": n, "style": PLAIN, "max_new_tokens": 200}
    return launch_rewriting(Order(system=system, **{**given, "checks": Checks(2, 4, 100), **changed}), by=None)


def endpoint(server, settings, **changed):
    settings.ALLOWED_ENDPOINTS = [server.origin]
    limits = Limits(max_concurrency=2, start_concurrency=2)
    return rows.endpoint_system(f"{server.origin}/v1", limits=limits, **changed)


def done(rewriting: Rewriting) -> Rewriting:
    assert tasks.run_rewrite  # its kind is known
    run_job(rewriting.job_id)
    return Rewriting.objects.select_related("job", "system").get(pk=rewriting.pk)


def asked_about(server) -> list[str]:
    """Which questions were sent, in order."""
    texts = [body["messages"][0]["content"] for body in server.bodies]
    return [text.partition("我睡不着（")[2].partition("）")[0] for text in texts]


def test_an_endpoint_writes_and_what_is_refused_is_asked_again(settings):
    refused: set[str] = set()

    def decide(body):
        text = body["messages"][0]["content"]
        is_first = "（1）" in text and not refused
        refused.update({"1"} if is_first else ())
        return says(BAD) if is_first else says(GOOD)

    with stub(decide=decide) as server:
        system = endpoint(server, settings, sampling=Sampling(temperature=0.5, seed=7, max_new_tokens=8))
        rewriting = done(launched(system))
        sent = server.bodies[0]
    assert (rewriting.job.state, rewriting.job.error) == ("done", "")
    assert (rewriting.n_done, rewriting.n_accepted) == (4, 4)
    assert rewriting.counts == {"accepted": 4, "starts_with_counsellor": 1}
    assert (sent["temperature"], sent["max_tokens"], "seed" in sent) == (0.5, 200, False)
    lines = [json.loads(line) for line in rewriting.dialogues_file.read_text().splitlines()]
    assert {line["key"] for line in lines} == {"q0", "q1", "q2", "q3"} and lines[0]["topic"] == "情绪"
    page = rewriting_page(rewriting)
    assert page.n_attempts == 5 and [one.sentence for one in page.refusals] == ["The counsellor speaks first."]
    assert len(page.samples) == 3 and not page.can_ask_more
    with pytest.raises(RewritingRefused, match="Nothing is left"):
        resume_rewriting(rewriting=rewriting, by=None)


def test_pause_and_go_on_ask_for_nothing_twice(settings):
    """Also where the worker was killed: the file knows more than the row, and nobody waits for the lane."""
    is_slow, is_paused = threading.Event(), threading.Event()

    def decide(body):
        if len(server.requests) >= 3 and not is_paused.is_set() and ledger.request_cancel(rewriting.job_id):
            is_paused.set()
            is_slow.set()
            connections.close_all()  # of this thread
        if is_slow.is_set():
            time.sleep(0.1)
        return says(GOOD)

    with stub(decide=decide) as server:
        rewriting = launched(endpoint(server, settings), 30)
        rewriting = done(rewriting)
        assert rewriting.job.state == "cancelled" and rewriting_page(rewriting).is_paused
        is_slow.clear()
        n = rewriting.n_accepted
        assert 3 <= n < 30 and len(rewriting.dialogues_file.read_text().splitlines()) == n
        # Killed: the row, the lane and half of a line are as the worker left them.
        with (rewriting.folder / "attempts.jsonl").open("ab") as file:
            file.write(b'{"key": "q29", "resu')
        Lane.objects.filter(name=lane_of(rewriting)).update(job=rewriting.job, token=rewriting.job.token)
        Rewriting.objects.update(n_done=0, n_accepted=0, counts={})
        resumed = resume_rewriting(rewriting=rewriting, by=None)
        with pytest.raises(NotReady):
            resume_rewriting(rewriting=resumed, by=None)
        rewriting = done(resumed)
        sent = asked_about(server)
    assert rewriting.job.state == "done" and rewriting.n_accepted == 30
    assert sorted(sent) == sorted(set(sent)) and len(sent) == 30


def test_the_limit_holds_and_a_killed_process_has_spent_what_it_set_aside(settings):
    with stub(says(GOOD)) as server:
        system = endpoint(server, settings, price=PRICE, sampling=Sampling(max_new_tokens=64))
        with pytest.raises(RewritingRefused, match="costs money"):
            launched(system)
        limit = Decimal("0.001")
        rewriting = launched(system, 30, limit=limit)
        rewriting.reservations.create(key="killed", amount="0.0003")
        Rewriting.objects.update(reserved="0.0003")
        rewriting = done(rewriting)
        n_before = len(server.requests)
        assert (rewriting.job.state, rewriting.job.error_class) == ("failed", "budget")
        assert Decimal("0.0003") < Decimal(rewriting.spent) <= limit and Decimal(rewriting.reserved) == 0
        # 11 tokens in and 5 out for each: 13 millionths
        assert Decimal(rewriting.spent) == Decimal("0.0003") + n_before * Decimal("0.000013")
        assert rewriting.reservations.get(key="killed").state == BaseReservation.State.UNCERTAIN
        assert rewriting_page(rewriting).is_over_budget
        rewriting = done(resume_rewriting(rewriting=rewriting, limit=Decimal("1"), by=None))
        assert rewriting.job.state == "done" and rewriting.n_accepted == len(set(asked_about(server))) == 30


def test_an_endpoint_that_says_no_stops_it_and_more_tries_are_a_wish(settings):
    with stub(fails(401, message="bad key")) as server:
        rewriting = done(launched(endpoint(server, settings)))
    assert (rewriting.job.state, rewriting.job.error_class, rewriting.n_done) == ("failed", "auth", 0)
    assert rewriting_page(rewriting).can_resume
    with stub(finishes("length", GOOD)) as server:
        system = endpoint(server, settings)
        rewriting = done(launched(system, 2, name="cut", n_tries=1))
        assert rewriting.counts == {"cut_at_limit": 2} and rewriting.job.state == "done"
        assert rewriting_page(rewriting).can_ask_more
        rewriting = done(resume_rewriting(rewriting=rewriting, more_tries=True, by=None))
        assert rewriting.counts == {"cut_at_limit": 4} and rewriting.n_tries == 2


def test_whoever_lost_the_job_leaves_the_file_to_the_next(settings):
    with stub(waits) as server:
        rewriting = launched(endpoint(server, settings), 2)
        claim = ledger.claim(rewriting.job_id, worker="somebody")
        running = RunningJob(claim, REWRITE, rewriting.job.params, 1, None, rewriting.job.public_id)
        Job.objects.filter(pk=rewriting.job_id).update(token=claim.token + 1)
        threading.Timer(0.3, server.released.set).start()
        with pytest.raises(LostLease):
            rewrite_dialogues(running, rewriting)
    with attempts_of(rewriting) as attempts:
        assert attempts.n_done == 0


@pytest.mark.slow
def test_a_local_model_is_asked_in_a_child_and_each_time_anew(settings, tmp_path_factory):
    """A toy writes no dialogue; were a question asked again, the draw would be another one."""
    toy = make_toy(tmp_path_factory.mktemp("toy"), [GOOD, PLAIN.instruction, "我睡不着（0）。慢慢来。"])
    system = factories.make_system()
    set_runtime(system=system, settings=LocalSettings(weights=str(toy)), by=None)
    rewriting = done(launched(system, 2, n_tries=1, max_new_tokens=8))
    assert (rewriting.job.state, rewriting.job.error) == ("done", "")
    assert sum(rewriting.counts.values()) == rewriting.n_done == 2 and rewriting.n_accepted == 0
    lines = [json.loads(line) for line in (rewriting.folder / "attempts.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["q0", "q1"]
    assert all(line["provenance"]["spec_digest"] for line in lines)
    assert bare_template(rewriting.value).id == "chatglm-rounds"
    assert not list(Path(settings.BATCH_DIR).iterdir())
    rewriting.n_tries = 2
    with attempts_of(rewriting) as attempts:
        assert [(one.item, one.repeat) for one in work_of(attempts)] == [("q0", 1), ("q1", 1)]


def test_which_systems_send_texts_away(settings):
    settings.ALLOWED_ENDPOINTS = ["https://api.example.org", "http://127.0.0.1:1"]
    assert far_host(rows.endpoint_system("https://api.example.org/v1")) == "api.example.org"
    assert far_host(rows.endpoint_system("http://127.0.0.1:1/v1")) == ""
    assert far_host(factories.make_system()) == ""


def test_it_is_launched_once_under_a_name_of_its_own(settings):
    settings.ALLOWED_ENDPOINTS = ["http://127.0.0.1:9"]
    system = rows.endpoint_system("http://127.0.0.1:9/v1")
    first = launched(system, style=EMPATHY)
    assert launched(system, public_id=first.public_id) == first
    with pytest.raises(RewritingRefused, match="already"):
        launched(system)
    with pytest.raises(RewritingRefused, match="no model that answers"):
        launched(factories.make_system(), name="other")
