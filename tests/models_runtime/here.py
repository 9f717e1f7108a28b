"""What the answering process says, said in the test's own process: a child would load torch anew, for seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from models_runtime.engine import worker
from models_runtime.engine.child import last_words
from models_runtime.engine.protocol import Work, WorkerJob, write_work

Message = dict[str, Any]


def said_by(job: WorkerJob) -> list[Message]:
    said: list[Message] = []
    try:
        worker.run(job, said.append, lambda: False)
    except Exception as error:
        said.append(last_words(error, worker.failure_of(error)))
    return said


def child_messages(module: str, job_file: Path) -> Iterator[Message]:
    """In place of answering.child_messages."""
    assert module == "models_runtime.engine.worker"
    yield from said_by(WorkerJob.from_json(json.loads(job_file.read_text(encoding="utf-8"))))


def run_worker_in(folder: Path) -> Callable[..., None]:
    """In place of services.local.run_worker."""

    def run_worker(
        running: Any, job: WorkerJob, work: Iterable[Work], hear: Callable[[Message], None], **_: Any
    ) -> None:
        items = folder / "items.jsonl"
        write_work(items, work)
        for message in said_by(replace(job, items=items, batch_rows=None)):  # which changes no response
            assert message["type"] != "failed", message
            hear(message)

    return run_worker
