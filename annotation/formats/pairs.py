"""Pairs of a response and its reference from files of any origin: columns are called as the file calls them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from annotation.formats.problems import Findings, Place
from annotation.formats.source import Format, Source
from annotation.formats.tables import Columns, Row, read_rows

ANY = ""  # every name begins with it: columns that are not asked for are passed over


@dataclass(frozen=True)
class PairFields:
    """What the columns are called. item, system and cluster may be absent unless they are in `demanded`."""

    hypothesis: str = "hypothesis"
    reference: str | None = "reference"  # None: references come from a file of their own
    item: str | None = "item"
    system: str | None = "system"
    cluster: str | None = "dialogue"
    part: str | None = None  # what scores are broken down by
    demanded: frozenset[str] = frozenset()

    @property
    def required(self) -> tuple[str, ...]:
        named = (self.hypothesis, self.reference, self.part, *sorted(self.demanded))
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def present(self, columns: Container[str]) -> PairFields:
        """The same without what the file does not have."""
        item, system, cluster = (name if name in columns else None for name in (self.item, self.system, self.cluster))
        return replace(self, item=item, system=system, cluster=cluster)


class _Pair(NamedTuple):
    key: str
    system: str
    hypothesis: str | None
    reference: str | None
    cluster: str
    part: str
    place: Place


@dataclass(frozen=True)
class PairTable:
    """Systems side by side: entry i of every sequence belongs to item i. None is a text that is not there."""

    keys: tuple[str, ...]
    references: tuple[str | None, ...]
    clusters: tuple[str, ...]
    parts: tuple[str, ...]
    hypotheses: Mapping[str, tuple[str | None, ...]]


def read_pairs(
    source: Source,
    file_format: Format,
    fields: PairFields,
    findings: Findings,
    *,
    references: Mapping[str, str | None] | None = None,
) -> PairTable:
    """All pairs of a file. Without a column for the item, the n-th rows of all systems belong together.

    An empty cell is a blank response, which scores 0, but a missing reference, for which nothing can be scored; in
    JSONL null is missing and "" is blank. references: item ► reference, where they come from another file.
    """
    pairs: list[_Pair] = []
    counts: dict[str, int] = {}
    rows = list(read_rows(source, file_format, Columns(fields.required, prefix=ANY), findings))
    if not rows and not findings.problems:
        findings.add(source.place, "no_items")
    fields = fields.present({name for _, row in rows for name in row})
    for place, row in rows:
        system = name_in(row, fields.system, place, findings)
        number = counts[system or ""] = counts.get(system or "", 0) + 1
        key = str(number) if fields.item is None else name_in(row, fields.item, place, findings)
        cluster = key if fields.cluster is None else name_in(row, fields.cluster, place, findings)
        part = name_in(row, fields.part, place, findings)
        is_cell = file_format != "jsonl"
        hypothesis = _text(row, fields.hypothesis, place, findings, blank="" if is_cell else None)
        if fields.reference is not None:
            reference = _text(row, fields.reference, place, findings, blank=None)
            reference = None if is_cell and reference == "" else reference
        else:
            reference = (references or {}).get(key or "")
        if system is not None and key is not None and cluster is not None and part is not None:
            pairs.append(_Pair(key, system, hypothesis, reference, cluster, part, place))
    return _side_by_side(pairs, fields, findings)


def read_references(
    source: Source, file_format: Format, item: str, reference: str, findings: Findings
) -> dict[str, str | None]:
    """Item ► reference. An item stands in one row only."""
    found: dict[str, str | None] = {}
    places: dict[str, Place] = {}
    for place, row in read_rows(source, file_format, Columns((item, reference), prefix=ANY), findings):
        key = name_in(row, item, place, findings)
        if key is None:
            continue
        if key in places:
            findings.add(place, "duplicate_key", item, key=key, first=_said(places[key]))
        places[key] = place
        found[key] = _text(row, reference, place, findings, blank=None) or None
    return found


def name_in(row: Row, field: str | None, place: Place, findings: Findings) -> str | None:
    """A name as text; "" where no column is asked for; None, with the problem noted, if it is missing or no name."""
    if field is None:
        return ""
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        findings.add(place, "not_text", field)
        return None
    name = "" if value is None else str(value).strip()
    if not name:
        findings.add(place, "missing", field)
        return None
    return name


def _text(row: Row, field: str, place: Place, findings: Findings, *, blank: str | None) -> str | None:
    """The text as it stands; `blank` where there is none."""
    value: Any = row.get(field)
    if value is None:
        return blank
    if isinstance(value, bool) or not isinstance(value, str | int):
        findings.add(place, "not_text", field)
        return blank
    return str(value)


def _said(place: Place) -> str:
    return f"{place.unit} {place.number}"


def _side_by_side(pairs: Sequence[_Pair], fields: PairFields, findings: Findings) -> PairTable:
    """Items in the order of their first row; what belongs to an item must be the same wherever it is said."""
    first: dict[str, _Pair] = {}
    seen: dict[tuple[str, str], _Pair] = {}
    references: dict[str, _Pair] = {}
    for pair in pairs:
        before = first.setdefault(pair.key, pair)
        if twice := seen.get((pair.key, pair.system)):
            key = ", ".join(name for name in (pair.key, pair.system) if name)
            findings.add(pair.place, "duplicate_key", fields.item or "", key=key, first=_said(twice.place))
        seen[pair.key, pair.system] = pair
        named = references.get(pair.key)
        if named is None and pair.reference is not None:
            references[pair.key] = pair
        elif named is not None and pair.reference not in (None, named.reference):
            _note_conflict(pair, named, fields.reference, findings)
        if pair.cluster != before.cluster:
            _note_conflict(pair, before, fields.cluster, findings)
        if pair.part != before.part:
            _note_conflict(pair, before, fields.part, findings)
    systems = dict.fromkeys(pair.system for pair in pairs)
    texts = {name: {pair.key: pair.hypothesis for pair in pairs if pair.system == name} for name in systems}
    return PairTable(
        tuple(first),
        tuple(references[key].reference if key in references else None for key in first),
        tuple(pair.cluster for pair in first.values()),
        tuple(pair.part for pair in first.values()),
        {name: tuple(texts[name].get(key) for key in first) for name in systems},
    )


def _note_conflict(pair: _Pair, before: _Pair, field: str | None, findings: Findings) -> None:
    findings.add(pair.place, "conflicting_field", field or "", key=pair.key, first=_said(before.place))
