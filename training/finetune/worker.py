"""python -m training.finetune.worker JOB.json: the child process that trains.

It writes one JSON object per line on standard output:

    {"type": "hardware", "device", "memory_bytes", "devices"}            what is there, before anything is loaded
    {"type": "ready", "step", "steps", "corpus_hash", "base_digest", "device", "attention", "versions", …}
    {"type": "progress", "n_done", "n_total"}                            about once a second
    {"type": "step", "step", "loss", "learning_rate", "tokens_per_second", "mfu", …}    with it; all are in steps.csv
    {"type": "evaluation", "step", "loss", …}    {"type": "checkpoint", "step", "name", "seconds"}
    {"type": "note", "text"}                                             something a person should know
    {"type": "answering", "n_done", "n_total"}                           held-out samples, after each and now and then
    {"type": "answers", "n", "decoding", "scores"}                       at the end, BLEU and ROUGE
    {"type": "done", "folder", "loss", "held_out_loss", …}               or "stopped"
    {"type": "failed", "error_class", "error", "is_final", "exit_code"}  last words before an exit code of failure

SIGTERM and SIGINT stop it after the step under way, with a checkpoint; the exit code is STOPPED, and the same job goes
on from there. With several processes this one starts torchrun and passes the wish on through a file in the run's
folder: torchrun itself, told to stop, would leave its processes half a minute for a checkpoint that may need more.
Standard output belongs to the protocol: whatever libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from models_runtime.engine.child import Child, as_child, last_words, read_job
from models_runtime.engine.errors import DeviceUnavailable, EngineError
from models_runtime.engine.loading import adapter_digest, weights_digest
from models_runtime.engine.memory import is_out_of_memory
from training.corpus.errors import CorpusError
from training.corpus.store import Store
from training.finetune.errors import (
    BadConfig,
    BadData,
    BadModel,
    DeviceTooSmall,
    DiskTooFull,
    FinetuneError,
    LostPeer,
    RunIsBusy,
)
from training.finetune.evaluation import answer_held_out
from training.finetune.export import write_card
from training.finetune.loop import Emit, Outcome, Run, claimed, train
from training.finetune.protocol import (
    BUG,
    CARD,
    DONE,
    NO_DEVICE,
    OUT_OF_MEMORY,
    STOP_FILE,
    STOPPED,
    FinetuneJob,
)

# How torch and its transports say that the other side is gone.
PEER_SIGNS = ("closed by peer", "reset by peer", "broken pipe", "remote process exited", "timed out waiting")
SECONDS_BETWEEN_SIGNS = 10.0  # while the held-out samples are answered


def run(job: FinetuneJob, emit: Emit, should_stop: Callable[[], bool]) -> int:
    """Train as the job says, in this process alone or as one of torchrun's; returns DONE or STOPPED."""
    rank = int(os.environ.get("RANK", "0"))
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device = _device(job)
    _look_at_hardware(job, device, emit if rank == 0 else None)
    check: Literal["content", "sizes"] = "content" if rank == 0 else "sizes"
    whole = Run(
        folder=job.folder,
        base=job.base,
        config=job.config,
        samples=Store(job.corpus, check=check),
        held_out=None if job.held_out is None else Store(job.held_out, check=check),
        device=device,
        digest_cache=job.digest_cache,
    )
    outcome = train(whole, emit, should_stop)
    gc.collect()  # the model in training makes room for the one that answers
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if rank == 0:
        if outcome.exported is not None:
            _add_to_card(outcome.exported, _digests(whole, outcome.exported))
        _answer(whole, outcome, emit, should_stop)
        emit(_last_message(outcome))
    # To torchrun any other code than 0 is a failure, upon which it kills the others.
    return DONE if outcome.is_finished or dist.is_torchelastic_launched() else STOPPED


def launch(job_file: str, job: FinetuneJob, emit: Emit) -> int:
    """Start the processes of a job under torchrun and pass on what they say; returns their exit code.

    Raises RunIsBusy if another process trains in the run's folder.
    """
    stop_file = job.folder / STOP_FILE
    with claimed(job.folder):  # while another one trains here, the wish to stop is that one's
        stop_file.unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_file.touch())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0"]
    command += [f"--nproc-per-node={job.processes}", "-m", "training.finetune.worker", job_file]
    failures: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603
        for line in child.stdout or ():
            try:
                message = json.loads(line)
            except ValueError:  # a library of torchrun's that writes where it should not
                sys.stderr.write(line)
                continue
            if message["type"] == "failed":
                failures.append(message)
            else:
                last = message
                emit(message)
        code = child.wait()
    if all(failure["error_class"] != RunIsBusy.error_class for failure in failures):
        stop_file.unlink(missing_ok=True)
    if not failures and code == 0:
        return STOPPED if last.get("type") == "stopped" else DONE
    # Who failed first takes the others along, and their words are only that somebody is gone.
    own = [failure for failure in failures if failure["error_class"] != LostPeer.error_class]
    lost = LostPeer(f"a process of this run ended without a word (torchrun: exit code {code})")
    words = (own or failures or [last_words(lost, (LostPeer.exit_code, LostPeer.error_class, LostPeer.is_final))])[0]
    emit(words)
    return int(words["exit_code"])


def _answer(run: Run, outcome: Outcome, emit: Emit, should_stop: Callable[[], bool]) -> None:
    if outcome.exported is None or run.held_out is None or not run.config.n_generated:
        return
    told, told_at = (0, 0), time.monotonic()

    def tell(n_done: int, n_total: int) -> None:
        nonlocal told, told_at
        told, told_at = (n_done, n_total), time.monotonic()
        emit({"type": "answering", "n_done": n_done, "n_total": n_total})

    def look() -> bool:
        """Before every token; the first answer may take an hour on a small machine."""
        if time.monotonic() - told_at >= SECONDS_BETWEEN_SIGNS:
            tell(*told)
        return should_stop()

    answers = answer_held_out(
        run.base, outcome.exported, run.config, run.held_out, device=run.device, should_stop=look, on_progress=tell
    )
    if answers is None:
        emit({"type": "note", "text": "stopped before the held-out samples were answered; the weights are complete"})
        return
    _add_to_card(outcome.exported, {"held_out_answers": answers.to_json()})
    emit({"type": "answers", **answers.to_json()})


def _digests(run: Run, exported: Path) -> dict[str, str | None]:
    """Of the weights, as the version of a system that answers with them names them."""
    if run.config.method == "lora":
        base, adapter = weights_digest(run.base, cache=run.digest_cache), adapter_digest(exported)
        return {"weights_digest": base, "adapter_digest": adapter}
    return {"weights_digest": weights_digest(exported, cache=run.digest_cache), "adapter_digest": None}


def _add_to_card(exported: Path, more: dict[str, Any]) -> None:
    card = json.loads((exported / CARD).read_text(encoding="utf-8"))
    write_card(exported, {**card, **more})


def _last_message(outcome: Outcome) -> dict[str, Any]:
    progress = outcome.progress
    return {
        "type": "done" if outcome.is_finished else "stopped",
        "folder": None if outcome.exported is None else str(outcome.exported),
        "step": progress.step,
        "loss": progress.loss,
        "held_out_loss": progress.held_out_loss,
        "n_skipped": progress.n_skipped,
        "seconds": progress.seconds,
    }


def _device(job: FinetuneJob) -> torch.device:
    if job.device == "cpu":
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"{job.processes} CUDA devices are asked for, and {torch.cuda.device_count()} are here; lower processes, "
            "or set device to cpu"
        )
    return torch.device("cuda", number)


def _look_at_hardware(job: FinetuneJob, device: torch.device, emit: Emit | None) -> None:
    """Tell what is there. Raises DeviceTooSmall where a GPU has less memory than the estimate says is needed.

    On a CPU the system has the last word: part of what is counted there never lies in memory at once, and it can swap.
    """
    if device.type == "cpu":
        name, n_bytes, n_devices = "cpu", machine_bytes(), 1
    else:
        about = torch.cuda.get_device_properties(device)
        name, n_bytes, n_devices = about.name, about.total_memory, torch.cuda.device_count()
    if emit is not None:
        emit({"type": "hardware", "device": name, "memory_bytes": n_bytes, "devices": n_devices})
    if device.type != "cpu" and job.needed_bytes is not None and job.needed_bytes > n_bytes:
        raise DeviceTooSmall(
            f"the run needs about {job.needed_bytes / 2**30:.1f} GiB on each device, and {name} has "
            f"{n_bytes / 2**30:.1f} GiB"
        )


def machine_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def failure_of(error: BaseException) -> tuple[int, str, bool]:
    """Exit code, error class, and whether trying again would be in vain."""
    if isinstance(error, FinetuneError):
        return error.exit_code, error.error_class, error.is_final
    if isinstance(error, CorpusError):
        return BadData.exit_code, type(error).__name__, True
    if isinstance(error, DeviceUnavailable):
        return NO_DEVICE, type(error).__name__, True
    if isinstance(error, EngineError):
        return BadModel.exit_code, type(error).__name__, True
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, "OutOfMemory", False
    if _is_disk_full(error):
        return DiskTooFull.exit_code, DiskTooFull.error_class, DiskTooFull.is_final
    if isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in PEER_SIGNS):
        return LostPeer.exit_code, LostPeer.error_class, LostPeer.is_final
    return BUG, type(error).__name__, False


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is at the bottom of it: torch's writer wraps what the system said."""
    while error is not None:
        if "no space left on device" in str(error).lower() or "disk quota exceeded" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def main(argv: Sequence[str]) -> int:
    def body(child: Child) -> int:
        job = read_job(argv, FinetuneJob.from_json, BadConfig, module="training.finetune.worker")
        if job.processes > 1 and not dist.is_torchelastic_launched():
            return launch(argv[0], job, child.emit)
        child.heed_signals()
        if not dist.is_torchelastic_launched():
            return run(job, child.emit, lambda: child.is_asked_to_stop)
        stop_file = job.folder / STOP_FILE  # the launcher's word
        return run(job, child.emit, lambda: child.is_asked_to_stop or stop_file.exists())

    return as_child(body, failure_of, traced=(BUG, OUT_OF_MEMORY, LostPeer.exit_code))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
