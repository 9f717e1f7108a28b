"""submit_rating: a rater's scores for one placement, saved exactly once.  answer_notice: open, skip or later."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NoReturn
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, Max
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import DomainError, Incomplete, NotFound, OffScale, StaleRevision, StudyClosed
from annotation.models import Assignment, Member, Placement, Rating, RatingEvent, User
from annotation.selectors.rater import Card, DimensionText, dimensions, next_card

MAX_NOTE_LENGTH = 4000  # characters


@dataclass(frozen=True, slots=True)
class Change:
    """What the browser asks to be saved. `op_id` names the act, so that sending it twice saves it once.

    base_rev: the revision the rater was looking at.  scores: dimension key ► value, all that are chosen now.
    active_ms, hidden_ms, idle_ms: since the save before, counted by a monotonic clock in the browser.
    """

    op_id: UUID
    base_rev: int
    scores: dict[str, int]
    is_final: bool
    note: str | None = None  # None = unchanged
    is_flagged: bool | None = None  # None = unchanged
    active_ms: int = 0
    hidden_ms: int = 0
    idle_ms: int = 0


@dataclass(frozen=True, slots=True)
class Saved:
    """What stands after a save. `is_resend`: the act was known already and nothing new was written.

    following: the next card, if it was asked for and there is one.
    """

    placement: Placement
    op_id: UUID
    rev: int
    is_final: bool
    is_resend: bool
    saved_at: datetime
    n_done: int
    following: Card | None = None


def submit_rating(*, user: User, public_id: UUID, change: Change, holding: Collection[UUID] | None = None) -> Saved:
    """Save scores for one placement; a later save replaces the earlier one and both stay in the log.

    holding: the cards that the browser has already; unless None, the next one besides them comes with the answer.

    Raises NotFound (not this rater's), StudyClosed, OffScale, Incomplete (final with a dimension missing) or
    StaleRevision (another tab saved in between; `detail` carries the current state).
    """
    placement = _placement_of(user, public_id)
    rater, study = placement.rater, placement.rater.study
    scale = dimensions(study)
    _check_scores(change, scale)
    if change.base_rev != placement.rev:  # told first: what else is wrong may come from the old view
        return _resent(placement, change, holding) or _refuse_stale(placement)
    is_final = change.is_final or placement.state == Placement.State.FINAL
    if missing := [key for key in scale if is_final and key not in change.scores]:
        raise Incomplete(_("Some criteria have no score yet."), missing=missing)
    if change.note is not None and len(change.note) > MAX_NOTE_LENGTH:
        raise DomainError(_("The note is longer than %(n)s characters.") % {"n": MAX_NOTE_LENGTH}, field="note")
    try:
        saved = _save(placement, rater, change, is_final, scale, holding)
    except IntegrityError as error:  # the op_id stands already, under another placement or revision
        saved = _resent(placement, change, holding)
        if saved is None:
            if not RatingEvent.objects.filter(op_id=change.op_id).exists():
                _check_open(Member.objects.select_related("study").get(pk=rater.pk))  # they may be done by now
                raise
            raise DomainError(_("This operation was used for another response."), field="op_id") from error
    return saved or _resent(placement, change, holding) or _refuse_stale(placement)


def _placement_of(user: User, public_id: UUID) -> Placement:
    """The placement, if it is this user's. Raises NotFound otherwise."""
    placement: Placement | None = (
        Placement.objects.of_user(user)
        .select_related("rater__study")
        .only(
            "public_id", "rev", "state", "note", "is_flagged", "shown_at", "saved_at", "assignment_id", "rater",
            "rater__n_final", "rater__withdrawn_at", "rater__finished_at", "rater__study", "rater__study__state",
            "rater__study__rubric_id",
        )
        .filter(public_id=public_id)
        .first()
    )  # fmt: skip
    if placement is None:
        raise NotFound
    return placement


def _check_open(rater: Member) -> None:
    if not rater.study.is_open:
        raise StudyClosed(
            _("The study is paused; your saved work is safe. Please come back later.")
            if rater.study.state == rater.study.State.PAUSED
            else _("The study is closed; ratings can no longer be changed.")
        )
    if rater.withdrawn_at:
        raise StudyClosed(_("You have withdrawn from this study."))
    if rater.finished_at:
        raise StudyClosed(_("You said that you are done, so your ratings can no longer be changed."))


def _check_scores(change: Change, scale: dict[str, DimensionText]) -> None:
    for key, value in change.scores.items():
        if key not in scale:
            raise OffScale(_("“%(key)s” is no criterion of this study.") % {"key": key}, field=key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= scale[key].highest:
            raise OffScale(
                _("%(name)s: %(value)s is not on the scale 0 to %(highest)s.")
                % {"name": scale[key].english_name, "value": repr(value)[:40], "highest": scale[key].highest},
                field=key,
            )


@transaction.atomic
def _save(
    placement: Placement,
    rater: Member,
    change: Change,
    is_final: bool,
    scale: dict[str, DimensionText],
    holding: Collection[UUID] | None,
) -> Saved | None:
    """One short transaction: revision, rating rows, event, counters. None if the revision has moved on."""
    now = timezone.now()
    since = placement.saved_at or placement.shown_at or now
    # The browser's clock counts; the server's is the upper bound.
    active_ms = min(change.active_ms, max(0, int((now - since).total_seconds() * 1000)))
    note = placement.note if change.note is None else change.note
    is_flagged = placement.is_flagged if change.is_flagged is None else change.is_flagged
    was_final = placement.state == Placement.State.FINAL
    state = Placement.State.FINAL if is_final else Placement.State.DRAFT
    columns: dict[str, Any] = {
        "rev": F("rev") + 1,
        "state": state,
        "note": note,
        "is_flagged": is_flagged,
        "saved_at": now,
        "active_ms": F("active_ms") + active_ms,
        "hidden_ms": F("hidden_ms") + change.hidden_ms,
        "idle_ms": F("idle_ms") + change.idle_ms,
    }
    if is_final and not was_final:
        columns["submitted_at"] = now
    # Compare and swap: the study must still be open and the rater not done, too. The revision has to be a condition
    # on the updated row itself: behind a join it becomes a subquery, which PostgreSQL does not ask again once the
    # other lock is gone.
    may_rate = Member.objects.rating().filter(pk=rater.pk, study__state="open")
    unchanged = Placement.objects.filter(Exists(may_rate), pk=placement.pk, rev=change.base_rev)
    if not unchanged.exclude(state=Placement.State.SKIPPED).update(**columns):
        _check_open(Member.objects.select_related("study").get(pk=rater.pk))
        return None
    if len(change.scores) < len(scale):
        Rating.objects.filter(placement=placement).exclude(dimension__key__in=change.scores).delete()
    Rating.objects.bulk_create(
        [Rating(placement=placement, dimension_id=scale[key].pk, value=v) for key, v in change.scores.items()],
        update_conflicts=True,
        unique_fields=["placement", "dimension"],
        update_fields=["value"],
    )
    RatingEvent.objects.create(
        op_id=change.op_id,
        placement=placement,
        rev=change.base_rev + 1,
        scores=change.scores,
        note=note,
        is_flagged=is_flagged,
        state=state,
        active_ms=active_ms,
        hidden_ms=change.hidden_ms,
        idle_ms=change.idle_ms,
    )
    newly_final = int(is_final and not was_final)
    counted = Member.objects.rating().filter(pk=rater.pk)  # asked again: they may have said "I am done" meanwhile
    if not counted.update(
        n_final=F("n_final") + newly_final,
        n_flagged=F("n_flagged") + (int(is_flagged) - int(placement.is_flagged)),
        active_ms=F("active_ms") + active_ms,
        last_saved_at=now,
    ):
        _check_open(Member.objects.select_related("study").get(pk=rater.pk))
    return Saved(
        placement=placement,
        op_id=change.op_id,
        rev=change.base_rev + 1,
        is_final=is_final,
        is_resend=False,
        saved_at=now,
        n_done=rater.n_final + newly_final,
        # In this transaction, since it notes that the card was shown: every commit waits for the disk.
        following=_hand_out(rater, placement, holding),
    )


def _hand_out(rater: Member, placement: Placement, holding: Collection[UUID] | None) -> Card | None:
    """The next card for a browser that holds these and has just saved that one, noted as shown."""
    if holding is None:
        return None
    following = next_card(rater, besides=(placement.public_id, *holding))
    if following:
        mark_shown(rater, following)
    return following


def _resent(placement: Placement, change: Change, holding: Collection[UUID] | None) -> Saved | None:
    """The answer that was given when this act was first saved; None if it never was, here."""
    event = RatingEvent.objects.filter(op_id=change.op_id, placement=placement).first()
    if event is None:
        return None
    rater = Member.objects.only("n_final", "study_id").get(pk=placement.rater_id)
    return Saved(
        placement=placement,
        op_id=event.op_id,
        rev=event.rev,
        is_final=event.state == Placement.State.FINAL,
        is_resend=True,
        saved_at=event.created_at,
        n_done=rater.n_final,
        following=_hand_out(rater, placement, holding),
    )


def _refuse_stale(placement: Placement) -> NoReturn:
    raise StaleRevision(_("This response was changed in another window."), current=_current_state(placement))


def _current_state(placement: Placement) -> dict[str, Any]:
    """What stands now, for a page that has to show both versions."""
    placement.refresh_from_db(fields=["rev", "state", "note", "is_flagged"])
    scores = dict(Rating.objects.filter(placement=placement).values_list("dimension__key", "value"))
    return {
        "rev": placement.rev,
        "is_final": placement.state == Placement.State.FINAL,
        "is_flagged": placement.is_flagged,
        "scores": scores,
        "note": placement.note,
    }


def mark_shown(rater: Member, shown: Card) -> None:
    """Remember when a placement first left for the rater's browser: no active time can lie before that."""
    if not shown.was_shown:
        here = Placement.objects.of(rater).filter(public_id=shown.public_id, shown_at=None)
        here.update(shown_at=timezone.now())


@transaction.atomic
def answer_notice(*, user: User, public_id: UUID, answer: Literal["open", "skip", "later"]) -> None:
    """Act on a content notice for the whole assignment. Skipped content is paid; "later" moves it to the end.

    Raises NotFound or StudyClosed.
    """
    placement = _placement_of(user, public_id)
    _check_open(placement.rater)
    rater = placement.rater
    now = timezone.now()
    unrated = Placement.objects.open().filter(assignment=placement.assignment_id)
    if answer == "open":
        Assignment.objects.filter(pk=placement.assignment_id, notice_answered_at=None).update(notice_answered_at=now)
    elif answer == "skip":
        n_skipped = unrated.update(state=Placement.State.SKIPPED, submitted_at=now)
        Member.objects.filter(pk=rater.pk).update(n_final=F("n_final") + n_skipped, last_saved_at=now)
    else:
        last = Placement.objects.of(rater).aggregate(last=Max("queue"))["last"]
        unrated.update(queue=F("slot") + last + 1)
