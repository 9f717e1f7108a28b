"""The small files of a folder, a .zip or a .tar.xz, one after the other, read in memory and never unpacked to disk.

Of a path inside an archive only the stem is used, as a name; where it would lead is nobody's business. Links are
passed over. What unpacking yields is counted while it is read, whatever the headers declare.
"""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from annotation.formats.limits import (
    MAX_ARCHIVE_BYTES,
    MAX_ARCHIVE_MEMBERS,
    MAX_DIALOGUE_BYTES,
    MAX_SKIPPED_BYTES,
)
from annotation.formats.problems import Findings, Place
from annotation.formats.source import BROKEN_ZIP, ZIP_MAGIC, Source, folder_files


@dataclass(frozen=True)
class Member:
    """One .json file: its stem, its bytes, and where it lies."""

    stem: str
    data: bytes
    place: Place


class _TooMuch(Exception):
    """The archive yields more than it may."""


def json_members(source: Source, findings: Findings) -> Iterator[Member]:
    """Every .json file of the source. What cannot be read is noted in `findings`; a broken archive ends the reading."""
    if source.path.is_dir():
        yield from _from_folder(source, findings)
        return
    with source.path.open("rb") as file:
        is_zip = file.read(4) == ZIP_MAGIC
    try:
        yield from (_from_zip if is_zip else _from_tar_xz)(source, findings)
    except _TooMuch as error:
        findings.add(source.place, str(error), limit=MAX_ARCHIVE_BYTES // 1024**2)
    except (*BROKEN_ZIP, tarfile.TarError, lzma.LZMAError) as error:
        findings.add(source.place, "broken_archive", reason=str(error) or type(error).__name__)


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    is_hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() == ".json" and not is_hidden


def _member(source: Source, name: str, data: bytes, findings: Findings) -> Member | None:
    """The member, unless it is larger than a dialogue can be."""
    place = source.member(name)
    if len(data) > MAX_DIALOGUE_BYTES:
        findings.add(place, "dialogue_too_large", limit=MAX_DIALOGUE_BYTES // 1024)
        return None
    return Member(PurePosixPath(name.replace("\\", "/")).stem, data, place)


def _from_folder(source: Source, findings: Findings) -> Iterator[Member]:
    n_members = 0
    for path in folder_files(source.path):
        name = str(path.relative_to(source.path))
        if not _is_wanted(name):
            findings.counts["n_ignored_files"] += 1
            continue
        n_members += 1
        if n_members > MAX_ARCHIVE_MEMBERS:
            findings.add(source.place, "too_many_members", limit=MAX_ARCHIVE_MEMBERS)
            return
        with path.open("rb") as file:
            data = file.read(MAX_DIALOGUE_BYTES + 1)
        if member := _member(source, name, data, findings):
            yield member


def _from_zip(source: Source, findings: Findings) -> Iterator[Member]:
    n_bytes = 0
    with zipfile.ZipFile(source.path) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ARCHIVE_MEMBERS:
            raise _TooMuch("too_many_members")
        for entry in entries:
            is_link = stat.S_ISLNK(entry.external_attr >> 16)
            if entry.is_dir():
                continue
            if is_link or not _is_wanted(entry.filename):
                findings.counts["n_ignored_files"] += 1
                continue
            with archive.open(entry) as file:
                data = file.read(MAX_DIALOGUE_BYTES + 1)
            n_bytes += len(data)
            if n_bytes > MAX_ARCHIVE_BYTES:
                raise _TooMuch("archive_too_large")
            if member := _member(source, entry.filename, data, findings):
                yield member


def _from_tar_xz(source: Source, findings: Findings) -> Iterator[Member]:
    n_members = 0
    with lzma.open(source.path) as unpacked:
        counted = _Counted(unpacked)
        with tarfile.open(fileobj=counted, mode="r|") as archive:
            for entry in archive:
                n_members += 1
                if n_members > MAX_ARCHIVE_MEMBERS:
                    raise _TooMuch("too_many_members")
                counted.mark()
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has passed
                if entry.isdir():
                    continue
                if not entry.isreg() or entry.issparse() or not _is_wanted(entry.name):
                    findings.counts["n_ignored_files"] += 1
                    continue
                file = archive.extractfile(entry)
                data = file.read(MAX_DIALOGUE_BYTES + 1) if file else b""
                if member := _member(source, entry.name, data, findings):
                    yield member


class _Counted(io.RawIOBase):
    """Passes bytes on and counts them. Raises _TooMuch past the limits, also within one header or skipped file."""

    def __init__(self, file: lzma.LZMAFile) -> None:
        self._file = file
        self._n_bytes = 0
        self._marked = 0

    def mark(self) -> None:
        """A file has been reached."""
        self._marked = self._n_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._n_bytes += len(data)
        if self._n_bytes > MAX_ARCHIVE_BYTES:
            raise _TooMuch("archive_too_large")
        if self._n_bytes - self._marked > MAX_SKIPPED_BYTES:
            raise _TooMuch("member_too_large")
        return data
