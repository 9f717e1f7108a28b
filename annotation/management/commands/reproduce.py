"""manage.py reproduce study.zip: compute an archived study again, without a database, and compare every line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.archiving import code_version
from annotation.reporting.archive import NotAnArchive, check

SHOWN = 50


class Command(BaseCommand):
    help = (
        "Rebuild every number, table and figure of an archived study from its data and say, by file and line, what is "
        "not as the archive claims. Needs no database. Exit code 0: all the same; 1: something differs."
    )
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("archive", type=Path, help="the zip that the report page or `archive_study` made")
        parser.add_argument("--out", type=Path, help="a new folder for the rebuilt tables and figures")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["archive"]
        out: Path | None = options["out"]
        if not path.is_file():
            raise CommandError(f"{path} is not there.")
        if out is not None and out.exists():
            raise CommandError(f"{out} exists already; choose another name.")
        try:
            progress = self._show_progress if self.stderr.isatty() else None
            found = check(path, code_version=code_version(), on_progress=progress)
        except NotAnArchive as error:
            raise CommandError(str(error)) from error
        if out is not None:
            for name, content in found.rebuilt.items():
                target = out / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        self.stdout.write(f"{path.name}: SHA-256 of the manifest {found.manifest_sha256}")
        self.stdout.write(
            f"{found.n_files} files checked; {found.n_numbers} numbers in {found.n_rebuilt} files rebuilt."
        )
        for line in found.other_software:
            self.stdout.write(f"Other software: {line}")
        for line in found.differences[:SHOWN]:
            self.stdout.write(line)
        if len(found.differences) > SHOWN:
            self.stdout.write(f"… and {len(found.differences) - SHOWN} more.")
        if not found.is_reproduced:
            reason = (
                " Other versions of the software were used, which alone may explain it." if found.other_software else ""
            )
            raise CommandError(f"Not reproduced: {len(found.differences)} differences.{reason}")
        self.stdout.write("Reproduced: every byte is as the archive claims.")

    def _show_progress(self, done: int, total: int) -> None:
        sys.stderr.write(f"\r{done}/{total} steps" + ("\n" if done == total else ""))
        sys.stderr.flush()
