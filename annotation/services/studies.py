"""The life of a study apart from its opening: create, set up, pause, close, freeze the plan, unblind.

A draft can change in everything; from opening on nothing that raters see does (StudyFrozen). A change of state
is one compare-and-swap, so a second click finds the work done and does nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.design.sampling import Candidate, draw, rank
from annotation.errors import DomainError, NotReady, StudyFrozen
from annotation.models import (
    Arm,
    Dataset,
    Invitation,
    Item,
    Member,
    Role,
    Rubric,
    Study,
    StudyItem,
    System,
    User,
)
from annotation.services.audit import record
from annotation.services.rubrics import load_rubric, read_content
from annotation.services.systems import reference_system

CONSENT_PARTS = ("title", "body", "sensitive_tick", "agree_tick")
SETTINGS = frozenset(
    {
        "name", "raters_per_item", "presentation", "min_gap", "repeat_percent", "disclosure_policy", "needs_practice",
        "pay_currency", "pay_per_response", "expected_seconds", "pay_floor_per_hour", "consent", "contact", "retention",
    }
)  # fmt: skip
_WHAT_RATERS_AGREE_TO = {"consent", "contact", "retention"}
MAX_RATERS = 200
MAX_ARMS = 26  # one letter each


def default_consent() -> dict[str, Any]:
    """The consent text a new study starts with, in both languages."""
    content = read_content("consent_v1.json")
    return {part: content[part] for part in CONSENT_PARTS}


@transaction.atomic
def create_study(*, by: User, name: str, rubric: Rubric | None = None) -> Study:
    """A draft with the default rubric and consent text; whoever makes it becomes its researcher.

    An admin makes a study without taking a seat in it: admins see all studies.
    """
    study = Study.objects.create(
        name=name.strip(), rubric=rubric or load_rubric(), consent=default_consent(), created_by=by
    )
    if by.role == Role.RESEARCHER:
        Member.objects.create(study=study, user=by, role=Role.RESEARCHER)
    record("study.created", by=by, study=study)
    return study


def _locked(study: Study) -> Study:
    locked: Study = Study.objects.select_for_update().get(pk=study.pk)
    return locked


def _draft(study: Study) -> Study:
    """The study, locked for this transaction. Raises StudyFrozen if it has been opened."""
    study = _locked(study)
    if not study.is_draft:
        raise StudyFrozen(_("The study has been opened, so its set-up can no longer change."))
    return study


@transaction.atomic
def update_settings(*, study: Study, by: User, **changes: Any) -> Study:
    """Change settings of a draft. Raises StudyFrozen after opening, DomainError for a value that cannot be.

    Raters who agreed to an earlier consent text are asked again.
    """
    if unknown := changes.keys() - SETTINGS:
        raise TypeError(f"no settings: {', '.join(sorted(unknown))}")
    study = _draft(study)
    changed = sorted(name for name, value in changes.items() if getattr(study, name) != value)
    if not changed:
        return study
    for name in changed:
        setattr(study, name, changes[name])
    try:
        study.full_clean(exclude={field.name for field in study._meta.fields} - set(changed))
    except ValidationError as error:
        raise DomainError(" ".join(error.messages), fields=sorted(error.message_dict)) from error
    study.save(update_fields=changed)
    n_asked_again = 0
    if _WHAT_RATERS_AGREE_TO & set(changed):
        n_asked_again = study.members.raters().exclude(consented_at=None).update(consented_at=None)
    record("study.changed", by=by, study=study, settings=changed, n_asked_again=n_asked_again)
    return study


# --- Systems --------------------------------------------------------------------------------------------


@transaction.atomic
def choose_systems(*, study: Study, by: User, systems: Collection[System], with_reference: bool = False) -> list[Arm]:
    """Make these systems, and the counsellor's own reply if wanted, the arms of a draft."""
    study = _draft(study)
    chosen = {system.pk: system for system in systems if system.kind != System.Kind.REFERENCE}
    if with_reference:
        reference = reference_system(by=by)
        chosen[reference.pk] = reference
    if len(chosen) > MAX_ARMS:
        raise DomainError(_("A study compares at most %(n)s systems.") % {"n": MAX_ARMS})
    if set(study.arms.values_list("system_id", flat=True)) == set(chosen):
        return list(study.arms.all())
    study.arms.all().delete()
    # The order of arms is the one thing the seed does not give. A researcher sees the seed; were the order known
    # too (by name, say), anyone could compute which code or slot belongs to which system.
    shuffled = sorted(chosen)
    secrets.SystemRandom().shuffle(shuffled)
    arms = [Arm.objects.create(study=study, system=chosen[pk]) for pk in shuffled]
    record("study.systems_chosen", by=by, study=study, systems=sorted(chosen), with_reference=with_reference)
    return arms


def eligible_items(study: Study, dataset: Dataset, *, only_answered: bool = True) -> QuerySet[Item]:
    """Items of `dataset` that can be drawn into the study: not in it yet and, if asked, answered by all its arms."""
    items = Item.objects.filter(dataset=dataset).exclude(study_items__study=study)
    if not only_answered:
        return items
    systems = [arm.system for arm in study.arms.select_related("system")]
    items = items.answered_by([s.pk for s in systems if s.kind != System.Kind.REFERENCE])
    return items.with_reference() if any(s.kind == System.Kind.REFERENCE for s in systems) else items


@transaction.atomic
def draw_items(
    *,
    study: Study,
    by: User,
    dataset: Dataset,
    n: int,
    seed: int | None = None,
    stratify_by_topic: bool = False,
    one_per_dialogue: bool = True,
    only_answered: bool = True,
) -> int:
    """Draw n items of `dataset` into a draft, by seed (the study's own unless given); returns n.

    stratify_by_topic: topics keep the shares they have among the eligible items.
    one_per_dialogue: at most one item of a dialogue is in the study, counting those drawn before.
    The same seed draws the same items from the same eligible ones, on any machine.

    Raises NotReady if there are fewer eligible items than n; then nothing is drawn.
    """
    study = _draft(study)
    seed = study.seed if seed is None else seed
    if n < 1:
        raise DomainError(_("Draw at least one item."))
    items = eligible_items(study, dataset, only_answered=only_answered)
    if one_per_dialogue:
        drawn_before = study.study_items.filter(item__dataset=dataset).values("item__dialogue_key")
        items = items.exclude(dialogue_key__in=drawn_before)
    drawn, n_eligible = draw(_candidates(items, dataset, seed, one_per_dialogue), n, seed, by_stratum=stratify_by_topic)
    if n_eligible < n:
        raise NotReady(
            _("Only %(n_eligible)s items of “%(dataset)s” can be drawn, but %(n)s are asked for.")
            % {"n_eligible": n_eligible, "dataset": dataset.name, "n": n}
        )
    last = study.study_items.aggregate(last=Max("number"))["last"] or 0
    StudyItem.objects.bulk_create(
        [StudyItem(study=study, item_id=pk, number=last + i) for i, pk in enumerate(drawn, start=1)], batch_size=1000
    )
    record(
        "study.items_drawn",
        by=by,
        study=study,
        dataset=dataset.slug,
        n=n,
        n_eligible=n_eligible,
        seed=seed,
        stratify_by_topic=stratify_by_topic,
        one_per_dialogue=one_per_dialogue,
    )
    return n


def _candidates(items: QuerySet[Item], dataset: Dataset, seed: int, one_per_dialogue: bool) -> Iterator[Candidate]:
    """What is drawn from: every item, or every dialogue, for which one of its items stands in by lot."""
    rows = items.order_by("dialogue_key").values_list("dialogue_key", "key", "topic", "topic_label", "pk")
    streamed = rows.iterator(chunk_size=5000)
    if not one_per_dialogue:
        for _dialogue, key, topic, label, pk in streamed:
            yield Candidate(f"{dataset.slug}/{key}", topic or label, pk)
        return
    for dialogue, own in groupby(streamed, key=lambda row: row[0]):
        # A lot of its own for the item, or dialogues with many items would be drawn more often.
        _d, _key, topic, label, pk = min(own, key=lambda row: rank(seed, "item", dataset.slug, row[1]))
        yield Candidate(f"{dataset.slug}/{dialogue}", topic or label, pk)


@transaction.atomic
def remove_items(*, study: Study, by: User, dataset: Dataset | None = None, only_unanswered: bool = False) -> int:
    """Take items out of a draft: all, those of a dataset, or those that some arm has not answered."""
    study = _draft(study)
    rows = study.study_items.all()
    if dataset:
        rows = rows.filter(item__dataset=dataset)
    if only_unanswered:
        rows = rows.exclude(item__in=_answered(study))
    n, _by_model = rows.delete()
    if n:
        record(
            "study.items_removed",
            by=by,
            study=study,
            dataset=dataset.slug if dataset else None,
            only_unanswered=only_unanswered,
            n=n,
        )
    return n


def _answered(study: Study) -> QuerySet[Item, dict[str, Any]]:
    systems = [arm.system for arm in study.arms.select_related("system")]
    items = Item.objects.answered_by([s.pk for s in systems if s.kind != System.Kind.REFERENCE])
    has_reference = any(s.kind == System.Kind.REFERENCE for s in systems)
    return (items.with_reference() if has_reference else items).values("pk")


# --- Raters' seats --------------------------------------------------------------------------------------


@transaction.atomic
def set_raters(*, study: Study, by: User, n: int) -> int:
    """Bring a draft to n rater seats: new ones get the next numbers, empty ones go, the highest number first.

    Raises NotReady if more seats are taken than n.
    """
    study = _draft(study)
    if not 1 <= n <= MAX_RATERS:
        raise DomainError(_("A study has 1 to %(n)s raters.") % {"n": MAX_RATERS})
    seats = list(study.members.raters())
    if n < len(seats):
        empty = [seat for seat in reversed(seats) if seat.user_id is None][: len(seats) - n]
        if len(seats) - len(empty) > n:
            taken = ", ".join(seat.code for seat in seats if seat.user_id is not None)
            raise NotReady(
                _("These seats are taken: %(seats)s. A seat can go only while it is empty.") % {"seats": taken}
            )
        for seat in empty:
            _remove_seat(study, seat)
    else:
        first = max((seat.number for seat in seats), default=0) + 1
        Member.objects.bulk_create(
            Member(study=study, role=Role.RATER, number=first + i) for i in range(n - len(seats))
        )
    if n != len(seats):
        record("study.seats_changed", by=by, study=study, n_before=len(seats), n_after=n)
    return n


@transaction.atomic
def set_raters_and_pay(*, study: Study, by: User, n_raters: int, **settings: Any) -> Study:
    """Seats and what belongs to them, together or not at all. Raises as set_raters and update_settings do."""
    set_raters(study=study, by=by, n=n_raters)
    return update_settings(study=study, by=by, **settings)


@transaction.atomic
def add_rater_seats(*, study: Study, by: User, n: int = 1) -> int:
    """n more empty seats in a draft; returns how many there are then."""
    return set_raters(study=study, by=by, n=_draft(study).members.raters().count() + n)


@transaction.atomic
def remove_empty_seat(*, study: Study, by: User, seat: Member) -> None:
    """Take one empty seat out of a draft, with the invitations to it. Raises NotReady if somebody sits in it."""
    study = _draft(study)
    current = study.members.raters().filter(pk=seat.pk).first()
    if current is None:  # a second click
        return
    if current.user_id is not None:
        raise NotReady(_("The seat %(seat)s is taken, so it cannot be removed.") % {"seat": current.code})
    n = study.members.raters().count()
    _remove_seat(study, current)
    record("study.seats_changed", by=by, study=study, n_before=n, n_after=n - 1)


def _remove_seat(study: Study, seat: Member) -> None:
    Invitation.objects.filter(seat=seat, used_at=None).delete()  # a link to a seat that is gone leads nowhere
    seat.delete()


# --- Open, paused, closed -------------------------------------------------------------------------------


def _move(
    study: Study, by: User, *, sources: set[str], target: str, action: str, refusal: str, **columns: Any
) -> Study:
    """From one of the source states to the target, by compare-and-swap; nothing happens if it is there already."""
    if Study.objects.filter(pk=study.pk, state__in=sources).update(state=target, **columns):
        record(action, by=by, study=study)
    study.refresh_from_db()
    if study.state != target:
        raise NotReady(refusal)
    return study


@transaction.atomic
def pause_study(*, study: Study, by: User) -> Study:
    """Nothing can be rated until it goes on; what is saved stays. Raises NotReady unless the study is open."""
    return _move(
        study, by, sources={Study.State.OPEN}, target=Study.State.PAUSED, action="study.paused",
        refusal=_("Only an open study can be paused."),
    )  # fmt: skip


@transaction.atomic
def resume_study(*, study: Study, by: User) -> Study:
    """Rating goes on. Raises NotReady unless the study is paused."""
    return _move(
        study, by, sources={Study.State.PAUSED}, target=Study.State.OPEN, action="study.resumed",
        refusal=_("Only a paused study can go on."),
    )  # fmt: skip


@transaction.atomic
def close_study(*, study: Study, by: User) -> Study:
    """End rating for good. Raises NotReady if the study was never opened."""
    return _move(
        study, by, sources={Study.State.OPEN, Study.State.PAUSED}, target=Study.State.CLOSED, action="study.closed",
        refusal=_("The study has not been opened yet, so there is nothing to close."),
        closed_at=timezone.now(),
    )  # fmt: skip


# --- Plan and unblinding --------------------------------------------------------------------------------


def plan_text(text: str) -> str:
    """A plan as it is stored and hashed: line ends \\n, no blanks at either end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def plan_digest(plan: str) -> str:
    """SHA-256 of the plan in UTF-8: what `sha256sum plan.txt` says of a file that holds just these characters."""
    return hashlib.sha256(plan.encode()).hexdigest()


@transaction.atomic
def write_plan(*, study: Study, by: User, plan: str) -> Study:
    """Keep the analysis plan as a draft. Raises StudyFrozen once it is frozen."""
    study = _locked(study)
    plan = plan_text(plan)
    if study.plan_frozen_at:
        raise StudyFrozen(_("The analysis plan is frozen."))
    if plan != study.plan:
        study.plan = plan
        study.save(update_fields=["plan"])
        record("plan.written", by=by, study=study, sha256=plan_digest(plan))
    return study


@transaction.atomic
def freeze_plan(*, study: Study, by: User, plan: str) -> Study:
    """Fix the analysis plan for good, with its SHA-256 and the time.

    Raises NotReady if it is empty, StudyFrozen if another text was frozen before.
    """
    study = _locked(study)
    plan = plan_text(plan)
    if study.plan_frozen_at:
        if plan == study.plan:
            return study
        raise StudyFrozen(_("The analysis plan is frozen."))
    if not plan:
        raise NotReady(_("The analysis plan is empty. Write it before you freeze it."))
    study.plan, study.plan_hash, study.plan_frozen_at = plan, plan_digest(plan), timezone.now()
    study.save(update_fields=["plan", "plan_hash", "plan_frozen_at"])
    record("plan.frozen", by=by, study=study, sha256=study.plan_hash, state=study.state)
    return study


@transaction.atomic
def unblind_study(*, study: Study, by: User) -> Study:
    """Open the key from arm codes to systems, for ever. Raises NotReady naming the step that is missing."""
    now = timezone.now()
    ready = Study.objects.filter(
        pk=study.pk, state=Study.State.CLOSED, plan_frozen_at__isnull=False, unblinded_at__isnull=True
    )
    is_done_now = ready.update(unblinded_at=now, unblinded_by=by)
    study.refresh_from_db()
    if is_done_now:
        record("study.unblinded", by=by, study=study, plan_hash=study.plan_hash, design_hash=study.design_hash)
    elif not study.is_closed:
        raise NotReady(_("Close the study first: while raters can still rate, nobody may know the key."))
    elif study.plan_frozen_at is None:
        raise NotReady(_("Freeze the analysis plan first, so that it cannot follow from the key."))
    return study
