"""A toy base, a corpus of it with its row, and a run whose job runs to its end in the test's own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.models import Job
from jobs.tasks import run_job
from tests.models_runtime import tiny
from tests.training.corpora import TALK, messages, soulchat
from training import tasks  # noqa: F401  (it registers the kinds of jobs)
from training.corpus.encoding import Encoder
from training.corpus.prepare import Plan, Source, prepare
from training.corpus.samples import Limits
from training.finetune.config import FinetuneConfig
from training.models import Corpus, TrainingRun
from training.services.runs import Launch, foresee, launch_run

CONFIG = FinetuneConfig(
    steps=8,
    warmup_steps=2,
    batch=4,
    groups=2,
    learning_rate=1e-3,
    precision="fp32",
    max_context_tokens=400,
    max_target_tokens=100,
    row_tokens=512,
    checkpoint_every=2,
    evaluate_every=4,
    n_evaluated=4,
    n_generated=1,
)


def make_home(folder: Path) -> Path:
    """base/ and other/, models of different families, and corpus/, prepared for the first."""
    tiny.chatglm(folder / "base")
    tiny.causal(folder / "other")
    entries = [
        {"id": i, "topic": "情绪", "messages": messages(*(f"{text}（{i}）" for text in TALK))} for i in range(20)
    ]
    release = soulchat(folder / "release.json", entries)
    limits = Limits(400, 100, "ends")
    prepare(
        [Source(release, release.name)],
        folder / "corpus",
        encoder=Encoder.load(folder / "base"),
        plan=Plan(limits=limits, test_share=0.2),
    )
    return folder


def make_corpus(home: Path, **changed: Any) -> Corpus:
    card = json.loads((home / "corpus" / "corpus.json").read_text())
    values = {
        "name": "talks",
        "weights": str(home / "base"),
        "path": str(home / "corpus"),
        "card": card,
        "content_hash": card["train"]["content_hash"],
    }
    return Corpus.objects.create(**{**values, **changed})


def launch(corpus: Corpus, *, accepts_leaks: bool = False, **changed: Any) -> TrainingRun:
    wanted = Launch(**{"name": "first run", "corpus": corpus, "config": CONFIG, **changed})
    return launch_run(wanted, foresee(wanted), accepts_leaks=accepts_leaks, by=None)


def run(training_run: TrainingRun) -> Job:
    """Run the newest job of a run, here and now; the job as it ended."""
    job_id = TrainingRun.objects.get(pk=training_run.pk).job_id
    run_job(job_id)
    return Job.objects.get(pk=job_id)
