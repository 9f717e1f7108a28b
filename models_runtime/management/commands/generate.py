"""generate: a local model answers the items of a file. No database is needed."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.utils.text import slugify
from django.utils.translation import override

from annotation import problems
from models_runtime.answering import AnsweringFailed, ItemsRefused, Message, answer, read_questions, responses_file
from models_runtime.engine.prompts import TEMPLATES, BadTemplate, Template
from models_runtime.engine.protocol import BadJob, WorkerJob
from models_runtime.engine.spec import PRESETS

EXAMPLES = """\
examples:
  manage.py generate --weights models/SoulChat --preset soulchat-paper items.jsonl responses.jsonl
      one line per response, with everything that fixed it; the same command again goes on where it stopped
  manage.py generate --weights models/chatglm-6b --adapter models/MeChat-2023 --template mechat-2023 \\
      --preset soulchat-paper --device cuda:0 --dtype float16 items.jsonl responses.jsonl
  manage.py import_responses smile-test responses.jsonl --create-systems
      the responses into a dataset afterwards

items: {"key": "1042#3", "turns": [{"role": "client", "content": "…"}, …]} a line; CSV and XLSX work too.
A template of your own is a JSON file: {"id": "mine", "layout": "lines", "client": "来访者：", "counsellor": "咨询师："}
Ctrl-C stops after the current step. Items that failed are tried again by the next call.
"""
SECONDS_BETWEEN_LINES = 0.5
MAX_ERRORS_SHOWN = 20


class Command(BaseCommand):
    help = "Answer the items of a file with a model from a local folder; no database is needed."
    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("items", type=Path, help="JSONL, CSV or XLSX with the columns key and turns")
        parser.add_argument("responses", type=Path, help="JSONL file to write, or to go on with")
        parser.add_argument("--weights", type=Path, required=True, metavar="FOLDER", help="the model")
        parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="a LoRA adapter for it")
        parser.add_argument("--preset", choices=PRESETS, default="soulchat-paper", help="decoding (%(default)s)")
        parser.add_argument(
            "--template", metavar="NAME|FILE", help=f"of {', '.join(TEMPLATES)}, or a JSON file; default: the family's"
        )
        parser.add_argument("--family", choices=("chatglm", "chatglm2", "causal"), help="refuse a model of another one")
        parser.add_argument("--system", metavar="SLUG", help="name beside the responses; default: that of the folder")
        parser.add_argument("--seed", type=int, default=1, help="of the sampling (%(default)s)")
        parser.add_argument("--repeats", type=int, default=1, metavar="N", help="responses per item (%(default)s)")
        parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
        parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
        parser.add_argument("--batch-rows", type=int, metavar="N", help="responses at once; default: by device")
        parser.add_argument("--batch-tokens", type=int, metavar="N", help="tokens in memory; default: what is free")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["items"].is_file():
            raise CommandError(f"There is no file {problems.plain(str(options['items']), limit=300)}.")
        if options["repeats"] < 1:
            raise CommandError("--repeats must be at least 1.")
        progress = _ProgressLine(self.stderr)
        errors: list[Message] = []

        def on_ready(message: Message) -> None:
            spec = message["spec"]
            family = spec["family"]
            if options["family"] not in (None, family):
                raise AnsweringFailed(f"{options['weights']} holds a model of the family {family}.")
            self.stderr.write(_introduction(message, options["preset"]), style_func=str)
            if not message["is_exact"]:
                self.stderr.write(
                    f"In {spec['dtype']} a response may differ between batch sizes; "
                    f"{message['limits']['rows']} rows at once is written beside each.",
                    style_func=str,
                )

        try:
            job = WorkerJob(
                weights=options["weights"].resolve(),
                items=Path(),
                decoding=PRESETS[options["preset"]].decoding,
                seed=options["seed"],
                template=_template(options["template"]),
                adapter=options["adapter"].resolve() if options["adapter"] else None,
                dtype=options["dtype"],
                device=options["device"],
                batch_rows=options["batch_rows"],
                batch_tokens=options["batch_tokens"],
            )
            work = read_questions(options["items"], options["repeats"])
            with responses_file(options["responses"]) as responses:
                outcome = answer(
                    job,
                    work,
                    responses,
                    system=options["system"] or slugify(options["weights"].resolve().name) or "local",
                    on_ready=on_ready,
                    on_error=errors.append,
                    on_progress=progress,
                )
        except ItemsRefused as error:
            with override("en"):
                lines = "\n".join(f"  {problems.sentence(problem)}" for problem in error.problems)
            raise CommandError(f"{error}\n{lines}") from error
        except KeyboardInterrupt as error:
            raise CommandError("Stopped at once. The same command goes on from here.", returncode=130) from error
        except (AnsweringFailed, BadJob, BadTemplate) as error:
            raise CommandError(str(error)) from error
        finally:
            progress.end()
        for error_message in errors[:MAX_ERRORS_SHOWN]:
            name = problems.plain(error_message["item"])
            self.stderr.write(f"{name}: {problems.plain(error_message['message'], limit=400)}")
        told = f"{outcome.n_responses} responses written, {outcome.n_there_before} were there before"
        if outcome.is_stopped:
            raise CommandError(f"Stopped: {told}. The same command goes on from here.", returncode=130)
        if outcome.n_errors:
            raise CommandError(f"{told}, {outcome.n_errors} items could not be answered (above).")
        self.stdout.write(f"Done: {told}.")


def _template(name: str | None) -> Template | None:
    """One of ours by its name, or that of a JSON file. Raises CommandError, BadTemplate."""
    if name is None or name in TEMPLATES:
        return TEMPLATES[name] if name else None
    path = Path(name)
    if not path.is_file():
        raise CommandError(f"There is no template {problems.plain(name)}: it can be {', '.join(TEMPLATES)}, or a file.")
    try:
        return Template.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CommandError(f"{problems.plain(name)}: {error}") from error


def _introduction(ready: Message, preset: str) -> str:
    spec, implicit = ready["spec"], PRESETS[preset].implicit
    decoding = ", ".join(
        f"{name} {value}{' (not stated by the source; the default of its day)' if name in implicit else ''}"
        for name, value in spec["decoding"].items()
    )
    lines = [
        f"{spec['family']}, weights {spec['weights_digest'][:12]}, template {spec['template_id']}, {ready['device']}",
        f"{preset}: {decoding}",
        *ready["notes"],
    ]
    return "\n".join(lines)


class _ProgressLine:
    """Done, rate and time left, on one line that is written over; silent where nobody watches."""

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self._next = 0.0

    def __call__(self, n_done: int, n_total: int, seconds: float) -> None:
        now = time.monotonic()
        if self._stream.isatty() and (now >= self._next or n_done == n_total):
            self._next = now + SECONDS_BETWEEN_LINES
            rate = n_done / max(seconds, 1e-9)
            left = time.strftime("%H:%M:%S", time.gmtime((n_total - n_done) / rate))
            bar = "█" * (20 * n_done // n_total)
            self._stream.write(
                f"\r\033[K{bar:░<20} {n_done} / {n_total}  {rate:.1f}/s  {left} left", style_func=str, ending=""
            )
            self._stream.flush()

    def end(self) -> None:
        if self._stream.isatty():
            self._stream.write("\r\033[K", style_func=str, ending="")
