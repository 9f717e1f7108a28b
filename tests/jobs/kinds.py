"""A kind of job for the tests of real workers: a supervised child writes lines, each is stored once.

It does what a batch of responses does: asks what is there, lets the child make the rest, and stores each line in one
transaction that holds the job, so that whoever lost the job cannot store anything. The table has no unique constraint:
a line stored twice would be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction

from jobs.registry import Result, RunningJob, job
from jobs.supervisor import Message, run_child

KIND = "test.lines"
TABLE = "CREATE TABLE test_lines (job bigint, n bigint, text text)"
CHILD = Path(__file__).with_name("child.py")


@job(KIND)
def run_lines(running: RunningJob) -> Result:
    """params: n_lines."""
    running.seconds_between_beats = 0.2
    job_id, n_lines = running.claim.job_id, running.params["n_lines"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM test_lines WHERE job = %s", [job_id])
        done = {n for (n,) in cursor.fetchall()}
    n_done = len(done)

    def store(message: Message) -> None:
        nonlocal n_done
        with transaction.atomic(), connection.cursor() as cursor:
            row = [job_id, message["n"], message["text"]]
            cursor.execute("INSERT INTO test_lines (job, n, text) VALUES (%s, %s, %s)", row)
            running.hold()
        n_done += 1
        running.heartbeat(n_done=n_done, n_total=n_lines, message="Writing")

    todo = ",".join(str(n) for n in range(n_lines) if n not in done)
    path = Path(settings.DATA_DIR) / f"child-{job_id}"
    argv = [sys.executable, "-I", "-S", str(CHILD), str(path), todo]
    run_child(running, argv, on_message=store, grace_seconds=2)
    return {"n_lines": n_done}
