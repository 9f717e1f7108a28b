"""How long an import of dialogues takes, and how much memory.

    python -m benchmarks.bench_import                       12,000 made-up dialogues in the SMILECHAT release format
    python -m benchmarks.bench_import --file smilechat.zip  a release of one's own

Runs `manage.py import_items` as a process of its own on a database of its own, as a person would: once with an item
for each counsellor turn, once with one item of each dialogue, and once more with the same file.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = "我你他的了在是不有这人个上们来到时大地为子中说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于心"
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="a SMILECHAT release: folder, .zip or .tar.xz")
    parser.add_argument("--dialogues", type=int, default=12_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or made_up(Path(folder) / "made-up.tar.xz", options.dialogues)
        what = "a release" if options.file else "made-up dialogues"
        env = os.environ | {"QINGTING_DATA_DIR": folder, "DJANGO_SETTINGS_MODULE": "config.settings.dev"}
        env.setdefault("DATABASE_URL", f"sqlite:///{folder}/bench.sqlite3")
        manage(env, "migrate", "-v0")
        print(f"| {what} | seconds | processor seconds | peak memory, MiB | said |\n| --- | --- | --- | --- | --- |")
        for name, slug, arguments in (
            ("an item for each counsellor turn", "turns", ["--name", "Turns"]),
            ("one item of each dialogue", "one", ["--name", "One", "--one-per-dialogue"]),
            ("the same file again", "one", ["--one-per-dialogue"]),
        ):
            seconds, cpu, peak, said = manage(env, "import_items", slug, str(path), *arguments)
            print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {said} |", flush=True)


def made_up(path: Path, n: int) -> Path:
    """An archive of n dialogues with lengths like those of the release: 11 turns of 81 characters in the mean."""
    rng = random.Random(SEED)
    with tarfile.open(path, "w:xz", preset=1) as archive:
        for number in range(n):
            turns = [
                {
                    "role": "client" if turn % 2 == 0 else "counselor",
                    "content": "".join(rng.choices(WORDS, k=max(2, int(rng.gammavariate(4, 20))))),
                    "annotation": [],
                }
                for turn in range(max(2, round(rng.gauss(11, 3))))
            ]
            content = json.dumps(turns, ensure_ascii=False).encode()
            entry = tarfile.TarInfo(f"data/{number}.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def manage(env: dict[str, str], *args: str) -> tuple[float, float, float, str]:
    """Seconds, processor seconds, peak memory in MiB, and the last line of what the command said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "manage.py", *args], cwd=ROOT, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = done.stdout.strip().splitlines()
    return seconds, cpu, after.ru_maxrss / 1024, lines[-1].partition(": ")[2] if lines else ""


if __name__ == "__main__":
    main()
