"""Export of 50,000 ratings: seconds to the first byte, seconds in all, and how much memory the download added.

    .venv/bin/python benchmarks/bench_export.py [--items 4167]

Synthetic ratings (4 systems, 3 raters, 4 dimensions) in a database of its own in a temporary folder, or in the one
DATABASE_URL names; each download goes through the real URL, middleware and view. Prints a Markdown table.
"""

# ruff: noqa: E402 - Django has to be set up before its models can be imported
from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.test")
os.environ.setdefault("QINGTING_DATA_DIR", tempfile.mkdtemp(prefix="qingting-bench-"))

import django

django.setup()

import numpy as np
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import override_settings
from django.urls import reverse
from django.utils import timezone

from annotation.models import (
    Arm,
    Assignment,
    Dataset,
    Item,
    Member,
    Placement,
    Rating,
    Response,
    Role,
    StoredNumbers,
    Study,
    StudyItem,
    StudyResponse,
    System,
    User,
)
from annotation.services.rubrics import load_rubric

N_SYSTEMS, N_RATERS = 4, 3
DOWNLOADS = [
    ("ratings", "jsonl"), ("ratings", "csv"), ("ratings", "csv-exact"), ("ratings", "xlsx"), ("scores", "csv"),
]  # fmt: skip


def rated_study(n_items: int, *, seed: int = 1, datasets: Sequence[str] = ("bench",)) -> tuple[Study, User]:
    """A study whose every placement is final, and its researcher. Values are drawn, nobody gave them.

    Items are dealt out to the datasets in turn, and their topics are ten.
    """
    rng = np.random.default_rng(seed)
    now = timezone.now()
    researcher = User.objects.create(username=f"bench-{n_items}", role=Role.RESEARCHER)
    sources = [Dataset.objects.create(slug=f"{slug}-{n_items}", name=f"Synthetic {slug}") for slug in datasets]
    systems = [System.objects.create(slug=f"s{n_items}-{i}", name=f"System {n_items} {i}") for i in range(N_SYSTEMS)]
    study = Study.objects.create(name=f"Bench {n_items}", rubric=load_rubric(), seed=seed)
    Member.objects.create(study=study, user=researcher, role=Role.RESEARCHER)
    raters = [Member.objects.create(study=study, role=Role.RATER, number=i + 1) for i in range(N_RATERS)]
    arms = [Arm.objects.create(study=study, system=s, code="ABCD"[i]) for i, s in enumerate(systems)]
    dimensions = list(study.rubric.dimensions.all())
    position = 0
    for start in range(0, n_items, 500):
        numbers = range(start + 1, min(start + 500, n_items) + 1)
        items = Item.objects.bulk_create(
            Item(
                dataset=sources[n % len(sources)], key=f"d{n}#1", dialogue_key=f"d{n}", turns=[], n_characters=0,
                content_hash=str(n), topic_label=f"topic {n % 10}",
            )
            for n in numbers
        )  # fmt: skip
        study_items = StudyItem.objects.bulk_create(
            StudyItem(study=study, item=item, number=n) for item, n in zip(items, numbers, strict=True)
        )
        responses = Response.objects.bulk_create(
            Response(item=item, system=system, original="…", text="…", sha256="")
            for item in items
            for system in systems
        )
        shown = StudyResponse.objects.bulk_create(
            StudyResponse(study_item=study_items[i // N_SYSTEMS], arm=arms[i % N_SYSTEMS], response=r, text=r.text)
            for i, r in enumerate(responses)
        )
        assignments = Assignment.objects.bulk_create(
            Assignment(rater=rater, study_item=study_item) for study_item in study_items for rater in raters
        )
        placements = []
        for i, assignment in enumerate(assignments):
            for slot, arm in enumerate(rng.permutation(N_SYSTEMS).tolist()):
                at = now + timedelta(seconds=position)
                placements.append(
                    Placement(
                        assignment=assignment, rater=assignment.rater, slot=slot, position=position, queue=position,
                        study_response=shown[i // N_RATERS * N_SYSTEMS + arm],
                        state=Placement.State.FINAL, rev=1, active_ms=int(rng.integers(20_000, 300_000)),
                        shown_at=at, saved_at=at, submitted_at=at,
                    )
                )  # fmt: skip
                position += 1
        placements = Placement.objects.bulk_create(placements, batch_size=2000)
        values = {d.pk: rng.choice(d.highest + 1, size=len(placements), p=_shares(d.highest)) for d in dimensions}
        Rating.objects.bulk_create(
            (
                Rating(placement=placement, dimension=d, value=int(values[d.pk][i]))
                for i, placement in enumerate(placements)
                for d in dimensions
            ),
            batch_size=5000,
        )
    study.state, study.opened_at = Study.State.OPEN, now
    study.save()
    return study, researcher


def _shares(highest: int) -> list[float]:
    return [0.1, 0.3, 0.6] if highest == 2 else [0.01, 0.99]


class PeakMemory:
    """Highest resident memory of this process while the block runs, in MiB above its start."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self.start = self.peak = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, _resident())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        return (self.peak - self.start) / 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def download(client: Client, url: str) -> tuple[float, float, float, int, float]:
    """Seconds to the first byte, seconds in all, seconds of this process's CPU, bytes, MiB added at the peak."""
    with PeakMemory() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        response = client.get(url)
        assert response.status_code == 200, response.status_code
        first, size = 0.0, 0
        for part in response.streaming_content:
            first = first or time.perf_counter() - start
            size += len(part)
        total, cpu = time.perf_counter() - start, time.process_time() - cpu
    return first, total, cpu, size, memory.mib


FULL = {"REPORT_RESAMPLES": 2000, "REPORT_EXCHANGES": 10_000}  # as a site has them; the tests' settings take fewer


@override_settings(STAFF_NEEDS_SECOND_FACTOR=False, **FULL)  # signing in is not what is measured
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="*", default=[1042, 4167])
    sizes = parser.parse_args().items
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # else every client warns
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
    studies = [rated_study(n) for n in sizes]
    warm_up, researcher = rated_study(10)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as the database does by itself some time after so many new rows
    for kind, fmt in DOWNLOADS:
        _client(researcher).get(reverse("study_export", args=[warm_up.public_id, kind, fmt])).getvalue()

    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{timezone.now():%Y-%m-%d}, {machine}, {connection.vendor}, Python {platform.python_version()}\n")
    print("| ratings | export | report | first byte, s | whole, s | CPU, s | size, MB | memory added at peak, MiB |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for study, user in studies:
        n_placements = Placement.objects.filter(rater__study=study).count()
        for kind, fmt in DOWNLOADS:
            for state in ("fresh", "cached") if fmt == "xlsx" or kind == "scores" else ("not needed",):
                if state == "fresh":
                    StoredNumbers.objects.all().delete()
                first, total, cpu, size, mib = download(
                    _client(user), reverse("study_export", args=[study.public_id, kind, fmt])
                )
                row = f"| {n_placements:,} | {kind} {fmt} | {state} | {first:.3f} | {total:.2f} | {cpu:.2f} "
                print(f"{row}| {size / 1e6:.1f} | {mib:.0f} |", flush=True)


def _client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


if __name__ == "__main__":
    main()
