"""Samples of different lengths side by side in one row, without padding, each blind to the others.

The result is exact, up to rounding: every token sees what it would see alone. In ChatGLM-6B that is the whole context
for a token of the context, and context and earlier targets for a token of the target; in a causal model all earlier
tokens of its own sample. Two ordinary attention calls make the first out of stock kernels: contexts over themselves,
without a mask; targets over context and target, causal and aligned at the end.

Three kernels do it, chosen by `pick_kernel`, which tries a kernel against plain arithmetic before it trusts it:

    varlen      torch.nn.attention.varlen (CUDA, half precision): two calls for the whole row
    flex        FlexAttention with the mask as a function: one call, compiled on CUDA
    by_sample   two calls of scaled_dot_product_attention for each sample: anywhere

Shapes: T = tokens of the row, S = its samples, L = its labels, N = heads of queries, H = channels of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from models_runtime.engine.chatglm.configuration import ChatGLMConfig
from training.finetune.errors import BadModel
from training.finetune.planner import Row
from training.finetune.samples import Samples

Kernel = Callable[[Tensor, Tensor, Tensor, float, "Layout"], Tensor]
"""(query, key, value, scaling, layout) ► attended; all (1, N, T, H) after the heads of keys were repeated."""

PACKED = "packed"  # our name among transformers' attention implementations
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}
HALF_TOLERANCE = 3e-2


@dataclass(frozen=True)
class Layout:
    """Where each sample of a row lies.

    lengths: tokens of each sample.  prefixes: its first tokens that see one another in both directions; 0 in a causal
    model.
    """

    lengths: tuple[int, ...]
    prefixes: tuple[int, ...]
    device: torch.device
    kernel: Kernel

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def pairs(self) -> int:
        """(query, key) pairs that are seen: what attention costs."""
        both = zip(self.lengths, self.prefixes, strict=True)
        return sum(c * c + c * (n - c) + (n - c) * (n - c + 1) // 2 for n, c in both)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        return tuple(sum(self.lengths[:i]) for i in range(len(self.lengths)))

    @cached_property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Places of the prefixes' tokens, of all others, and the way back from one after the other to the row's order.

        Once for a row, for a GPU must be waited for to count them.
        """
        in_prefix_T = torch.arange(self.tokens, device=self.device) < self.prefix_end_T
        prefix, rest = in_prefix_T.nonzero()[:, 0], (~in_prefix_T).nonzero()[:, 0]
        return prefix, rest, torch.cat([prefix, rest]).argsort()

    @cached_property
    def sample_T(self) -> Tensor:
        """The number of each token's sample."""
        return torch.repeat_interleave(
            torch.arange(len(self.lengths), device=self.device), torch.tensor(self.lengths, device=self.device)
        )

    @cached_property
    def prefix_end_T(self) -> Tensor:
        """The place in the row where the prefix of each token's sample ends."""
        ends = [start + c for start, c in zip(self.starts, self.prefixes, strict=True)]
        return torch.tensor(ends, device=self.device)[self.sample_T]

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cumulative lengths of prefixes, of the rest, and of whole samples; each (S + 1,) of int32."""
        rest = [n - c for n, c in zip(self.lengths, self.prefixes, strict=True)]
        return cast(
            tuple[Tensor, Tensor, Tensor],
            tuple(
                F.pad(torch.tensor(part, device=self.device).cumsum(0), (1, 0)).int()
                for part in (self.prefixes, rest, self.lengths)
            ),
        )

    @cached_property
    def block_mask(self) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask  # it loads the compiler, which few runs need

        sample_T, end_T = self.sample_T, self.prefix_end_T

        def may_see(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (sample_T[q] == sample_T[k]) & ((k <= q) | (k < end_T[q]))

        return create_block_mask(may_see, None, None, self.tokens, self.tokens, device=str(self.device))


@dataclass(frozen=True)
class PackedRow:
    """A row ready for the model.

    input_ids: (1, T).  position_ids: (1, T), or (2, 1, T) for ChatGLM-6B.  label_places_L: where each label is
    predicted.  weights_L: of each label in the loss.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    label_places_L: Tensor
    labels_L: Tensor
    weights_L: Tensor


def pack_row(row: Row, samples: Samples, *, is_prefix_model: bool, device: torch.device, kernel: Kernel) -> PackedRow:
    """The samples of a planned row side by side."""
    ids: list[Tensor] = []
    places, blocks, labels, label_places, weights = [], [], [], [], []
    lengths, prefixes = [], []
    start = 0
    for number, weight in row:
        context, target = (torch.as_tensor(part, dtype=torch.long) for part in samples[number])
        c, t = len(context), len(target)
        ids += [context, target]
        if is_prefix_model:  # the first channel stays at the mask token, the context's last; the second counts on
            places.append(torch.cat([torch.arange(c), torch.full((t,), c - 1)]))
            blocks.append(torch.cat([torch.zeros(c, dtype=torch.long), torch.arange(1, t + 1)]))
        else:
            places.append(torch.arange(c + t))
        labels.append(target)
        label_places.append(torch.arange(start + c - 1, start + c + t - 1))
        weights.append(torch.full((t,), weight, dtype=torch.float32))
        lengths.append(c + t)
        prefixes.append(c if is_prefix_model else 0)
        start += c + t
    positions = torch.cat(places)[None]
    if is_prefix_model:
        positions = torch.stack([positions, torch.cat(blocks)[None]])

    def moved(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts)).to(device)

    return PackedRow(
        input_ids=moved(ids)[None],
        position_ids=positions.to(device),
        layout=Layout(tuple(lengths), tuple(prefixes), device, kernel),
        label_places_L=moved(label_places),
        labels_L=moved(labels),
        weights_L=moved(weights),
    )


def weighted_loss(model: nn.Module, row: PackedRow) -> Tensor:
    """The sum over labels of weight times cross-entropy in nats; logits are made only where a label is."""
    logits_LV = model(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        layout=row.layout,
        logits_to_keep=row.label_places_L,
        use_cache=False,
    ).logits[0]
    loss_L = F.cross_entropy(logits_LV.float(), row.labels_L, reduction="none")
    return (loss_L * row.weights_L).sum()


def is_prefix_model(model: nn.Module) -> bool:
    return isinstance(model.config, ChatGLMConfig)


def use_packed_attention(model: Any) -> None:
    """From now on the model attends within samples, and every call needs a layout.

    Raises BadModel if its attention cannot be exchanged.
    """
    AttentionInterface.register(PACKED, packed_attention)
    if not getattr(model, "_supports_attention_backend", False):
        raise BadModel(f"{type(model).__name__} has an attention of its own, so its samples cannot share a row")
    model.set_attn_implementation(PACKED)


def packed_attention(
    module: nn.Module,
    query_BNTH: Tensor,
    key_BNTH: Tensor,
    value_BNTH: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in the place of its own attention; returns (1, T, N, H)."""
    if layout is None or attention_mask is not None or query_BNTH.shape[2] != layout.tokens:
        raise BadModel(f"{type(module).__name__} does not hand on how its row is packed")
    if kwargs.get("sliding_window") is not None and kwargs["sliding_window"] < max(layout.lengths):
        raise BadModel(f"{type(module).__name__} sees {kwargs['sliding_window']} tokens back, and samples are longer")
    repeats = query_BNTH.shape[1] // key_BNTH.shape[1]
    if repeats > 1:
        key_BNTH, value_BNTH = (part.repeat_interleave(repeats, dim=1) for part in (key_BNTH, value_BNTH))
    scale = query_BNTH.shape[-1] ** -0.5 if scaling is None else scaling
    attended_BNTH = layout.kernel(query_BNTH, key_BNTH, value_BNTH, scale, layout)
    return attended_BNTH.transpose(1, 2), None


def by_sample(query: Tensor, key: Tensor, value: Tensor, scaling: float, layout: Layout) -> Tensor:
    """Two calls for each sample; no pair is computed that is not seen but in the corner above the targets."""
    parts = []
    for start, n, c in zip(layout.starts, layout.lengths, layout.prefixes, strict=True):
        q, k, v = (part[:, :, start : start + n] for part in (query, key, value))
        if c:
            parts.append(F.scaled_dot_product_attention(q[:, :, :c], k[:, :, :c], v[:, :, :c], scale=scaling))
            seen = torch.ones(n - c, n, dtype=torch.bool, device=q.device).tril(c)  # aligned at the end
            parts.append(F.scaled_dot_product_attention(q[:, :, c:], k, v, attn_mask=seen, scale=scaling))
        else:
            parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling))
    return torch.cat(parts, dim=2)


def varlen(query: Tensor, key: Tensor, value: Tensor, scaling: float, layout: Layout) -> Tensor:
    """Two calls for the whole row, of torch's kernel for sequences of different length."""
    attend, causal, scale = _varlen_of_torch()
    scaled = {scale: scaling} if scale else {}
    q_TNH, k_TNH, v_TNH = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    prefix_bounds, rest_bounds, bounds = layout.bounds
    longest = max(layout.lengths)
    if not any(layout.prefixes):
        whole_TNH = attend(q_TNH, k_TNH, v_TNH, bounds, bounds, longest, longest, **causal, **scaled)
        return whole_TNH.transpose(0, 1)[None]
    prefix, rest, back = layout.places
    longest_prefix = max(layout.prefixes)
    longest_rest = max(n - c for n, c in zip(layout.lengths, layout.prefixes, strict=True))
    q, k, v = (part.index_select(0, prefix) for part in (q_TNH, k_TNH, v_TNH))
    of_prefix = attend(q, k, v, prefix_bounds, prefix_bounds, longest_prefix, longest_prefix, **scaled)
    q = q_TNH.index_select(0, rest)
    of_rest = attend(q, k_TNH, v_TNH, rest_bounds, bounds, longest_rest, longest, **causal, **scaled)
    return torch.cat([of_prefix, of_rest]).index_select(0, back).transpose(0, 1)[None]


@lru_cache(maxsize=1)
def _varlen_of_torch() -> tuple[Callable[..., Tensor], dict[str, Any], str | None]:
    """The function, how it is told to be causal, and the name of its scale if it takes one: releases differ."""
    from torch.nn.attention.varlen import varlen_attn  # absent before torch 2.10

    names = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in names else {"is_causal": True}
    return cast(Callable[..., Tensor], varlen_attn), causal, "scale" if "scale" in names else None


def flex(query: Tensor, key: Tensor, value: Tensor, scaling: float, layout: Layout) -> Tensor:
    """One call of FlexAttention."""
    attended = _flex_of_torch(query.device.type)(query, key, value, block_mask=layout.block_mask, scale=scaling)
    return cast(Tensor, attended)


@lru_cache(maxsize=2)
def _flex_of_torch(device_type: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    plain = cast(Callable[..., Any], flex_attention)
    # Uncompiled it makes all scores of a row at once, which is fine for a test and for nothing else.
    return torch.compile(plain, dynamic=True) if device_type == "cuda" else plain


def pick_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[str, Kernel, tuple[str, ...]]:
    """Name, kernel, and why the faster ones were passed over."""
    if device.type != "cuda":
        return "by_sample", by_sample, ()
    notes = []
    for name, kernel in (("varlen", varlen), ("flex", flex)):
        try:
            difference = difference_from_plain(kernel, device, dtype, head_dim)
        except Exception as error:  # a release without it, a device it was not built for, a compiler that fails
            notes.append(f"{name} attention cannot run here: {type(error).__name__}: {str(error)[:200]}")
            continue
        if difference <= TOLERANCES.get(dtype, HALF_TOLERANCE):
            return name, kernel, tuple(notes)
        notes.append(f"{name} attention is off by {difference:.2g} and is not used")
    return "by_sample", by_sample, tuple(notes)


def difference_from_plain(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int) -> float:
    """The largest difference of a kernel's results and gradients from a dense mask in plain arithmetic.

    Relative to the largest number of each; over prefixes and targets of one token and of many, and a causal row.
    """
    worst = 0.0
    for lengths, prefixes in (((9, 2, 140, 3), (5, 1, 71, 1)), ((9, 1, 140), (0, 0, 0))):
        layout = Layout(lengths, prefixes, device, kernel)
        generator = torch.Generator().manual_seed(0)
        shape = (1, 2, layout.tokens, head_dim)
        parts = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(4)]
        query, key, value, weights = parts
        found = kernel(query, key, value, head_dim**-0.5, layout)
        grads = torch.autograd.grad((found * weights.detach()).sum(), (query, key, value))
        exact = [part.detach().double().cpu().requires_grad_() for part in parts[:3]]
        expected = _plain(exact, head_dim**-0.5, Layout(lengths, prefixes, torch.device("cpu"), kernel))
        expected_grads = torch.autograd.grad((expected * weights.detach().double().cpu()).sum(), exact)
        for one, other in zip((found, *grads), (expected, *expected_grads), strict=True):
            off = (one.detach().double().cpu() - other.detach()).abs().max() / other.detach().abs().max()
            worst = max(worst, off.item())
    return worst


def _plain(parts: Sequence[Tensor], scaling: float, layout: Layout) -> Tensor:
    query, key, value = parts
    place = torch.arange(layout.tokens)
    same = layout.sample_T[:, None] == layout.sample_T
    seen = same & ((place <= place[:, None]) | (place < layout.prefix_end_T[:, None]))
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ value
