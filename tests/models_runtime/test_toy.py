"""The demonstration's toy model: the real architecture, its own words, honestly named."""

from __future__ import annotations

import json

import pytest
import torch
from django.core.management import CommandError, call_command

from annotation.models import Response, System
from annotation.services.demo import load_demo
from models_runtime.engine.loading import load
from models_runtime.engine.prompts import Turn
from models_runtime.engine.protocol import Work, WorkerJob, write_work
from models_runtime.engine.worker import run
from models_runtime.management.commands.load_toy import DECODING
from models_runtime.models import GenerationBatch
from models_runtime.services.batches import work_left
from models_runtime.toy import make_toy

SENTENCES = [
    "我最近总是睡不着，压力很大。",
    "听起来你这段时间很辛苦，愿意和我多说一些吗？",
    "谢谢你愿意告诉我这些。",
] * 5


def test_it_loads_as_what_it_is_and_writes_words_of_the_sentences(tmp_path):
    torch.set_num_threads(1)
    folder = make_toy(tmp_path / "toy", SENTENCES)
    assert load(folder).family == "chatglm"
    items = tmp_path / "items.jsonl"
    write_work(items, [Work(str(n), 0, (Turn("client", "我睡不着" * (n + 1)),)) for n in range(4)])
    said: list[dict] = []
    run(WorkerJob(weights=folder, items=items, decoding=DECODING, seed=1), said.append, lambda: False)
    texts = [message["text"] for message in said if message["type"] == "response"]
    assert len(texts) == 4 and len(set(texts)) > 1
    assert set("".join(texts)) <= set("".join(SENTENCES)) | set(",?. \n\t")


def test_it_is_the_same_on_every_machine(tmp_path):
    one, two = (make_toy(tmp_path / name, SENTENCES) for name in "ab")
    for file in ("config.json", "ice_text.model", "model.safetensors"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


@pytest.mark.django_db
def test_the_demonstration_lets_it_answer_and_keeps_its_studies_as_they_are(settings, tmp_path):
    settings.MODEL_DIRS = [tmp_path]
    with pytest.raises(CommandError, match="not a demonstration"):
        call_command("load_toy")
    settings.IS_DEMO = True
    with pytest.raises(CommandError, match="not loaded yet"):
        call_command("load_toy")
    demo = load_demo()
    n_before = Response.objects.count()
    call_command("load_toy")
    system = System.objects.get(slug="toy")
    assert system.is_demo and "toy" in system.name.lower() and "random weights" in system.description
    parts = [part for batch in GenerationBatch.objects.all() for part in batch.parts.all()]
    assert [part.system for part in parts] == [system] * 2
    assert sum(len(work_left(part)) for part in parts) == 12
    assert Response.objects.count() == n_before
    assert not demo.open_study.arms.filter(system=system).exists()
    assert json.loads((tmp_path / "toy" / "config.json").read_text())["model_type"] == "chatglm"
