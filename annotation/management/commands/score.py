"""score: BLEU, ROUGE, Distinct and length of any pairs of response and reference, without a database."""

from __future__ import annotations

import csv
import json
from argparse import ArgumentParser
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from django.core.management.base import CommandError
from django.utils.translation import override

from annotation.formats.pairs import PairFields, PairTable, read_pairs, read_references
from annotation.formats.problems import Findings, TooManyProblems
from annotation.management.importing import ProgressLine
from annotation.management.plainfiles import PlainFileCommand, opened, refused
from annotation.plainfiles import count_pairs, difference_rows, pair_lines, score_rows, score_tables, written
from annotation.reporting.table import Table
from metrics.results import ResultRow
from metrics.segmentation import Normalisation
from metrics.text import METRICS, PROTOCOLS, Aggregate, Protocol, Smoothing

FIELDS = "--hypothesis, --reference, --item, --system, --cluster or --by"
EXAMPLES = """\
examples:
  manage.py score pairs.jsonl
      lines such as {"hypothesis": "…", "reference": "…"}: BLEU-1..4, ROUGE-1/2/L, Distinct-1/2 and length
  manage.py score outputs.csv --hypothesis prediction --reference gold --protocol all --format csv
      columns of other names; all three protocols; numbers with their signatures
  manage.py score responses.jsonl --hypothesis response --references items.jsonl --compare --interval
      responses of several systems (columns item, system, response), references from another file (item, reference);
      every two systems compared, intervals by dialogue if there is a column "dialogue"
  manage.py score pairs.jsonl --by topic --pairs scores.jsonl --processes 4
      also within each topic; the scores of every pair into a new file

protocols:
  chatglm    what the scripts of ChatGLM-6B compute: BLEU of code points (nltk, method3), ROUGE of jieba words
             (rouge_chinese), mean over pairs
  reference  corpus BLEU as sacrebleu's "zh"; ROUGE F1 of jieba words with clipped counts and true longest subsequence
  char       the same on characters; needs no dictionary
A protocol with another smoothing, aggregate is written with a star. Protocols never share a table.

An empty response scores 0. A missing one (null, or no row for the item) and a missing reference leave the pair out;
both are counted. Nothing is asked of the database.
"""


class Command(PlainFileCommand):
    help = "Score responses against references from a JSONL, CSV or XLSX file: BLEU, ROUGE, Distinct, length."
    examples = EXAMPLES

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="pairs, a row each")
        parser.add_argument("--references", metavar="FILE", help="references in a file of their own, found by the item")
        parser.add_argument("--protocol", choices=[*PROTOCOLS, "all"], default="chatglm")
        parser.add_argument("--nfkc", action="store_true", help="Unicode NFKC first: full-width signs become ASCII")
        parser.add_argument("--punctuation", choices=("keep", "drop"), default="keep")
        parser.add_argument("--smoothing", choices=get_args(Smoothing), help="of BLEU, instead of the protocol's")
        parser.add_argument("--aggregate", choices=get_args(Aggregate), help="instead of the protocol's")
        parser.add_argument("--hypothesis", default="hypothesis", metavar="FIELD", help="the response's text")
        parser.add_argument("--reference", default="reference", metavar="FIELD", help="the reference's text")
        parser.add_argument("--item", metavar="FIELD", help='what was answered; "item" if there is such a column')
        parser.add_argument("--system", metavar="FIELD", help='who wrote it; "system" if there is such a column')
        parser.add_argument("--cluster", metavar="FIELD", help='what is drawn as a whole; "dialogue" if it is there')
        parser.add_argument("--by", metavar="FIELD", help="scores within each of its values, too")
        parser.add_argument("--pairs", metavar="OUT", help="scores of every pair, into a new .jsonl or .csv file")
        parser.add_argument("--compare", action="store_true", help="every two systems: differences and p-values")
        parser.add_argument("--interval", action="store_true", help="95%% intervals by resampling clusters")
        parser.add_argument("--processes", type=int, default=1, metavar="N", help="for large files (default: 1)")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["language"]:
            with override(options["language"]):
                self._score(options)
        else:
            self._score(options)

    def _score(self, options: dict[str, Any]) -> None:
        if options["processes"] < 1:
            raise CommandError("--processes must be 1 or more.")
        out = _new_file(options["pairs"]) if options["pairs"] else None
        pairs = self._read(options)
        if options["by"] == (options["system"] or "system"):
            raise CommandError("--by: every system has scores of its own already.")
        if options["compare"] and len(pairs.hypotheses) < 2:
            raise CommandError("--compare needs two systems. Name the column that tells them apart with --system.")
        protocols = _protocols(options)
        progress = ProgressLine(self.stderr)
        counted = count_pairs(
            pairs,
            protocols,
            normalisation=Normalisation(nfkc=options["nfkc"], punctuation=options["punctuation"]),
            processes=options["processes"],
            on_progress=lambda done, total: progress("Counted", done, total),
        )
        progress.end()
        seed = options["seed"] if options["interval"] else None
        rows = score_rows(pairs, counted, protocols, part=options["by"] or "", seed=seed)
        differences = []
        if options["compare"]:
            differences = difference_rows(pairs, counted, protocols, seed=options["seed"])
            if not differences:
                raise CommandError("--compare: no item has a reference and responses of two systems.")
        if out is not None:
            _write_pairs(out, pair_lines(pairs, counted, protocols))
        tables = score_tables(rows, differences)
        further_tables, further_rows = self.further(pairs, options)
        output = [*tables, *further_tables], [*rows, *differences, *further_rows]
        self.stdout.write(written(*output, options["format"]))

    def further(self, pairs: PairTable, options: dict[str, Any]) -> tuple[list[Table], list[ResultRow]]:
        """Scores that need more than this app has: a command of the same name further up adds them."""
        return [], []

    def _read(self, options: dict[str, Any]) -> PairTable:
        named = {what: options[what] for what in ("item", "system", "cluster") if options[what]}
        is_apart = options["references"] is not None
        item = options["item"] or "item"
        fields = PairFields(
            hypothesis=options["hypothesis"],
            reference=None if is_apart else options["reference"],
            part=options["by"],
            demanded=frozenset({*named.values(), *([item] if is_apart else [])}),
            **named,
        )
        findings, references = Findings(), None
        with suppress(TooManyProblems):
            if is_apart:
                source, file_format = opened(options["references"])
                references = read_references(source, file_format, item, options["reference"], findings)
                self.said_encoding(source, findings)
                findings.encodings.clear()
            source, file_format = opened(options["file"])
            pairs = read_pairs(source, file_format, fields, findings, references=references)
        if findings.problems:
            raise refused(findings, FIELDS)
        self.said_encoding(source, findings)
        return pairs


def _protocols(options: dict[str, Any]) -> list[Protocol]:
    chosen = list(PROTOCOLS) if options["protocol"] == "all" else [options["protocol"]]
    changes: dict[str, Any] = {}
    if options["smoothing"]:
        changes["smoothing"] = options["smoothing"]
    if options["aggregate"]:
        changes |= {"bleu_aggregate": options["aggregate"], "rouge_aggregate": options["aggregate"]}
    return [replace(PROTOCOLS[name], **changes) for name in chosen]


def _new_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in (".jsonl", ".csv"):
        raise CommandError(f"--pairs {path.name}: end the file's name in .jsonl or .csv.")
    if path.exists():
        raise CommandError(f"--pairs {path}: the file exists; choose another name.")
    return path


def _write_pairs(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                file.writelines(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
            else:
                writer = csv.DictWriter(file, ["item", "system", "protocol", *METRICS], lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
    except OSError as error:
        raise CommandError(f"--pairs {path}: {error.strerror}.") from error
