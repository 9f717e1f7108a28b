"""Ratings from files of any origin: one rating a row (long), or one column per rater (wide)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from annotation.formats.pairs import ANY, name_in
from annotation.formats.problems import Findings, Place
from annotation.formats.source import Format, Source
from annotation.formats.tables import Columns, Row, read_rows

Layout = Literal["long", "wide"]


@dataclass(frozen=True)
class RatingFields:
    """What the columns are called. A column in `optional` may be absent, but not here and there."""

    item: str = "item"
    rater: str = "rater"
    value: str = "value"
    system: str = "system"
    dimension: str = "dimension"
    cluster: str = "dialogue"
    dataset: str = "dataset"
    topic: str = "topic"

    @property
    def names(self) -> dict[str, str]:
        """What it is ► what the file calls it, for all that tells one rating from another."""
        return {
            "item": self.item, "system": self.system, "dimension": self.dimension, "cluster": self.cluster,
            "dataset": self.dataset, "topic": self.topic,
        }  # fmt: skip


@dataclass(frozen=True)
class RatingRows:
    """rows: item, rater, system, dimension, value and, where the file has them, cluster, dataset, topic.
    n_missing: cells without a rating."""

    rows: list[dict[str, Any]]
    n_missing: int


def read_ratings(
    source: Source,
    file_format: Format,
    fields: RatingFields,
    scales: Mapping[str, Sequence[float]],
    findings: Findings,
    *,
    layout: Layout | None = None,
    raters: Sequence[str] = (),
    needed: Sequence[str] = (),
) -> RatingRows:
    """All ratings of a file, each on its declared scale, none of them twice.

    scales: dimension ► points; where the file has no column for the dimension, there must be one scale.
    layout: None = long if there are columns for rater and value, else wide.
    raters: the columns of a wide table that hold ratings; empty = all that mean nothing else.
    needed: of RatingFields.names, those that must be there.
    """
    required = (fields.item, *(fields.names[name] for name in needed))
    rows = list(read_rows(source, file_format, Columns(required, prefix=ANY), findings))
    columns = list(dict.fromkeys(name for _, row in rows for name in row if name))
    if not rows:
        if not findings.problems:
            findings.add(source.place, "no_items")
        return RatingRows([], 0)
    if layout is None:
        layout = "long" if {fields.rater, fields.value} <= set(columns) else "wide"
    wanted = (fields.rater, fields.value) if layout == "long" else tuple(raters)
    if missing := [name for name in wanted if name not in columns]:
        _note_columns(source, columns, missing, findings)
        return RatingRows([], 0)
    present = {what: name for what, name in fields.names.items() if name in columns}
    if "dimension" not in present and len(scales) > 1:
        _note_columns(source, columns, [fields.dimension], findings)
        return RatingRows([], 0)
    raters = raters or [name for name in columns if name not in present.values()]
    if layout == "wide" and not raters:
        _note_columns(source, columns, [fields.rater, fields.value], findings)
        return RatingRows([], 0)
    return _rated(rows, fields, present, layout, raters, scales, findings)


def _note_columns(source: Source, columns: Sequence[str], missing: Sequence[str], findings: Findings) -> None:
    place = Place(source.name, "row", 1)
    findings.add(place, "missing_columns", found=", ".join(columns[:20]), missing=", ".join(missing))


def _rated(
    rows: Sequence[tuple[Place, Row]],
    fields: RatingFields,
    present: Mapping[str, str],
    layout: Layout,
    raters: Sequence[str],
    scales: Mapping[str, Sequence[float]],
    findings: Findings,
) -> RatingRows:
    found: list[dict[str, Any]] = []
    n_missing = 0
    seen: dict[tuple[str, ...], Place] = {}
    first: dict[str, tuple[dict[str, str], Place]] = {}
    for place, row in rows:
        names = {what: name_in(row, field, place, findings) for what, field in present.items()}
        if layout == "long":
            rater = name_in(row, fields.rater, place, findings)
            cells = [] if rater is None else [(rater, fields.value, row.get(fields.value))]
        else:
            cells = [(rater, rater, row.get(rater)) for rater in raters]
        known = {what: name for what, name in names.items() if name is not None}
        if len(known) < len(names) or not cells:
            continue
        known.setdefault("system", "")
        known.setdefault("dimension", next(iter(scales)))
        _compare_item(known, present, place, first, findings)
        if known["dimension"] not in scales:
            findings.add(place, "no_scale", fields.dimension, found=known["dimension"], expected=", ".join(scales))
            continue
        for rater, column, cell in cells:
            if cell is None or cell == "":
                n_missing += 1
                continue
            value = point_of(cell, scales[known["dimension"]], place, column, findings)
            key = (known["item"], known["system"], known["dimension"], rater)
            if before := seen.get(key):
                said = ", ".join(name for name in key if name)
                findings.add(place, "duplicate_key", column, key=said, first=f"{before.unit} {before.number}")
            seen[key] = place
            if value is not None:
                found.append({**known, "rater": rater, "value": value})
    return RatingRows(found, n_missing)


def _compare_item(
    known: Mapping[str, str],
    present: Mapping[str, str],
    place: Place,
    first: dict[str, tuple[dict[str, str], Place]],
    findings: Findings,
) -> None:
    """An item has one dialogue, one dataset and one topic."""
    own = {what: known[what] for what in ("cluster", "dataset", "topic") if what in known}
    before, where = first.setdefault(known["item"], (own, place))
    for what, name in own.items():
        if before[what] != name:
            said = f"{where.unit} {where.number}"
            findings.add(place, "conflicting_field", present[what], key=known["item"], first=said)


def point_of(cell: Any, points: Sequence[float], place: Place, column: str, findings: Findings) -> float | None:
    """The point of the scale; None, with the problem noted, if it is none."""
    is_odd = isinstance(cell, bool | list | dict) or (isinstance(cell, str) and "_" in cell)  # Python reads 1_0 as 10
    try:
        value = math.nan if is_odd else float(cell)
    except (OverflowError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        findings.add(place, "not_a_number", column, found=str(cell)[:40])
        return None
    if value not in points:
        scale = ", ".join(f"{point:g}" for point in points)
        findings.add(place, "off_scale", column, found=f"{value:g}", expected=scale)
        return None
    return value
