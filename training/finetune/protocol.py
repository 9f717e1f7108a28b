"""What the training process and whoever starts it both know: the job file and the exit codes. No torch in here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig

# Beside those of the FinetuneErrors. All mean here what they mean of the process that answers, and so does 74.
DONE, STOPPED, OUT_OF_MEMORY, NO_DEVICE, BUG = 0, 3, 67, 68, 70

# In the folder of a run.
STEPS, EVALUATIONS = "steps.csv", "evaluations.csv"
CHECKPOINTS, MARKER = "checkpoints", "complete.json"  # a checkpoint with a marker is complete
EXPORT, CARD = "export", "card.json"  # what came out, and what it is
STOP_FILE = "stop"  # what asks all processes of a run to stop at the next step
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class FinetuneJob:
    """What a job file says.

    folder: of the run; a run is continued by the same job once more.
    base: a model's folder.  corpus, held_out: prepared stores; without held_out nothing is evaluated.
    processes: 1, or as many as there are devices to train on; then torchrun starts them.
    threads: of each process on a CPU; None leaves it to torch.
    needed_bytes: of one device, by an estimate for hardware that somebody stated; None where the devices were asked.
    """

    folder: Path
    base: Path
    corpus: Path
    config: FinetuneConfig
    held_out: Path | None = None
    device: Device = "cpu"
    processes: int = 1
    threads: int | None = None
    digest_cache: Path | None = None
    needed_bytes: float | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise BadConfig(f"device is {self.device!r}; it can be cpu or cuda")
        for name in ("processes", "threads"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise BadConfig(f"{name} is {value!r}; it must be a whole number of at least 1")

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        return {**plain, "config": self.config.to_json()}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises BadConfig."""
        if not isinstance(data, dict):
            raise BadConfig("a job file holds one JSON object")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise BadConfig(f"a training job has no {', '.join(unknown)}")
        if missing := sorted({"folder", "base", "corpus", "config"} - set(data)):
            raise BadConfig(f"a training job needs {', '.join(missing)}")
        names = ("folder", "base", "corpus", "held_out", "digest_cache")
        paths = {name: Path(data[name]) for name in names if data.get(name)}
        return cls(**{**data, **paths, "config": FinetuneConfig.from_json(data["config"])})
