"""The weights that came out, as a folder that models_runtime loads: original names, config and tokenizer beside them.

A full run gives a whole model in the base's layout; a LoRA run gives the adapter alone, in peft's layout, for the base
it was trained on. card.json says what it is: data, base, config, versions, losses.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from models_runtime.engine import glm2
from models_runtime.engine.checkpoints import read_json
from models_runtime.engine.spec import TOKENIZER_FILES
from training.finetune.checkpoints import need_room, on_first, sync_folder
from training.finetune.config import FinetuneConfig
from training.finetune.protocol import CARD
from training.finetune.sharding import DTYPES, Trainee, whole

SHARD_BYTES = 2 * 2**30


def export(trainee: Trainee, config: FinetuneConfig, folder: Path, card: Mapping[str, Any]) -> Path:
    """Write the folder, complete or not at all; every process must call it. Raises DiskTooFull."""
    partial = folder.with_name(f"{folder.name}.partial")
    is_first = dist.get_rank() == 0

    def make_room() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        need_room(folder.parent, export_bytes(trainee, config), "the weights")
        partial.mkdir(parents=True)

    on_first(make_room)
    if config.method == "lora":
        _write_adapter(trainee, partial if is_first else None)
    else:
        _write_model(trainee, config, partial if is_first else None)
    if is_first:
        write_card(partial, card)
        for path in partial.iterdir():
            _sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        sync_folder(folder.parent)
    dist.barrier()
    return folder


def export_bytes(trainee: Trainee, config: FinetuneConfig) -> int:
    """What the tensors of the folder will take, told before the first step."""
    if config.method == "lora":
        return 4 * sum(value.numel() for value in trainee.trained.values())
    n_values: int = sum(value.numel() for value in trainee.model.parameters())
    if _is_written_twice(trainee):
        n_values += trainee.model.get_output_embeddings().weight.numel()
    return DTYPES[config.precision].itemsize * n_values


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    text = json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
    draft = folder / f"{CARD}.new"
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(folder / CARD)


def _write_model(trainee: Trainee, config: FinetuneConfig, folder: Path | None) -> None:
    """Shards of 2 GiB, in the precision of the run's forward pass; the master copy stays in the checkpoint."""
    dtype = DTYPES[config.precision]
    shards = None if folder is None else _Shards(folder)
    for name, value in _original(trainee):
        gathered = whole(value).detach().to("cpu", dtype)  # by all, though one of them writes
        if shards is not None:
            shards.add(name, gathered.contiguous().clone())  # tied weights are written twice
    if folder is None or shards is None:
        return
    shards.finish()
    described = read_json(trainee.base / "config.json")
    described.pop("quantization_bit", None)
    key = "dtype" if "dtype" in described else "torch_dtype"
    _write_json(folder / "config.json", {**described, key: str(dtype).removeprefix("torch.")})
    for name in TOKENIZER_FILES[trainee.family]:
        if (trainee.base / name).is_file():
            shutil.copyfile(trainee.base / name, folder / name)
    extra = trainee.base / "tokenizer_config.json"
    if extra.is_file():
        shutil.copyfile(extra, folder / extra.name)


class _Shards:
    """model-00001.safetensors and so on, each of about SHARD_BYTES, and the index that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, Tensor] = {}
        self.held_bytes = self.all_bytes = 0
        self.files: dict[str, str] = {}

    def add(self, name: str, value: Tensor) -> None:
        if self.held and self.held_bytes + value.nbytes > SHARD_BYTES:
            self._write()
        self.held[name] = value
        self.held_bytes += value.nbytes

    def finish(self) -> None:
        self._write()
        index = {"metadata": {"total_size": self.all_bytes}, "weight_map": self.files}
        _write_json(self.folder / "model.safetensors.index.json", index)

    def _write(self) -> None:
        name = f"model-{len(set(self.files.values())) + 1:05}.safetensors"
        save_file(self.held, str(self.folder / name), metadata={"format": "pt"})
        self.files.update(dict.fromkeys(self.held, name))
        self.all_bytes += self.held_bytes
        self.held, self.held_bytes = {}, 0


def _original(trainee: Trainee) -> Iterator[tuple[str, Tensor]]:
    """Every weight under the name that the base's files give it."""
    model = trainee.model
    if trainee.family == "chatglm2":
        yield from _chatglm2(dict(model.named_parameters()), model.config.num_hidden_layers)
        return
    yield from model.named_parameters()
    if _is_written_twice(trainee):
        yield "lm_head.weight", model.get_output_embeddings().weight


def _is_written_twice(trainee: Trainee) -> bool:
    """Whether the table of words is the output layer too: ChatGLM-6B's published files hold it under both names."""
    words, output = trainee.model.get_input_embeddings(), trainee.model.get_output_embeddings()
    return trainee.family == "chatglm" and output.weight is words.weight


def _chatglm2(values: Mapping[str, Tensor], n_layers: int) -> Iterator[tuple[str, Tensor]]:
    """Glm's query, key and value as the one layer of the published files; everything else by its published name."""
    layers = [f"transformer.encoder.layers.{i}.{within}" for i in range(n_layers) for within in glm2.IN_LAYER]
    for module in (*glm2.OUTSIDE, *layers):
        parts = glm2.renamed_module(module)
        for kind in ("weight", "bias"):
            if f"{parts[0]}.{kind}" in values:
                yield f"{module}.{kind}", torch.cat([whole(values[f"{part}.{kind}"]) for part in parts])


def _write_adapter(trainee: Trainee, folder: Path | None) -> None:
    tensors = {}
    for name, value in trainee.trained.items():
        gathered = whole(value).detach().float().cpu().contiguous()
        tensors[name.replace(".default.weight", ".weight")] = gathered
    if folder is None:
        return
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    settings = trainee.model.peft_config["default"].to_dict()
    kept = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    kept |= {"base_model_name_or_path": trainee.base.name, "inference_mode": True}
    _write_json(folder / "adapter_config.json", kept)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
