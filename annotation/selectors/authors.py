"""The questions "Who wrote this?": what a rater's page may hold of them, and, for the server alone, the true writers.

Nothing is stored before an answer comes: the draw is made again from the study's seed, the rater's number and what the
rater has rated, none of which changes any more once the questions may be asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from annotation.design.authors import draw_author_questions
from annotation.design.blinding import BlindedResponse, slot_letter
from annotation.models import Arm, Member, Placement

_STREAM = 103  # of the study's seed, apart from those of opening


@dataclass(frozen=True, slots=True)
class AuthorDraw:
    """The draw with its secret. writers: arm (id) of "Writer 1", "Writer 2", …; the rest are placements (ids).

    examples: shape (items, writers).
    """

    writers: tuple[int, ...]
    examples: tuple[tuple[int, ...], ...]
    questions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AuthorPage:
    """What the page may hold. examples: shape (items, writers);  questions: the responses asked about."""

    examples: tuple[tuple[BlindedResponse, ...], ...]
    questions: tuple[BlindedResponse, ...]

    @property
    def n_writers(self) -> int:
        return len(self.examples[0])


def may_name_authors(rater: Member) -> bool:
    """Whether the questions may be asked now: nothing of this rater's can change, and nobody has opened the key."""
    is_over = rater.finished_at is not None or rater.study.is_closed
    return bool(
        rater.consented_at
        and is_over
        and rater.withdrawn_at is None
        and rater.authors_asked_at is None
        and not rater.study.is_unblinded
    )


def author_draw(rater: Member) -> AuthorDraw | None:
    """Examples and questions of this rater; None if too little was rated to ask anything."""
    arms = list(Arm.objects.filter(study=rater.study_id).order_by("code").values_list("pk", flat=True))
    rated = (
        Placement.objects.of(rater)
        .rated()
        .filter(assignment__is_repeat=False)
        .order_by("assignment__study_item__number")
        .values_list(
            "pk",
            "study_response__arm",
            "assignment__study_item",
            "assignment__study_item__item__dataset",
            "assignment__study_item__item__dialogue_key",
        )
    )
    placements: dict[int, dict[int, int]] = {}
    dialogue_of: dict[int, str] = {}
    for placement, arm, item, dataset, dialogue in rated:
        placements.setdefault(item, {})[arm] = placement
        dialogue_of[item] = f"{dataset}/{dialogue}"
    whole = [item for item, found in placements.items() if len(found) == len(arms)]
    rng = np.random.default_rng([rater.study.seed, _STREAM, rater.number or 0])
    drawn = draw_author_questions([dialogue_of[item] for item in whole], len(arms), rng)
    if drawn is None:
        return None
    writers = tuple(arms[system] for system in drawn.writers)
    return AuthorDraw(
        writers=writers,
        examples=tuple(tuple(placements[whole[item]][arm] for arm in writers) for item in drawn.examples),
        questions=tuple(placements[whole[item]][arms[system]] for item, system in drawn.questions),
    )


def author_page(draw: AuthorDraw) -> AuthorPage:
    """The draw as the rater may see it: responses by their random ids, writers by their place."""
    blinded = _blinded([*draw.questions, *(pk for row in draw.examples for pk in row)])
    return AuthorPage(
        examples=tuple(tuple(blinded[pk] for pk in row) for row in draw.examples),
        questions=tuple(blinded[pk] for pk in draw.questions),
    )


def _blinded(placements: Iterable[int]) -> dict[int, BlindedResponse]:
    rows = Placement.objects.filter(pk__in=list(placements)).values_list(
        "pk", "public_id", "slot", "study_response__text", "assignment__study_item__item__turns"
    )
    return {
        pk: BlindedResponse(
            str(public_id), slot_letter(slot), text, tuple((turn["role"], turn["text"]) for turn in turns)
        )
        for pk, public_id, slot, text, turns in rows
    }


def asked_ids(draw: AuthorDraw) -> dict[UUID, int]:
    """Random id ► placement of each question."""
    return dict(Placement.objects.filter(pk__in=draw.questions).values_list("public_id", "pk"))
