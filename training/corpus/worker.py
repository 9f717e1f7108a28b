"""The child process that prepares a corpus for a job:  python -m training.corpus.worker JOB.json

It alone loads torch, which comes with the tokenizers. It speaks the protocol of jobs.supervisor: progress, the places
of a file that is refused ("problems"), and last words. SIGTERM ends it between two dialogues, and nothing stays.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.formats.source import Source
from models_runtime.engine.errors import EngineError
from models_runtime.engine.prompts import BadTemplate, Template
from training.corpus.cleaning import Review, Rules, read_review
from training.corpus.encoding import Encoder
from training.corpus.errors import CorpusError, DiskFull, FolderTaken, SourceRefused
from training.corpus.prepare import Plan, prepare
from training.corpus.samples import Limits, usual_cut

DONE, STOPPED, REFUSED, BUG = 0, 3, 65, 70
SECONDS_BETWEEN_PROGRESS = 0.5

Emit = Callable[[dict[str, Any]], None]


class Stopped(Exception):
    """SIGTERM came."""


@dataclass
class _Progress:
    """Tells how far it is about twice a second, and looks for a wish to stop at every dialogue."""

    emit: Emit
    is_stopping: Callable[[], bool]
    stages: tuple[str, str]
    told_at: float = 0.0

    def __call__(self, n_dialogues: int, n_samples: int) -> None:
        if self.is_stopping():
            raise Stopped
        if time.monotonic() - self.told_at > SECONDS_BETWEEN_PROGRESS:
            self.told_at = time.monotonic()
            self.emit({"type": "progress", "n_done": n_dialogues, "message": self.stages[n_samples > 0]})


def run(job: dict[str, Any], emit: Emit, is_stopping: Callable[[], bool]) -> None:
    """Prepare what the job says. Raises CorpusError, EngineError, BadTemplate or Stopped.

    job: folder, weights, sources [[path, name]], template or null, limits (cut null: as usual for the family),
        test_share, seed, max_broken, rules or null, held_out and review (files, or null), stages (for a page: looking
        for near duplicates, and reading).
    """
    template = None if job["template"] is None else Template.from_json(job["template"])
    encoder = Encoder.load(Path(job["weights"]), template)
    limits = {**job["limits"], "cut": job["limits"]["cut"] or usual_cut(encoder.family)}
    plan = Plan(
        limits=Limits(**limits),
        test_share=job["test_share"],
        seed=job["seed"],
        max_broken=job["max_broken"],
        held_out=frozenset() if job["held_out"] is None else read_hashes(Path(job["held_out"])),
        rules=None if job["rules"] is None else Rules.from_json(job["rules"]),
        review=Review() if job["review"] is None else read_review(Path(job["review"])),
    )
    sources = [Source(Path(path), name) for path, name in job["sources"]]
    on_progress = _Progress(emit, is_stopping, tuple(job["stages"]))
    prepare(sources, Path(job["folder"]), encoder=encoder, plan=plan, on_progress=on_progress)


def read_hashes(path: Path) -> frozenset[bytes]:
    """The hashes of a file, one per line in hex."""
    return frozenset(bytes.fromhex(line) for line in path.read_text(encoding="ascii").split())


def main(argv: Sequence[str]) -> int:
    """The process: signals, the protocol's own channel, and an exit code."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # print() and C libraries now write to the log
    is_stopping = False

    def stop(number: int, frame: Any) -> None:
        nonlocal is_stopping
        is_stopping = True

    signal.signal(signal.SIGTERM, stop)

    def emit(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message, ensure_ascii=False) + "\n")
        channel.flush()

    def fail(error: Exception, *, is_final: bool) -> None:
        name = type(error).__name__
        emit({"type": "failed", "error_class": name, "error": str(error) or repr(error), "is_final": is_final})

    try:
        run(json.loads(Path(argv[0]).read_text(encoding="utf-8")), emit, lambda: is_stopping)
    except Stopped:
        return STOPPED
    except SourceRefused as error:
        emit({"type": "problems", "problems": [problem.to_json() for problem in error.problems]})
        fail(error, is_final=True)
        return REFUSED
    except (CorpusError, EngineError, BadTemplate) as error:
        # Whoever holds the folder, or the disk, may let go of it.
        fail(error, is_final=not isinstance(error, (DiskFull, FolderTaken)))
        return REFUSED
    except Exception as error:  # the boundary of the process
        fail(error, is_final=False)
        traceback.print_exc()
        return BUG
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
