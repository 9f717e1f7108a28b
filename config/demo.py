"""make demo: a fresh data folder, the demonstration study, site and worker on loopback, three one-time links.

With --full (make demo DEMO=full) a toy is trained meanwhile on the demonstration's dialogues, and answers them.
Ctrl-C stops everything and removes the folder (--keep leaves it).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60


def main() -> int:
    options = _options()
    if not _is_free(options.port):
        print(f"Port {options.port} is taken. Choose another one: make demo PORT=8010")
        return 1
    folder = Path(options.data or tempfile.mkdtemp(prefix="qingting-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{options.port}"
    env = os.environ | {
        "QINGTING_DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'qingting.sqlite3'}",
        "CELERY_BROKER_URL": "filesystem://",
        "MODEL_DIRS": str(folder / "models"),
        "DJANGO_SETTINGS_MODULE": "config.settings.dev",
        "QINGTING_DEMO": "1",
        "PUBLIC_URL": url,
        "LOG_LEVEL": "WARNING",
    }
    children: list[subprocess.Popen[bytes]] = []
    background: list[subprocess.Popen[bytes]] = []
    # A request to stop arrives as an exception, so that the block below always runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print("Preparing the demonstration …", flush=True)
        _manage(env, "migrate", "--verbosity", "0")
        _manage(env, "collectstatic", "--noinput", "--verbosity", "0")
        links = _manage(env, "load_demo")
        log = (folder / "demo.log").open("wb")
        children += [_start(command, env, log) for command in (_site(options.port), WORKER)]
        _wait_until_ready(url, children[0], folder)
        # While the visitor looks around, a toy model answers the dialogues, as a real one would.
        background = [_start(["manage", "load_trained_toy" if options.full else "load_toy"], env, log)]
        print(f"\n  Qingting is ready at {url}\n")
        for line in links.splitlines():
            print(f"  {line}")
        print("\n  Each link works once. Everything in here was written for the demonstration.")
        print(f"  Data and log: {folder}\n  Ctrl-C stops it.\n", flush=True)
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        print(f"A part of the demonstration stopped; see {folder / 'demo.log'}.")
        options.keep = True
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _stop([*background, *children])
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", help="use this empty folder instead of a temporary one")
    parser.add_argument("--full", action="store_true", help="also train a toy, for about a minute")
    parser.add_argument("--keep", action="store_true", help="leave the data folder when it stops")
    return parser.parse_args()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _manage(env: dict[str, str], *args: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *args], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        sys.exit(f"manage.py {args[0]} failed.")
    return done.stdout


def _site(port: int) -> list[str]:
    # Loopback only: the demonstration is not made for visitors from elsewhere.
    return [
        *("gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}", "--workers", "3", "--threads", "2"),
        *("--worker-class", "gthread", "--no-control-socket"),
    ]


WORKER = ["celery", "--app", "config", "worker", "--beat", "--concurrency", "2", "--loglevel", "WARNING"]


def _start(command: list[str], env: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
    )


def _wait_until_ready(url: str, site: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and site.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"The site did not start:\n{(folder / 'demo.log').read_text()[-3000:]}")


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
    for child in children:
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
