"""What a job's child process wrote to its standard error: one bounded file per job, kept beside the data."""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path

from django.conf import settings

LIMIT_BYTES = 2 * 1024 * 1024  # on disk for each job; at least the last half of it is always there
TAIL_BYTES = 16 * 1024


def log_path(public_id: uuid.UUID) -> Path:
    return Path(settings.JOB_LOG_DIR) / f"{public_id}.log"


def log_tail(public_id: uuid.UUID, *, n_bytes: int = TAIL_BYTES) -> str:
    """The newest lines; "" if there are none, or if the job ran on a machine with a data folder of its own."""
    text = b""
    for path in (_older(log_path(public_id)), log_path(public_id)):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - n_bytes))
                text += file.read(n_bytes)
        except (FileNotFoundError, NotADirectoryError):
            continue
    if len(text) > n_bytes:
        text = text[-n_bytes:].partition(b"\n")[2]  # begin with a whole line
    return text.decode(errors="replace")


def remove_logs(*, before: datetime) -> int:
    """Delete the logs that nobody has written to since `before`; how many files went."""
    folder = Path(settings.JOB_LOG_DIR)
    if not folder.is_dir():
        return 0
    stale = [path for path in folder.iterdir() if path.stat().st_mtime < before.timestamp()]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


class Log:
    """Appends bytes; at half the limit the file becomes the older half. A full disk loses lines, never the work."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self.tail = b""
        self._half = limit_bytes // 2

    def write(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size + len(data) > self._half:
                self.path.replace(_older(self.path))
            with self.path.open("ab") as file:
                file.write(data)
        except OSError:
            pass


def _older(path: Path) -> Path:
    return path.with_suffix(".old.log")
