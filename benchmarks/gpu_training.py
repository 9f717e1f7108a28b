"""Samples per second of training on one GPU: ChatGLM-6B's full shape, random weights, the loop that runs train with.

    python -m benchmarks.gpu_training [--steps 12] [--row-tokens 4096] [--precision bf16] [--recompute]
    python -m benchmarks.gpu_training --tiny           on a CPU, to see that it runs; its figures mean nothing

Steps of 80 samples with the paper's settings and the real lengths (benchmarks/lengths.py), warm-up steps left out. The
control takes samples one by one, padded to 2048 with logits everywhere, as the published recipe does, and no update.
No setting of the device is changed. Attention is `varlen` where torch has it, else `flex`, tried before it is used.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.bench_training import LONGEST, Noise, padded_batch
from benchmarks.lengths import draw_lengths
from benchmarks.random_model import FULL, TINY, random_model
from training.finetune import packing
from training.finetune.config import SOULCHAT_PAPER
from training.finetune.hardware import MFU_FORMULA
from training.finetune.loop import Progress, Run, make_optimizer, take_step
from training.finetune.planner import Planner
from training.finetune.scaling import LossScale
from training.finetune.sharding import DTYPES, Trainee, process_group, shard
from training.finetune.telemetry import Meter, StepRecord

WARM = 3


class Watch:
    """Keeps the records of the steps."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.records: list[StepRecord] = []

    def saw(self, record: StepRecord) -> None:
        self.records.append(record)


def trainee_of(model: Any, device: torch.device, dtype: torch.dtype, *, recompute: bool) -> Trainee:
    packing.use_packed_attention(model)
    name, kernel, notes = packing.pick_kernel(device, dtype, model.config.head_dim)
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    shard(model.train(), init_device_mesh(device.type, (1,)), device, dtype)
    return Trainee(model, "chatglm", Path("random"), "random", name, kernel, device, dtype, True, notes)


def padded_rate(trainee: Trainee, samples: Noise, n: int) -> float:
    """Samples per second of the control, forward and backward."""
    trainee.model.set_attn_implementation("sdpa")
    seconds = 0.0
    for number in range(n + 1):
        ids, labels = (part.to(trainee.device) for part in padded_batch(samples, [number], LONGEST))
        if trainee.device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        trainee.model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        if trainee.device.type == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - started if number else 0.0
    trainee.model.zero_grad(set_to_none=True)
    return n / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument("--precision", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny shows that the script runs")
    device = torch.device("cpu" if options.tiny else "cuda", None if options.tiny else 0)
    shape, scale = (TINY, 0.1) if options.tiny else (FULL, 1.0)
    config = dataclasses.replace(
        SOULCHAT_PAPER, precision=options.precision, recompute=options.recompute, row_tokens=options.row_tokens
    )
    samples = Noise(draw_lengths((options.steps + WARM) * config.batch, seed=1, scale=scale), shape)
    with process_group(device), tempfile.TemporaryDirectory() as folder:
        trainee = trainee_of(
            random_model(shape, device=str(device)), device, DTYPES[config.precision], recompute=config.recompute
        )
        optimizer = make_optimizer(trainee, config)
        run = Run(Path(folder), trainee.base, config, samples, device=device)
        planner, progress = Planner(samples, config), Progress(LossScale.of(config.precision))
        watch: Any = Watch(Meter(planner, trainee, config))
        for _ in range(WARM + options.steps):
            take_step(run, trainee, optimizer, planner, progress, watch, lambda: False)
        kept = watch.records[WARM:]
        optimizer.zero_grad(set_to_none=True)
        control = padded_rate(trainee, samples, 2 if options.tiny else 12)
    rate = statistics.median(one.samples_per_second for one in kept)
    mfu = [one.mfu for one in kept if one.mfu is not None]
    for name, value in (
        ("device", f"{watch.meter.device_name}, torch {torch.__version__}"),
        ("attention", f"{trainee.kernel_name} {' '.join(trainee.notes)}"),
        ("settings", f"{config.precision}, rows of {config.row_tokens}, recompute {config.recompute}"),
        ("samples / s, packed", f"{rate:.2f} (median of {len(kept)} steps of {config.batch}, with the update)"),
        ("real tokens / s", f"{statistics.median(one.tokens_per_second for one in kept):.0f}"),
        ("MFU", f"{statistics.median(mfu):.3f}, {MFU_FORMULA}" if mfu else "the peak of this device is not known"),
        ("peak memory", f"{max(one.peak_memory_bytes for one in kept) / 2**30:.1f} GiB"),
        ("samples / s, padded to 2048", f"{control:.2f} (forward and backward)"),
        ("packed is faster by", f"{rate / control:.2f} ×"),
        ("skipped steps", progress.n_skipped),
    ):
        print(f"{name:<30} {value}", flush=True)


if __name__ == "__main__":
    main()
