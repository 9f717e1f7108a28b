from __future__ import annotations

import dataclasses

import pytest

from training.finetune.config import OPERATIONAL, SOULCHAT_PAPER, FinetuneConfig
from training.finetune.errors import BadConfig


@pytest.mark.parametrize("config", [FinetuneConfig(), SOULCHAT_PAPER, FinetuneConfig(method="lora", seed=7)])
def test_it_comes_back_from_json_and_from_toml(config, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert FinetuneConfig.from_json(config.to_json()) == config
    assert FinetuneConfig.from_toml(path) == config
    assert FinetuneConfig.from_toml(path).digest == config.digest


def test_a_preset_is_the_start_and_not_the_end():
    config = FinetuneConfig.from_json({"preset": "soulchat-paper", "precision": "bf16"})
    assert config == dataclasses.replace(SOULCHAT_PAPER, precision="bf16")


def test_the_papers_run_is_the_papers():  # arXiv 2311.00273, section 3.2
    paper = SOULCHAT_PAPER
    assert (paper.batch, paper.steps, paper.batch * paper.steps) == (80, 30_000, 2_400_000)
    assert (paper.warmup_steps, paper.learning_rate) == (1000, 5e-5)
    assert (paper.max_context_tokens, paper.max_target_tokens, paper.precision) == (1536, 512, "fp16")


def test_the_digest_follows_what_has_a_part_in_the_weights():
    config = FinetuneConfig()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        other = {
            "groups": 4, "first_steps": "deepspeed-0.9.3", "warmup": "log", "precision": "fp32", "method": "lora",
            "lora_targets": ("dense",), "beta1": 0.8, "beta2": 0.95, "max_context_tokens": 99, "max_target_tokens": 99,
        }.get(field.name, not value if isinstance(value, bool) else value * 2 or 1)  # fmt: skip
        changed = dataclasses.replace(config, **{field.name: other})
        assert (changed.digest == config.digest) == (field.name in OPERATIONAL), field.name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch": 80, "groups": 7}, "7 groups do not divide a batch of 80"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 10, "warmup_steps": 20}, "20 warm-up steps"),
        ({"row_tokens": 2047}, "raise row_tokens"),
        ({"precision": "fp8"}, "bf16 or fp16 or fp32"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "5e-5"}, "of type float"),
        ({"steps": True}, "of type int"),
        ({"beta2": 1.0}, "below 1"),
        ({"method": "lora", "lora_targets": []}, "lora_targets is empty"),
        ({"lora_targets": "dense"}, "a list of words"),
        ({"lora_targets": [1]}, "a list of words"),
        ({"epochs": 3}, "has no epochs"),
        ({"preset": "mechat"}, "there is soulchat-paper"),
    ],
)
def test_what_cannot_be_is_said(given, said):
    with pytest.raises(BadConfig, match=said):
        FinetuneConfig.from_json(given)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("steps = = 3")
    with pytest.raises(BadConfig, match=r"run\.toml cannot be read"):
        FinetuneConfig.from_toml(path)
    path.write_text("steps = -3")
    with pytest.raises(BadConfig, match=r"run\.toml: steps is -3"):
        FinetuneConfig.from_toml(path)
