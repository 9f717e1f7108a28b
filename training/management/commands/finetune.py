"""finetune: a run file becomes weights that a system answers with. A database is asked only if you say so."""

from __future__ import annotations

import dataclasses
import signal
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from models_runtime.answering import Message
from models_runtime.engine.errors import EngineError
from models_runtime.engine.prompts import BadTemplate
from training.corpus.errors import CorpusError
from training.finetune.config import PRESETS
from training.finetune.errors import BadData, BadModel, FinetuneError
from training.finetune.estimate import Cost
from training.finetune.protocol import DONE, OUT_OF_MEMORY, STOPPED
from training.launching import (
    GIB,
    Corpus,
    check_made_for,
    cost_of,
    free_bytes,
    hardware_for,
    read_run_file,
    refuse_what_cannot_fit,
    train,
)
from training.leaks import leaked_items

EXAMPLES = f"""\
run.toml, whose folders are relative to it:
  base = "models/chatglm-6b"      the model's folder
  corpus = "corpora/smile"        made by prepare_corpus; its test part is the held-out set
  folder = "runs/smile-1"         what comes out: curves, checkpoints, at the end export/
  device = "cuda"                 or "cpu", the default
  processes = 8                   one for each device
  memory_gib = 70                 what a device may be asked for; left out: all it has
  [config]
  preset = "{next(iter(PRESETS))}"       and, or, single settings: steps, batch, learning_rate, method = "lora", …

Ctrl-C ends the run after the step under way, with a checkpoint. The same command goes on from the last one. Exit codes
are those of docs/fine-tuning.md; 130 after Ctrl-C.
"""
SECONDS_BETWEEN_LINES = 0.5
INTERRUPTED = 130
KILLED = 137
NEEDS_LESS = "Set recompute = true, lower row_tokens, or take more devices."


class Command(BaseCommand):
    help = "Train a model as a run file says, or go on with it; shows memory and hours first. No database is needed."
    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=Path, metavar="RUN.toml", help="what to train, on what, and where")
        parser.add_argument("--estimate", action="store_true", help="show memory, hours and disk, and end")
        parser.add_argument("--even-so", action="store_true", help="start although the estimate says it cannot fit")
        parser.add_argument(
            "--against-database", action="store_true", help="refuse a corpus that holds an item of any dataset here"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run = read_run_file(options["run"])
            job = dataclasses.replace(run.job, digest_cache=settings.WEIGHTS_DIGESTS)
            check_made_for(run.corpus, job.base)
            if options["against_database"]:
                _refuse_leaks(run.corpus)
            hardware = hardware_for(job, run.memory_gib)
            cost = cost_of(job, run.corpus, hardware)
            told = _estimate(cost, run.corpus, job.folder)
            if options["estimate"]:
                self.stdout.write(told)
            else:
                self.stderr.write(told, style_func=str)
            if not options["even_so"]:
                refuse_what_cannot_fit(job, run.corpus, hardware)
        except FinetuneError as error:
            way = " With --even-so it is tried." if error.exit_code == OUT_OF_MEMORY else ""
            raise CommandError(f"{_sentence(str(error))}{way}", returncode=error.exit_code) from error
        except CorpusError as error:
            raise CommandError(_sentence(str(error)), returncode=BadData.exit_code) from error
        except (EngineError, BadTemplate) as error:
            raise CommandError(_sentence(str(error)), returncode=BadModel.exit_code) from error
        if options["estimate"]:
            return
        watch = _Watch(self.stderr)
        try:
            code = train(job, watch)
        except KeyboardInterrupt as error:
            raise CommandError(
                "Killed at once. The same command goes on from the last checkpoint.", returncode=INTERRUPTED
            ) from error
        finally:
            watch.end()
        self._conclude(code, watch)

    def _conclude(self, code: int, watch: _Watch) -> None:
        last = watch.last
        if code == DONE and last.get("type") == "done":
            held_out = last["held_out_loss"]
            beside = "" if held_out is None else f", held-out loss {held_out:.4f}"
            loss = "none" if last["loss"] is None else f"{last['loss']:.4f}"
            self.stdout.write(f"Done: {last['folder']} after step {last['step']}, loss {loss}{beside}.")
        elif code == STOPPED and last.get("type") == "stopped":
            raise CommandError(
                f"Stopped after step {last['step']}, with a checkpoint. The same command goes on from there.",
                returncode=INTERRUPTED,
            )
        elif last.get("type") == "failed":
            way = NEEDS_LESS if code == OUT_OF_MEMORY else ""
            again = "" if last["is_final"] else "The same command goes on from the last checkpoint."
            said = (f"{last['error_class']}: {_sentence(last['error'])}", way, again)
            raise CommandError(" ".join(part for part in said if part), returncode=code)
        elif code == -signal.SIGTERM:
            raise CommandError("Stopped before a step. The same command starts it again.", returncode=INTERRUPTED)
        else:
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise CommandError(
                f"The process that trains ended without a word ({ended}); if the system killed it, the machine's "
                "memory was at its end. The same command goes on from the last checkpoint.",
                returncode=KILLED if code < 0 else code or 1,
            )


def _refuse_leaks(corpus: Corpus) -> None:
    """Raises BadData if what systems are judged by would be learnt."""
    if leaks := leaked_items(corpus.folder):
        raise BadData(
            f"{corpus.folder} learns from items of the datasets here ({len(leaks)}), the first: "
            f"{leaks[0].dataset}, {leaks[0].item}; prepare the corpus again with --against-database"
        )


def _estimate(cost: Cost, corpus: Corpus, folder: Path) -> str:
    n_held_out = corpus.card["test"]["n_samples"]
    parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in cost.memory.items() if value >= 0.05 * GIB)
    hardware = cost.hardware
    devices = f"{hardware.devices} × {hardware.name}" if hardware.devices > 1 else hardware.name
    if cost.hours is None:
        time_needed = f"not to be told beforehand: the peak of {hardware.name} is not known; steps.csv will tell"
    else:
        time_needed = f"{cost.hours:.1f} hours on {devices}, if it reaches {cost.assumed_mfu:.0%} of its peak"
    verdict = "" if cost.fits else ": does not fit"
    return "\n".join(
        (
            f"corpus:  {len(corpus.train)} samples, {n_held_out} held out, content {corpus.train.content_hash[:12]}",
            f"memory:  {cost.memory_bytes / GIB:.1f} GiB of {hardware.memory_bytes / GIB:.1f} on each device{verdict}",
            f"         {parts}",
            f"time:    {time_needed}",
            f"disk:    {cost.disk_bytes / GIB:.1f} GiB, and {free_bytes(folder) / GIB:.1f} are free",
        )
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


class _Watch:
    """What the process says: what matters as lines, steps on one line that is written over where somebody watches."""

    def __init__(self, stream: OutputWrapper) -> None:
        self.last: Message = {}
        self._stream = stream
        self._n_steps = 0
        self._next = 0.0

    def __call__(self, message: Message) -> None:
        self.last = message
        match message["type"]:
            case "ready":
                self._n_steps = message["steps"]
                begins = f"goes on after step {message['step']}" if message["step"] else "begins"
                self._line(f"{begins}, {self._n_steps} steps in all, on {message['device']}")
                for note in message["notes"]:
                    self._line(note)
            case "note":
                self._line(message["text"])
            case "step":
                self._step(message)
            case "evaluation" if message["loss"] is not None:
                self._line(f"step {message['step']}: held-out loss {message['loss']:.4f}")
            case "checkpoint":
                self._line(f"step {message['step']}: checkpoint {message['name']}, {message['seconds']:.1f} s")
            case "answers":
                scores = ", ".join(
                    f"{name} {score['value']:.2f}"
                    for name, score in message["scores"].items()
                    if score["value"] is not None
                )
                self._line(f"{message['n']} held-out samples answered: {scores}")

    def _step(self, message: Message) -> None:
        now = time.monotonic()
        if not self._stream.isatty() or now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        loss = "skipped" if message["loss"] is None else f"loss {message['loss']:.4f}"
        mfu = "" if message["mfu"] is None else f"  MFU {message['mfu']:.0%}"
        minutes = message["remaining_seconds"] / 60
        left = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
        self._stream.write(
            f"\r\033[K{message['step']} / {self._n_steps}  {loss}  {message['tokens_per_second']:.0f} tokens/s{mfu}  "
            f"{left} left",
            style_func=str,
            ending="",
        )
        self._stream.flush()

    def _line(self, text: str) -> None:
        self.end()
        self._stream.write(text, style_func=str)  # else in the colour of errors

    def end(self) -> None:
        if self._stream.isatty():
            self._stream.write("\r\033[K", ending="")
