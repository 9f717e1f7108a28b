"""A real site to measure: gunicorn under the production settings, on a scratch folder and a database of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Gunicorn:
    """How the site is served. results/rating.md says how the defaults were chosen, and how sure that is."""

    workers: int = 3
    threads: int = 2

    @property
    def arguments(self) -> list[str]:
        return [
            *("--worker-class", "gthread", "--workers", str(self.workers), "--threads", str(self.threads)),
            # Longer than people think between two requests, so a thinking rater's connection is still there.
            *("--keep-alive", "75", "--timeout", "60"),
        ]


class Engine(Protocol):
    """Where databases come from: a seeded one is kept as a template, and every point gets a fresh copy of it."""

    name: str

    def url(self, database: str) -> str: ...
    def create(self, database: str) -> None: ...
    def copy(self, template: str, database: str) -> None: ...
    def drop(self, database: str) -> None: ...
    def backend_pids(self, database: str) -> list[int]: ...
    def describe(self) -> str: ...


@dataclass
class SQLite:
    folder: Path
    name: str = "sqlite"

    def _path(self, database: str) -> Path:
        return self.folder / f"{database}.sqlite3"

    def url(self, database: str) -> str:
        return f"sqlite:///{self._path(database)}"

    def create(self, database: str) -> None:
        self.drop(database)

    def copy(self, template: str, database: str) -> None:
        self.drop(database)
        shutil.copyfile(self._path(template), self._path(database))

    def drop(self, database: str) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{self._path(database)}{suffix}").unlink(missing_ok=True)

    def backend_pids(self, database: str) -> list[int]:
        return []  # it runs inside the server's own processes

    def describe(self) -> str:
        import sqlite3

        return f"SQLite {sqlite3.sqlite_version}"


@dataclass
class PostgreSQL:
    """`server`: postgres://user@host:port, without a database. Only databases named qingting_bench_… are touched."""

    server: str
    name: str = "postgresql"

    def _name(self, database: str) -> str:
        return "qingting_bench_" + "".join(c if c.isalnum() else "_" for c in database)

    def _run(self, *statements: str) -> list[Any]:
        import psycopg

        with psycopg.connect(f"{self.server}/postgres", autocommit=True) as connection:
            rows: list[Any] = []
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[call-overload]
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def url(self, database: str) -> str:
        return f"{self.server}/{self._name(database)}"

    def create(self, database: str) -> None:
        self._run(f"DROP DATABASE IF EXISTS {self._name(database)} (FORCE)", f"CREATE DATABASE {self._name(database)}")

    def copy(self, template: str, database: str) -> None:
        name = self._name(database)
        self._run(f"DROP DATABASE IF EXISTS {name} (FORCE)", f"CREATE DATABASE {name} TEMPLATE {self._name(template)}")

    def drop(self, database: str) -> None:
        self._run(f"DROP DATABASE IF EXISTS {self._name(database)} (FORCE)")

    def backend_pids(self, database: str) -> list[int]:
        return [
            row[0] for row in self._run(f"SELECT pid FROM pg_stat_activity WHERE datname = '{self._name(database)}'")
        ]

    def describe(self) -> str:
        return f"PostgreSQL {self._run('SHOW server_version')[0][0].split()[0]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Site:
    """One served database. `url` is spoken to over loopback, with the headers a TLS proxy would add."""

    folder: Path
    engine: Engine
    database: str
    server: Gunicorn = field(default_factory=Gunicorn)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")}
        return kept | {
            "QINGTING_DATA_DIR": str(self.folder),
            "DATABASE_URL": self.engine.url(self.database),
            "CELERY_BROKER_URL": "filesystem://",
            "DJANGO_SETTINGS_MODULE": "config.settings.production",
            "PUBLIC_URL": f"https://127.0.0.1:{self.port}",
            "ALLOWED_HOSTS": "127.0.0.1",
            "LOG_LEVEL": "WARNING",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def python(self, *args: str, stdin: str = "") -> Any:
        """Run a module of ours in the site's environment; its last line of output, parsed as JSON if it is that."""
        done = subprocess.run(
            [sys.executable, *args], cwd=ROOT, env=self.env, input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(args)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        lines = done.stdout.splitlines()
        return json.loads(lines[-1]) if lines and lines[-1].startswith(("{", "[")) else None

    def start(self) -> None:
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{self.port}"),
                *self.server.arguments,
            ],
            cwd=ROOT,
            env=self.env,
            stdout=log,
            stderr=log,
        )
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/healthz", headers={"X-Forwarded-Proto": "https"}
        )
        for _ in range(300):
            try:
                urllib.request.urlopen(request, timeout=2).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError((self.folder / "server.log").read_text()[-4000:])

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers, without the master."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def cpu_seconds(self) -> dict[str, float]:
        """Processor seconds used so far by all processes of gunicorn, and by the database's own backends."""
        assert self.process
        return {
            "server": sum(_cpu(pid) for pid in self.workers) + _cpu(self.process.pid, with_dead_children=True),
            "database": sum(_cpu(pid) for pid in self.engine.backend_pids(self.database)),
        }

    def memory_mib(self) -> float:
        """Proportional set size of all processes of gunicorn."""
        assert self.process
        return sum(_pss_mib(pid) for pid in [self.process.pid, *self.workers])


def _cpu(pid: int, *, with_dead_children: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    user, system, dead_user, dead_system = (int(x) for x in fields[11:15])
    return (user + system + (dead_user + dead_system if with_dead_children else 0)) / _TICKS


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
