"""write_backup, check_backup, restore_backup: a site's database in one file that says what it holds.

A backup is a zip of the database (SQLite: a copy made through its backup interface, so a live site may go on writing;
PostgreSQL: pg_dump's custom format) and a manifest with checksum, row counts and the head of the audit log. Keys
(`field_key`, `secret_key`) are left out on purpose: keep them elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import django
from django.apps import apps
from django.db import connection

from annotation.errors import DomainError, NotReady

MANIFEST = "manifest.json"
CHUNK = 1 << 20  # bytes


class BackupUnusable(DomainError):
    """The file is no backup, or not the one that was written."""

    code = "backup_unusable"


def write_backup(path: Path) -> dict[str, Any]:
    """Write the configured database to `path` (which must not exist); returns the manifest."""
    if path.exists():
        raise NotReady(f"{path} exists already. Give a new name; backups are never overwritten.")
    with tempfile.TemporaryDirectory(prefix="qingting-backup-") as folder:
        copy = Path(folder) / ("database.sqlite3" if connection.vendor == "sqlite" else "database.dump")
        if connection.vendor == "sqlite":
            _copy_sqlite(copy)
            counts = _counts_in(copy)
        else:
            _run(["pg_dump", "--format=custom", f"--file={copy}"])
            counts = _counts()
        manifest = {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "engine": connection.vendor,
            "django": django.get_version(),
            "database": copy.name,
            "sha256": _sha256(copy),
            "counts": counts,
        }
        fresh = path.with_name(f"{path.name}.new")
        with ZipFile(fresh, "w", ZIP_DEFLATED) as archive:
            archive.write(copy, copy.name)
            archive.writestr(MANIFEST, json.dumps(manifest, indent=2))
        fresh.rename(path)  # complete or not there
    return manifest


def check_backup(path: Path) -> dict[str, Any]:
    """The manifest of a backup whose every part was read and fits it. Raises BackupUnusable otherwise."""
    with tempfile.TemporaryDirectory(prefix="qingting-check-") as folder:
        manifest, copy = _unpack(path, Path(folder))
        if manifest["engine"] == "sqlite":
            with sqlite3.connect(copy) as database:
                if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise BackupUnusable(f"{path.name}: SQLite finds the database inside damaged.")
            if (counts := _counts_in(copy)) != manifest["counts"]:
                wrong = next(t for t in manifest["counts"] if counts.get(t) != manifest["counts"][t])
                raise BackupUnusable(f"{path.name}: {wrong} holds {counts.get(wrong)} rows, not as the manifest says.")
        else:
            _run(["pg_restore", "--list", str(copy)], needs_database=False)
    return manifest


def restore_backup(path: Path) -> dict[str, Any]:
    """Put a backup into the configured database, which must be empty. Raises BackupUnusable or NotReady."""
    manifest = check_backup(path)
    if manifest["engine"] != connection.vendor:
        raise NotReady(f"{path.name} is of {manifest['engine']}, but this site is set up for {connection.vendor}.")
    if connection.introspection.table_names():
        raise NotReady("The database holds tables already. Restore into an empty one, then point the site to it.")
    with tempfile.TemporaryDirectory(prefix="qingting-restore-") as folder:
        _manifest, copy = _unpack(path, Path(folder))
        if connection.vendor == "sqlite":
            with sqlite3.connect(copy) as source, sqlite3.connect(_name()) as target:
                source.backup(target)
        else:
            _run(["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={_name()}", str(copy)])
    return manifest


def _unpack(path: Path, folder: Path) -> tuple[dict[str, Any], Path]:
    try:
        with ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            copy = folder / Path(str(manifest["database"])).name
            with archive.open(manifest["database"]) as packed, copy.open("wb") as file:
                while part := packed.read(CHUNK):
                    file.write(part)
    except (BadZipFile, KeyError, OSError, ValueError) as error:
        raise BackupUnusable(f"{path.name} cannot be read as a backup: {error}.") from error
    if _sha256(copy) != manifest["sha256"]:
        raise BackupUnusable(f"{path.name}: the database inside was changed after the backup was written.")
    return manifest, copy


def _copy_sqlite(copy: Path) -> None:
    connection.ensure_connection()
    with sqlite3.connect(copy) as target:
        connection.connection.backup(target)
    target.close()


def _tables() -> list[str]:
    return sorted(model._meta.db_table for model in apps.get_models(include_auto_created=True))


def _counts() -> dict[str, int]:
    with connection.cursor() as cursor:
        return {table: _count(cursor, table) for table in _tables()}


def _counts_in(copy: Path) -> dict[str, int]:
    with sqlite3.connect(copy) as database:
        return {table: _count(database, table) for table in _tables()}


def _count(cursor: Any, table: str) -> int:
    found = cursor.execute(f"SELECT COUNT(*) FROM {connection.ops.quote_name(table)}")  # noqa: S608  (our own tables)
    row = (found or cursor).fetchone()
    return int(row[0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name() -> str:
    """Of the database; with SQLite the path of its file."""
    return str(connection.settings_dict["NAME"])


def _run(command: list[str], *, needs_database: bool = True) -> None:
    """Run a PostgreSQL tool; the password goes through its environment, never through the command line."""
    given = connection.settings_dict
    env = dict(os.environ)
    if needs_database:
        names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
        env |= {variable: str(given[key]) for variable, key in names.items() if given.get(key)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True)  # noqa: S603  (fixed programs)
    except FileNotFoundError as error:
        raise NotReady(f"{command[0]} is not installed here; it comes with PostgreSQL's client tools.") from error
    if done.returncode:
        raise BackupUnusable(f"{command[0]}: {done.stderr.strip()[:500]}")
