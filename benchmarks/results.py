"""Results as files: benchmarks/results/<name>.json, and <name>.md made from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

FOLDER = Path(__file__).resolve().parent / "results"


def today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass
class Table:
    """A Markdown table under its title."""

    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)

    def add(self, row: list[Any]) -> None:
        self.rows.append(row)

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", _row(self.columns), "|" + " --- |" * len(self.columns)]
        return "\n".join([*lines, *(_row(row) for row in self.rows)])


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def load_results(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def save_results(name: str, results: dict[str, Any], *, title: str, body: str, command: str) -> None:
    """Write both files; the head of the page says on what, when and how it was measured."""
    FOLDER.mkdir(exist_ok=True)
    results |= {"machine": describe_machine(), "date": today(), "command": command}
    text = json.dumps(results, indent=1, ensure_ascii=False, sort_keys=True)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    facts = " · ".join(f"{key} {value}" for key, value in results["machine"].items())
    head = f"# {title}\n\n{results['date']} · `{command}`\n\n{facts}\n"
    (FOLDER / f"{name}.md").write_text(f"{head}\n{body}", encoding="utf-8")
