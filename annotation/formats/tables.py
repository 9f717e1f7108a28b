"""Rows of JSONL, CSV and XLSX files as dictionaries, with the place of each; columns are checked by name."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from defusedxml.common import DefusedXmlException
from openpyxl import load_workbook
from openpyxl.utils.escape import unescape
from openpyxl.utils.exceptions import InvalidFileException

from annotation.formats.limits import (
    MAX_RECORD_BYTES,
    MAX_ROWS,
    MAX_XLSX_BYTES,
    MAX_XLSX_COLUMNS,
    MAX_XLSX_PARTS,
    MAX_XLSX_UNPACKED_BYTES,
)
from annotation.formats.problems import Findings, Place
from annotation.formats.source import BROKEN_ZIP, CHUNK_BYTES, ZIP_MAGIC, Format, Source, encoding_of, open_text
from annotation.formats.strict import BadJSON, decode

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """The names a row may have. Names that begin with `prefix` are free."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    prefix: str = "\x00"

    def unknown(self, names: Iterable[str]) -> list[str]:
        known = {*self.required, *self.optional}
        return [name for name in names if name not in known and not name.startswith(self.prefix)]

    def missing(self, names: Iterable[str]) -> list[str]:
        present = set(names)
        return [name for name in self.required if name not in present]


def read_rows(source: Source, file_format: Format, columns: Columns, findings: Findings) -> Iterator[tuple[Place, Row]]:
    """Every row that is not empty. What cannot be read is noted in `findings`."""
    match file_format:
        case "jsonl":
            return _from_jsonl(source, columns, findings)
        case "csv":
            return _from_csv(source, columns, findings)
        case "xlsx":
            return _from_xlsx(source, columns, findings)
    raise ValueError(f"{file_format} has no rows")


# --- JSONL ----------------------------------------------------------------------------------------------


def _from_jsonl(source: Source, columns: Columns, findings: Findings) -> Iterator[tuple[Place, Row]]:
    encoding = encoding_of(source, findings, max_line_bytes=MAX_RECORD_BYTES)
    if encoding is None:
        return
    with source.path.open("rb") as file:
        if encoding == "utf-8-sig":
            file.seek(3)
        for number, line in enumerate(iter(lambda: file.readline(MAX_RECORD_BYTES + 2), b""), 1):
            place = Place(source.name, "line", number)
            text = line.decode("utf-8" if encoding == "utf-8-sig" else encoding).strip(" \t\r\n")
            if not text:
                continue
            try:
                row = decode(text)
            except BadJSON as error:
                findings.add(place, error.code, column=error.position + 1, **error.params)
                continue
            if not isinstance(row, dict):
                findings.add(place, "not_an_object")
            elif _has_columns(columns, row, place, findings):
                yield place, row


def _has_columns(columns: Columns, row: Row, place: Place, findings: Findings) -> bool:
    missing, unknown = columns.missing(row), columns.unknown(row)
    for name in missing:
        findings.add(place, "missing", name)
    if unknown:
        findings.add(place, "unknown_columns", found=_named(unknown), expected=_expected(columns))
    return not missing and not unknown


def _expected(columns: Columns) -> str:
    return ", ".join((*columns.required, *columns.optional))


def _named(names: list[str]) -> str:
    return ", ".join(name[:40] or "“”" for name in names[:10])


# --- CSV ------------------------------------------------------------------------------------------------


def _from_csv(source: Source, columns: Columns, findings: Findings) -> Iterator[tuple[Place, Row]]:
    encoding = encoding_of(source, findings, max_line_bytes=MAX_RECORD_BYTES)
    if encoding is None:
        return
    with open_text(source, encoding) as file:
        first = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=_delimiter(first, columns), strict=True)
        yield from _from_table(_csv_cells(reader, source, findings), source, columns, findings, is_csv=True)


def _delimiter(header: str, columns: Columns) -> str:
    """Whichever of comma, tab and semicolon makes most sense of the header."""

    def n_known(delimiter: str) -> int:
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        return len(names) - len(columns.unknown(names))

    return max(",\t;", key=n_known)


def _csv_cells(reader: Any, source: Source, findings: Findings) -> Iterator[list[Any]]:
    number = 0
    while True:
        number += 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            findings.add(Place(source.name, "row", number), "broken_csv", line=reader.line_num, reason=str(error))
            return


# --- XLSX -----------------------------------------------------------------------------------------------


class _Cell(str):
    """Marks a cell that holds something else than text or a whole number."""


_FORMULA, _NO_TEXT = _Cell("formula"), _Cell("not_text")


def _from_xlsx(source: Source, columns: Columns, findings: Findings) -> Iterator[tuple[Place, Row]]:
    if not _is_modest_xlsx(source, findings):
        return
    try:
        with source.path.open("rb") as file:  # given a path, openpyxl would judge it by its extension
            book = load_workbook(file, read_only=True, keep_links=False)
            if not book.worksheets:
                findings.add(source.place, "empty_file")
                return
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # what the file says of its size need not be true
            yield from _from_table(_xlsx_cells(sheet), source, columns, findings, is_csv=False)
    except (zipfile.BadZipFile, zlib.error, InvalidFileException, SyntaxError, DefusedXmlException) as error:
        # SyntaxError: what both the standard parser and lxml, which openpyxl takes where it is installed, derive from.
        findings.add(source.place, "broken_xlsx", reason=str(error) or type(error).__name__)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, EOFError, OSError) as error:
        # What openpyxl raises depends on which part of the XML is not what it expects.
        findings.add(source.place, "broken_xlsx", reason=f"{type(error).__name__}: {error}"[:200])


def _is_modest_xlsx(source: Source, findings: Findings) -> bool:
    """Size, number of parts, declared and real unpacked size: all checked before openpyxl sees the file."""
    size = source.path.stat().st_size
    if size > MAX_XLSX_BYTES:
        findings.add(source.place, "xlsx_too_large", limit=MAX_XLSX_BYTES // 1024**2)
        return False
    with source.path.open("rb") as file:
        if file.read(4) != ZIP_MAGIC:
            findings.add(source.place, "empty_file" if size == 0 else "broken_xlsx", reason="not a zip file")
            return False
    try:
        with zipfile.ZipFile(source.path) as archive:
            parts = archive.infolist()
            n_bytes = sum(part.file_size for part in parts)
            if len(parts) > MAX_XLSX_PARTS or n_bytes > MAX_XLSX_UNPACKED_BYTES:
                findings.add(source.place, "xlsx_bomb", limit=MAX_XLSX_UNPACKED_BYTES // 1024**2)
                return False
            n_bytes = 0
            for part in parts:
                with archive.open(part) as file:
                    while chunk := file.read(CHUNK_BYTES):
                        n_bytes += len(chunk)
                        if n_bytes > MAX_XLSX_UNPACKED_BYTES:
                            findings.add(source.place, "xlsx_bomb", limit=MAX_XLSX_UNPACKED_BYTES // 1024**2)
                            return False
    except BROKEN_ZIP as error:
        findings.add(source.place, "broken_xlsx", reason=str(error) or type(error).__name__)
        return False
    return True


def _xlsx_cells(sheet: Any) -> Iterator[list[Any]]:
    for row in sheet.iter_rows(max_col=MAX_XLSX_COLUMNS):
        yield [_cell_value(cell) for cell in row]


def _cell_value(cell: Any) -> Any:
    value = cell.value
    if value is None:
        return None
    if cell.data_type == "f":
        return _FORMULA
    if isinstance(value, str):
        return unescape(value)  # _x000D_ and the like
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _NO_TEXT
    if isinstance(value, float):
        return int(value) if value.is_integer() else _NO_TEXT
    return value


# --- Header and rows of both kinds of table -------------------------------------------------------------


def _from_table(
    cells: Iterator[list[Any]], source: Source, columns: Columns, findings: Findings, *, is_csv: bool
) -> Iterator[tuple[Place, Row]]:
    header = next(cells, None)
    place = Place(source.name, "row", 1)
    names = [str(name).strip() if name is not None else "" for name in header or []]
    while names and not names[-1]:
        names.pop()
    if not _is_good_header(names, columns, place, findings):
        return
    for number, row in enumerate(cells, 2):
        place = Place(source.name, "row", number)
        if number > MAX_ROWS + 1:
            findings.add(place, "too_many_rows", limit=MAX_ROWS)
            return
        if all(value is None or value == "" for value in row):
            continue
        if any(value not in (None, "") for value in row[len(names) :]) or (is_csv and len(row) < len(names)):
            findings.add(place, "row_length", found=len(row), expected=len(names))
            continue
        bad = [(name, value) for name, value in zip(names, row, strict=False) if isinstance(value, _Cell)]
        for name, value in bad:
            findings.add(place, str(value), name)
        if not bad:
            yield place, dict(zip(names, row, strict=False))


def _is_good_header(names: list[str], columns: Columns, place: Place, findings: Findings) -> bool:
    if not names:
        findings.add(place, "no_header", expected=_expected(columns))
        return False
    missing, unknown = columns.missing(names), columns.unknown(names)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if missing:
        findings.add(place, "missing_columns", found=_named(names), missing=", ".join(missing))
    if unknown:
        findings.add(place, "unknown_columns", found=_named(unknown), expected=_expected(columns))
    if repeated:
        findings.add(place, "repeated_columns", found=_named(repeated))
    return not (missing or unknown or repeated)
