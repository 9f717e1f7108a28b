"""Before a run starts, and while it trains: what a run file says, what the run will cost here, and its process.

A run file is TOML; folders in it are relative to it:

    base = "models/chatglm-6b"        # the model's folder
    corpus = "corpora/smile"          # made by prepare_corpus; its test part is the held-out set
    folder = "runs/smile-1"           # of the run; a run is continued by the same file once more
    device = "cuda"                   # or "cpu", the default
    processes = 8                     # one for each device
    memory_gib = 70                   # of a device; left out: all it has

    [config]                          # a preset, single settings, or both
    preset = "soulchat-paper"
    steps = 10000

No torch in here: a process that only looks at CUDA devices is asked about them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models_runtime.answering import Message, child_messages
from models_runtime.engine.prompts import Template
from training.corpus.errors import StoreBroken
from training.corpus.prepare import CARD
from training.corpus.store import Store
from training.corpus.tokenizers import tokenizer_digest, tokenizer_files
from training.finetune import estimate as estimating
from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig, BadModel
from training.finetune.estimate import Cost, Hardware
from training.finetune.hardware import ModelShape, shape_from_config
from training.finetune.protocol import FinetuneJob
from training.finetune.samples import Ints, check_samples

GIB = 2**30
PROBE_SECONDS = 120.0  # torch and CUDA wake up
PROBE = (
    "import json, torch; n = torch.cuda.device_count(); found = map(torch.cuda.get_device_properties, range(n)); "
    "print(json.dumps([[one.name, one.total_memory] for one in found]))"
)


@dataclass(frozen=True)
class Corpus:
    """A folder of prepare_corpus. card: what it says of itself.  held_out: None if its test part is empty."""

    folder: Path
    card: dict[str, Any]
    train: Store
    held_out: Path | None

    @classmethod
    def read(cls, folder: Path) -> Corpus:
        """Sizes are compared here, contents by the process that trains. Raises StoreBroken."""
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreBroken(
                f"{folder} is no folder of prepare_corpus: its {CARD} cannot be read ({error})"
            ) from error
        if not isinstance(card, dict) or not {"family", "template", "test"} <= set(card):
            raise StoreBroken(f"{folder / CARD} was not written by prepare_corpus; prepare the corpus again")
        train, test = Store(folder / "train", check="sizes"), Store(folder / "test", check="sizes")
        return cls(folder, card, train, test.folder if len(test) else None)


@dataclass(frozen=True)
class RunFile:
    """memory_gib: what a device may be asked for; None = all it has."""

    job: FinetuneJob
    corpus: Corpus
    memory_gib: float | None


def read_run_file(path: Path) -> RunFile:
    """Raises BadConfig with the file's name, StoreBroken for the corpus."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error
    names = ("base", "corpus", "folder", "device", "processes", "threads", "memory_gib", "config")
    try:
        if unknown := sorted(set(data) - set(names)):
            raise BadConfig(f"a run file has no {', '.join(unknown)}; it has {', '.join(names)}")
        for name in ("base", "corpus", "folder"):
            if not (isinstance(data.get(name), str) and data[name]):
                raise BadConfig(f"{name} is {data.get(name)!r}; it must be the name of a folder")
        if not isinstance(data.get("config", {}), dict):
            raise BadConfig("config is no table; write [config] above the settings")
        memory = data.get("memory_gib")
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int | float) or memory <= 0):
            raise BadConfig(f"memory_gib is {memory!r}; it must be a number above 0")
        base, corpus_folder, folder = (_beside(path, data[name]) for name in ("base", "corpus", "folder"))
        config = FinetuneConfig.from_json(data.get("config", {}))
        job = FinetuneJob(
            folder=folder,
            base=base,
            corpus=corpus_folder / "train",
            config=config,
            **{name: data[name] for name in ("device", "processes", "threads") if name in data},
        )
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from error
    corpus = Corpus.read(corpus_folder)
    return RunFile(dataclasses.replace(job, held_out=corpus.held_out), corpus, memory)


def hardware_for(job: FinetuneJob, memory_gib: float | None = None) -> Hardware:
    """The devices that the run asks for, with the memory of the smallest. Processes on a CPU share its memory.

    Raises BadConfig if there are too few.
    """
    if job.device == "cpu":
        own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / job.processes
        name = "the CPU"
    else:
        found = _cuda_devices()[: job.processes]
        if len(found) < job.processes:
            raise BadConfig(
                f"{job.processes} CUDA devices are asked for, and {len(found)} are here; lower processes, or set "
                "device to cpu"
            )
        name, own = min(found, key=lambda one: one[1])
    return Hardware(name, own if memory_gib is None else min(own, memory_gib * GIB), job.processes)


def cost_of(job: FinetuneJob, corpus: Corpus, hardware: Hardware) -> Cost:
    """Memory, hours and disk, whether it fits or not. Raises BadData for samples that the config forbids; BadModel."""
    check_samples(corpus.train, job.config, "the corpus")
    return estimating.estimate(*_estimated(job, corpus, hardware), is_prefix_model=_is_prefix_model(corpus))


def refuse_what_cannot_fit(job: FinetuneJob, corpus: Corpus, hardware: Hardware) -> None:
    """Raises DoesNotFit, which says what would fit."""
    estimating.refuse_what_cannot_fit(*_estimated(job, corpus, hardware), is_prefix_model=_is_prefix_model(corpus))


def check_made_for(corpus: Corpus, base: Path) -> None:
    """Raises BadModel unless the base's tokenizer and the corpus's template make the ids that the corpus holds."""
    family, template = corpus.card["family"], Template.from_json(corpus.card["template"])
    if tokenizer_digest(family, template, tokenizer_files(base, family)) != corpus.train.tokenizer_digest:
        raise BadModel(
            f"{corpus.folder} was prepared for another model than {base}, or for another tokenizer of the family "
            f"{family}; prepare it with --weights {base}"
        )


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder is, or would be, on."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def train(job: FinetuneJob, hear: Callable[[Message], None]) -> int:
    """Train in a process of its own until that ends; its exit code, or below 0 the signal that ended it.

    The first Ctrl-C lets it finish its step and save; the second raises KeyboardInterrupt and kills it.
    """
    with tempfile.TemporaryDirectory(prefix="qingting-") as place:
        job_file = Path(place, "job.json")
        job_file.write_text(json.dumps(job.to_json(), ensure_ascii=False), encoding="utf-8")
        with closing(child_messages("training.finetune.worker", job_file)) as messages:
            while True:
                try:
                    message = next(messages)
                except StopIteration as end:
                    return int(end.value)
                hear(message)


def _estimated(
    job: FinetuneJob, corpus: Corpus, hardware: Hardware
) -> tuple[FinetuneConfig, ModelShape, tuple[Ints, Ints], Hardware]:
    path = job.base / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(f"{path} cannot be read ({error}); base must be the folder of a published model") from error
    lora = job.config if job.config.method == "lora" else None
    shape = shape_from_config(
        config, lora_rank=lora.lora_rank if lora else 0, lora_targets=lora.lora_targets if lora else ()
    )
    return job.config, shape, corpus.train.lengths(), hardware


def _is_prefix_model(corpus: Corpus) -> bool:
    return bool(corpus.card["family"] == "chatglm")


def _beside(path: Path, name: str) -> Path:
    return (path.resolve().parent / Path(name).expanduser()).resolve()


def _cuda_devices() -> list[tuple[str, float]]:
    """Name and bytes of each. Raises BadConfig if they cannot be asked."""
    try:
        asked = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS, check=True
        )
        return [(str(name), float(memory)) for name, memory in json.loads(asked.stdout)]
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadConfig(f"the CUDA devices cannot be asked: {last}; mend the driver, or set device to cpu") from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise BadConfig(f"the CUDA devices do not answer ({error}); mend the driver, or set device to cpu") from error
