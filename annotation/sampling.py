"""Which dialogues of a file are taken, and which items they make. Pure, and the memory it needs does not grow.

A draw is a matter of hashes, not of a stream of random numbers: dialogue `key` has the rank SHA-256(seed, key), and
a sample of N is the N dialogues of lowest rank. So the same seed and the same dialogues give the same sample, in
whatever order a file or archive holds them; and the first 100 of a sample of 10,000 are a sample of 100.

- N counts dialogues, never items: all items of a dialogue come in together or not at all.
- Stratified, N is shared out over the topics in proportion to their dialogues by largest remainder (ties: the topic
  whose name sorts first), and each topic gives its dialogues of lowest rank.
- One item per dialogue is the item of lowest rank, SHA-256(seed, item's key).
- Of dialogues with the same turns the one whose key sorts first is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

from annotation.design.sampling import rank as lot
from annotation.design.sampling import share_out
from annotation.formats.dialogues import CLIENT, COUNSELLOR, SourceDialogue, Turn
from annotation.formats.problems import Place
from annotation.formats.rows import SourceItem
from annotation.spool import KeyTaken, Spool

_NUMBER = re.compile(r"\d+")


def rank(seed: int, kind: str, key: str) -> int:
    """The lot of `annotation.design.sampling.rank`, 0 … 2**63 - 1: as much of it as a database column holds."""
    return lot(seed, kind, key) >> 65


# --- Items of a dialogue --------------------------------------------------------------------------------


def items_of(dialogue: SourceDialogue) -> list[SourceItem]:
    """One item for each counsellor turn that answers the client: all turns before it, and the turn as reference.

    Nothing but this dialogue's own turns can get into an item. Keys are "{dialogue}#1", "{dialogue}#2", … by
    counsellor turn; a counsellor who speaks first answers nobody, and has no number.
    """
    items: list[SourceItem] = []
    for index, turn in enumerate(dialogue.turns):
        if turn.role == COUNSELLOR and index and dialogue.turns[index - 1].role == CLIENT:
            items.append(
                SourceItem(
                    key=f"{dialogue.key}#{len(items) + 1}",
                    dialogue=dialogue.key,
                    topic_label=dialogue.topic_label,
                    turns=dialogue.turns[:index],
                    reference=turn.text,
                    place=dialogue.place,
                )
            )
    return items


def n_items_of(turns: tuple[Turn, ...]) -> int:
    """How many items `items_of` makes of these turns."""
    roles = [turn.role for turn in turns]
    return sum(pair == (CLIENT, COUNSELLOR) for pair in pairwise(roles))


def one_of(items: list[SourceItem], seed: int) -> SourceItem:
    """The item of lowest rank."""
    return min(items, key=lambda item: (rank(seed, "item", item.key), item.key))


# --- The spool ------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """What the spool holds of a dialogue (no item key) or of a row that is an item already."""

    dialogue: str
    key: str  # of the item; "" for a whole dialogue
    topic_label: str
    turns: tuple[Turn, ...]
    reference: str
    place: Place


class DialogueSpool(Spool):
    """Dialogues and items that were read and found good, waiting until all of the file is known to be good."""

    tables = (
        "CREATE TABLE entry (id TEXT UNIQUE, dialogue TEXT, dialogue_order TEXT, id_order TEXT, stratum TEXT,"
        " digest BLOB, n_items INTEGER, place TEXT, key TEXT, body TEXT)",
        "CREATE TABLE dialogue (name TEXT PRIMARY KEY, stratum TEXT, rank INTEGER)",
    )

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def add(self, entry: Entry, *, stratum: str, n_items: int) -> KeyTaken | None:
        """Keep an entry; if its key is taken, keep nothing and say by whom."""
        content = json.dumps([entry.turns, entry.reference], ensure_ascii=False, separators=(",", ":"))
        digest = hashlib.sha256(content.encode()).digest()[:16]
        name = entry.key or entry.dialogue
        body = json.dumps([entry.topic_label, entry.turns, entry.reference], ensure_ascii=False, separators=(",", ":"))
        orders = natural(entry.dialogue), natural(name)
        row = (name, entry.dialogue, *orders, stratum, digest, n_items, json.dumps(entry.place), entry.key, body)
        try:
            self._db.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            place, taken = self._db.execute("SELECT place, digest FROM entry WHERE id = ?", (name,)).fetchone()
            return KeyTaken(Place(*json.loads(place)), taken == digest)
        return None

    def drop_duplicates(self) -> int:
        """Of entries with the same turns and reference keep the one whose key sorts first; how many went."""
        return self._db.execute(
            "DELETE FROM entry WHERE rowid IN (SELECT row FROM (SELECT rowid AS row, row_number() OVER"
            " (PARTITION BY digest ORDER BY id_order, id) AS number FROM entry) WHERE number > 1)"
        ).rowcount

    def gather(self) -> int:
        """Tell which dialogues there are, once, after the last entry; how many."""
        self._db.create_function("rank", 1, lambda key: rank(self._seed, "dialogue", key), deterministic=True)
        self._db.execute(
            "INSERT INTO dialogue SELECT dialogue, min(stratum), rank(dialogue) FROM entry GROUP BY dialogue"
        )
        self._db.execute("CREATE INDEX in_order ON entry (dialogue_order, dialogue, id_order)")
        return self.n_dialogues

    def choose(self, n: int, *, is_stratified: bool = False) -> None:
        """Draw `n` of the dialogues and forget the others. Raises ValueError if there are fewer."""
        strata = "SELECT stratum, count(*) FROM dialogue GROUP BY stratum"
        sizes = dict(self._db.execute(strata)) if is_stratified else {"": self.n_dialogues}
        if n > sum(sizes.values()):
            raise ValueError(f"{n} of {sum(sizes.values())} dialogues")
        for stratum, places in share_out(sizes, n).items():
            self._db.execute(
                "DELETE FROM dialogue WHERE (stratum = ? OR NOT ?) AND rowid NOT IN (SELECT rowid FROM dialogue"
                " WHERE (stratum = ? OR NOT ?) ORDER BY rank, name LIMIT ?)",
                (stratum, is_stratified, stratum, is_stratified, places),
            )

    @property
    def n_dialogues(self) -> int:
        """How many dialogues were gathered and not left out of the draw."""
        return int(self._db.execute("SELECT count(*) FROM dialogue").fetchone()[0])

    def n_items(self, *, one_per_dialogue: bool) -> int:
        """How many items `items` will yield."""
        if one_per_dialogue:
            return self.n_dialogues
        total = "SELECT total(n_items) FROM entry WHERE dialogue IN (SELECT name FROM dialogue)"
        return int(self._db.execute(total).fetchone()[0])

    def items(self, *, one_per_dialogue: bool) -> Iterator[SourceItem]:
        """The items of these dialogues: dialogues in natural order of their keys, items in theirs."""
        for _dialogue, entries in groupby(self._chosen(), key=lambda entry: entry.dialogue):
            items = [item for entry in entries for item in _expand(entry)]
            yield from [one_of(items, self._seed)] if one_per_dialogue else items

    def _chosen(self) -> Iterator[Entry]:
        rows = self._db.execute(
            "SELECT dialogue, key, place, body FROM entry INDEXED BY in_order"
            " WHERE dialogue IN (SELECT name FROM dialogue) ORDER BY dialogue_order, dialogue, id_order"
        )
        for dialogue, key, place, body in rows:
            topic_label, turns, reference = json.loads(body)
            spoken = tuple(Turn(role, text) for role, text in turns)
            yield Entry(dialogue, key, topic_label, spoken, reference, Place(*json.loads(place)))


def _expand(entry: Entry) -> list[SourceItem]:
    if not entry.key:
        return items_of(SourceDialogue(entry.dialogue, entry.topic_label, entry.turns, entry.place))
    return [SourceItem(entry.key, entry.dialogue, entry.topic_label, entry.turns, entry.reference, entry.place)]


def natural(key: str) -> str:
    """A form of the key that sorts its numbers by value: "item 9" before "item 10"."""
    return _NUMBER.sub(lambda number: number[0].zfill(20), key)
