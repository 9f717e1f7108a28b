"""findings: is this installation fit to be used? Each finding is one line of `manage.py doctor`."""

from __future__ import annotations

import io
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from celery import current_app
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotation.figures.pdf import FOLDER, FONTS
from annotation.models import AuditEvent

State = Literal["ok", "note", "problem"]

_LEAST_FREE_BYTES = 2 * 1024**3
_LARGEST_SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    what: str
    state: State
    says: str


def findings() -> Iterator[Finding]:
    """All findings, the ones that matter most first."""
    yield from _database()
    yield _cache()
    yield from _keys()
    yield _hosts()
    yield _broker()
    yield _disk()
    yield _clock()
    yield _fonts()
    yield _deployment()


def _database() -> Iterator[Finding]:
    try:
        if connection.vendor == "sqlite":
            yield _sqlite()
        else:
            with connection.cursor() as cursor:
                cursor.execute("SHOW server_version")
                yield Finding("database", "ok", f"PostgreSQL {cursor.fetchone()[0]}")
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        yield Finding("database", "problem", f"does not answer: {type(error).__name__}")
        return
    if waiting:
        yield Finding("migrations", "problem", f"{len(waiting)} waiting: run `manage.py migrate`")
    else:
        yield Finding("migrations", "ok", "all applied")


def _sqlite() -> Finding:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        mode = str(cursor.fetchone()[0]).upper()
    safe = "safe" if settings.SQLITE_HAS_SAFE_WAL else "not safe"
    says = f"SQLite {sqlite3.sqlite_version}, journal mode {mode}; WAL is {safe} in this build"
    if mode == "WAL" and not settings.SQLITE_HAS_SAFE_WAL:
        return Finding("database", "problem", says + ": switch the file to DELETE, or use a fixed SQLite")
    return Finding("database", "ok", says)


def _cache() -> Finding:
    """Log-in counters live in the cache, so every process must see the same one."""
    backend = str(settings.CACHES["default"]["BACKEND"]).rpartition(".")[2]
    if backend in ("LocMemCache", "DummyCache"):
        return Finding("cache", "problem", f"{backend}: each process counts log-in attempts for itself")
    try:
        cache.set("doctor", "here", 60)
        found = cache.get("doctor")
    except (DatabaseError, OSError) as error:
        return Finding("cache", "problem", f"{backend} does not answer: {type(error).__name__}")
    return Finding("cache", "ok" if found == "here" else "problem", backend)


def _keys() -> Iterator[Finding]:
    weak = len(settings.SECRET_KEY) < 50 or len(set(settings.SECRET_KEY)) < 16
    yield Finding("secret key", "problem" if weak else "ok", f"{len(settings.SECRET_KEY)} characters")
    try:
        keys = [Fernet(key) for key in settings.FIELD_ENCRYPTION_KEYS]
    except ValueError:
        yield Finding("field keys", "problem", "one of FIELD_ENCRYPTION_KEYS is no Fernet key")
    else:
        yield Finding(
            "field keys", "ok" if keys else "problem", f"{len(keys)} key(s); back them up apart from the data"
        )
    for name in ("secret_key", "field_key"):
        path = Path(settings.DATA_DIR) / name
        if path.exists() and path.stat().st_mode & 0o077:
            yield Finding(name, "problem", f"{path} can be read by others: chmod 600")


def _hosts() -> Finding:
    hosts = ", ".join(settings.ALLOWED_HOSTS)
    if not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        return Finding("allowed hosts", "problem", hosts or "none: name the hosts in ALLOWED_HOSTS")
    return Finding("allowed hosts", "ok", f"{hosts}; links start with {settings.PUBLIC_URL}")


def _broker() -> Finding:
    url = settings.CELERY_BROKER_URL
    kind = url.partition(":")[0]
    if kind == "filesystem":
        folder = Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder_in"])
        says = f"folder {folder}: one machine only"
        return Finding("broker", "ok" if folder.is_dir() else "problem", says)
    if kind == "memory":
        return Finding("broker", "note", "memory: for tests")
    try:
        with current_app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=3)
    except (OperationalError, OSError) as error:
        return Finding("broker", "problem", f"{kind} does not answer: {type(error).__name__}")
    return Finding("broker", "ok", kind)


def _disk() -> Finding:
    free = shutil.disk_usage(settings.DATA_DIR).free
    state: State = "ok" if free >= _LEAST_FREE_BYTES else "problem"
    return Finding("disk", state, f"{free / 1024**3:.1f} GiB free in {settings.DATA_DIR}")


def _clock() -> Finding:
    """Against what is at hand: the database server's clock, and the newest line of the log."""
    now = timezone.now()
    try:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT clock_timestamp()")
                skew = abs((cursor.fetchone()[0] - timezone.now()).total_seconds())
            if skew > _LARGEST_SKEW_SECONDS:
                return Finding("clock", "problem", f"{skew:.0f} s from the database server's")
        newest = AuditEvent.objects.order_by("-id").values_list("at", flat=True).first()
    except DatabaseError as error:
        return Finding("clock", "problem", f"cannot be compared: {type(error).__name__}")
    if newest and (newest - now).total_seconds() > _LARGEST_SKEW_SECONDS:
        return Finding("clock", "problem", f"it is {now:%Y-%m-%d %H:%M} UTC here, and the log is already later")
    return Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _fonts() -> Finding:
    """PDF figures bring their own fonts; a copy of the code that left them out cannot print any."""
    missing = sorted(file for file in FONTS.values() if not (FOLDER / file).is_file())
    if missing:
        return Finding("fonts", "problem", f"not in {FOLDER}: {', '.join(missing)}")
    return Finding("fonts", "ok", f"{len(FONTS)} files for figures")


def _deployment() -> Finding:
    """Django's own list. On one machine without https its warnings are expected, so they only fail in production."""
    answer = io.StringIO()
    try:
        call_command("check", deploy=True, fail_level="WARNING", stdout=answer, stderr=answer)
    except CommandError as error:
        n_issues = str(error).count("\n?:") + str(error).count("\nannotation")
        is_production = getattr(settings, "SECURE_SSL_REDIRECT", False)
        says = f"{n_issues or 'some'} warnings: see `manage.py check --deploy`"
        return Finding("check --deploy", "problem" if is_production else "note", says)
    return Finding("check --deploy", "ok", "no warnings")
