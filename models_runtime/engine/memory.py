"""How much may run at once, and how to tell that it was too much."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
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
        free = free_bytes()
    tokens = int(MEMORY_SHARE * free / bytes_per_token(model))
    return Limits(DEFAULT_ROWS.get(device.type, DEFAULT_ROWS["cpu"]), max(tokens, 1))


def free_bytes(proc: Path = Path("/proc"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that this process can take: what caches hold counts, for they give way; a container's limit holds.

    Without that, a model read from disk a moment ago would seem to have filled the machine.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(proc / "meminfo"), re.MULTILINE)
    free = int(found[1]) * 1024 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
    if limit.isdigit() and used.isdigit():  # else it says "max", or there is no such group
        cached = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)))
        free = min(free, int(limit) - int(used) + cached)
    return max(free, 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def bytes_per_token(model: Any) -> int:
    """Memory for the keys and values of one token."""
    config = model.config.get_text_config()
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
