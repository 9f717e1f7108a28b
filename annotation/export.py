"""A study's ratings, scores and agreement as files: XLSX, CSV and JSONL with the same numbers in each.

Every format is made from the same rows and leaves as a stream. Arms stay coded until the study is unblinded, for
every reader. JSONL and "csv-exact" hold every text as it is; "csv" and XLSX are safe to open in a spreadsheet.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from itertools import chain, islice

from django.utils import timezone

from annotation.models import Study, User
from annotation.reports import StudyReport, resampling_seed, study_report
from annotation.services.audit import record
from annotation.tables import SYSTEM_COLUMNS, Cell, Column, fingerprint, ratings_columns, ratings_rows, utc_text
from annotation.workbook import PLAIN, TWO_DECIMALS, WRAPPED, Sheet, workbook_parts
from metrics.results import ResultRow

KINDS = ("ratings", "scores", "agreement")
CONTENT_TYPES = {
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "csv": "text/csv; charset=utf-8",
    "csv-exact": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson; charset=utf-8",
}
FORMATS = tuple(CONTENT_TYPES)
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


def prepare_export(*, study: Study, kind: str, file_format: str, by: User | None, with_notes: bool = False) -> Export:
    """The file of one kind in one format; who asked for it is kept in the log.

    kind: one of KINDS. A workbook of "ratings" holds everything, the others leave the long sheet out.
    with_notes: also what raters wrote; off unless asked for, since free text may name people.
    Raises KeyError for an unknown kind or format.
    """
    tables = _tables(study, with_notes=with_notes)
    table, content_type = tables[kind], CONTENT_TYPES[file_format]
    record(
        "study.exported",
        by=by,
        study=study,
        kind=kind,
        format=file_format,
        with_notes=with_notes,
        is_unblinded=study.is_unblinded,
    )
    parts: dict[str, Callable[[], Iterator[bytes]]] = {
        "xlsx": lambda: workbook_parts(_sheets(study, tables, kind)),
        "csv": lambda: csv_parts(table, is_safe=True),
        "csv-exact": lambda: csv_parts(table, is_safe=False),
        "jsonl": lambda: jsonl_parts(table),
    }
    # Nothing of the name comes from a person: it is a header and a file on somebody's disk.
    stamp = f"{timezone.now():%Y%m%d-%H%M}"
    suffix = "exact.csv" if file_format == "csv-exact" else file_format
    name = f"qingting-{study.public_id.hex[:8]}-{kind}-{stamp}.{suffix}"
    return Export(name, content_type, parts[file_format])


def _tables(study: Study, *, with_notes: bool) -> dict[str, Table]:
    """Kind ► table. The report is made when the first table that needs it is written."""
    options = {"see_systems": study.is_unblinded, "with_notes": with_notes}
    report = lru_cache(maxsize=1)(lambda: study_report(study))
    columns = result_columns(see_systems=study.is_unblinded)
    return {
        "ratings": Table(ratings_columns(**options), lambda: ratings_rows(study, **options)),
        "scores": Table(columns, lambda: result_rows(report(), report().numbers.scores)),
        "agreement": Table(
            columns, lambda: result_rows(report(), (*report().numbers.agreement, *report().numbers.repeats))
        ),
    }


# Results as rows.


def result_columns(*, see_systems: bool) -> tuple[Column, ...]:
    """The columns of scores and agreement: one row for each number."""
    return (
        Column("metric", "What was computed", "所计算的指标"),
        Column("dimension", "Dimension", "维度"),
        Column("dataset", "Dataset, empty = all together", "数据集，空 = 全部合计"),
        Column("arm", "Arm, empty = all together", "组，空 = 全部合计", range="A, B, …"),
        *(SYSTEM_COLUMNS if see_systems else ()),
        Column("rater", "Rater, empty = all together", "评分者，空 = 全部合计", range="R1, R2, …"),
        Column("part", "Which point or which pair of raters", "所指的分值或评分者对"),
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
                ("resamples", "Resamples of dialogues", "对话重抽样次数"),
                ("undefined_resamples", "Resamples without a value", "无定义的重抽样次数"),
            )
        ),
        Column("method", "How the interval was made", "区间的求法"),
        Column("signature", "Settings that repeat the number", "可据以复现该数值的设定"),
    )


def result_rows(report: StudyReport, results: Iterable[ResultRow]) -> Iterator[tuple[Cell, ...]]:
    """Results as rows of `result_columns`."""
    see_systems = report.study.is_unblinded
    systems = {arm.code: (arm.system_slug, arm.system_name) for arm in report.arms}
    counts = [c.name.removeprefix("n_") for c in result_columns(see_systems=False) if c.name.startswith("n_")]
    for row in results:
        estimate, arm = row.estimate, row.stratum.get("system", "")
        yield (
            row.metric,
            row.dimension,
            row.stratum.get("dataset", ""),
            arm,
            *(systems.get(arm, ("", "")) if see_systems else ()),
            row.stratum.get("rater", ""),
            "; ".join(f"{key} {value}" for key, value in row.detail.items()),
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
    yield _score_sheet(report)
    yield _table_sheet("Scores", tables["scores"])
    yield _table_sheet("Agreement", tables["agreement"])
    yield Sheet(
        "Data dictionary",
        ("sheet", "column", "meaning", "含义", "unit 单位", "range 取值"),
        list(_dictionary(report, tables if kind == "ratings" else {"scores": tables["scores"]})),
        styles=(PLAIN, PLAIN, WRAPPED, WRAPPED, PLAIN, PLAIN),
        widths=(18, 20, 60, 48, 10, 16),
    )
    about = list(_about(report))
    about.append(("File created at", "文件生成时间", utc_text(created_at)))
    about.append(("State of the ratings when the file was begun", "开始生成时的评分状态", before))
    about.append(
        (
            "State of the ratings in scores and agreement",
            "得分与一致性所依据的评分状态",
            str(report.numbers.fingerprint),
        )
    )
    is_still = before == str(fingerprint(study))
    about.append(
        ("Ratings were saved while the file was made", "生成期间是否有新的保存", "no 否" if is_still else "yes 是")
    )
    yield Sheet("About", ("about this file", "关于本文件", "value 内容"), about, (PLAIN, PLAIN, WRAPPED), (48, 34, 80))


def _table_sheet(name: str, table: Table) -> Sheet:
    styles = [TWO_DECIMALS if column.is_rounded else PLAIN for column in table.columns]
    return Sheet(name, table.names, table.rows(), styles, [max(10, len(column.name) + 2) for column in table.columns])


def _score_sheet(report: StudyReport) -> Sheet:
    """The table as papers print it: a line for each dataset and arm, and mean, interval and n of each dimension."""
    names = ("mean", "low", "high", "n")
    heading = ["dataset", "arm", "system", *(f"{d.key} {name}" for d in report.dimensions for name in names)]
    rows: list[tuple[Cell, ...]] = []
    for line in report.score_lines:
        cells: list[Cell] = []
        for score in line.scores:
            cells += [score.value, score.low, score.high, score.n["responses"]] if score else [None, None, None, 0]
        rows.append((line.dataset or "all", line.arm.code, line.arm.system_name, *cells))
    styles = [PLAIN] * 3 + [TWO_DECIMALS, TWO_DECIMALS, TWO_DECIMALS, PLAIN] * len(report.dimensions)
    return Sheet("Score table", heading, rows, styles, [18, 8, 20] + [14] * (len(heading) - 3))


def _dictionary(report: StudyReport, tables: dict[str, Table]) -> Iterator[tuple[Cell, ...]]:
    titles = {"ratings": "Ratings", "scores": "Scores, Agreement"}
    for kind, title in titles.items():
        for column in tables[kind].columns if kind in tables else ():
            yield (title, column.name, column.en, column.zh, column.unit, column.range)
    for dimension in report.study.rubric.dimensions.order_by("order"):
        name = dimension.name
        points = ", ".join(str(point) for point in dimension.scale)
        yield ("Ratings", f"value: {dimension.key}", name["en"], name["zh"], "points", points)
    yield (
        "Score table", "… mean",
        "Mean over the raters of a response, then over responses; hidden repeats left out",
        "先对每条回复的各评分者取平均，再对回复取平均；不含隐藏重复", "points", "",
    )  # fmt: skip
    yield (
        "Score table",
        "… low, … high",
        "95 % interval by resampling dialogues",
        "按对话重抽样得到的 95 % 区间",
        "points",
        "",
    )
    yield ("Score table", "… n", "Responses with at least one rating", "至少有一个评分的回复数", "", "0, 1, …")


def _about(report: StudyReport) -> Iterator[tuple[Cell, ...]]:
    study, totals = report.study, report.totals
    yield ("Study", "研究", study.name)
    yield ("Identifier", "标识符", str(study.public_id))
    yield ("State", "状态", study.state)
    yield ("Rubric and version", "评分标准及版本", str(study.rubric))
    yield ("SHA-256 of the rubric", "评分标准的 SHA-256", study.rubric.content_hash)
    yield ("SHA-256 of the design", "设计的 SHA-256", study.design_hash)
    yield ("Raters per item", "每条目评分者数", study.raters_per_item)
    yield ("Items", "条目数", study.study_items.count())
    yield ("Responses placed before raters", "已分配的回复数", totals.n_responses)
    yield ("Ratings submitted (hidden repeats apart)", "已提交评分（不含隐藏重复）", totals.n_final)
    yield ("Ratings missing", "缺失评分", totals.n_missing)
    yield ("Ratings skipped by the rater", "评分者跳过", totals.n_skipped)
    yield ("Responses rated by everyone who was to rate them", "评分齐全的回复数", totals.n_complete)
    yield (
        "Hidden repeats submitted, of those planned",
        "已提交 / 计划的隐藏重复",
        f"{report.numbers.n_repeats_final} / {report.numbers.n_repeats_placed}",
    )
    yield ("Responses with a masked name", "遮去名称的回复数", study.n_masked)
    yield ("Items dropped for a name in a response", "因回复露名而剔除的条目数", study.n_dropped)
    if study.is_unblinded:
        yield ("Arms", "组", f"unblinded 已揭盲 {utc_text(study.unblinded_at)}")
        for arm in report.arms:
            yield (f"Arm {arm.code}", f"组 {arm.code}", arm.system_name)
        yield ("Seed of the study", "研究的随机种子", str(study.seed))
    else:
        yield ("Arms", "组", "coded 编码，未揭盲")
        yield (
            "Seed of the study",
            "研究的随机种子",
            "with the unblinding: arm codes follow from it 揭盲后给出（组代码由其决定）",
        )
    yield ("Seed of the intervals", "区间的随机种子", str(resampling_seed(study)))
    yield ("Signatures", "签名", "Column “signature” of Scores and Agreement repeats each number. 各数值的签名见该列。")
    yield (
        "Rounding",
        "舍入",
        "Cells hold unrounded numbers; two decimals are shown. 单元格为未舍入数值，显示两位小数。",
    )
    yield (
        "Text", "文本",
        "Characters a cell cannot hold are U+FFFD; text over 32,767 UTF-16 units ends in “…”. JSONL is exact. "
        "单元格无法容纳的字符记为 U+FFFD；超过 32,767 个 UTF-16 单位的文本以“…”结尾。JSONL 为原文。",
    )  # fmt: skip
