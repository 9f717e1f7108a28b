"""How much may run at once, and how to tell that it was too much."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

MEMORY_SHARE = 0.8  # of what is free on the device, for keys and values
DEFAULT_ROWS = {"cpu": 32, "cuda": 128}
MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)  # among which the last may be something else


@dataclass(frozen=True)
class Limits:
    """How much may run at once.  rows: responses;  tokens: of all rows together, prompts included, idle places too."""

    rows: int
    tokens: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.tokens < 1:
            raise ValueError(f"rows and tokens must be at least 1, not {self.rows} and {self.tokens}")


def default_limits(model: Any) -> Limits:
    """As many rows as usually pay on the model's device, and the tokens that free memory holds."""
    device = model.device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    tokens = int(MEMORY_SHARE * free / bytes_per_token(model))
    return Limits(DEFAULT_ROWS.get(device.type, DEFAULT_ROWS["cpu"]), max(tokens, 1))


def bytes_per_token(model: Any) -> int:
    """Memory for the keys and values of one token."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch on a CPU says so by a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def really_memory(error: BaseException) -> BaseException:
    """The error if memory ran out; any other is raised again."""
    if is_out_of_memory(error):
        return error
    raise error
