"""What the answering process and whoever starts it both know: the job file, the items file, the exit codes.

Without torch, so that a web process or a Celery worker can read and write it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

from models_runtime.engine.prompts import BadTemplate, Template, Turn
from models_runtime.engine.spec import BadSpec, DecodingConfig, DType

DONE, STOPPED, BAD_JOB, BAD_MODEL, OUT_OF_MEMORY, NO_DEVICE, BUG, NOBODY_READS = 0, 3, 65, 66, 67, 68, 70, 74


class Work(NamedTuple):
    """One response to be made."""

    item: str
    repeat: int
    turns: tuple[Turn, ...]


class BadJob(Exception):
    """The job file or its items cannot be used; the message names file and line."""


@dataclass(frozen=True)
class WorkerJob:
    """What a job file says.

    items: a JSONL file of {"item", "repeat", "turns": [{"role", "text"}]}.  template: None takes that of the family.
    batch_rows, batch_tokens: None lets the device decide.  expected_spec: digest; another system is refused.
    """

    weights: Path
    items: Path
    decoding: DecodingConfig
    seed: int
    template: Template | None = None
    adapter: Path | None = None
    dtype: DType = "float32"
    device: str = "cpu"
    batch_rows: int | None = None
    batch_tokens: int | None = None
    expected_spec: str | None = None
    digest_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(DType):
            raise BadJob(f"dtype is {self.dtype!r}; it can be {', '.join(get_args(DType))}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise BadJob(f"seed is {self.seed!r}; it must be a whole number")
        for name in ("batch_rows", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise BadJob(f"{name} is {value!r}; it must be a whole number of at least 1")

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises BadJob."""
        try:
            known = {field.name for field in dataclasses.fields(cls)}
            if unknown := sorted(set(data) - known):
                raise BadJob(f"a job has no {', '.join(unknown)}")
            paths = {
                name: Path(data[name]) for name in ("weights", "items", "adapter", "digest_cache") if data.get(name)
            }
            template = None if data.get("template") is None else Template.from_json(data["template"])
            decoding = DecodingConfig.from_json(data["decoding"])
            return cls(**{**data, **paths, "template": template, "decoding": decoding})
        except (TypeError, KeyError, BadSpec, BadTemplate) as error:
            raise BadJob(f"the job file cannot be used: {error}") from error


def write_work(path: Path, work: Iterable[Work]) -> None:
    """The items file of these pieces of work."""
    with path.open("w", encoding="utf-8") as file:
        for one in work:
            row = {"item": one.item, "repeat": one.repeat, "turns": [turn._asdict() for turn in one.turns]}
            file.write(json.dumps(row) + "\n")  # escaped: a turn that is no text fails alone, and not the file


def read_work(path: Path) -> list[Work]:
    """The pieces of work of an items file. Raises BadJob with the line that is wrong."""
    work = []
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # text may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise BadJob(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            turns = tuple(Turn(turn["role"], str(turn["text"])) for turn in row["turns"])
            work.append(Work(str(row["item"]), int(row["repeat"]), turns))
            work[-1].item.encode()
        except (ValueError, TypeError, KeyError) as error:
            raise BadJob(f"{path}, line {number}: expected item, repeat and turns ({error!r})") from error
    if len({one[:2] for one in work}) < len(work):
        raise BadJob(f"{path}: the same item and repeat is there twice")
    return work


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.to_json() if hasattr(value, "to_json") else value
