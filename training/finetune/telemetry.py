"""What a run says of itself while it runs: one record per step, as CSV, as messages and, on request, for TensorBoard.

Numbers are written so that they read back exactly. After a resume the CSV goes on where the checkpoint was: rows beyond
it belong to steps that are taken again.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig
from training.finetune.hardware import ModelShape, peak_tflops, seen_pairs
from training.finetune.planner import Planner, StepPlan
from training.finetune.sharding import Trainee

SMOOTHING = 0.1  # the share of the newest step in the seconds that the remaining time is reckoned with


@dataclass(frozen=True)
class StepRecord:
    """One step.

    step: counted from 1.  loss: nats per label token, as the groups weigh it; it and gradient_norm are None where a
    skipped step made no number.  learning_rate: as applied; 0 where the
    step was skipped.  gradient_norm: before clipping.  is_skipped: gradients overflowed float16 and were dropped.
    tokens: of the samples, contexts included.  labels: of these, with a loss.  padding: tokens that no sample has.
    mfu: see hardware.MFU_FORMULA; None on a device whose peak is not known.  peak_memory_bytes: the most that the
    first device held, on a CPU the first process.  remaining_seconds: to the last step.
    """

    step: int
    loss: float | None
    learning_rate: float
    gradient_norm: float | None
    loss_scale: float
    is_skipped: bool
    n_skipped: int
    seconds: float
    samples: int
    tokens: int
    labels: int
    padding: int
    samples_per_second: float
    tokens_per_second: float
    labels_per_second: float
    padding_per_second: float
    mfu: float | None
    peak_memory_bytes: int
    remaining_seconds: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class EvaluationRecord:
    """loss: nats per label token over the held-out samples, after this many steps; None if it is no number."""

    step: int
    loss: float | None
    samples: int
    labels: int


STEP_FIELDS = tuple(field.name for field in dataclasses.fields(StepRecord))
EVALUATION_FIELDS = tuple(field.name for field in dataclasses.fields(EvaluationRecord))


class Table:
    """A CSV file of records by step, open for more."""

    def __init__(self, path: Path, fields: Sequence[str], *, after_step: int) -> None:
        """Keeps the rows up to a step; what comes later, or was cut short by a kill, is dropped."""
        self.fields = fields
        kept = [row for row in read_table(path) if int(row["step"]) <= after_step] if path.is_file() else []
        draft = path.with_name(f"{path.name}.new")
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        self._file = path.open("a", encoding="utf-8", newline="")

    def add(self, record: StepRecord | EvaluationRecord) -> None:
        row = {name: "" if value is None else value for name, value in dataclasses.asdict(record).items()}
        line = io.StringIO()
        csv.DictWriter(line, self.fields, lineterminator="\n").writerow(row)
        self._file.write(line.getvalue())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_table(path: Path) -> list[dict[str, str]]:
    """The complete rows of a CSV file that may end in the middle of one."""
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


class Meter:
    """Turns what a step did into its record."""

    def __init__(self, planner: Planner, trainee: Trainee, config: FinetuneConfig) -> None:
        self.planner, self.config, self.device = planner, config, trainee.device
        self.shape, self.is_prefix_model = shape_of(trainee.model), trainee.is_prefix_model
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        self.device_name = name
        self.peak_tflops = peak_tflops(name)
        self._smooth_seconds: float | None = None

    def record(
        self,
        plan: StepPlan,
        *,
        loss: float,
        learning_rate: float,
        gradient_norm: float,
        loss_scale: float,
        is_skipped: bool,
        n_skipped: int,
        seconds: float,
    ) -> StepRecord:
        numbers = [one.sample for one in plan.samples]
        context, target = self.planner.context[numbers], self.planner.target[numbers]
        tokens, labels = int((context + target).sum()), int(target.sum())
        pairs = seen_pairs(context, target, is_prefix_model=self.is_prefix_model)
        computed = sum(
            int(self.planner.context[one.sample] + self.planner.target[one.sample])
            for rows in plan.rows
            for row in rows
            for one in row
        )
        before = self._smooth_seconds
        self._smooth_seconds = seconds if before is None else before + SMOOTHING * (seconds - before)
        mfu = None
        if self.peak_tflops is not None:
            flops = self.shape.flops(tokens=tokens, labels=labels, pairs=pairs, method=self.config.method)
            mfu = flops / (seconds * self.planner.world * self.peak_tflops * 1e12)
        return StepRecord(
            step=plan.step + 1,
            loss=loss if math.isfinite(loss) else None,
            learning_rate=learning_rate,
            gradient_norm=gradient_norm if math.isfinite(gradient_norm) else None,
            loss_scale=loss_scale,
            is_skipped=is_skipped,
            n_skipped=n_skipped,
            seconds=seconds,
            samples=len(numbers),
            tokens=tokens,
            labels=labels,
            padding=computed - tokens,
            samples_per_second=len(numbers) / seconds,
            tokens_per_second=tokens / seconds,
            labels_per_second=labels / seconds,
            padding_per_second=(computed - tokens) / seconds,
            mfu=mfu,
            peak_memory_bytes=peak_memory_bytes(self.device),
            remaining_seconds=self._smooth_seconds * (self.config.steps - plan.step - 1),
        )


def shape_of(model: Any) -> ModelShape:
    """The sizes of a transformers model, spread or not, with or without adapters."""
    config = model.config
    words = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    block = adapters = parameters = 0
    for name, value in model.named_parameters():
        n = value.numel()
        if ".lora_" in name:
            adapters += n
            continue
        parameters += n
        if value.ndim == 2 and id(value) not in words:
            block += n
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        width=config.num_attention_heads * head_dim,
        vocabulary=config.vocab_size,
        block_weights=block,
        head_weights=model.get_output_embeddings().weight.numel(),
        parameters=parameters,
        kept=0,  # of no use while it runs
        adapter_weights=adapters,
    )


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """The Euclidean norm of all gradients over all devices; every process must ask for it."""
    norm = torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Board:
    """TensorBoard's event files."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        """Raises BadConfig if TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # an optional package behind it
        except ImportError as error:
            raise BadConfig(
                "TensorBoard is not installed; `pip install tensorboard`, or set tensorboard = false"
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=after_step + 1)

    def add(self, record: StepRecord | EvaluationRecord) -> None:
        family = "evaluation" if isinstance(record, EvaluationRecord) else "training"
        for name, value in dataclasses.asdict(record).items():
            if name != "step" and value is not None:
                self._writer.add_scalar(f"{family}/{name}", float(value), record.step)

    def close(self) -> None:
        self._writer.close()
