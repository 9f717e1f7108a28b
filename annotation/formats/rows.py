"""SourceItem and SourceResponse: rows of our own JSONL, CSV and XLSX files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from annotation.formats.dialogues import CLIENT, Turn, clean, read_key, read_topic, read_turns
from annotation.formats.limits import MAX_ITEM_KEY_CHARACTERS, MAX_REPEAT
from annotation.formats.problems import Findings, Place
from annotation.formats.source import Format, Source
from annotation.formats.strict import BadText, check_text
from annotation.formats.tables import Columns, read_rows

PROVENANCE = "provenance"  # an object in JSONL; in a table, columns "provenance.model", "provenance.seed", …

ITEM_COLUMNS = Columns(required=("key", "turns"), optional=("dialogue", "topic", "reference"))
RESPONSE_COLUMNS = Columns(
    required=("item", "system", "response"), optional=("repeat", PROVENANCE), prefix=f"{PROVENANCE}."
)
RESPONSE_COLUMNS_OF_ONE_SYSTEM = Columns(
    required=("item", "response"), optional=("system", "repeat", PROVENANCE), prefix=f"{PROVENANCE}."
)


class SourceItem(NamedTuple):
    """One item as it is; its last turn is the client's. `dialogue` is the key itself where none is named."""

    key: str
    dialogue: str
    topic_label: str
    turns: tuple[Turn, ...]
    reference: str
    place: Place


class SourceResponse(NamedTuple):
    """What one system wrote for one item, exactly as it stands in the file."""

    item: str
    system: str  # its slug
    repeat: int
    text: str
    provenance: dict[str, Any]
    place: Place


def read_items(source: Source, file_format: Format, findings: Findings) -> Iterator[SourceItem]:
    """Items of a JSONL, CSV or XLSX file with the columns key, turns and, where known, dialogue, topic, reference."""
    for place, row in read_rows(source, file_format, ITEM_COLUMNS, findings):
        key = read_key(row.get("key"), place, "key", findings, MAX_ITEM_KEY_CHARACTERS)
        has_dialogue = row.get("dialogue") not in (None, "")
        named = row.get("dialogue") if has_dialogue else row.get("key")
        # One problem is enough: where the key is unusable, so is the name taken from it.
        dialogue = read_key(named, place, "dialogue" if has_dialogue else "key", findings) if key is not None else None
        topic = read_topic(row.get("topic"), place, "topic", findings)
        turns = read_turns(row.get("turns"), place, "turns", findings)
        reference = _reference(row.get("reference"), place, findings)
        if turns is not None and (not turns or turns[-1].role != CLIENT):
            findings.add(place, "last_turn" if turns else "no_turns", "turns")
            continue
        if key is None or dialogue is None or topic is None or turns is None or reference is None:
            continue
        yield SourceItem(key, dialogue, topic, turns, reference, place)


def _reference(raw: Any, place: Place, findings: Findings) -> str | None:
    if raw is None:
        return ""
    if not isinstance(raw, str):
        findings.add(place, "not_text", "reference")
        return None
    return clean(raw, place, "reference", findings)


def read_responses(
    source: Source, file_format: Format, findings: Findings, *, system: str = ""
) -> Iterator[SourceResponse]:
    """Responses of a JSONL, CSV or XLSX file with the columns item, system, response and, where known, repeat and
    provenance. `system`: the slug of all rows that name none; then the column may be missing.
    """
    columns = RESPONSE_COLUMNS_OF_ONE_SYSTEM if system else RESPONSE_COLUMNS
    for place, row in read_rows(source, file_format, columns, findings):
        item = read_key(row.get("item"), place, "item", findings, MAX_ITEM_KEY_CHARACTERS)
        named = row.get("system")
        slug = system if system and named in (None, "") else read_key(named, place, "system", findings)
        repeat = _repeat(row.get("repeat"), place, findings)
        text = _response(row.get("response"), place, findings)
        provenance = _provenance(row, place, findings)
        if item is None or slug is None or repeat is None or text is None or provenance is None:
            continue
        yield SourceResponse(item, slug, repeat, text, provenance, place)


def _response(raw: Any, place: Place, findings: Findings) -> str | None:
    if not isinstance(raw, str):
        findings.add(place, "empty_response" if raw is None else "not_text", "response")
        return None
    if not raw.strip():
        findings.add(place, "empty_response", "response")
        return None
    try:
        check_text(raw)
    except BadText as error:
        findings.add(place, error.code, "response", position=error.position + 1)
        return None
    return raw


def _repeat(raw: Any, place: Place, findings: Findings) -> int | None:
    if raw is None or raw == "":
        return 0
    is_digits = isinstance(raw, str) and raw.strip().isascii() and raw.strip().isdigit() and len(raw.strip()) <= 6
    if is_digits or (isinstance(raw, int) and not isinstance(raw, bool)):
        repeat = int(raw)
        if 0 <= repeat <= MAX_REPEAT:
            return repeat
    findings.add(place, "repeat", "repeat", found=str(raw)[:40], limit=MAX_REPEAT)
    return None


def _provenance(row: dict[str, Any], place: Place, findings: Findings) -> dict[str, Any] | None:
    raw = row.get(PROVENANCE)
    if raw in (None, ""):
        raw = {}
    if not isinstance(raw, dict):
        findings.add(place, "not_an_object", PROVENANCE)
        return None
    known = dict(raw)
    for name, value in row.items():
        if name.startswith(f"{PROVENANCE}.") and value not in (None, ""):
            known[name.removeprefix(f"{PROVENANCE}.")] = value
    for text in _texts(known):
        try:
            check_text(text)
        except BadText as error:
            findings.add(place, error.code, PROVENANCE, position=error.position + 1)
            return None
    return known


def _texts(value: Any) -> Iterator[str]:
    """Every text within decoded JSON, names included; without recursion, since the nesting is not ours."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
