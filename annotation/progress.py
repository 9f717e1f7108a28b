"""How far a study is and how its raters work: what the pages on progress and flags read.

Raters appear as R1, R2, … and systems as arms. The number of queries does not grow with what there is to count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from statistics import median
from typing import Any, cast

from django.core.cache import cache
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum

from annotation.design.blinding import slot_letter
from annotation.models import Assignment, Dataset, Member, Placement, Rating, Study

PACE_WINDOW = 20  # the median is taken over this many latest responses
RECENT_WINDOW = 100  # habits are looked for among this many latest responses
SAME_IN_A_ROW = 8  # identical scores this often in a row are worth a look
FAST_SHARE = 0.25  # of the rater's own median: hardly enough to read
FAST_TIMES = 3  # that many fast responses among the recent ones are worth a look
LEAST_PAID_MS = 60_000  # of active time, before an hourly pay says anything
RATERS_PER_QUERY = 100  # SQLite bounds how deep an OR may nest
REMEMBER_FROM = 50_000  # placements: from there on counts that cannot change are kept
REMEMBER_SECONDS = 30 * 24 * 3600
FLAGS_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Tally:
    """How many placements there are, and how many of them are done (skipped ones count) and flagged."""

    n_total: int = 0
    n_done: int = 0
    n_flagged: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.n_total + other.n_total, self.n_done + other.n_done, self.n_flagged + other.n_flagged)

    @property
    def n_left(self) -> int:
        return self.n_total - self.n_done

    @property
    def percent(self) -> int:
        """Whole per cent done, rounded down: 100 means all."""
        return 100 * self.n_done // self.n_total if self.n_total else 0


@dataclass(frozen=True, slots=True)
class Pace:
    """Habits over a rater's latest responses.

    median_seconds: active time, over the latest PACE_WINDOW.
    idle_share: of the time with the page in view, 0 to 1.
    longest_same: most identical score vectors in a row.  n_fast: below FAST_SHARE of the rater's own median.
    All but the first over the latest RECENT_WINDOW, of which there are n_recent.
    """

    n_recent: int
    median_seconds: float
    idle_share: float
    longest_same: int
    n_fast: int

    @property
    def idle_percent(self) -> int:
        return round(100 * self.idle_share)

    @property
    def is_straight_lining(self) -> bool:
        return self.longest_same >= SAME_IN_A_ROW

    @property
    def is_fast(self) -> bool:
        return self.n_fast >= FAST_TIMES


@dataclass(frozen=True, slots=True)
class RaterProgress:
    """One row of the progress page. `cells` follow the datasets of the study."""

    code: str
    is_seated: bool
    has_withdrawn: bool
    cells: tuple[Tally, ...]
    total: Tally
    pace: Pace | None
    active_hours: float
    hourly_pay: Decimal | None
    is_below_floor: bool
    last_saved_at: datetime | None

    @property
    def hours_left(self) -> float | None:
        """At the present pace; None before there is one."""
        return self.total.n_left * self.pace.median_seconds / 3600 if self.pace else None


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """The progress page: datasets across, raters down."""

    datasets: tuple[str, ...]
    raters: tuple[RaterProgress, ...]
    columns: tuple[Tally, ...]
    total: Tally

    @property
    def n_below_floor(self) -> int:
        return sum(rater.is_below_floor for rater in self.raters)


def totals(study: Study) -> Tally:
    """All placements of the study, from the counters on the seats."""
    sums = study.members.raters().aggregate(
        total=Sum("n_placements", default=0), done=Sum("n_final", default=0), flagged=Sum("n_flagged", default=0)
    )
    return Tally(sums["total"], sums["done"], sums["flagged"])


def study_progress(study: Study) -> StudyProgress:
    """Rater × dataset, pace and pay of an opened study."""
    raters = list(study.members.raters().annotate(**_queue_ends()))
    datasets, tallies = _tallies(study, raters)
    paces = _paces(raters)
    rows = tuple(_row(study, rater, tallies[rater.pk], paces.get(rater.pk)) for rater in raters)
    columns = tuple(sum((row.cells[i] for row in rows), Tally()) for i in range(len(datasets)))
    return StudyProgress(datasets, rows, columns, sum((row.total for row in rows), Tally()))


def _row(study: Study, rater: Member, cells: tuple[Tally, ...], pace: Pace | None) -> RaterProgress:
    pay = None
    if rater.active_ms >= LEAST_PAID_MS:
        pay = rater.n_final * study.pay_per_response * 3_600_000 / rater.active_ms
    return RaterProgress(
        code=rater.code,
        is_seated=rater.user_id is not None,
        has_withdrawn=rater.withdrawn_at is not None,
        cells=cells,
        total=Tally(rater.n_placements, rater.n_final, rater.n_flagged),
        pace=pace,
        active_hours=rater.active_ms / 3_600_000,
        hourly_pay=pay,
        is_below_floor=pay is not None and pay < study.pay_floor_per_hour,
        last_saved_at=rater.last_saved_at,
    )


def _tallies(study: Study, raters: Sequence[Any]) -> tuple[tuple[str, ...], dict[int, tuple[Tally, ...]]]:
    """Names of the datasets, and a tally for each of them by rater id."""
    datasets = list(
        Dataset.objects.filter(items__study_items__study=study).distinct().order_by("pk").values_list("pk", "name")
    )
    names = tuple(name for _, name in datasets)
    if len(datasets) <= 1:  # the counters on the seats say it all
        one = len(datasets)
        return names, {r.pk: (Tally(r.n_placements, r.n_final, r.n_flagged),) * one for r in raters}
    n_total, n_done, n_flagged = _placed(study, raters), _done(study, raters), _flagged(raters)
    return names, {
        r.pk: tuple(
            Tally(n_total.get((r.pk, pk), 0), n_done.get((r.pk, pk), 0), n_flagged.get((r.pk, pk), 0))
            for pk, _ in datasets
        )
        for r in raters
    }


# (rater id, dataset id) ► how many
_Split = dict[tuple[int, int], int]


def _split(placements: QuerySet[Any]) -> Counter[tuple[int, int]]:
    rows = placements.order_by().values_list("rater_id", "assignment__study_item__item__dataset_id")
    return Counter({(rater, dataset): n for rater, dataset, n in rows.annotate(n=Count("pk"))})


def _is_large(raters: Sequence[Any]) -> bool:
    n_placements: int = sum(rater.n_placements for rater in raters)
    return n_placements >= REMEMBER_FROM


def _placed(study: Study, raters: Sequence[Any]) -> _Split:
    """How many placements there are. They were written at opening and stay, so a large study's are remembered."""

    def count() -> _Split:
        n_arms = study.arms.count()
        rows = (
            Assignment.objects.filter(rater__study=study)
            .order_by()
            .values_list("rater_id", "study_item__item__dataset_id")
            .annotate(n=Count("pk"))
        )
        return {(rater, dataset): n * n_arms for rater, dataset, n in rows}

    if not _is_large(raters):
        return count()
    return cast(_Split, cache.get_or_set(f"placed:{study.pk}:{study.design_hash}", count, REMEMBER_SECONDS))


def _done(study: Study, raters: Sequence[Any]) -> Counter[tuple[int, int]]:
    """How many placements are done.

    All places before the first open one of a queue are done and stay so. What was counted up to there is therefore
    remembered for a large study, and the next reading counts only how far the queue has moved since.
    """
    key = f"done:{study.pk}:{study.design_hash}"
    counted: dict[int, int]  # rater id ► the place up to which `done` has counted
    done: Counter[tuple[int, int]]
    counted, done = cache.get(key, ({}, Counter())) if _is_large(raters) else ({}, Counter())
    moved = [rater for rater in raters if rater.n_placements and _end(rater) > counted.get(rater.pk, 0)]
    for some in _chunks(moved):
        stretch = Q()
        for rater in some:
            stretch |= Q(rater=rater.pk, queue__gte=counted.get(rater.pk, 0), queue__lt=_end(rater))
        done += _split(Placement.objects.filter(stretch))
    if moved and _is_large(raters):
        cache.set(key, (counted | {rater.pk: _end(rater) for rater in moved}, done), REMEMBER_SECONDS)

    n_counted: Counter[int] = Counter()
    for (rater_id, _dataset), n in done.items():
        n_counted[rater_id] += n
    for some in _chunks([rater for rater in raters if rater.n_final > n_counted[rater.pk]]):
        ahead = Q()  # done out of turn, beyond the first open place
        for rater in some:
            ahead |= Q(rater=rater.pk, queue__gt=_end(rater))
        done = done + _split(Placement.objects.done().filter(ahead))
    return done


def _flagged(raters: Sequence[Any]) -> _Split:
    flagging = [rater.pk for rater in raters if rater.n_flagged]
    return _split(Placement.objects.filter(rater__in=flagging, is_flagged=True)) if flagging else {}


def _chunks(raters: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(raters), RATERS_PER_QUERY):
        yield raters[start : start + RATERS_PER_QUERY]


def _queue_ends() -> dict[str, Subquery]:
    """For each seat: `next_queue`, the first open place of its queue, and `last_queue`, the last place of all."""
    queue = Placement.objects.filter(rater=OuterRef("pk"))
    return {
        "next_queue": Subquery(queue.open().order_by("queue").values("queue")[:1]),
        "last_queue": Subquery(queue.order_by("-queue").values("queue")[:1]),
    }


def _end(rater: Any) -> int:
    """The first open place of a queue, or the place behind its last one if all is done."""
    return int(rater.next_queue if rater.next_queue is not None else rater.last_queue + 1)


def _recent(raters: Sequence[Any], prefix: str = "") -> Q:
    """The latest places of each queue. A queue is worked off in order, so they lie just before the first open one;
    reading that range of an index costs the same however long the queue is, which sorting by time does not.
    """
    recent = Q()
    for rater in raters:
        end = _end(rater)
        recent |= Q(
            **{
                f"{prefix}rater": rater.pk,
                f"{prefix}queue__lt": end,
                f"{prefix}queue__gte": max(0, end - RECENT_WINDOW),
            }
        )
    return recent


def _paces(raters: Sequence[Any]) -> dict[int, Pace]:
    """Pace by rater id, for those who have rated."""
    at_work = [rater for rater in raters if rater.n_final]
    paces = {}
    for some in _chunks(at_work):
        vectors: dict[int, list[tuple[int, int]]] = defaultdict(list)
        scores = Rating.objects.final().filter(_recent(some, "placement__"))
        for placement, dimension, value in scores.values_list("placement_id", "dimension_id", "value"):
            vectors[placement].append((dimension, value))
        rows = (
            Placement.objects.rated()
            .filter(_recent(some))
            .order_by("rater_id", "queue")
            .values_list("rater_id", "pk", "active_ms", "idle_ms")
        )
        for rater, own in groupby(rows, key=lambda row: row[0]):
            paces[rater] = _pace([(active, idle, tuple(sorted(vectors[pk]))) for _, pk, active, idle in own])
    return paces


def _pace(latest: Sequence[tuple[int, int, tuple[tuple[int, int], ...]]]) -> Pace:
    """latest: (active ms, idle ms, scores by dimension) of each response, oldest first."""
    active = [row[0] for row in latest]
    idle = sum(row[1] for row in latest)
    usual = median(active)
    return Pace(
        n_recent=len(latest),
        median_seconds=median(active[-PACE_WINDOW:]) / 1000,
        idle_share=idle / (sum(active) + idle) if idle else 0.0,
        longest_same=max(len(list(run)) for _, run in groupby(row[2] for row in latest)),
        n_fast=sum(ms < FAST_SHARE * usual for ms in active),
    )


@dataclass(frozen=True, slots=True)
class Flag:
    """A response that a rater wants somebody to look at, or wrote a note about."""

    pk: int
    rater: str
    arm: str
    dataset: str
    item_number: int
    item_key: str
    slot: str
    state: str
    is_flagged: bool
    note: str
    saved_at: datetime | None


def flags(study: Study, *, before: int | None = None) -> Iterator[Flag]:
    """Flagged responses and those with a note, newest placement first, up to FLAGS_PER_PAGE + 1 of them."""
    rows = Placement.objects.filter(rater__in=study.members.raters().values("pk"), rev__gt=0).filter(
        Q(is_flagged=True) | ~Q(note="")
    )
    if before is not None:
        rows = rows.filter(pk__lt=before)
    for row in rows.order_by("-pk").values(
        "pk",
        "rater__number",
        "study_response__arm__code",
        "assignment__study_item__item__dataset__name",
        "assignment__study_item__number",
        "assignment__study_item__item__key",
        "slot",
        "state",
        "is_flagged",
        "note",
        "saved_at",
    )[: FLAGS_PER_PAGE + 1]:
        yield Flag(
            pk=row["pk"],
            rater=f"R{row['rater__number']}",
            arm=row["study_response__arm__code"],
            dataset=row["assignment__study_item__item__dataset__name"],
            item_number=row["assignment__study_item__number"],
            item_key=row["assignment__study_item__item__key"],
            slot=slot_letter(row["slot"]),
            state=Placement.State(row["state"]).label,
            is_flagged=row["is_flagged"],
            note=row["note"],
            saved_at=row["saved_at"],
        )
