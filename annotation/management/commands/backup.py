"""manage.py backup FILE: the whole database in one checked file; the site may go on meanwhile."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import DomainError
from annotation.services.backup import check_backup, write_backup


class Command(BaseCommand):
    help = "Write the database to a new file and read it back. Keys are not in it: keep field_key elsewhere."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="e.g. qingting-2026-11-21.zip; must not exist")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            write_backup(options["file"])
            manifest = check_backup(options["file"])
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{options['file']}: {sum(manifest['counts'].values())} rows, sha256 {manifest['sha256']}")
