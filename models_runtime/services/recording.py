"""Recorder: responses and failures on their way into the database, some at a time, each exactly once.

A response is written in a transaction that also holds the job, so whoever lost the job writes nothing. What is stored
already stays as it is: a second, different text for the same system, item and repeat is dropped and counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction

from annotation.models import Response
from annotation.services.responses import EmptyResponse, build_response, names_of_systems, unstored
from jobs.errors import CancelRequested
from jobs.registry import RunningJob
from models_runtime.endpoints.reading import clean
from models_runtime.models import BatchPart, GenerationBatch, GenerationFailure

ROWS_AT_ONCE = 64
SECONDS_BETWEEN = 0.25  # more often only if there are many: a commit waits for the disk

Key = tuple[int, int]  # item id, repeat


@dataclass
class Recorder:
    """Where the answers of a part go. Use it in one thread.

    n_stored, n_failed, n_dropped: of this run; dropped are texts that came second.
    """

    running: RunningJob
    part: BatchPart
    n_stored: int = 0
    n_failed: int = 0
    n_dropped: int = 0
    seconds: float = 0.0  # spent here
    _texts: dict[Key, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    _failures: dict[Key, tuple[str, str, int]] = field(default_factory=dict)
    _names: list[str] = field(default_factory=names_of_systems)
    _flushed_at: float = 0.0

    def response(self, item_id: int, repeat: int, text: str, provenance: dict[str, Any]) -> None:
        """A text that the system wrote. Doing so again, after a failed write, does no harm."""
        storable = {name: clean(value) if isinstance(value, str) else value for name, value in provenance.items()}
        self._texts[item_id, repeat] = (clean(text), storable)
        self.flush_if_due()

    def failure(self, item_id: int, repeat: int, code: str, message: str, n_attempts: int = 1) -> None:
        """An item that it could not answer."""
        self._failures[item_id, repeat] = (code, clean(message), n_attempts)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        n = len(self._texts) + len(self._failures)
        if n >= ROWS_AT_ONCE or (n and time.monotonic() - self._flushed_at >= SECONDS_BETWEEN):
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises LostLease, in which case nothing is written; CancelRequested after writing."""
        started = time.monotonic()
        try:
            self._write()
        except IntegrityError:  # another batch stored one of them since we looked
            self._write()
        self._texts, self._failures = {}, {}
        self._flushed_at = time.monotonic()
        self.seconds += self._flushed_at - started
        batch = GenerationBatch.objects.filter(pk=self.part.batch_id)
        if batch.values_list("intent", flat=True).get() != GenerationBatch.Intent.GO:
            raise CancelRequested

    def _write(self) -> None:
        built, failures = [], dict(self._failures)
        for (item_id, repeat), (text, provenance) in self._texts.items():
            try:
                built.append(
                    build_response(
                        item_id=item_id,
                        system_id=self.part.system_id,
                        text=text,
                        repeat=repeat,
                        provenance=provenance,
                        names=self._names,
                    )
                )
            except EmptyResponse as error:
                failures[item_id, repeat] = ("empty_response", error.message, 1)
        with transaction.atomic():
            self.running.hold()
            fresh, conflicts = unstored(built)
            Response.objects.bulk_create(fresh)
            self._write_failures(failures)
            answered = [response.item_id for response in built]
            gone = [
                pk
                for pk, *key in self.part.failures.filter(item__in=answered).values_list("pk", "item_id", "repeat")
                if tuple(key) in self._texts and tuple(key) not in failures
            ]
            if gone:
                GenerationFailure.objects.filter(pk__in=gone).delete()
        self.n_stored += len(fresh)
        self.n_dropped += len(conflicts)
        self.n_failed += len(failures)

    def _write_failures(self, failures: dict[Key, tuple[str, str, int]]) -> None:
        if not failures:
            return
        items = {item_id for item_id, _ in failures}
        known = self.part.failures.filter(item__in=items).values_list("item_id", "repeat", "attempts")
        before = {(item_id, repeat): attempts for item_id, repeat, attempts in known}
        GenerationFailure.objects.bulk_create(
            [
                GenerationFailure(
                    part=self.part,
                    item_id=key[0],
                    repeat=key[1],
                    code=code[:60],
                    message=message[:2000],
                    attempts=before.get(key, 0) + n,
                )
                for key, (code, message, n) in failures.items()
            ],
            update_conflicts=True,
            unique_fields=["part", "item", "repeat"],
            update_fields=["code", "message", "attempts", "is_waiting", "at"],
        )
