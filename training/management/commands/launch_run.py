"""manage.py launch_run: say what a run will take, and launch it as the page does; workers do the rest."""

from __future__ import annotations

import tomllib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.urls import reverse
from django.utils.translation import override

from annotation import problems
from annotation.errors import DomainError
from annotation.management.importing import user_named
from annotation.selectors.jobs import duration
from models_runtime.engine.spec import PRESETS
from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig
from training.launching import GIB
from training.models import Corpus
from training.services.runs import Foresight, Launch, foresee, launch_run
from training.tasks.runs import hint_run

EXAMPLES = """\
examples:
  manage.py launch_run soul-1 --corpus smile --config run.toml --estimate
      hours, memory and disk, and which items of datasets here the corpus learns from
  manage.py launch_run soul-1 --corpus smile --config run.toml --device cuda --processes 8 --gpu "NVIDIA A800" \\
      --memory-gib 80 --queue gpu-0
      the same, launched; watch and stop it on its page

run.toml holds the settings as on the page, or a preset and what differs from it: preset = "soulchat-paper"
"""


class Command(BaseCommand):
    help = "Fine-tune a base model on a corpus of this site, in the background; it ends as a system."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="of the run")
        parser.add_argument("--corpus", required=True, metavar="NAME", help="a prepared one")
        parser.add_argument("--config", type=Path, metavar="FILE", help="TOML; default: as the page begins")
        parser.add_argument("--base", default="", metavar="FOLDER", help="default: the model the corpus was made for")
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")
        parser.add_argument("--processes", type=int, default=1, metavar="N", help="one for each GPU (%(default)s)")
        parser.add_argument("--gpu", default="", metavar="NAME", help="of one GPU, for the estimate")
        parser.add_argument("--memory-gib", type=float, metavar="N", help="of one device")
        parser.add_argument("--queue", default="", metavar="QUEUE", help="of the worker with these GPUs")
        parser.add_argument("--system-name", default="", metavar="NAME", help="of what comes out; default: the run's")
        parser.add_argument("--decoding", choices=tuple(PRESETS), default="soulchat-paper", help="(%(default)s)")
        parser.add_argument("--accept-leaks", action="store_true", help="it may learn from items of datasets here")
        parser.add_argument("--estimate", action="store_true", help="only say what it will take")
        parser.add_argument("--by", metavar="USERNAME", help="who does this, for the log of acts")

    @override("en")
    def handle(self, *args: Any, **options: Any) -> None:
        corpus = Corpus.objects.filter(name=options["corpus"]).exclude(content_hash="").first()
        if corpus is None:
            raise CommandError(f"There is no prepared corpus {problems.plain(options['corpus'])}.")
        names = ("name", "base", "device", "processes", "gpu", "memory_gib", "queue", "system_name", "decoding")
        try:
            launch = Launch(corpus=corpus, config=_config(options["config"]), **{name: options[name] for name in names})
            seen = foresee(launch)
            self.stdout.write(_told(seen))
            if options["estimate"]:
                return
            with transaction.atomic():
                run = launch_run(launch, seen, accepts_leaks=options["accept_leaks"], by=user_named(options["by"]))
                transaction.on_commit(partial(hint_run, run))
        except BadConfig as error:
            raise CommandError(str(error)) from error
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"Launched: {reverse('run_detail', args=[run.public_id])}")


def _config(path: Path | None) -> FinetuneConfig:
    if path is None:
        return FinetuneConfig()
    try:
        return FinetuneConfig.from_json(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandError(f"{problems.plain(str(path))} cannot be read: {error}") from error


def _told(seen: Foresight) -> str:
    cost = seen.cost
    time = "time unknown for this device" if cost.hours is None else f"about {duration(cost.hours * 3600)}"
    memory = f"{cost.memory_bytes / GIB:.1f} GiB of memory a device"
    lines = [f"{seen.n_samples} samples; {time}, {memory}, {cost.disk_bytes / GIB:.1f} GiB of disk"]
    if seen.leaks:
        named = ", ".join(f"{leak.dataset}/{leak.item}" for leak in seen.leaks[:5])
        lines.append(
            f"It learns from {len(seen.leaks)} items of datasets here: {named}{' …' if seen.leaks[5:] else ''}"
        )
    return "\n".join(lines)
