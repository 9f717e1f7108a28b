"""How many samples a step gets through: packed rows against padded ones, on a CPU; and how fast a run finds its place.

    python -m benchmarks.bench_training
    python -m benchmarks.bench_training --samples 8 --rounds 1     to see that it works

A model of ChatGLM-6B's shape with 20 million random weights takes samples of SMILECHAT's lengths forward and back, one
thread, float32. Four layouts of the same stream of samples, turn about, so that the machine is the same for all:

    packed             rows without padding, each sample's own prefix mask, logits where a label is (training/finetune)
    dynamic, labels    micro-batches of ten, padded to the longest of them, logits where a label is
    dynamic            the same, logits everywhere: what a collator does
    to 2048            padded to 1536 + 512, logits everywhere: the recipe published with ChatGLM-6B

Processor seconds are counted, for the machine may have other work. Optimizer and data loading are left out of all four.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.lengths import Lengths, draw_lengths
from benchmarks.random_model import Shape, n_parameters, random_model
from training.finetune import packing
from training.finetune.config import SOULCHAT_PAPER
from training.finetune.planner import Placed, Planner, pack
from training.finetune.samples import Ints

SHAPE = Shape(8, 384, 6, 16_000)  # 20 million parameters
LONGEST = 1536 + 512
MICRO_BATCH = 10
ROW_TOKENS = 4096
SEED = 1
PAPER_SAMPLES = 2_300_248


class Noise:
    """Samples of given lengths, their ids random."""

    content_hash = "noise"

    def __init__(self, lengths: Sequence[Lengths], shape: Shape) -> None:
        self._context = np.array([one.prompt - 1 for one in lengths])  # `<sop>`, the prompt's last, has a label
        self._target = np.array([min(one.response + 2, 512) for one in lengths])
        self.shape = shape

    def __len__(self) -> int:
        return len(self._target)

    def lengths(self) -> tuple[Ints, Ints]:
        return self._context, self._target

    def __getitem__(self, index: int) -> tuple[Ints, Ints]:
        rng = np.random.default_rng([SEED, index])
        c, t = int(self._context[index]), int(self._target[index])
        context, target = (rng.integers(10, self.shape.vocabulary - 10, n) for n in (c, t))
        context[-1] = self.shape.vocabulary - 4  # [gMASK]
        target[0], target[-1] = self.shape.vocabulary - 1, self.shape.vocabulary - 2  # <sop>, <eop>
        return context, target


def packed_rows(samples: Noise, numbers: Sequence[int]) -> list[packing.PackedRow]:
    context, target = samples.lengths()
    bins = pack([int(context[i] + target[i]) for i in numbers], ROW_TOKENS)
    device = torch.device("cpu")
    return [
        packing.pack_row(
            tuple(Placed(numbers[i], 1.0) for i in held),
            samples,
            is_prefix_model=True,
            device=device,
            kernel=packing.by_sample,
        )
        for held in bins
    ]


def padded_batch(samples: Noise, numbers: Sequence[int], width: int | None) -> tuple[Tensor, Tensor]:
    """Ids and labels, padded on the right; width None: to the longest."""
    parts = [samples[i] for i in numbers]
    width = width or max(len(c) + len(t) for c, t in parts)
    ids = torch.full((len(parts), width), 3)
    labels = torch.full((len(parts), width), -100)
    for row, (context, target) in enumerate(parts):
        whole = torch.as_tensor(np.concatenate([context, target]))
        ids[row, : len(whole)] = whole
        labels[row, len(context) : len(whole)] = whole[len(context) :]
    return ids, labels


def run_packed(model: Any, samples: Noise, numbers: Sequence[int]) -> None:
    model.config._attn_implementation = packing.PACKED
    for row in packed_rows(samples, numbers):
        packing.weighted_loss(model, row).backward()
    model.zero_grad()


def run_padded(
    model: Any, samples: Noise, numbers: Sequence[int], *, batch: int, width: int | None, only_labels: bool = False
) -> None:
    model.config._attn_implementation = "sdpa"
    for start in range(0, len(numbers), batch):
        ids, labels = padded_batch(samples, numbers[start : start + batch], width)
        if only_labels:
            has_label = labels[:, 1:] >= 0
            predicted = torch.nn.functional.pad(has_label, (0, 1))
            logits = model(input_ids=ids, logits_to_keep=predicted, use_cache=False).logits
            torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][has_label]).backward()
        else:
            model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
    model.zero_grad()


def compare(n_samples: int, rounds: int) -> str:
    model = random_model(SHAPE).train()
    packing.use_packed_attention(model)
    samples = Noise(draw_lengths(rounds * n_samples, seed=SEED), SHAPE)
    context, target = samples.lengths()
    n_to_2048 = max(2, n_samples // 10)  # a tenth of the samples: the time does not depend on which
    layouts: dict[str, tuple[int, Callable[[Sequence[int]], None]]] = {
        "packed": (n_samples, lambda numbers: run_packed(model, samples, numbers)),
        "dynamic, labels": (
            n_samples,
            lambda numbers: run_padded(model, samples, numbers, batch=MICRO_BATCH, width=None, only_labels=True),
        ),
        "dynamic": (n_samples, lambda numbers: run_padded(model, samples, numbers, batch=MICRO_BATCH, width=None)),
        "to 2048": (n_to_2048, lambda numbers: run_padded(model, samples, numbers, batch=2, width=LONGEST)),
    }
    for _, run in layouts.values():
        run([0, 1])
    rates: dict[str, list[float]] = {name: [] for name in layouts}
    for round_ in range(rounds):
        for name, (n, run) in layouts.items():
            numbers = list(range(round_ * n_samples, round_ * n_samples + n))
            started = time.process_time()
            run(numbers)
            rates[name].append(n / (time.process_time() - started))
    tokens = float((context + target).mean())
    lines = [
        f"{n_parameters(model) / 1e6:.1f} million weights, {len(samples)} samples of {context.mean():.0f} + "
        f"{target.mean():.0f} tokens in the mean, {rounds} rounds, {torch.get_num_threads()} thread",
        "",
        "| layout | samples / processor second (median, range) | real tokens / s | packed is faster by |",
        "| --- | --- | --- | --- |",
    ]
    median = {name: float(np.median(values)) for name, values in rates.items()}
    for name, values in rates.items():
        spread = f"{median[name]:.2f} ({min(values):.2f} to {max(values):.2f})"
        lines.append(f"| {name} | {spread} | {median[name] * tokens:.0f} | {median['packed'] / median[name]:.2f} × |")
    return "\n".join(lines)


def resume() -> str:
    """Seconds until a run of the paper's size knows the samples of its step 29,000; lengths alone, no ids."""
    lengths = draw_lengths(20_000, seed=SEED)
    samples = Noise([lengths[i % len(lengths)] for i in range(PAPER_SAMPLES)], SHAPE)
    started = time.perf_counter()
    plan = Planner(samples, SOULCHAT_PAPER, world=8).plan(29_000)
    first = time.perf_counter() - started
    started = time.perf_counter()
    Planner(samples, SOULCHAT_PAPER, world=8).plan(29_001)
    again = time.perf_counter() - started
    n = len(plan.samples)
    return (
        "| resume at step 29,000 of 30,000 | seconds |\n| --- | --- |\n"
        f"| plan of its {n} samples on 8 devices, from nothing ({PAPER_SAMPLES:,} samples) | {first:.2f} |\n"
        f"| plan of the step after it | {again:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(compare(options.samples, options.rounds), flush=True)
    print(f"\n{resume()}")


if __name__ == "__main__":
    main()
