"""make_toy: a folder with the architecture of ChatGLM-6B in toy size, for trying the machinery out without a download.

Its weights are random numbers, so what it writes is a jumble of words, and nothing it says means anything. Only the
shapes, file names and special tokens are those of the real one. Needs no torch, and a second.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from safetensors.numpy import save_file

N_LAYERS, HIDDEN, N_HEADS, INNER = 2, 64, 4, 256
N_PIECES = 2000  # at most: so many words as the sentences give
# In the order of the published vocabulary's special pieces.
SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
OWN_WORDS = ("<n>", "<|tab|>")
BLOCK_SCALE = 20.0  # a block adds to 7.5 times its input, so its layers must speak up, or words would only repeat

Weights = dict[str, NDArray[np.float16]]


def make_toy(folder: Path, sentences: Iterable[str], *, seed: int = 0) -> Path:
    """Write config.json, ice_text.model and model.safetensors; the words are those of the sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    model = _words(sentences)
    words = sentencepiece.SentencePieceProcessor(model_proto=model)
    n_rows = -(-words.get_piece_size() // 32) * 32
    (folder / "ice_text.model").write_bytes(model)
    config = _config(words, n_rows)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(_weights(n_rows, np.random.default_rng(seed)), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _words(sentences: Iterable[str]) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in sentences for line in text.splitlines() if line.strip()]),
        model_writer=model,
        vocab_size=N_PIECES,
        hard_vocab_limit=False,
        model_type="unigram",
        normalization_rule_name="nfkc",
        character_coverage=1.0,
        control_symbols=list(SPECIAL),
        user_defined_symbols=list(OWN_WORDS),
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        unk_surface="",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _config(words: sentencepiece.SentencePieceProcessor, n_rows: int) -> dict[str, Any]:
    special = {
        "bos_token_id": "<sop>",
        "eos_token_id": "<eop>",
        "mask_token_id": "[MASK]",
        "gmask_token_id": "[gMASK]",
        "pad_token_id": "<pad>",
    }
    return {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "position_encoding_2d": True,
        "vocab_size": n_rows,
        "num_layers": N_LAYERS,
        "hidden_size": HIDDEN,
        "num_attention_heads": N_HEADS,
        "inner_hidden_size": INNER,
        "max_sequence_length": 2048,
        "layernorm_epsilon": 1e-5,
        "torch_dtype": "float16",
        **{key: words.piece_to_id(piece) for key, piece in special.items()},
    }


def _weights(n_rows: int, rng: np.random.Generator) -> Weights:
    def normal(*shape: int, std: float) -> NDArray[np.float16]:
        return (rng.standard_normal(shape) * std).astype(np.float16)

    table = normal(n_rows, HIDDEN, std=2 / HIDDEN**0.5)
    found: Weights = {"transformer.word_embeddings.weight": table}
    layers = {
        "attention.query_key_value": (3 * HIDDEN, HIDDEN, 1.0),
        "attention.dense": (HIDDEN, HIDDEN, BLOCK_SCALE),
        "mlp.dense_h_to_4h": (INNER, HIDDEN, 1.0),
        "mlp.dense_4h_to_h": (HIDDEN, INNER, BLOCK_SCALE),
    }
    for number in range(N_LAYERS):
        layer = f"transformer.layers.{number}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{layer}{norm}.weight"] = np.ones(HIDDEN, np.float16)
            found[f"{layer}{norm}.bias"] = normal(HIDDEN, std=0.02)
        for name, (n_out, n_in, scale) in layers.items():
            found[f"{layer}{name}.weight"] = normal(n_out, n_in, std=scale / n_in**0.5)
            found[f"{layer}{name}.bias"] = normal(n_out, std=0.02)
    found["transformer.final_layernorm.weight"] = np.ones(HIDDEN, np.float16)
    found["transformer.final_layernorm.bias"] = normal(HIDDEN, std=0.02)
    found["lm_head.weight"] = table.copy()
    return found
