"""ChatGLM2-6B on transformers' Glm: the same network, so a published checkpoint only needs its names changed.

Glm keeps query, key and value as three layers where the checkpoint has one; everything else is a renaming. The two
differ in float16 on long prompts, where the published code rounds position angles to float16 and Glm does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GlmConfig

from models_runtime.engine.chatglm.tokenization import load_sentencepiece

ROTARY_BASE = 10000.0
IGNORED = "transformer.rotary_pos_emb.inv_freq"
LAYER = re.compile(r"^transformer\.encoder\.layers\.(\d+)\.(.+)$")
# Module of the checkpoint ► modules of Glm; three of them share the rows of the fused one.
IN_LAYER = {
    "input_layernorm": ("input_layernorm",),
    "self_attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention.dense": ("self_attn.o_proj",),
    "post_attention_layernorm": ("post_attention_layernorm",),
    "mlp.dense_h_to_4h": ("mlp.gate_up_proj",),
    "mlp.dense_4h_to_h": ("mlp.down_proj",),
}
OUTSIDE = {
    "transformer.embedding.word_embeddings": ("model.embed_tokens",),
    "transformer.encoder.final_layernorm": ("model.norm",),
    "transformer.output_layer": ("lm_head",),
}
LORA = re.compile(r"^(.+)\.(lora_[AB])\.weight$")
# What Glm does and the checkpoint's switches could contradict: another value is another network.
ASSUMED = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "add_bias_linear": False,
    "multi_query_attention": True,
    "original_rope": True,
}


def glm_config(config: Mapping[str, Any]) -> GlmConfig:
    """Glm's settings for a parsed ChatGLM2 config.json.

    Raises ValueError if a switch asks for a network that Glm is not.
    """
    for key, expected in ASSUMED.items():
        if config.get(key, expected) != expected:
            raise ValueError(f"{key} is {config[key]}, and only {expected} is supported")
    head_dim = config["kv_channels"]
    return GlmConfig(
        vocab_size=config["padded_vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["ffn_hidden_size"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=config["num_attention_heads"],
        num_key_value_heads=config["multi_query_group_num"],
        head_dim=head_dim,
        max_position_embeddings=config["seq_length"],
        rms_norm_eps=config["layernorm_epsilon"],
        attention_bias=config.get("add_qkv_bias", False),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": ROTARY_BASE * config.get("rope_ratio", 1),
            "partial_rotary_factor": 0.5,
        },
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        pad_token_id=config.get("pad_token_id", 0),
        eos_token_id=config.get("eos_token_id", 2),
        bos_token_id=None,
    )


def renamed_module(module: str) -> tuple[str, ...]:
    """Glm's name for a module of ChatGLM2, or its three names for the fused one. Raises KeyError if there is none."""
    if module in OUTSIDE:
        return OUTSIDE[module]
    if not (match := LAYER.match(module)):
        raise KeyError(module)
    number, within = match.groups()
    return tuple(f"model.layers.{number}.{new}" for new in IN_LAYER[within])


def renamed(name: str, tensor: Tensor, config: GlmConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensor under Glm's name, or its three parts, or nothing for a table that nobody reads.

    Raises KeyError for a name that ChatGLM2 does not have.
    """
    if name == IGNORED:
        return
    module, _, kind = name.rpartition(".")
    names = renamed_module(module)
    for new, part in zip(names, _parts(tensor, len(names), config), strict=True):
        yield f"{new}.{kind}", part


def renamed_lora(name: str, tensor: Tensor, config: GlmConfig) -> Iterator[tuple[str, Tensor]]:
    """A tensor of an adapter made for the published modules, for Glm's. The result is the same network.

    The change to the fused layer is B @ A; its rows are split with B, and each part keeps the whole of A.
    Raises KeyError for a module that ChatGLM2 does not have.
    """
    prefix = "base_model.model."
    if not (match := LORA.match(name.removeprefix(prefix))):
        raise KeyError(name)
    module, side = match.groups()
    names = renamed_module(module)
    parts = [tensor] * len(names) if side == "lora_A" else _parts(tensor, len(names), config)
    for new, part in zip(names, parts, strict=True):
        yield f"{prefix}{new}.{side}.weight", part


def renamed_targets(modules: Iterable[str]) -> list[str]:
    """An adapter's target modules, by last name, in Glm. Raises KeyError for one that ChatGLM2 does not have."""
    by_last_name = {old.rpartition(".")[2]: new for old, new in IN_LAYER.items()}
    return sorted({new.rpartition(".")[2] for module in modules for new in by_last_name[module.rpartition(".")[2]]})


def _parts(tensor: Tensor, n_parts: int, config: GlmConfig) -> Sequence[Tensor]:
    """The rows of each part; the fused layer holds query, key and value one after the other."""
    if n_parts == 1:
        return [tensor]
    head_dim, keys = int(config.head_dim or 0), int(config.num_key_value_heads or 0)
    return torch.split(tensor, [config.num_attention_heads * head_dim, keys * head_dim, keys * head_dim])


class ChatGLM2Tokenizer:
    """Text to ids and back. Prompts are padded on the left and open with their special tokens, `[gMASK] sop`."""

    padding_side = "left"
    # Not in the file: numbered from its end, in this order.
    APPENDED = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")

    def __init__(self, model_file: Path) -> None:
        self.model_file = model_file
        self._sp = load_sentencepiece(model_file)
        n_pieces = int(self._sp.get_piece_size())
        appended = {piece: n_pieces + i for i, piece in enumerate(self.APPENDED)}
        self.mask_token_id, self.gmask_token_id = appended["[MASK]"], appended["[gMASK]"]
        self.bos_token_id = appended["sop"]  # where writing begins; the file's own <s> is never fed
        self.eos_token_id = int(self._sp.eos_id())
        self.pad_token_id = int(self._sp.unk_id())
        self.vocab_size = n_pieces + len(appended)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """`[gMASK] sop`, then the ids of the text."""
        ids = [int(i) for i in self._sp.encode(text)]
        return self.prompt(ids) if add_special_tokens else ids

    def prompt(self, context: Sequence[int], target: Sequence[int] | None = None) -> list[int]:
        """Ids the model is fed: special tokens, the context and, for training, the target with its end."""
        ids = [self.gmask_token_id, self.bos_token_id, *context]
        return ids if target is None else [*ids, *target, self.eos_token_id]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Text of the ids; special tokens and the model's unused rows have none."""
        n_pieces = self._sp.get_piece_size()
        return str(self._sp.decode([int(i) for i in ids if 0 < i < n_pieces]))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces of the ids, for a person to look at."""
        n_pieces = self._sp.get_piece_size()
        return [self._sp.id_to_piece(i) if i < n_pieces else self.APPENDED[i - n_pieces] for i in ids]


def finish_text(text: str) -> str:
    """The text as the published chat function shows it; full-width punctuation never left it."""
    return text.strip().replace("[[训练时间]]", "2023年")
