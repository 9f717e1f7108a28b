"""Which dialogues are for training and which for the test, and whether a test item got into training.

A dialogue goes to the test as a whole or not at all, and so do dialogues that open alike: the lot is a hash of the seed
and of everything up to the first reply. So no sample of the training is an item of the test, whatever the files call
their dialogues; the order of the files does not matter, and dialogues that are added later move no other.

Two texts are the same here if they differ in blanks, punctuation, width of letters or case alone.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from annotation.design.sampling import rank
from annotation.formats.dialogues import CLIENT, COUNSELLOR, Turn
from annotation.formats.problems import Findings, TooManyProblems
from annotation.formats.rows import read_items
from annotation.formats.source import RESPONSE_FORMATS, Source, sniff
from training.corpus.errors import CorpusError, SourceRefused

HASH_BYTES = 16
RANKS = 2**128  # of annotation.design.sampling.rank


def is_test(opening: bytes, *, seed: int, share: float) -> bool:
    """Whether dialogues that open like this are drawn for the test; `share` is the expected part of them."""
    return rank(seed, "split", opening.hex()) < share * RANKS


def check_share(share: float) -> None:
    """Raises CorpusError if it is no share that leaves something to train on."""
    if not 0 <= share < 1:
        raise CorpusError(f"The share of the test is {share}; it must be at least 0 and below 1.")


def normal(text: str) -> str:
    """The letters and digits of a text, in NFKC and folded case: what is left when only its looks change."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_UNSEEN)


class _Unseen(dict[int, int | None]):
    """For str.translate: letters and digits stay, everything else goes. Filled as characters are met."""

    def __missing__(self, point: int) -> int | None:
        self[point] = point if unicodedata.category(chr(point))[0] in "LN" else None
        return self[point]


_UNSEEN = _Unseen()


def beginnings(turns: Sequence[Turn]) -> list[bytes]:
    """For each turn a hash of HASH_BYTES over the texts up to and with it."""
    running = hashlib.sha256()
    found = []
    for turn in turns:
        running.update(_normal_bytes(turn.text))
        found.append(running.digest()[:HASH_BYTES])
    return found


@lru_cache(maxsize=1024)  # items of a dialogue follow one another
def _normal_bytes(text: str) -> bytes:
    return normal(text).encode("utf-8", "surrogatepass") + b"\x1f"


def opening(turns: Sequence[Turn], hashes: Sequence[bytes]) -> bytes:
    """Of `beginnings(turns)` the one that ends with the first reply to a client; the last one if there is no reply."""
    for index in range(1, len(turns)):
        if turns[index].role == COUNSELLOR and turns[index - 1].role == CLIENT:
            return hashes[index]
    return hashes[-1] if hashes else b""


def item_hash(turns: Sequence[Turn], reference: str = "") -> bytes:
    """The hash of a test item: of the dialogue up to its reply, or up to the question where there is no reply.

    A dialogue gives the item away if this is one of its `beginnings`.
    """
    spoken = [*turns, Turn(COUNSELLOR, reference)] if reference else list(turns)
    return beginnings(spoken)[-1] if spoken else b""


def hashes_of_items(source: Source) -> frozenset[bytes]:
    """`item_hash` of every item of a JSONL, CSV or XLSX file. Raises SourceRefused if anything is wrong with it."""
    findings = Findings()
    found = sniff(source) if source.path.exists() else None
    if found not in RESPONSE_FORMATS:
        raise SourceRefused(f"{source.name} is no file of items (JSONL, CSV or XLSX)", [], 0)
    try:
        hashes = frozenset(item_hash(item.turns, item.reference) for item in read_items(source, found, findings))
    except TooManyProblems:
        hashes = frozenset()
    if findings.problems:
        first = findings.problems[0].place
        raise SourceRefused(f"{source.name}: {first.unit} {first.number} is broken", findings.problems, 1)
    return hashes
