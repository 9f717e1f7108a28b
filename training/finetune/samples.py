"""What training asks of a prepared corpus, and the checks before the first step. No torch in here.

A sample is two runs of token ids. The target is all that has a label, in order: for ChatGLM-6B `<sop>`, the response
and `<eop>`; for a causal chat model the response and its end token. The context is everything before it: for ChatGLM-6B
up to and with `[gMASK]`. Each token of the target is predicted from its predecessor.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadData

Ints = npt.NDArray[np.integer[Any]]


@runtime_checkable
class Samples(Protocol):
    """Tokenised samples at hand by number.

    content_hash: changes if any id of any sample does, or their order.
    lengths: tokens of each context and of each target, two arrays of shape (n,).
    """

    @property
    def content_hash(self) -> str: ...
    def __len__(self) -> int: ...
    def lengths(self) -> tuple[Ints, Ints]: ...
    def __getitem__(self, index: int) -> tuple[Ints, Ints]: ...


def check_samples(samples: Samples, config: FinetuneConfig, what: str) -> None:
    """Raises BadData if there are none, or some have no context, no target or too many tokens.

    what: the name of these samples in the message.
    """
    if not len(samples):
        raise BadData(f"{what} holds no samples; prepare the corpus again")
    context, target = (np.asarray(part) for part in samples.lengths())
    for wrong, said in (
        (context < 1, "no context"),
        (target < 1, "an empty target"),
        (context > config.max_context_tokens, f"a context of more than {config.max_context_tokens} tokens"),
        (target > config.max_target_tokens, f"a target of more than {config.max_target_tokens} tokens"),
    ):
        if n := int(wrong.sum()):
            first = int(wrong.argmax())
            lengths = f"{int(context[first])} and {int(target[first])} tokens"
            raise BadData(
                f"{what}: {n} of {len(samples)} samples have {said}, the first is number {first} ({lengths}); "
                "prepare the corpus again with these limits, or change the limits"
            )
