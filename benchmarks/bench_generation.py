"""Responses per second on a CPU: the running batch, `generate` one by one, and static left-padded batches.

    python -m benchmarks.bench_generation [--items 256 64] [--rows 32] [--threads 1 2] [--scale 1]

The same prompts and the same lengths of responses on all sides, ChatGLM-6B's architecture with random weights at two
sizes, float32, the paper's decoding, and for each number of threads the same number on all sides. Lengths follow the
real ones (benchmarks/lengths.py). No prompt shares its beginning with another, so nothing is gained by that here.

The running batch answers all items, enough of them that most of its steps are full, as in a batch of thousands. One by
one takes the same time whatever the number, so it answers a few of them, of the same mean lengths; one half before the
running batch, one half after it, since a machine's speed drifts. A static batch of a few such items runs to the end of
its longest response, as the usual script does; it is measured with the first number of threads.

Processor seconds count the work of all threads, and on a busy machine they are what can be trusted; the clock is what
a person waits for, and means something on a quiet machine. Prints Markdown; each measurement goes to the error stream.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.lengths import Lengths, draw_lengths
from benchmarks.random_model import DECODING, SMALL, TINY, Shape, n_parameters, prompts_of, random_model, run_batch
from models_runtime.engine import batch
from models_runtime.engine.batch import TOLERANCE, Counts
from models_runtime.engine.cpu import pack_linears
from models_runtime.engine.memory import Limits

SAMPLING = {
    "do_sample": True,
    "temperature": DECODING.temperature,
    "top_p": DECODING.top_p,
    "top_k": DECODING.top_k,
}
ITEMS_PER_LOOP_ITEM = 4  # answered by the running batch for each that is answered one by one
STATIC_ROWS = {"tiny": 32, "100M": 8}  # answered by one static batch


@dataclass
class Side:
    """One way to answer: processor and clock seconds for what it answered."""

    lengths: list[Lengths]
    processor: float = 0.0
    clock: float = 0.0

    def per_item(self, seconds: float) -> float:
        return seconds / len(self.lengths)

    def means(self) -> str:
        prompt, response = (sum(values) / len(self.lengths) for values in zip(*self.lengths, strict=True))
        return f"{prompt:.0f}, {response:.0f}"


def like_all(lengths: list[Lengths], k: int, rng: random.Random) -> list[int]:
    """k items whose prompts and responses have the mean lengths of all, as nearly as many draws find them."""

    def means(items: Sequence[int]) -> list[float]:
        return [sum(values) / len(items) for values in zip(*(lengths[i] for i in items), strict=True)]

    wanted = means(range(len(lengths)))
    draws = (rng.sample(range(len(lengths)), k) for _ in range(2000))
    return min(draws, key=lambda items: sum(abs(m / w - 1) for m, w in zip(means(items), wanted, strict=True)))


class Sides:
    """The same work by each side, measured in turns."""

    def __init__(self, name: str, shape: Shape, n: int, rows: int, scale: float) -> None:
        self.name, self.rows, self.counts = name, rows, Counts()
        self.plain, self.packed = random_model(shape), random_model(shape)
        self.plain.generation_config.eos_token_id = None
        pack_linears(self.packed)  # as the worker does after loading
        self.lengths = draw_lengths(n, seed=1, scale=scale)
        self.prompts = prompts_of(self.lengths, shape, seed=2)
        self.few = like_all(self.lengths, max(n // ITEMS_PER_LOOP_ITEM, 2), random.Random(3))
        self.some = like_all(self.lengths, min(n, STATIC_ROWS[name]), random.Random(4))

    def measure(self, threads: int, *, with_static: bool) -> dict[str, Any]:
        torch.set_num_threads(threads)
        ours, loop = Side(self.lengths), Side([self.lengths[i] for i in self.few])
        run_batch(self.packed, self.prompts[:2], self.lengths[:2], Limits(2, 10**9), Counts())  # first calls set up
        _generate(self.plain, [self.prompts[0]], 2)
        sides = {"ours": ours, "one by one": loop}
        with self._timed(threads, "one by one", loop):
            self._one_by_one(self.few[::2])
        with self._timed(threads, "ours", ours):
            self.counts = Counts()
            done = run_batch(self.packed, self.prompts, self.lengths, Limits(self.rows, 10**9), self.counts)
            assert [len(done[i]) for i in range(len(self.lengths))] == [length.response for length in self.lengths]
        with self._timed(threads, "one by one", loop):
            self._one_by_one(self.few[1::2])
        if with_static:
            sides["static"] = Side([self.lengths[i] for i in self.some])
            with self._timed(threads, "static", sides["static"]):
                longest = max(length.response for length in sides["static"].lengths)
                _generate(self.plain, [self.prompts[i] for i in self.some], longest)
        return {
            "parameters": n_parameters(self.plain), "threads": threads, "items": len(self.lengths), "rows": self.rows,
            "sides": sides, "counts": self.counts,
        }  # fmt: skip

    def _one_by_one(self, items: Sequence[int]) -> None:
        for i in items:
            _generate(self.plain, [self.prompts[i]], self.lengths[i].response)

    @contextmanager
    def _timed(self, threads: int, name: str, side: Side) -> Iterator[None]:
        processor, clock = time.process_time(), time.perf_counter()
        yield
        side.processor += time.process_time() - processor
        side.clock += time.perf_counter() - clock
        told = {"model": self.name, "threads": threads, "side": name, "processor": side.processor, "clock": side.clock}
        print(json.dumps(told), file=sys.stderr, flush=True)


def _generate(model: Any, prompts: list[list[int]], n_new: int) -> None:
    """What transformers' generate writes for these prompts in one call."""
    width = max(map(len, prompts))
    pad = model.config.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=n_new, pad_token_id=pad, eos_token_id=None, **SAMPLING
        )
    assert written.shape[1] == width + n_new, "generate ended early"


def measure_shared(scale: float) -> str:
    """What it saves to read once what prompts share, in a model that sees no later token; responses of one token.

    A dialogue of six rounds makes six items, each of which begins with all of the one before; all begin with the same
    instruction. Turns are of one length.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=8000, hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, attn_implementation="sdpa", initializer_range=512**-0.5,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    millions = n_parameters(model) / 1e6
    pack_linears(model)
    rng = random.Random(5)
    instruction, prompts = [rng.randrange(8000) for _ in range(round(100 * scale))], []
    for _ in range(4):
        ids = list(instruction)
        for _ in range(6):
            ids += [rng.randrange(8000) for _ in range(round(80 * scale))]
            prompts.append(list(ids))
    lengths = [Lengths(len(ids), 1) for ids in prompts]
    told, before = [], batch.FEWEST_SHARED
    for fewest in (before, 10**9):
        batch.FEWEST_SHARED = fewest
        counts, started = Counts(), time.process_time()
        run_batch(model, prompts, lengths, Limits(32, 10**9), counts)
        told.append((time.process_time() - started, counts.n_prompt_tokens))
    batch.FEWEST_SHARED = before
    (once, n_once), (whole, n_whole) = told
    return (
        f"Where prompts share their beginnings ({len(prompts)} items cut from 4 dialogues, a causal model of "
        f"{millions:.0f} M, one thread), reading takes {once:.1f} processor seconds if read once ({n_once} tokens), "
        f"{whole:.1f} if every prompt is read whole ({n_whole}), {whole / once:.1f} ×. Nothing above gains by this."
    )


def render(found: list[dict[str, Any]]) -> str:
    packages = f"torch {version('torch')}, transformers {version('transformers')}"
    lines = [
        f"{packages}, float32, {os.cpu_count()} cores. {os.getloadavg()[0]:.1f} processes wanted them at the end: "
        "if more than the threads, other work shared the machine, and processor seconds are what to trust.",
        "",
        "| parameters | threads | items | rows | ours, items/s | ours / one by one: processor | clock | "
        "ours / static: processor |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        ours, loop, static = (one["sides"].get(side) for side in ("ours", "one by one", "static"))

        def times(other: Side | None, seconds: Callable[[Side], float], ours: Side = ours) -> str:
            return f"{other.per_item(seconds(other)) / ours.per_item(seconds(ours)):.1f} ×" if other else "–"

        lines.append(
            f"| {one['parameters'] / 1e6:.1f} M | {one['threads']} | {one['items']} | {one['rows']} | "
            f"{1 / ours.per_item(ours.clock):.2f} | {times(loop, lambda side: side.processor)} | "
            f"{times(loop, lambda side: side.clock)} | {times(static, lambda side: side.processor)} |"
        )
    lines += [
        "",
        "Each side: items answered (mean tokens of prompt, response), processor and clock seconds per item.",
        "",
    ]
    for one in found:
        told = "; ".join(
            f"{name} {len(side.lengths)} ({side.means()}) {side.per_item(side.processor):.3g}, "
            f"{side.per_item(side.clock):.3g} s"
            for name, side in one["sides"].items()
        )
        lines.append(f"- {one['parameters'] / 1e6:.1f} M, threads {one['threads']}: {told}")
    lines += [
        "",
        f"Choices decided anew from the row alone (tolerance {TOLERANCE:g}), and the largest drift seen there:",
        "",
    ]
    for one in found:
        counts: Counts = one["counts"]
        lines.append(
            f"- {one['parameters'] / 1e6:.1f} M, threads {one['threads']}: {counts.n_rechecks} of "
            f"{counts.n_rows_stepped} choices, drift {counts.max_drift:.1e}; "
            f"{counts.n_rows_stepped / max(counts.n_steps, 1):.0f} rows a step"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs=2, default=[256, 64], metavar=("TINY", "100M"))
    parser.add_argument("--rows", type=int, default=32, help="responses at once")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths, for a quicker look")
    options = parser.parse_args()
    found = []
    for name, shape, n in (("tiny", TINY, options.items[0]), ("100M", SMALL, options.items[1])):
        if n:
            sides = Sides(name, shape, n, options.rows, options.scale)
            found += [sides.measure(threads, with_static=threads == options.threads[0]) for threads in options.threads]
    print(render(found))
    print(f"\n{measure_shared(options.scale)}")


if __name__ == "__main__":
    main()
