"""finish_rating: "I am done".  store_author_guesses, skip_author_questions: the questions that may be asked then."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import DomainError, NotReady, StudyClosed
from annotation.models import AuthorGuess, Member
from annotation.selectors.authors import asked_ids, author_draw, may_name_authors
from annotation.services.audit import record


@transaction.atomic
def finish_rating(*, rater: Member) -> None:
    """The rater is done; from now on none of their ratings can change. Saying so again changes nothing.

    Raises NotReady while a response is still open, StudyClosed if the rater has left the study.
    """
    can_finish = Member.objects.rating().filter(pk=rater.pk, n_placements__gt=0, n_final=F("n_placements"))
    if can_finish.update(finished_at=timezone.now()):
        record("rater.finished", by=rater.user, study=rater.study, rater=rater.code, n_final=rater.n_placements)
        return
    now = Member.objects.get(pk=rater.pk)
    if now.withdrawn_at:
        raise StudyClosed(_("You have withdrawn from this study."))
    if now.finished_at is None:
        raise NotReady(_("Some responses are still to be rated."))


@transaction.atomic
def store_author_guesses(*, rater: Member, guesses: Mapping[UUID, int | None]) -> bool:
    """Keep whom the rater takes for the writer of each response that was asked about; False if that is done already.

    guesses: random id of the response ► number of the writer as the page showed it, from 1; None = cannot tell.
    Raises NotReady if the questions may not be asked now, DomainError if these are not the ones that were asked.
    """
    locked = _locked(rater)
    if locked.authors_asked_at:
        return False
    draw = author_draw(locked) if may_name_authors(locked) else None
    if draw is None:
        raise NotReady(_("There are no questions about writers for you now."))
    asked = asked_ids(draw)
    numbers = range(1, len(draw.writers) + 1)
    if set(guesses) != set(asked) or any(n is not None and n not in numbers for n in guesses.values()):
        raise DomainError(_("These are not the answers to the questions that were asked. Load the page again."))
    AuthorGuess.objects.bulk_create(
        AuthorGuess(placement_id=asked[public_id], arm_id=None if n is None else draw.writers[n - 1])
        for public_id, n in guesses.items()
    )
    _close_questions(locked, n_guesses=len(guesses))
    return True


@transaction.atomic
def skip_author_questions(*, rater: Member) -> bool:
    """The rater would rather not answer; False if the questions are over already. Raises NotReady as above."""
    locked = _locked(rater)
    if locked.authors_asked_at:
        return False
    if not may_name_authors(locked):
        raise NotReady(_("There are no questions about writers for you now."))
    _close_questions(locked, n_guesses=0)
    return True


def _locked(rater: Member) -> Member:
    """The seat, held against a second click until the transaction ends."""
    seat: Member = Member.objects.select_for_update(of=("self",)).select_related("study", "user").get(pk=rater.pk)
    return seat


def _close_questions(rater: Member, *, n_guesses: int) -> None:
    Member.objects.filter(pk=rater.pk).update(authors_asked_at=timezone.now())
    record("rater.named_writers", by=rater.user, study=rater.study, rater=rater.code, n_guesses=n_guesses)
