"""What a run will need and how long it will take on given hardware, told before it is launched. No torch in here.

Memory of one device, with W devices, P weights of which T train, b bytes of a number in the run's precision:

    weights          4 T / W in float32, b (P - T) / W of the frozen ones
    moments          8 T / W
    gradients        4 T / W
    gathered         b P: all weights in the run's precision, kept from forward to backward
    exchange         (b + 4) x the largest group of weights, that of the embeddings: a gradient on the way to its share
    activations      b x kept x layers x tokens of a row; with recomputation, b x hidden x layers x tokens and one block
    logits           14 bytes x vocabulary x labels of a row
    rest             1.5 GB: the driver and what lies between blocks of memory

Hours = steps x FLOPs of a mean step / (W x peak x MFU). The MFU is an assumption until the run itself measures it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from training.finetune.config import FinetuneConfig, Precision
from training.finetune.errors import DoesNotFit
from training.finetune.hardware import ModelShape, peak_tflops, seen_pairs
from training.finetune.samples import Ints

ASSUMED_MFU = 0.4
RECOMPUTED = 4 / 3  # a forward pass more
REST_BYTES = 1.5e9
BYTES: dict[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Hardware:
    """name: as the device calls itself.  memory_bytes: of one device."""

    name: str
    memory_bytes: float
    devices: int = 1


@dataclass(frozen=True)
class Cost:
    """memory: bytes of one device by part.  hours: None where the device's peak is not known.

    disk_bytes: for the checkpoints that are kept, one more while it is written, and the weights at the end.
    """

    memory: dict[str, float]
    hours: float | None
    assumed_mfu: float
    samples_per_second: float | None
    disk_bytes: float
    hardware: Hardware

    @property
    def memory_bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.memory_bytes <= self.hardware.memory_bytes


def estimate(
    config: FinetuneConfig,
    shape: ModelShape,
    lengths: tuple[Ints, Ints],
    hardware: Hardware,
    *,
    is_prefix_model: bool,
    mfu: float = ASSUMED_MFU,
) -> Cost:
    """lengths: of contexts and of targets of the corpus, in tokens, shape (n,) each."""
    context, target = lengths
    tokens, labels = float(np.mean(context + target)), float(np.mean(target))
    pairs = seen_pairs(context, target, is_prefix_model=is_prefix_model) / len(target)
    is_full = config.method == "full"
    trained = shape.parameters if is_full else shape.adapter_weights
    frozen = 0 if is_full else shape.parameters
    b, devices = BYTES[config.precision], hardware.devices
    longest = float(np.max(context + target))
    row = max(longest, min(float(config.row_tokens), config.batch * tokens / devices))
    inside = shape.kept * row * b
    kept = shape.layers * inside if not config.recompute else shape.layers * shape.hidden * row * b + inside
    memory = {
        "weights": (4 * trained + b * frozen) / devices,
        "moments": 8 * trained / devices,
        "gradients": 4 * trained / devices,
        "gathered": float(b * (trained + frozen)),
        "exchange": float((b + 4) * (shape.head_weights if is_full else 0)),
        "activations": kept,
        "logits": 14 * shape.vocabulary * row * labels / tokens,
        "rest": REST_BYTES,
    }
    peak = peak_tflops(hardware.name)
    per_second = None
    if peak is not None:
        flops = shape.flops(tokens=tokens, labels=labels, pairs=pairs, method=config.method)
        per_second = devices * peak * 1e12 * mfu / flops / (RECOMPUTED if config.recompute else 1)
    return Cost(
        memory=memory,
        hours=None if per_second is None else config.steps * config.batch / per_second / 3600,
        assumed_mfu=mfu,
        samples_per_second=per_second,
        disk_bytes=12.0 * trained * (config.keep_checkpoints + 1) + b * trained,
        hardware=hardware,
    )


def refuse_what_cannot_fit(
    config: FinetuneConfig,
    shape: ModelShape,
    lengths: tuple[Ints, Ints],
    hardware: Hardware,
    *,
    is_prefix_model: bool,
) -> Cost:
    """The cost of a run that fits. Raises DoesNotFit, which says what is too large and what would fit."""
    cost = estimate(config, shape, lengths, hardware, is_prefix_model=is_prefix_model)
    if cost.fits:
        return cost
    longest = int(np.max(lengths[0] + lengths[1]))
    shorter = max(longest, config.max_context_tokens + config.max_target_tokens)
    ways = (
        ("recompute = true", dataclasses.replace(config, recompute=True), hardware),
        (f"recompute = true and row_tokens = {shorter}", _with(config, recompute=True, row_tokens=shorter), hardware),
        *(
            (f"{n} such devices", config, dataclasses.replace(hardware, devices=n))
            for n in (2, 4, 8, 16)
            if n > hardware.devices
        ),
    )
    fitting = next(
        (said for said, c, h in ways if estimate(c, shape, lengths, h, is_prefix_model=is_prefix_model).fits),
        "method = lora, or a smaller model",
    )
    parts = sorted(cost.memory.items(), key=lambda part: -part[1])[:3]
    largest = ", ".join(f"{name} {value / 2**30:.1f}" for name, value in parts)
    raise DoesNotFit(
        f"the run needs about {cost.memory_bytes / 2**30:.1f} GiB on each device ({largest}), and {hardware.name} has "
        f"{hardware.memory_bytes / 2**30:.1f} GiB; what would fit: {fitting}"
    )


def _with(config: FinetuneConfig, *, recompute: bool, row_tokens: int) -> FinetuneConfig:
    return dataclasses.replace(config, recompute=recompute, row_tokens=row_tokens)
