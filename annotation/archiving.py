"""A study's archive from the database: everything that a reader of the paper may have, and nothing that names a rater.

Texts go in as texts or, where the dialogues may not leave the house, as SHA-256 only. The study's seed and the names of
the systems are inside only after unblinding.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from django.conf import settings

from annotation.models import Placement, Study, StudyResponse, User
from annotation.reporting.archive import write_archive
from annotation.reports import study_data, study_facts, study_report
from annotation.services.audit import record


@dataclass(frozen=True)
class Archive:
    """A packed study in a temporary file, positioned at its start, and the SHA-256 of its manifest."""

    name: str
    file: IO[bytes]
    sha256: str


def archive_study(*, study: Study, with_texts: bool, by: User | None) -> Archive:
    """Pack the study as it is now; the log keeps the manifest's SHA-256, which a paper may print.

    with_texts: dialogues, references and responses as text; otherwise their SHA-256.
    """
    file = TemporaryFile()  # noqa: SIM115  (the response that sends it closes it)
    more = {
        "protocol.json": _json(_protocol(study)),
        "items.jsonl": _jsonl(_items(study, with_texts=with_texts)),
        "responses.jsonl": _jsonl(_responses(study, with_texts=with_texts)),
        "order.csv": _order(study),
    }
    digest = write_archive(
        file,
        facts=study_facts(study),
        data=study_data(study),
        report=study_report(study),
        more=more,
        code_version=code_version(),
    )
    record("study.archived", by=by, study=study, manifest_sha256=digest, with_texts=with_texts)
    file.seek(0)
    return Archive(f"qingting-{study.public_id.hex[:8]}-archive.zip", file, digest)


@cache
def code_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((Path(settings.BASE_DIR) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name']} {project['version']}"


def _protocol(study: Study) -> dict[str, Any]:
    rubric = study.rubric
    return {
        "rubric": {
            "slug": rubric.slug,
            "version": rubric.version,
            "sha256": rubric.content_hash,
            "title": rubric.title,
            "intro": rubric.intro,
            "source": rubric.source,
            "dimensions": [
                {
                    "key": dimension.key,
                    "scale": list(dimension.scale),
                    "name": dimension.name,
                    "definition": dimension.definition,
                    "anchors": dimension.anchors,
                    "considerations": dimension.considerations,
                    "examples": dimension.examples,
                }
                for dimension in rubric.dimensions.order_by("order")
            ],
        },
        "consent": study.consent,
        "plan": study.plan,
        "plan_sha256": study.plan_hash,
        "raters_per_item": study.raters_per_item,
        "presentation": study.presentation,
        "min_gap": study.min_gap,
        "repeat_percent": str(study.repeat_percent),
        "disclosure_policy": study.disclosure_policy,
        "needs_practice": study.needs_practice,
        "pay": {"currency": study.pay_currency, "per_response": str(study.pay_per_response)},
        "design_sha256": study.design_hash,
        "seed": study.seed if study.is_unblinded else None,
    }


def _items(study: Study, *, with_texts: bool) -> Iterable[dict[str, Any]]:
    for row in study.study_items.select_related("item__dataset").order_by("number"):
        item = row.item
        told: dict[str, Any] = {
            "number": row.number,
            "dataset": item.dataset.slug,
            "key": item.key,
            "dialogue": item.dialogue_key,
            "topic": item.topic or item.topic_label,
            "sha256": item.content_hash,
        }
        if with_texts:
            told |= {"turns": item.turns, "reference": item.reference}
        yield told


def _responses(study: Study, *, with_texts: bool) -> Iterable[dict[str, Any]]:
    """What raters saw, after the disclosure policy. Provenance would name the system, so it waits for the key."""
    rows = StudyResponse.objects.filter(study_item__study=study).select_related("study_item", "arm", "response")
    for row in rows.order_by("study_item__number", "arm__code"):
        told: dict[str, Any] = {
            "number": row.study_item.number,
            "arm": row.arm.code,
            "n_masks": row.n_masks,
        }
        if study.is_unblinded:
            told |= {"sha256": row.response.sha256, "provenance": row.response.provenance}
        if with_texts:
            told["text"] = row.text
        yield told


def _order(study: Study) -> bytes:
    """Who was to rate what, in which slot and place: the design as it was drawn."""
    placements = (
        Placement.objects.filter(rater__study=study)
        .order_by("rater__number", "position")
        .values_list(
            "rater__number",
            "position",
            "assignment__study_item__number",
            "assignment__is_repeat",
            "slot",
            "study_response__arm__code",
        )
    )
    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rater", "position", "item", "is_repeat", "slot", "arm"])
    writer.writerows([f"R{rater}", position, item, int(again), slot, arm]
                     for rater, position, item, again, slot, arm in placements)  # fmt: skip
    return buffer.getvalue().encode()


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def _jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
