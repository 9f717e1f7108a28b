"""Scores and agreement of data from anywhere: rows of metrics/ from a file's pairs or ratings, and their tables.

Nothing here asks the database. Numbers of different protocols stand in different tables.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from annotation.formats.pairs import PairTable
from annotation.reporting.latex import latex_table
from annotation.reporting.numbers import REASONS
from annotation.reporting.table import Cell, Column, Table, shown
from metrics import text
from metrics.intervals import NO_INTERVAL
from metrics.randomisation import compare_systems
from metrics.results import Estimate, ResultRow
from metrics.segmentation import Normalisation
from metrics.significance import holm
from metrics.text import METRICS, Progress, Protocol, References, TextStatistics

TITLES = {
    "bleu_1": "B-1", "bleu_2": "B-2", "bleu_3": "B-3", "bleu_4": "B-4", "rouge_1": "R-1", "rouge_2": "R-2",
    "rouge_l": "R-L", "distinct_1": "D-1", "distinct_2": "D-2", "length": "Length",
}  # fmt: skip
COUNTS = {"pairs": "Pairs", "blank_hypotheses": "Blank", "blank_references": "Blank ref.", "missing": "Missing"}
OWN_STRATA = ("system", "dataset", "topic")
OutputFormat = Literal["table", "json", "latex", "csv"]


# Scores.


def count_pairs(
    pairs: PairTable,
    protocols: Sequence[Protocol],
    *,
    normalisation: Normalisation,
    processes: int = 1,
    on_progress: Progress | None = None,
) -> dict[str, TextStatistics]:
    """System ► its table of counts, for all these protocols at once."""
    references = References(
        pairs.references, tokens=text.tokens_of(*protocols), normalisation=normalisation, keep=False
    )
    return text.system_statistics(pairs.hypotheses, references, processes=processes, on_progress=on_progress)


def score_rows(
    pairs: PairTable,
    counted: Mapping[str, TextStatistics],
    protocols: Sequence[Protocol],
    *,
    part: str = "",
    seed: int | None = None,
) -> list[ResultRow]:
    """Every metric of every system under every protocol: over all pairs, then within each level of `part`.

    seed: for intervals by dialogue; None: no interval.
    """
    clusters = np.unique(np.array(pairs.clusters, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
    levels = np.array(pairs.parts, dtype=object)
    strata: list[tuple[dict[str, str], Any]] = [({}, np.ones(len(pairs.keys), dtype=np.bool_))]
    if part:
        strata += [({part: level}, levels == level) for level in sorted(set(pairs.parts))]
    rows = []
    for protocol in protocols:
        for stratum, chosen in strata:
            for system, table in counted.items():
                found = text.text_scores(table.rows(chosen), protocol, clusters=clusters[chosen], seed=seed)
                whose = {**stratum, **({"system": system} if system else {})}
                rows += [ResultRow(name, "", e, whose, {"protocol": protocol.label}) for name, e in found.items()]
    return rows


def difference_rows(
    pairs: PairTable, counted: Mapping[str, TextStatistics], protocols: Sequence[Protocol], *, seed: int
) -> list[ResultRow]:
    """First minus second of all pairs of systems, with p-values of paired randomisation (also adjusted after Holm over
    the pairs of systems, within one metric and protocol) and of the paired bootstrap."""
    clusters = np.unique(np.array(pairs.clusters, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
    rows = []
    for protocol in protocols:
        found = {
            (one, other): compare_systems(counted[one], counted[other], protocol, clusters=clusters, seed=seed)
            for one, other in combinations(counted, 2)
            if (counted[one].is_complete & counted[other].is_complete).any()
        }
        adjusted = {
            metric: dict(zip(found, holm([d[metric].p_randomisation for d in found.values()]), strict=True))
            for metric in METRICS
        }
        for systems, differences in found.items():
            detail = {"systems": ", ".join(systems), "protocol": protocol.label}
            for metric, difference in differences.items():
                rows.append(ResultRow(f"{metric}_difference", "", difference.estimate, {}, detail))
                ps = {
                    "p_randomisation": difference.p_randomisation,
                    "p_randomisation_holm": float(adjusted[metric][systems]),
                }
                if difference.p_bootstrap is not None:
                    ps["p_bootstrap"] = difference.p_bootstrap
                for name, p in ps.items():
                    estimate = replace(difference.estimate, value=p, low=None, high=None, method=name, notes=())
                    rows.append(ResultRow(f"{metric}_{name}", "", estimate, {}, detail))
    return rows


def pair_lines(
    pairs: PairTable, counted: Mapping[str, TextStatistics], protocols: Sequence[Protocol]
) -> Iterator[dict[str, Any]]:
    """One line per system, item and protocol with the scores of that pair alone; null where a side is missing."""
    for system, table in counted.items():
        for protocol in protocols:
            for key, scores in zip(pairs.keys, text.pair_scores(table, protocol), strict=True):
                values = [None if np.isnan(score) else float(score) for score in scores]
                head = {"item": key, "system": system, "protocol": protocol.label}
                yield head | dict(zip(METRICS, values, strict=True))


# Tables.


def score_tables(rows: Sequence[ResultRow], differences: Sequence[ResultRow] = ()) -> list[Table]:
    """One table per protocol with a line per system (and level of the breakdown), then its differences."""
    tables = []
    for protocol in dict.fromkeys(row.detail["protocol"] for row in rows):
        own = [row for row in rows if row.detail["protocol"] == protocol]
        strata = list(dict.fromkeys(tuple(row.stratum.items()) for row in own))
        names = list(dict.fromkeys(name for stratum in strata for name, _ in stratum))
        has_intervals = any(row.estimate.method != NO_INTERVAL for row in own)
        lines: list[list[Cell]] = []
        for stratum in strata:
            of = {row.metric: row.estimate for row in own if tuple(row.stratum.items()) == stratum}
            heads = [Cell(text=dict(stratum).get(name, "all")) for name in names]
            scores = [_score(of[metric]) for metric in METRICS]
            counts = [Cell(value=of["length"].n[name]) for name in COUNTS]
            if has_intervals:  # ten intervals side by side are wider than any page
                lines += [
                    [*heads, Cell(text=TITLES[metric]), score, *counts]
                    for metric, score in zip(METRICS, scores, strict=True)
                ]
            else:
                lines.append([*heads, *scores, *counts])
        scored = [Column(metric, TITLES[metric], "number") for metric in METRICS]
        if has_intervals:
            scored = [Column("metric", "Metric"), Column("score", "Score", "number")]
        columns = [
            *(Column(name, name) for name in names),
            *scored,
            *(Column(name, title, "count") for name, title in COUNTS.items()),
        ]
        reasons = {row.estimate.reason for row in own if row.estimate.reason}
        tables.append(
            Table(
                f"scores-{protocol.rstrip('*')}",
                f"Scores, protocol {protocol}",
                "Percent; length in tokens of BLEU.",
                columns,
                lines,
                remark="; ".join(f"– {REASONS[reason]}" for reason in sorted(reasons)),
                n_headings=len(names) + has_intervals,
            )
        )
        tables += _difference_tables(protocol, [row for row in differences if row.detail["protocol"] == protocol])
    return tables


def _score(estimate: Estimate) -> Cell:
    return Cell(text="–") if estimate.reason else Cell(estimate=estimate)


def _difference_tables(protocol: str, rows: Sequence[ResultRow]) -> list[Table]:
    if not rows:
        return []
    found = {(row.detail["systems"], row.metric): row.estimate for row in rows}
    ps = {"p_randomisation": "p", "p_randomisation_holm": "p (Holm)"}
    lines = [
        [
            Cell(text=systems),
            Cell(text=TITLES[metric]),
            Cell(estimate=found[systems, f"{metric}_difference"]),
            *(Cell(estimate=found[systems, f"{metric}_{p}"]) for p in ps),
            Cell(value=found[systems, f"{metric}_difference"].n["pairs"]),
        ]
        for systems in dict.fromkeys(row.detail["systems"] for row in rows)
        for metric in METRICS
    ]
    columns = [
        Column("systems", "First, second"),
        Column("metric", "Metric"),
        Column("difference", "First minus second", "number"),
        *(Column(name, title, "p") for name, title in ps.items()),
        Column("pairs", "Pairs", "count"),
    ]
    title, caption = f"Differences, protocol {protocol}", "p: paired randomisation by dialogue, two-sided."
    return [Table(f"differences-{protocol.rstrip('*')}", title, caption, columns, lines)]


COEFFICIENTS = {
    "percent_agreement": "Percent agreement",
    "fleiss_kappa": "Fleiss’ κ",
    "krippendorff_alpha_nominal": "Krippendorff’s α, nominal",
    "krippendorff_alpha_ordinal": "Krippendorff’s α, ordinal",
    "krippendorff_alpha_interval": "Krippendorff’s α, interval",
    "gwet_ac1": "Gwet’s AC1",
    "gwet_ac2_quadratic": "Gwet’s AC2, quadratic",
    "brennan_prediger": "Brennan–Prediger",
    "conger_kappa": "Conger’s κ",
    "icc_2_1": "ICC(2,1)",
    "icc_2_k": "ICC(2,k)",
    "category_kappa": "κ of point",
    "cohen_kappa_linear": "Cohen’s κ, linear",
    "cohen_kappa_quadratic": "Cohen’s κ, quadratic",
    "other_point_rate": "Rate of another point than",
}


def agreement_tables(rows: Sequence[ResultRow]) -> list[Table]:
    """One table per dimension: over all ratings, then within each part."""
    tables = []
    for dimension in dict.fromkeys(row.dimension for row in rows):
        own = [row for row in rows if row.dimension == dimension]
        has_parts = any(row.stratum for row in own)
        lines = []
        for row in own:
            which = " ".join([COEFFICIENTS[row.metric], *row.detail.values()])
            part = ", ".join(f"{name} {level}" for name, level in row.stratum.items()) or "all"
            counts = [Cell(value=row.estimate.n[name]) for name in ("responses", "ratings", "raters", "clusters")]
            lines.append(
                [*([Cell(text=part)] if has_parts else []), Cell(text=which), Cell(estimate=row.estimate), *counts]
            )
        columns = [
            *([Column("part", "Part")] if has_parts else []),
            Column("coefficient", "Coefficient"),
            Column("value", "Value", "number", digits=3),
            Column("responses", "Responses", "count"),
            Column("ratings", "Ratings", "count"),
            Column("raters", "Raters", "count"),
            Column("clusters", "Dialogues", "count"),
        ]
        title, caption = f"Agreement, {dimension}", "95% intervals by resampling dialogues."
        bounds = {row.estimate.method for row in own if row.metric == "other_point_rate"}
        remark = "; ".join(f"{COEFFICIENTS['other_point_rate']} …: {method}" for method in sorted(bounds))
        key = f"agreement-{dimension}"
        tables.append(Table(key, title, caption, columns, lines, remark=remark, n_headings=1 + has_parts))
    return tables


# Writing.


def written(tables: Sequence[Table], rows: Sequence[ResultRow], file_format: OutputFormat) -> str:
    """The same numbers as text for a terminal, LaTeX for a paper, or JSON or CSV with signatures for a program."""
    match file_format:
        case "table":
            return "\n\n".join([*map(text_table, tables), *_signatures(rows)])
        case "latex":
            return "\n".join(map(latex_table, tables))
        case "json":
            return json.dumps([row.to_dict() for row in rows], ensure_ascii=False, indent=2, allow_nan=False)
        case "csv":
            return as_csv(rows)


def text_table(table: Table) -> str:
    """A table in columns of even width; wide characters count as two."""
    head = [f"{column.title} (%)" if column.kind == "percent" else str(column.title) for column in table.columns]
    body = [[shown(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    body = [[_plain(cell) for cell in row] for row in body]
    widths = [max(map(_columns, cells)) for cells in zip(head, *body, strict=True)]
    is_left = [not column.is_numeric for column in table.columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell + " " * (width - _columns(cell)) if left else " " * (width - _columns(cell)) + cell
            for cell, width, left in zip(cells, widths, is_left, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    marks = [f"{mark} {words}" for mark, words in table.marks]
    remark = [_plain(str(table.remark))] if table.remark else []
    title = f"{_plain(str(table.title))}. {table.caption}"
    return "\n".join([title, line(head), rule, *map(line, body), *marks, *remark])


def _plain(cell: str) -> str:
    """Safe for a terminal: what does not print shows as �."""
    return "".join(character if character.isprintable() else "�" for character in cell)


def _columns(cell: str) -> int:
    """How many columns of a terminal the text fills."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in cell
    )


def _signatures(rows: Iterable[ResultRow]) -> list[str]:
    """What all numbers have in common. The whole signature of each stands in JSON and CSV."""
    parts = [row.estimate.signature.split("|") for row in rows]
    if not parts:
        return []
    common = [part for part in parts[0] if all(part in other for other in parts)]
    return [f"Signature of all: {'|'.join(common)}\nEach number’s own: --format json or csv"]


def as_csv(rows: Sequence[ResultRow]) -> str:
    """One line per number, exact, with counts, method and signature; "" where there is nothing to say."""
    records: list[Mapping[str, object]] = []
    for row in rows:
        e: Estimate = row.estimate
        # A column of the file may be called as one of ours.
        stratum = {name if name in OWN_STRATA else f"by {name}": level for name, level in row.stratum.items()}
        records.append(
            {"metric": row.metric, "dimension": row.dimension, **stratum, **row.detail, "value": e.value,
             "low": e.low, "high": e.high, "reason": e.reason, "notes": " ".join(e.notes), "method": e.method}
            | {f"n_{name}": count for name, count in e.n.items()}
            | {"signature": e.signature}
        )  # fmt: skip
    first = ["metric", "dimension"]
    last = ["value", "low", "high", "reason", "notes", "method"]
    names = dict.fromkeys(name for record in records for name in record)
    counts = [name for name in names if name.startswith("n_")]
    middle = [name for name in names if name not in {*first, *last, *counts, "signature"}]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*first, *middle, *last, *counts, "signature"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()
