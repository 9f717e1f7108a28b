"""Speed and time left say what this attempt did, and nothing where nobody can know."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs import ledger
from jobs.ledger import Claim
from jobs.models import Job
from jobs.pace import Pace, pace
from jobs.registry import RunningJob

pytestmark = pytest.mark.django_db


@pytest.fixture
def running() -> RunningJob:
    job = ledger.enqueue(kind="test.kind", params={})
    claim = ledger.claim(job.pk, worker="w")
    assert claim
    return RunningJob(claim, job.kind, {}, 1, None, seconds_between_beats=0)


def at(claim: Claim, seconds: float) -> Pace:
    job = Job.objects.get(pk=claim.job_id)
    return pace(job, now=(job.counted_since or timezone.now()) + timedelta(seconds=seconds))


def test_speed_and_time_left_follow_from_the_count(running):
    running.heartbeat(n_done=0, n_total=100)
    running.heartbeat(n_done=20)
    assert at(running.claim, 10) == Pace(per_second=2.0, seconds_left=40.0)
    assert at(running.claim, 40) == Pace(per_second=0.5, seconds_left=160.0)  # nothing came: it falls


def test_what_was_done_before_is_not_this_attempts_speed(running):
    running.heartbeat(n_done=6000, n_total=10_000)
    running.heartbeat(n_done=6040)
    assert at(running.claim, 20) == Pace(per_second=2.0, seconds_left=1980.0)


def test_a_new_stage_is_measured_anew(running):
    running.heartbeat(n_done=0, n_total=10, message="Reading")
    running.heartbeat(n_done=10)
    running.heartbeat(n_done=0, n_total=50, message="Writing")
    assert at(running.claim, 10) == Pace()
    running.heartbeat(n_done=5)
    assert at(running.claim, 10) == Pace(per_second=0.5, seconds_left=90.0)


def test_without_a_total_there_is_a_speed_only(running):
    running.heartbeat(n_done=0)
    running.heartbeat(n_done=50)
    assert at(running.claim, 10) == Pace(per_second=5.0)


def test_nothing_is_said_too_early_or_too_late(running):
    assert at(running.claim, 10) == Pace()
    running.heartbeat(n_done=0, n_total=9)
    assert at(running.claim, 10) == Pace()
    running.heartbeat(n_done=9)
    assert at(running.claim, 1) == Pace()
    ledger.finish(running.claim, result={})
    assert at(running.claim, 10) == Pace()
