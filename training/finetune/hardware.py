"""What a device can do and what a model costs: the numbers behind MFU and the estimate of a run. No torch in here.

FLOPs of a training step count what the samples need and nothing else, neither padding nor activations computed twice:
6 per weight of a block and token, 6 per weight of the output layer and label, 12 x layers x width per (query, key) pair
that is seen; with adapters 4, 4 and the adapters' own 6, for frozen weights have no gradient of their own.
MFU = those FLOPs / seconds / devices / peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.finetune.config import Method
from training.finetune.errors import BadModel
from training.finetune.samples import Ints

# Numbers of a token that a block keeps, in hidden sizes and in sizes of the feed-forward's inside. Counted by
# torch.autograd.graph.saved_tensors_hooks with `by_sample` attention (11.25 + 2 x inner; 11 to 13 + 4 x inner, gated),
# plus the four copies that `varlen` makes.
KEPT_BY_ATTENTION, KEPT_BY_FEED_FORWARD, KEPT_BY_GATED = 15, 2, 4

MFU_FORMULA = "FLOPs the samples need / (seconds x devices x peak), without padding and recomputation"

# Dense peak of bfloat16 and float16 on tensor cores, TFLOP/s, from the makers' data sheets; the figures with sparsity
# are twice as high and nobody reaches them in training. First match counts. A device that is not listed has no MFU.
PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H200", 989.0),
    ("H100", 989.0),
    ("H800", 989.0),
    ("H20", 148.0),
    ("A800", 312.0),
    ("A100", 312.0),
)


def peak_tflops(device_name: str) -> float | None:
    """Dense half-precision peak of a device by the name it gives itself; None if it is not known."""
    return next((peak for part, peak in PEAK_TFLOPS if part in device_name), None)


def seen_pairs(context: Ints, target: Ints, *, is_prefix_model: bool) -> int:
    """(query, key) pairs that attention computes for samples of these lengths."""
    context, target = context.astype(np.int64), target.astype(np.int64)
    if is_prefix_model:
        return int((context * (context + target) + target * (target + 1) // 2).sum())
    tokens = context + target
    return int((tokens * (tokens + 1) // 2).sum())


@dataclass(frozen=True)
class ModelShape:
    """The sizes that cost depends on.

    block_weights: in matrices of the blocks, adapters left out.  head_weights: of the output layer.
    adapter_weights: in LoRA matrices.  parameters: all there are, each once.  width: heads times channels of a head.
    kept: numbers of a token and layer that the way back needs.
    """

    layers: int
    hidden: int
    width: int
    vocabulary: int
    block_weights: int
    head_weights: int
    parameters: int
    kept: int
    adapter_weights: int = 0

    def flops(self, *, tokens: float, labels: float, pairs: float, method: Method) -> float:
        """Of forward and backward."""
        per_weight = 6 if method == "full" else 4
        matrices = per_weight * (self.block_weights * tokens + self.head_weights * labels)
        return matrices + 6 * self.adapter_weights * tokens + 12 * self.layers * self.width * pairs


# THUDM/ChatGLM-6B: 28 layers of 4096, 16,384 within, vocabulary 130,528, output layer tied to the embeddings.
CHATGLM_6B = ModelShape(
    layers=28,
    hidden=4096,
    width=4096,
    vocabulary=130_528,
    block_weights=28 * (4 * 4096 * 4096 + 2 * 4096 * 16_384),
    head_weights=130_528 * 4096,
    parameters=6_173_286_400,
    kept=KEPT_BY_ATTENTION * 4096 + KEPT_BY_FEED_FORWARD * 16_384,
)


def shape_from_config(config: Mapping[str, Any], *, lora_rank: int = 0, lora_targets: Sequence[str] = ()) -> ModelShape:
    """The sizes that a parsed config.json describes, without loading the model.

    Exact for ChatGLM-6B and ChatGLM2-6B; for a causal chat model as for those of Llama's kind (gated feed-forward).
    Raises BadModel if a size is missing.
    """
    try:
        return _shape(config, lora_rank, frozenset(lora_targets))
    except (KeyError, TypeError) as error:
        raise BadModel(f"config.json does not say {error}, so the run's cost cannot be told") from error


def _shape(config: Mapping[str, Any], rank: int, targets: frozenset[str]) -> ModelShape:
    if is_prefix := "inner_hidden_size" in config:  # ChatGLM-6B
        d, layers, inner = config["hidden_size"], config["num_layers"], config["inner_hidden_size"]
        vocabulary, width, keys, is_tied = config["vocab_size"], d, d, True
        linear = {"query_key_value": (d, 3 * d), "dense": (d, d)}
        linear |= {"dense_h_to_4h": (d, inner), "dense_4h_to_h": (inner, d)}
        other = sum(out for _, out in linear.values()) + 4 * d  # biases, two norms
        last_norm = 2 * d
    else:
        is_glm2 = "padded_vocab_size" in config
        d, layers = config["hidden_size"], config["num_layers" if is_glm2 else "num_hidden_layers"]
        inner = config["ffn_hidden_size" if is_glm2 else "intermediate_size"]
        vocabulary = config["padded_vocab_size" if is_glm2 else "vocab_size"]
        heads = config["num_attention_heads"]
        head_dim = config["kv_channels"] if is_glm2 else config.get("head_dim") or d // heads
        groups = config["multi_query_group_num"] if is_glm2 else config.get("num_key_value_heads") or heads
        width, keys = heads * head_dim, groups * head_dim
        is_tied = bool(config.get("tie_word_embeddings", False))
        linear = {"q_proj": (d, width), "k_proj": (d, keys), "v_proj": (d, keys), "o_proj": (width, d)}
        linear |= {"gate_proj": (d, inner), "up_proj": (d, inner), "down_proj": (inner, d)}
        has_bias = config.get("add_qkv_bias") if is_glm2 else config.get("model_type") == "qwen2"
        other = (width + 2 * keys if has_bias else 0) + 2 * d
        last_norm = d
    block = layers * sum(a * b for a, b in linear.values())
    adapters = layers * sum(rank * (a + b) for name, (a, b) in linear.items() if name in targets)
    return ModelShape(
        layers=layers,
        hidden=d,
        width=width,
        vocabulary=vocabulary,
        block_weights=block,
        head_weights=vocabulary * d,
        parameters=block + layers * other + last_norm + vocabulary * d * (1 if is_tied else 2),
        kept=KEPT_BY_ATTENTION * d + (KEPT_BY_FEED_FORWARD if is_prefix else KEPT_BY_GATED) * inner,
        adapter_weights=adapters,
    )
