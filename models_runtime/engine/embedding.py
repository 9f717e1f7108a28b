"""Vectors of tokens from an encoder in a local folder, and with them the similarity of responses to references.

Any encoder that transformers knows will do, for instance a Chinese BERT. Its weights are read from safetensors alone,
nothing is fetched, and no code that a folder brings along is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from metrics.embedding import METRICS, Vectors, greedy_match
from models_runtime.engine import checkpoints
from models_runtime.engine.errors import DeviceUnavailable, TokenizerMissing, WeightsMissing, WrongArchitecture
from models_runtime.engine.spec import VOCABULARY_FILES

PAIRS_AT_ONCE = 64  # whose vectors are in memory together: 25 MB a system at 120 tokens of 768 dimensions
TEXTS_PER_PASS = 16
UNUSED = ("pooler.",)  # a head on top of the layers that are read

Text = str | None
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Encoder:
    """An encoder that is ready.

    layer: whose vectors are taken, from 1;  longest: in tokens, what is longer is cut;  source: for a signature.
    """

    model: Any
    tokenizer: Any
    layer: int
    longest: int
    device: torch.device
    source: Mapping[str, str]

    def vectors(self, texts: Sequence[str]) -> tuple[list[Vectors], int]:
        """The vectors of each text, and how many of the texts were too long and cut."""
        cut = self.tokenizer(list(texts), truncation=True, max_length=self.longest, return_special_tokens_mask=True)
        whole = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        ids, special = cut["input_ids"], cut["special_tokens_mask"]
        vectors: list[Vectors | None] = [None] * len(texts)
        by_length = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        for start in range(0, len(texts), TEXTS_PER_PASS):
            some = by_length[start : start + TEXTS_PER_PASS]
            for i, hidden in zip(some, self._hidden([ids[i] for i in some]), strict=True):
                vectors[i] = Vectors(hidden[: len(ids[i])], np.array(special[i]) == 0)
        n_cut = sum(len(w) > len(i) for w, i in zip(whole, ids, strict=True))
        return [v for v in vectors if v is not None], n_cut

    def _hidden(self, ids: list[list[int]]) -> Any:
        """Shape (texts, longest of them, dimensions)."""
        longest = max(map(len, ids))
        padded = [text + [self.tokenizer.pad_token_id or 0] * (longest - len(text)) for text in ids]
        mask = [[1] * len(text) + [0] * (longest - len(text)) for text in ids]
        with torch.inference_mode():
            out = self.model(
                input_ids=torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                output_hidden_states=True,
            )
        return out.hidden_states[self.layer].float().cpu().numpy()


def load_encoder(
    folder: Path, *, layer: int | None = None, device: str = "cpu", digest_cache: Path | None = None
) -> Encoder:
    """The encoder of a folder.

    layer: from 1;  None: two thirds of the way up, which is where bert_score 0.3.13 reads a Chinese BERT, too.

    Raises WeightsMissing, CorruptShard, WrongArchitecture, TokenizerMissing or DeviceUnavailable.
    """
    checkpoint = checkpoints.find_weights(folder, only_safetensors=True)
    for _tensor in checkpoints.tensors(checkpoint):  # a damaged file is named here, before transformers stumbles on it
        pass
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(f"{device} is not here; use cpu")
    model = _model(folder, where)
    tokenizer = _tokenizer(folder, n_embeddings=int(model.config.vocab_size))
    n_layers = int(model.config.num_hidden_layers)
    layer = max(1, round(n_layers * 2 / 3)) if layer is None else layer
    if not 1 <= layer <= n_layers:
        raise WrongArchitecture(f"{folder} has layers 1 to {n_layers}, not {layer}")
    files = [*checkpoint.files, folder / "config.json"]
    files += [path for name in (*VOCABULARY_FILES, "merges.txt") if (path := folder / name).is_file()]
    source = {
        "encoder": f"{model.config.model_type}-{checkpoints.digest(files, cache=digest_cache)[:12]}",
        "layer": f"{layer}/{n_layers}",
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    # Positions are numbered from the one behind the padding's in RoBERTa and its kin.
    reserved = int(getattr(model.config, "pad_token_id", 0) or 0) + 1 if _counts_from_padding(model) else 0
    longest = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings) - reserved)
    return Encoder(model, tokenizer, layer, longest, where, source)


def _model(folder: Path, device: torch.device) -> Any:
    try:
        model, report = AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, OSError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise WrongArchitecture(f"{folder} cannot be loaded by transformers: {reason}") from error
    if missing := [name for name in report["missing_keys"] if not name.startswith(UNUSED)]:
        raise WeightsMissing(
            f"{folder} lacks {checkpoints.listed(missing)}; give the folder of an encoder such as BERT"
        )
    if model.config.is_encoder_decoder or not hasattr(model.config, "max_position_embeddings"):
        raise WrongArchitecture(
            f"{folder} holds a {model.config.model_type}; give the folder of an encoder such as BERT"
        )
    return model.eval().to(device)


def _tokenizer(folder: Path, n_embeddings: int) -> Any:
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise TokenizerMissing(f"{folder} has no tokenizer; looked for {', '.join(VOCABULARY_FILES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its libraries raise what they like
        raise TokenizerMissing(f"{folder} has no tokenizer that can be read: {str(error).strip()[:300]}") from error
    if len(tokenizer) > n_embeddings:
        raise TokenizerMissing(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the weights {n_embeddings}")
    return tokenizer


def _counts_from_padding(model: Any) -> bool:
    embeddings = getattr(model, "embeddings", None)
    return getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None) is not None


@dataclass(frozen=True)
class Similarity:
    """scores_NM: for each system, a row of METRICS per pair in percent, NaN where a side is missing.

    n_cut: texts that were longer than the encoder reads, references and responses together.
    """

    scores_NM: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
    n_cut: int


def similarity(
    hypotheses: Mapping[str, Sequence[Text]],
    references: Sequence[Text],
    encoder: Encoder,
    *,
    on_progress: Progress | None = None,
) -> Similarity:
    """How near each system's responses are to the references, which are encoded once for all systems.

    hypotheses: system ► its texts in the references' order, None where there is none. ValueError if lengths differ.
    """
    for system, texts in hypotheses.items():
        if len(texts) != len(references):
            raise ValueError(f"system {system!r} has {len(texts)} hypotheses for {len(references)} references")
    scores = {system: np.full((len(references), len(METRICS)), np.nan) for system in hypotheses}
    n_cut = 0
    for start in range(0, len(references), PAIRS_AT_ONCE):
        places = range(start, min(start + PAIRS_AT_ONCE, len(references)))
        wanted, n = _vectors(encoder, references, places)
        n_cut += n
        for system, texts in hypotheses.items():
            given, n = _vectors(encoder, texts, [i for i in places if i in wanted])
            n_cut += n
            for i, vectors in given.items():
                scores[system][i] = greedy_match(vectors, wanted[i])
        if on_progress is not None:
            on_progress(places.stop, len(references))
    return Similarity(scores, n_cut)


def _vectors(encoder: Encoder, texts: Sequence[Text], places: Sequence[int]) -> tuple[dict[int, Vectors], int]:
    present = {i: text for i in places if (text := texts[i]) is not None}
    vectors, n_cut = encoder.vectors(list(present.values())) if present else ([], 0)
    return dict(zip(present, vectors, strict=True)), n_cut
