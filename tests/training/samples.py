"""Token samples of noise: lengths that are said, ids that are drawn. Nothing here is language."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

GMASK, SOP, EOP = "gmask_token_id", "bos_token_id", "eos_token_id"


class ListSamples:
    """Samples in memory, as training asks for them."""

    def __init__(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
        self.pairs = [(np.array(c, np.int32), np.array(t, np.int32)) for c, t in pairs]

    @property
    def content_hash(self) -> str:
        digest = hashlib.sha256()
        for context, target in self.pairs:
            digest.update(context.tobytes() + b"|" + target.tobytes() + b"\n")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.pairs)

    def lengths(self):
        return np.array([len(c) for c, _ in self.pairs]), np.array([len(t) for _, t in self.pairs])

    def __getitem__(self, index):
        return self.pairs[index]


def drawn(lengths: Sequence[tuple[int, int]], *, seed: int = 0, low: int = 10, high: int = 500) -> ListSamples:
    """Samples of these (context, target) lengths for a causal model."""
    rng = np.random.default_rng(seed)
    return ListSamples([(rng.integers(low, high, c), rng.integers(low, high, t)) for c, t in lengths])


def drawn_for_chatglm(lengths: Sequence[tuple[int, int]], config, *, seed: int = 0) -> ListSamples:
    """The same for ChatGLM-6B: a context ends with [gMASK], a target is <sop>, words and <eop>."""
    plain = drawn(lengths, seed=seed)
    gmask, sop, eop = (config[name] for name in (GMASK, SOP, EOP))
    return ListSamples([([*c[:-1], gmask], ([sop, *t[2:], eop] if len(t) > 1 else [sop])) for c, t in plain.pairs])


def some_lengths(n: int, *, seed: int = 0, context: int = 40, target: int = 15) -> list[tuple[int, int]]:
    """Skewed lengths, as dialogues have them, at least (1, 2) and at most four times the means."""
    rng = np.random.default_rng(seed)
    contexts = np.clip(rng.gamma(2, context / 2, n), 1, 4 * context).astype(int)
    targets = np.clip(rng.gamma(2, target / 2, n), 2, 4 * target).astype(int)
    return [(int(c), int(t)) for c, t in zip(contexts, targets, strict=True)]
