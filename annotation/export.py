"""A study's ratings, numbers and tables as files: XLSX, CSV, JSONL, JSON and LaTeX with the same numbers in each.

Every format is made from the same rows and leaves as a stream. Arms stay coded until the study is unblinded, for
every reader. JSONL and "csv-exact" hold every text as it is; "csv" and XLSX are safe to open in a spreadsheet.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from itertools import chain, islice
from typing import Any

from django.utils import timezone
from django.utils.translation import override

from annotation.models import Study, User
from annotation.reporting.latex import latex_table
from annotation.reporting.numbers import Report
from annotation.reporting.table import Table as ReportTable
from annotation.reporting.table import flat
from annotation.reporting.tables import report_tables
from annotation.reports import study_report
from annotation.services.audit import record
from annotation.tables import SYSTEM_COLUMNS, Cell, Column, fingerprint, ratings_columns, ratings_rows, utc_text
from annotation.workbook import PLAIN, TWO_DECIMALS, WRAPPED, Sheet, workbook_parts
from metrics.results import ResultRow

KINDS = ("ratings", "numbers", "scores", "agreement", "tables")
CONTENT_TYPES = {
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "csv": "text/csv; charset=utf-8",
    "csv-exact": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson; charset=utf-8",
    "tex": "application/x-tex; charset=utf-8",
    "json": "application/json; charset=utf-8",
}
FORMATS = ("xlsx", "csv", "csv-exact", "jsonl")  # of rows; the tables of a report also leave as tex and json
TABLE_FORMATS = ("csv", "tex", "json")
ROWS_PER_PART = 500
# What a spreadsheet may take for a formula, also behind blanks, and the full-width signs some of them accept.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[ \u00a0\u3000]*[\t\r\n\x00]")


@dataclass(frozen=True)
class Table:
    """Columns, and the rows below them. `rows` is called once, when the table is written."""

    columns: tuple[Column, ...]
    rows: Callable[[], Iterable[tuple[Cell, ...]]]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


@dataclass(frozen=True)
class Export:
    """A file that is ready to be sent; `parts()` makes it while it is sent."""

    name: str
    content_type: str
    parts: Callable[[], Iterator[bytes]]

    @property
    def headers(self) -> dict[str, str]:
        """For the answer that carries it: a download that no cache keeps."""
        return {"Content-Disposition": f'attachment; filename="{self.name}"', "Cache-Control": "no-store"}


def formats_of(kind: str) -> tuple[str, ...]:
    """The formats in which one kind is to be had; none for a kind that there is not."""
    if kind == "tables":
        return ("tex", "json")
    return FORMATS if kind in KINDS else ()


def prepare_export(*, study: Study, kind: str, file_format: str, by: User | None, with_notes: bool = False) -> Export:
    """The file of one kind in one format; who asked for it is kept in the log.

    kind: one of KINDS. A workbook of "ratings" holds everything, the others leave the long sheet out.
    with_notes: also what raters wrote; off unless asked for, since free text may name people.
    Raises KeyError for a kind or format there is not.
    """
    if file_format not in formats_of(kind):
        raise KeyError(file_format)
    record(
        "study.exported",
        by=by,
        study=study,
        kind=kind,
        format=file_format,
        with_notes=with_notes,
        is_unblinded=study.is_unblinded,
    )
    suffix = "exact.csv" if file_format == "csv-exact" else file_format
    return Export(_name(study, kind, suffix), CONTENT_TYPES[file_format], _parts(study, kind, file_format, with_notes))


def _parts(study: Study, kind: str, file_format: str, with_notes: bool) -> Callable[[], Iterator[bytes]]:
    if kind == "tables":
        return lambda: iter([tables_file(report_tables(study_report(study)), file_format)])
    tables = _tables(study, with_notes=with_notes)
    parts: dict[str, Callable[[], Iterator[bytes]]] = {
        "xlsx": lambda: workbook_parts(_sheets(study, tables, kind)),
        "csv": lambda: csv_parts(tables[kind], is_safe=True),
        "csv-exact": lambda: csv_parts(tables[kind], is_safe=False),
        "jsonl": lambda: jsonl_parts(tables[kind]),
    }
    return parts[file_format]


def _name(study: Study, kind: str, suffix: str) -> str:
    """Nothing of it comes from a person: it is a header and a file on somebody's disk."""
    return f"qingting-{study.public_id.hex[:8]}-{kind}-{timezone.now():%Y%m%d-%H%M}.{suffix}"


def prepare_table(*, study: Study, key: str, file_format: str, by: User | None) -> Export | None:
    """One table of the report as a file; None if the report has no such table or the format is none of
    TABLE_FORMATS."""
    found = [table for table in report_tables(study_report(study)) if table.key == key]
    if not found or file_format not in TABLE_FORMATS:
        return None
    record(
        "study.exported", by=by, study=study, kind=f"table {key}", format=file_format, is_unblinded=study.is_unblinded
    )
    content = tables_file(found, file_format)
    return Export(_name(study, key, file_format), CONTENT_TYPES[file_format], lambda: iter([content]))


def tables_file(tables: Sequence[ReportTable], file_format: str) -> bytes:
    """Tables of a report as one file: "tex", "json", or "csv" for a single one."""
    if file_format == "tex":
        return "\n".join(latex_table(table) for table in tables).encode()
    if file_format == "json":
        found = [table_json(table) for table in tables]
        return (json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()
    return b"".join(csv_parts(_flat_table(tables[0]), is_safe=True))


def table_json(table: ReportTable) -> dict[str, Any]:
    """A table as plain JSON: shares are 0 to 1, and an interval has columns of its own."""
    plain = flat(table)
    rows = [dict(zip(plain.names, row, strict=True)) for row in plain.rows]
    columns = [{"key": c.key, "title": str(c.title), "kind": c.kind, "digits": c.digits} for c in table.columns]
    return {
        "key": table.key,
        "title": str(table.title),
        "caption": str(table.caption),
        "columns": columns,
        "rows": rows,
    }


def _flat_table(table: ReportTable) -> Table:
    plain = flat(table)
    columns = tuple(
        Column(name, "", "", is_rounded=is_rounded)
        for name, is_rounded in zip(plain.names, plain.is_rounded, strict=True)
    )
    return Table(columns, lambda: (tuple(row) for row in plain.rows))


def _tables(study: Study, *, with_notes: bool) -> dict[str, Table]:
    """Kind ► table. The report is made when the first table that needs it is written."""
    options = {"see_systems": study.is_unblinded, "with_notes": with_notes}
    report = lru_cache(maxsize=1)(lambda: study_report(study))
    columns = result_columns(see_systems=study.is_unblinded)

    def of(*sections: str) -> Table:
        return Table(columns, lambda: result_rows(report(), report().rows(*sections)))

    return {
        "ratings": Table(ratings_columns(**options), lambda: ratings_rows(study, **options)),
        "numbers": of(),
        "scores": of("scores"),
        "agreement": of("agreement", "repeats"),
    }


# Results as rows.


def result_columns(*, see_systems: bool) -> tuple[Column, ...]:
    """The columns of scores and agreement: one row for each number."""
    return (
        Column("metric", "What was computed", "所计算的指标"),
        Column("dimension", "Dimension, empty for a text metric", "维度；文本指标为空"),
        Column("dataset", "Dataset, empty = all together", "数据集，空 = 全部合计"),
        Column("arm", "Arm, empty = all together", "组，空 = 全部合计", range="A, B, …"),
        *(SYSTEM_COLUMNS if see_systems else ()),
        Column("topic", "Topic, empty = all together", "主题，空 = 全部合计"),
        Column("rater", "Rater, empty = all together", "评分者，空 = 全部合计", range="R1, R2, …"),
        Column(
            "part",
            "Which point, length, pair of raters, pair of systems or protocol",
            "所指的分值、长度、评分者对、系统对或规程",
        ),
        Column("value", "The number, unrounded; empty = undefined", "数值（未舍入）；空 = 无定义", is_rounded=True),
        Column("low", "Lower end of the interval", "区间下限", is_rounded=True),
        Column("high", "Upper end of the interval", "区间上限", is_rounded=True),
        Column("reason", "Why the number is undefined", "无定义的原因"),
        Column("notes", "What a reader must know of the interval", "关于区间须知"),
        *(
            Column(f"n_{name}", en, zh, range="0, 1, …")
            for name, en, zh in (
                ("items", "Items counted", "计入的条目数"),
                ("responses", "Responses counted", "计入的回复数"),
                ("responses_used", "Responses that carry information here", "此处提供信息的回复数"),
                ("ratings", "Ratings counted", "计入的评分数"),
                ("raters", "Raters counted", "计入的评分者数"),
                ("clusters", "Dialogues counted", "计入的对话数"),
                ("pairs", "Pairs of response and reference counted", "计入的回复与参考对数"),
                ("resamples", "Resamples of dialogues", "对话重抽样次数"),
                ("undefined_resamples", "Resamples without a value", "无定义的重抽样次数"),
            )
        ),
        Column("method", "How the interval was made", "区间的求法"),
        Column("signature", "Settings that repeat the number", "可据以复现该数值的设定"),
    )


def result_rows(report: Report, results: Iterable[ResultRow]) -> Iterator[tuple[Cell, ...]]:
    """Results as rows of `result_columns`."""
    see_systems = report.facts.is_unblinded
    systems = {arm.code: (arm.system_slug, arm.system_name) for arm in report.facts.arms}
    counts = [c.name.removeprefix("n_") for c in result_columns(see_systems=False) if c.name.startswith("n_")]
    own_columns = {"dataset", "system", "topic", "rater"}
    for row in results:
        parts = {name: level for name, level in row.stratum.items() if name not in own_columns} | dict(row.detail)
        estimate, arm = row.estimate, row.stratum.get("system", "")
        yield (
            row.metric,
            row.dimension,
            row.stratum.get("dataset", ""),
            arm,
            *(systems.get(arm, ("", "")) if see_systems else ()),
            row.stratum.get("topic", ""),
            row.stratum.get("rater", ""),
            "; ".join(f"{key} {value}" for key, value in parts.items()),
            estimate.value,
            estimate.low,
            estimate.high,
            estimate.reason or "",
            ", ".join(estimate.notes),
            *(estimate.n.get(name) for name in counts),
            estimate.method,
            estimate.signature,
        )


# JSONL and CSV.


def jsonl_parts(table: Table) -> Iterator[bytes]:
    """One JSON object per row, every text exactly as it is."""
    names = table.names
    for part in _batches(table.rows()):
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in part]
        yield ("\n".join(lines) + "\n").encode()


def csv_parts(table: Table, *, is_safe: bool) -> Iterator[bytes]:
    """RFC 4180 in UTF-8; an empty cell is an empty text or no number.

    is_safe: for spreadsheets. Begins with a byte order mark, and text that looks like a formula gets a leading "'".
    """
    buffer = StringIO(newline="")
    writer = csv.writer(buffer)  # quotes what needs quotes, ends lines with CR LF
    yield b"\xef\xbb\xbf" if is_safe else b""
    heading: list[tuple[Cell, ...]] = [tuple(table.names)]
    for part in chain([heading], _batches(table.rows())):
        writer.writerows([[_safe(cell) for cell in row] for row in part] if is_safe else part)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def _safe(cell: Cell) -> Cell:
    return _safe_text(cell) if isinstance(cell, str) else cell


@lru_cache(maxsize=4096)
def _safe_text(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _batches(rows: Iterable[tuple[Cell, ...]]) -> Iterator[list[tuple[Cell, ...]]]:
    iterator = iter(rows)
    while part := list(islice(iterator, ROWS_PER_PART)):
        yield part


# The workbook.


def _sheets(study: Study, tables: dict[str, Table], kind: str) -> Iterator[Sheet]:
    """The sheets in order; each is made when it is its turn, so the long one leaves before anything is computed."""
    before = str(fingerprint(study))
    created_at = timezone.now()
    if kind == "ratings":
        yield _table_sheet("Ratings", tables["ratings"])
    report = study_report(study)
    with override("en"):
        shown = report_tables(report)
        for table in shown:
            yield _table_sheet(_sheet_name(table), _flat_table(table))
        dictionary = list(_dictionary(report, tables if kind == "ratings" else {"numbers": tables["numbers"]}, shown))
    yield _table_sheet("Numbers", tables["numbers"])
    yield Sheet(
        "Data dictionary",
        ("sheet", "column", "meaning", "含义", "unit 单位", "range 取值"),
        dictionary,
        styles=(PLAIN, PLAIN, WRAPPED, WRAPPED, PLAIN, PLAIN),
        widths=(18, 20, 60, 48, 10, 16),
    )
    yield Sheet(
        "Method",
        ("metric", "dimension", "signature 签名"),
        sorted({(row.metric, row.dimension, row.estimate.signature) for row in report.rows()}),
        styles=(PLAIN, PLAIN, WRAPPED),
        widths=(28, 16, 120),
    )
    about = list(_about(report))
    about.append(("File created at", "文件生成时间", utc_text(created_at)))
    about.append(("State of the ratings when the file was begun", "开始生成时的评分状态", before))
    about.append(("State that the numbers rest on", "各数值所依据的状态", report.state))
    is_still = before == str(fingerprint(study))
    about.append(
        ("Ratings were saved while the file was made", "生成期间是否有新的保存", "no 否" if is_still else "yes 是")
    )
    yield Sheet("About", ("about this file", "关于本文件", "value 内容"), about, (PLAIN, PLAIN, WRAPPED), (48, 34, 80))


def _sheet_name(table: ReportTable) -> str:
    """The title as the name of a sheet, which has 31 characters at most and no question mark."""
    return str(table.title).replace("?", "")[:31]


def _table_sheet(name: str, table: Table) -> Sheet:
    styles = [TWO_DECIMALS if column.is_rounded else PLAIN for column in table.columns]
    return Sheet(name, table.names, table.rows(), styles, [max(10, len(column.name) + 2) for column in table.columns])


def _dictionary(report: Report, tables: dict[str, Table], shown: Iterable[ReportTable]) -> Iterator[tuple[Cell, ...]]:
    titles = {"ratings": "Ratings", "numbers": "Numbers"}
    for kind, title in titles.items():
        for column in tables[kind].columns if kind in tables else ():
            yield (title, column.name, column.en, column.zh, column.unit, column.range)
    for dimension in report.facts.dimensions:
        points = ", ".join(str(point) for point in range(dimension.highest + 1))
        yield ("Ratings", f"value: {dimension.key}", dimension.names["en"], dimension.names["zh"], "points", points)
    for table in shown:
        sheet = _sheet_name(table)
        for shown_column in table.columns:
            with override("zh-hans"):
                chinese = str(shown_column.title)
            meaning = f"{shown_column.title}. {table.caption}"
            yield (sheet, shown_column.key, meaning, chinese, _UNITS[shown_column.kind], "")
    yield (
        "all tables", "… low, … high", "95 % interval by resampling dialogues", "按对话重抽样得到的 95 % 区间",
        "as the number", "",
    )  # fmt: skip
    yield ("all tables", "… reason", "Why the number is undefined", "无定义的原因", "", "")
    yield ("all tables", "… note", "What a reader must know of the number", "关于该数值须知", "", "")


_UNITS = {"text": "", "number": "", "percent": "share, 0 to 1", "p": "probability", "count": "count"}


def _about(report: Report) -> Iterator[tuple[Cell, ...]]:
    study, totals = report.facts, report.facts.totals
    yield ("Study", "研究", study.name)
    yield ("Identifier", "标识符", study.public_id)
    yield ("State", "状态", study.state)
    yield ("Rubric and version", "评分标准及版本", study.rubric)
    yield ("SHA-256 of the rubric", "评分标准的 SHA-256", study.rubric_hash)
    yield ("SHA-256 of the design", "设计的 SHA-256", study.design_hash)
    yield ("Raters per item", "每条目评分者数", study.raters_per_item)
    yield ("Items", "条目数", study.n_items)
    yield ("Responses placed before raters", "已分配的回复数", totals.n_responses)
    yield ("Ratings submitted (hidden repeats apart)", "已提交评分（不含隐藏重复）", totals.n_final)
    yield ("Ratings missing", "缺失评分", totals.n_missing)
    yield ("Ratings skipped by the rater", "评分者跳过", totals.n_skipped)
    yield ("Responses rated by everyone who was to rate them", "评分齐全的回复数", totals.n_complete)
    yield (
        "Hidden repeats submitted, of those planned",
        "已提交 / 计划的隐藏重复",
        f"{study.n_repeats_final} / {study.n_repeats_placed}",
    )
    yield ("Responses with a masked name", "遮去名称的回复数", study.n_masked)
    yield ("Items dropped for a name in a response", "因回复露名而剔除的条目数", study.n_dropped)
    if study.is_unblinded:
        yield ("Arms", "组", f"unblinded 已揭盲 {study.unblinded_at[:19]}")
        for arm in study.arms:
            yield (f"Arm {arm.code}", f"组 {arm.code}", arm.system_name)
        yield ("Seed of the study", "研究的随机种子", str(study.seed))
    else:
        yield ("Arms", "组", "coded 编码，未揭盲")
        yield (
            "Seed of the study",
            "研究的随机种子",
            "with the unblinding: arm codes follow from it 揭盲后给出（组代码由其决定）",
        )
    yield ("Seed of the intervals", "区间的随机种子", str(study.interval_seed))
    yield (
        "Signatures",
        "签名",
        "Sheet “Method” and column “signature” of Numbers. 见工作表 Method 与 Numbers 的 signature 列。",
    )
    yield (
        "Rounding",
        "舍入",
        "Cells hold eight significant digits, fitted numbers five; two decimals are shown. "
        "单元格为八位有效数字（拟合值五位），显示两位小数。",
    )
    yield (
        "Text", "文本",
        "Characters a cell cannot hold are U+FFFD; text over 32,767 UTF-16 units ends in “…”. JSONL is exact. "
        "单元格无法容纳的字符记为 U+FFFD；超过 32,767 个 UTF-16 单位的文本以“…”结尾。JSONL 为原文。",
    )  # fmt: skip
