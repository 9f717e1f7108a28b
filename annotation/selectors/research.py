"""What a researcher's pages read: the list, what a draft has and lacks, its preview, the key, the log.

Names of systems leave this module for a draft (whoever sets it up has just chosen them) and after unblinding.
In between there are only arm codes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import numpy as np
from django.core.cache import cache
from django.db.models import Count, Max, Q, QuerySet, Sum
from django.db.models.functions import Length
from django.template.defaultfilters import floatformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from annotation.design.arrays import IntArray
from annotation.design.blinding import normalise_text
from annotation.design.compile import Design, DesignSpec, compile_design
from annotation.design.disclosure import scan
from annotation.design.preview import DesignPreview, PayTerms, PreviewWarning, preview_design
from annotation.errors import NotReady
from annotation.models import Arm, AuditEvent, Dataset, Response, Study, StudyItem, System, User
from annotation.services.opening import Parts, design_spec, parts

SCAN_NOW_AT_MOST = 4000  # responses; 0.2 ms each. More are read on the preview page only
CACHE_PREVIEW_FROM = 20_000  # placements; smaller designs compile in a blink
CACHE_SECONDS = 24 * 3600
EVENTS_PER_PAGE = 100


def studies_of(user: User) -> QuerySet[Any]:
    """The studies this user may see, newest first, each with n_raters, n_seated, n_placements, n_final, n_flagged."""
    raters = Q(members__role="rater")
    # Counting in the same query as `visible_to` would count only the user's own seat: its join is on members, too.
    studies: QuerySet[Any] = (
        Study.objects.filter(pk__in=Study.objects.visible_to(user).order_by().values("pk"))
        .annotate(
            n_raters=Count("members", filter=raters),
            n_seated=Count("members", filter=raters & Q(members__user__isnull=False)),
            n_placements=Sum("members__n_placements", default=0),
            n_final=Sum("members__n_final", default=0),
            n_flagged=Sum("members__n_flagged", default=0),
        )
        .order_by("-created_at")
    )
    return studies


# --- A draft --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemGroup:
    """The items of one dataset in a study. n_sensitive: with a content notice."""

    dataset: Dataset
    n_items: int
    n_dialogues: int
    n_sensitive: int


@dataclass(frozen=True, slots=True)
class ChosenSystem:
    """One arm of a draft, by name; n_unanswered: items of the study it has no response to."""

    system: System
    n_unanswered: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What a draft has, and in words what it lacks. `missing` must come before opening, `advice` should."""

    groups: tuple[ItemGroup, ...]
    systems: tuple[ChosenSystem, ...]
    n_raters: int
    n_seated: int
    missing: tuple[tuple[str, str], ...]  # (section of the set-up page, sentence)
    advice: tuple[tuple[str, str], ...]

    @property
    def n_items(self) -> int:
        return sum(group.n_items for group in self.groups)

    @property
    def n_unanswered(self) -> int:
        return sum(chosen.n_unanswered for chosen in self.systems)

    @property
    def has_reference(self) -> bool:
        return any(chosen.system.kind == System.Kind.REFERENCE for chosen in self.systems)

    @property
    def is_ready(self) -> bool:
        return not self.missing


def draft_of(study: Study) -> Draft:
    """Everything the set-up page says about a draft."""
    groups = _item_groups(study)
    systems = _chosen_systems(study, sum(group.n_items for group in groups))
    seats = study.members.raters().active()
    n_raters, n_seated = seats.count(), seats.exclude(user=None).count()
    return Draft(
        groups=groups,
        systems=systems,
        n_raters=n_raters,
        n_seated=n_seated,
        missing=tuple(_missing(study, groups, systems, n_raters)),
        advice=tuple(_advice(study, systems)),
    )


def _item_groups(study: Study) -> tuple[ItemGroup, ...]:
    rows = (
        study.study_items.order_by("item__dataset__name")
        .values("item__dataset")
        .annotate(
            n=Count("pk"),
            n_dialogues=Count("item__dialogue_key", distinct=True),
            n_plain=Count("pk", filter=Q(item__risks=[])),
        )
    )
    datasets = Dataset.objects.in_bulk([row["item__dataset"] for row in rows])
    return tuple(
        ItemGroup(datasets[row["item__dataset"]], row["n"], row["n_dialogues"], row["n"] - row["n_plain"])
        for row in rows
    )


def _chosen_systems(study: Study, n_items: int) -> tuple[ChosenSystem, ...]:
    """The arms by name: their stored order is part of the key and stays out of sight."""
    systems = sorted((arm.system for arm in study.arms.select_related("system")), key=lambda system: system.name)
    n_answered = dict(
        Response.objects.first_of_each()
        .filter(system__in=[s.pk for s in systems], item__study_items__study=study)
        .order_by()
        .values_list("system_id")
        .annotate(n=Count("pk"))
    )
    chosen = []
    for system in systems:
        n = n_answered.get(system.pk, 0)
        if system.kind == System.Kind.REFERENCE:  # its responses are written at opening
            n = study.study_items.exclude(item__reference="").count()
        chosen.append(ChosenSystem(system, n_items - n))
    return tuple(chosen)


def _missing(
    study: Study, groups: tuple[ItemGroup, ...], systems: tuple[ChosenSystem, ...], n_raters: int
) -> list[tuple[str, str]]:
    missing = []
    if not systems:
        missing.append(("systems", _("Choose the systems to compare.")))
    if not groups:
        missing.append(("items", _("Draw a sample of items.")))
    for chosen in systems:
        if chosen.n_unanswered:
            text = ngettext(
                "%(system)s has no response to %(n)s item.",
                "%(system)s has no response to %(n)s items.",
                chosen.n_unanswered,
            )
            missing.append(("systems", text % {"system": chosen.system.name, "n": chosen.n_unanswered}))
    if n_raters < study.raters_per_item:
        text = _("Each item needs %(needed)s raters, but there are seats for %(n)s.")
        missing.append(("raters", text % {"needed": study.raters_per_item, "n": n_raters}))
    return missing


def _advice(study: Study, systems: tuple[ChosenSystem, ...]) -> list[tuple[str, str]]:
    advice = []
    if len(systems) == 1:
        advice.append(("systems", _("There is only one system: nothing to compare it with.")))
    if not study.contact:
        advice.append(("consent", _("The consent text names no study contact.")))
    if not study.retention:
        advice.append(("consent", _("The consent text does not say how long the data are kept.")))
    return advice


# --- What a draft would become --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disclosures:
    """How much a study's responses give their authors away; n_items: what the policy “drop” would leave out."""

    n_responses: int
    n_disclosing: int
    n_items: int


def disclosures_of(study: Study, *, at_most: int | None = None) -> Disclosures | None:
    """What the scanner finds among the study's responses, with the names of its systems.

    None if there are more than `at_most` responses that nobody has counted yet.
    """
    rows = Response.objects.first_of_each().filter(
        item__study_items__study=study, system__arms__study=study, system__kind=System.Kind.STORED
    )
    references = study.study_items.exclude(item__reference="")
    if not study.arms.filter(system__kind=System.Kind.REFERENCE).exists():
        references = references.none()
    size = rows.aggregate(n=Count("pk"), last=Max("pk"), sum=Sum("pk"))
    n_references = references.aggregate(n=Count("pk"), last=Max("item"), sum=Sum("item"))
    names = [name for arm in study.arms.select_related("system") for name in (arm.system.name, *arm.system.aliases)]
    key = "disclosures:" + _digest(sorted(names), size, n_references)
    known: Disclosures | None = cache.get(key)
    if known:
        return known
    n_responses = size["n"] + n_references["n"]
    if at_most is not None and n_responses > at_most:
        return None
    found: list[int] = []
    for item, text in rows.values_list("item_id", "text").iterator(chunk_size=2000):
        if scan(text, names):
            found.append(item)
    for item, text in references.values_list("item_id", "item__reference").iterator(chunk_size=2000):
        if scan(normalise_text(text).text, names):
            found.append(item)
    counted = Disclosures(n_responses, len(found), len(set(found)))
    cache.set(key, counted, CACHE_SECONDS)
    return counted


@dataclass(frozen=True)
class Preview:
    """The design a draft would get, and what is worth a look before opening."""

    spec: DesignSpec
    numbers: DesignPreview
    pay: PayTerms
    warnings: tuple[str, ...]


def preview_of(study: Study) -> Preview:
    """The design this draft would be opened with. Nothing is written. Raises NotReady if a part is missing."""
    these = parts(study)
    spec = design_spec(study, these)
    item_characters, response_characters = _characters(study, these)
    pay = PayTerms(
        amount_per_response=study.pay_per_response,
        currency=study.pay_currency,
        seconds_per_response=study.expected_seconds,
        floor_per_hour=study.pay_floor_per_hour,
    )

    def compute() -> DesignPreview:
        return preview_design(
            _compile(spec), item_characters=item_characters, response_characters=response_characters, pay=pay
        )

    if spec.n_items * spec.n_systems * spec.raters_per_item < CACHE_PREVIEW_FROM:
        numbers = compute()
    else:
        key = "preview:" + _digest(spec, pay, item_characters.tobytes(), response_characters.tobytes())
        numbers = cast(DesignPreview, cache.get_or_set(key, compute, CACHE_SECONDS))
    return Preview(spec, numbers, pay, tuple(_in_words(warning, these, pay) for warning in numbers.warnings))


def _compile(spec: DesignSpec) -> Design:
    try:
        return compile_design(spec)
    except ValueError as error:  # an interleaved queue with too few items for its gap
        raise NotReady(str(error)) from error


def _digest(*parts_of_it: object) -> str:
    return hashlib.sha256(repr(parts_of_it).encode()).hexdigest()


def _characters(study: Study, these: Parts) -> tuple[IntArray, IntArray]:
    """Lengths: dialogues, shape (n_items,), and responses, shape (n_items, n_systems), in the order of `these`."""
    row_of = {study_item.item_id: row for row, study_item in enumerate(these.items)}
    column_of = {arm.system_id: column for column, arm in enumerate(these.arms)}
    responses = np.zeros((len(row_of), len(column_of)), dtype=np.int64)
    for column, arm in enumerate(these.arms):
        if arm.system.kind == System.Kind.REFERENCE:
            responses[:, column] = [len(study_item.item.reference) for study_item in these.items]
    lengths = (
        Response.objects.first_of_each()
        .filter(system__in=list(column_of), item__study_items__study=study)
        .values_list("item_id", "system_id", Length("text"))
    )
    for item, system, length in lengths.iterator(chunk_size=5000):
        responses[row_of[item], column_of[system]] = length
    items = np.array([study_item.item.n_characters for study_item in these.items], dtype=np.int64)
    return items, responses


def _in_words(warning: PreviewWarning, these: Parts, pay: PayTerms) -> str:
    return _WARNINGS[warning.code](warning.params, these, pay)


_Params = Mapping[str, int | float | Decimal]


def _missing_ratings(params: _Params, these: Parts, pay: PayTerms) -> str:
    n = int(params["n_missing"])
    return ngettext("%(n)s rating would be missing.", "%(n)s ratings would be missing.", n) % {"n": n}


def _repeats_left_out(params: _Params, these: Parts, pay: PayTerms) -> str:
    return _(
        "Of %(n_wanted)s items to be shown again only %(n_given)s are: a repeat needs a queue long enough "
        "that its first showing is forgotten, and never shows a sensitive item twice."
    ) % {"n_wanted": params["n_wanted"], "n_given": params["n_given"]}


def _imbalance(text: object) -> Callable[[_Params, Parts, PayTerms], str]:
    def say(params: _Params, these: Parts, pay: PayTerms) -> str:
        return str(text) % {name: floatformat(params[name], 1) for name in ("deviation", "even")}  # as the tables do

    return say


def _sensitive_run(params: _Params, these: Parts, pay: PayTerms) -> str:
    return _(
        "Sensitive items follow one another up to %(longest)s times (wanted: at most %(limit)s), because there are "
        "too few others to put between them."
    ) % {"longest": params["longest"], "limit": params["limit"]}


def _reading_time(params: _Params, these: Parts, pay: PayTerms) -> str:
    n = int(params["n_items"])
    item: StudyItem = these.items[int(params["longest_item"])]
    return ngettext(
        "%(n)s item takes longer to read than it is paid for. The longest, number %(number)s, needs about "
        "%(needed)s min of reading and is paid for %(paid)s min.",
        "%(n)s items take longer to read than they are paid for. The longest, number %(number)s, needs about "
        "%(needed)s min of reading and is paid for %(paid)s min.",
        n,
    ) % {
        "n": n,
        "number": item.number,
        "needed": f"{float(params['reading_seconds']) / 60:.1f}",
        "paid": f"{float(params['paid_seconds']) / 60:.1f}",
    }


def _pay_below_floor(params: _Params, these: Parts, pay: PayTerms) -> str:
    n = int(params["n_raters"])
    return ngettext(
        "%(n)s rater would earn less than the lowest hourly pay of %(currency)s %(floor)s: down to %(currency)s "
        "%(lowest)s an hour.",
        "%(n)s raters would earn less than the lowest hourly pay of %(currency)s %(floor)s: down to %(currency)s "
        "%(lowest)s an hour.",
        n,
    ) % {
        "n": n,
        "currency": pay.currency,
        "floor": f"{params['floor_per_hour']:.2f}",
        "lowest": f"{params['lowest_hourly_pay']:.2f}",
    }


_WARNINGS: dict[str, Callable[[_Params, Parts, PayTerms], str]] = {
    "missing_ratings": _missing_ratings,
    "repeats_left_out": _repeats_left_out,
    "position_imbalance": _imbalance(
        gettext_lazy(
            "Positions are uneven: some system stands in some position %(deviation)s times more or less often than "
            "the even %(even)s."
        )
    ),
    "neighbour_imbalance": _imbalance(
        gettext_lazy(
            "Neighbours are uneven: some system follows another %(deviation)s times more or less often than the "
            "even %(even)s."
        )
    ),
    "sensitive_run": _sensitive_run,
    "reading_time_exceeds_paid_time": _reading_time,
    "pay_below_floor": _pay_below_floor,
}


# --- The key --------------------------------------------------------------------------------------------


def key_of(study: Study) -> list[Arm]:
    """Arms with their systems, by code. Raises NotReady before unblinding."""
    if not study.is_unblinded:
        raise NotReady(_("The study has not been unblinded."))
    return list(study.arms.select_related("system").order_by("code"))


# --- The log --------------------------------------------------------------------------------------------

ACTIONS = {
    "study.created": gettext_lazy("Study created"),
    "study.changed": gettext_lazy("Settings changed"),
    "study.systems_chosen": gettext_lazy("Systems chosen"),
    "study.items_drawn": gettext_lazy("Items drawn"),
    "study.items_removed": gettext_lazy("Items removed"),
    "study.seats_changed": gettext_lazy("Number of raters changed"),
    "study.opened": gettext_lazy("Study opened"),
    "study.paused": gettext_lazy("Study paused"),
    "study.resumed": gettext_lazy("Study went on"),
    "study.closed": gettext_lazy("Study closed"),
    "study.unblinded": gettext_lazy("Study unblinded"),
    "plan.written": gettext_lazy("Analysis plan written"),
    "plan.frozen": gettext_lazy("Analysis plan frozen"),
    "study.exported": gettext_lazy("File downloaded"),
    "researcher.added": gettext_lazy("Researcher added"),
    "invitation.created": gettext_lazy("Invitation link made"),
    "invitation.accepted": gettext_lazy("Invitation accepted"),
    "invitation.revoked": gettext_lazy("Invitation withdrawn"),
    "sign_in_link.used": gettext_lazy("Signed in by link"),
    "judge.added": gettext_lazy("Ratings by a judge added"),
    "judge.removed": gettext_lazy("Judge deleted"),
    "rater.consented": gettext_lazy("Rater agreed to take part"),
    "rater.practised": gettext_lazy("Rater finished a practice set"),
    "rater.withdrew": gettext_lazy("Rater withdrew"),
    "rater.finished": gettext_lazy("Rater said to be done"),
    "rater.named_writers": gettext_lazy("Rater answered or skipped “Who wrote this?”"),
}


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One act as the page shows it: staff by name, raters by code."""

    pk: int
    at: datetime
    who: str
    action: str
    detail: tuple[tuple[str, str], ...]
    hash: str


def audit_lines(study: Study, *, before: int | None = None) -> list[AuditLine]:
    """The study's part of the log, newest first, up to EVENTS_PER_PAGE + 1 lines."""
    codes = {seat.user_id: seat.code for seat in study.members.raters().exclude(user=None)}
    events = AuditEvent.objects.filter(study=study).select_related("actor").order_by("-pk")
    if before is not None:
        events = events.filter(pk__lt=before)
    return [
        AuditLine(
            pk=event.pk,
            at=event.at,
            who=_who(event, codes),
            action=str(ACTIONS.get(event.action, event.action)),
            detail=tuple((key, str(value)) for key, value in event.detail.items()),
            hash=event.hash,
        )
        for event in events[: EVENTS_PER_PAGE + 1]
    ]


def _who(event: AuditEvent, codes: dict[int | None, str]) -> str:
    actor = event.actor
    if actor is None:
        return _("command line")
    if actor.is_site_staff:
        return actor.get_full_name() or actor.get_username()
    return codes.get(actor.pk, _("a rater"))
