"""record_response: how a system's text enters. The original stays byte for byte; what is shown is normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from annotation.design.blinding import normalise_text
from annotation.design.disclosure import scan
from annotation.errors import DomainError
from annotation.models import Item, Response, System

ROWS_PER_STATEMENT = 500


class EmptyResponse(DomainError):
    """Nothing is left of the text once special tokens and blanks are gone."""

    code = "empty_response"


class ConflictingResponse(DomainError):
    """This system has answered this item differently before. `detail["item_ids"]` says which."""

    status = 409
    code = "conflicting_response"


@dataclass(frozen=True)
class NewResponse:
    """One text that is to be stored."""

    item_id: int
    system_id: int
    text: str
    repeat: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """What became of a batch: stored now, or there before with the same text."""

    n_created: int
    n_unchanged: int


def names_of_systems() -> list[str]:
    """Every name under which a response might give its system away."""
    systems = System.objects.exclude(kind=System.Kind.REFERENCE).values_list("name", "aliases")
    return [name for own, aliases in systems for name in (own, *aliases)]


def build_response(
    *,
    item_id: int,
    system_id: int,
    text: str,
    repeat: int = 0,
    provenance: dict[str, Any] | None = None,
    names: Iterable[str] = (),
) -> Response:
    """The response, not stored yet: original, normalised text, places that name a system.

    names: of systems, to be found like names of vendors. Raises EmptyResponse.
    """
    normalised = normalise_text(text)
    if not normalised.text:
        raise EmptyResponse(_("The response is empty once special tokens and blanks are removed."))
    kept = dict(provenance or {})
    if normalised.changes:
        kept["normalised"] = list(normalised.changes)
    return Response(
        item_id=item_id,
        system_id=system_id,
        repeat=repeat,
        original=text,
        text=normalised.text,
        disclosures=[asdict(place) for place in scan(normalised.text, names)],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        provenance=kept,
    )


@transaction.atomic
def record_response(
    *,
    item: Item,
    system: System,
    text: str,
    repeat: int = 0,
    provenance: dict[str, Any] | None = None,
) -> Response:
    """Store what `system` wrote for `item`; the same text again changes nothing.

    Raises EmptyResponse, or ConflictingResponse if another text is stored for this system, item and repeat.
    """
    record_responses([NewResponse(item.pk, system.pk, text, repeat, provenance or {})])
    return Response.objects.get(item=item, system=system, repeat=repeat)


@transaction.atomic
def record_responses(new: Iterable[NewResponse]) -> Recorded:
    """Store many at once, all or none; the rules are those of `record_response`."""
    names = names_of_systems()
    n_created = n_unchanged = 0
    waiting = iter(new)
    while some := list(islice(waiting, ROWS_PER_STATEMENT)):
        fresh, conflicts = unstored([build_response(**asdict(one), names=names) for one in some])
        if conflicts:
            raise ConflictingResponse(
                _("Another text is stored for the same system, item and repeat."),
                item_ids=[some[index].item_id for index in conflicts],
            )
        Response.objects.bulk_create(fresh, batch_size=ROWS_PER_STATEMENT)
        n_created += len(fresh)
        n_unchanged += len(some) - len(fresh)
    return Recorded(n_created, n_unchanged)


def unstored(responses: Sequence[Response]) -> tuple[list[Response], list[int]]:
    """Those of a batch that are not in the database, and indices of those that are there with another text."""
    stored = Response.objects.filter(
        item__in={response.item_id for response in responses},
        system__in={response.system_id for response in responses},
    )
    known = {tuple(key): sha256 for *key, sha256 in stored.values_list("item_id", "system_id", "repeat", "sha256")}
    fresh: list[Response] = []
    conflicts: list[int] = []
    for index, response in enumerate(responses):
        key = (response.item_id, response.system_id, response.repeat)
        if key not in known:
            known[key] = response.sha256
            fresh.append(response)
        elif known[key] != response.sha256:
            conflicts.append(index)
    return fresh, conflicts
