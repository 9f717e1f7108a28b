"""load_rubric: a version of the criteria, from its content file into the database, once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from django.db import transaction

from annotation.errors import StudyFrozen
from annotation.models import Dimension, Rubric

CONTENT = Path(__file__).resolve().parent.parent / "content"
CEHS = CONTENT / "rubric_cehs_v1.json"


def read_content(name: str) -> Any:
    """The parsed content file `name` of annotation/content/."""
    return json.loads((CONTENT / name).read_text(encoding="utf-8"))


@transaction.atomic
def load_rubric(path: Path = CEHS) -> Rubric:
    """The rubric in `path`; made on the first call, found on later ones.

    Raises StudyFrozen if the file differs from the stored version of the same number: new wording needs a
    new version, because ratings point at the words they were given under.
    """
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    content = json.loads(raw)
    known = Rubric.objects.filter(slug=content["slug"], version=content["version"]).first()
    if known:
        if known.content_hash != digest:
            raise StudyFrozen(
                f"{path.name}: version {content['version']} is stored with other words. "
                "Give the changed rubric a new version number."
            )
        return known
    rubric = Rubric.objects.create(
        slug=content["slug"],
        version=content["version"],
        title=content["title"],
        intro=content["intro"],
        source=content["source"],
        content_hash=digest,
    )
    Dimension.objects.bulk_create(
        Dimension(
            rubric=rubric,
            key=dimension["key"],
            order=order,
            highest=len(dimension["points"]) - 1,
            name=dimension["name"],
            definition=dimension["definition"],
            anchors=[point["anchor"] for point in dimension["points"]],
            considerations=dimension["considerations"],
            examples=dimension["examples"],
        )
        for order, dimension in enumerate(content["dimensions"])
    )
    return rubric
