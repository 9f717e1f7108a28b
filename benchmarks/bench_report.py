"""The report of a study: kappa's interval against a loop, all numbers cold and unchanged, the page of a large study.

    .venv/bin/python -m benchmarks.bench_report [--texts 10000] [--runs 5]

Ratings and texts are drawn, nobody gave or wrote them. The database lies in a temporary folder, or is the one
DATABASE_URL names. Pages go through the real URL, middleware and view. Prints Markdown tables.
"""

# ruff: noqa: E402 - Django has to be set up before its models can be imported
from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

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
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from annotation.models import Dataset, Item, Response, StoredNumbers, Study, System, User
from annotation.reports import study_data, study_report
from annotation.services.text_counts import count_texts
from benchmarks.bench_export import FULL, rated_study
from benchmarks.machine import yardstick_ms
from benchmarks.seed import _text
from metrics.agreement import _fleiss_value, _pair_sums, weight_matrix
from metrics.intervals import bootstrap_interval, cluster_sums, resample
from metrics.report import compute
from metrics.table import Scale

N_BOOTSTRAP = 2000


def seconds(work: Callable[[], object], runs: int) -> float:
    """Median over the runs."""
    taken = []
    for _run in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


# Kappa.


def drawn_ratings(n_responses: int, n_raters: int) -> np.ndarray:
    """Shape (n_responses, n_raters): points 0, 1, 2 with an agreement as in the field (kappa about .4)."""
    rng = np.random.default_rng(7)
    truth = rng.choice(3, n_responses, p=[0.1, 0.3, 0.6])
    noise = rng.choice(3, (n_responses, n_raters), p=[0.1, 0.3, 0.6])
    return np.where(rng.random((n_responses, n_raters)) < 0.65, truth[:, None], noise).astype(float)


def kappa_loop(ratings: np.ndarray, clusters: np.ndarray, *, counts_once: bool = True) -> tuple[float, float]:
    """As one writes it with statsmodels: whole dialogues drawn, kappa of each resample."""
    whole = ratings.astype(int)
    counts = aggregate_raters(whole, n_cat=3)[0]
    members = np.argsort(clusters, kind="stable").reshape(clusters.max() + 1, -1)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(N_BOOTSTRAP):
        rows = members[rng.integers(0, len(members), len(members))].ravel()
        found.append(fleiss_kappa(counts[rows] if counts_once else aggregate_raters(whole[rows], n_cat=3)[0]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def kappa_matrix(ratings: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Ours, from the ratings on: sums per response, then all resamples in one product over distinct patterns."""
    scale = Scale("d", (0, 1, 2))
    sums = cluster_sums(_pair_sums(ratings, scale), clusters)
    value = partial(_fleiss_value, weights_QQ=weight_matrix(scale, "identity"))
    interval = bootstrap_interval(resample(sums, rng=np.random.default_rng(1), n_bootstrap=N_BOOTSTRAP), value)
    return float(interval.low or 0), float(interval.high or 0)


def bench_kappa(runs: int) -> None:
    print(f"## Interval of Fleiss' kappa, {N_BOOTSTRAP} resamples of dialogues, 3 raters\n")
    print("Loop: aggregate_raters and fleiss_kappa for every resample; counts once: only fleiss_kappa is repeated.\n")
    print("| responses | per dialogue | loop, ms | counts once, ms | ours, ms | loop / ours | counts once / ours "
          "| interval, loop | ours |")  # fmt: skip
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |")
    for n_responses, n_per_cluster in ((200, 1), (800, 1), (3200, 1), (200, 4), (800, 4), (3200, 4)):
        ratings, clusters = drawn_ratings(n_responses, 3), np.arange(n_responses) // n_per_cluster
        plain = seconds(partial(kappa_loop, ratings, clusters, counts_once=False), max(1, runs // 2))
        loop = seconds(partial(kappa_loop, ratings, clusters), max(1, runs // 2))
        matrix = seconds(partial(kappa_matrix, ratings, clusters), 3 * runs)
        low, high = kappa_loop(ratings, clusters)
        our_low, our_high = kappa_matrix(ratings, clusters)
        print(
            f"| {n_responses:,} | {n_per_cluster} | {1000 * plain:.0f} | {1000 * loop:.0f} | {1000 * matrix:.1f} "
            f"| {plain / matrix:.0f} | {loop / matrix:.0f} | [{low:.3f}, {high:.3f}] "
            f"| [{our_low:.3f}, {our_high:.3f}] |"
        )
    print()


# Reports.


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def bench_whole_report(runs: int) -> None:
    print("## All numbers of a study, two datasets, ten topics, 4 systems, 3 raters, 4 dimensions\n")
    print("| ratings | numbers | data, s | numbers cold, s | report unchanged, s | page unchanged, s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for n_items in (50, 100, 200, 400):
        study, user = rated_study(n_items, datasets=("one", "two"))
        data = study_data(study)
        cold = seconds(partial(compute, data), max(1, runs // 2))
        gather = seconds(partial(study_data, study), runs)
        report = study_report(study)
        unchanged = seconds(partial(study_report, study), runs)
        ask = partial(client_of(user).get, reverse("study_report", args=[study.public_id]))
        ask()
        page = seconds(ask, runs)
        n_numbers = sum(1 for _row in report.rows())
        times = f"{gather:.2f} | {cold:.2f} | {unchanged:.3f} | {page:.3f}"
        print(f"| {12 * n_items:,} | {n_numbers:,} | {times} |", flush=True)
    print()


def add_texts(study: Study, n_items: int) -> None:
    """Items that nobody rates, with a reference and a response of every system, in each of the study's datasets."""
    rng = random.Random(3)
    systems = list(System.objects.filter(arms__study=study))
    for dataset in Dataset.objects.filter(items__study_items__study=study).distinct():
        for start in range(0, n_items, 1000):
            items = Item.objects.bulk_create(
                Item(
                    dataset=dataset, key=f"t{i}", dialogue_key=f"t{i // 5}", turns=[], reference=_text(rng, 110),
                    n_characters=0, content_hash=f"t{i}", topic_label=f"topic {i % 10}",
                )
                for i in range(start, min(start + 1000, n_items))
            )  # fmt: skip
            texts = [(item, system, _text(rng, 120)) for item in items for system in systems]
            Response.objects.bulk_create(
                Response(item=item, system=system, original=text, text=text, sha256="") for item, system, text in texts
            )
        count_texts(dataset=dataset)


def bench_large(n_texts: int, runs: int) -> None:
    print(
        f"## Page of a study with texts: 100 rated items and {n_texts:,} with a reference, x 4 systems x 2 datasets\n"
    )
    study, user = rated_study(200 + 1, datasets=("one", "two"))
    add_texts(study, n_texts)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    data = seconds(partial(study_data, study), max(1, runs // 2))
    start = time.perf_counter()
    study_report(study)
    cold = time.perf_counter() - start
    client, address = client_of(user), reverse("study_report", args=[study.public_id])
    first = time.perf_counter()
    client.get(address)
    first = time.perf_counter() - first
    page = seconds(lambda: client.get(address), runs)
    StoredNumbers.objects.filter(study=study).update(state="older")
    waiting = seconds(lambda: client.get(address), runs)
    print(
        "| texts | data, s | all numbers (in a job), s | page, first, s | page, s | page while they are computed, s |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print(f"| {8 * n_texts:,} | {data:.2f} | {cold:.1f} | {first:.2f} | {page:.2f} | {waiting:.2f} |\n")


@override_settings(STAFF_NEEDS_SECOND_FACTOR=False, **FULL)  # signing in is not what is measured
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000, help="items with a reference, per dataset")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # else every client warns
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
    print(
        f"{connection.vendor}; load {os.getloadavg()[0]:.1f} at the start, {yardstick_ms():.0f} ms for the fixed loop\n"
    )
    bench_kappa(options.runs)
    bench_whole_report(options.runs)
    bench_large(options.texts, options.runs)


if __name__ == "__main__":
    main()
