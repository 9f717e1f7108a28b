"""Weights on disk: which files there are, their tensors one by one, and their digest. Nothing in a file is ever run.

Two layouts exist, safetensors and torch's .bin, each as one file or as shards with an index. Of both, safetensors is
taken. A .bin is a pickle and is read weights-only: a pickle that asks for more is refused before it does anything.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

from models_runtime.engine.errors import CorruptShard, UnsafeWeights, WeightsMissing

SAFETENSORS, BIN = "safetensors", "bin"
STEMS = {SAFETENSORS: "model", BIN: "pytorch_model"}
READERS = 4  # files hashed at once: as many as a disk still serves faster than one
BLOCK = 2**24  # bytes hashed between two looks
SECONDS_BETWEEN_LOOKS = 1.0
FETCH_AGAIN = "fetch it again and compare its checksum with the publisher's"

Tell = Callable[[], None]  # called again and again while reading goes on, and only while it does


def tell_nobody() -> None:
    return None


@dataclass(frozen=True)
class Checkpoint:
    """The weights files of a folder, in the order in which they are read.

    promised: file name ► the tensors that the index says it holds; empty if there is no index.
    tell: called with every tensor that is read.
    """

    folder: Path
    files: tuple[Path, ...]
    promised: Mapping[str, frozenset[str]] = field(default_factory=dict)
    tell: Tell = tell_nobody


def find_weights(folder: Path, *, stems: Mapping[str, str] = STEMS, only_safetensors: bool = False) -> Checkpoint:
    """The weights of a folder.

    stems: file name without suffix, per layout.

    Raises WeightsMissing if there are none or the index names a file that is not there; CorruptShard if the index
    cannot be read; UnsafeWeights if it points outside of the folder.
    """
    if not folder.is_dir():
        raise WeightsMissing(f"{folder} is no folder; give the one that holds config.json and the weights")
    layouts = [SAFETENSORS] if only_safetensors else [SAFETENSORS, BIN]
    for layout in layouts:
        stem = stems[layout]
        if (single := folder / f"{stem}.{layout}").is_file():  # before an index, as transformers has it
            return Checkpoint(folder, (single,))
        if (index := folder / f"{stem}.{layout}.index.json").is_file():
            return _from_index(folder, index)
    if only_safetensors and (list(folder.glob("*.bin")) or list(folder.glob("*.pt"))):
        raise WeightsMissing(
            f"{folder} holds no .safetensors, the only form read for this model; convert it and try again"
        )
    names = " or ".join(f"{stems[layout]}.{layout}" for layout in layouts)
    raise WeightsMissing(f"{folder} holds no weights; looked for {names}, and for an index of shards")


def tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor, Path]]:
    """Every tensor with its name and its file, one file open at a time. A tensor is valid until the next is asked for.

    Raises CorruptShard, UnsafeWeights; WeightsMissing if a file lacks a tensor that the index promises.
    """
    for file in checkpoint.files:
        names = set()
        for name, tensor in _read(file):
            names.add(name)
            checkpoint.tell()
            yield name, tensor, file
        if absent := checkpoint.promised.get(file.name, frozenset()) - names:
            raise WeightsMissing(f"{file} lacks {listed(absent)}, which the index says it holds; {FETCH_AGAIN}")


def check_finite(name: str, tensor: Tensor, file: Path) -> None:
    """Raises CorruptShard if the tensor holds a number that is none."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    low, high = tensor.detach().aminmax()  # NaN passes through, and no second tensor is made
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise CorruptShard(f"{file}: {name} holds NaN or infinity; {FETCH_AGAIN}")


def digest(files: Sequence[Path], *, cache: Path | None = None, tell: Tell = tell_nobody) -> str:
    """SHA-256 over names and contents of the files, whatever their order, as 64 hexadecimal characters.

    cache: a JSON file that remembers the digest of each file by path, size and time of change. Read and written if it
        can be; a cache that cannot is no error.
    """
    known = _read_cache(cache)
    keys = {file: f"{file.resolve()}:{(stat := file.stat()).st_size}:{stat.st_mtime_ns}" for file in files}
    fresh = [file for file in files if keys[file] not in known]
    n_read = dict.fromkeys(fresh, 0)
    with ThreadPoolExecutor(READERS) as pool:  # hashing leaves the interpreter's lock
        found = [pool.submit(_file_digest, file, n_read) for file in fresh]
        n_before = 0
        while wait(found, timeout=SECONDS_BETWEEN_LOOKS).not_done:
            if (n_now := sum(n_read.values())) > n_before:  # a disk that hangs is not to look alive
                tell()
            n_before = n_now
        known.update((keys[file], future.result()) for file, future in zip(fresh, found, strict=True))
    if fresh and cache is not None:
        _write_cache(cache, known)
    lines = sorted(f"{file.name} {known[keys[file]]}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsMissing if there is no such file, CorruptShard if it is none."""
    if not path.is_file():
        raise WeightsMissing(f"{path} is missing; copy the whole folder of the published model")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptShard(f"{path} is no JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise CorruptShard(f"{path} is no JSON object; fetch it again")
    return value


def listed(names: Iterable[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more


def _from_index(folder: Path, index: Path) -> Checkpoint:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptShard(f"{index} has no weight_map; fetch it again")
    promised: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise UnsafeWeights(f"{index} places {name} in {file!r}, which is no file of this folder")
        promised.setdefault(file, set()).add(name)
    if absent := [file for file in sorted(promised) if not (folder / file).is_file()]:
        raise WeightsMissing(f"{index} names {listed(absent)}, not in the folder; fetch the missing files")
    files = tuple(folder / file for file in sorted(promised))
    return Checkpoint(folder, files, {file: frozenset(names) for file, names in promised.items()})


def _read(file: Path) -> Iterator[tuple[str, Tensor]]:
    with file.open("rb") as opened:
        if opened.read(24).startswith(b"version https://git-lfs"):
            raise CorruptShard(f"{file} is a git-lfs pointer, not the weights; run `git lfs pull` in its folder")
    if file.suffix == ".safetensors":
        yield from _read_safetensors(file)
    else:
        yield from _read_bin(file)


def _read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                yield name, opened.get_tensor(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise _corrupt(file, error) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise _corrupt(file, error) from error


def _read_bin(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        held = _load_pickle(file)
    except pickle.UnpicklingError as error:
        if _asks_for_code(error):
            raise UnsafeWeights(
                f"{file} is a pickle that wants to run code, and was not run; use the publisher's .safetensors"
            ) from error
        raise _corrupt(file, error) from error
    except MemoryError:
        raise
    except Exception as error:  # torch gives anything from EOFError to KeyError for a damaged file
        raise _corrupt(file, error) from error
    if not isinstance(held, dict) or not all(isinstance(k, str) and _is_plain(v) for k, v in held.items()):
        raise CorruptShard(f"{file} is no table of plain tensors; it belongs to something else than a model's weights")
    yield from cast(dict[str, Tensor], held).items()


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor with a number in every place, as all weights are that are stored under a name."""
    is_odd = not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_nested
    return not is_odd and not value.is_meta


def _load_pickle(file: Path) -> Any:
    with file.open("rb") as opened:
        is_zip = opened.read(4) == b"PK\x03\x04"
    # Mapped, so that memory holds the tensors in use; the format before torch 1.6 cannot be.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)


def _asks_for_code(error: pickle.UnpicklingError) -> bool:
    """Whether the weights-only reader stopped at a name or a call that it does not allow, rather than at rubbish."""
    message = str(error).lower()
    return any(sign in message for sign in ("unsupported global", "unsupported class", "allowed global", "reduce"))


def _corrupt(file: Path, error: Exception) -> CorruptShard:
    is_pickle = isinstance(error, pickle.UnpicklingError)  # whose message is advice to read it unsafely
    reason = "no pickle of tensors" if is_pickle else str(error).strip().split("\n")[0][:200]
    return CorruptShard(f"{file} cannot be read ({reason}); {FETCH_AGAIN}")


def _file_digest(file: Path, n_read: dict[Path, int]) -> str:
    """The digest in hexadecimal; n_read[file] grows on the way."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            found.update(block)
            n_read[file] += len(block)
    return found.hexdigest()


def _read_cache(cache: Path | None) -> dict[str, str]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8")) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def _write_cache(cache: Path, known: Mapping[str, str]) -> None:
    draft = cache.with_name(f"{cache.name}.new")
    try:
        draft.write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
        draft.replace(cache)
    except OSError:
        return  # the next run reads the weights again
