"""Checkpoint folders of toy size, made on the spot: random weights under the published file and tensor names.

What they write is noise, and nothing here is a language model; they have the shapes, names, tokenizers and special ids
of the real ones, so that whatever loads and drives a real folder loads and drives these. A folder takes well under a
second.

    chatglm(folder)     ChatGLM-6B (v1);  shards=2, form="bin" for the layout of the published checkpoint
    chatglm2(folder)    ChatGLM2-6B
    causal(folder)      a Qwen2 with a chat template, as any transformers chat model comes
    chatglm_lora(folder), causal_lora(folder)   adapters in peft's format
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

REFERENCE = Path(__file__).parent / "reference"
Form = Literal["safetensors", "bin"]
Tensors = dict[str, Tensor]

SENTENCES = (
    "你好，最近过得怎么样？",
    "我最近总是睡不着，压力很大。",
    "听起来你这段时间很辛苦，愿意和我多说一些吗？",
    "Hello, how are you today? I could not sleep.",
    "谢谢你愿意告诉我这些，我们可以一起想想办法。",
)
# Our own, in the ChatML form that most transformers chat models use.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def save_tensors(folder: Path, tensors: Mapping[str, Tensor], *, form: Form = "safetensors", shards: int = 1) -> None:
    """Write the tensors as one file, or as shards with the index that names them."""
    stem, suffix = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    names = list(tensors)
    parts = [names[i * len(names) // shards : (i + 1) * len(names) // shards] for i in range(shards)]
    weight_map = {}
    for i, part in enumerate(parts, start=1):
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i:05}-of-{shards:05}.{suffix}"
        held = {name: tensors[name].contiguous().clone() for name in part}
        if form == "safetensors":
            save_file(held, str(folder / file), metadata={"format": "pt"})
        else:
            torch.save(held, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    if shards > 1:
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        write_json(folder / f"{stem}.{suffix}.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


class _Draw:
    """Random tensors, the same for the same seed."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def normal(self, *shape: int, std: float) -> Tensor:
        return (torch.randn(*shape, generator=self.generator) * std).to(self.dtype)

    def linear(self, out: int, inner: int) -> Tensor:
        return self.normal(out, inner, std=1 / math.sqrt(inner))

    def near_one(self, size: int) -> Tensor:
        return (1 + torch.randn(size, generator=self.generator) * 0.1).to(self.dtype)

    def embedding(self, vocabulary: int, hidden: int, *, eos: int, longer: float = 2.0) -> Tensor:
        """Rows that make logits of spread 2, and one for the end that is longer, so that some responses do stop."""
        rows = self.normal(vocabulary, hidden, std=2 / math.sqrt(hidden))
        rows[eos] *= longer
        return rows


def chatglm_config(*, layers: int = 2, hidden: int = 64, heads: int = 4, vocabulary: int = 544) -> dict[str, Any]:
    """A ChatGLM-6B config.json; the special ids are those of the small sentencepiece model beside it."""
    reference = json.loads((REFERENCE / "chatglm" / "config.json").read_text())
    return {
        **reference,
        "num_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "inner_hidden_size": 4 * hidden,
        "max_sequence_length": 2048,
        "vocab_size": vocabulary,
        "torch_dtype": "float16",
    }


def chatglm_tensors(config: Mapping[str, Any], *, seed: int = 0, dtype: torch.dtype = torch.float16) -> Tensors:
    draw, d, inner = _Draw(seed, dtype), config["hidden_size"], config["inner_hidden_size"]
    words = draw.embedding(config["vocab_size"], d, eos=config["eos_token_id"], longer=3.0)
    tensors = {"transformer.word_embeddings.weight": words}
    for i in range(config["num_layers"]):
        layer = f"transformer.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{norm}.weight"] = draw.near_one(d)
            tensors[f"{layer}{norm}.bias"] = draw.normal(d, std=0.02)
        # The published files hold this table, and nobody reads it.
        tensors[f"{layer}attention.rotary_emb.inv_freq"] = torch.zeros(
            d // config["num_attention_heads"] // 4, dtype=dtype
        )
        for name, out, size in (
            ("attention.query_key_value", 3 * d, d),
            ("attention.dense", d, d),
            ("mlp.dense_h_to_4h", inner, d),
            ("mlp.dense_4h_to_h", d, inner),
        ):
            # A block scales its input by 7.5, so its layers write louder, or the model would repeat its last token.
            loudness = 20.0 if name.endswith(("dense", "4h_to_h")) else 1.0
            tensors[f"{layer}{name}.weight"] = draw.linear(out, size) * loudness
            tensors[f"{layer}{name}.bias"] = draw.normal(out, std=0.02)
    tensors["transformer.final_layernorm.weight"] = draw.near_one(d)
    tensors["transformer.final_layernorm.bias"] = draw.normal(d, std=0.02)
    tensors["lm_head.weight"] = words
    return tensors


def chatglm(
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    vocabulary: int = 544,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    form: Form = "safetensors",
    shards: int = 1,
) -> Path:
    """A ChatGLM-6B (v1) folder: config.json, ice_text.model, weights under the published names."""
    folder.mkdir(parents=True, exist_ok=True)
    config = chatglm_config(layers=layers, hidden=hidden, heads=heads, vocabulary=vocabulary)
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", {"num_image_tokens": 0, "tokenizer_class": "ChatGLMTokenizer"})
    shutil.copyfile(REFERENCE / "chatglm" / "ice_text.model", folder / "ice_text.model")
    save_tensors(folder, chatglm_tensors(config, seed=seed, dtype=dtype), form=form, shards=shards)
    return folder


def chatglm2_config(*, layers: int = 2, hidden: int = 64, heads: int = 4, vocabulary: int = 768) -> dict[str, Any]:
    reference = json.loads((REFERENCE / "chatglm2" / "config.json").read_text())
    return {
        **reference,
        "num_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "kv_channels": hidden // heads,
        "ffn_hidden_size": 3 * hidden // 2,
        "padded_vocab_size": vocabulary,
        "seq_length": 2048,
        "torch_dtype": "float16",
    }


def chatglm2_tensors(config: Mapping[str, Any], *, seed: int = 0, dtype: torch.dtype = torch.float16) -> Tensors:
    draw, d, inner = _Draw(seed, dtype), config["hidden_size"], config["ffn_hidden_size"]
    head = config["kv_channels"]
    queries, keys = config["num_attention_heads"] * head, config["multi_query_group_num"] * head
    tensors = {
        "transformer.embedding.word_embeddings.weight": draw.normal(config["padded_vocab_size"], d, std=1.0),
        "transformer.rotary_pos_emb.inv_freq": torch.zeros(head // 4, dtype=dtype),
    }
    for i in range(config["num_layers"]):
        layer = f"transformer.encoder.layers.{i}."
        tensors[f"{layer}input_layernorm.weight"] = draw.near_one(d)
        tensors[f"{layer}self_attention.query_key_value.weight"] = draw.linear(queries + 2 * keys, d)
        tensors[f"{layer}self_attention.query_key_value.bias"] = draw.normal(queries + 2 * keys, std=0.02)
        tensors[f"{layer}self_attention.dense.weight"] = draw.linear(d, queries)
        tensors[f"{layer}post_attention_layernorm.weight"] = draw.near_one(d)
        tensors[f"{layer}mlp.dense_h_to_4h.weight"] = draw.linear(2 * inner, d)
        tensors[f"{layer}mlp.dense_4h_to_h.weight"] = draw.linear(d, inner)
    tensors["transformer.encoder.final_layernorm.weight"] = draw.near_one(d)
    tensors["transformer.output_layer.weight"] = draw.embedding(
        config["padded_vocab_size"], d, eos=config["eos_token_id"]
    )
    return tensors


def chatglm2(
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    form: Form = "safetensors",
    shards: int = 1,
) -> Path:
    """A ChatGLM2-6B folder: config.json, tokenizer.model, weights under the published names."""
    folder.mkdir(parents=True, exist_ok=True)
    config = chatglm2_config(layers=layers, hidden=hidden, heads=heads)
    write_json(folder / "config.json", config)
    shutil.copyfile(REFERENCE / "chatglm2" / "tokenizer.model", folder / "tokenizer.model")
    save_tensors(folder, chatglm2_tensors(config, seed=seed, dtype=dtype), form=form, shards=shards)
    return folder


def causal(
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A Qwen2 chat model as transformers saves it: safetensors, a byte-level tokenizer and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    draw = _Draw(seed, dtype)
    values = {}
    for name, old in model.state_dict().items():
        if name == "lm_head.weight":
            values[name] = draw.embedding(*old.shape, eos=tokenizer.eos_token_id)
        elif old.ndim == 2:
            values[name] = draw.linear(*old.shape) if "embed" not in name else draw.normal(*old.shape, std=1.0)
        else:
            values[name] = draw.near_one(len(old)) if "norm" in name else draw.normal(len(old), std=0.02)
    model.load_state_dict(values)
    model.to(dtype).save_pretrained(folder)
    return folder


def lora(
    folder: Path, targets: Mapping[str, tuple[int, int]], *, rank: int = 4, seed: int = 1, base: str = "somewhere/base"
) -> Path:
    """An adapter folder as peft saves one.

    targets: full module name ► (out, in) of its weight.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = _Draw(seed, torch.float32)
    tensors = {}
    for name, (out, inner) in targets.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = draw.linear(rank, inner)
        tensors[f"base_model.model.{name}.lora_B.weight"] = draw.normal(out, rank, std=0.2)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": 2 * rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "target_modules": sorted({name.rsplit(".", 1)[-1] for name in targets}),
        },
    )
    return folder


def chatglm_lora(folder: Path, *, layers: int = 2, hidden: int = 64, rank: int = 4, seed: int = 1) -> Path:
    """A ChatGLM-6B adapter on query_key_value, the form in which the first MeChat was published."""
    targets = {f"transformer.layers.{i}.attention.query_key_value": (3 * hidden, hidden) for i in range(layers)}
    return lora(folder, targets, rank=rank, seed=seed)


def causal_lora(folder: Path, *, layers: int = 2, hidden: int = 64, rank: int = 4, seed: int = 1) -> Path:
    """An adapter on q_proj for the folder that `causal` makes."""
    targets = {f"model.layers.{i}.self_attn.q_proj": (hidden, hidden) for i in range(layers)}
    return lora(folder, targets, rank=rank, seed=seed)
