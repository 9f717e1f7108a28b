"""A real worker with the filesystem broker: a file comes in, also when messages are lost and workers are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.services, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


class Site:
    """An installation in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **{k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "CELERY_BROKER_URL"}},
            "QINGTING_DATA_DIR": str(folder),
            "DJANGO_SETTINGS_MODULE": "tests.jobs.worker_settings",
        }
        self.python("from django.core.management import call_command; call_command('migrate', verbosity=0)")

    def python(self, code: str) -> str:
        setup = "import django, json; django.setup(); from jobs.models import Job; from jobs import ledger\n"
        done = subprocess.run(
            [sys.executable, "-c", setup + code], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start_worker(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "worker.log").open("ab")
        schedule = str(self.folder / "beat-schedule")
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "config", "worker", "-B", "-c", "1", "-s", schedule, "-l", "info"],
            cwd=ROOT,
            env=self.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def enqueue(self, n_items: int, *, slug: str, is_hinted: bool) -> int:
        """A job that imports items from an upload of `n_items` lines."""
        name = uuid.uuid4().hex
        folder = self.folder / "uploads" / "imports"
        folder.mkdir(parents=True, exist_ok=True)
        turns = [{"role": "client", "content": "x" * 500}]
        lines = (json.dumps({"key": str(n), "turns": turns}) for n in range(n_items))
        (folder / name).write_text("\n".join(lines))
        params = {
            "upload": name,
            "file_name": "items.jsonl",
            "options": {"format": None, "one_per_dialogue": False, "sample": None, "seed": 1, "is_stratified": False},
            "new_dataset": {"slug": slug, "name": slug, "source": "", "licence": ""},
        }
        hint = "from jobs.tasks import send_hint; send_hint(job.pk)" if is_hinted else ""
        return int(
            self.python(
                f"job = ledger.enqueue(kind='annotation.import_items', params=json.loads('''{json.dumps(params)}'''))\n"
                f"{hint}\nprint(job.pk)"
            )
        )

    def job(self, pk: int) -> dict:
        fields = "state", "attempt", "result", "error", "n_done"
        return json.loads(self.python(f"print(json.dumps(Job.objects.values(*{fields}).get(pk={pk})))"))

    def wait(self, pk: int, is_reached: Callable[[dict], bool], seconds: float = 60) -> dict:
        end = time.monotonic() + seconds
        while not is_reached(found := self.job(pk)):
            if time.monotonic() > end:
                raise AssertionError(f"{found}\n{(self.folder / 'worker.log').read_text()[-3000:]}")
            time.sleep(0.3)
        return found

    @property
    def uploads(self) -> list[Path]:
        return list((self.folder / "uploads" / "imports").iterdir())


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def workers(site):
    """start() -> a running worker; all are gone at the end."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(site.start_worker())
        return started[-1]

    yield start
    for worker in started:
        kill(worker)


def kill(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def is_over(job: dict) -> bool:
    return job["state"] in ("done", "failed", "cancelled")


def test_a_worker_takes_a_file_in(site, workers):
    workers()
    job = site.wait(site.enqueue(1000, slug="a", is_hinted=True), is_over)
    assert job["state"] == "done", job
    assert job["result"]["counts"]["n_new"] == 1000
    assert site.uploads == []


def test_a_job_whose_message_is_lost_is_found_by_the_sweep(site, workers):
    pk = site.enqueue(10, slug="a", is_hinted=True)
    messages = list((site.folder / "broker" / "messages").iterdir())
    assert messages
    for message in messages:
        message.unlink()
    workers()
    assert site.wait(pk, is_over)["state"] == "done"


def test_a_killed_worker_loses_nothing_and_doubles_nothing(site, workers):
    pk = site.enqueue(80_000, slug="a", is_hinted=True)
    worker = workers()
    site.wait(pk, lambda job: job["state"] == "running")
    kill(worker)
    assert site.job(pk)["state"] == "running"  # nobody knows yet
    workers()
    job = site.wait(pk, is_over, seconds=120)
    assert (job["state"], job["attempt"]) == ("done", 2), job
    assert site.python("from annotation.models import Item; print(Item.objects.count())") == "80000"
    assert site.uploads == []
