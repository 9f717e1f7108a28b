"""import_responses: what systems wrote for the items of a dataset, all or nothing."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import DomainError
from annotation.formats.source import RESPONSE_FORMATS
from annotation.management.importing import ProgressLine, add_common, refused, report, source_at, user_named
from annotation.models import Dataset
from annotation.services.importing import ResponseOptions, import_responses
from annotation.services.text_counts import count_texts

EXAMPLES = """\
examples:
  manage.py import_responses smile-test outputs.jsonl
      one object a line: {"item": "1042#3", "system": "soulchat", "response": "…"}
  manage.py import_responses smile-test mechat.csv --system mechat
      a table with the columns item and response, all of one system
  manage.py import_responses smile-test outputs.jsonl --create-systems
      registers systems that are not known yet, under their slug

Further columns, if known: repeat (0, 1, …) and provenance.* (provenance.model, provenance.seed, …), in JSONL an
object "provenance". A response that is stored already with the same text is left alone.
"""


class Command(BaseCommand):
    help = "Take responses to the items of a dataset from JSONL, CSV or XLSX: all or nothing."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_common(parser, RESPONSE_FORMATS)
        parser.add_argument("--system", default="", metavar="SLUG", help="the system of all rows that name none")
        parser.add_argument("--create-systems", action="store_true", help="register systems that are not known")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = Dataset.objects.filter(slug=options["dataset"]).first()
        if dataset is None:
            raise CommandError(f"There is no dataset “{options['dataset']}”. Import its items first.")
        progress = ProgressLine(self.stderr)
        try:
            result = import_responses(
                source=source_at(options["path"]),
                dataset=dataset,
                options=ResponseOptions(options["format"], options["system"], options["create_systems"]),
                by=user_named(options["by"]),
                on_progress=progress,
            )
        except DomainError as error:
            progress.end()
            raise refused(error) from error
        progress.end()
        self.stdout.write(report(result))
        counted = count_texts(dataset=dataset, on_progress=progress)
        progress.end()
        self.stdout.write(f"Counted for the text metrics: {counted.n_counted}")
