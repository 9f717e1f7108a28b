"""python -m models_runtime.engine.worker JOB.json: the child process that answers; it alone holds the model.

It reads one job file, answers its items and writes one JSON object per line on standard output:

    {"type": "progress"}                                                     now and then while the weights are read
    {"type": "ready", "spec", "spec_digest", "seed", "n_total", "device", "versions", "limits", "notes", "is_exact"}
    {"type": "progress", "n_done", "n_total", "tokens_out", "seconds"}       about once a second
    {"type": "response", "item", "repeat", "text", "provenance"}             provenance: how it came to be
    {"type": "error", "item", "repeat", "code", "message", "provenance"}     this item has none; the others go on
    {"type": "done", "n_responses", "n_errors", "counts", "tolerance"}       or "stopped", with the same fields
    {"type": "failed", "error_class", "error", "is_final", "exit_code"}      last words before an exit code of failure

It writes no file and so syncs none: a line is flushed as soon as it is whole, and keeping it is the reader's work. A
response that was lost on the way is made again, the same one, by the next run that is asked for it.

SIGTERM and SIGINT stop it before the next step; what was under way is dropped, and the exit code is STOPPED.
Standard output belongs to the protocol: whatever libraries print goes to standard error.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from models_runtime.engine.batch import TOLERANCE, Counts
from models_runtime.engine.child import Child, Failure, as_child, read_job
from models_runtime.engine.cpu import pack_linears
from models_runtime.engine.errors import DeviceUnavailable, EngineError
from models_runtime.engine.generation import Generation, generate
from models_runtime.engine.loading import Loaded, load
from models_runtime.engine.memory import Limits, default_limits, is_out_of_memory
from models_runtime.engine.prompts import DEFAULT_TEMPLATES, TEMPLATES, Template
from models_runtime.engine.protocol import (
    BAD_JOB,
    BAD_MODEL,
    BUG,
    DONE,
    NO_DEVICE,
    OUT_OF_MEMORY,
    STOPPED,
    BadJob,
    WorkerJob,
    read_work,
)
from models_runtime.engine.speaker import LoadedSpeaker
from models_runtime.engine.spec import DecodingConfig, SystemSpec
from models_runtime.engine.trial import try_in_batch

SECONDS_BETWEEN_PROGRESS = 1.0
SECONDS_BETWEEN_SIGNS = 10.0  # of life, while the weights are read: far below what a supervisor takes for death
PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "peft", "numpy")

Emit = Callable[[dict[str, Any]], None]


class OtherSpec(Exception):
    """The system is not the one whose responses are to be completed."""


def run(job: WorkerJob, emit: Emit, should_stop: Callable[[], bool]) -> int:
    """Answer the job's items; returns DONE or STOPPED.

    Raises BadJob, OtherSpec, EngineError.
    """
    work = read_work(job.items)
    loaded = load(
        job.weights,
        adapter=job.adapter,
        dtype=getattr(torch, job.dtype),
        device=job.device,
        digest_cache=job.digest_cache,
        tell=_signs_of_life(emit),
    )
    pack_linears(loaded.model)
    if loaded.family == "causal":  # the two others are known
        try_in_batch(loaded.model)
    template = job.template or TEMPLATES[DEFAULT_TEMPLATES[loaded.family]]
    spec = spec_of(loaded, template, job.decoding)
    if job.expected_spec and spec.digest != job.expected_spec:
        raise OtherSpec(
            f"this system is {spec.digest[:12]}…, and what is to be completed was {job.expected_spec[:12]}…"
        )
    longest = job.decoding.max_input_tokens + job.decoding.max_new_tokens
    if longest > loaded.context_length:
        raise BadJob(
            f"max_input_tokens and max_new_tokens make {longest}, and the model was made for {loaded.context_length} "
            "tokens: lower one of them"
        )
    default = default_limits(loaded.model)
    limits = Limits(job.batch_rows or default.rows, job.batch_tokens or default.tokens)
    about = {"seed": job.seed, "device": device_name(loaded.device), "versions": versions()}
    emit(
        {
            "type": "ready",
            "spec": spec.to_json(),
            "spec_digest": spec.digest,
            "n_total": len(work),
            "limits": dataclasses.asdict(limits),
            "notes": list(loaded.notes),
            "is_exact": loaded.dtype == torch.float32,
            **about,
        }
    )
    counts, tally = Counts(), _Tally(emit, len(work))

    def step() -> bool:
        tally.tell()  # also while a long step goes on without a response: a silent child is taken for dead
        return should_stop()

    for one in generate(
        LoadedSpeaker(loaded),
        work,
        template=template,
        decoding=job.decoding,
        seed=job.seed,
        limits=limits,
        should_stop=step,
        counts=counts,
    ):
        known = {"spec": spec.to_json(), "spec_digest": spec.digest, **about, **provenance(one, counts)}
        emit(_message(one, known))
        tally.count(one)
    tally.tell(is_last=True)
    is_stopped = tally.n_responses + tally.n_errors < len(work)
    emit(
        {
            "type": "stopped" if is_stopped else "done",
            "n_responses": tally.n_responses,
            "n_errors": tally.n_errors,
            "counts": dataclasses.asdict(counts),
            "tolerance": TOLERANCE,
        }
    )
    return STOPPED if is_stopped else DONE


def _signs_of_life(emit: Emit) -> Callable[[], None]:
    """What to call as often as one likes."""
    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told >= SECONDS_BETWEEN_SIGNS:
            told = time.monotonic()
            emit({"type": "progress"})

    return tell


class _Tally:
    """How far the run is, told about once a second."""

    def __init__(self, emit: Emit, n_total: int) -> None:
        self.emit, self.n_total = emit, n_total
        self.n_responses = self.n_errors = self.tokens_out = 0
        self.started = self.told = time.monotonic()

    def count(self, one: Generation) -> None:
        if one.finish_reason == "error":
            self.n_errors += 1
        else:
            self.n_responses += 1
        self.tokens_out += one.tokens_out

    def tell(self, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if is_last or now - self.told >= SECONDS_BETWEEN_PROGRESS:
            self.told = now
            self.emit(
                {
                    "type": "progress",
                    "n_done": self.n_responses + self.n_errors,
                    "n_total": self.n_total,
                    "tokens_out": self.tokens_out,
                    "seconds": now - self.started,
                }
            )


def spec_of(loaded: Loaded, template: Template, decoding: DecodingConfig) -> SystemSpec:
    """The spec of a loaded model under a template and a decoding."""
    dtype: Any = str(loaded.dtype).removeprefix("torch.")
    return SystemSpec(
        family=loaded.family,
        weights_digest=loaded.weights_digest,
        adapter_digest=loaded.adapter_digest,
        template_id=template.id,
        template_version=template.version,
        decoding=decoding,
        dtype=dtype,
    )


def provenance(one: Generation, counts: Counts) -> dict[str, Any]:
    """What is known of a single response beside its system: lengths, cut turns, ending, time, the size of the batch."""
    return {
        "tokens_in": one.tokens_in,
        "tokens_out": one.tokens_out,
        "finish_reason": one.finish_reason,
        "n_turns": one.n_turns,
        "n_turns_cut": one.n_turns_cut,
        "seconds": round(one.seconds, 3),
        "rows_at_once": counts.rows_at_once,
        **({"raw_text": one.raw_text} if one.raw_text != one.text else {}),
    }


def _message(one: Generation, known: dict[str, Any]) -> dict[str, Any]:
    named = {"item": one.item, "repeat": one.repeat}
    if one.finish_reason == "error":
        return {"type": "error", **named, "code": one.error_code, "message": one.error, "provenance": known}
    return {"type": "response", **named, "text": one.text, "provenance": known}


def versions() -> dict[str, str]:
    """Releases of everything whose arithmetic or words have a part in a response."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def device_name(device: torch.device) -> str:
    """The device in words: kind, model where known, threads on a CPU."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"{device} {platform.machine()}, {torch.get_num_threads()} threads"


def failure_of(error: Exception) -> Failure:
    """Exit code, error class, and whether trying again would be in vain."""
    if isinstance(error, (BadJob, OtherSpec)):
        return BAD_JOB, type(error).__name__, True
    if isinstance(error, DeviceUnavailable):
        return NO_DEVICE, type(error).__name__, True
    if isinstance(error, EngineError):
        return BAD_MODEL, type(error).__name__, True
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, "OutOfMemory", False
    return BUG, type(error).__name__, False


def main(argv: Sequence[str]) -> int:
    def body(child: Child) -> int:
        child.heed_signals()
        job = read_job(argv, WorkerJob.from_json, BadJob, module="models_runtime.engine.worker")
        return run(job, child.emit, lambda: child.is_asked_to_stop)

    return as_child(body, failure_of, traced=(BUG, OUT_OF_MEMORY))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
