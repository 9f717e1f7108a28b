"""An XLSX file as a stream: sheets go out row by row while they are read, so memory stays flat at any length.

openpyxl writes what does not grow (styles, sheet names, the package's tables of contents); the sheets themselves are
written here. Text is always an inline string: a cell that begins with "=" is text in every spreadsheet program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import islice
from zipfile import ZIP_DEFLATED, ZipFile

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter

from annotation.tables import Cell

MAX_ROWS = 1_048_576  # of a sheet, its heading included; more go on to a further sheet
MAX_CELL = 32_767  # UTF-16 units of one cell
ROWS_PER_PART = 500
PLAIN, HEADING, TWO_DECIMALS, WRAPPED = range(4)  # styles, in the order in which _package makes them

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0 has no way to say these
_LOOKS_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")  # spreadsheets read _x0041_ as "A"
_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


@dataclass(frozen=True)
class Sheet:
    """A heading and the rows below it. styles: one per column; widths: in characters."""

    name: str
    heading: Sequence[str]
    rows: Iterable[Sequence[Cell]]
    styles: Sequence[int]
    widths: Sequence[int]


def sheet_text(text: str) -> str:
    """The text as a cell can hold it: unwritable characters become U+FFFD, and what is too long ends in "…"."""
    text = _UNWRITABLE.sub("\ufffd", text)
    if len(text) > MAX_CELL // 2:
        units = text.encode("utf-16-le")
        if len(units) > 2 * MAX_CELL:
            text = units[: 2 * (MAX_CELL - 1)].decode("utf-16-le", "ignore") + "…"
    return text


def workbook_parts(sheets: Iterable[Sheet]) -> Iterator[bytes]:
    """The bytes of a workbook. A sheet is asked for its rows only when it is its turn."""
    outlet = _Outlet()
    names: list[str] = []
    with ZipFile(outlet, "w", ZIP_DEFLATED, compresslevel=1) as archive:  # level 1: twice as fast, a fifth larger
        for sheet in sheets:
            rows = iter(sheet.rows)
            n_continued = 0
            is_whole = False
            while not is_whole:
                n_continued += 1
                names.append(sheet.name if n_continued == 1 else f"{sheet.name} {n_continued}")
                with archive.open(f"xl/worksheets/sheet{len(names)}.xml", "w") as file:
                    file.write(_opening(sheet).encode())
                    number = 1
                    while number < MAX_ROWS and (part := list(islice(rows, min(ROWS_PER_PART, MAX_ROWS - number)))):
                        file.write(_rows_xml(part, sheet.styles, number + 1).encode())
                        number += len(part)
                        yield outlet.take()
                    file.write(b"</sheetData></worksheet>")
                is_whole = number < MAX_ROWS
        for name, content in _package(names):
            archive.writestr(name, content)
    yield outlet.take()


class _Outlet:
    """Where ZipFile writes to; cannot seek, so sizes follow each entry instead of preceding it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def close(self) -> None:
        """Nothing to give back."""

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _opening(sheet: Sheet) -> str:
    columns = "".join(
        f'<col min="{i}" max="{i}" width="{width}" customWidth="1"/>' for i, width in enumerate(sheet.widths, start=1)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<worksheet xmlns="{_NAMESPACE}">'
        '<sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" '
        f'state="frozen"/></sheetView></sheetViews><cols>{columns}</cols><sheetData>'
        + _rows_xml([sheet.heading], [HEADING] * len(sheet.heading), 1)
    )


def _rows_xml(rows: Sequence[Sequence[Cell]], styles: Sequence[int], first: int) -> str:
    starts = [f'<c s="{style}" r="{get_column_letter(i)}' for i, style in enumerate(styles, start=1)]
    lines = []
    for number, row in enumerate(rows, start=first):
        cells = [f'{start}{number}"{_cell_xml(cell)}' for start, cell in zip(starts, row, strict=True)]
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    return "".join(lines)


@lru_cache(maxsize=4096)  # a rating's item, rater, arm and time are written once for each dimension
def _cell_xml(cell: Cell) -> str:
    """The rest of a cell after its place: type and value."""
    if cell is None or cell == "":
        return "/>"
    if not isinstance(cell, str):
        return f"><v>{cell!r}</v></c>"
    text = _LOOKS_ESCAPED.sub("_x005F_", sheet_text(cell))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return f' t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _package(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Everything of the file but its sheets."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for name in names:
        book.create_sheet(name)
    first = book.worksheets[0]
    first["A1"].font = Font(bold=True)
    first["A2"].number_format = "0.00"
    first["A3"].alignment = Alignment(wrap_text=True, vertical="top")
    whole = BytesIO()
    book.save(whole)
    with ZipFile(whole) as archive:
        for name in archive.namelist():
            if not name.startswith("xl/worksheets/"):
                yield name, archive.read(name)
