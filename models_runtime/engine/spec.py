"""SystemSpec and DecodingConfig: frozen values that fix what a system answers, and the digest that names them.

A response is fixed by (spec, item, repeat, seed). Whatever cannot change a response (batch sizes, the machine) is no
part of the spec; it is written down beside the response instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

VERSION = 1  # of the digest: raised when the same fields come to mean another response

DType = Literal["float32", "float16", "bfloat16"]
Family = Literal["chatglm", "chatglm2", "causal"]

# Any of these holds the words of a tokenizer; without one, transformers would make an empty one up.
VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)

# What a tokenizer, its special tokens and its chat template are read from.
TOKENIZER_FILES: Mapping[Family, Sequence[str]] = {
    "chatglm": ("ice_text.model",),
    "chatglm2": ("tokenizer.model",),
    "causal": (
        *VOCABULARY_FILES,
        "merges.txt",
        "added_tokens.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "chat_template.json",
        "chat_template.jinja",
        "generation_config.json",
    ),
}


class BadSpec(ValueError):
    """A value is missing, unknown or out of range; the message names it."""


def digest_of(data: Any) -> str:
    """SHA-256 in hex of a JSON value; the order of names in objects has no part in it."""
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_type(value: Any, wanted: type, name: str) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise BadSpec(f"{name} is {value!r}; it must be of type {wanted.__name__}")


def _fields(cls: type, data: Any) -> dict[str, Any]:
    """The JSON object as arguments of a dataclass; raises BadSpec where a name is missing or unknown."""
    if not isinstance(data, dict):
        raise BadSpec(f"{cls.__name__} must be a JSON object")
    known = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - set(known)):
        raise BadSpec(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}")
    needed = [n for n, field in known.items() if field.default is dataclasses.MISSING and n not in data]
    if needed:
        raise BadSpec(f"{cls.__name__} lacks {', '.join(needed)}")
    return dict(data)


@dataclass(frozen=True)
class DecodingConfig:
    """How tokens are chosen. In this order: temperature, then the top_k best, then the fewest that make up top_p.

    temperature: above 0; 1 leaves the logits alone.  top_p: in (0, 1]; 1 keeps all.  top_k: 0 keeps all.
    max_input_tokens: of the prompt, special tokens included; a longer dialogue loses its oldest turns.
    max_new_tokens: of the response, the end token included.
    Without `is_sampled` the best token is taken and the other three have no effect: they stand at 1, 1 and 0.
    """

    is_sampled: bool
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_input_tokens: int = 1536
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        _check_type(self.is_sampled, bool, "is_sampled")
        for name in ("temperature", "top_p"):
            if isinstance(getattr(self, name), int) and not isinstance(getattr(self, name), bool):
                object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one config, one digest
            _check_type(getattr(self, name), float, name)
        for name, least in (("top_k", 0), ("max_input_tokens", 8), ("max_new_tokens", 1)):
            _check_type(getattr(self, name), int, name)
            if getattr(self, name) < least:
                raise BadSpec(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BadSpec(f"temperature is {self.temperature}; it must be above 0 (use the preset greedy for none)")
        if not 0 < self.top_p <= 1:
            raise BadSpec(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not self.is_sampled and (self.temperature, self.top_p, self.top_k) != (1.0, 1.0, 0):
            raise BadSpec(
                "temperature, top_p and top_k have no effect unless is_sampled is true: leave them at 1, 1, 0"
            )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises BadSpec if a field is missing, unknown or out of range."""
        return cls(**_fields(cls, data))


@dataclass(frozen=True)
class Preset:
    """A decoding with a name. `implicit`: fields its source does not state, taken from the library of its day."""

    name: str
    decoding: DecodingConfig
    source: str
    implicit: tuple[str, ...] = ()


# Section 3.2 and appendix A of the paper give p, T and both lengths. top_k is not stated; the published call leaves it
# to transformers 4.28, whose GenerationConfig says 50 whenever it samples.
PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "soulchat-paper",
            DecodingConfig(is_sampled=True, temperature=0.95, top_p=0.75, top_k=50),
            source="Chen et al. (2023), arXiv:2311.00273",
            implicit=("top_k",),
        ),
        Preset("greedy", DecodingConfig(is_sampled=False), source="the most probable token at every step"),
    )
}


@dataclass(frozen=True)
class SystemSpec:
    """Everything that fixes a local system's answers but the seed.

    family: how the model is called and prompted, e.g. "chatglm".  weights_digest, adapter_digest: SHA-256 in hex; the
    adapter's is None where there is none.  template_version: digest of the template's own text.
    dtype: the arithmetic; half precision rounds differently and so answers differently.
    """

    family: str
    weights_digest: str
    adapter_digest: str | None
    template_id: str
    template_version: str
    decoding: DecodingConfig
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        for name in ("family", "weights_digest", "template_id", "template_version"):
            _check_type(getattr(self, name), str, name)
            if not getattr(self, name):
                raise BadSpec(f"{name} is empty")
        if self.adapter_digest is not None:
            _check_type(self.adapter_digest, str, "adapter_digest")
        _check_type(self.decoding, DecodingConfig, "decoding")
        if self.dtype not in get_args(DType):
            raise BadSpec(f"dtype is {self.dtype!r}; it can be {', '.join(get_args(DType))}")

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the canonical JSON: equal specs have equal digests, on every machine."""
        return digest_of({"spec": VERSION, **self.to_json()})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises BadSpec if a field is missing, unknown or out of range."""
        fields = _fields(cls, data)
        return cls(**{**fields, "decoding": DecodingConfig.from_json(fields.get("decoding"))})
