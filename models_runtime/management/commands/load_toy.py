"""manage.py load_toy: a model of toy size answers the demonstration's dialogues in the background."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotation.models import Dataset, Item, System
from annotation.services.systems import register_system
from models_runtime.engine.spec import DecodingConfig
from models_runtime.runtimes import LocalSettings
from models_runtime.services.batches import Launch, Questions, launch_batch
from models_runtime.services.runtimes import set_runtime
from models_runtime.tasks import hint_batch
from models_runtime.toy import make_toy

SLUG, NAME = "toy", "玩具模型 Toy model"
DESCRIPTION = (
    "随机权重的玩具模型，只有 ChatGLM-6B 的结构。它写的是词语的堆砌，没有任何意义，只用来演示批次的运行。\n"
    "A toy with the architecture of ChatGLM-6B and random weights. What it writes is a jumble of words without any "
    "meaning; it is here to show how a batch runs."
)
DECODING = DecodingConfig(is_sampled=True, temperature=0.95, top_p=0.75, top_k=50, max_new_tokens=48)


class Command(BaseCommand):
    help = "Let a toy model answer the demonstration's Chinese dialogues, to show how a batch runs."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.IS_DEMO:
            raise CommandError("This is not a demonstration site. Use make demo, or set QINGTING_DEMO=1.")
        datasets = list(Dataset.objects.filter(is_demo=True, slug__endswith="-zh"))
        if not datasets:
            raise CommandError("The demonstration is not loaded yet. Run load_demo first.")
        folder = Path(settings.MODEL_DIRS[0]) / SLUG
        make_toy(folder, _sentences(datasets))
        system = System.objects.filter(slug=SLUG).first() or register_system(
            slug=SLUG, name=NAME, description=DESCRIPTION, is_demo=True, by=None
        )
        set_runtime(system=system, settings=LocalSettings(weights=SLUG, decoding=DECODING), by=None)
        for dataset in datasets:
            with transaction.atomic():
                batch = launch_batch(Launch([system], Questions(dataset=dataset)), by=None)
                transaction.on_commit(partial(hint_batch, batch))
        self.stdout.write(f"{NAME} answers {sum(dataset.n_items for dataset in datasets)} items in the background.")


def _sentences(datasets: list[Dataset]) -> list[str]:
    """All that people say in the demonstration's dialogues; every sentence was written for it."""
    items = Item.objects.filter(dataset__in=datasets)
    return [text for item in items for text in (*(turn["text"] for turn in item.turns), item.reference)]
