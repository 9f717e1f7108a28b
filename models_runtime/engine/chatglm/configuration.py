"""ChatGLM-6B's config.json for transformers as it is now. ChatGLM2 and 3 share its model_type and are other models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from transformers import PreTrainedConfig

RotaryAngles = Literal["as_published", "float32", "float16"]


class ChatGLMConfig(PreTrainedConfig):
    """Sizes and special ids under the published key names; the defaults are the 6B model of the smaller vocabulary.

    deepnorm_layers: the layer count in the residual scale sqrt(2 n). The published code leaves it at 28 whatever the
        depth of the model, so it has a field of its own.
    rotary_angles: the precision of position angles. The frequencies are rounded to float16 in every published run.
        "as_published" also rounds the angles to float16 where the model runs in float16, as inference and fp16 training
        did (at position 2047 a cosine moves by up to 0.4), and keeps float32 elsewhere, as the float32 recipe did.
        "float32" and "float16" fix it whatever the model's dtype.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 130004
    eos_token_id: int | list[int] | None = 130005
    pad_token_id: int | None = 3
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    quantization_bit: int = 0
    deepnorm_layers: int = 28
    rotary_angles: RotaryAngles = "as_published"

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


# What the published class assumes where a config.json is silent: the first release's vocabulary of 150,528.
FIRST_RELEASE = {
    "vocab_size": 150528,
    "bos_token_id": 150004,
    "eos_token_id": 150005,
    "mask_token_id": 150000,
    "gmask_token_id": 150001,
    "pad_token_id": 0,
}


def published_config(config: Mapping[str, Any], **settings: Any) -> ChatGLMConfig:
    """The settings of a published config.json, with what it leaves unsaid; the dtype is the caller's matter."""
    said = {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype")}
    return ChatGLMConfig(**{**FIRST_RELEASE, **said, **settings})


def is_chatglm(config: Mapping[str, Any]) -> bool:
    """Whether a parsed config.json is ChatGLM-6B's, told by keys that no later ChatGLM has."""
    return config.get("model_type") == "chatglm" and "inner_hidden_size" in config


def is_chatglm2(config: Mapping[str, Any]) -> bool:
    """Whether a parsed config.json is ChatGLM2's; ChatGLM3 has the same keys and is told apart by its tokenizer."""
    return config.get("model_type") == "chatglm" and "padded_vocab_size" in config
