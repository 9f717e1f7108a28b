"""Samples tokenised once, in a folder that training maps into memory: ragged, nothing padded, nothing written twice.

    ids.bin       int32: token ids. Contexts of one dialogue begin alike, so they lie over one another.
    samples.bin   one record per sample: where its context and its target begin, and how long they are
    store.json    written last: counts, hashes, tokenizer, and whatever the maker says about the corpus

A context may end with ids that are the same for all (`suffix`); they are kept in store.json alone. All numbers are
little-endian. A folder appears under its name complete or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from training.corpus.errors import DiskFull, FolderTaken, StoreBroken

FORMAT = 1
IDS, SAMPLES, MARKER = "ids.bin", "samples.bin", "store.json"
ID = np.dtype("<i4")
RECORD = np.dtype([("context_at", "<i8"), ("target_at", "<i8"), ("context", "<i4"), ("target", "<i4")])
CHUNK_BYTES = 1024 * 1024

Ids = npt.NDArray[np.int32]


class Span(NamedTuple):
    """Where a sample lies in the ids that are added with it; the suffix of the context is not among them."""

    context_at: int
    context: int
    target_at: int
    target: int


class Store:
    """A finished store, mapped into memory. Sample i is (context ids, target ids)."""

    def __init__(self, folder: Path, *, check: Literal["content", "sizes"] = "content") -> None:
        """Raises StoreBroken if the folder is not complete or its files are not those that were written.

        check: "content" reads both files once and compares their hashes; "sizes" is for those who did so before.
        """
        self.folder = folder
        self.about: dict[str, Any] = _read_marker(folder)
        for name, written in self.about["files"].items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != written["bytes"]:
                raise StoreBroken(
                    f"{path} has {found} bytes instead of {written['bytes']}; prepare the corpus again"
                    if found is not None
                    else f"{path} is missing; prepare the corpus again"
                )
            if check == "content" and file_digest(path) != written["sha256"]:
                raise StoreBroken(f"{path} was changed since it was written; prepare the corpus again")
        self._records = _mapped(folder / SAMPLES, RECORD)
        self._ids = _mapped(folder / IDS, ID)
        self._suffix = np.array(self.about["suffix"], dtype=ID)
        for start, length in (("context_at", "context"), ("target_at", "target")):
            begins, n = self._records[start], self._records[length]
            if len(self) and not (begins.min() >= 0 and n.min() >= 0 and (begins + n).max() <= len(self._ids)):
                raise StoreBroken(f"{folder / SAMPLES} points beyond {IDS}; prepare the corpus again")

    @property
    def content_hash(self) -> str:
        """SHA-256 over the ids of all samples in their order: the same samples have the same one, however they lie."""
        return str(self.about["content_hash"])

    @property
    def tokenizer_digest(self) -> str:
        """What the ids were made with: `Encoder.digest`, over model family, template and the tokenizer's files."""
        return str(self.about["tokenizer_digest"])

    def __len__(self) -> int:
        return len(self._records)

    def lengths(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tokens of each context and of each target, shape (n,) each."""
        context = self._records["context"].astype(np.int64) + len(self._suffix)
        return context, self._records["target"].astype(np.int64)

    def __getitem__(self, index: int) -> tuple[Ids, Ids]:
        record = self._records[index]
        at, n = int(record["context_at"]), int(record["context"])
        start, length = int(record["target_at"]), int(record["target"])
        context = np.concatenate((self._ids[at : at + n], self._suffix))
        return context, np.array(self._ids[start : start + length])

    def __iter__(self) -> Iterator[tuple[Ids, Ids]]:
        for index in range(len(self)):
            yield self[index]


class StoreWriter:
    """Writes a store into an empty folder, in memory that does not grow. Leaving the block in peace completes it."""

    def __init__(
        self, folder: Path, *, tokenizer_digest: str, suffix: Sequence[int] = (), about: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.n_samples = 0
        self._about = dict(about or {})
        self._tokenizer_digest = tokenizer_digest
        self._suffix = np.array(suffix, dtype=ID)
        self._n_ids = 0
        self._n_context = 0
        self._n_target = 0
        self._longest = [0, 0]
        self._content = hashlib.sha256()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if taken := sorted(path.name for path in self.folder.iterdir()):
            raise FolderTaken(f"{self.folder} is not empty: it holds {', '.join(taken[:3])}")
        self._ids = _HashedFile(self.folder / IDS)
        self._samples = _HashedFile(self.folder / SAMPLES)
        return self

    def add(self, ids: Ids, spans: Sequence[Span]) -> None:
        """Append samples that lie within `ids`, in this order."""
        records = np.array([(s.context_at, s.target_at, s.context, s.target) for s in spans], dtype=RECORD)
        for span in spans:
            context = ids[span.context_at : span.context_at + span.context]
            target = ids[span.target_at : span.target_at + span.target]
            if len(context) != span.context or len(target) != span.target:
                raise ValueError(f"{span} does not lie within {len(ids)} ids")
            n_context = len(context) + len(self._suffix)
            self._content.update(np.array([n_context, len(target)], dtype="<i4").tobytes())
            for part in (context, self._suffix, target):
                self._content.update(np.ascontiguousarray(part, dtype=ID).tobytes())
            self._n_context += n_context
            self._n_target += len(target)
            self._longest = [max(self._longest[0], n_context), max(self._longest[1], len(target))]
        records["context_at"] += self._n_ids
        records["target_at"] += self._n_ids
        with disk_errors(self.folder):
            self._ids.write(np.ascontiguousarray(ids, dtype=ID).tobytes())
            self._samples.write(records.tobytes())
        self._n_ids += len(ids)
        self.n_samples += len(spans)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._ids.abandon()
            self._samples.abandon()
            return
        with disk_errors(self.folder):
            files = {IDS: self._ids.finish(), SAMPLES: self._samples.finish()}
            marker = {
                **self._about,
                "format": FORMAT,
                "n_samples": self.n_samples,
                "n_ids": self._n_ids,
                "n_context_tokens": self._n_context,
                "n_target_tokens": self._n_target,
                "longest_context": self._longest[0],
                "longest_target": self._longest[1],
                "content_hash": self._content.hexdigest(),
                "tokenizer_digest": self._tokenizer_digest,
                "suffix": self._suffix.tolist(),
                "files": files,
            }
            write_json(self.folder / MARKER, marker)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` at the end of the block, or nothing if the block fails.

    What a killed run left behind is cleared away. Raises FolderTaken if `folder` is there already, or if another run
    is writing it; DiskFull.
    """
    if folder.exists():
        raise FolderTaken(f"{folder} is there already; choose another name, or remove it first")
    partial = partial_of(folder)
    with disk_errors(folder):
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderTaken(f"Another run is writing {folder}; wait for it, or choose another name") from error
        if not _is_at(partial, handle):  # between our opening and our claim
            raise FolderTaken(f"Another run wrote {folder} just now; look at it, or choose another name")
        _clear(partial)
        try:
            with disk_errors(folder):
                yield partial
                os.fsync(handle)
                partial.rename(folder)
                _sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def partial_of(folder: Path) -> Path:
    """Where a folder is while it is being written."""
    return folder.parent / f".{folder.name}.partial"


def write_json(path: Path, data: Any) -> None:
    """The value as a file that is on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(data, file, ensure_ascii=False, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full disk as DiskFull, with what is left of it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        there = next((part for part in (folder, *folder.parents) if part.exists()), Path("/"))
        free = shutil.disk_usage(there).free // 1024**2
        raise DiskFull(f"The disk of {folder} is full ({free} MiB left). Make room and prepare again.") from error


class _HashedFile:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=CHUNK_BYTES)
        self._digest = hashlib.sha256()
        self._n_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._n_bytes += len(data)

    def finish(self) -> dict[str, Any]:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"bytes": self._n_bytes, "sha256": self._digest.hexdigest()}

    def abandon(self) -> None:
        with suppress(OSError):  # the disk was full before, and is so for the rest of the buffer
            self._file.close()


def _read_marker(folder: Path) -> dict[str, Any]:
    path = folder / MARKER
    if not path.is_file():
        raise StoreBroken(f"{folder} holds no complete store ({MARKER} is missing); prepare the corpus")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        known = about["format"]
        needed = about["n_samples"], about["n_ids"], about["content_hash"], about["tokenizer_digest"], about["suffix"]
        files = {name: (about["files"][name]["bytes"], about["files"][name]["sha256"]) for name in (IDS, SAMPLES)}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreBroken(f"{path} is damaged; prepare the corpus again") from error
    if known != FORMAT:
        raise StoreBroken(f"{folder} was written in format {known}, this program reads {FORMAT}; prepare it again")
    n_samples, n_ids = needed[:2]
    if (files[IDS][0], files[SAMPLES][0]) != (n_ids * ID.itemsize, n_samples * RECORD.itemsize):
        raise StoreBroken(f"{path} contradicts itself; prepare the corpus again")
    return dict(about)


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)


def _is_at(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
