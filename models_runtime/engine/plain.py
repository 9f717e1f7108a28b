"""PlainWords: what people write goes into a prompt as mere words, whatever tokens it looks like. No torch in here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

SEAM = "\ufdd0"  # no character, and in no text; across it no token is found


class PlainWords:
    """A tokenizer's special tokens, and how a text is kept free of them.

    `spell_out` each text before it is put into a prompt, and make the prompt's ids with `ids`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._encode = tokenizer.encode
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()  # the others find no marks in text
        marks = sorted((token.content for token in added if token.special), key=len, reverse=True)
        marks = [re.escape(mark) for mark in marks if len(mark) > 1]
        self._marks = re.compile("|".join(marks)) if marks else None

    def spell_out(self, text: str) -> str:
        """The text with a seam in each mark such as <|im_end|>, so that it is read letter by letter."""
        text = text.replace(SEAM, "")
        return self._marks.sub(lambda found: found[0][0] + SEAM + found[0][1:], text) if self._marks else text

    def ids(self, text: str, encode: Callable[[str], Sequence[int]] | None = None) -> list[int]:
        """The ids of a text that is encoded apart on both sides of each seam; encode: of its first piece."""
        first, *others = text.split(SEAM)
        ids = list(encode(first) if encode else self._encode(first, add_special_tokens=False))
        for piece in others:
            ids += self._encode(piece, add_special_tokens=False)
        return ids
