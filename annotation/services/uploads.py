"""Files on their way in: under names made here, in a folder that nobody serves, until their job is over."""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.utils.translation import gettext as _

from annotation.errors import DomainError

IMPORTS = "imports"


class UploadRefused(DomainError):
    """The file is too large."""

    code = "upload_refused"


def _storage(folder: str = IMPORTS) -> FileSystemStorage:
    return FileSystemStorage(
        location=Path(settings.MEDIA_ROOT, folder), file_permissions_mode=0o600, directory_permissions_mode=0o700
    )


def store_upload(file: File[Any], *, folder: str = IMPORTS) -> str:
    """Keep a file; the name it has here, which says nothing of the name it came with.

    Raises UploadRefused if it is larger than the settings allow.
    """
    if (file.size or 0) > settings.UPLOAD_MAX_BYTES:
        raise UploadRefused(
            _("The file is larger than %(limit)s MB.") % {"limit": settings.UPLOAD_MAX_BYTES // 1024**2}
        )
    return _storage(folder).save(uuid.uuid4().hex, file)


def upload_path(name: str, *, folder: str = IMPORTS) -> Path:
    """Where an upload lies. A name that leads out of the folder raises SuspiciousFileOperation."""
    return Path(_storage(folder).path(name))


def has_upload(name: str) -> bool:
    return bool(name) and _storage().exists(name)


def delete_upload(name: str, *, folder: str = IMPORTS) -> None:
    """Remove an upload; one that is gone already is fine."""
    if name:
        upload_path(name, folder=folder).unlink(missing_ok=True)


def uploads_before(moment: datetime, *, folder: str = IMPORTS) -> list[str]:
    """Names of the uploads that came in before `moment`."""
    place = Path(_storage(folder).location)
    if not place.is_dir():
        return []
    return [path.name for path in place.iterdir() if path.is_file() and path.stat().st_mtime < moment.timestamp()]
