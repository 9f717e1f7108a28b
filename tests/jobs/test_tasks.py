"""Delivery: what a worker does with a hint, and what a sweep puts right."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import OperationalError as DatabaseDown
from django.utils import timezone
from kombu.exceptions import OperationalError

from jobs import ledger, registry, tasks
from jobs.errors import Crashed, JobRefused, Postponed, UnknownKind
from jobs.models import Job
from jobs.tasks import run_job, send_hint, sweep

pytestmark = pytest.mark.django_db


@pytest.fixture
def kinds(monkeypatch):
    """An empty registry of its own."""
    monkeypatch.setattr(registry, "_kinds", {})
    monkeypatch.setattr(registry, "_chores", [])


@pytest.fixture
def hints(monkeypatch):
    """The hints that were sent: (job id, queue, lifetime)."""
    sent = []
    monkeypatch.setattr(
        run_job,
        "apply_async",
        lambda args, queue, expires, retry: sent.append((args[0], queue, expires)),
    )
    return sent


def enqueue(**fields) -> Job:
    return ledger.enqueue(kind="test.kind", params={"n": 2}, **fields)


def after(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def register(run, **fields) -> None:
    registry.job("test.kind", **fields)(run)


def test_a_hint_runs_the_job_and_its_kind_puts_things_away(kinds, admin):
    concluded = []
    register(lambda running: {"twice": 2 * running.params["n"]}, conclude=lambda job: concluded.append(job.state))
    job = enqueue(by_id=admin.pk)
    run_job(job.pk)
    assert (after(job).state, after(job).result) == ("done", {"twice": 4})
    assert concluded == ["done"]


def test_a_second_hint_for_the_same_job_does_nothing(kinds):
    runs = []
    register(lambda running: runs.append(1) or {})
    job = enqueue()
    run_job(job.pk)
    run_job(job.pk)
    run_job(10**9)
    assert runs == [1]


def test_an_accident_is_written_down_and_tried_again(kinds, settings):
    settings.JOB_RETRY_SECONDS = 0

    def fall(running):
        raise ZeroDivisionError("by zero")

    concluded = []
    register(fall, conclude=lambda job: concluded.append(job.state))
    job = enqueue(max_attempts=2)
    run_job(job.pk)
    assert (after(job).state, after(job).error_class) == ("queued", "ZeroDivisionError")
    assert concluded == []
    run_job(job.pk)
    assert after(job).state == "failed"
    assert concluded == ["failed"]


def test_a_refusal_is_final_and_keeps_its_reasons(kinds):
    def refuse(running):
        raise JobRefused("no", {"problems": [1]})

    register(refuse)
    job = enqueue()
    run_job(job.pk)
    assert (after(job).state, after(job).result, after(job).error) == ("failed", {"problems": [1]}, "no")


def test_a_kind_that_nobody_knows_fails_without_retries(kinds):
    job = enqueue()
    run_job(job.pk)
    assert (after(job).state, after(job).error_class) == ("failed", "UnknownKind")
    with pytest.raises(UnknownKind):
        registry.kind_of("test.kind")
    assert registry.label_of("test.kind") == "test.kind"


@pytest.mark.parametrize(("is_final", "state"), [(False, "queued"), (True, "failed")])
def test_a_child_that_failed_gives_the_job_its_own_word_for_it(kinds, is_final, state):
    def crash(running):
        raise Crashed("no shard 3", error_class="WrongWeights", is_final=is_final)

    register(crash)
    job = enqueue()
    run_job(job.pk)
    row = after(job)
    assert (row.state, row.error_class, row.error) == (state, "WrongWeights", "no shard 3")


def test_a_worker_that_is_told_to_stop_gives_the_job_back(kinds):
    def leave(running):
        raise SystemExit

    register(leave)
    job = enqueue()
    with pytest.raises(SystemExit):
        run_job(job.pk)
    assert (after(job).state, after(job).attempt) == ("queued", 0)


def test_a_job_that_put_itself_back_is_left_alone(kinds):
    def wait(running):
        ledger.postpone(running.claim, waits_for="lane", seconds=60, message="Waiting")
        raise Postponed

    register(wait)
    job = enqueue(max_attempts=1)
    run_job(job.pk)
    run_job(job.pk)  # too early: nobody takes it
    row = after(job)
    assert (row.state, row.attempt, row.token, row.message, row.error_class) == ("queued", 0, 1, "Waiting", "")


def test_the_end_is_written_once_the_database_answers_again(kinds, monkeypatch):
    runs, answers, finish = [], iter([DatabaseDown("locked")] * 3), ledger.finish

    def locked_at_first(claim, *, result):
        for error in answers:
            raise error
        finish(claim, result=result)

    class Unanswering:
        in_atomic_block = False

        def close_if_unusable_or_obsolete(self):
            pass

    monkeypatch.setattr(ledger, "finish", locked_at_first)
    monkeypatch.setattr(tasks, "connection", Unanswering())
    monkeypatch.setattr(tasks, "PAUSE_SECONDS", 0)
    register(lambda running: runs.append(1) or {})
    job = enqueue()
    run_job(job.pk)
    assert (after(job).state, runs) == ("done", [1])


def test_a_person_can_stop_it_at_a_heartbeat(kinds):
    def run(running):
        running.seconds_between_beats = 0
        running.heartbeat(n_done=1)
        ledger.request_cancel(running.claim.job_id)
        running.heartbeat(n_done=2)
        raise AssertionError("it went on")

    register(run)
    job = enqueue()
    run_job(job.pk)
    assert after(job).state == "cancelled"


def test_a_worker_that_lost_its_job_writes_nothing_more(kinds):
    concluded = []

    def run(running):
        Job.objects.filter(pk=running.claim.job_id).update(token=99)
        return {"late": True}

    register(run, conclude=lambda job: concluded.append(job.state))
    job = enqueue()
    run_job(job.pk)
    assert (after(job).state, after(job).token, after(job).result) == ("running", 99, {})
    assert concluded == []


def test_heartbeats_are_written_once_in_a_while(kinds, django_assert_num_queries):
    seen = []

    def run(running):
        running.heartbeat(n_done=1)
        with django_assert_num_queries(0):
            for n in range(100):
                running.heartbeat(n_done=n)
        seen.append(Job.objects.get(pk=running.claim.job_id).n_done)
        return {}

    register(run)
    run_job(enqueue().pk)
    assert seen == [1]


def test_what_a_heartbeat_did_not_write_the_next_one_does(kinds):
    def run(running):
        running.heartbeat(n_done=1, n_total=9, message="Reading")
        assert not running.heartbeat(n_done=2)
        running.seconds_between_beats = 0
        running.heartbeat(message="Writing")
        return {}

    register(run)
    job = enqueue()
    run_job(job.pk)
    assert (after(job).n_done, after(job).n_total) == (2, 9)


def test_a_sweep_hints_again_at_what_waits(kinds, hints):
    old, new = enqueue(queue="gpu"), enqueue()
    Job.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    sweep()
    assert hints == [(old.pk, "gpu", tasks.HINT_LIFETIME_SECONDS)]
    assert after(new).state == "queued"


def test_a_sweep_takes_back_concludes_and_does_the_chores(kinds, hints):
    concluded, chores = [], []
    register(lambda running: {}, conclude=lambda job: concluded.append(job.pk))
    registry.chore(lambda: chores.append(1))
    once, often = enqueue(max_attempts=1), enqueue()
    for job in (once, often):
        assert ledger.claim(job.pk, worker="gone", lease_seconds=-1)
    sweep()
    assert (after(once).state, after(often).state) == ("failed", "queued")
    assert concluded == [once.pk]
    assert [hint[0] for hint in hints] == [often.pk]
    assert chores == [1]


@pytest.mark.parametrize("error", [OperationalError("no broker"), OSError("no folder")])
def test_a_broker_that_is_away_breaks_nothing(monkeypatch, error):
    def fail(**arguments):
        raise error

    monkeypatch.setattr(run_job, "apply_async", fail)
    send_hint(1)


@pytest.mark.services
@pytest.mark.slow  # a process that waits until its patience is over
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_takes_a_connection_and_says_nothing_holds_nobody_up(tmp_path, scheme):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        env = os.environ | {
            "CELERY_BROKER_URL": f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}",
            "DJANGO_SETTINGS_MODULE": "config.settings.dev",
            "QINGTING_DATA_DIR": str(tmp_path),
        }
        code = "import django; django.setup()\nfrom jobs.tasks import send_hint\nsend_hint(1)"
        ended = subprocess.run([sys.executable, "-c", code], env=env, timeout=40, capture_output=True, text=True)
    assert ended.returncode == 0 and "the broker does not answer" in ended.stderr


def test_one_kind_has_one_handler(kinds):
    def one(running):
        return {}

    def two(running):
        return {}

    register(one)
    register(one)
    with pytest.raises(ValueError):
        register(two)


def test_a_kind_explains_its_own_errors_and_the_ledger_those_of_any_job(kinds):
    register(lambda running: {}, explanations={"WrongWeights": "Other weights.", "DiskFull": "Of another disk."})

    def sentence(error_class: str, kind: str = "test.kind") -> str:
        return registry.sentence_of(Job(kind=kind, error_class=error_class))

    assert (sentence("WrongWeights"), sentence("DiskFull")) == ("Other weights.", "Of another disk.")
    assert sentence("DiskFull", "nobody.knows") == "The disk is full. Make room, then go on."
    assert "without a word" in sentence("WorkerLost") and sentence("") == ""
    assert sentence("WrongWeights", "nobody.knows") == sentence("Nonsense") == "It did not work."
