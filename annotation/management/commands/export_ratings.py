"""manage.py export_ratings STUDY out.xlsx|csv|jsonl: the same file that the report page offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.export import FORMATS, KINDS, prepare_export
from annotation.models import Study


class Command(BaseCommand):
    help = "Write a study's ratings (or scores, or agreement) into a file; its ending chooses the format."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("study", type=UUID, help="the study's identifier, as in its address")
        parser.add_argument("file", type=Path, help="ends in .xlsx, .csv or .jsonl; must not exist yet")
        parser.add_argument("--kind", choices=KINDS, default="ratings")
        parser.add_argument("--exact", action="store_true", help="CSV without the leading ' before formulas")
        parser.add_argument("--notes", action="store_true", help="also what raters wrote")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        file_format = path.suffix.removeprefix(".").lower()
        if file_format == "csv" and options["exact"]:
            file_format = "csv-exact"
        if file_format not in FORMATS:
            raise CommandError(f"{path.name}: end the file's name in .xlsx, .csv or .jsonl.")
        study = Study.objects.select_related("rubric").filter(public_id=options["study"]).first()
        if study is None:
            raise CommandError(f"There is no study {options['study']}.")
        export = prepare_export(
            study=study, kind=options["kind"], file_format=file_format, by=None, with_notes=options["notes"]
        )
        unfinished = path.with_name(path.name + ".part")
        try:
            with path.open("xb"), unfinished.open("wb") as file:
                file.writelines(export.parts())
        except FileExistsError as error:
            raise CommandError(f"{path} exists; choose another name.") from error
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}.") from error
        unfinished.replace(path)
        self.stdout.write(f"{path}: {path.stat().st_size:,} bytes")
