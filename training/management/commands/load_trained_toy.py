"""manage.py load_trained_toy: a corpus, a run and a system that answers, all of toy size, to show the way through."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.files.base import ContentFile
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from annotation.models import Dataset, Item, Study, System, User
from annotation.services.studies import choose_systems, create_study, draw_items
from annotation.services.uploads import store_upload
from jobs.models import Job
from jobs.tasks import send_hint
from models_runtime.management.commands.load_toy import SLUG
from models_runtime.services.batches import Launch as Answers
from models_runtime.services.batches import Questions, launch_batch
from models_runtime.tasks import hint_batch
from training.finetune.config import FinetuneConfig
from training.models import Corpus, TrainingRun
from training.services.corpora import UPLOADS, Order, launch_corpus
from training.services.runs import Launch, foresee, launch_run
from training.tasks.runs import hint_run

CORPUS, RUN, SYSTEM = "示例语料 Demonstration dialogues", "玩具训练 Toy run", "玩具微调模型 Toy, trained here"
STUDY = "玩具研究：本站训练的模型 Toy study"
# From random weights, on the dialogues that it will answer: about a minute, and nothing to conclude from.
CONFIG = FinetuneConfig(
    steps=600,
    batch=8,
    groups=1,
    learning_rate=2e-3,
    warmup_steps=50,
    precision="fp32",
    max_context_tokens=400,
    max_target_tokens=100,
    row_tokens=1024,
    checkpoint_every=200,
    evaluate_every=100,
    n_generated=4,
)
LIMITS = {"context": 400, "target": 100, "cut": None}
PLAN = {"template": None, "test_share": 0.2, "seed": 1, "limits": LIMITS, "max_broken": 0, "rules": None}
SECONDS = 900  # for a job to end, on a slow machine


class Command(BaseCommand):
    help = "Train a toy on the demonstration's Chinese dialogues and let it answer them, to show how a run goes."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("load_toy", stdout=self.stdout)
        datasets = list(Dataset.objects.filter(is_demo=True, slug__endswith="-zh"))
        run = _trained(_corpus(datasets))
        self.stdout.write(f"{RUN} trains in the background.")
        _wait_for(lambda: TrainingRun.objects.get(pk=run.pk).job)
        system = TrainingRun.objects.get(pk=run.pk).system
        if system is None:
            raise CommandError(f"{RUN} ended without a system; see its page.")
        study = _study([system, System.objects.get(slug=SLUG)], datasets)
        with transaction.atomic():
            batch = launch_batch(Answers([system], Questions(study=study)), by=None)
            transaction.on_commit(partial(hint_batch, batch))
        self.stdout.write(f"{SYSTEM} answers the items of {STUDY}.")


def _corpus(datasets: list[Dataset]) -> Corpus:
    """The dialogues as a file that came in by page, prepared by the worker."""
    rows = [
        {"key": item.key, "turns": item.turns, "reference": item.reference}
        for item in Item.objects.filter(dataset__in=datasets)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    upload = store_upload(ContentFile(text.encode()), folder=UPLOADS)
    # What is judged here is learnt on purpose, so it is not left out; the run's page says so.
    plan = PLAN | {"is_against_database": False}
    order = Order(name=CORPUS, weights=SLUG, plan=plan, sources=[{"name": "demo.jsonl", "upload": upload}])
    corpus = launch_corpus(order, by=None)
    assert corpus.job is not None  # noqa: S101  (it was launched with one)
    send_hint(corpus.job.pk, corpus.job.queue)
    _wait_for(lambda: Corpus.objects.get(pk=corpus.pk).job)
    return Corpus.objects.get(pk=corpus.pk)


def _trained(corpus: Corpus) -> TrainingRun:
    launch = Launch(name=RUN, corpus=corpus, config=CONFIG, system_name=SYSTEM)
    run = launch_run(launch, foresee(launch), accepts_leaks=True, by=None)
    hint_run(run)
    return run


def _study(systems: list[System], datasets: list[Dataset]) -> Study:
    """A study in preparation, of the demonstration's researcher."""
    researcher = User.objects.get(username="demo-researcher")
    study = create_study(by=researcher, name=STUDY)
    Study.objects.filter(pk=study.pk).update(is_demo=True)
    choose_systems(study=study, by=researcher, systems=systems, with_reference=True)
    for dataset in datasets:
        draw_items(study=study, by=researcher, dataset=dataset, n=dataset.n_items, only_answered=False)
    return study


def _wait_for(find: Callable[[], Job | None]) -> None:
    """Until a job is done. Raises CommandError if it ends otherwise."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        job = find()
        if job is not None and job.state == Job.State.DONE:
            return
        if job is not None and job.is_over:
            raise CommandError(f"{job.params.get('about', job.kind)}: {job.state} {job.error_class} {job.error}")
        connection.close()  # nothing is held while others write
        time.sleep(1)
    raise CommandError(f"No job ended within {SECONDS} s; is a worker running?")
