"""How long the researcher's progress page takes to read from a large study.

    python -m benchmarks.bench_progress                      20,000 items × 4 arms, 20 raters, 3 raters per item
    python -m benchmarks.bench_progress --raters-per-item 20 every rater rates every item: 1.6 million placements

The first reading counts everything; later ones count on from there, and before each of them every rater has rated
a few more responses. Works in a database of its own in a temporary folder, or in the empty one that DATABASE_URL names.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

AIM_MS = 500
ROWS_AT_ONCE = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--arms", type=int, default=4)
    parser.add_argument("--raters", type=int, default=20)
    parser.add_argument("--raters-per-item", type=int, default=3)
    parser.add_argument("--done", type=float, default=0.6, help="share of each rater's queue that is rated")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("QINGTING_DATA_DIR", folder)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.dev")
        import django

        django.setup()
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Fill the database, then read the page's data several times and print the times."""
    from django.core.management import call_command
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from annotation.progress import study_progress

    call_command("migrate", verbosity=0)
    started = time.perf_counter()
    study = fill(arguments)
    filled = time.perf_counter() - started
    connection.cursor().execute("ANALYZE")

    def read() -> float:
        started = time.perf_counter()
        study_progress(study)
        return (time.perf_counter() - started) * 1000

    first, times = read(), []
    for _ in range(arguments.runs):
        rate_on(study)
        times.append(read())
    rate_on(study)
    with CaptureQueriesContext(connection) as queries:
        page = study_progress(study)

    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {connection.vendor}")
    print(
        f"{arguments.items:,} items × {arguments.arms} arms, {arguments.raters} raters, "
        f"{arguments.raters_per_item} per item: {page.total.n_total:,} placements, {page.total.n_done:,} done "
        f"(filled in {filled:.0f} s)"
    )
    print(f"queries: {len(queries)}")
    for query in queries:
        print(f"  {float(query['time']) * 1000:7.1f} ms  {query['sql'][:90]}")
    median = statistics.median(times)
    print(f"study_progress: median {median:.0f} ms, slowest {max(times):.0f} ms; the very first {first:.0f} ms")
    print(f"aim {AIM_MS} ms: {'met' if median <= AIM_MS else 'MISSED'}")


def rate_on(study: Any, n: int = 5) -> None:
    """Every rater rates n more responses."""
    from django.db.models import F

    from annotation.models import Member, Placement

    for rater in study.members.raters():
        some = list(Placement.objects.of(rater).open().in_order().values_list("pk", flat=True)[:n])
        Placement.objects.filter(pk__in=some).update(state=2, rev=1, active_ms=100_000)
        Member.objects.filter(pk=rater.pk).update(n_final=F("n_final") + len(some))


def fill(arguments: argparse.Namespace) -> Any:
    """An opened study in two datasets, partly rated; scores for the latest 2,000 responses of each rater.

    Rows are made directly: this measures reading.
    """
    from annotation.models import (
        Arm,
        Assignment,
        Dataset,
        Item,
        Member,
        Placement,
        Rating,
        Response,
        Study,
        StudyItem,
        StudyResponse,
        System,
    )
    from annotation.services.rubrics import load_rubric

    rng = random.Random(1)
    now = datetime.now(UTC)
    rubric = load_rubric()
    datasets = [Dataset.objects.create(slug=f"set-{i}", name=f"Set {i}") for i in range(2)]
    study = Study.objects.create(name="Large", rubric=rubric, raters_per_item=arguments.raters_per_item)
    systems = [System.objects.create(slug=f"s{i}", name=f"S{i}") for i in range(arguments.arms)]
    arms = [Arm.objects.create(study=study, system=s, code="ABCDEFGH"[i]) for i, s in enumerate(systems)]
    raters = [Member.objects.create(study=study, role="rater", number=i + 1) for i in range(arguments.raters)]

    def save(model: Any, rows: Iterator[Any]) -> None:
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            model.objects.bulk_create(chunk, batch_size=1000)

    n = arguments.items
    save(
        Item,
        (
            Item(
                dataset=datasets[i % 2],
                key=str(i),
                dialogue_key=str(i),
                turns=[],
                n_characters=1,
                content_hash="0" * 64,
            )
            for i in range(n)
        ),
    )
    items = list(Item.objects.order_by("pk").values_list("pk", flat=True))
    save(StudyItem, (StudyItem(study=study, item_id=pk, number=i + 1) for i, pk in enumerate(items)))
    study_items = list(StudyItem.objects.order_by("number").values_list("pk", flat=True))
    save(
        Response,
        (
            Response(item_id=pk, system=system, original="x", text="x", sha256="0" * 64)
            for pk in items
            for system in systems
        ),
    )
    responses = iter(Response.objects.order_by("pk").values_list("pk", flat=True))
    save(
        StudyResponse,
        (
            StudyResponse(study_item_id=pk, arm=arm, response_id=next(responses), text="x")
            for pk in study_items
            for arm in arms
        ),
    )
    shown: dict[int, list[int]] = {}
    for pk, study_item in StudyResponse.objects.values_list("pk", "study_item_id"):
        shown.setdefault(study_item, []).append(pk)

    queues: dict[int, list[int]] = {rater.pk: [] for rater in raters}
    for i, study_item in enumerate(study_items):
        for j in range(arguments.raters_per_item):
            queues[raters[(i + j) % len(raters)].pk].append(study_item)
    save(
        Assignment,
        (Assignment(rater_id=rater, study_item_id=pk) for rater, queue in queues.items() for pk in queue),
    )
    assignments = {
        (rater, item): pk for pk, rater, item in Assignment.objects.values_list("pk", "rater_id", "study_item_id")
    }
    n_done = {rater: int(arguments.done * len(queue)) * arguments.arms for rater, queue in queues.items()}

    def placements() -> Iterator[Placement]:
        for rater, queue in queues.items():
            rng.shuffle(queue)
            for position, (study_item, slot) in enumerate((s, k) for s in queue for k in range(arguments.arms)):
                is_done = position < n_done[rater]
                yield Placement(
                    public_id=uuid.UUID(int=rng.getrandbits(128), version=4),
                    assignment_id=assignments[rater, study_item],
                    rater_id=rater,
                    study_response_id=shown[study_item][slot],
                    slot=slot,
                    position=position,
                    queue=position,
                    state=2 if is_done else 0,
                    rev=int(is_done),
                    is_flagged=is_done and rng.random() < 0.01,
                    active_ms=rng.randint(20_000, 240_000) if is_done else 0,
                    idle_ms=rng.randint(0, 30_000) if is_done else 0,
                    submitted_at=now + timedelta(seconds=position) if is_done else None,
                )

    save(Placement, placements())
    dimensions = list(rubric.dimensions.all())
    save(
        Rating,
        (
            Rating(placement_id=pk, dimension=dimension, value=rng.randint(0, dimension.highest))
            for rater in raters
            for pk in Placement.objects.of(rater).rated().order_by("-queue").values_list("pk", flat=True)[:2000]
            for dimension in dimensions
        ),
    )
    for rater in raters:
        rater.n_placements = len(queues[rater.pk]) * arguments.arms
        rater.n_final = n_done[rater.pk]
        rater.n_flagged = Placement.objects.filter(rater=rater, is_flagged=True).count()
        rater.active_ms = rater.n_final * 130_000
        rater.save()
    study.state, study.opened_at = "open", now
    study.save()
    return study


if __name__ == "__main__":
    main()
