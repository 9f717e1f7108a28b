"""Spool: rows that wait on disk until the whole file they come from is known to be good. Pure.

A nameless SQLite file in the system's folder for temporary files (SQLITE_TMPDIR, TMPDIR, else /var/tmp): memory does
not grow with it, and it is gone when it is closed or the process ends, however that happens.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from annotation.formats.problems import Place


@dataclass(frozen=True)
class KeyTaken:
    """A key was given twice. `first` says where before; `is_same`: with the same content."""

    first: Place
    is_same: bool


class Spool:
    """A temporary database with `tables`; a context manager."""

    tables: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        settings = ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA cache_size=-8000")  # KiB
        for statement in (*settings, *self.tables, "BEGIN"):
            self._db.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._db.close()


class RowSpool(Spool):
    """JSON objects under a key, in the order they came."""

    tables = ("CREATE TABLE entry (id TEXT UNIQUE, digest BLOB, place TEXT, body TEXT)",)

    def add(self, key: str, content: str, place: Place, body: dict[str, Any]) -> KeyTaken | None:
        """Keep `body`; if the key is taken, keep nothing and say by whom, comparing `content`."""
        digest = hashlib.sha256(content.encode()).digest()
        try:
            row = (key, digest, json.dumps(place), json.dumps(body, ensure_ascii=False))
            self._db.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            taken, first = self._db.execute("SELECT digest, place FROM entry WHERE id = ?", (key,)).fetchone()
            return KeyTaken(Place(*json.loads(first)), taken == digest)
        return None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM entry").fetchone()[0])

    def __iter__(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        for place, body in self._db.execute("SELECT place, body FROM entry ORDER BY rowid"):
            yield Place(*json.loads(place)), json.loads(body)
