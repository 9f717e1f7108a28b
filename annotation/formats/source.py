"""The bytes of a file: digest, encoding, longest line, and which format they are."""

from __future__ import annotations

import codecs
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from annotation.formats.problems import Findings, Place

Format = Literal["smilechat", "soulchat", "jsonl", "csv", "xlsx"]
ITEM_FORMATS: tuple[Format, ...] = ("smilechat", "soulchat", "jsonl", "csv", "xlsx")
RESPONSE_FORMATS: tuple[Format, ...] = ("jsonl", "csv", "xlsx")
DIALOGUE_FORMATS: tuple[Format, ...] = ("smilechat", "soulchat")
TEXT_FORMATS: tuple[Format, ...] = ("soulchat", "jsonl", "csv")

CHUNK_BYTES = 1024 * 1024
ZIP_MAGIC = b"PK\x03\x04"
# What reading a damaged zip raises; RuntimeError is zipfile's word for a password, and for a compression it lacks.
BROKEN_ZIP = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, RuntimeError)
XZ_MAGIC = b"\xfd7zXZ\x00"
_UTF8_BOM = codecs.BOM_UTF8


@dataclass(frozen=True)
class Source:
    """A file or folder to read, and the name to call it by: text from a person, never a path to open."""

    path: Path
    name: str

    @property
    def place(self) -> Place:
        return Place(self.name)

    def member(self, name: str) -> Place:
        """A file within an archive or a folder."""
        return Place(f"{self.name}: {name}")


def sniff(source: Source) -> Format | None:
    """The format, from the first bytes; the name decides nothing that the content can. None if unknown."""
    if source.path.is_dir():
        return "smilechat"
    with source.path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(XZ_MAGIC):
        return "smilechat"
    if head.startswith(ZIP_MAGIC):
        return _sniff_zip(source.path)
    text = head.removeprefix(_UTF8_BOM).lstrip(b" \t\r\n")
    if text.startswith(b"["):
        return "soulchat"
    if text.startswith(b"{"):
        return "jsonl"
    is_tabular = source.name.lower().endswith((".csv", ".tsv", ".txt")) or any(mark in head for mark in b",;\t")
    return "csv" if is_tabular and b"\x00" not in head else None


def _sniff_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile:
        return "smilechat"  # whose reader says what is wrong
    return "xlsx" if "[Content_Types].xml" in names else "smilechat"


def digest(source: Source, *, on_chunk: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of the file in hex; of a folder, over the sorted names and digests of its regular files."""
    if not source.path.is_dir():
        return _digest_file(source.path, on_chunk)
    whole = hashlib.sha256()
    for path in folder_files(source.path):
        name = os.fsencode(path.relative_to(source.path))
        whole.update(name + b"\x00" + _digest_file(path, on_chunk).encode() + b"\n")
    return whole.hexdigest()


def _digest_file(path: Path, on_chunk: Callable[[], None]) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            whole.update(chunk)
            on_chunk()
    return whole.hexdigest()


def folder_files(folder: Path) -> Iterator[Path]:
    """The regular files below `folder`, sorted; symbolic links lead nowhere."""
    for root, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if not path.is_symlink() and path.is_file():
                yield path


def stamp(source: Source) -> tuple[int, int]:
    """Size and time of the last change: equal before and after, the file was not written to while it was read."""
    found = source.path.stat()
    return found.st_size, found.st_mtime_ns


# --- Encoding -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Undecodable:
    offset: int  # of the byte, from 0
    line: int  # from 1


def encoding_of(source: Source, findings: Findings, *, max_line_bytes: int | None = None) -> str | None:
    """ "utf-8", "utf-8-sig" or "gb18030"; None, with the problem noted, if it is neither or no clean text.

    max_line_bytes: a longer line is a problem, found without holding it in memory.
    """
    trouble = _scan_lines(source, findings, max_line_bytes)
    if trouble:
        return None
    utf8 = _first_undecodable(source.path, "utf-8")
    if utf8 is None:
        with source.path.open("rb") as file:
            encoding = "utf-8-sig" if file.read(3) == _UTF8_BOM else "utf-8"
    elif _first_undecodable(source.path, "gb18030") is None:
        encoding = "gb18030"
    else:
        findings.add(Place(source.name, "line", utf8.line), "encoding", offset=utf8.offset)
        return None
    findings.encodings.add(encoding)
    return encoding


def _scan_lines(source: Source, findings: Findings, max_line_bytes: int | None) -> bool:
    """Look for an empty file, NUL bytes and overlong lines; True if one was found and noted."""
    offset, line, line_start = 0, 1, 0
    with source.path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if offset == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                findings.add(source.place, "utf16")
                return True
            nul = chunk.find(0)
            if nul >= 0:
                line += chunk.count(b"\n", 0, nul)
                findings.add(Place(source.name, "line", line), "nul_byte", offset=offset + nul)
                return True
            if max_line_bytes is not None:
                start = 0
                while (end := chunk.find(b"\n", start)) >= 0 or start <= len(chunk):
                    stop = end if end >= 0 else len(chunk)
                    if offset + stop - line_start > max_line_bytes:
                        findings.add(Place(source.name, "line", line), "line_too_long", limit=max_line_bytes // 1024)
                        return True
                    if end < 0:
                        break
                    line, line_start, start = line + 1, offset + end + 1, end + 1
            else:
                line += chunk.count(b"\n")
            offset += len(chunk)
    if offset == 0:
        findings.add(source.place, "empty_file")
    return offset == 0


def _first_undecodable(path: Path, encoding: str) -> _Undecodable | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, lines = 0, 0  # of the chunk: its first byte, the line ends before it
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            held = decoder.getstate()[0]  # bytes of a character that the last chunk began
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                within = error.start - len(held)
                return _Undecodable(offset + within, lines + chunk.count(b"\n", 0, max(within, 0)) + 1)
            if not chunk:
                return None
            offset, lines = offset + len(chunk), lines + chunk.count(b"\n")


def decode_member(data: bytes, place: Place, findings: Findings) -> str | None:
    """The text of a small file within an archive; None, with the problem noted, if it is no clean text."""
    if (nul := data.find(0)) >= 0:
        findings.add(place, "nul_byte", offset=nul)
        return None
    encodings = ("utf-8-sig", "gb18030") if data.startswith(_UTF8_BOM) else ("utf-8", "gb18030")
    first_error: UnicodeDecodeError | None = None
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            first_error = first_error or error
        else:
            findings.encodings.add(encoding)
            return text
    findings.add(place, "encoding", offset=first_error.start if first_error else 0)
    return None


@contextmanager
def open_text(source: Source, encoding: str) -> Iterator[IO[str]]:
    """The file as text; line ends stay as they are."""
    with source.path.open("r", encoding=encoding, newline="") as file:
        yield file
