"""How many jobs the ledger can claim, keep and finish in a second.

    python -m benchmarks.bench_ledger                       SQLite, and PostgreSQL where it answers
    python -m benchmarks.bench_ledger --seconds 2 --workers 1

Each worker is a process with a connection of its own. `claim` takes one job and finishes it, as a worker does for a
short one. `heartbeat` renews one lease and looks for a wish to stop, as every running job does once a second.
`contested` lets all workers go for the same jobs: no job may be claimed twice.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from typing import Any

POSTGRES = os.environ.get("TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    arguments = parser.parse_args()
    print("| database | workers | claim + finish, jobs/s | heartbeats/s | contested, jobs/s | claimed twice |")
    print("| --- | --: | --: | --: | --: | --: |")
    for name, url in databases():
        for n_workers in arguments.workers:
            with tempfile.TemporaryDirectory() as folder, database(url, folder) as address:
                env = {"QINGTING_DATA_DIR": folder, "DATABASE_URL": address}
                in_process(env, migrate)
                claims = sum(together(env, n_workers, claim_own, arguments.seconds))
                beats = sum(together(env, n_workers, beat, arguments.seconds))
                won = together(env, n_workers, claim_shared, arguments.seconds)
                n_twice = in_process(env, count_twice)
                rates = [claims, beats, sum(won)]
                cells = " | ".join(f"{n / arguments.seconds:,.0f}" for n in rates)
                print(f"| {name} | {n_workers} | {cells} | {n_twice} |", flush=True)
    load = os.getloadavg()[0]
    print(f"\nLoad {load:.1f} on {os.cpu_count()} cores, this bench included; every write waits for the disk.")


def databases() -> Iterator[tuple[str, str]]:
    yield "SQLite", ""
    import psycopg

    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(POSTGRES, connect_timeout=2):
        yield "PostgreSQL", POSTGRES


@contextlib.contextmanager
def database(url: str, folder: str) -> Iterator[str]:
    """The address of an empty database that is gone afterwards."""
    if not url:
        yield f"sqlite:///{folder}/bench.sqlite3"
        return
    import psycopg

    name = f"bench_ledger_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield url.rpartition("/")[0] + f"/{name}"
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# --- processes ------------------------------------------------------------------------------------------


def together(env: dict[str, str], n_workers: int, work: Any, seconds: float) -> list[int]:
    """What `work` counted in each of the workers, which begin at the same moment."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(n_workers), context.Queue()
    workers = [
        context.Process(target=worker, args=(env, work, seconds, number, barrier, answers))
        for number in range(n_workers)
    ]
    for process in workers:
        process.start()
    found = [answers.get(timeout=seconds + 120) for _ in workers]
    for process in workers:
        process.join()
    return found


def in_process(env: dict[str, str], work: Any) -> int:
    (found,) = together(env, 1, work, 0)
    return found


def worker(
    env: dict[str, str], work: Any, seconds: float, number: int, barrier: Barrier, answers: multiprocessing.Queue[int]
) -> None:
    os.environ.update(env, DJANGO_SETTINGS_MODULE="config.settings.dev")
    import django

    django.setup()
    answers.put(work(seconds, number, barrier) or 0)


# --- work -----------------------------------------------------------------------------------------------


def migrate(seconds: float, number: int, barrier: Barrier) -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def claim_own(seconds: float, number: int, barrier: Barrier) -> int:
    from jobs import ledger
    from jobs.models import Job

    made = [Job(kind="bench", params={}, queue=f"own-{number}") for _ in range(int(3000 * seconds))]
    Job.objects.bulk_create(made, batch_size=500)
    barrier.wait()
    end = time.perf_counter() + seconds
    for n, job in enumerate(made):
        if time.perf_counter() > end:
            return n
        found = ledger.claim(job.pk, worker=f"w{number}")
        assert found
        ledger.finish(found, result={})
    raise RuntimeError("too few jobs were made for the time")


def beat(seconds: float, number: int, barrier: Barrier) -> int:
    from jobs import ledger

    found = ledger.claim(ledger.enqueue(kind="bench", params={}).pk, worker=f"w{number}")
    assert found
    barrier.wait()
    end, n = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        ledger.heartbeat(found, n_done=n, n_total=1_000_000)
        n += 1
    return n


def claim_shared(seconds: float, number: int, barrier: Barrier) -> int:
    from jobs import ledger
    from jobs.models import Job

    if number == 0:
        made = [Job(kind="bench", params={}, queue="shared") for _ in range(int(3000 * seconds))]
        Job.objects.bulk_create(made, batch_size=500)
    barrier.wait()
    end, n = time.perf_counter() + seconds, 0
    for pk in Job.objects.filter(queue="shared").order_by("pk").values_list("pk", flat=True):
        if time.perf_counter() > end:
            break
        n += ledger.claim(pk, worker=f"w{number}") is not None
    return n


def count_twice(seconds: float, number: int, barrier: Barrier) -> int:
    """Jobs that more than one claim got: the token counts them."""
    from jobs.models import Job

    return Job.objects.filter(queue="shared", token__gt=1).count()


if __name__ == "__main__":
    main()
