"""Did the site keep what it acknowledged?  python -m benchmarks.verify ledger.jsonl

The ledger lists every save that the generator sent and what it was told; the database is asked whether that is so.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import django


@dataclass
class Verdict:
    """What does not fit, by kind, as a list of ids; all empty = everything was kept exactly once.

    lost: acknowledged, and not there.  doubled: there more often than sent, or there though refused.
    altered: there with other values than were sent, or standing values that are not those of the last save.
    above_plan: an item with more raters than planned, or a rater with more placements than planned.
    miscounted: a counter that is not the number it counts.  gaps: revisions that do not run 1, 2, 3, …
    """

    n_acknowledged: int = 0
    n_refused: int = 0
    n_unanswered: int = 0
    n_stored: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    above_plan: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.altered or self.above_plan or self.miscounted or self.gaps)

    def counts(self) -> dict[str, Any]:
        """The numbers, with the first three examples of whatever is wrong."""
        lists = {name: found for name, found in asdict(self).items() if isinstance(found, list)}
        return {
            "n_acknowledged": self.n_acknowledged,
            "n_refused": self.n_refused,
            "n_unanswered": self.n_unanswered,
            "n_stored": self.n_stored,
            **{name: len(found) for name, found in lists.items()},
            "examples": {name: found[:3] for name, found in lists.items() if found},
        }


def verify(operations: Iterable[dict[str, Any]]) -> Verdict:
    """Compare a ledger with the database that was written to."""
    from annotation.models import RatingEvent

    verdict = Verdict()
    sent = {operation["op_id"]: operation for operation in operations}
    stored: dict[str, list[Any]] = defaultdict(list)
    of_placement: dict[int, list[Any]] = defaultdict(list)
    events = RatingEvent.objects.select_related("placement").order_by("placement_id", "rev")
    for event in events.iterator(2000):
        verdict.n_stored += 1
        stored[str(event.op_id)].append(event)
        of_placement[event.placement_id].append(event)
    outcomes = Counter(operation["outcome"] for operation in sent.values())
    verdict.n_acknowledged, verdict.n_refused = outcomes["acknowledged"], outcomes["refused"]
    verdict.n_unanswered = outcomes["unknown"]

    for op_id, operation in sent.items():
        found = stored.get(op_id, [])
        if operation["outcome"] == "acknowledged":
            if not found:
                verdict.lost.append(op_id)
            for event in found:
                is_same = (event.scores, event.rev, str(event.placement.public_id)) == (
                    operation["scores"], operation["rev"], operation["placement"],
                )  # fmt: skip
                if not is_same:
                    verdict.altered.append(op_id)
        elif operation["outcome"] == "refused" and found:
            verdict.doubled.append(op_id)
    for op_id, found in stored.items():
        if len(found) > 1 or op_id not in sent:
            verdict.doubled.append(op_id)
    _check_placements(verdict, of_placement)
    _check_counters(verdict)
    return verdict


def _check_placements(verdict: Verdict, of_placement: dict[int, list[Any]]) -> None:
    """The revisions of each placement, and the values that stand for it."""
    from annotation.models import Placement, Rating

    standing: dict[int, dict[str, int]] = defaultdict(dict)
    rows: Counter[int] = Counter()
    values = Rating.objects.values_list("placement_id", "dimension__key", "value")
    for placement_id, key, value in values.iterator(2000):
        standing[placement_id][key] = value
        rows[placement_id] += 1
    touched = Placement.objects.exclude(rev=0).values_list("pk", "public_id", "rev", "state")
    for pk, public_id, rev, state in touched.iterator(2000):
        events = of_placement.pop(pk, [])
        if [event.rev for event in events] != list(range(1, rev + 1)):
            verdict.gaps.append(str(public_id))
        if events and (events[-1].scores != standing[pk] or events[-1].state != state):
            verdict.altered.append(str(public_id))
        if rows.pop(pk, 0) != len(standing[pk]):
            verdict.doubled.append(str(public_id))
    verdict.gaps += [str(pk) for pk in of_placement]  # events of a placement that knows of none
    verdict.doubled += [str(pk) for pk in rows]  # values of a placement that nobody saved


def _check_counters(verdict: Verdict) -> None:
    """Counters of raters, and how many raters each item and how many placements each rater has."""
    from django.db.models import Count, F, Q, Sum

    from annotation.models import Member, StudyItem

    seats = Member.objects.raters().annotate(
        real_placements=Count("placements"),
        real_final=Count("placements", filter=Q(placements__state__gte=2)),
        real_flagged=Count("placements", filter=Q(placements__is_flagged=True)),
        real_active_ms=Sum("placements__active_ms", default=0),
    )
    for seat in seats:
        counted = (seat.n_final, seat.n_flagged, seat.active_ms)
        if counted != (seat.real_final, seat.real_flagged, seat.real_active_ms):
            verdict.miscounted.append(str(seat.public_id))
        if seat.real_placements > seat.n_placements:
            verdict.above_plan.append(str(seat.public_id))
    crowded = StudyItem.objects.annotate(
        n_raters=Count("assignments__rater", distinct=True, filter=Q(assignments__placements__state__gte=2))
    ).filter(n_raters__gt=F("study__raters_per_item"))
    verdict.above_plan += [str(pk) for pk in crowded.values_list("pk", flat=True)]


def main() -> None:
    django.setup()
    with open(sys.argv[1], encoding="utf-8") as file:
        verdict = verify(json.loads(line) for line in file)
    json.dump(verdict.counts() | {"is_clean": verdict.is_clean}, sys.stdout)


if __name__ == "__main__":
    main()
