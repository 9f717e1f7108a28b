"""Kill anything, lose any message, lock the database, fill the disk: no job is lost, none runs twice at the same time,
no line is missing or double, and no process stays behind.

Real workers, real children, and every broker that answers. Times are short where production's are long: a lease lasts
4 s instead of 60, a sweep comes every second instead of every 30.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.jobs.site import PLACES, Site, is_over, kill

pytestmark = [pytest.mark.services, pytest.mark.slow]  # each starts workers: about 5 s
every_place = pytest.mark.parametrize(("broker", "database"), PLACES)


N_LINES = 40


def wait_until_it_works(site: Site, pk: int) -> dict[str, int]:
    """Five lines are stored and the child is held; the processes that are at it."""
    site.wait(pk, lambda job: job["state"] == "running" and len(site.lines(pk)) == 5)
    found = site.processes(pk)
    assert set(found) == {"supervisor", "launcher", "child", "helper"}
    return found


def check(site: Site, pk: int, *, n_attempts: int | None = None) -> None:
    """Done, nothing missing, nothing double, never two at once, nobody left."""
    site.go()
    job = site.wait(pk, is_over)
    told = f"{job}\n{(site.folder / 'worker.log').read_text()[-5000:]}"
    assert job["state"] == "done", told
    assert site.lines(pk) == list(range(N_LINES)), told
    assert site.processes(pk) == {}
    starts = (site.folder / f"child-{pk}.starts").read_text()
    assert "while another ran" not in starts, told
    if n_attempts is not None:
        assert (job["attempt"], len(starts.split())) == (n_attempts, n_attempts), told


# --- somebody is killed ---------------------------------------------------------------------------------


@every_place
def test_a_killed_worker(make_site, broker, database):
    site = make_site(broker=broker, database=database)
    worker = site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    kill(worker)
    site.start_worker()
    check(site, pk, n_attempts=2)


@every_place
def test_a_killed_supervisor(make_site, broker, database):
    """That is Celery's pool process; Celery starts another one."""
    site = make_site(broker=broker, database=database)
    site.start_worker()
    pk = site.enqueue(N_LINES)
    os.kill(wait_until_it_works(site, pk)["supervisor"], signal.SIGKILL)
    check(site, pk, n_attempts=2)


@pytest.mark.parametrize("who", ["launcher", "child"])
def test_a_killed_child(make_site, who):
    site = make_site()
    site.start_worker()
    pk = site.enqueue(N_LINES)
    os.kill(wait_until_it_works(site, pk)[who], signal.SIGKILL)
    check(site, pk, n_attempts=2)


def test_a_killed_celery_parent_whose_pool_lives_on(make_site):
    """The pool's process finishes its job or dies of its own; either way the lines are right."""
    site = make_site()
    worker = site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    worker.kill()
    worker.wait()
    site.start_worker()
    check(site, pk)


@pytest.mark.parametrize(
    "stop",
    [
        lambda worker: os.killpg(worker.pid, signal.SIGTERM),  # as the demonstration stops its worker
        lambda worker: worker.send_signal(signal.SIGQUIT),
    ],
    ids=["SIGTERM to all", "SIGQUIT to the main process"],
)
def test_a_worker_that_is_told_to_stop_hands_its_job_on(make_site, stop):
    site = make_site()
    worker = site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    stop(worker)
    job = site.wait(pk, lambda job: job["state"] == "queued", seconds=3)  # sooner than by the end of its lease
    assert job["attempt"] == 0
    assert site.processes(pk) == {}
    kill(worker)  # Celery would wait ten seconds more for the pool process that has gone
    site.start_worker()
    check(site, pk)


@pytest.mark.parametrize("place", ["before its hint", "before its commit"])
def test_a_killed_web_process(make_site, place):
    """A process that does what a view does, killed where it hurts; a server around it would change nothing."""
    site = make_site()
    die = "os.kill(os.getpid(), signal.SIGKILL)"
    if place == "before its hint":
        site.start_worker()
        check(site, site.enqueue(N_LINES, then=die), n_attempts=1)
    else:
        site.python(f"with transaction.atomic():\n    ledger.enqueue(kind='test.lines', params={{}})\n    {die}")
        assert site.ask("SELECT count(*) FROM jobs_job") == [(0,)]


# --- something is away ----------------------------------------------------------------------------------


@every_place
def test_a_broker_that_lost_its_messages(make_site, broker, database):
    """Before a worker comes, and while it runs. On files, the folder itself goes."""
    site = make_site(broker=broker, database=database)
    first = site.enqueue(N_LINES)
    assert site.lose_messages() >= 1
    site.start_worker()
    wait_until_it_works(site, first)
    second = site.enqueue(N_LINES)
    site.lose_messages()
    check(site, first, n_attempts=1)
    check(site, second, n_attempts=1)


def test_a_database_that_is_locked(make_site):
    """Longer than the busy timeout (2 s; 20 in production), shorter than the lease: as 30 s are to a lease of 60."""
    site = make_site(TEST_LEASE_SECONDS="8", TEST_BUSY_SECONDS="2")
    site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    with site.connect() as database:
        database.execute("BEGIN EXCLUSIVE")
        site.go()
        time.sleep(4)
        database.rollback()
    check(site, pk, n_attempts=1)


def test_a_database_that_is_locked_for_longer_than_a_lease(make_site):
    site = make_site(TEST_LEASE_SECONDS="2", TEST_BUSY_SECONDS="1")
    site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    with site.connect() as database:
        database.execute("BEGIN EXCLUSIVE")
        site.go()
        time.sleep(5)
        database.rollback()
    check(site, pk)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full(make_site, small_disk):
    """Database, broker folder and logs have no byte left for a while."""
    site = make_site(folder=small_disk, TEST_LEASE_SECONDS="8")
    site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    assert shutil.disk_usage(small_disk).free == 0
    site.go()
    time.sleep(3)
    assert len(site.lines(pk)) < N_LINES
    filler.unlink()
    check(site, pk)


# --- two want the same ----------------------------------------------------------------------------------


@every_place
def test_two_workers_and_many_hints(make_site, broker, database):
    """Without sweeps: it is the hints that start the jobs, and each job starts once."""
    site = make_site(broker=broker, database=database)
    for _ in range(2):
        site.start_worker(has_beat=False)
    jobs = [site.enqueue(N_LINES, n_hints=5) for _ in range(2)]
    for pk in jobs:
        check(site, pk, n_attempts=1)


def test_a_worker_that_was_started_twice(make_site):
    """By mistake, with the same name and the same schedule file."""
    site = make_site()
    site.start_worker()
    twin = site.start_worker(number=0)
    check(site, site.enqueue(N_LINES, n_hints=3), n_attempts=1)
    assert twin.poll() is None


# --- a person changes her mind --------------------------------------------------------------------------


def test_a_job_is_cancelled_in_the_middle_and_tried_again(make_site):
    site = make_site()
    site.start_worker()
    pk = site.enqueue(N_LINES)
    wait_until_it_works(site, pk)
    assert site.python(f"print(ledger.request_cancel({pk}))") == "True"
    assert site.wait(pk, is_over)["state"] == "cancelled"
    assert (site.processes(pk), site.lines(pk)) == ({}, [0, 1, 2, 3, 4])
    assert site.python(f"print(ledger.retry({pk}))") == "True"
    check(site, pk)
