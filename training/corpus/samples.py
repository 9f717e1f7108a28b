"""One sample per counsellor turn: all earlier turns of the same dialogue as context, the turn as target.

What does not fit is cut as the family's official recipe does, or loses its oldest turns, or is left out; either way it
is counted. Nothing of another dialogue can get into a context. (The published script that makes SMILECHAT's training
set never clears its history, so two thirds of its samples begin in somebody else's dialogue.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from models_runtime.engine.errors import ContextTooLong
from training.corpus.errors import CorpusError
from training.corpus.formats import Dialogue
from training.corpus.store import Ids, Span

if TYPE_CHECKING:  # it loads torch, and the web process knows limits too
    from training.corpus.encoding import Encoder

Cut = Literal["ends", "oldest_turns", "leave_out"]


@dataclass(frozen=True)
class Limits:
    """How long a sample may be, in tokens with the special ones, and what happens to a longer one.

    cut: "ends": context and target lose what stands after the limit, as the official ChatGLM recipes do: the newest
            turn and the counsellor's label with it;
        "oldest_turns": the context loses whole turns, the oldest first, as it does when the model answers; a sample
            whose newest turn alone is too long, or whose target is, is left out;
        "leave_out": both are left out.
    """

    context: int = 1536
    target: int = 512
    cut: Cut = "oldest_turns"

    def __post_init__(self) -> None:
        if self.context < 8 or self.target < 4:
            raise CorpusError(f"A context of {self.context} and a target of {self.target} tokens hold nothing.")
        if self.cut not in get_args(Cut):
            raise CorpusError(f"cut is {self.cut!r}; it can be {', '.join(get_args(Cut))}.")


def usual_cut(family: str) -> Cut:
    """What the official recipe of a family does with long samples; it is missing for causal chat models."""
    return "ends" if family in ("chatglm", "chatglm2") else "oldest_turns"


@dataclass
class Encoded:
    """The samples of one dialogue, as a store takes them. turns: index of each sample's target in the dialogue."""

    ids: Ids
    spans: list[Span]
    turns: list[int]
    counts: Counter[str]


def encode(dialogue: Dialogue, encoder: Encoder, limits: Limits) -> Encoded:
    """The samples of a dialogue. counts: n_samples, and by reason those that were cut or left out."""
    counts: Counter[str] = Counter()
    kept: list[tuple[int, list[int], list[int]]] = []
    targets = dialogue.targets
    contexts = encoder.contexts(dialogue.turns, targets)
    for index, whole in zip(targets, contexts, strict=True):
        target = _target(encoder, dialogue.turns[index].text, limits, counts)
        context = _context(encoder, dialogue, index, whole, limits, counts) if target is not None else None
        if context is not None and target is not None:
            kept.append((index, context, target))
    counts["n_samples"] += len(kept)
    ids, spans = _laid_out([(context, target) for _, context, target in kept])
    return Encoded(ids, spans, [index for index, _, _ in kept], counts)


def _target(encoder: Encoder, text: str, limits: Limits, counts: Counter[str]) -> list[int] | None:
    target = encoder.target(text)
    if len(target) == encoder.n_target_specials:
        counts["n_empty_targets"] += 1
        return None
    if len(target) <= limits.target:
        return target
    if limits.cut != "ends":
        counts["n_targets_too_long"] += 1
        return None
    counts["n_targets_cut"] += 1
    return [*target[: limits.target - 1], target[-1]]


def _context(
    encoder: Encoder, dialogue: Dialogue, index: int, whole: list[int], limits: Limits, counts: Counter[str]
) -> list[int] | None:
    room = limits.context - len(encoder.suffix)
    if len(whole) <= room:
        return whole
    if limits.cut == "ends":
        counts["n_contexts_cut"] += 1
        return whole[:room]
    if limits.cut == "oldest_turns":
        try:
            context = encoder.newest_that_fit(dialogue.turns[:index], limits.context)
        except ContextTooLong:
            pass
        else:
            counts["n_contexts_without_oldest_turns"] += 1
            return context
    counts["n_contexts_too_long"] += 1
    return None


def _laid_out(samples: Sequence[tuple[list[int], list[int]]]) -> tuple[Ids, list[Span]]:
    """All ids one after the other; a context that begins the longest one is not written again."""
    if not samples:
        return np.zeros(0, dtype=np.int32), []
    longest = max((context for context, _ in samples), key=len)
    ids = list(longest)
    spans = []
    for context, target in samples:
        at = 0 if longest[: len(context)] == context else len(ids)
        if at:
            ids += context
        spans.append(Span(at, len(context), len(ids), len(target)))
        ids += target
    return np.array(ids, dtype=np.int32), spans


def about(limits: Limits) -> dict[str, Any]:
    """The limits as they are written beside a store."""
    return {"max_context": limits.context, "max_target": limits.target, "cut": limits.cut}
