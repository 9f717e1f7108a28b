"""Checkpoints that survive a kill at any moment: each is whole, or is none.

    checkpoints/step-00000500/    the parts of each process, as torch.distributed.checkpoint writes them
                  complete.json   written last: step and state, size and hash of every file, and a hash of all this

A folder without complete.json is what a killed process left behind; it is ignored, and cleared at the next start or
save. All functions are called by every process of the run, and all of them succeed or raise alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from training.finetune.errors import BadCheckpoint, DiskTooFull, FinetuneError
from training.finetune.protocol import MARKER

SPARE = 1.02  # of the size of the tensors, for what lies beside them
READERS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A complete one.  state: what was saved beside the tensors.  is_readable: its marker is as it was written."""

    folder: Path
    step: int
    state: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    is_readable: bool = True


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int) -> Path:
    """Write a checkpoint of this step, then remove all but the newest `keep`.

    Raises DiskTooFull, where it can be foreseen before anything is written.
    """
    target = folder / f"step-{step:08}"
    n_bytes = sum(value.numel() * value.element_size() for value in tensors.values())
    on_first(lambda: _prepare(folder, target, n_bytes))
    try:
        state_dict_saver.save(dict(tensors), checkpoint_id=target)
    except CheckpointException as error:  # which is no Exception, and would pass everybody by
        said = str(error)
        if on_first(lambda: _took_too_much(target, n_bytes, said)):
            raise DiskTooFull(f"the disk of {folder} filled up during a checkpoint; make room and continue") from error
        raise RuntimeError(said) from error
    own = {path.name: _described(path) for path in sorted(target.glob(f"__{dist.get_rank()}_*"))}
    every: list[dict[str, Any] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(every, own)
    on_first(lambda: _complete(folder, target, step, state, every, keep))
    return target


def check_room(folder: Path, n_bytes: int, *, keep: int, at_the_end: int = 0) -> None:
    """Raises DiskTooFull unless the disk holds the checkpoints to be kept, and one more while it is written.

    at_the_end: bytes of what comes beside them when the run is over.
    """

    def look() -> None:
        _clear(folder)
        n_more = max(1, keep + 1 - len(found(folder)))
        need_room(folder, n_bytes * n_more + at_the_end, "what the run saves")

    on_first(look)


def newest(folder: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest complete checkpoint whose files are those that were written, and what is to be said of newer ones.

    Those count as incomplete from now on, so that none of them is kept in the place of a sound one.

    Raises BadCheckpoint if there are complete ones and all of them are damaged.
    """
    return on_first(lambda: _newest(folder))


def load(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Fill the tensors in place. Raises BadCheckpoint if it holds others."""
    try:
        state_dict_loader.load(dict(tensors), checkpoint_id=checkpoint.folder)
    except (Exception, CheckpointException) as error:  # torch's own is no Exception
        reason = str(error).strip().splitlines()[-1][:300]
        raise BadCheckpoint(f"{checkpoint.folder} does not fit this model: {reason}") from error


def found(folder: Path) -> list[Checkpoint]:
    """All complete checkpoints, newest first; unverified."""
    return sorted(map(_read, folder.glob(f"step-*/{MARKER}")), key=lambda one: (-one.step, one.folder))


def _read(marker: Path) -> Checkpoint:
    try:
        held = json.loads(marker.read_text(encoding="utf-8"))
        is_readable = held.pop("sha256") == _digest_of(held)
        return Checkpoint(marker.parent, int(held["step"]), held["state"], held["files"], is_readable)
    except (ValueError, KeyError, TypeError, AttributeError):  # a marker appears whole, so this is damage
        number = marker.parent.name.rpartition("-")[2]
        return Checkpoint(marker.parent, int(number) if number.isdigit() else -1, {}, {}, is_readable=False)


def _digest_of(held: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def damage(checkpoint: Checkpoint) -> str:
    """What is wrong with its files, in words; empty if nothing is."""
    if not checkpoint.is_readable:
        return f"{checkpoint.folder / MARKER} is not as it was written"

    def look(name: str) -> str:
        path, written = checkpoint.folder / name, checkpoint.files[name]
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != written["bytes"] or _described(path) != written:
            return f"{path} is not as it was written"
        return ""

    with ThreadPoolExecutor(READERS) as pool:
        return next(filter(None, pool.map(look, sorted(checkpoint.files))), "")


def _prepare(folder: Path, target: Path, n_bytes: int) -> None:
    _clear(folder)
    if target.exists():  # of this very step, as after a stop at it; the new one is the same
        _remove(target)
    need_room(folder, n_bytes, "a checkpoint")


def _clear(folder: Path) -> None:
    for path in folder.glob("step-*"):
        if not (path / MARKER).is_file():
            shutil.rmtree(path)


def need_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raises DiskTooFull if the folder's disk has less room than that, and a little to spare."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < n_bytes * SPARE:
        raise DiskTooFull(
            f"{what} would take {n_bytes * SPARE / 2**30:.2f} GiB, and the disk of {folder} has "
            f"{free / 2**30:.2f} GiB left; make room and continue the run, or set keep_checkpoints lower"
        )


def _took_too_much(target: Path, n_bytes: int, error: str) -> bool:
    """Whether a save that failed did so for want of room. What it had written makes room again."""
    written = sum(path.stat().st_size for path in target.glob("*"))
    # In the middle of a tensor torch's writer says "unexpected pos" and drops what the system said.
    has_no_room = shutil.disk_usage(target.parent).free < n_bytes - written
    shutil.rmtree(target, ignore_errors=True)
    return has_no_room or "No space left" in error or "quota exceeded" in error


def _complete(
    folder: Path, target: Path, step: int, state: Mapping[str, Any], every: list[dict[str, Any] | None], keep: int
) -> None:
    files = {name: about for own in every for name, about in (own or {}).items()}
    files[".metadata"] = _described(target / ".metadata")
    held = {"step": step, "state": dict(state), "files": files}
    draft = target / f"{MARKER}.new"
    with draft.open("w", encoding="utf-8") as file:
        json.dump({**held, "sha256": _digest_of(held)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target / MARKER)
    sync_folder(target)
    sync_folder(folder)
    for old in found(folder)[keep:]:
        _remove(old.folder)


def _remove(checkpoint: Path) -> None:
    (checkpoint / MARKER).unlink(missing_ok=True)  # first, so that half of it is never taken for the whole
    shutil.rmtree(checkpoint)


def _newest(folder: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    complete = found(folder)
    notes: list[str] = []
    for number, checkpoint in enumerate(complete):
        if not (wrong := damage(checkpoint)):
            for newer in complete[:number]:
                (newer.folder / MARKER).unlink()
            return checkpoint, tuple(notes)
        notes.append(f"{wrong}; the checkpoint before it is taken")
    if complete:
        raise BadCheckpoint(f"no checkpoint can be used: {'; '.join(notes)}; start the run again in another folder")
    return None, ()


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def sync_folder(folder: Path) -> None:
    """Names in the folder are on the disk when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def on_first(act: Callable[[], T]) -> T:
    """What the first process finds, for all of them; its error too."""
    result: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            result[0] = act()
        except (FinetuneError, OSError) as error:
            result[1] = error
    dist.broadcast_object_list(result, src=0)
    if result[1] is not None:
        raise result[1]
    value: T = result[0]
    return value
