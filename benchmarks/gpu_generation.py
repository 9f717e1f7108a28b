"""Responses per second on one GPU, ChatGLM-6B's full shape with random weights, and how far that is from the floor.

    python -m benchmarks.gpu_generation [--items 512] [--rows 128] [--dtype float16]
    python -m benchmarks.gpu_generation --tiny           on a CPU, to see that it runs; its figures mean nothing

Lengths of prompts and responses follow the real ones (benchmarks/lengths.py). The floor is what the same work takes if
nothing but memory and arithmetic limits it: each step reads the weights once, or multiplies them with each row, if that
takes longer, and reads the keys and values that its rows look back at; each prompt token is multiplied with the weights
once. Bandwidth and arithmetic are measured on the device first, by a large copy and a large product.

No setting of the device is changed. Needs torch 2.6 or newer, as transformers does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks.lengths import draw_lengths
from benchmarks.random_model import FULL, TINY, n_parameters, prompts_of, random_model, run_batch
from models_runtime.engine.batch import Counts
from models_runtime.engine.memory import Limits, bytes_per_token, default_limits


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(work: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    work()
    wait(device)
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - start)
    return min(found)


def bandwidth(device: torch.device, n_bytes: int) -> float:
    """Bytes per second of a copy, read and written ones counted."""
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / best_seconds(lambda: target.copy_(source), device)


def arithmetic(device: torch.device, size: int, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: left @ right, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device here; --tiny runs on a CPU")
    device = torch.device("cpu" if options.tiny else "cuda")
    shape, dtype = (TINY, torch.float32) if options.tiny else (FULL, getattr(torch, options.dtype))
    n_items, rows = (min(options.items, 24), 8) if options.tiny else (options.items, options.rows)
    speed = bandwidth(device, 2**22 if options.tiny else 2**32)
    rate = arithmetic(device, 256 if options.tiny else 8192, dtype)
    model = random_model(shape, dtype=dtype, device=str(device))
    lengths = draw_lengths(n_items, seed=1, scale=0.2 if options.tiny else 1.0)
    prompts = prompts_of(lengths, shape, seed=2)
    limits = Limits(rows, default_limits(model).tokens)
    run_batch(model, prompts[:4], lengths[:4], limits, Counts())
    wait(device)
    counts, start = Counts(), time.perf_counter()
    written = sum(map(len, run_batch(model, prompts, lengths, limits, counts).values()))
    wait(device)
    seconds = time.perf_counter() - start
    weights = n_parameters(model)
    n_at_once = counts.n_rows_stepped / max(counts.n_steps, 1)
    step = max(weights * dtype.itemsize / speed, 2 * weights * n_at_once / rate)
    looking_back = counts.n_live_tokens * bytes_per_token(model) / speed
    floor = counts.n_steps * step + looking_back + counts.n_prompt_tokens * 2 * weights / rate
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (toy size: the figures mean nothing)"
    print(
        f"{name}, torch {torch.__version__}, {dtype}\n\n"
        "| parameters | items | rows, limit and mean | copy, GB/s | product, TFLOP/s | output tokens/s | items/s | "
        "share of the floor |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        f"| {weights / 1e6:,.1f} M | {n_items} | {counts.rows_at_once}, {n_at_once:.0f} | {speed / 1e9:,.0f} | "
        f"{rate / 1e12:,.2f} | {written / seconds:,.0f} | {n_items / seconds:,.2f} | {floor / seconds:.0%} |\n\n"
        f"{counts.n_prompt_tokens:,} prompt tokens, {written:,} written in {counts.n_steps:,} steps, "
        f"{seconds:.1f} s; floor {floor:.1f} s."
    )


if __name__ == "__main__":
    main()
