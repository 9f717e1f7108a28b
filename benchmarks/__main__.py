"""python -m benchmarks [names] [--quick]: run the benches named (all without any) and write benchmarks/results/.

`rating` is the load benchmark (benchmarks/rating.py). Every file bench_<name>.py beside this one is a bench of that
name: a script that prints its own Markdown, which is kept with the machine it ran on.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import rating
from benchmarks.results import load_results, save_results
from benchmarks.site import ROOT, Gunicorn

SCRIPTS = {path.stem.removeprefix("bench_"): path for path in sorted(Path(__file__).parent.glob("bench_*.py"))}
NAMES = ("rating", *SCRIPTS)
QUICK_ARGUMENTS = {
    "generation": ["--items", "8", "2", "--scale", "0.2"],
    "corpus": ["--dialogues", "200", "--samples", "1000"],
    "import": ["--dialogues", "200"],
    "export": ["--items", "200"],
    "progress": ["--items", "500", "--runs", "3"],
    "report": ["--texts", "100", "--runs", "1"],
    "batches": ["--items", "200"],
    "ledger": ["--seconds", "0.5", "--workers", "1", "2"],
    "training": ["--samples", "4", "--rounds", "1"],
    "text": ["--pairs", "300", "--trials", "500"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to quote: writes no results")
    parser.add_argument("--points", nargs="*", default=[], help="rating: only these, e.g. 'sqlite/2000/8/*'")
    parser.add_argument(
        "--disturbed", type=float, help="rating: only points that lost more cores than this, or are new"
    )
    parser.add_argument("--work", type=Path, help="rating: keep seeded databases in this folder between calls")
    parser.add_argument("--postgres", default="postgres://postgres@127.0.0.1:5432", help="server to make databases on")
    parser.add_argument("--workers", type=int, default=Gunicorn.workers)
    parser.add_argument("--threads", type=int, default=Gunicorn.threads)
    parser.add_argument("--render", action="store_true", help="rating: write the page anew from the kept points")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in options.names or NAMES:
        if name == "rating":
            run_rating(options)
        else:
            run_script(name, is_quick=options.quick)


def run_rating(options: argparse.Namespace) -> None:
    command = (
        "python -m benchmarks rating; python -m benchmarks rating --disturbed 0.3"  # the second as often as needed
    )
    results = {} if options.quick else load_results("rating")

    def save(found: dict[str, Any]) -> None:
        if not options.quick:
            save_results("rating", found, title="Rating under load", body=rating.render(found), command=command)

    if options.render:
        save(results)
        return
    rating.run(
        names=options.points,
        results=results,
        save=save,
        is_quick=options.quick,
        work=options.work,
        postgres=options.postgres,
        server=Gunicorn(options.workers, options.threads),
        disturbed_above=options.disturbed,
    )


def run_script(name: str, *, is_quick: bool) -> None:
    """Run bench_<name>.py in a process of its own, show what it prints, and keep it."""
    arguments = QUICK_ARGUMENTS.get(name, []) if is_quick else []
    command = ["-m", f"benchmarks.{SCRIPTS[name].stem}", *arguments]
    print(f"== {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, flush=True)
    if not is_quick:
        title = name.replace("_", " ").capitalize()
        body = done.stdout if "| ---" in done.stdout else f"```\n{done.stdout}```\n"
        save_results(name, {"output": done.stdout}, title=title, body=body, command=f"python {shlex.join(command)}")


if __name__ == "__main__":
    main()
