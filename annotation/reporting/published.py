"""The published table of the SoulChat paper, to stand beside a study of the same systems on the same datasets.

Its figures are kept as they were printed, with their decimals. Ours are rounded once to the same decimals, halves away
from zero, and the difference is taken between the two rounded numbers: what a reader could do with a pencil.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from annotation.reporting.numbers import rounded

_FILE = Path(__file__).parent / "published_results.json"


@dataclass(frozen=True)
class Published:
    """source: where the figures stand;  scores: the columns' keys, in the paper's order."""

    source: str
    scores: tuple[str, ...]
    decimals: dict[str, int]
    table: dict[str, dict[str, list[str]]]
    fleiss_kappa: dict[str, str]

    def value(self, dataset: str, system: str, score: str) -> str:
        """As printed; "" where the paper has no such row or column."""
        row = self.table.get(dataset, {}).get(system)
        return row[self.scores.index(score)] if row and score in self.scores else ""

    def has_row(self, dataset: str, system: str) -> bool:
        return system in self.table.get(dataset, {})

    def difference(self, ours: float, dataset: str, system: str, score: str) -> str:
        """Ours minus theirs, both at the paper's decimals, with its sign; "" where the paper has no figure."""
        theirs = self.value(dataset, system, score)
        if not theirs:
            return ""
        return f"{Decimal(rounded(ours, self.decimals[score])) - Decimal(theirs):+}"


@cache
def published() -> Published:
    """The figures that come with the software."""
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    decimals = dict(zip(content["scores"], content["decimals"], strict=True))
    return Published(content["source"], tuple(content["scores"]), decimals, content["table"], content["fleiss_kappa"])
