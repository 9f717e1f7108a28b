"""manage.py archive_study STUDY study.zip: the same archive that the report page offers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.archiving import archive_study
from annotation.models import Study


class Command(BaseCommand):
    help = "Pack a study into one zip from which `reproduce` rebuilds every number, table and figure."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("study", type=UUID, help="the study's identifier, as in its address")
        parser.add_argument("file", type=Path, help="ends in .zip; must not exist yet")
        parser.add_argument("--without-texts", action="store_true", help="SHA-256 in place of dialogues and responses")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        study = Study.objects.select_related("rubric").filter(public_id=options["study"]).first()
        if study is None or study.is_draft:
            raise CommandError(f"There is no opened study {options['study']}.")
        archive = archive_study(study=study, with_texts=not options["without_texts"], by=None)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(archive.file, file)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError as error:
            raise CommandError(f"{path} exists already; choose another name.") from error
        except OSError as error:
            path.unlink(missing_ok=True)
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
        self.stdout.write(f"{path}: SHA-256 of the manifest {archive.sha256}")
