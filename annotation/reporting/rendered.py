"""A report as files in one fixed language: the same bytes wherever they are made."""

from __future__ import annotations

import csv
import json
from io import StringIO

from django.utils.translation import override

from annotation.figures.pdf import pdf
from annotation.figures.svg import svg
from annotation.reporting.figures import report_figures
from annotation.reporting.latex import latex_table
from annotation.reporting.methods import methods_paragraph
from annotation.reporting.numbers import Report
from annotation.reporting.table import Table, flat
from annotation.reporting.tables import report_tables

LANGUAGE = "en"


def rendered(report: Report) -> dict[str, bytes]:
    """File name ► content: numbers.jsonl, methods.*.txt, tables/*.csv and *.tex, figures/*.svg and *.pdf."""
    with override(LANGUAGE):
        files = {"numbers.jsonl": numbers_jsonl(report)}
        for code in ("en", "zh"):
            if paragraph := methods_paragraph(report, code):
                files[f"methods.{code}.txt"] = f"{paragraph}\n".encode()
        for table in report_tables(report):
            files[f"tables/{table.key}.csv"] = table_csv(table)
            files[f"tables/{table.key}.tex"] = latex_table(table).encode()
        for figure in report_figures(report):
            files[f"figures/{figure.key}.svg"] = (svg(figure.chart.drawing) + "\n").encode()
            files[f"figures/{figure.key}.pdf"] = pdf(figure.chart.drawing).content
    return files


def numbers_jsonl(report: Report) -> bytes:
    """Every number with its interval, counts, method and signature, one per line, section by section."""
    lines = [
        json.dumps({"section": section, **row.to_dict()}, ensure_ascii=False, allow_nan=False)
        for section, rows in report.sections.items()
        for row in rows
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def table_csv(table: Table) -> bytes:
    """The table with every text as it is; not made for spreadsheets, which may take a text for a formula."""
    plain = flat(table)
    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([plain.names, *plain.rows])
    return buffer.getvalue().encode()
