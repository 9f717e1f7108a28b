"""What was measured on: processor, memory, kernel and versions. Never a host name, a path or a person."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("django", "djangorestframework", "gunicorn", "psycopg")


def describe_machine() -> dict[str, str]:
    """Facts by name, fit to be printed beside a result."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = {
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def busy_seconds() -> float:
    """Processor seconds that all processes of the machine have used since it started, waits and idling left out."""
    fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, soft_irq, steal = fields
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")


_YARDSTICK = """
import time
start, x = time.process_time(), 0
for i in range(3_000_000): x += i * i % 7
print((time.process_time() - start) * 1000)
"""


def yardstick_ms() -> float:
    """Processor ms that a fixed loop takes while every core runs it: how fast the machine is just now.

    Virtual cores share real ones with strangers, and their speed changes by half from one minute to the next.
    """
    loops = [
        subprocess.Popen([sys.executable, "-c", _YARDSTICK], stdout=subprocess.PIPE, text=True)
        for _core in range(os.cpu_count() or 1)
    ]
    return sum(float(loop.communicate()[0]) for loop in loops) / len(loops)
