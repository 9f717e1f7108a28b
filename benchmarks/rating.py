"""The rating path under load: next card and save, by raters, items and engine; errors injected; a class signing in.

A point is a fresh copy of a seeded database, a fresh gunicorn, one run of benchmarks.load, and benchmarks.verify over
what it left. Points are named engine/items/raters/mode, e.g. sqlite/2000/8/plain, and kept one by one in
results/rating.json, so a run can be continued by naming the missing ones.
"""

from __future__ import annotations

import fnmatch
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import busy_seconds, yardstick_ms
from benchmarks.results import Table, today
from benchmarks.site import ROOT, Engine, Gunicorn, PostgreSQL, Site, SQLite

ITEMS = (200, 2_000, 20_000, 100_000)
RATERS = (1, 8, 32, 100)
THINK_SECONDS = 5.0
QUIET_CORES = 0.3  # what neighbours may take of the machine in a run that counts as undisturbed


@dataclass(frozen=True)
class Point:
    """One measurement. mode: see benchmarks.load; "think" is "plain" with pauses."""

    engine: str
    items: int
    raters: int
    mode: str

    @property
    def name(self) -> str:
        return f"{self.engine}/{self.items}/{self.raters}/{self.mode}"

    @property
    def raters_per_item(self) -> int:
        # Two hundred items at three raters each would be rated within seconds; there everybody rates everything.
        return self.raters if self.items <= 200 else min(3, self.raters)

    @property
    def template(self) -> str:
        return f"seed-{self.items}-{self.raters}"


def all_points() -> list[Point]:
    points = []
    for engine in ("sqlite", "postgresql"):
        points += [Point(engine, 2_000, r, "plain") for r in RATERS]
        points += [Point(engine, 2_000, r, "page") for r in RATERS]
        points += [Point(engine, 2_000, 100, "think"), Point(engine, 2_000, 100, "page-think")]
        points += [Point(engine, n, 8, mode) for mode in ("plain", "page") for n in ITEMS if n != 2_000]
        points += [Point(engine, 2_000, 8, "hostile"), Point(engine, 2_000, 32, "hostile")]
        points += [Point(engine, 2_000, 100, "burst")]
    return points


def choose(patterns: list[str]) -> list[Point]:
    """The points whose name fits one of the patterns (as in a shell); all without any."""
    return [p for p in all_points() if not patterns or any(fnmatch.fnmatch(p.name, one) for one in patterns)]


class Bench:
    """Runs points in a scratch folder. Everything it makes is dropped at the end, unless `work` was given."""

    def __init__(self, *, work: Path | None, postgres: str, is_quick: bool, server: Gunicorn) -> None:
        self.is_kept = work is not None
        self.work = work or Path(tempfile.mkdtemp(prefix="qingting-bench-"))
        self.work.mkdir(parents=True, exist_ok=True)
        self.engines: dict[str, Engine] = {"sqlite": SQLite(self.work), "postgresql": PostgreSQL(postgres)}
        self.warmup, self.seconds = (1.0, 3.0) if is_quick else (2.0, 10.0)
        self.server = server
        self._seeded: set[tuple[str, str]] = set()
        self.is_ready = False

    def site(self, engine: Engine, database: str) -> Site:
        site = Site(self.work, engine, database, self.server)
        if not self.is_ready:
            site.python("manage.py", "collectstatic", "--noinput", "--verbosity", "0")
            self.is_ready = True
        return site

    def seeded(self, point: Point) -> dict[str, Any]:
        """Raters and links of the seeded template of this point; made on the first call."""
        engine = self.engines[point.engine]
        facts = self.work / f"{point.engine}-{point.template}.json"
        if not facts.exists():
            engine.create(point.template)
            options = {
                "n_items": point.items,
                "n_raters": point.raters,
                "raters_per_item": point.raters_per_item,
                "n_newcomers": 100 if point.raters == 100 else 0,
            }
            seeded = self.site(engine, point.template).python("-m", "benchmarks.seed", json.dumps(options))
            facts.write_text(json.dumps(seeded))
        self._seeded.add((point.engine, point.template))
        found: dict[str, Any] = json.loads(facts.read_text())
        return found

    def run(self, point: Point) -> dict[str, Any]:
        engine = self.engines[point.engine]
        seeded = self.seeded(point)
        engine.copy(point.template, "run")
        site = self.site(engine, "run")
        ledger = self.work / "ledger.jsonl"
        is_thinking = point.mode.endswith("think")
        plan = {
            "port": site.port,
            "raters": seeded["raters"],
            "invitations": seeded["invitations"],
            "mode": point.mode.removesuffix("-think") if point.mode != "think" else "plain",
            "think": THINK_SECONDS if is_thinking else 0,
            "warmup": self.warmup + (THINK_SECONDS if is_thinking else 0),
            "seconds": self.seconds * (2.0 if is_thinking else 1),
            "ledger": str(ledger),
        }
        wait_for_calm()
        yardstick = round(yardstick_ms())
        site.start()
        try:
            result = self._drive(site, plan)
        finally:
            site.stop()
        result["verified"] = site.python("-m", "benchmarks.verify", str(ledger))
        if point.mode == "burst":
            result["seats_taken"] = site.python("-c", _SEATS_TAKEN)["n"]
        engine.drop("run")
        return result | {
            "date": today(),
            "yardstick_ms": yardstick,
            "engine": engine.describe(),
            "server": f"{self.server.workers} workers × {self.server.threads} threads",
            "n_placements": seeded["n_placements"],
        }

    def _drive(self, site: Site, plan: dict[str, Any]) -> dict[str, Any]:
        load = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert load.stdin and load.stdout
        json.dump(plan, load.stdin)
        load.stdin.close()
        cpu: list[dict[str, float]] = []
        over = threading.Event()
        n_killed = [0]
        line = "{}"
        for line in load.stdout:
            event = json.loads(line).get("event")
            if event:
                cpu.append(site.cpu_seconds() | {"machine": busy_seconds(), "clock": time.perf_counter()})
            if event == "begin" and plan["mode"] == "hostile":
                threading.Thread(target=_kill_workers, args=(site, over, n_killed), daemon=True).start()
            if event == "end":
                over.set()
        if load.wait():
            log = (site.folder / "server.log").read_text()[-3000:]
            raise RuntimeError(f"the load generator failed; the server's log ends:\n{log}")
        result: dict[str, Any] = json.loads(line)
        used = {part: cpu[1][part] - cpu[0][part] for part in cpu[0]}
        seconds, machine = used.pop("clock"), used.pop("machine")
        per = result.get("n_saved") or result.get("n_people") or 1
        result["cpu_ms_per_rating"] = {part: round(spent * 1000 / per, 2) for part, spent in used.items()}
        # Everything but server, database and generator: how much of the machine the neighbours took.
        others = (machine - sum(used.values())) / seconds - result["generator_cpu_share"]
        result["neighbours_cores"] = round(max(0.0, others), 2)
        result["memory_mib"] = round(site.memory_mib())
        if plan["mode"] == "hostile":  # killed processes take their processor time along
            del result["cpu_ms_per_rating"]
        if plan["mode"] == "hostile":
            result["counts"]["workers killed"] = n_killed[0]
        return result

    def close(self) -> None:
        if not self.is_kept:
            for engine, template in self._seeded:
                self.engines[engine].drop(template)
            shutil.rmtree(self.work)


_SEATS_TAKEN = """
import django, json; django.setup()
from annotation.models import Member
seats = Member.objects.filter(study__name="Newcomers", role="rater").exclude(user=None)
print(json.dumps({"n": seats.values("user").distinct().count()}))
"""


def _kill_workers(site: Site, over: threading.Event, n_killed: list[int]) -> None:
    """Every few seconds one worker dies without a word (kill -9), in the middle of whatever it does."""
    rng = random.Random(1)
    while not over.wait(3):
        os.kill(rng.choice(site.workers), signal.SIGKILL)
        n_killed[0] += 1


def run(
    *,
    names: list[str],
    results: dict[str, Any],
    save: Callable[[dict[str, Any]], None],
    is_quick: bool,
    work: Path | None,
    postgres: str,
    server: Gunicorn,
    disturbed_above: float | None,
) -> None:
    """Run the chosen points; `save(results)` after each, which keeps the runs made before.

    disturbed_above: only points whose calmest run lost more than so many cores to neighbours, or that have none.
    """
    bench = Bench(work=work, postgres=postgres, is_quick=is_quick, server=server)
    points = results.setdefault("points", {})
    chosen = choose(names)
    if disturbed_above is not None:
        chosen = [
            p for p in chosen if p.name not in points or shown_run(points[p.name])["neighbours_cores"] > disturbed_above
        ]
        chosen.sort(key=lambda p: p.name in points)  # those without any run first
    try:
        for point in chosen:
            started = time.perf_counter()
            done = bench.run(point)
            print(f"{point.name}: {one_line(done)} ({time.perf_counter() - started:.0f} s)", flush=True)
            points.setdefault(point.name, {"runs": []})["runs"].append(done)
            save(results)
    finally:
        bench.close()


def wait_for_calm(*, cores: float = 0.2, most_seconds: float = 45) -> None:
    """Return once the machine has been idle for two seconds, or after `most_seconds`: others may be working on it."""
    deadline = time.perf_counter() + most_seconds
    while time.perf_counter() < deadline:
        before = busy_seconds()
        time.sleep(2)
        if (busy_seconds() - before) / 2 < cores:
            return


def one_line(result: dict[str, Any]) -> str:
    verified = result["verified"]
    kept = "/".join(str(verified[k]) for k in ("lost", "doubled", "altered", "above_plan"))
    kept += "" if verified["is_clean"] else f" NOT CLEAN {verified}"
    if "seconds_to_last" in result:
        return (
            f"{result['n_people']} signed in within {result['seconds_to_last']} s (median "
            f"{result['seconds_median']} s), {result['n_failed']} failed {result['failures']}, seats taken "
            f"{result['seats_taken']}, kept {kept}, neighbours {result['neighbours_cores']}"
        )
    latency = ", ".join(f"{kind} {v['p50']}/{v['p95']}/{v['p99']} ms" for kind, v in result["latency_ms"].items())
    if "ratings_per_second" not in result:
        return f"kept {kept}, neighbours {result['neighbours_cores']}, {result['counts']}"
    cpu = "+".join(str(v) for v in result["cpu_ms_per_rating"].values())
    return (
        f"{result['ratings_per_second']}/s, {latency}, cpu {cpu} ms, {result['kib_per_rating']} KiB, "
        f"kept {kept}, generator {result['generator_cpu_share']:.0%}, neighbours {result['neighbours_cores']}, "
        f"yardstick {result['yardstick_ms']}, "
        f"{result['counts'] or ''}"
    )


# --- The page ---------------------------------------------------------------------------------------------


def shown_run(point: dict[str, Any]) -> dict[str, Any]:
    """Of the runs that neighbours hardly touched, the one before which the machine was fastest.

    The choice never looks at the result. Where every run was disturbed, the least disturbed one.
    """

    def order(run: dict[str, Any]) -> tuple[float, float]:
        disturbed = run["neighbours_cores"]
        return (disturbed if disturbed > QUIET_CORES else 0, run.get("yardstick_ms", float("inf")))

    best: dict[str, Any] = min(point["runs"], key=order)
    return best


def _ms(result: dict[str, Any], *kinds: str) -> str:
    for kind in kinds:
        if found := result["latency_ms"].get(kind):
            return f"{found['p50']:g} / {found['p95']:g} / {found['p99']:g}"
    return "–"


def render(results: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    points = {name: shown_run(point) for name, point in results.get("points", {}).items()}
    parts = [_INTRODUCTION]
    for engine, title in (("sqlite", "SQLite"), ("postgresql", "PostgreSQL")):
        by_raters = Table(
            f"{title}, 2,000 items, raters vary (ms p50 / p95 / p99)",
            ["raters, pause", "next", "save", "ratings/s", "as the page: turn", "ratings/s", "CPU ms a rating: server + database", "as the page", "KiB a rating", "as the page", "neighbours", "yardstick, ms"],  # noqa: E501
        )  # fmt: skip
        for raters, mode in [*((r, "plain") for r in RATERS), (100, "think")]:
            plain = points.get(f"{engine}/2000/{raters}/{mode}")
            page = points.get(f"{engine}/2000/{raters}/{'page' if mode == 'plain' else 'page-think'}")
            by_raters.add(_row(f"{raters}, {0 if mode == 'plain' else THINK_SECONDS:g} s", plain, page))
        by_items = Table(f"{title}, 8 raters without pauses, items vary", ["items", *by_raters.columns[1:]])
        for items in ITEMS:
            plain, page = points.get(f"{engine}/{items}/8/plain"), points.get(f"{engine}/{items}/8/page")
            by_items.add(_row(f"{items:,}", plain, page))
        parts += [by_raters.markdown(), by_items.markdown()]
    parts += [_targets(points).markdown(), _kept(results).markdown(), _NOTES]
    return "\n\n".join(parts) + "\n"


def _row(label: str, plain: dict[str, Any] | None, page: dict[str, Any] | None) -> list[Any]:
    def cpu(result: dict[str, Any] | None) -> str:
        if not result:
            return "–"
        used = result["cpu_ms_per_rating"]
        return f"{used['server']:g}" + (f" + {used['database']:g}" if used["database"] else "")

    return [
        label,
        _ms(plain, "next") if plain else "–",
        _ms(plain, "save") if plain else "–",
        plain["ratings_per_second"] if plain else "–",
        _ms(page, "turn") if page else "–",
        page["ratings_per_second"] if page else "–",
        cpu(plain),
        cpu(page),
        plain["kib_per_rating"] if plain else "–",
        page["kib_per_rating"] if page else "–",
        " · ".join(f"{r['neighbours_cores']:g}" for r in (plain, page) if r),
        " · ".join(f"{r.get('yardstick_ms', '?')}" for r in (plain, page) if r),
    ]


def _targets(points: dict[str, Any]) -> Table:
    table = Table("Targets", ["on two cores", "aim", "SQLite", "", "PostgreSQL", ""])

    def add(label: str, aim: str, measure: Callable[[str], float], is_met: Callable[[float, str], bool]) -> None:
        row = [label, aim]
        for engine in ("sqlite", "postgresql"):
            try:
                value = measure(engine)
            except KeyError:  # not run
                row += ["–", ""]
                continue
            row += [f"{value:g}", "met" if is_met(value, engine) else "**missed**"]
        table.add(row)

    def p(engine: str, rest: str) -> dict[str, Any]:
        found: dict[str, Any] = points[f"{engine}/{rest}"]
        return found

    def cpu(result: dict[str, Any]) -> float:
        return round(sum(result["cpu_ms_per_rating"].values()), 2)

    def at_most(limit: float) -> Callable[[float, str], bool]:
        return lambda value, _engine: value <= limit

    def rate(value: float, engine: str) -> bool:
        return value >= (60 if engine == "sqlite" else 100)

    def growth(engine: str, mode: str, kind: str) -> float:
        medians = [p(engine, f"{n}/8/{mode}")["latency_ms"][kind]["p50"] for n in ITEMS]
        return round(max(medians) / min(medians), 2)

    def most_cpu(engine: str, modes: tuple[str, ...]) -> float:
        of_mode = [r for name, r in points.items() if name.startswith(engine) and name.rpartition("/")[2] in modes]
        if not of_mode:
            raise KeyError(engine)
        return max(cpu(result) for result in of_mode)

    one = "2000/1/"
    add("one rater, next, p50", "≤ 15 ms", lambda e: p(e, one + "plain")["latency_ms"]["next"]["p50"], at_most(15))
    add("one rater, save, p50", "≤ 15 ms", lambda e: p(e, one + "plain")["latency_ms"]["save"]["p50"], at_most(15))
    add(
        "one rater, as the page, p50", "≤ 15 ms", lambda e: p(e, one + "page")["latency_ms"]["turn"]["p50"], at_most(15)
    )
    add("CPU a rating, 8 raters, database included", "≤ 20 ms", lambda e: cpu(p(e, "2000/8/plain")), at_most(20))
    add("the same, as the page", "≤ 20 ms", lambda e: cpu(p(e, "2000/8/page")), at_most(20))
    add("CPU a rating, the most of all points", "≤ 20 ms", lambda e: most_cpu(e, ("plain", "think")), at_most(20))
    add("the same, as the page", "≤ 20 ms", lambda e: most_cpu(e, ("page", "page-think")), at_most(20))
    add(
        "8 raters, two requests a rating, ratings/s",
        "≥ 60, ≥ 100",
        lambda e: p(e, "2000/8/plain")["ratings_per_second"],
        rate,
    )
    add("8 raters, as the page, ratings/s", "≥ 60, ≥ 100", lambda e: p(e, "2000/8/page")["ratings_per_second"], rate)
    add(
        "100 raters, 5 s pauses, ratings/s (20 asked)",
        "≥ 19",
        lambda e: p(e, "2000/100/think")["ratings_per_second"],
        lambda v, _e: v >= 19,
    )
    for kind in ("next", "save"):
        add(
            f"the same, {kind}, p95",
            "≤ 60 ms",
            lambda e, k=kind: p(e, "2000/100/think")["latency_ms"][k]["p95"],
            at_most(60),
        )
    add(
        "the same, as the page, p95",
        "≤ 60 ms",
        lambda e: p(e, "2000/100/page-think")["latency_ms"]["turn"]["p95"],
        at_most(60),
    )
    for kind, mode in (("next", "plain"), ("save", "plain"), ("turn", "page")):
        add(
            f"{kind}, p50 over item counts: slowest ÷ fastest",
            "≤ 1.3",
            lambda e, k=kind, m=mode: growth(e, m, k),
            at_most(1.3),
        )
    add(
        "100 people sign in at once: seconds to the last",
        "≤ 60",
        lambda e: p(e, "2000/100/burst")["seconds_to_last"],
        at_most(60),
    )
    add("of them failed", "0", lambda e: p(e, "2000/100/burst")["n_failed"], at_most(0))
    return table


def _kept(results: dict[str, Any]) -> Table:
    table = Table(
        "Did the site keep what it acknowledged?",
        ["points", "runs", "acknowledged", "refused (409)", "lost", "doubled", "altered", "above plan", "miscounted", "gaps", "injected"],  # noqa: E501
    )  # fmt: skip
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, point in results.get("points", {}).items():
        engine, _items, _raters, mode = name.split("/")
        groups.setdefault(f"{engine}, {'hostile' if mode == 'hostile' else 'plain'}", []).extend(point["runs"])
    for label, runs in groups.items():
        sums = {
            key: sum(r["verified"][key] for r in runs)
            for key in ("n_acknowledged", "n_refused", "lost", "doubled", "altered", "above_plan", "miscounted", "gaps")
        }
        counts: dict[str, int] = {}
        for r in runs:
            for what, n in r["counts"].items():
                counts[what] = counts.get(what, 0) + n
        injected = ", ".join(f"{n:,} × {what}" for what, n in sorted(counts.items()))
        table.add([label, len(runs), *(f"{v:,}" for v in sums.values()), injected or "nothing"])
    return table


_INTRODUCTION = """\
One closed-loop generator (`benchmarks/load.py`, a process of its own with a thread and a kept connection a rater)
drives gunicorn over loopback under the production settings. Each item: a dialogue of 626 Chinese characters and one
response of 120; four dimensions; three raters an item (all eight at 200 items, which three would finish within
seconds).

- *next* is `GET …/next`, *save* a final `PUT …/rating`: two requests a rating, as other tools need.
- *As the page* is what the rating page does: two cards in hand, and one `PUT` a rating that also brings the next
  card (*turn*).
- Each point is a fresh copy of a seeded database and a fresh server, measured for 10 s after 2 s of warm-up (20 s
  after 7 s with pauses).
- *CPU* is user + system time of all gunicorn processes, plus that of PostgreSQL's backends for this database; its
  background writers are not counted.
- The machine was shared. *Neighbours* is how many of the two cores other processes took during the run; *yardstick* is
  the CPU time of a fixed loop on both cores just before it, because the speed of virtual cores drifts. Of several runs
  of a point the one shown is that with the fastest yardstick among those with at most 0.3 cores of neighbours. In both
  columns the first figure belongs to next and save, the second to the page.
- Every run, shown or not, was compared with its database afterwards; the last table counts them all."""

_NOTES = """\
## Settings, and why

- **gunicorn: gthread, 3 workers × 2 threads on two cores.** A choice, not a finding. Of the eight settings tried, in
  windows of 3 s, most runs were disturbed. The undisturbed ones, as the page with 8 raters: 102 and 111 ratings/s on
  SQLite and 136 on PostgreSQL, against 94 and 82, and 119, with 2 × 2, and 89, and 105 and 97, with 2 × 4. One or two
  runs each, and less than 30 % apart.
- **SQLite without a safe WAL: journal PERSIST, synchronous FULL.** The reason is durability: DELETE with FULL does not
  sync the folder after it removes the journal (seen with strace), so a power cut can bring the journal back and undo
  an acknowledged rating. Of the modes that sync their commit, PERSIST took least: 0.65 ms a commit in the one quiet
  comparison (TRUNCATE 0.75, DELETE with EXTRA 0.86), and about as much as the others in the disturbed ones. WAL took
  0.19; a build of SQLite with the fix gets it by itself.
- **PostgreSQL: statements are bound and prepared on the server** (`server_side_binding`, `prepare_threshold`): in two
  pairs of runs within one process, its backend's CPU per rating was 5.0 and 4.9 ms without and 2.1 and 2.7 ms with it.
  Behind a pooler, that pooler must keep prepared statements.
- **The save hands out the next card within its own transaction**, so a rating costs one commit, not two.
- **The endpoints read only the columns they need.** In a profile, the seat with its consent text and rubric took 1.8
  times as long as finding the next card.

## How far to trust this

- A run beside a neighbour is a lower bound, not a result. Under 30 %, differences mean nothing.
- Points were run in several calls over an hour, the disturbed ones more often than the rest, and while other parts of
  the site were changing; rows without a yardstick are older than that column. How to choose the run to be shown was
  settled after the first runs. Every finished run is in `rating.json`.
- The machine's speed drifted by more than the growth that was to be measured: the yardstick read 228 to 422 ms, mostly
  beside neighbours, and CPU for the same work differs by half between undisturbed rows. So the rows on item counts
  show neither that p50 stays within 1.3 nor that it does not; their points were not taken in turn. What can be said:
  throughput and CPU do not get worse from 200 to 100,000 items.
- SQLite syncs four times a commit: 0.65 ms on the quiet disk, 10 to 20 ms under other people's load. Its long tail
  without pauses is probably waiting for the one lock, which it does by sleeping; that was not traced.
- In hostile runs only correctness counts: they have no rate and no CPU, since killed processes take theirs along.
  Killed workers (kill -9) are part of them; a killed machine is not. Runs that were broken off are not counted.
"""
