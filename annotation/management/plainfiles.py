"""What the commands score and agree share: a file to read, problems as an error, output in the format asked for."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from annotation import problems
from annotation.formats.problems import Findings
from annotation.formats.source import RESPONSE_FORMATS, Format, Source, sniff
from annotation.management.importing import source_at


class PlainFileCommand(BaseCommand):
    """A command that reads a file and prints numbers, and never opens the database."""

    requires_system_checks: list[str] = []
    examples = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=self.examples, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_output(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=_seed, default=1, metavar="S", help="of everything drawn (default: 1)")
        parser.add_argument("--format", choices=("table", "json", "latex", "csv"), default="table")
        parser.add_argument(
            "--language", choices=[code for code, _ in settings.LANGUAGES], help="of words in tables and problems"
        )

    def said_encoding(self, source: Source, findings: Findings) -> None:
        if "gb18030" in findings.encodings:
            self.stderr.write(f"{problems.plain(source.name)} was read as GB18030, since it is no UTF-8.")


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"{text} is no whole number from 0 on")
    return int(text)


def opened(path: str) -> tuple[Source, Format]:
    """The file at a path and its format. Raises CommandError if it is none that holds rows."""
    source = source_at(path)
    file_format = None if source.path.is_dir() else sniff(source)
    if file_format in RESPONSE_FORMATS:
        return source, file_format
    if source.path.is_file() and not source.path.stat().st_size:
        raise CommandError(f"{problems.plain(source.name)}: The file is empty.")
    raise CommandError(
        f"{problems.plain(source.name)} cannot be read here. Give JSONL (one object on a line), CSV or XLSX."
    )


def refused(findings: Findings, fields: str) -> CommandError:
    """All problems, one on a line; what to do where a column is not there or is none of ratings."""
    lines = [problems.sentence(problem) for problem in findings.problems]
    if any(problem.code == "not_a_number" for problem in findings.problems):
        lines.append("In a wide table, name the columns that hold ratings with --rater ann,bob,cem.")
    if any(problem.code in ("missing_columns", "missing") for problem in findings.problems):
        lines.append(f"If a column has another name, say so with {fields}.")
    return CommandError("\n".join(lines), returncode=1)
