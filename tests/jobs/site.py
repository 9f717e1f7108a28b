"""A whole installation for a test: folder, database, broker and real workers, all its own, all gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kombu
import psycopg
import pytest
import redis

from jobs.supervisor import MARK
from tests.jobs.kinds import KIND, TABLE

ROOT = Path(__file__).parents[2]
POSTGRES = os.environ.get("TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
BROKERS = {"filesystem": "filesystem://", "redis": "redis://127.0.0.1:6379/0", "rabbitmq": "amqp://127.0.0.1:5672//"}
PORTS = {"redis": 6379, "rabbitmq": 5672, "postgresql": 5432}
# One database with each broker, and each database at least once.
PLACES = [("filesystem", "sqlite"), ("redis", "sqlite"), ("rabbitmq", "postgresql")]


@cache
def answers(service: str) -> bool:
    if service not in PORTS:
        return True
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORTS[service]), 1):
        return True
    return False


class Site:
    def __init__(self, folder: Path, *, broker: str = "filesystem", database: str = "sqlite", **env: str) -> None:
        self.folder, self.broker, self.database = folder, broker, database
        self.queue = f"test-{uuid.uuid4().hex[:12]}"
        self.workers: list[subprocess.Popen[bytes]] = []
        folder.mkdir(exist_ok=True)
        name = f"test_site_{uuid.uuid4().hex[:12]}"
        if database == "sqlite":
            self.url = f"sqlite:///{folder / 'site.sqlite3'}"
        else:
            self.url = POSTGRES.rpartition("/")[0] + f"/{name}"
        self.env = {
            **{k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "CELERY_BROKER_URL"}},
            "QINGTING_DATA_DIR": str(folder),
            "DATABASE_URL": self.url,
            "CELERY_BROKER_URL": BROKERS[broker],
            "DJANGO_SETTINGS_MODULE": "tests.jobs.worker_settings",
            "TEST_QUEUE": self.queue,
            **env,
        }

    # --- database ---

    def migrate(self) -> None:
        if self.database == "postgresql":
            with psycopg.connect(POSTGRES, autocommit=True) as server:
                server.execute(f'CREATE DATABASE "{self._name}"')
        self.python(f"call_command('migrate', verbosity=0); connection.cursor().execute('{TABLE}')")

    def copy_database(self, template: Site) -> None:
        """Migrating takes seconds; a copy does not."""
        if self.database == "sqlite":
            shutil.copy(template.folder / "site.sqlite3", self.folder / "site.sqlite3")
        else:
            with psycopg.connect(POSTGRES, autocommit=True) as server:
                server.execute(f'CREATE DATABASE "{self._name}" TEMPLATE "{template._name}"')

    @property
    def _name(self) -> str:
        return self.url.rpartition("/")[2]

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        if self.database == "sqlite":
            with contextlib.closing(sqlite3.connect(self.folder / "site.sqlite3", timeout=20)) as found, found:
                yield found
        else:
            with psycopg.connect(self.url) as found:
                yield found

    def ask(self, sql: str) -> list[tuple]:
        with self.connect() as database:
            return database.execute(sql).fetchall()

    def job(self, pk: int) -> dict[str, Any]:
        names = "state", "attempt", "token", "n_done", "error_class", "error", "result"
        (row,) = self.ask(f"SELECT {', '.join(names)} FROM jobs_job WHERE id = {pk}")
        return dict(zip(names, row, strict=True))

    def lines(self, pk: int) -> list[int]:
        return [n for (n,) in self.ask(f"SELECT n FROM test_lines WHERE job = {pk} ORDER BY n")]

    # --- processes ---

    def python(self, code: str) -> str:
        setup = (
            "import django, json, os, signal; django.setup()\n"
            "from django.core.management import call_command; from django.db import connection, transaction\n"
            "from jobs import ledger; from jobs.models import Job; from jobs.tasks import send_hint\n"
        )
        command = [sys.executable, "-c", setup + code]
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=90)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.stdout.strip()

    def go(self) -> None:
        """Children that wait go on, and others will not wait."""
        (self.folder / "go").touch()

    def enqueue(self, n_lines: int, *, n_hints: int = 1, then: str = "") -> int:
        """A job of `n_lines` lines."""
        params = {"n_lines": n_lines}
        return int(
            self.python(
                f"job = ledger.enqueue(kind='{KIND}', params={params}, queue='{self.queue}')\n"
                f"print(job.pk, flush=True)\n{then}\n"
                f"for _ in range({n_hints}): send_hint(job.pk, job.queue)"
            )
        )

    def start_worker(self, *, has_beat: bool = True, number: int | None = None) -> subprocess.Popen[bytes]:
        """number: of an earlier worker, to start it a second time."""
        number = len(self.workers) if number is None else number
        beat = ["--beat", "--schedule", str(self.folder / f"beat-{number}")] if has_beat else []
        log = (self.folder / "worker.log").open("ab")
        self.workers.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "config", "worker", *beat, "--queues", self.queue),
                    *("--concurrency", "1", "--loglevel", "info", "--without-gossip", "--without-mingle"),
                    *("--hostname", f"{self.queue}-{number}@%h"),
                ],
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        return self.workers[-1]

    def wait(self, pk: int, is_reached: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not is_reached(found := self.job(pk)):
            if time.monotonic() > end:
                raise AssertionError(f"{found}\n{(self.folder / 'worker.log').read_text()[-5000:]}")
            time.sleep(0.05)
        return found

    def processes(self, pk: int) -> dict[str, int]:
        """Whoever carries the job's mark, and the worker that supervises them, by what they are."""
        ((public_id,),) = self.ask(f"SELECT public_id FROM jobs_job WHERE id = {pk}")
        mark = f"{MARK}={uuid.UUID(str(public_id))}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes()
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if b"launcher.py" in command:
                        found |= {"launcher": int(folder.name), "supervisor": parent}
                    else:
                        found["child" if b"child.py" in command else "helper"] = int(folder.name)
        return found

    # --- broker ---

    def lose_messages(self) -> int:
        """What a broker that was wiped has lost; how many messages there were at the least."""
        if self.broker == "filesystem":
            n = len(list((self.folder / "broker" / "messages").glob("*")))
            shutil.rmtree(self.folder / "broker")
            return n
        with kombu.Connection(BROKERS[self.broker]) as broker:
            return kombu.Queue(self.queue, channel=broker.default_channel).purge() or 0

    def close(self) -> None:
        for worker in self.workers:
            kill(worker)
        if self.broker == "rabbitmq":
            with kombu.Connection(BROKERS[self.broker]) as broker:
                kombu.Queue(self.queue, channel=broker.default_channel).delete()
                kombu.Exchange(self.queue, channel=broker.default_channel).delete()
        if self.broker == "redis":
            bindings = (f"_kombu.{kind}.{self.queue}" for kind in ("binding", "binding_permanent"))
            redis.Redis.from_url(BROKERS["redis"]).delete(self.queue, *bindings)
        if self.database == "postgresql":
            with psycopg.connect(POSTGRES, autocommit=True) as server:
                server.execute(f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)')


def kill(worker: subprocess.Popen[bytes]) -> None:
    """The worker and its pool, at once, with no time to say anything."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def is_over(job: dict[str, Any]) -> bool:
    return job["state"] in ("done", "failed", "cancelled")


def need(*services: str) -> None:
    for service in services:
        if not answers(service):
            pytest.skip(f"{service} does not answer on 127.0.0.1:{PORTS[service]}")
