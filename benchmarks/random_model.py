"""ChatGLM-6B's shape at any size, with random weights: what it writes is noise, how long it takes is not."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.lengths import Lengths
from models_runtime.engine.batch import Batch, Counts
from models_runtime.engine.chatglm.configuration import ChatGLMConfig
from models_runtime.engine.chatglm.modeling import ChatGLMForConditionalGeneration
from models_runtime.engine.memory import Limits
from models_runtime.engine.protocol import Work
from models_runtime.engine.rows import Row
from models_runtime.engine.sampling import noise_key
from models_runtime.engine.spec import PRESETS

DECODING = PRESETS["soulchat-paper"].decoding


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. The vocabulary ends with the special ids that a prompt needs."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int


TINY = Shape(2, 64, 4, 544)
SMALL = Shape(12, 768, 12, 20_000)  # 100 million parameters
FULL = Shape(28, 4096, 32, 130_528)  # ChatGLM-6B


def random_model(shape: Shape, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The model, its weights drawn on the device itself."""
    config = ChatGLMConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        inner_hidden_size=4 * shape.hidden,
        vocab_size=shape.vocabulary,
        bos_token_id=shape.vocabulary - 1,
        eos_token_id=shape.vocabulary - 2,
        mask_token_id=shape.vocabulary - 3,
        gmask_token_id=shape.vocabulary - 4,
        pad_token_id=3,
        max_sequence_length=2048,
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config).to(dtype)
    model = model.to_empty(device=device)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data.fill_(1.0 if "layernorm.weight" in name else 0.0)
        else:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5)
    model.tie_weights()
    return model.eval()


def n_parameters(model: Any) -> int:
    """Tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def prompts_of(lengths: list[Lengths], shape: Shape, *, seed: int) -> list[list[int]]:
    """Random tokens, then [gMASK] and <sop>."""
    rng = random.Random(seed)
    ends = [shape.vocabulary - 4, shape.vocabulary - 1]
    return [[rng.randrange(10, shape.vocabulary - 10) for _ in range(length.prompt - 2)] + ends for length in lengths]


class GivenLengths(Batch):
    """Rows end at the length that was drawn for them, since random weights know no ends."""

    def __init__(self, model: Any, lengths: list[Lengths], limits: Limits, counts: Counts) -> None:
        super().__init__(model, [], DECODING, limits, counts)
        self.lengths = lengths

    def _is_over(self, row: Row) -> bool:
        return len(row.tokens) >= self.lengths[int(row.work.item)].response


def run_batch(
    model: Any, prompts: list[list[int]], lengths: list[Lengths], limits: Limits, counts: Counts
) -> dict[int, list[int]]:
    """Tokens by item, as the engine makes them."""
    batch = GivenLengths(model, lengths, limits, counts)
    rows = [
        Row(Work(str(i), 0, ()), tuple(ids), 0, np.uint64(noise_key(1, str(i), 0))) for i, ids in enumerate(prompts)
    ]
    return {int(row.work.item): row.tokens for row in batch.run(rows)}
