"""How much may run at once."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config

from models_runtime.engine.chatglm.configuration import ChatGLMConfig
from models_runtime.engine.memory import Limits, bytes_per_token, default_limits, free_bytes


def model_of(config, dtype=torch.float16):
    return type("M", (), {"config": config, "dtype": dtype, "device": torch.device("cpu")})()


def test_memory_is_counted_per_token():
    # ChatGLM-6B in float16: 28 layers of 32 heads of 128, keys and values: 458,752 bytes
    assert bytes_per_token(model_of(ChatGLMConfig())) == 458_752
    assert default_limits(model_of(ChatGLMConfig())).rows == 32
    grouped = Qwen2Config(num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, hidden_size=64)
    assert bytes_per_token(model_of(grouped, torch.float32)) == 2 * 3 * 2 * 8 * 4
    with pytest.raises(ValueError, match="at least 1"):
        Limits(rows=0, tokens=5)


def test_caches_give_way_and_a_containers_limit_holds(tmp_path):
    proc, group = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    group.mkdir()
    (proc / "meminfo").write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable:   3000 kB\n")
    assert free_bytes(proc, group) == 3000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("900000\n")
    assert free_bytes(proc, group) == 3000 * 1024
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 50000\nactive_file 7000\nfile 60000\n")
    assert free_bytes(proc, group) == 157_000
    (group / "memory.current").write_text("2000000\n")
    assert free_bytes(proc, group) == 0
    assert free_bytes(tmp_path / "none", tmp_path / "none") > 0
