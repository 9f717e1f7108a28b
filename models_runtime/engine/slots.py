"""Keys and values of the running batch: a slot for each row, in which every row writes at a place of its own.

Shapes: B = rows, W = width of the slots in tokens, N = heads of keys, H = channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from models_runtime.engine.errors import WrongArchitecture

WIDTH_STEP = 64  # slots grow by this many tokens


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer for all slots, (slots, N, W, H). Every row writes at a place of its own."""

    def __init__(self, keys_1NTH: Tensor, values_1NTH: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys = keys_1NTH.new_zeros((0, keys_1NTH.shape[1], 0, keys_1NTH.shape[3]))
        self.values = values_1NTH.new_zeros((0, values_1NTH.shape[1], 0, values_1NTH.shape[3]))
        self.is_initialized = True
        self.place_B: Tensor | None = None
        self.row_B: Tensor | None = None
        self.width = 0

    def reserve(self, slots: int, width: int) -> None:
        """Room for at least this much; what is new is zero, since what is hidden must still be a number."""
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros((slots, old.shape[1], width, old.shape[3]))
            n, w = min(slots, len(old)), min(width, old.shape[2])
            new[:n, :, :w] = old[:n, :, :w]
            setattr(self, name, new)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None  # noqa: S101
        self.keys[self.row_B, :, self.place_B] = key_states[:, :, 0]
        self.values[self.row_B, :, self.place_B] = value_states[:, :, 0]
        n = len(key_states)
        return self.keys[:n, :, : self.width], self.values[:n, :, : self.width]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """There is nothing left to do."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.width, 0

    def get_seq_length(self) -> int:
        return self.width - 1  # with the token that is being fed, the full width

    def get_max_length(self) -> int:
        return -1


class Slots:
    """Keys and values of the running batch."""

    def __init__(self, like: Any) -> None:
        layers = getattr(like, "layers", None) or [like]  # some models keep their past in a form of their own
        odd = {type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}
        if odd:
            raise WrongArchitecture(
                "This model does not attend to its whole past in every layer "
                f"({', '.join(sorted(odd))}), which is not supported here. Serve it behind an API instead."
            )
        self.layers: list[Any] = [_SlotLayer(layer.keys, layer.values) for layer in like.layers]
        self.n_slots = self.width = 0

    def reserve(self, slots: int, width: int) -> None:
        """Grow to at least this many slots of at least this width."""
        if slots > self.n_slots or width > self.width:
            slots, width = max(slots, self.n_slots), max(width, self.width)
            for layer in self.layers:  # one after the other: the old and the new are never both there in full
                layer.reserve(slots, width)
            self.n_slots, self.width = slots, width

    def shrunk(self, slots: int) -> Slots:
        for layer in self.layers:
            layer.reserve(slots, self.width)
        self.n_slots = slots
        return self

    def put(self, slot: int, cache: Any, n: int) -> None:
        """The n tokens of a single row into a slot."""
        for layer, source in zip(self.layers, cache.layers, strict=True):
            for mine, theirs in ((layer.keys, source.keys), (layer.values, source.values)):
                mine[slot, :, :n] = theirs[0]
                mine[slot, :, n:] = 0  # a row before may have left numbers that are none

    def move(self, source: int, target: int) -> None:
        for layer in self.layers:
            layer.keys[target] = layer.keys[source]
            layer.values[target] = layer.values[source]

    def at(self, place_B: Tensor, width: int) -> Cache:
        """The cache for a call that feeds one token to each of the first B slots, at these places."""
        row_B = torch.arange(len(place_B), device=place_B.device)
        for layer in self.layers:
            layer.place_B, layer.row_B, layer.width = place_B, row_B, width
        return Cache(layers=list(self.layers))


def rounded_up(tokens: int) -> int:
    return -(-tokens // WIDTH_STEP) * WIDTH_STEP
