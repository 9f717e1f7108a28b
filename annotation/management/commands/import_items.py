"""import_items: dialogues and items into a dataset, all or nothing."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import DomainError
from annotation.formats.source import ITEM_FORMATS
from annotation.management.importing import ProgressLine, add_common, refused, report, source_at, user_named
from annotation.models import Dataset
from annotation.services.importing import ItemOptions, NewDataset, import_items

EXAMPLES = """\
examples:
  manage.py import_items smilechat smilechat.zip --name SMILECHAT
      one item for each counsellor turn that answers the client
  manage.py import_items smile-test data/ --name "SMILECHAT test" --one-per-dialogue --sample 10000 --seed 1
      10,000 dialogues drawn by seed, and of each one item
  manage.py import_items soulchat SoulChatCorpus-sft-multi-Turn.json --name SoulChat --sample 1000 --stratify topic
      1,000 dialogues, shared out over the topics in proportion
  manage.py import_items pilot items.xlsx
      our own table, into a dataset that exists: columns key, turns and, if known, dialogue, topic, reference

What a sample is: N counts dialogues, and all items of a dialogue come in together. The same seed and the same
dialogues give the same sample, in whatever order the file holds them. History never crosses from one dialogue to
the next. The same file with the same options is taken in once; the second time changes nothing and says so.
"""


class Command(BaseCommand):
    help = "Take items into a dataset from the SMILECHAT or SoulChatCorpus release, JSONL, CSV or XLSX: all or nothing."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_common(parser, ITEM_FORMATS)
        parser.add_argument("--name", help="make the dataset, under this name, if there is none of that slug")
        parser.add_argument("--source-note", default="", help="where the data come from, in words; for a new dataset")
        parser.add_argument("--licence", default="", help="the licence of the data; for a new dataset")
        parser.add_argument("--one-per-dialogue", action="store_true", help="one item of each dialogue, drawn by seed")
        parser.add_argument("--sample", type=int, metavar="N", help="draw N dialogues by seed; default: all")
        parser.add_argument("--seed", type=int, default=1, metavar="S", help="of everything drawn (default: 1)")
        parser.add_argument("--stratify", choices=["topic"], help="share the sample out over the topics")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["sample"] is not None and options["sample"] < 1:
            raise CommandError("--sample must be 1 or more.")
        if options["stratify"] and options["sample"] is None:
            raise CommandError("--stratify only has a meaning together with --sample N.")
        wanted = ItemOptions(
            format=options["format"],
            one_per_dialogue=options["one_per_dialogue"],
            sample=options["sample"],
            seed=options["seed"],
            is_stratified=options["stratify"] == "topic",
        )
        progress = ProgressLine(self.stderr)
        try:
            result = import_items(
                source=source_at(options["path"]),
                dataset=self._dataset(options),
                options=wanted,
                by=user_named(options["by"]),
                on_progress=progress,
            )
        except DomainError as error:
            progress.end()
            raise refused(error) from error
        progress.end()
        self.stdout.write(report(result))

    def _dataset(self, options: dict[str, Any]) -> Dataset | NewDataset:
        slug = options["dataset"]
        found = Dataset.objects.filter(slug=slug).first()
        if found:
            return found
        if options["name"] is None:
            raise CommandError(f"There is no dataset “{slug}”. Give --name to make it.")
        return NewDataset(slug, options["name"], options["source_note"], options["licence"])
