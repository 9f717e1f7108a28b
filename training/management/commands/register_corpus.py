"""register_corpus: a folder of prepare_corpus becomes a corpus of the site, once its files are found unchanged."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import DomainError
from models_runtime.engine.prompts import BadTemplate
from training.corpus.errors import CorpusError
from training.services.corpora import register_folder


class Command(BaseCommand):
    help = "Take a folder of prepare_corpus into the list of corpora; it stays where it is, and its hashes are checked."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="what the corpus is to be called")
        parser.add_argument("folder", type=Path, help="as prepare_corpus wrote it")
        parser.add_argument("--weights", required=True, metavar="FOLDER", help="the model it was prepared for")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            corpus = register_folder(
                name=options["name"], folder=options["folder"], weights=options["weights"], by=None
            )
        except (CorpusError, BadTemplate) as error:
            raise CommandError(str(error)) from error
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{corpus.name}: {corpus.folder}, content {corpus.content_hash[:12]}")
