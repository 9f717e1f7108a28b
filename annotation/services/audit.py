"""record: one line in the append-only, hash-chained log of acts.  verify_chain: is it whole?"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from annotation.models import AuditEvent, Study, User

GENESIS = "0" * 64
_LOCK = 0x71696E67  # an arbitrary number that names this lock among PostgreSQL's advisory locks


def _digest(at: datetime, actor_id: int | None, action: str, study_id: int | None, detail: Any, previous: str) -> str:
    line = json.dumps(
        [at.astimezone(UTC).isoformat(), actor_id, action, study_id, detail, previous],
        sort_keys=True,
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(line.encode()).hexdigest()


@transaction.atomic
def record(action: str, *, by: User | None, study: Study | None = None, **detail: Any) -> AuditEvent:
    """Append one act. `detail` holds ids, counts and hashes: never text of dialogues, never a secret."""
    if connection.vendor == "postgresql":  # SQLite's IMMEDIATE transaction already holds the write lock
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    last = AuditEvent.objects.order_by("-id").values_list("hash", flat=True).first()
    previous = last or GENESIS
    at = timezone.now()
    return AuditEvent.objects.create(
        at=at,
        actor=by,
        action=action,
        study=study,
        detail=detail,
        previous_hash=previous,
        hash=_digest(at, by.pk if by else None, action, study.pk if study else None, detail, previous),
    )


def verify_chain() -> int | None:
    """The id of the first event that does not fit the one before it, or None if the log is whole."""
    previous = GENESIS
    for event in AuditEvent.objects.order_by("id").iterator():
        expected = _digest(event.at, event.actor_id, event.action, event.study_id, event.detail, previous)
        if event.previous_hash != previous or event.hash != expected:
            return int(event.pk)
        previous = event.hash
    return None
