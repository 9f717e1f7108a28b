"""FinetuneConfig: the values that fix a training run, saved beside the weights. No torch in here.

TOML for people, JSON for machines; both give back the same config. The digest covers what has a part in the weights
that come out, and leaves out how often they are saved and looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from training.finetune.errors import BadConfig

Method = Literal["full", "lora"]
Precision = Literal["bf16", "fp16", "fp32"]
WarmUp = Literal["log", "linear"]
FirstSteps = Literal["deepspeed-0.9.3", "from_zero"]

# Fields that can change between stop and resume, for the weights do not depend on them.
OPERATIONAL = frozenset(
    {"checkpoint_every", "keep_checkpoints", "evaluate_every", "n_evaluated", "n_generated", "tensorboard"}
)


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything but model, corpus and machine.

    batch: samples of a step over all devices.
    groups: into how many virtual micro-batches the loss divides a step: the mean within each, then the mean of those.
        1 = the mean over all label tokens; `batch` = the mean over samples. The weights that come out of a step do not
        depend on how many devices took it.
    max_context_tokens, max_target_tokens: what a sample may have; a longer one is refused, not cut.
    first_steps: how the schedule begins; see schedule.WarmupDecay.
    row_tokens: the most that one packed row holds; more is faster until memory ends.
    recompute: activations are computed again on the way back instead of kept; slower by about a third.
    lora_targets: last names of the modules that get an adapter.
    clip_norm: gradients are scaled down to this norm; 0 = they are not.
    evaluate_every, checkpoint_every: in steps; 0 = only at the end.
    n_evaluated: held-out samples for the loss.  n_generated: of those, answered at the end for BLEU and ROUGE.
    """

    steps: int = 1000
    batch: int = 80
    groups: int = 8
    seed: int = 0
    max_context_tokens: int = 1536
    max_target_tokens: int = 512
    learning_rate: float = 5e-5
    warmup_steps: int = 100
    warmup: WarmUp = "linear"
    first_steps: FirstSteps = "from_zero"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Precision = "bf16"
    method: Method = "full"
    lora_rank: int = 8
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = ("query_key_value",)
    row_tokens: int = 4096
    recompute: bool = False
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    evaluate_every: int = 500
    n_evaluated: int = 500
    n_generated: int = 100
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.lora_targets, list):
            object.__setattr__(self, "lora_targets", tuple(self.lora_targets))
        for field in dataclasses.fields(self):
            self._check_type(field.name, getattr(self, field.name), type(field.default))
        for name, kinds in (("method", Method), ("precision", Precision), ("warmup", WarmUp)):
            self._check_choice(name, get_args(kinds))
        self._check_choice("first_steps", get_args(FirstSteps))
        positive = ("steps", "batch", "groups", "max_context_tokens", "max_target_tokens", "row_tokens", "lora_rank")
        for name in (*positive, "lora_alpha", "keep_checkpoints", "learning_rate", "epsilon"):
            if getattr(self, name) <= 0:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("seed", "warmup_steps", "weight_decay", "clip_norm", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) < 0:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must not be below 0")
        for name in ("n_evaluated", "n_generated"):
            if getattr(self, name) < 0:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must not be below 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if self.seed >= 2**31:
            raise BadConfig(f"seed is {self.seed}; it must be below 2**31")
        if self.batch % self.groups:
            raise BadConfig(f"{self.groups} groups do not divide a batch of {self.batch}; choose a divisor")
        if self.warmup_steps > self.steps:
            raise BadConfig(f"{self.warmup_steps} warm-up steps are more than the {self.steps} steps of the run")
        if self.row_tokens < self.max_context_tokens + self.max_target_tokens:
            raise BadConfig(
                f"a row of {self.row_tokens} tokens cannot hold the longest sample of {self.max_context_tokens} + "
                f"{self.max_target_tokens}; raise row_tokens"
            )
        if self.method == "lora" and not self.lora_targets:
            raise BadConfig("lora_targets is empty; name at least one module, such as query_key_value")

    def _check_type(self, name: str, value: Any, expected: type) -> None:
        if expected is tuple:
            is_right = isinstance(value, tuple) and all(isinstance(part, str) and part for part in value)
        elif expected is float:
            is_right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if is_right:
                object.__setattr__(self, name, float(value))
        else:
            is_right = type(value) is expected
        if not is_right:
            wanted = "a list of words" if expected is tuple else f"of type {expected.__name__}"
            raise BadConfig(f"{name} is {value!r}; it must be {wanted}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise BadConfig(f"{name} is {getattr(self, name)!r}; it can be {' or '.join(choices)}")

    @property
    def digest(self) -> str:
        """SHA-256 over all that has a part in the weights, as 64 hexadecimal characters."""
        fixed = {name: value for name, value in self.to_json().items() if name not in OPERATIONAL}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "lora_targets": list(self.lora_targets)}

    def to_toml(self) -> str:
        """A file that `from_toml` reads; JSON's scalars and lists of words are TOML's as well."""
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.to_json().items())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The config of these values; "preset" names one to start from. Raises BadConfig."""
        given = dict(data)
        preset = given.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise BadConfig(f"there is no preset {preset!r}; there is {', '.join(PRESETS)}")
        if unknown := sorted(set(given) - {field.name for field in dataclasses.fields(cls)}):
            raise BadConfig(f"a training config has no {', '.join(unknown)}")
        start = PRESETS[preset].to_json() if preset is not None else {}
        try:
            return cls(**{**start, **given})
        except TypeError as error:
            raise BadConfig(f"the training config cannot be used: {error}") from error

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Raises BadConfig, with the file's name."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadConfig(f"{path} cannot be read: {error}") from error
        try:
            return cls.from_json(data)
        except BadConfig as error:
            raise BadConfig(f"{path}: {error}") from error


# arXiv 2311.00273, section 3.2 and appendix: batch 80, 30,000 steps, WarmupDecayLR 1000 / 5e-5, 1536 / 512, fp16 on
# eight devices, DeepSpeed 0.9.3, which warms up logarithmically unless told otherwise. Not published, and so what the
# software of that time does by default: betas, epsilon, weight decay (its AdamW), clipping (its Trainer).
SOULCHAT_PAPER = FinetuneConfig(
    steps=30_000,
    batch=80,
    groups=8,
    max_context_tokens=1536,
    max_target_tokens=512,
    learning_rate=5e-5,
    warmup_steps=1000,
    warmup="log",
    first_steps="deepspeed-0.9.3",
    precision="fp16",
)
PRESETS: Mapping[str, FinetuneConfig] = {"soulchat-paper": SOULCHAT_PAPER}
