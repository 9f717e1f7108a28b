"""import_items, import_responses: a file comes in whole or not at all, and a second time it changes nothing.

First the whole file is read, outside of any transaction, and everything good waits in a spool on disk. Only if there
is no problem is it written, in one transaction that does nothing but write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction
from django.db.models import F, Q
from django.utils.translation import gettext_noop, ngettext

from annotation import problems, topics
from annotation.errors import ImportRefused
from annotation.formats.dialogues import SourceDialogue, Turn, read_smilechat, read_soulchat
from annotation.formats.problems import Findings, Place, Problem, TooManyProblems
from annotation.formats.rows import SourceItem, SourceResponse, read_items, read_responses
from annotation.formats.source import (
    DIALOGUE_FORMATS,
    ITEM_FORMATS,
    RESPONSE_FORMATS,
    Format,
    Source,
    digest,
    sniff,
    stamp,
)
from annotation.models import Dataset, ImportRecord, Item, Response, System, User
from annotation.risk import risks_of
from annotation.sampling import DialogueSpool, Entry, n_items_of
from annotation.services.audit import record
from annotation.services.responses import EmptyResponse, build_response, names_of_systems, unstored
from annotation.services.systems import register_system
from annotation.spool import RowSpool

ROWS_PER_STATEMENT = 500
MAX_SLUG_CHARACTERS = 60

# progress(stage, done, total): stages are msgids, total is None where nobody can know it yet.
Progress = Callable[[str, int, int | None], None]
CHECKING, READING, WRITING = gettext_noop("Checking the file"), gettext_noop("Reading"), gettext_noop("Writing")


@dataclass(frozen=True)
class NewDataset:
    """A dataset to be made with the first file that is taken in; one of the same slug is taken as it is."""

    slug: str
    name: str
    source: str = ""
    licence: str = ""
    is_demo: bool = False


@dataclass(frozen=True)
class ItemOptions:
    """What to take of a file. `seed` matters only where something is drawn."""

    format: Format | None = None  # None: found out from the content
    one_per_dialogue: bool = False
    sample: int | None = None  # dialogues, not items
    seed: int = 1
    is_stratified: bool = False  # the sample, by topic

    def to_json(self, file_format: Format) -> dict[str, Any]:
        """The options that have a bearing on the result."""
        is_drawn = self.one_per_dialogue or self.sample is not None
        return {
            "format": file_format,
            "one_per_dialogue": self.one_per_dialogue,
            "sample": self.sample,
            "seed": self.seed if is_drawn else None,
            "stratify": "topic" if self.is_stratified and self.sample is not None else None,
        }


@dataclass(frozen=True)
class ResponseOptions:
    """How to read a file of responses."""

    format: Format | None = None
    system: str = ""  # slug for all rows that name none
    create_systems: bool = False  # register slugs that are not known, under the slug as name

    def to_json(self, file_format: Format) -> dict[str, Any]:
        """The options that have a bearing on the result."""
        return {"format": file_format, "system": self.system, "create_systems": self.create_systems}


@dataclass(frozen=True)
class ImportResult:
    """What came in. `is_repeat`: this file came in before with these options, and nothing was changed now."""

    record: ImportRecord
    is_repeat: bool
    counts: dict[str, Any]


def _no_progress(stage: str, done: int, total: int | None) -> None:
    return None


def import_items(
    *,
    source: Source,
    dataset: Dataset | NewDataset,
    options: ItemOptions | None = None,
    by: User | None,
    on_progress: Progress = _no_progress,
) -> ImportResult:
    """Take the items of a file into a dataset, all or none.

    An item that is there already with the same content is left alone and counted. Raises ImportRefused, with the
    list of problems, if anything is wrong anywhere; then nothing has changed.
    """
    options = options or ItemOptions()
    intake = _Intake.of(source, dataset, ImportRecord.Kind.ITEMS, options, ITEM_FORMATS, on_progress)
    if previous := intake.previous(dataset):
        return previous
    findings = Findings()
    with DialogueSpool(options.seed) as spool:
        _read_items(spool, intake, findings, on_progress)
        n_duplicates = spool.drop_duplicates() if intake.format in DIALOGUE_FORMATS else 0
        n_dialogues = spool.gather()
        counts: dict[str, Any] = {
            **_told(findings),
            "n_dialogues": n_dialogues,
            "n_duplicates": n_duplicates + findings.counts["n_duplicates"],
        }
        if options.sample is not None:
            if options.sample > n_dialogues:
                findings.add(source.place, "sample_too_large", wanted=options.sample, found=n_dialogues)
                raise refusal(findings.problems)
            spool.choose(options.sample, is_stratified=options.is_stratified)
            counts["n_sampled_dialogues"] = options.sample
        intake.check_unchanged()
        on_progress(WRITING, 0, spool.n_items(one_per_dialogue=options.one_per_dialogue))
        return _write_items(spool, intake, dataset, options, counts, by, on_progress)


def import_responses(
    *,
    source: Source,
    dataset: Dataset,
    options: ResponseOptions | None = None,
    by: User | None,
    on_progress: Progress = _no_progress,
) -> ImportResult:
    """Take the responses of a file to the items of a dataset, all or none.

    A response that is there already with the same text is left alone and counted. Raises ImportRefused, with the
    list of problems, if anything is wrong anywhere; then nothing has changed.
    """
    options = options or ResponseOptions()
    intake = _Intake.of(source, dataset, ImportRecord.Kind.RESPONSES, options, RESPONSE_FORMATS, on_progress)
    if previous := intake.previous(dataset):
        return previous
    findings = Findings()
    with RowSpool() as spool:
        new_systems = _read_responses(spool, intake, dataset, options, findings, on_progress)
        intake.check_unchanged()
        on_progress(WRITING, 0, len(spool))
        return _write_responses(spool, intake, dataset, new_systems, _told(findings), by, on_progress)


def refusal(found: list[Problem]) -> ImportRefused:
    """ImportRefused for these problems; its message names the first."""
    message = ngettext(
        "Nothing was taken in. There is %(n)s problem: %(first)s",
        "Nothing was taken in. There are %(n)s problems. The first: %(first)s",
        len(found),
    ) % {"n": len(found), "first": problems.sentence(found[0])}
    return ImportRefused(message, problems=[problem.to_json() for problem in found])


# --- What both kinds share ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Intake:
    """One file on its way in: what it is, byte for byte, and what is asked of it."""

    source: Source
    kind: str
    format: Format
    sha256: str
    stamp: tuple[int, int]
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        source: Source,
        dataset: Dataset | NewDataset,
        kind: str,
        options: ItemOptions | ResponseOptions,
        formats: tuple[Format, ...],
        on_progress: Progress,
    ) -> _Intake:
        before = stamp(source)
        file_format = options.format or sniff(source)
        expected = ", ".join(formats)
        if file_format is None:
            raise refusal([Problem(source.place, "unknown_format", params={"expected": expected})])
        if file_format not in formats:
            wrong: dict[str, str | int] = {"found": file_format, "expected": expected}
            raise refusal([Problem(source.place, "wrong_format", params=wrong)])
        sha256 = digest(source, on_chunk=lambda: on_progress(CHECKING, 0, None))
        return cls(source, kind, file_format, sha256, before, options.to_json(file_format))

    @property
    def options_sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()

    def previous(self, dataset: Dataset | NewDataset) -> ImportResult | None:
        """The result of the same import before, if there was one."""
        found = ImportRecord.objects.filter(
            dataset__slug=dataset.slug,
            kind=self.kind,
            file_sha256=self.sha256,
            options_sha256=self.options_sha256,
        ).first()
        return ImportResult(found, True, found.counts) if found else None

    def check_unchanged(self) -> None:
        """Raises ImportRefused if somebody wrote to the file since it was first looked at."""
        if stamp(self.source) != self.stamp:
            raise refusal([Problem(self.source.place, "changed")])

    def record(self, dataset: Dataset, by: User | None) -> ImportRecord:
        return ImportRecord.objects.create(
            kind=self.kind,
            dataset=dataset,
            file_name=problems.plain(self.source.name, limit=250),
            file_sha256=self.sha256,
            options_sha256=self.options_sha256,
            options=self.options,
            created_by=by,
        )


def _told(findings: Findings) -> dict[str, Any]:
    """The counts of a reading, for its record. Raises ImportRefused if there were problems."""
    if findings.problems:
        raise refusal(findings.problems)
    counts: dict[str, Any] = {name: n for name, n in findings.counts.items() if n and name != "n_duplicates"}
    if findings.encoding:
        counts["encoding"] = findings.encoding
    return counts


def _locked(dataset: Dataset | NewDataset) -> Dataset:
    """The dataset's row, held until the transaction ends: imports into one dataset follow one another."""
    if isinstance(dataset, NewDataset):
        fields = {
            "name": dataset.name,
            "source": dataset.source,
            "licence": dataset.licence,
            "is_demo": dataset.is_demo,
        }
        dataset = Dataset.objects.get_or_create(slug=dataset.slug, defaults=fields)[0]
    return Dataset.objects.select_for_update().get(pk=dataset.pk)


_T = TypeVar("_T")


def _batches(rows: Iterable[_T]) -> Iterator[list[_T]]:
    waiting = iter(rows)
    while some := list(islice(waiting, ROWS_PER_STATEMENT)):
        yield some


# --- Items ----------------------------------------------------------------------------------------------


def content_hash(turns: Iterable[Turn], reference: str) -> str:
    """SHA-256, in hex, over what makes an item what it is: its turns and its reference."""
    content = json.dumps([[list(turn) for turn in turns], reference], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def build_item(dataset: Dataset, row: SourceItem, *, imported_from: ImportRecord | None = None) -> Item:
    """The item, not stored yet: topic recognised, content screened and counted."""
    return Item(
        dataset=dataset,
        key=row.key,
        dialogue_key=row.dialogue,
        turns=[{"role": turn.role, "text": turn.text} for turn in row.turns],
        reference=row.reference,
        topic=topics.slug_of(row.topic_label),
        topic_label=row.topic_label,
        risks=risks_of(*(turn.text for turn in row.turns), row.reference),
        n_characters=sum(len(turn.text) for turn in row.turns),
        content_hash=content_hash(row.turns, row.reference),
        imported_from=imported_from,
    )


def _read_items(spool: DialogueSpool, intake: _Intake, findings: Findings, on_progress: Progress) -> None:
    try:
        n_read = 0
        for row in _rows(intake, findings):
            n_read += 1
            if n_read % ROWS_PER_STATEMENT == 0:
                on_progress(READING, n_read, None)
            _spool(spool, row, findings)
        if n_read == 0 and not findings.problems:
            findings.add(intake.source.place, "no_items")
    except TooManyProblems:
        pass
    if findings.problems:
        raise refusal(findings.problems)


def _rows(intake: _Intake, findings: Findings) -> Iterator[SourceDialogue] | Iterator[SourceItem]:
    if intake.format == "smilechat":
        return read_smilechat(intake.source, findings)
    if intake.format == "soulchat":
        return read_soulchat(intake.source, findings)
    return read_items(intake.source, intake.format, findings)


def _spool(spool: DialogueSpool, row: SourceDialogue | SourceItem, findings: Findings) -> None:
    stratum = topics.slug_of(row.topic_label) or row.topic_label
    if isinstance(row, SourceItem):
        entry = Entry(row.dialogue, row.key, row.topic_label, row.turns, row.reference, row.place)
        taken = spool.add(entry, stratum=stratum, n_items=1)
        is_problem = taken is not None
    else:
        n_items = n_items_of(row.turns)
        if n_items == 0:
            findings.counts["n_without_reply"] += 1
            return
        entry = Entry(row.key, "", row.topic_label, row.turns, "", row.place)
        taken = spool.add(entry, stratum=stratum, n_items=n_items)
        # The same dialogue in two folders of an archive is one dialogue; another one of that name is not.
        is_problem = taken is not None and not taken.is_same
        findings.counts["n_duplicates"] += taken is not None and taken.is_same
    if taken and is_problem:
        key = row.key
        findings.add(row.place, "duplicate_key", "key", key=key, first=problems.where(taken.first))


@transaction.atomic
def _write_items(
    spool: DialogueSpool,
    intake: _Intake,
    dataset: Dataset | NewDataset,
    options: ItemOptions,
    counts: dict[str, Any],
    by: User | None,
    on_progress: Progress,
) -> ImportResult:
    dataset = _locked(dataset)
    if previous := intake.previous(dataset):  # somebody else was faster
        return previous
    imported_from = intake.record(dataset, by)
    findings = Findings()
    n_total = spool.n_items(one_per_dialogue=options.one_per_dialogue)
    n_new = n_unchanged = n_with_risks = 0
    try:
        for rows in _batches(spool.items(one_per_dialogue=options.one_per_dialogue)):
            on_progress(WRITING, n_new + n_unchanged, n_total)
            fresh = _new_items(dataset, rows, imported_from, findings)
            Item.objects.bulk_create(fresh, batch_size=ROWS_PER_STATEMENT)
            n_new += len(fresh)
            n_unchanged += len(rows) - len(fresh)
            n_with_risks += sum(bool(item.risks) for item in fresh)
    except TooManyProblems:
        pass
    if findings.problems:
        raise refusal(findings.problems)
    on_progress(WRITING, n_total, n_total)
    counts |= {"n_new": n_new, "n_unchanged": n_unchanged, "n_with_risks": n_with_risks}
    return _conclude(imported_from, dataset, counts, n_new_items=n_new, by=by)


def _new_items(dataset: Dataset, rows: list[SourceItem], imported_from: ImportRecord, findings: Findings) -> list[Item]:
    """The items of `rows` that the dataset does not have; one that it has with other content is a problem."""
    stored = Item.objects.filter(dataset=dataset, key__in=[row.key for row in rows])
    known = {key: content for key, *content in stored.values_list("key", "content_hash", "dialogue_key", "topic_label")}
    fresh = []
    for row in rows:
        if row.key not in known:
            fresh.append(build_item(dataset, row, imported_from=imported_from))
        elif known[row.key] != [content_hash(row.turns, row.reference), row.dialogue, row.topic_label]:
            findings.add(row.place, "conflicting_item", "key", key=row.key)
    return fresh


def _conclude(
    imported_from: ImportRecord, dataset: Dataset, counts: dict[str, Any], *, n_new_items: int, by: User | None
) -> ImportResult:
    imported_from.counts = counts
    imported_from.save(update_fields=["counts"])
    if n_new_items:
        Dataset.objects.filter(pk=dataset.pk).update(n_items=F("n_items") + n_new_items)
    record(
        f"import.{imported_from.kind}",
        by=by,
        dataset=dataset.pk,
        file_sha256=imported_from.file_sha256,
        n_new=counts["n_new"],
        n_unchanged=counts["n_unchanged"],
    )
    return ImportResult(imported_from, False, counts)


# --- Responses ------------------------------------------------------------------------------------------

_KEPT_FIELDS = ("repeat", "original", "text", "disclosures", "sha256", "provenance")  # in the spool, of Response


def _read_responses(
    spool: RowSpool,
    intake: _Intake,
    dataset: Dataset,
    options: ResponseOptions,
    findings: Findings,
    on_progress: Progress,
) -> list[str]:
    """Fill the spool with responses ready to be stored; the slugs of systems to register before."""
    known_slugs = set(System.objects.exclude(kind=System.Kind.REFERENCE).values_list("slug", flat=True))
    names = names_of_systems()
    new_slugs: dict[str, bool] = {}  # in order of appearance; False: has been reported as a problem
    n_read = 0
    try:
        rows = read_responses(intake.source, intake.format, findings, system=options.system)
        for some in _batches(rows):
            on_progress(READING, n_read, None)
            n_read += len(some)
            keys = {row.item for row in some}
            items = dict(Item.objects.filter(dataset=dataset, key__in=keys).values_list("key", "pk"))
            for row in some:
                if row.system not in known_slugs and row.system not in new_slugs:
                    new_slugs[row.system] = _may_register(row, options, findings)
                if row.item not in items:
                    findings.add(row.place, "unknown_item", "item", key=row.item)
                elif not findings.problems:  # no need for the work where nothing will be written
                    _spool_response(spool, row, items[row.item], names, findings)
        if n_read == 0 and not findings.problems:
            findings.add(intake.source.place, "no_items")
    except TooManyProblems:
        pass
    if findings.problems:
        raise refusal(findings.problems)
    return list(new_slugs)


def _may_register(row: SourceResponse, options: ResponseOptions, findings: Findings) -> bool:
    """Whether a slug that is not known can be registered with this import; if not, that is noted."""
    code = "" if options.create_systems else "unknown_system"
    try:
        validate_slug(row.system)
    except ValidationError:
        code = code or "bad_slug"
    if len(row.system) > MAX_SLUG_CHARACTERS:
        code = code or "bad_slug"
    taken = System.objects.filter(Q(slug=row.system) | Q(name=row.system)).first()
    if taken:
        code = "reference_system" if taken.kind == System.Kind.REFERENCE else "unknown_system"
    if code:
        findings.add(row.place, code, "system", slug=row.system)
    return not code


def _spool_response(spool: RowSpool, row: SourceResponse, item_id: int, names: list[str], findings: Findings) -> None:
    try:
        response = build_response(item_id=item_id, system_id=0, text=row.text, repeat=row.repeat, names=names)
    except EmptyResponse:
        findings.add(row.place, "empty_response", "response")
        return
    provenance = {**row.provenance, **response.provenance, "file": row.place.file, row.place.unit: row.place.number}
    body = {name: getattr(response, name) for name in _KEPT_FIELDS}
    body |= {"item": item_id, "item_key": row.item, "system": row.system, "provenance": provenance}
    taken = spool.add(f"{row.system} {row.repeat} {item_id}", row.text, row.place, body)
    if taken and not taken.is_same:
        key = f"{row.system}, {row.item}, {row.repeat}"
        findings.add(row.place, "duplicate_key", "response", key=key, first=problems.where(taken.first))
    elif taken:
        findings.counts["n_repeated_rows"] += 1


@transaction.atomic
def _write_responses(
    spool: RowSpool,
    intake: _Intake,
    dataset: Dataset,
    new_systems: list[str],
    counts: dict[str, Any],
    by: User | None,
    on_progress: Progress,
) -> ImportResult:
    dataset = _locked(dataset)
    if previous := intake.previous(dataset):  # somebody else was faster
        return previous
    imported_from = intake.record(dataset, by)
    for slug in new_systems:
        if not System.objects.filter(slug=slug).exists():
            register_system(slug=slug, name=slug, by=by)
    systems = dict(System.objects.values_list("slug", "pk"))
    findings = Findings()
    n_total, n_new, n_unchanged, n_disclosing = len(spool), 0, 0, 0
    try:
        for rows in _batches(spool):
            on_progress(WRITING, n_new + n_unchanged, n_total)
            fresh = _new_responses(rows, systems, imported_from, findings)
            Response.objects.bulk_create(fresh, batch_size=ROWS_PER_STATEMENT)
            n_new += len(fresh)
            n_unchanged += len(rows) - len(fresh)
            n_disclosing += sum(bool(response.disclosures) for response in fresh)
    except TooManyProblems:
        pass
    if findings.problems:
        raise refusal(findings.problems)
    on_progress(WRITING, n_total, n_total)
    counts |= {"n_new": n_new, "n_unchanged": n_unchanged, "n_with_disclosures": n_disclosing}
    counts["n_new_systems"] = len(new_systems)
    return _conclude(imported_from, dataset, counts, n_new_items=0, by=by)


def _new_responses(
    rows: list[tuple[Place, dict[str, Any]]],
    systems: dict[str, int],
    imported_from: ImportRecord,
    findings: Findings,
) -> list[Response]:
    """The responses that are not stored yet; one that is stored with another text is a problem."""
    responses = [
        Response(
            item_id=body["item"],
            system_id=systems[body["system"]],
            imported_from=imported_from,
            **{name: body[name] for name in _KEPT_FIELDS},
        )
        for _place, body in rows
    ]
    fresh, conflicts = unstored(responses)
    for index in conflicts:
        place, body = rows[index]
        findings.add(place, "conflicting_response", "response", system=body["system"], key=body["item_key"])
    return fresh
