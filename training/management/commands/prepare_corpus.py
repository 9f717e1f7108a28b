"""prepare_corpus: dialogues from files become a folder that training reads. A database is asked only if you say so."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation import problems
from annotation.formats.problems import Problem
from annotation.formats.source import Source
from models_runtime.engine.errors import EngineError
from models_runtime.engine.prompts import TEMPLATES, BadTemplate, Template
from training.corpus.cleaning import Review, Rules, read_review
from training.corpus.encoding import Encoder
from training.corpus.errors import CorpusError, SourceRefused
from training.corpus.formats import MAX_BROKEN
from training.corpus.prepare import Plan, prepare
from training.corpus.samples import Limits, usual_cut
from training.corpus.split import hashes_of_items
from training.leaks import hashes_of_database

EXAMPLES = """\
examples:
  manage.py prepare_corpus corpora/smile SMILECHAT.tar.xz --weights models/chatglm-6b
      one sample per counsellor turn; one dialogue in fifty goes to the test
  manage.py prepare_corpus corpora/soul SoulChatCorpus-sft-multi-Turn.json --weights models/chatglm-6b \\
      --clean --against-database
      without filtered strings, personal data and near duplicates, and without any item of any dataset here
  manage.py prepare_corpus corpora/soul-2 SoulChatCorpus-sft-multi-Turn.json --weights models/chatglm-6b \\
      --clean rules.json --review corpora/soul/review.jsonl
      with rules of your own and what a person decided about the queue of the first run

Files: the SoulChatCorpus array, a SMILECHAT folder, .zip or .tar.xz, or rows of ours (JSONL, CSV, XLSX).
rules.json: {"strings": {"我是": "review"}, "personal": {"phone": "mask"}, "near_duplicate": 0.8}; what it leaves out
is as by default. Actions: remove, review, mask, keep. In review.jsonl, set "verdict" to "keep" or "remove".
"""
SECONDS_BETWEEN_LINES = 0.5
MAX_PROBLEMS_SHOWN = 20


class Command(BaseCommand):
    help = "Make a folder that training reads from dialogues in files: cleaned, split, tokenised once."
    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="where the corpus goes; must not be there yet")
        parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="dialogues")
        parser.add_argument("--weights", type=Path, required=True, metavar="FOLDER", help="the model to be trained")
        parser.add_argument(
            "--template", metavar="NAME|FILE", help=f"of {', '.join(TEMPLATES)}, or a JSON file; default: the family's"
        )
        parser.add_argument(
            "--test-share", type=float, default=0.02, metavar="SHARE", help="of dialogues (%(default)s)"
        )
        parser.add_argument("--seed", type=int, default=1, help="of the draw of the test (%(default)s)")
        parser.add_argument("--max-context", type=int, default=1536, metavar="TOKENS", help="of a sample (%(default)s)")
        parser.add_argument("--max-target", type=int, default=512, metavar="TOKENS", help="of a sample (%(default)s)")
        parser.add_argument(
            "--cut",
            choices=("ends", "oldest_turns", "leave_out"),
            help="what a longer sample loses; default: the ends for ChatGLM, as its official recipe does, else its "
            "oldest turns",
        )
        parser.add_argument("--clean", nargs="?", const="", metavar="RULES", help="by these rules, or by ours")
        parser.add_argument("--review", type=Path, metavar="FILE", help="queue of an earlier run, with verdicts")
        parser.add_argument(
            "--held-out", type=Path, nargs="+", default=[], metavar="FILE", help="items that must not be learnt"
        )
        parser.add_argument("--against-database", action="store_true", help="nor any item of any dataset here")
        parser.add_argument(
            "--max-broken", type=int, default=MAX_BROKEN, metavar="N", help="records of a file (%(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            encoder = Encoder.load(options["weights"], _template(options["template"]))
            limits = Limits(options["max_context"], options["max_target"], options["cut"] or usual_cut(encoder.family))
            plan = Plan(
                limits=limits,
                test_share=options["test_share"],
                seed=options["seed"],
                held_out=_held_out(options["held_out"], is_against_database=options["against_database"]),
                max_broken=options["max_broken"],
                rules=None if options["clean"] is None else _rules(options["clean"]),
                review=read_review(options["review"]) if options["review"] else Review(),
            )
            card = prepare(
                [Source(path, path.name) for path in options["files"]],
                options["folder"],
                encoder=encoder,
                plan=plan,
                on_progress=self._progress(),
            )
        except SourceRefused as error:
            raise CommandError("\n".join([f"{error}.", *_sentences(error.problems)])) from error
        except (CorpusError, EngineError, BadTemplate) as error:
            raise CommandError(str(error)) from error
        for source in card["sources"]:
            if "gb18030" in source["encoding"]:  # which also takes what is neither, such as Big5, for Chinese
                name = problems.plain(source["name"])
                self.stderr.write(f"{name} was read as GB18030, since it is no UTF-8; see that its samples make sense.")
            self.stderr.write("\n".join(_sentences([Problem.from_json(problem) for problem in source["problems"]])))
        self.stdout.write(_report(options["folder"], card))

    def _progress(self) -> Any:
        """Dialogues and samples so far, on one line that is written over; silent where nobody watches."""
        shown_at = time.monotonic()

        def show(n_dialogues: int, n_samples: int) -> None:
            nonlocal shown_at
            if self.stderr.isatty() and time.monotonic() - shown_at > SECONDS_BETWEEN_LINES:
                shown_at = time.monotonic()
                self.stderr.write(f"\r\033[K{n_dialogues} dialogues, {n_samples} samples", style_func=str, ending="")
                self.stderr.flush()

        return show


def _template(name: str | None) -> Template | None:
    if name is None or name in TEMPLATES:
        return TEMPLATES[name] if name else None
    return Template.from_json(_json(Path(name), f"There is no template {problems.plain(name)}"))


def _rules(name: str) -> Rules:
    return Rules.from_json(_json(Path(name), f"There is no file of rules {problems.plain(name)}")) if name else Rules()


def _json(path: Path, otherwise: str) -> Any:
    if not path.is_file():
        raise CommandError(f"{otherwise}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{problems.plain(str(path))} is no JSON file: {error}") from error


def _held_out(files: list[Path], *, is_against_database: bool) -> frozenset[bytes]:
    held: set[bytes] = set()
    for path in files:
        held |= hashes_of_items(Source(path, path.name))
    if is_against_database:
        held |= {found for found, _ in hashes_of_database()}
    return frozenset(held)


def _sentences(found: list[Problem]) -> list[str]:
    return [f"  {problems.sentence(problem)}" for problem in found[:MAX_PROBLEMS_SHOWN]]


def _report(folder: Path, card: dict[str, Any]) -> str:
    lines = [f"{folder}: {card['family']}, content {card['train']['content_hash'][:12]}"]
    for part in ("train", "test"):
        of = card[part]
        lines.append(
            f"  {part}: {of['n_samples']} samples of {of['n_dialogues']} dialogues, "
            f"{of['n_context_tokens'] + of['n_target_tokens']} tokens, longest {of['longest_context']} + "
            f"{of['longest_target']}"
        )
    counts = {**card["counts"], **(card["cleaning"] or {"counts": {}})["counts"]}
    lines += [f"  {name.removeprefix('n_').replace('_', ' ')}: {count}" for name, count in counts.items() if count]
    return "\n".join(lines)
