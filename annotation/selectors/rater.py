"""What a rater's pages and API read. Nothing in here reaches arms, systems or other raters."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from statistics import median
from typing import Any
from uuid import UUID

from annotation.design.blinding import BlindedResponse, slot_letter
from annotation.errors import NotFound
from annotation.models import Dimension, Member, Placement, Rating, Study, User

ETA_WINDOW = 20  # the median of this many latest active times predicts the next ones


@dataclass(frozen=True, slots=True)
class DimensionText:
    """One criterion as the rater reads it, in one language, beside the name that papers use."""

    pk: int
    key: str
    highest: int
    name: str
    english_name: str
    definition: str
    anchors: tuple[str, ...]
    considerations: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What the rating page shows for one placement: the blinded response and the rater's own scores for it.

    response: None while a content notice waits for an answer; then `notice` names the categories.
    was_shown: it left for the rater's browser before.
    """

    public_id: str
    response: BlindedResponse | None
    notice: tuple[str, ...]
    n_slots: int
    rev: int
    is_final: bool
    is_flagged: bool
    scores: dict[str, int]
    note: str
    was_shown: bool

    def to_json(self) -> dict[str, Any]:
        """The allow-list of the API: nothing is added to it by accident."""
        own = {
            "public_id": self.public_id,
            "n_slots": self.n_slots,
            "rev": self.rev,
            "is_final": self.is_final,
            "is_flagged": self.is_flagged,
            "scores": self.scores,
            "note": self.note,
            "notice": list(self.notice),
        }
        return own | (self.response.to_json() if self.response else {})


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts for the rater: of placements, never of systems."""

    n_done: int
    n_total: int

    @property
    def n_left(self) -> int:
        return self.n_total - self.n_done


def rater_seat(user: User, public_id: UUID) -> Member:
    """The seat of this user with this id. Raises NotFound for anybody else's, and for no seat alike."""
    seats = Member.objects.raters().of_user(user).filter(public_id=public_id)
    seat: Member | None = seats.select_related("study__rubric").first()
    if seat is None:
        raise NotFound
    return seat


# What the endpoints of the rating page need of a seat. The whole of it carries a study's consent text and a rubric's
# introduction, and reading those takes longer than finding the next card.
_SEAT_COLUMNS = (
    "n_final",
    "n_placements",
    "withdrawn_at",
    "consented_at",
    "practice_passed_at",
    "study__state",
    "study__needs_practice",
)


def rating_seat(user: User, public_id: UUID) -> Member:
    """As `rater_seat`, with no more than the endpoints of the rating page need."""
    seats = Member.objects.raters().of_user(user).filter(public_id=public_id)
    seat: Member | None = seats.select_related("study").only(*_SEAT_COLUMNS).first()
    if seat is None:
        raise NotFound
    return seat


@lru_cache(maxsize=64)
def _dimensions(rubric_id: int, language: str) -> dict[str, DimensionText]:
    # A rubric that a study was opened with cannot change (trigger used_rubrics_are_frozen), so this never ages.
    texts = {}
    for dimension in Dimension.objects.filter(rubric_id=rubric_id).order_by("order"):
        texts[dimension.key] = DimensionText(
            pk=dimension.pk,
            key=dimension.key,
            highest=dimension.highest,
            name=dimension.name[language],
            english_name=dimension.name["en"],
            definition=dimension.definition[language],
            anchors=tuple(anchor[language] for anchor in dimension.anchors),
            considerations=tuple(dimension.considerations.get(language, ())),
            examples=tuple(
                {"value": e["value"], **{part: e[part][language] for part in ("context", "response", "why")}}
                for e in dimension.examples
            ),
        )
    return texts


def dimensions(study: Study, language: str = "en") -> dict[str, DimensionText]:
    """The criteria of a study by key, in the rubric's order; `language` is a site language such as "zh-hans"."""
    return _dimensions(study.rubric_id, "zh" if language.startswith("zh") else "en")


def dimensions_for(rater: Member, language: str) -> list[DimensionText]:
    """The criteria in this rater's own fixed order."""
    texts = dimensions(rater.study, language)
    return [texts[key] for key in rater.dimension_order or texts]


# The allow-list: every column that a rater's page is made from.
_CARD_COLUMNS = (
    "pk",
    "public_id",
    "slot",
    "rev",
    "state",
    "is_flagged",
    "note",
    "queue",
    "shown_at",
    "assignment_id",
    "assignment__notice_answered_at",
    "assignment__study_item__item__turns",
    "assignment__study_item__item__risks",
    "study_response__text",
)


def _card(row: dict[str, Any], n_slots: int) -> Card:
    is_waiting = bool(row["assignment__study_item__item__risks"]) and row["assignment__notice_answered_at"] is None
    is_waiting = is_waiting and row["state"] < Placement.State.FINAL
    response = BlindedResponse(
        public_id=str(row["public_id"]),
        slot=slot_letter(row["slot"]),
        text=row["study_response__text"],
        turns=tuple((turn["role"], turn["text"]) for turn in row["assignment__study_item__item__turns"]),
    )
    scores = {}
    if row["rev"]:
        scores = dict(Rating.objects.filter(placement=row["pk"]).values_list("dimension__key", "value"))
    return Card(
        public_id=str(row["public_id"]),
        response=None if is_waiting else response,
        notice=tuple(row["assignment__study_item__item__risks"]) if is_waiting else (),
        n_slots=n_slots,
        rev=row["rev"],
        is_final=row["state"] == Placement.State.FINAL,
        is_flagged=row["is_flagged"],
        scores=scores,
        note=row["note"],
        was_shown=row["shown_at"] is not None,
    )


@lru_cache(maxsize=256)
def _n_slots(study_id: int) -> int:
    # The arms of an opened study stay (trigger arms_of_opened_studies_stay).
    return Study.objects.get(pk=study_id).arms.count()


def next_card(rater: Member, *, besides: tuple[UUID, ...] = ()) -> Card | None:
    """The first open placement in the rater's queue that the browser does not hold yet; None when all is done."""
    rows = Placement.objects.of(rater).open().in_order()
    if besides:
        rows = rows.exclude(public_id__in=besides)
    row = rows.values(*_CARD_COLUMNS).first()
    return _card(row, _n_slots(rater.study_id)) if row else None


def card(rater: Member, public_id: UUID) -> Card:
    """One placement of this rater. Raises NotFound if it is not theirs."""
    row = Placement.objects.of(rater).filter(public_id=public_id).values(*_CARD_COLUMNS).first()
    if row is None:
        raise NotFound
    return _card(row, _n_slots(rater.study_id))


def previous_card(rater: Member, public_id: UUID) -> Card | None:
    """The placement rated before this one in the rater's queue; None at the beginning."""
    here = Placement.objects.of(rater).filter(public_id=public_id).values_list("queue", flat=True).first()
    if here is None:
        raise NotFound
    row = (
        Placement.objects.of(rater)
        .filter(queue__lt=here, state=Placement.State.FINAL)
        .order_by("-queue")
        .values(*_CARD_COLUMNS)
        .first()
    )
    return _card(row, _n_slots(rater.study_id)) if row else None


def progress(rater: Member) -> Progress:
    return Progress(n_done=rater.n_final, n_total=rater.n_placements)


def median_active_seconds(rater: Member) -> float | None:
    """Median active time of the latest ratings, in seconds; None before the first."""
    latest = (
        Placement.objects.of(rater).rated().order_by("-submitted_at").values_list("active_ms", flat=True)[:ETA_WINDOW]
    )
    times = [ms / 1000 for ms in latest]
    return median(times) if times else None


def earned(rater: Member) -> Decimal:
    """Pay for all that is done, in the study's currency: skipped content is paid like rated content."""
    return rater.n_final * rater.study.pay_per_response
