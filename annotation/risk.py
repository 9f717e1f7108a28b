"""risks_of: which difficult subjects a text touches, by literal terms. It warns a rater; it removes nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

_TERMS = Path(__file__).parent / "content" / "risk_terms.json"
_LATIN = re.compile("[a-z]", re.IGNORECASE)


@dataclass(frozen=True)
class _Category:
    key: str
    chinese: tuple[str, ...]  # found anywhere in the text
    english: re.Pattern[str]  # whole words, any case


@cache
def _categories() -> tuple[_Category, ...]:
    content = json.loads(_TERMS.read_text(encoding="utf-8"))
    return tuple(
        _Category(
            key=category["key"],
            chinese=tuple(category["terms"]["zh"]),
            english=re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, category['terms']['en']))})(?!\w)", re.I | re.A),
        )
        for category in content["categories"]
    )


def categories() -> tuple[str, ...]:
    """The keys of all categories, in the order of the content file."""
    return tuple(category.key for category in _categories())


def risks_of(*texts: str) -> list[str]:
    """Keys of the categories that any of the texts touches, in the order of the content file."""
    found: set[str] = set().union(*map(_touched, texts))
    return [key for key in categories() if key in found]


@lru_cache(maxsize=1024)  # the items of a dialogue have most of their turns in common, and follow one another
def _touched(text: str) -> frozenset[str]:
    has_latin = _LATIN.search(text) is not None
    return frozenset(
        category.key
        for category in _categories()
        if any(term in text for term in category.chinese) or (has_latin and category.english.search(text))
    )
