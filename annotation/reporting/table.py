"""Table: what a report shows as rows and columns, once. Page, LaTeX, CSV, JSON and workbook are made from it, so that
the same numbers stand in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from annotation.reporting.facts import ArmLabel
from annotation.reporting.numbers import MARKS, NOTES, REASONS, rounded
from metrics.results import Estimate

Kind = Literal["text", "number", "percent", "p", "count"]
Plain = str | int | float | None


@dataclass(frozen=True)
class Column:
    """One column. kind: how its numbers are shown;  digits: decimals shown;  unit: stands below the title."""

    key: str
    title: Any  # text, or a translation of it that is looked up when it is shown
    kind: Kind = "text"
    digits: int = 2
    unit: str = ""

    @property
    def is_numeric(self) -> bool:
        return self.kind != "text"


@dataclass(frozen=True)
class Cell:
    """One cell: a text, an arm, a plain number or an estimate; `n` and `small` stand below it."""

    text: Any = None
    arm: ArmLabel | None = None
    value: int | float | None = None
    estimate: Estimate | None = None
    n: int | None = None  # what the estimate counted, shown below it
    small: Any = ""
    is_given: bool = False  # a text that a person typed: shown with its own direction


EMPTY = Cell()


@dataclass(frozen=True)
class Table:
    """A table with its heading. The first `n_headings` columns say what a row is about.

    is_detail: on the page it stays folded until somebody wants it.
    """

    key: str
    title: Any
    caption: Any
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    remark: Any = ""
    n_headings: int = 1
    is_detail: bool = False

    @property
    def lines(self) -> Iterator[list[tuple[Column, Cell, bool]]]:
        """Row by row: column, cell, and whether the cell heads its row."""
        for row in self.rows:
            yield [
                (column, cell, i == self.n_headings - 1)
                for i, (column, cell) in enumerate(zip(self.columns, row, strict=True))
            ]

    @property
    def marks(self) -> list[tuple[str, Any]]:
        """Each mark that stands beside a number of this table, and what it says."""
        occurring = {note for row in self.rows for cell in row if cell.estimate for note in cell.estimate.notes}
        return [(MARKS[note], text) for note, text in NOTES.items() if note in occurring]


def shown_number(value: float, column: Column) -> str:
    """A number as its column shows it; a small p as a bound, since its digits mean little."""
    if column.kind == "count":
        return str(int(value))
    if column.kind == "p":
        return "< 0.001" if value < 0.0005 else rounded(value, 3)
    return rounded(value, 1 if column.kind == "percent" else column.digits, percent=column.kind == "percent")


def shown(cell: Cell, column: Column) -> str:
    """The cell as plain text: the number, its marks and its interval, or the reason why there is none."""
    if cell.arm is not None:
        return f"{cell.arm.code} {cell.arm.system_name}".strip()
    if cell.text is not None:
        return str(cell.text)
    if cell.estimate is None:
        return "" if cell.value is None else shown_number(cell.value, column)
    estimate = cell.estimate
    if estimate.value is None:
        return str(REASONS.get(estimate.reason or "", estimate.reason))
    text = shown_number(estimate.value, column) + "".join(MARKS.get(note, "") for note in estimate.notes)
    if estimate.low is not None and estimate.high is not None:
        text += f" [{shown_number(estimate.low, column)}, {shown_number(estimate.high, column)}]"
    return text


@dataclass(frozen=True)
class Flat:
    """A table as plain values, an interval in columns of its own: what files hold."""

    names: list[str]
    rows: list[list[Plain]]
    is_rounded: list[bool] = field(default_factory=list)  # per column: a workbook shows two decimals


def flat(table: Table) -> Flat:
    """Every column as its value; where a column has intervals also "… low" and "… high", where it has counts
    "… n", where it has reasons "… reason", where there is more to know of a number "… note". Shares stay shares
    (0 to 1)."""
    names: list[str] = []
    columns: list[list[Plain]] = []
    rounding: list[bool] = []
    for i, column in enumerate(table.columns):
        cells = [row[i] for row in table.rows]
        found = [cell.estimate for cell in cells]
        parts: list[tuple[str, list[Plain]]] = [(column.key, [_plain(cell) for cell in cells])]
        if any(cell.arm and cell.arm.system_name for cell in cells):
            parts.append(("system", [cell.arm.system_name if cell.arm else None for cell in cells]))
        if any(e is not None and e.low is not None for e in found):
            parts.append((f"{column.key} low", [e.low if e else None for e in found]))
            parts.append((f"{column.key} high", [e.high if e else None for e in found]))
        if any(cell.n is not None for cell in cells):
            parts.append((f"{column.key} n", [cell.n for cell in cells]))
        if any(e is not None and e.reason for e in found):
            parts.append((f"{column.key} reason", [e.reason if e else None for e in found]))
        if any(notes := [_note(cell) for cell in cells]):
            parts.append((f"{column.key} note", list(notes)))
        for name, values in parts:
            names.append(name)
            columns.append(values)
            rounding.append(column.kind in ("number", "percent", "p") and not name.endswith((" n", " reason", " note")))
    return Flat(names, [list(row) for row in zip(*columns, strict=True)], rounding)


def _note(cell: Cell) -> str | None:
    """The codes of an estimate's notes, and what stands in small letters below the number."""
    notes = [*(cell.estimate.notes if cell.estimate else ()), *([str(cell.small)] if cell.small else [])]
    return "; ".join(notes) or None


def _plain(cell: Cell) -> Plain:
    if cell.arm is not None:
        return cell.arm.code
    if cell.text is not None:
        return str(cell.text)
    return cell.estimate.value if cell.estimate else cell.value
