"""What is counted of every response, and how a row of counts is kept: the bridge between TextCounts and metrics.text.

All three protocols are counted, without normalisation: that is a row of 53 numbers, whatever the length of the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

import numpy as np

from metrics.ngrams import CountTable, Text, columns
from metrics.text import CHAR, CHATGLM, REFERENCE, VERSION, TextStatistics, cutting, source_of, tokens_of

TOKENS = tokens_of(CHATGLM, REFERENCE, CHAR)
COLUMNS = columns(TOKENS)
_STORED = np.dtype("<i4")
Source = tuple[tuple[str, str], ...]


@cache
def cutting_hash() -> str:
    """16 hex digits over all that decides what is counted: the columns, the dictionary, every version.

    Rows under another hash are out of date. No process sees it change, since its packages do not change either.
    """
    return hashlib.sha256(repr((VERSION, COLUMNS, cutting(TOKENS))).encode()).hexdigest()[:16]


def packed(table: CountTable) -> list[bytes]:
    """Each row of the table as it is stored. table: shape (N, K)."""
    return [row.tobytes() for row in table.astype(_STORED)]


def unpacked(rows: Iterable[bytes | memoryview]) -> CountTable:
    """The table of these stored rows, shape (N, K)."""
    table = np.frombuffer(b"".join(rows), dtype=_STORED).reshape(-1, len(COLUMNS))
    return table.astype(np.int32, copy=False)


def statistics(table: CountTable, source: Source) -> TextStatistics:
    """Stored rows as metrics.text knows them. source: `source` of the references they were counted against."""
    return TextStatistics(table, COLUMNS, source)


def source(references: Iterable[Text]) -> Source:
    """How the stored rows were cut, and a hash of these references: once for all systems."""
    return source_of(references, TOKENS)
