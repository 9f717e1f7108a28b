"""The training loop, from the base model to the weights that come out.

A step is: plan, one forward and backward for each packed row, one sum over all devices, one update. Everything in it
follows from config, base, corpus and the number of the step, so a run that was stopped, or killed, goes on as if
nothing had happened. State is that number, how many updates were made, the loss scale, and tensors.

What the run's folder holds: config.toml, steps.csv, evaluations.csv, checkpoints/, at the end export/; with TensorBoard
its events in tensorboard/.
"""

from __future__ import annotations

import dataclasses
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from models_runtime.engine.worker import versions
from training.finetune import checkpoints
from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadModel, LossIsNaN, RunChanged, RunIsBusy
from training.finetune.export import export, export_bytes
from training.finetune.packing import pack_row, weighted_loss
from training.finetune.planner import Placed, Planner, Row
from training.finetune.protocol import CHECKPOINTS, EVALUATIONS, EXPORT, STEPS
from training.finetune.samples import Samples, check_samples
from training.finetune.scaling import LossScale
from training.finetune.schedule import WarmupDecay
from training.finetune.sharding import Trainee, agreed_sums, load_trainee, looking_on, process_group
from training.finetune.telemetry import (
    EVALUATION_FIELDS,
    STEP_FIELDS,
    Board,
    EvaluationRecord,
    Meter,
    StepRecord,
    Table,
    gradient_norm,
)

SECONDS_BETWEEN_MESSAGES = 1.0
# What a checkpoint must agree with, and what a person calls it.
FIXED = {
    "config": "the settings of the run",
    "corpus": "the training samples",
    "held_out": "the held-out samples",
    "base": "the base model",
}

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Run:
    """A run to be started, or continued if its folder holds checkpoints."""

    folder: Path
    base: Path
    config: FinetuneConfig
    samples: Samples
    held_out: Samples | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    digest_cache: Path | None = None


@dataclass
class Progress:
    """What a checkpoint keeps beside tensors.

    step: the next one.  n_updates: steps that were not skipped.  losses: the last of training and of evaluation.
    """

    scale: LossScale
    step: int = 0
    n_updates: int = 0
    n_skipped: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    held_out_loss: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Progress:
        return cls(**{**data, "scale": LossScale(**data["scale"])})


@dataclass(frozen=True)
class Outcome:
    """is_finished: all steps are done and `exported` holds the weights; else it was asked to stop."""

    is_finished: bool
    progress: Progress
    exported: Path | None


def train(run: Run, emit: Emit, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Train to the last step, or to the next one after should_stop says so, with a checkpoint at the end of either.

    emit: receives {"type": "note" | "ready" | "step" | "evaluation" | "checkpoint" | "progress", …}; on the first
    process only.

    Raises a FinetuneError, or an EngineError for a base model that cannot be loaded. The newest checkpoint is from
    before whatever went wrong.
    """
    config = run.config
    check_samples(run.samples, config, "the corpus")
    if run.held_out is not None and config.n_evaluated:
        check_samples(run.held_out, config, "the held-out set")
    with process_group(run.device), _only_run_in(run.folder):
        tell = emit if dist.get_rank() == 0 else _silently
        planner = Planner(run.samples, config, dist.get_world_size())
        tell({"type": "note", "text": "loading the base model"})
        trainee = load_trainee(run.base, config, run.device, run.digest_cache)
        optimizer = make_optimizer(trainee, config)
        _check_isolation(trainee, run.samples)
        progress = _resume(run, trainee, optimizer, tell)
        n_bytes = 3 * sum(value.numel() * value.element_size() for value in trainee.trained.values())
        weights = export_bytes(trainee, config)
        checkpoints.check_room(run.folder / CHECKPOINTS, n_bytes, keep=config.keep_checkpoints, at_the_end=weights)
        watch = _Watch(run, trainee, planner, progress, tell)
        try:
            while progress.step < config.steps:
                is_asked_to_stop = take_step(run, trainee, optimizer, planner, progress, watch, should_stop)
                is_last = progress.step == config.steps
                if is_last or _is_due(progress.step, config.evaluate_every):
                    evaluate(run, trainee, planner, progress, watch)
                if is_last or is_asked_to_stop or _is_due(progress.step, config.checkpoint_every):
                    _save(run, trainee, optimizer, progress, tell)
                if is_asked_to_stop and not is_last:
                    return Outcome(False, progress, None)
            exported = export(trainee, config, run.folder / EXPORT, _card(run, trainee, progress, watch))
            return Outcome(True, progress, exported)
        finally:
            watch.close()


def take_step(
    run: Run,
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    planner: Planner,
    progress: Progress,
    watch: _Watch,
    should_stop: Callable[[], bool],
) -> bool:
    """One step of all devices. Whether one of them was asked to stop.

    Raises LossIsNaN before the update that it would have spoilt.
    """
    config, scale, started = run.config, progress.scale, time.monotonic()
    plan = planner.plan(progress.step)
    # Drawn anew at every step, so that no generator's state has to be kept.
    torch.manual_seed((config.seed << 32) + plan.step)
    own_loss = torch.zeros((), dtype=torch.float64, device=run.device)
    for row in plan.rows[dist.get_rank()]:
        loss = _loss(trainee, row, run.samples)
        (loss * scale.value).backward()  # type: ignore[no-untyped-call]
        own_loss += loss.detach()
    loss_sum, n_stops = agreed_sums([own_loss.item(), float(should_stop())], run.device)
    parameters = list(trainee.trained.values())
    norm = gradient_norm(parameters) / scale.value
    is_finite = math.isfinite(loss_sum) and math.isfinite(norm)
    if not is_finite and scale.is_at_its_end:
        what = "gradient" if math.isfinite(loss_sum) else "loss"
        raise LossIsNaN(
            f"the {what} of step {plan.step + 1} is no number; the last checkpoint is from before it. Start a new run "
            "with a lower learning rate or another precision, or look at the samples of this step"
        )
    rate, scale_value = 0.0, scale.value
    if is_finite:
        rate = WarmupDecay.of(config).applied(progress.n_updates)
        clip = min(1.0, config.clip_norm / (norm + 1e-6)) if config.clip_norm else 1.0
        for value in parameters:
            if value.grad is not None:
                value.grad.mul_(clip / scale.value)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        progress.n_updates += 1
        scale.went_well()
    else:
        progress.n_skipped += 1
        scale.overflowed()
    optimizer.zero_grad(set_to_none=True)
    progress.step += 1
    progress.loss = loss_sum if math.isfinite(loss_sum) else progress.loss
    seconds = time.monotonic() - started
    progress.seconds += seconds
    record = watch.meter.record(
        plan,
        loss=loss_sum,
        learning_rate=rate,
        gradient_norm=norm,
        loss_scale=scale_value,
        is_skipped=not is_finite,
        n_skipped=progress.n_skipped,
        seconds=seconds,
    )
    progress.n_tokens += record.tokens
    watch.saw(record)
    return n_stops > 0


def evaluate(run: Run, trainee: Trainee, planner: Planner, progress: Progress, watch: _Watch) -> None:
    """The loss on the first held-out samples; each label token counts alike."""
    if run.held_out is None or not run.config.n_evaluated:
        return
    of_held_out = Planner(run.held_out, dataclasses.replace(run.config, batch=planner.world, groups=1), planner.world)
    rows = of_held_out.for_evaluation(run.config.n_evaluated)
    with looking_on(trainee.model):
        own = sum(_loss(trainee, row, run.held_out).item() for row in rows[dist.get_rank()])
    loss = agreed_sums([own], run.device)[0]
    progress.held_out_loss = loss if math.isfinite(loss) else None
    n = min(run.config.n_evaluated, len(run.held_out))
    labels = int(of_held_out.target[:n].sum())
    watch.saw_evaluation(EvaluationRecord(progress.step, progress.held_out_loss, n, labels))


def make_optimizer(trainee: Trainee, config: FinetuneConfig) -> torch.optim.Optimizer:
    """AdamW; only matrices decay."""
    trained = trainee.trained.values()
    groups = [
        {"params": [value for value in trained if value.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [value for value in trained if value.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=trainee.device.type == "cuda",
    )


def _loss(trainee: Trainee, row: Row, samples: Samples) -> Tensor:
    packed = pack_row(
        row, samples, is_prefix_model=trainee.is_prefix_model, device=trainee.device, kernel=trainee.kernel
    )
    return weighted_loss(trainee.model, packed)


def _check_isolation(trainee: Trainee, samples: Samples) -> None:
    """Two samples in one row must make the losses they make alone. Raises BadModel if they do not.

    A model may look back by other means than attention, which no layout can keep within a sample.
    """
    pair = tuple(Placed(number % len(samples), 1.0) for number in (0, 1))
    with looking_on(trainee.model):
        together = _loss(trainee, pair, samples).item()
        alone = sum(_loss(trainee, (one,), samples).item() for one in pair)
    if not math.isfinite(alone):
        name = str(trainee.dtype).removeprefix("torch.")
        raise LossIsNaN(f"the base model's loss is no number in {name}; choose another precision")
    tolerance = 1e-4 if trainee.dtype == torch.float32 else 2e-2
    if not math.isclose(together, alone, rel_tol=tolerance):
        raise BadModel(
            f"{type(trainee.model).__name__} gives two samples in one row a loss of {together:.5f} and of {alone:.5f} "
            "one by one, so they see each other; this model cannot be trained on packed rows"
        )


# --- stop and resume ---


def _tensors(trainee: Trainee, optimizer: torch.optim.Optimizer, n_updates: int) -> dict[str, Tensor]:
    """Weights and moments by name, to be saved or to be filled."""
    named: dict[str, Tensor] = {}
    for name, value in trainee.trained.items():
        state = optimizer.state[value]
        if not state:  # as AdamW makes it at the first update
            state["step"] = torch.zeros((), device=trainee.device if trainee.device.type == "cuda" else "cpu")
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)
        state["step"].fill_(n_updates)
        named[f"weight.{name}"] = value.detach()
        named[f"mean.{name}"], named[f"square.{name}"] = state["exp_avg"], state["exp_avg_sq"]
    return named


def _fixed(run: Run, base_digest: str) -> dict[str, str]:
    return {
        "config": run.config.digest,
        "corpus": run.samples.content_hash,
        "held_out": run.held_out.content_hash if run.held_out is not None else "",
        "base": base_digest,
    }


def _save(run: Run, trainee: Trainee, optimizer: torch.optim.Optimizer, progress: Progress, tell: Emit) -> None:
    started = time.monotonic()
    state = {
        "fixed": _fixed(run, trainee.base_digest),
        "progress": progress.to_json(),
        "world": dist.get_world_size(),
        "versions": versions(),
    }
    tensors = _tensors(trainee, optimizer, progress.n_updates)
    folder = run.folder / CHECKPOINTS
    path = checkpoints.save(folder, progress.step, tensors, state, keep=run.config.keep_checkpoints)
    seconds = time.monotonic() - started
    tell({"type": "checkpoint", "step": progress.step, "name": path.name, "seconds": round(seconds, 3)})


def _resume(run: Run, trainee: Trainee, optimizer: torch.optim.Optimizer, tell: Emit) -> Progress:
    """From the newest sound checkpoint, or from the start. Raises RunChanged if it belongs to another run."""
    found, notes = checkpoints.newest(run.folder / CHECKPOINTS)
    for note in notes:
        tell({"type": "note", "text": note})
    if found is None:
        return Progress(LossScale.of(run.config.precision))
    now = _fixed(run, trainee.base_digest)
    if changed := [FIXED[name] for name in FIXED if found.state["fixed"].get(name) != now[name]]:
        raise RunChanged(
            f"{found.folder} was saved with another state of {' and '.join(changed)}; bring back what it was, or start "
            "a new run in a folder of its own"
        )
    progress = Progress.from_json(found.state["progress"])
    checkpoints.load(found, _tensors(trainee, optimizer, progress.n_updates))
    return progress


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Raises RunIsBusy if another process has this run's folder; the system ends the claim with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunIsBusy(f"another process trains in {folder} now; wait for it, or stop it first") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """The first process claims the folder for all. Raises RunIsBusy, in all of them."""
    with ExitStack() as stack:
        checkpoints.on_first(lambda: stack.enter_context(claimed(folder)))
        yield


# --- what is told ---


class _Watch:
    """Everybody who wants to know: files and messages of the first process."""

    def __init__(self, run: Run, trainee: Trainee, planner: Planner, progress: Progress, tell: Emit) -> None:
        config = run.config
        self.tell, self.config = tell, config
        self.meter = Meter(planner, trainee, config)
        self.told_at = 0.0
        self.tables: list[Table | Board] = []
        self.evaluation_tables: list[Table | Board] = []
        if dist.get_rank() == 0:
            (run.folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
            self.tables.append(Table(run.folder / STEPS, STEP_FIELDS, after_step=progress.step))
            table = Table(run.folder / EVALUATIONS, EVALUATION_FIELDS, after_step=progress.step)
            self.evaluation_tables.append(table)
            if config.tensorboard:
                board = Board(run.folder / "tensorboard", after_step=progress.step)
                self.tables.append(board)
                self.evaluation_tables.append(board)
        tell(
            {
                "type": "ready",
                "step": progress.step,
                "steps": config.steps,
                "config_digest": config.digest,
                "base_digest": trainee.base_digest,
                "corpus_hash": run.samples.content_hash,
                "n_samples": len(run.samples),
                "n_processes": planner.world,
                "device": self.meter.device_name,
                "peak_tflops": self.meter.peak_tflops,
                "attention": trainee.kernel_name,
                "parameters": self.meter.shape.parameters + self.meter.shape.adapter_weights,
                "trained_parameters": sum(value.numel() for value in trainee.trained.values()),
                "versions": versions(),
                "notes": list(trainee.notes),
            }
        )

    def saw(self, record: StepRecord) -> None:
        for table in self.tables:
            table.add(record)
        now = time.monotonic()
        is_last = record.step == self.config.steps
        if is_last or now - self.told_at >= SECONDS_BETWEEN_MESSAGES:
            self.told_at = now
            self.tell({"type": "step", **record.to_json()})
            self.tell({"type": "progress", "n_done": record.step, "n_total": self.config.steps})

    def saw_evaluation(self, record: EvaluationRecord) -> None:
        for table in self.evaluation_tables:
            table.add(record)
        self.tell({"type": "evaluation", **dataclasses.asdict(record)})

    def close(self) -> None:
        for table in {id(one): one for one in (*self.tables, *self.evaluation_tables)}.values():
            table.close()


def _card(run: Run, trainee: Trainee, progress: Progress, watch: _Watch) -> dict[str, Any]:
    """What the weights are and where they come from; it lies beside them."""
    return {
        "fixed": _fixed(run, trainee.base_digest),
        "config": run.config.to_json(),
        "base_name": run.base.name,
        "family": trainee.family,
        "n_samples": len(run.samples),
        "n_steps": progress.step,
        "n_updates": progress.n_updates,
        "n_skipped": progress.n_skipped,
        "n_tokens": progress.n_tokens,
        "seconds": round(progress.seconds, 3),
        "loss": progress.loss,
        "held_out_loss": progress.held_out_loss,
        "n_processes": watch.meter.planner.world,
        "device": watch.meter.device_name,
        "attention": trainee.kernel_name,
        "versions": versions(),
        "notes": list(trainee.notes),
    }


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _silently(message: dict[str, Any]) -> None:
    return None
