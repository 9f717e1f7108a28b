"""count_texts: every response of a dataset compared with its reference once, so that reports only have to add up.

Some thousand responses at a time are read, counted and written in a short transaction of their own. Whoever is
interrupted loses at most one such part and goes on with what is missing; two who count the same do work twice and
write the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from django.db import transaction
from django.utils.translation import gettext_noop

from annotation.counting import TOKENS, cutting_hash, packed
from annotation.models import Dataset, Response, System, TextCounts
from metrics.ngrams import Text
from metrics.text import References, counting_pool, system_statistics

RESPONSES_AT_ONCE = 4096  # for each process: a second of work, five megabytes of text and numbers
ROWS_PER_STATEMENT = 500

# progress(stage, done, total): the stage is a msgid.
Progress = Callable[[str, int, int | None], None]
COUNTING = gettext_noop("Counting words")


@dataclass(frozen=True)
class Counted:
    """What became of a call: responses counted now, and responses whose counts were there and up to date."""

    n_counted: int
    n_unchanged: int


def _no_progress(stage: str, done: int, total: int | None) -> None:
    return None


def count_texts(
    *,
    dataset: Dataset,
    systems: Iterable[System] | None = None,
    processes: int = 1,
    on_progress: Progress = _no_progress,
) -> Counted:
    """Count the responses to a dataset that have no counts, or counts of another dictionary or version.

    systems: only these;  processes: more than one pays from some ten thousand responses on. It is for a terminal:
    a Celery worker is not allowed to have such children, and nothing would end them if it was killed.
    A response whose text or reference changes while it is counted is left to the next call.
    """
    responses = Response.objects.filter(item__dataset=dataset)
    if systems is not None:
        responses = responses.filter(system__in=list(systems))
    # By item, so that one reference is cut once for all systems. Eight bytes a response is all that grows with them.
    missing = responses.not_counted(cutting_hash()).order_by("item_id", "pk").values_list("pk", flat=True)
    ids = np.fromiter(missing.iterator(), np.int64)
    n_unchanged = responses.count() - len(ids)
    n_counted, at_once = 0, RESPONSES_AT_ONCE * processes
    on_progress(COUNTING, 0, len(ids))
    processes = processes if len(ids) > at_once else 1
    with counting_pool(processes) if processes > 1 else nullcontext() as pool:
        for start in range(0, len(ids), at_once):
            n_counted += _count(ids[start : start + at_once].tolist(), processes, pool)
            on_progress(COUNTING, min(start + at_once, len(ids)), len(ids))
    return Counted(n_counted, n_unchanged)


# item, system, repeat, text, reference
_Row = tuple[int, int, int, str, str]


def _texts(ids: Sequence[int], *, is_locked: bool = False) -> dict[int, _Row]:
    """What the counts of these responses rest on, by id, items together.

    is_locked: nobody changes them before the transaction is over.
    """
    responses = Response.objects.select_for_update(no_key=True) if is_locked else Response.objects.all()
    rows = responses.filter(pk__in=ids).order_by("item_id", "pk")
    fields = ("pk", "item_id", "system_id", "repeat", "text", "item__reference")
    return {pk: row for pk, *row in rows.values_list(*fields)}


def _count(ids: Sequence[int], processes: int, pool: Executor | None) -> int:
    """Count these responses and write the counts down; how many that were."""
    texts = _texts(ids)
    place: dict[int, int] = {}  # of each item among the references
    references: list[Text] = []
    for item, _system, _repeat, _text, reference in texts.values():
        if item not in place:
            place[item] = len(references)
            references.append(reference or None)
    hypotheses: dict[str, list[Text]] = {}
    for item, system, repeat, text, _reference in texts.values():
        of_system = hypotheses.setdefault(f"{system} {repeat}", [None] * len(references))
        of_system[place[item]] = text
    against = References(references, tokens=TOKENS, keep=False)
    tables = system_statistics(hypotheses, against, processes=processes, pool=pool)
    stored = {key: packed(table.values) for key, table in tables.items()}
    return _write(texts, {pk: stored[f"{row[1]} {row[2]}"][place[row[0]]] for pk, row in texts.items()})


@transaction.atomic
def _write(counted: dict[int, _Row], values: dict[int, bytes]) -> int:
    """Replace the counts of these responses, but for those whose texts are no longer what was counted."""
    now = _texts(list(counted), is_locked=True)
    same = [pk for pk, row in counted.items() if now.get(pk) == row]
    TextCounts.objects.filter(response__in=same).delete()
    rows = (TextCounts(response_id=pk, cutting=cutting_hash(), values=values[pk]) for pk in same)
    TextCounts.objects.bulk_create(rows, batch_size=ROWS_PER_STATEMENT)
    return len(same)
