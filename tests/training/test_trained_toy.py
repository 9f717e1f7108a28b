"""The demonstration's run: corpus, run, system, study, and a batch that waits; children run in the test's process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from django.core.management import CommandError, call_command

from annotation.models import Study
from annotation.services.demo import load_demo
from jobs.supervisor import ChildResult
from jobs.tasks import run_job
from models_runtime.models import GenerationBatch
from training.corpus import worker as corpus_worker
from training.finetune import worker as finetune_worker
from training.finetune.protocol import FinetuneJob
from training.management.commands import load_trained_toy as command
from training.models import TrainingRun
from training.services import corpora, runs

pytestmark = pytest.mark.django_db


@pytest.fixture
def workers(settings, tmp_path, monkeypatch):
    """Whoever waits for a job does it."""
    settings.IS_DEMO = True
    settings.MODEL_DIRS = [tmp_path / "models"]
    settings.MEDIA_ROOT = tmp_path / "uploads"
    for name in ("RUN_DIR", "CORPUS_DIR", "BATCH_DIR", "JOB_LOG_DIR"):
        setattr(settings, name, tmp_path / name)
    settings.WEIGHTS_DIGESTS = tmp_path / "digests.json"

    def prepare(running, argv, **options):
        corpus_worker.run(json.loads(Path(argv[-1]).read_text()), lambda message: None, lambda: False)
        return ChildResult(0, 0.0, tmp_path)

    def train(running, argv, *, on_message, **options):
        n_threads = torch.get_num_threads()
        job = FinetuneJob.from_json(json.loads(Path(argv[-1]).read_text()))
        finetune_worker.run(replace(job, threads=1), on_message, lambda: False)
        torch.set_num_threads(n_threads)
        return ChildResult(0, 0.0, tmp_path)

    monkeypatch.setattr(corpora, "run_child", prepare)
    monkeypatch.setattr(runs, "run_child", train)
    monkeypatch.setattr(command, "CONFIG", replace(command.CONFIG, steps=2, warmup_steps=1, n_generated=0))
    monkeypatch.setattr(command, "_wait_for", lambda find: run_job(find().pk))


def test_a_toy_is_trained_and_stands_in_a_study_named_as_what_it_is(workers):
    demo = load_demo()
    call_command("load_trained_toy")
    run = TrainingRun.objects.get()
    assert run.system.is_demo and "Toy" in run.system.name and run.leaks  # it learns what it answers, and says so
    study = Study.objects.get(name=command.STUDY)
    assert study.is_draft and study.is_demo
    assert run.system in [arm.system for arm in study.arms.all()] and study.arms.count() == 3
    batch = GenerationBatch.objects.get(study=study)
    assert [part.system for part in batch.parts.all()] == [run.system]
    assert batch.n_items == study.study_items.count() == 12
    assert demo.open_study.arms.count() == 4


def test_it_is_for_the_demonstration_alone(db):
    with pytest.raises(CommandError, match="not a demonstration"):
        call_command("load_trained_toy")
