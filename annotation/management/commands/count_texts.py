"""count_texts: count again what reports of text metrics rest on, where counts are missing or out of date."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation import problems
from annotation.management.importing import ProgressLine
from annotation.models import Dataset
from annotation.services.text_counts import count_texts

EXAMPLES = """\
examples:
  manage.py count_texts
      every dataset; do this after an upgrade of jieba or of Qingting
  manage.py count_texts --dataset smile-test --processes 4
      one dataset, on four cores

An import counts its responses by itself. Counts that are there and up to date are left alone, so this can be stopped
and started again at any time.
"""


class Command(BaseCommand):
    help = "Count words and n-grams of the responses that have no counts yet, or counts of an older version."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dataset", metavar="SLUG", help="only this one")
        parser.add_argument("--processes", type=int, default=1, metavar="N", help="cores to use (default: 1)")

    def handle(self, *args: Any, **options: Any) -> None:
        datasets = Dataset.objects.order_by("slug")
        if slug := options["dataset"]:
            datasets = datasets.filter(slug=slug)
            if not datasets:
                raise CommandError(f"There is no dataset “{problems.plain(slug)}”.")
        if options["processes"] < 1:
            raise CommandError("--processes must be 1 or more.")
        progress = ProgressLine(self.stderr)
        for dataset in datasets:
            done = count_texts(dataset=dataset, processes=options["processes"], on_progress=progress)
            progress.end()
            self.stdout.write(f"{dataset.slug}: {done.n_counted} counted, {done.n_unchanged} up to date")
