"""python -m benchmarks [names] [--quick]: run the benches named (all without any) and write benchmarks/results/."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks import rating
from benchmarks.results import load_results, save_results
from benchmarks.site import Gunicorn

NAMES = ("rating",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works, not to quote")
    parser.add_argument("--points", nargs="*", default=[], help="rating: only these, e.g. 'sqlite/2000/8/*'")
    parser.add_argument("--repeat", type=int, default=1, help="rating: runs of each point; the middle one is shown")
    parser.add_argument("--work", type=Path, help="rating: keep seeded databases in this folder between calls")
    parser.add_argument("--postgres", default="postgres://postgres@127.0.0.1:5432", help="server to make databases on")
    parser.add_argument("--workers", type=int, default=Gunicorn.workers)
    parser.add_argument("--threads", type=int, default=Gunicorn.threads)
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in options.names or NAMES:
        if name == "rating":
            run_rating(options)


def run_rating(options: argparse.Namespace) -> None:
    words = [a for i, a in enumerate(sys.argv[1:], 1) if a != "--work" and sys.argv[i - 1] != "--work"]
    command = shlex.join(["python", "-m", "benchmarks", *words])

    def save(results: dict) -> None:  # type: ignore[type-arg]
        if not options.dry:
            save_results("rating", results, title="Rating under load", body=rating.render(results), command=command)

    rating.run(
        names=options.points,
        results={} if options.dry else load_results("rating"),
        save=save,
        is_quick=options.quick,
        work=options.work,
        postgres=options.postgres,
        server=Gunicorn(options.workers, options.threads),
        repeat=options.repeat,
    )


if __name__ == "__main__":
    main()
