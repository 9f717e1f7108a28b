"""Ratings by a judge as they come from a file: one row for each item, arm and dimension."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from annotation.formats.pairs import name_in
from annotation.formats.problems import Findings, Place
from annotation.formats.ratings import point_of
from annotation.formats.source import Format, Source
from annotation.formats.tables import Columns, read_rows

JUDGE_COLUMNS = Columns(required=("item", "arm", "dimension", "value"))
JUDGE_FORMATS: tuple[Format, ...] = ("jsonl", "csv")


class JudgeRow(NamedTuple):
    """One rating. item: its number in the study;  value: a point of the dimension's scale."""

    item: int
    arm: str
    dimension: str
    value: int


def read_judge_ratings(
    source: Source,
    file_format: Format,
    findings: Findings,
    *,
    items: Collection[int],
    arms: Sequence[str],
    scales: Mapping[str, Sequence[float]],
) -> Iterator[JudgeRow]:
    """The ratings of a JSONL or CSV file, each about something that the study has, none of them twice.

    items: numbers of the study's items;  scales: dimension ► its points. A row without a value rates nothing.
    """
    first: dict[tuple[int, str, str], Place] = {}
    known_items = {str(number): number for number in items}
    for place, row in read_rows(source, file_format, JUDGE_COLUMNS, findings):
        names = [name_in(row, field, place, findings) for field in ("item", "arm", "dimension")]
        item, arm, dimension = names
        if item is None or arm is None or dimension is None:
            continue
        if item not in known_items:
            findings.add(place, "unknown_number", "item", found=item)
        if arm not in arms:
            findings.add(place, "unknown_arm", "arm", found=arm, expected=", ".join(arms))
        if dimension not in scales:
            findings.add(place, "unknown_dimension", "dimension", found=dimension, expected=", ".join(scales))
            continue
        value = _point(row["value"], scales[dimension], place, findings)
        if value is None or item not in known_items or arm not in arms:
            continue
        key = (known_items[item], arm, dimension)
        if before := first.get(key):
            said = f"{before.unit} {before.number}"
            findings.add(place, "duplicate_key", key=", ".join((item, arm, dimension)), first=said)
            continue
        first[key] = place
        yield JudgeRow(*key, value)


def _point(raw: Any, scale: Sequence[float], place: Place, findings: Findings) -> int | None:
    if raw is None or raw == "":
        return None
    value = point_of(raw, scale, place, "value", findings)
    return None if value is None else int(value)
