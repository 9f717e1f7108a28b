"""What makes float32 quick on a processor: weights laid out for the product, and attention that looks at nothing else.

torch multiplies plain weights by a library that is slow for the few rows of a batch; oneDNN is not, and is asked where
the weights lie in its own order. And the rows of a batch differ in length: attention over a padded cache reads places
that no row looks at. Where that takes longer than calls do, each row gets a call of its own.

Shapes: B = rows, N = heads, H = channels of a head, W = width of the cache in tokens, K = heads of keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

BY_ROW = "by_row"
HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
SMALL_WEIGHT = 2**17  # numbers; below, a product is over before oneDNN has begun
CALL_BYTES = 2**18  # read from memory in about the time that one more call of attention takes


class PackedLinear(nn.Module):
    """A linear layer that holds its weight in oneDNN's order only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, states: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(states, self.packed, self.bias, "none", [], ""))


def pack_linears(model: nn.Module) -> int:
    """Lay out the weights of all large linear layers for inference, in place; returns how many there were.

    Does nothing unless the model is float32 on a processor for which torch has oneDNN. The plain weights go, except
    those that an embedding holds too. Logits differ from those before in their last bits.
    """
    n_packed = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.numel() >= SMALL_WEIGHT and _can_be_packed(child.weight):
                setattr(module, name, PackedLinear(child))
                n_packed += 1
    return n_packed


def _can_be_packed(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and HAS_ONEDNN


def attends_by_row(model: Any) -> bool:
    """Whether `by_row` may stand in for the model's own attention."""
    return bool(
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and model.config._attn_implementation == "sdpa"
        and model._supports_attention_backend  # hands down what attention is told, and asks for it by its name
    )


@contextmanager
def by_row(model: Any, lengths: Sequence[int], idle_bytes: int) -> Iterator[dict[str, Any]]:
    """What to tell the model in a call that feeds one token to each row; nothing where its own attention serves.

    lengths: places of the cache that each row may see.  idle_bytes: of the places of one layer that no row may see.
    """
    if idle_bytes < CALL_BYTES * len(lengths) or not attends_by_row(model):
        yield {}
        return
    before = model.config._attn_implementation
    model.config._attn_implementation = BY_ROW
    try:
        yield {"row_lengths": lengths}
    finally:
        model.config._attn_implementation = before


def _attend_by_row(
    module: nn.Module,
    query_BN1H: Tensor,
    key_BKWH: Tensor,
    value_BKWH: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: Sequence[int],
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of the newest token of each row, (B, 1, N, H). The mask says what the lengths say."""
    rows, heads, _, size = query_BN1H.shape
    grouped = query_BN1H.view(rows, key_BKWH.shape[1], -1, size)  # heads that share their keys ask together
    each = (torch.split(states, 1) for states in (grouped, key_BKWH, value_BKWH))
    attended = [
        F.scaled_dot_product_attention(query, key.narrow(2, 0, n), value.narrow(2, 0, n), scale=scaling)
        for query, key, value, n in zip(*each, row_lengths, strict=True)
    ]
    return torch.cat(attended).view(rows, 1, heads, -1), None


AttentionInterface.register(BY_ROW, _attend_by_row)
