"""A system that answers, a dataset to be answered, and a job run to its end in the test's own process."""

from __future__ import annotations

from pathlib import Path

from annotation.models import Dataset, System
from jobs import ledger
from jobs.models import Job
from jobs.registry import RunningJob
from jobs.tasks import run_job
from models_runtime import tasks
from models_runtime.engine.spec import DecodingConfig
from models_runtime.models import BatchPart, GenerationBatch
from models_runtime.runtimes import LocalSettings
from models_runtime.services.batches import Launch, Questions, launch_batch
from models_runtime.services.runtimes import set_runtime
from tests import factories

DECODING = DecodingConfig(is_sampled=True, temperature=0.95, top_p=0.75, top_k=50, max_new_tokens=8)


def local_system(weights: Path, slug: str | None = None, **changed) -> System:
    system = factories.make_system(slug)
    settings = LocalSettings(**{"weights": str(weights), "decoding": DECODING, **changed})
    set_runtime(system=system, settings=settings, by=None)
    return system


def make_dataset(n: int = 4) -> Dataset:
    dataset = factories.make_dataset()
    for number in range(n):
        factories.make_item(dataset, f"{number}#1")
    Dataset.objects.filter(pk=dataset.pk).update(n_items=n)
    dataset.refresh_from_db()
    return dataset


def launch(*systems: System, dataset: Dataset, **fields) -> GenerationBatch:
    questions = Questions(dataset=dataset, n=fields.pop("n", None))
    return launch_batch(Launch(systems=systems, questions=questions, **fields), by=None)


def run(batch: GenerationBatch) -> list[Job]:
    """Run every job of the batch that waits, here and now; the jobs as they ended."""
    for part in batch.parts.order_by("pk"):
        run_job(part.job_id)
    return [part.job for part in BatchPart.objects.filter(batch=batch).select_related("job").order_by("pk")]


def claimed(batch: GenerationBatch):
    """The first part, and its job as a worker holds it that will never do anything."""
    part = batch.parts.select_related("batch", "system").get()
    claim = ledger.claim(part.job_id, worker="somebody")
    assert claim is not None
    return part, RunningJob(claim, tasks.ANSWER, {"part_id": part.pk}, 1, None, part.job.public_id)
