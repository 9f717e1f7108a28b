"""One response under way, and the order in which those that wait are taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models_runtime.engine.protocol import Work


@dataclass
class Row:
    """One response under way."""

    work: Work
    prompt_ids: tuple[int, ...]
    n_turns_cut: int
    key: np.uint64
    tokens: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)  # of the last token in the slot, by channel
    seconds: float = 0.0
    started: float = 0.0
    error_code: str = ""
    error: str = ""

    @property
    def n_stored(self) -> int:
        """Tokens whose keys and values are in the slot: all but the newest, which is yet to be fed."""
        return len(self.prompt_ids) + len(self.tokens) - 1


def keys_of(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array([row.key for row in rows], dtype=np.uint64)


def steps_of(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The number of the token that comes next in each response, from 0."""
    return np.array([len(row.tokens) for row in rows], dtype=np.int64)


def n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common before they part."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Longest prompts first, but those that share most of theirs, as the items of one dialogue do, side by side."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.prompt_ids, reverse=True):  # what goes on before where it ends
        before = groups[-1][-1].prompt_ids if groups else ()
        if 2 * n_alike(before, row.prompt_ids) >= max(len(before), len(row.prompt_ids), 1):
            groups[-1].append(row)
        else:
            groups.append([row])
    groups.sort(key=lambda group: -max(len(row.prompt_ids) for row in group))
    return [row for group in groups for row in group]
