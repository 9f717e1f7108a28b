"""hashes_of_database, leaked_items: what of the datasets here must not be learnt, and whether a corpus holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from annotation.formats.dialogues import Turn
from annotation.models import Item
from training.corpus.prepare import learnt_among
from training.corpus.split import item_hash


class Leak(NamedTuple):
    """An item of a dataset here that a corpus learns from."""

    dataset: str
    item: str


def hashes_of_database() -> Iterator[tuple[bytes, Leak]]:
    """`item_hash` of every item of every dataset, and where it is."""
    rows = Item.objects.order_by("pk").values_list("turns", "reference", "dataset__name", "key")
    for turns, reference, dataset, key in rows.iterator():
        yield item_hash([Turn(turn["role"], turn["text"]) for turn in turns], reference), Leak(dataset, key)


def leaked_items(corpus: Path, *, beat: Callable[[int], object] = lambda _n: None) -> list[Leak]:
    """The items that the training part of a prepared corpus holds. beat: called with their number so far.

    Raises CorpusError.
    """
    items = []
    for found in hashes_of_database():
        items.append(found)
        beat(len(items))
    learnt = learnt_among(corpus, {found for found, _ in items})
    return [leak for found, leak in items if found in learnt]
