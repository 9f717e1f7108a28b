"""What the pages on runs read: state, numbers and curves from the run's folder, checkpoints, and what came of it.

The numbers come from files that a worker writes, so site and workers need one data folder. A run that has not begun, or
whose folder is gone, simply has none.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from django.db.models import Count, QuerySet
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from annotation.figures import charts
from annotation.figures.charts import Chart, Series, Words
from annotation.models import Response, System
from annotation.selectors.jobs import JobRow, duration, job_row
from jobs.logs import log_tail
from jobs.models import Job
from models_runtime.models import RuntimeVersion
from training.finetune.config import FinetuneConfig
from training.finetune.hardware import peak_tflops
from training.finetune.protocol import CHECKPOINTS, EVALUATIONS, MARKER, STEPS
from training.models import TrainingRun
from training.services.runs import ANSWERING, WRITING

GIB = 2**30
RUNS_SHOWN = 100
TAIL_BYTES = 4096  # holds some rows of steps.csv, however long the run
BUCKETS = 300  # of a curve; each keeps its first, lowest, highest and last point
DRAWN = frozenset(
    ["step", "loss", "learning_rate", "gradient_norm", "tokens_per_second", "labels_per_second", "padding_per_second"]
)
TABLES = {"steps": STEPS, "evaluations": EVALUATIONS}
State, Intent = Job.State, TrainingRun.Intent
Row = Mapping[str, str]

PARTS: Mapping[str, Any] = {
    "weights": gettext_lazy("Weights that are trained, and frozen ones"),
    "moments": gettext_lazy("Moments of the optimiser"),
    "gradients": gettext_lazy("Gradients"),
    "gathered": gettext_lazy("All weights in the run’s precision"),
    "exchange": gettext_lazy("Exchange between devices"),
    "activations": gettext_lazy("Activations"),
    "logits": gettext_lazy("Scores of the vocabulary"),
    "rest": gettext_lazy("Driver and gaps"),
}


@dataclass(frozen=True)
class Part:
    """Memory of one device for one purpose."""

    name: str
    gib: float


@dataclass(frozen=True)
class Number:
    """A number of the newest step, ready to be read."""

    name: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint."""

    step: int
    gib: float
    at: datetime


@dataclass(frozen=True)
class Curve:
    """A chart, and the table (of TABLES) that holds all its points."""

    title: str
    chart: Chart
    tables: Sequence[str]


@dataclass(frozen=True)
class RunPage:
    """One run with all that can be done with it."""

    run: TrainingRun
    config: FinetuneConfig
    job: JobRow | None
    state: str  # in words
    tone: str  # of the badge
    numbers: Sequence[Number]
    remaining: str
    checkpoints: Sequence[Saved]

    @property
    def is_alive(self) -> bool:
        """Something may change without anybody's doing."""
        return self.job is not None and not self.job.job.is_over

    @property
    def can_stop(self) -> bool:
        return self.is_alive and self.run.intent == Intent.GO

    @property
    def can_resume(self) -> bool:
        return not self.is_alive and self.run.system_id is None

    @property
    def failed_job(self) -> Job | None:
        """What its newest attempt failed of, if it did and nothing has happened since."""
        job = self.job.job if self.job else None
        return job if job and job.error_class and job.state in (State.FAILED, State.QUEUED) else None

    @property
    def log(self) -> str:
        return log_tail(self.failed_job.public_id) if self.failed_job else ""

    @property
    def scores(self) -> Mapping[str, Any]:
        """BLEU and ROUGE of the answers to held-out samples."""
        found: Mapping[str, Any] = self.run.card.get("held_out_answers", {}).get("scores", {})
        return found

    @property
    def other_device(self) -> str:
        """The kind of device that hours were estimated for, if another one was there."""
        stated, found = self.run.cost.get("hardware", {}).get("name", ""), self.run.facts.get("device", "")
        return stated if found and peak_tflops(stated) and stated not in found else ""

    @property
    def mfu_formula(self) -> str:
        """As hardware.MFU_FORMULA, in the reader's language."""
        return _("FLOPs the samples need / (seconds × devices × peak), without padding and recomputation")


def runs() -> QuerySet[TrainingRun]:
    """The newest first."""
    return TrainingRun.objects.select_related("corpus", "job", "system", "created_by")[:RUNS_SHOWN]


def run_page(run: TrainingRun) -> RunPage:
    state, tone = state_of(run)
    newest = newest_step(run.folder)
    return RunPage(
        run=run,
        config=FinetuneConfig.from_json(run.config),
        job=job_row(run.job) if run.job else None,
        state=state,
        tone=tone,
        numbers=numbers_of(newest, run.facts) if newest else (),
        remaining=_remaining(run, newest),
        checkpoints=saved(run.folder),
    )


def _remaining(run: TrainingRun, newest: Row | None) -> str:
    if run.job and run.job.message in (WRITING, ANSWERING):  # the steps are over
        return job_row(run.job).time_left
    return duration(float(newest["remaining_seconds"])) if newest else ""


def steps_of(run: TrainingRun) -> int | None:
    """How many steps it has taken, as its job says; None before the first."""
    steps: int | None = run.config.get("steps")
    if run.system_id or (run.job and run.job.message in (WRITING, ANSWERING)):
        return steps
    return run.job.n_done if run.job and run.job.n_total else None


def state_of(run: TrainingRun) -> tuple[str, str]:
    """The state of a run in words, and the tone of its badge."""
    job = run.job
    if job is None:
        return _("Waiting"), ""
    if job.is_over and run.system_id:  # also if a wish to stop came too late
        return str(State.DONE.label), "good"
    if not job.is_over and run.intent != Intent.GO:
        return _("Stopping"), "warn"
    if job.state == State.CANCELLED:
        return _("Stopped"), "warn"
    tones = {State.RUNNING: "accent", State.DONE: "good", State.FAILED: "bad"}
    return job.get_state_display(), tones.get(State(job.state), "")


def parts_of(memory: Mapping[str, float]) -> list[Part]:
    """The parts of an estimate in words, the largest first."""
    return [Part(str(PARTS.get(name, name)), n / GIB) for name, n in sorted(memory.items(), key=lambda part: -part[1])]


def newest_step(folder: Path) -> Row | None:
    """The last complete row of steps.csv; its end alone is read."""
    try:
        with (folder / STEPS).open("rb") as file:
            names = file.readline().decode().strip().split(",")
            start = file.tell()
            size = file.seek(0, 2)
            file.seek(max(start, size - TAIL_BYTES))
            lines = (
                file.read().decode(errors="replace").split("\n")[:-1]
            )  # what follows the last line break is not whole
    except OSError:
        return None
    rows = [line.split(",") for line in lines]
    whole = [row for row in rows if len(row) == len(names)]
    return dict(zip(names, whole[-1], strict=True)) if whole else None


def numbers_of(row: Row, facts: Mapping[str, Any]) -> list[Number]:
    """The newest step in words. A number that is not there has a dash; MFU says why it may be missing."""
    peak, device = facts.get("peak_tflops"), facts.get("device", "")
    if peak:
        mfu = _("%(mfu)s of %(peak)s TFLOP/s (%(device)s)") % {
            "mfu": _said(row["mfu"], ".1%"), "peak": f"{peak:g}", "device": device
        }  # fmt: skip
    else:
        mfu = _("unknown peak")
    return [
        Number(_("Step"), row["step"]),
        Number(_("Loss, nats per label token"), _said(row["loss"], ".4f")),
        Number(_("Learning rate applied"), _said(row["learning_rate"], ".3g")),
        Number(_("Gradient norm, before clipping"), _said(row["gradient_norm"], ".3g")),
        Number(_("Loss scale"), _said(row["loss_scale"], "g")),
        Number(_("Steps skipped"), row["n_skipped"]),
        Number(_("Samples per second"), _said(row["samples_per_second"], ".3g")),
        Number(_("Tokens per second"), _said(row["tokens_per_second"], ",.0f")),
        Number(_("Of these with a label"), _said(row["labels_per_second"], ",.0f")),
        Number(_("Padding per second"), _said(row["padding_per_second"], ",.0f")),
        Number(_("MFU"), mfu),
        Number(_("Peak memory"), f"{float(row['peak_memory_bytes']) / GIB:.2f} GiB"),
    ]


def _said(text: str, form: str) -> str:
    return format(float(text), form) if text else "–"


def saved(folder: Path) -> list[Saved]:
    """The complete checkpoints, newest first."""
    found = []
    for marker in folder.glob(f"{CHECKPOINTS}/step-*/{MARKER}"):
        try:
            held = json.loads(marker.read_text(encoding="utf-8"))
            size = sum(file["bytes"] for file in held["files"].values())
            found.append(Saved(held["step"], size / GIB, datetime.fromtimestamp(marker.stat().st_mtime, UTC)))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is going, or is none of ours
    return sorted(found, key=lambda one: -one.step)


def curves(folder: Path) -> list[Curve]:
    """Loss, learning rate, throughput and gradient norm over steps, with every peak and few of the other points."""
    steps = _columns(folder / STEPS)
    held_out = _columns(folder / EVALUATIONS)
    if steps.empty:
        return []
    x, language, words = _("Step"), get_language() or "en", Words(empty=_("Nothing to draw yet."))

    def curve(title: str, y: str, series: Sequence[Series], *tables: str) -> Curve:
        drawn = [one for one in series if one.points]
        chart = charts.lines(drawn, title=title, x=x, y=y, is_x_whole=True, lang=language, words=words)
        return Curve(title, chart, tables)

    def line(name: str, column: str) -> Series:
        return _series(name, steps, column)

    return [
        curve(
            _("Loss"),
            _("nats per label token"),
            [line(_("training"), "loss"), _series(_("held out"), held_out, "loss")],
            "steps",
            "evaluations",
        ),
        curve(_("Learning rate"), _("as applied"), [line(_("Learning rate"), "learning_rate")], "steps"),
        curve(
            _("Throughput"),
            _("tokens per second"),
            [
                line(_("of samples"), "tokens_per_second"),
                line(_("with a label"), "labels_per_second"),
                line(_("padding"), "padding_per_second"),
            ],
            "steps",
        ),
        curve(_("Gradient norm"), _("before clipping"), [line(_("Gradient norm"), "gradient_norm")], "steps"),
    ]


def _columns(path: Path) -> pd.DataFrame:
    """The complete rows of a table of numbers that are drawn, by step; empty if there is none yet."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return pd.DataFrame()
    whole = text[: text.rfind("\n") + 1]
    return pd.read_csv(io.StringIO(whole), usecols=DRAWN.__contains__, index_col="step") if whole else pd.DataFrame()


def _series(name: str, table: pd.DataFrame, column: str) -> Series:
    """First, lowest, highest and last point of each of so many stretches of steps."""
    values = table[column].dropna() if column in table else pd.Series(dtype=float)
    if values.empty:
        return Series(name, ())
    stretches = values.groupby(values.index // (values.index[-1] // BUCKETS + 1))
    kept = pd.Index(stretches.idxmin()).union(stretches.idxmax())
    kept = kept.union(stretches.head(1).index).union(stretches.tail(1).index)
    return Series(name, tuple(zip(map(float, kept), map(float, values.loc[kept]), strict=True)))


# --- From a rating back to the corpus ---


@dataclass(frozen=True)
class Link:
    """A version of a system, how many responses it wrote, and whether its weights are those of the run."""

    version: RuntimeVersion
    n_responses: int
    is_of_run: bool


@dataclass(frozen=True)
class Lineage:
    """What stands behind a system's responses."""

    run: TrainingRun
    links: Sequence[Link]

    @property
    def digest(self) -> str:
        """Of the weights that came out."""
        return str(self.run.card.get("adapter_digest") or self.run.card.get("weights_digest", ""))

    @property
    def sources(self) -> Sequence[Mapping[str, Any]]:
        """The corpus's files, as they were when the run read it."""
        found: Sequence[Mapping[str, Any]] = self.run.corpus.card.get("sources", ())
        return found


def lineage_of(system: System) -> Lineage | None:
    """Version ► weights ► run ► corpus ► files; None for a system that was not trained here."""
    run = TrainingRun.objects.select_related("corpus").filter(system=system).first()
    if run is None:
        return None
    rows: Any = (
        Response.objects.filter(system=system).order_by().values_list("provenance__spec_digest").annotate(n=Count("pk"))
    )
    counts, names = dict(rows), ("weights_digest", "adapter_digest")
    links = [
        Link(version, counts.get(version.digest, 0), all(version.spec.get(n) == run.card.get(n) for n in names))
        for version in RuntimeVersion.objects.filter(system=system).order_by("-number")
    ]
    return Lineage(run, links)
