"""manage.py restore FILE [--verify]: read a backup whole; without --verify also put it into an empty database."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.errors import DomainError
from annotation.services.audit import verify_chain
from annotation.services.backup import check_backup, restore_backup


class Command(BaseCommand):
    help = "Check a backup (--verify), or put it into this site's database, which must be empty."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--verify", action="store_true", help="only read and check it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            manifest = check_backup(options["file"]) if options["verify"] else restore_backup(options["file"])
        except DomainError as error:
            raise CommandError(error.message) from error
        if not options["verify"] and (broken := verify_chain()) is not None:
            raise CommandError(f"Restored, but the audit log does not fit from event {broken} on.")
        rows = sum(manifest["counts"].values())
        state = "is whole" if options["verify"] else "is restored, its audit log whole"
        self.stdout.write(f"{options['file']} of {manifest['created_at']} {state}: {rows} rows")
