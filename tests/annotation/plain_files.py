"""Small files of pairs and ratings, and a way to run a command on them. Nobody said any of this."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from django.core.management import call_command

from tests.architecture.messages import ROOT

REFERENCES = ("听起来你最近压力很大。", "愿意多说一点吗？", "我在这里，慢慢说。", "睡不好有多久了？")
RESPONSES = {
    "calm": ("听起来你最近很累，压力很大。", "愿意说说吗？", "我在这里。", "睡不好已经多久了呢？"),
    "plain": ("加油。", "多说一点。", "慢慢说，我在听。", "早点睡。"),
}


class Said(NamedTuple):
    out: str
    err: str


def run(name: str, *arguments: object) -> Said:
    """What the command prints, in English. No test that uses this has a database: a query would fail."""
    out, err = io.StringIO(), io.StringIO()
    call_command(name, *map(str, arguments), "--language", "en", stdout=out, stderr=err)
    return Said(out.getvalue(), err.getvalue())


def run_elsewhere(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, with a database that nobody answers at."""
    environment = {
        **os.environ,
        "DATABASE_URL": "postgres://nobody:none@127.0.0.1:1/none",
        "QINGTING_DATA_DIR": str(folder / "data"),
        "DJANGO_SETTINGS_MODULE": "config.settings.dev",
    }
    command = [sys.executable, str(ROOT / "manage.py"), name, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def pair_rows(systems: tuple[str, ...] = ("calm", "plain")) -> list[dict[str, Any]]:
    """One row per system and item."""
    return [
        {"item": f"i{n}", "system": system, "dialogue": f"d{n // 2}", "topic": "work" if n < 2 else "sleep",
         "hypothesis": RESPONSES[system][n], "reference": reference}
        for system in systems
        for n, reference in enumerate(REFERENCES)
    ]  # fmt: skip


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A CSV file from lines, the indentation of the source taken off."""
    path.write_bytes("\n".join(line.strip() for line in text.strip().splitlines()).encode(encoding))
    return path


def examples(text: str, name: str) -> list[list[str]]:
    """The arguments of every example in a command's help."""
    return [shlex.split(line) for line in re.findall(rf"^  manage\.py {name} (.*)$", text, re.MULTILINE)]
