"""The ledger: one holder at a time, nothing written by whoever lost the job, nothing lost when a worker dies."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from jobs import ledger
from jobs.errors import CancelRequested, LostLease
from jobs.ledger import Claim
from jobs.models import Job

pytestmark = pytest.mark.django_db
LATER = timedelta(hours=1)


def queued(**fields) -> Job:
    return ledger.enqueue(kind="test.kind", params={"n": 1}, **fields)


def claimed(**fields) -> Claim:
    found = ledger.claim(queued(**fields).pk, worker="w1")
    assert found
    return found


def job_of(claim: Claim) -> Job:
    return Job.objects.get(pk=claim.job_id)


def let_lease_end(claim: Claim) -> None:
    Job.objects.filter(pk=claim.job_id).update(lease_until=timezone.now() - timedelta(seconds=1))


def test_a_job_is_claimed_run_and_finished():
    claim = claimed()
    row = job_of(claim)
    assert (row.state, row.attempt, row.token, row.worker) == ("running", 1, 1, "w1")
    assert row.lease_until > timezone.now()
    ledger.heartbeat(claim, n_done=3, n_total=9, message="Reading")
    ledger.finish(claim, result={"a": 1})
    row = job_of(claim)
    assert (row.state, row.n_done, row.n_total, row.result) == ("done", 3, 9, {"a": 1})
    assert row.lease_until is None and row.finished_at


def test_a_second_claim_gets_nothing():
    claim = claimed()
    assert ledger.claim(claim.job_id, worker="w2") is None
    assert job_of(claim).worker == "w1"


@pytest.mark.django_db(transaction=True)
def test_of_many_claimers_at_once_one_wins():
    for _ in range(5):
        job = queued()
        barrier = threading.Barrier(4)
        won: list[Claim] = []

        def try_it(name: str, job=job, barrier=barrier, won=won) -> None:
            barrier.wait()
            try:
                if found := ledger.claim(job.pk, worker=name):
                    won.append(found)
            except OperationalError:  # a SQLite database in memory lets nobody wait for its table
                assert connection.vendor == "sqlite"
            finally:
                connection.close()

        threads = [threading.Thread(target=try_it, args=(f"w{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert Job.objects.get(pk=job.pk).attempt == 1


def test_who_lost_the_job_writes_nothing():
    old = claimed()
    let_lease_end(old)
    assert ledger.sweep().requeued == [old.job_id]
    new = ledger.claim(old.job_id, worker="w2")
    assert new and new.token == old.token + 1
    for write in (
        lambda: ledger.heartbeat(old, n_done=99),
        lambda: ledger.finish(old, result={"by": "old"}),
        lambda: ledger.fail(old, error=ValueError("old")),
        lambda: ledger.cancel(old),
    ):
        with pytest.raises(LostLease):
            write()
    row = job_of(new)
    assert (row.state, row.n_done, row.result, row.error, row.worker) == ("running", 0, {}, "", "w2")
    ledger.finish(new, result={"by": "new"})
    with pytest.raises(LostLease):
        ledger.heartbeat(new)


def test_a_lost_lease_rolls_back_what_was_written_beside_it():
    old = claimed()
    let_lease_end(old)
    ledger.sweep()
    with pytest.raises(LostLease), transaction.atomic():
        queued(queue="beside")
        ledger.heartbeat(old)
    assert not Job.objects.filter(queue="beside").exists()


def test_a_write_with_a_hold_is_not_committed_by_who_lost_the_job():
    claim = claimed()
    ledger.request_cancel(claim.job_id)
    with transaction.atomic():
        kept = queued()
        ledger.hold(claim)  # a person asked for an end: what is done is kept all the same
    Job.objects.filter(pk=claim.job_id).update(token=99)
    with pytest.raises(LostLease), transaction.atomic():
        queued(queue="beside")
        ledger.hold(claim)
    assert Job.objects.filter(pk=kept.pk).exists()
    assert not Job.objects.filter(queue="beside").exists()


def test_a_heartbeat_keeps_the_lease():
    claim = claimed()
    let_lease_end(claim)
    ledger.heartbeat(claim)  # late, but nobody has taken the job meanwhile
    assert ledger.sweep() == ledger.Swept()
    assert job_of(claim).state == "running"


def test_a_heartbeat_without_news_leaves_the_news_alone():
    claim = claimed()
    ledger.heartbeat(claim, n_done=5, message="Reading")
    ledger.heartbeat(claim)
    assert (job_of(claim).n_done, job_of(claim).message) == (5, "Reading")


def test_a_failure_is_tried_again_until_attempts_are_used_up(settings):
    settings.JOB_RETRY_SECONDS = 0
    job = queued(max_attempts=2)
    for attempt, state in ((1, "queued"), (2, "failed")):
        claim = ledger.claim(job.pk, worker="w")
        assert claim
        assert ledger.fail(claim, error=ValueError("no luck")) == state
        job.refresh_from_db()
        assert (job.state, job.attempt, job.error_class, job.error) == (state, attempt, "ValueError", "no luck")
    assert ledger.claim(job.pk, worker="w") is None


def test_after_a_failure_a_job_waits_longer_each_time(settings):
    settings.JOB_RETRY_SECONDS = 10
    job = queued()
    for seconds in (10, 20):
        claim = ledger.claim(job.pk, worker="w")
        assert claim
        before = timezone.now()
        ledger.fail(claim, error=ValueError("x"))
        job.refresh_from_db()
        assert timedelta(seconds=seconds) <= job.not_before - before < timedelta(seconds=seconds + 5)
        assert ledger.claim(job.pk, worker="w") is None
        assert ledger.waiting(older_than=timedelta(0), at_most=5) == []
        assert ledger.waiting(older_than=timedelta(0), at_most=5, now=job.not_before) == [(job.pk, "default")]
        Job.objects.filter(pk=job.pk).update(not_before=timezone.now())
    assert ledger.claim(job.pk, worker="w")
    job.refresh_from_db()
    assert job.not_before is None


def test_a_retry_by_hand_does_not_wait():
    claim = claimed()
    ledger.fail(claim, error=ValueError("x"))
    assert ledger.request_cancel(claim.job_id)
    assert ledger.retry(claim.job_id)
    assert ledger.claim(claim.job_id, worker="w")


def test_what_a_stopping_worker_gives_back_costs_no_attempt():
    claim = claimed(max_attempts=1)
    ledger.give_back(claim)
    assert (job_of(claim).state, job_of(claim).attempt) == ("queued", 0)
    again = ledger.claim(claim.job_id, worker="w2")
    assert again and again.token == claim.token + 1
    with pytest.raises(LostLease):
        ledger.give_back(claim)
    ledger.request_cancel(claim.job_id)
    ledger.give_back(again)
    assert job_of(claim).state == "cancelled"


def test_a_postponed_job_begins_later_or_when_woken_and_spends_no_attempt():
    claim = claimed(max_attempts=1)
    ledger.postpone(claim, waits_for="lane", seconds=60, message="Waiting")
    row = job_of(claim)
    assert (row.state, row.attempt, row.message) == ("queued", 0, "Waiting")
    assert ledger.claim(claim.job_id, worker="w2") is None
    with pytest.raises(LostLease):
        ledger.postpone(claim, waits_for="lane", seconds=60, message="")
    assert ledger.wake("other lane") is None
    assert ledger.wake("lane") == row and ledger.wake("lane") is None
    again = ledger.claim(claim.job_id, worker="w2")
    assert again
    ledger.postpone(again, waits_for="lane", seconds=0, message="")
    assert ledger.claim(claim.job_id, worker="w3") and ledger.wake("lane") is None


def test_who_has_waited_longest_is_woken_first():
    claims = [claimed() for _ in range(3)]
    for claim in reversed(claims):
        ledger.postpone(claim, waits_for="lane", seconds=60, message="")
    ledger.request_cancel(claims[0].job_id)
    assert [job and job.pk for job in (ledger.wake("lane") for _ in claims)] == [
        claims[1].job_id,
        claims[2].job_id,
        None,
    ]


def test_a_job_that_was_to_stop_is_not_postponed():
    claim = claimed()
    ledger.request_cancel(claim.job_id)
    ledger.postpone(claim, waits_for="lane", seconds=0, message="")
    assert job_of(claim).state == "cancelled"


def test_what_was_postponed_lets_the_others_pass():
    claim, other = claimed(), queued()
    ledger.postpone(claim, waits_for="lane", seconds=1, message="")
    later = timezone.now() + timedelta(seconds=2)
    waiting = ledger.waiting(older_than=timedelta(0), at_most=1, now=later)
    assert waiting == [(other.pk, "default")]


def test_a_final_failure_is_not_tried_again():
    claim = claimed()
    assert ledger.fail(claim, error=ValueError("x"), result={"problems": []}, is_final=True) == "failed"
    assert job_of(claim).result == {"problems": []}


def test_silent_workers_lose_their_jobs_and_attempts_are_counted():
    claim = claimed(max_attempts=1)
    let_lease_end(claim)
    assert ledger.sweep().failed == [claim.job_id]
    assert (job_of(claim).state, job_of(claim).error_class) == ("failed", "WorkerLost")
    assert ledger.sweep() == ledger.Swept()


def test_a_sweep_leaves_the_living_alone():
    claim = claimed()
    waiting = queued()
    assert ledger.sweep() == ledger.Swept()
    assert job_of(claim).state == "running"
    assert ledger.claim(waiting.pk, worker="w")


def test_a_waiting_job_is_cancelled_at_once():
    job = queued()
    assert ledger.request_cancel(job.pk)
    assert Job.objects.get(pk=job.pk).state == "cancelled"
    assert ledger.claim(job.pk, worker="w") is None


def test_a_running_job_is_cancelled_at_its_next_heartbeat():
    claim = claimed()
    assert ledger.request_cancel(claim.job_id)
    assert job_of(claim).state == "running"
    with pytest.raises(CancelRequested):
        ledger.heartbeat(claim)
    ledger.cancel(claim)
    assert job_of(claim).state == "cancelled"


def test_a_job_that_was_to_stop_does_not_start_again():
    failing, silent = claimed(), claimed()
    for claim in (failing, silent):
        ledger.request_cancel(claim.job_id)
    assert ledger.fail(failing, error=ValueError("x")) == "failed"
    let_lease_end(silent)
    assert ledger.sweep().cancelled == [silent.job_id]


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_a_worker_that_holds_the_row():
    """On PostgreSQL a worker in a long transaction locks its job's row; on SQLite it locks everything."""
    if connection.vendor != "postgresql":
        pytest.skip("rows are locked on PostgreSQL only")
    claim = claimed()
    let_lease_end(claim)
    is_locked, is_answered, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        try:
            with transaction.atomic():
                ledger.heartbeat(claim)
                is_locked.set()
                seen.append(is_answered.wait(timeout=10))
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    assert is_locked.wait(timeout=10)
    assert not ledger.request_cancel(claim.job_id)
    assert ledger.sweep() == ledger.Swept()
    is_answered.set()
    worker.join()
    assert seen == [True]
    ledger.finish(claim, result={})


def test_what_is_over_stays_over():
    claim = claimed()
    ledger.finish(claim, result={})
    assert not ledger.request_cancel(claim.job_id)
    assert job_of(claim).state == "done"
    assert not ledger.retry(claim.job_id)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_retry_begins_anew(state):
    claim = claimed(max_attempts=1)
    if state == "failed":
        ledger.fail(claim, error=ValueError("x"))
    else:
        ledger.request_cancel(claim.job_id)
        ledger.cancel(claim)
    assert ledger.retry(claim.job_id)
    row = job_of(claim)
    assert (row.state, row.attempt, row.error, row.finished_at, row.cancel_requested_at) == (
        "queued",
        0,
        "",
        None,
        None,
    )
    again = ledger.claim(claim.job_id, worker="w")
    assert again and again.token == claim.token + 1


def test_waiting_jobs_come_oldest_first_and_bounded():
    jobs = [queued() for _ in range(4)]
    later = timezone.now() + LATER
    found = ledger.waiting(older_than=timedelta(0), at_most=3, now=later)
    assert found == [(job.pk, "default") for job in jobs[:3]]
    assert ledger.waiting(older_than=2 * LATER, at_most=3, now=later) == []
