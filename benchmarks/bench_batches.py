"""What a batch costs beside the answering: ten thousand items through a system that answers at once.

    python -m benchmarks.bench_batches                    SQLite, and PostgreSQL where one answers
    python -m benchmarks.bench_batches --items 1000

The child process is real, supervised as every child is, and writes lines like those of models_runtime.engine.worker
with a text of its own for each item; it loads no model. Measured is the job from its claim to its end, launch apart:
reading the dialogues, the child, its pipe, scanning each text, storing it, heartbeats.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
WORDS = "我听到了，这段时间你一定很不容易。愿意多说一些吗？"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--postgres", default="postgres://postgres@127.0.0.1:5432", help="server to make a database on")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        answer_at_once(Path(options.child))
    elif options.inside:
        measure(options.items)
    else:
        compare(options.items, options.postgres)


def compare(n_items: int, server: str) -> None:
    print("| database | items | launch, s | job, s | ms an item | storing, ms an item | aim |\n|" + " --- |" * 7)
    with tempfile.TemporaryDirectory() as folder:
        run_inside(n_items, folder, f"sqlite:///{folder}/bench.sqlite3", "SQLite", "< 5 ms")
        if not answers(server):
            print("| PostgreSQL | – | no server answered | | | | < 2 ms |")
            return
        import psycopg

        name = f"bench_batches_{os.getpid()}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as database:
            database.execute(f"CREATE DATABASE {name}")
            try:
                run_inside(n_items, folder, f"{server}/{name}", "PostgreSQL", "< 2 ms")
            finally:
                database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def answers(server: str) -> bool:
    import socket

    found = urlsplit(server)
    try:
        socket.create_connection((found.hostname or "", found.port or 5432), 1).close()
    except OSError:
        return False
    return True


def run_inside(n_items: int, folder: str, url: str, name: str, aim: str) -> None:
    """Measure in a process of its own, whose settings are those of this database."""
    env = os.environ | {"QINGTING_DATA_DIR": folder, "DATABASE_URL": url, "LOG_LEVEL": "ERROR"}
    env |= {"DJANGO_SETTINGS_MODULE": "config.settings.dev", "CELERY_BROKER_URL": "memory://"}
    command = [sys.executable, "-m", "benchmarks.bench_batches", "--items", str(n_items), "--inside", "yes"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    print(f"| {name} | {n_items} | {done.stdout.strip()} | {aim} |", flush=True)


def measure(n_items: int) -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from annotation.models import Response
    from jobs.tasks import run_job
    from models_runtime import tasks
    from models_runtime.runtimes import LocalSettings
    from models_runtime.services import local
    from models_runtime.services.batches import Launch, Questions, launch_batch
    from models_runtime.services.recording import Recorder
    from models_runtime.services.runtimes import set_runtime
    from tests import factories

    call_command("migrate", verbosity=0)
    system, dataset = factories.make_system("instant"), factories.make_dataset("bench")
    from annotation.models import Item

    turns = [{"role": role, "text": WORDS * 2} for role in ("client", "counsellor") * 5] + [
        {"role": "client", "text": WORDS}
    ]
    Item.objects.bulk_create(
        [
            Item(dataset=dataset, key=str(n), dialogue_key=str(n), turns=turns, n_characters=500, content_hash=str(n))
            for n in range(n_items)
        ],
        batch_size=1000,
    )
    set_runtime(system=system, settings=LocalSettings(weights="instant"), by=None)
    started = time.perf_counter()
    batch = launch_batch(Launch([system], Questions(dataset=dataset)), by=None)
    launched = time.perf_counter()
    real, recorders = local.run_child, []

    def instead(running, argv, **options):  # the supervisor is the real one; only the program is another
        recorders.append(running.recorder)
        child = [sys.executable, "-m", "benchmarks.bench_batches", "--child", argv[-1]]
        return real(running, child, **options)

    local.run_child = instead
    assert tasks.ANSWER
    run_job(batch.parts.get().job_id)
    seconds = time.perf_counter() - launched
    job = batch.parts.get().job
    assert job.state == "done", job.error
    assert Response.objects.count() == n_items
    recorder: Recorder = recorders[0]
    storing = 1000 * recorder.seconds / n_items
    print(f"{launched - started:.2f} | {seconds:.1f} | {1000 * seconds / n_items:.2f} | {storing:.2f}")


def answer_at_once(job_file: Path) -> None:
    """The worker's protocol without a model; torch is never loaded."""
    import json

    from models_runtime.engine.protocol import WorkerJob, read_work

    job = WorkerJob.from_json(json.loads(job_file.read_text()))
    spec = {"family": "none", "decoding": job.decoding.to_json(), "weights_digest": "0" * 64}
    known = {"spec": spec, "spec_digest": "0" * 64, "seed": job.seed, "device": "none", "versions": {}}
    work = read_work(job.items)
    print(json.dumps({"type": "ready", "n_total": len(work), "notes": [], **known}), flush=True)
    for n, one in enumerate(work):
        told = {"tokens_in": 500, "tokens_out": 30, "finish_reason": "stop", "seconds": 0.0, **known}
        text = f"{WORDS}（{n}）"
        message = {"type": "response", "item": one.item, "repeat": one.repeat, "text": text, "provenance": told}
        print(json.dumps(message, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
