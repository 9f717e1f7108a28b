"""Lengths of real counselling prompts and replies, from counts that are shipped: no text, only how long it was."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("smilechat_lengths.json")
# Of the ChatGLM tokenizer on Chinese; published estimates lie between 0.55 and 0.70. An assumption: its vocabulary is
# not shipped here.
TOKENS_PER_CHARACTER = 0.62


class Lengths(NamedTuple):
    """Tokens of one prompt and of the response to it."""

    prompt: int
    response: int


def draw_lengths(n: int, *, seed: int, scale: float = 1.0) -> list[Lengths]:
    """Lengths of n items; prompt and response are drawn apart, at most 1536 and 512. scale: for a quicker look."""
    rng = random.Random(seed)
    known = json.loads(FILE.read_text(encoding="utf-8"))

    def tokens(side: dict[str, Any]) -> list[int]:
        bins = rng.choices(range(len(side["counts"])), weights=side["counts"], k=n)
        return [round((b + rng.random()) * side["bin"] * TOKENS_PER_CHARACTER * scale) for b in bins]

    return [
        Lengths(min(max(prompt, 4), 1536), min(max(response, 1), 512))
        for prompt, response in zip(tokens(known["prompt"]), tokens(known["response"]), strict=True)
    ]
