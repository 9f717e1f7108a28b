"""Texts inside drawings: made harmless, measured, cut to what fits."""

from __future__ import annotations

import math
import unicodedata
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

ELLIPSIS = "…"
_NARROW = frozenset("ijltfrI.,:;'|!()[]{}/\\ `·")
_WIDE = frozenset("mwMW@%—…")


def clean(text: str) -> str:
    """The text on one line, without characters that XML forbids or that turn the direction of what follows."""
    kept = [" " if character.isspace() else character for character in str(text) if not _is_forbidden(character)]
    return " ".join("".join(kept).split())


@lru_cache(maxsize=4096)
def _is_forbidden(character: str) -> bool:
    if character.isspace():
        return False
    # Cc: control; Cf: invisible, among them the marks of direction; Cs: half a surrogate pair; Cn: no character.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn")


def width(text: str, size: float) -> float:
    """About how wide the text is, in points, on the generous side: a browser chooses its own font."""
    return size * sum(_advance(character) for character in text)


@lru_cache(maxsize=4096)
def _advance(character: str) -> float:
    """Width of one character in units of the font size."""
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in ("W", "F"):
        return 1.0
    if character in _NARROW:
        return 0.42
    if character in _WIDE or not character.isascii():
        return 1.0
    return 0.74 if character.isupper() else 0.62


def fit(text: str, space: float, size: float) -> tuple[str, str]:
    """The cleaned text cut to `space` points, and the full text if it had to be cut ("" if not)."""
    full = clean(text)
    if width(full, size) <= space:
        return full, ""
    room = space - width(ELLIPSIS, size)
    used, kept = 0.0, 0
    for character in full:
        used += size * _advance(character)
        if used > room:
            break
        kept += 1
    return full[:kept].rstrip() + ELLIPSIS, full


def number(value: float, digits: int = 2) -> str:
    """The value with `digits` decimals, halves away from zero, with a true minus sign.

    Rounded once from the shortest decimal form, so a figure shows what the tables show. ValueError unless finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"cannot write {value}: an undefined number has a reason, not a digit")
    exact = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0
    return f"{exact:f}".replace("-", "−")
