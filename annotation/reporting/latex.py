"""A report's table as LaTeX with booktabs: what one pastes into a paper."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from annotation.reporting.numbers import MARKS, REASONS
from annotation.reporting.table import Cell, Column, Table, shown_number

_ESCAPES: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "\u00a0": "~", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "×": r"$\times$", "[": "{[}", "]": "{]}",
    "κ": r"$\kappa$", "α": r"$\alpha$", "δ": r"$\delta$", "τ": r"$\tau$", "χ²": r"$\chi^2$", "√": r"$\surd$",
    "–": "--", "−": "$-$", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}",
    "†": r"$^\dagger$", "°": r"$^\circ$", "‡": r"$^\ddagger$", "*": "$^{*}$", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\|$",
    "·": r"$\cdot$",
}  # fmt: skip
_ESCAPE = re.compile("|".join(re.escape(sign) for sign in _ESCAPES))
_NO_LABEL = re.compile(r"[^\w.-]+")
# Names may hold anything; a control or direction mark would end a line or turn the text around.
_INVISIBLE = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def latex(text: object) -> str:
    """The text with every sign that LaTeX reads as a command taken literally."""
    plain = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in str(text))
    return _ESCAPE.sub(lambda found: _ESCAPES[found.group()], plain)


def latex_table(table: Table) -> str:
    """A float with caption, booktabs rules and notes; needs the package booktabs, and a CJK font for Chinese names."""
    alignment = "".join("r" if column.is_numeric else "l" for column in table.columns)
    lines = [
        "% \\usepackage{booktabs}; Chinese names need xeCJK or ctex.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(table.title)}. {latex(table.caption)}}}",
        rf"\label{{tab:{_NO_LABEL.sub('-', table.key)}}}",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        " & ".join(_heading(column) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    before: list[str] = []
    for row in table.rows:
        cells = [_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)]
        lines.append(" & ".join(_without_repetition(cells, before, table.n_headings)) + r" \\")
        before = cells
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [*(f"{mark} {text}" for mark, text in table.marks), *([str(table.remark)] if table.remark else [])]
    lines += [rf"\par\smallskip{{\footnotesize {latex(note)}}}" for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _heading(column: Column) -> str:
    unit = " (\\%)" if column.kind == "percent" else ""
    return latex(column.title) + unit


def _cell(cell: Cell, column: Column) -> str:
    if cell.arm is not None:
        return latex(cell.arm.name)
    if cell.text is not None:
        return latex(cell.text)
    if cell.estimate is None:
        return ("" if cell.value is None else _number(cell.value, column)) + _small(cell)
    estimate = cell.estimate
    if estimate.value is None:
        return latex(REASONS.get(estimate.reason or "", estimate.reason)) + _small(cell)
    text = _number(estimate.value, column) + "".join(latex(MARKS.get(note, "")) for note in estimate.notes)
    if estimate.low is not None and estimate.high is not None:
        text += rf" {{\footnotesize {{[}}{_number(estimate.low, column)}, {_number(estimate.high, column)}{{]}}}}"
    return text + _small(cell)


def _small(cell: Cell) -> str:
    return rf" {{\footnotesize {latex(cell.small)}}}" if cell.small else ""


def _number(value: float, column: Column) -> str:
    shown = shown_number(value, column)
    return f"${shown}$" if shown.startswith(("-", "<")) else shown


def _without_repetition(cells: list[str], before: list[str], n_headings: int) -> list[str]:
    """A row header that stands in the line above is not printed again."""
    n_same = 0
    while before and n_same < n_headings - 1 and cells[n_same] == before[n_same]:
        n_same += 1
    return ["" if i < n_same else cell for i, cell in enumerate(cells)]
