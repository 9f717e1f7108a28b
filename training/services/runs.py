"""foresee, launch_run, stop_run, resume_run, train_run: a corpus and a base model become a system.

The folder of a run is its memory: whatever ended, the next job goes on from the newest checkpoint in it. So a run has
one job after the other, and a system only once.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from django.conf import settings as site
from django.db import IntegrityError, transaction
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.errors import DomainError
from annotation.models import System, User
from annotation.services.audit import record
from annotation.services.systems import register_system
from jobs import ledger
from jobs.explanations import explain
from jobs.models import Job
from jobs.queues import DEFAULT, gpu_queue
from jobs.registry import RunningJob
from jobs.supervisor import Message, run_child
from models_runtime.engine.prompts import Template
from models_runtime.engine.spec import PRESETS, DType
from models_runtime.runtimes import LocalSettings
from models_runtime.services.runtimes import folder_of, look_into, set_runtime
from training import launching
from training.corpus.errors import CorpusError
from training.explanations import EXPLANATIONS
from training.finetune.config import FinetuneConfig, Precision
from training.finetune.errors import DiskTooFull, FinetuneError
from training.finetune.estimate import Cost, Hardware
from training.finetune.protocol import CARD, EXPORT, Device, FinetuneJob
from training.launching import GIB, check_made_for, cost_of, free_bytes, hardware_for
from training.leaks import Leak, leaked_items
from training.models import Corpus, TrainingRun

TRAIN = "training.run"
MAX_ATTEMPTS = 5  # of a job: a run of days may meet more than one accident
GRACE_SECONDS = 15 * 60.0  # between asking the child to stop and killing it: a step, and a checkpoint on a slow disk
SILENT_SECONDS = 2 * 3600.0  # loading, a long step and writing the weights say little
LEAKS_KEPT = 50
DTYPES: Mapping[Precision, DType] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
LOADING, STEPPING = gettext_noop("Loading the base model"), gettext_noop("Training")
WRITING, ANSWERING = gettext_noop("Writing the weights"), gettext_noop("Answering held-out samples")
Intent = TrainingRun.Intent


class RunRefused(DomainError):
    """A run cannot be launched or changed like this. `detail["field"]` may say which answer is at fault."""

    code = "run_refused"


@dataclass(frozen=True)
class Launch:
    """What a person wants.

    base: folder of the model to start from; "" = the one that the corpus was prepared for.
    gpu, memory_gib: name and memory of one device as the person states them: this process cannot look.
    system_name: of what comes out; "" = that of the run.  decoding: name of its preset.
    """

    name: str
    corpus: Corpus
    config: FinetuneConfig
    base: str = ""
    device: Device = "cpu"
    processes: int = 1
    gpu: str = ""
    memory_gib: float | None = None
    queue: str = ""
    system_name: str = ""
    decoding: str = "soulchat-paper"
    public_id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass(frozen=True)
class Foresight:
    """What a launch will take. leaks: items of datasets here that it would learn from."""

    base: Path
    content_hash: str
    n_samples: int
    n_held_out: int
    cost: Cost
    free_bytes: int
    leaks: list[Leak]


def foresee(launch: Launch) -> Foresight:
    """What the run will take. Raises RunRefused, or FolderRefused, for what cannot be started."""
    base = folder_of(launch.base or launch.corpus.weights)
    if advice := look_into(base):
        raise RunRefused(advice, field="base")
    job = _job(launch.public_id, launch.corpus, base, launch.config, launch.device, launch.processes)
    try:
        corpus = launching.Corpus.read(launch.corpus.folder)
        if corpus.train.content_hash != launch.corpus.content_hash:
            raise RunRefused(explain("StoreBroken", EXPLANATIONS), field="corpus")
        check_made_for(corpus, base)
        hardware = _hardware(launch, job)
        cost = cost_of(job, corpus, hardware)
        launching.refuse_what_cannot_fit(job, corpus, hardware)
        leaks = leaked_items(corpus.folder)
    except (FinetuneError, CorpusError) as error:
        raise _refused(error) from error
    free = free_bytes(job.folder)
    if cost.disk_bytes > free:
        raise _refused(
            DiskTooFull(
                f"checkpoints and weights need about {cost.disk_bytes / GIB:.1f} GiB and {free / GIB:.1f} GiB are free "
                "beside the run's folder; make room, or lower keep_checkpoints"
            )
        )
    n_held_out = corpus.card["test"]["n_samples"] if corpus.held_out else 0
    return Foresight(base, corpus.train.content_hash, len(corpus.train), n_held_out, cost, free, leaks)


def launch_run(launch: Launch, seen: Foresight, *, accepts_leaks: bool = False, by: User | None) -> TrainingRun:
    """A run with its first job. Launched a second time, it is the one that is there.

    The caller sends the hint. Raises RunRefused if a name is taken, or if it would learn what systems are judged by
    and nobody said that it may.
    """
    with transaction.atomic():
        if found := TrainingRun.objects.filter(public_id=launch.public_id).first():
            return found
        if not Corpus.objects.select_for_update().filter(pk=launch.corpus.pk).exists():
            raise RunRefused(_("The corpus was removed meanwhile."), field="corpus")
        if seen.leaks and not accepts_leaks:
            raise RunRefused(_("The corpus learns from items of datasets here. Say that it may, or prepare another."))
        if TrainingRun.objects.filter(name=launch.name).exists():
            raise RunRefused(_("There is a run of this name already."), field="name")
        if System.objects.filter(name=launch.system_name or launch.name).exists():
            raise RunRefused(_("There is a system of this name already."), field="system_name")
        try:
            run, is_new = TrainingRun.objects.get_or_create(
                public_id=launch.public_id,
                defaults={
                    "name": launch.name,
                    "corpus": launch.corpus,
                    "content_hash": seen.content_hash,
                    "base": str(seen.base),
                    "config": launch.config.to_json(),
                    "device": launch.device,
                    "processes": launch.processes,
                    "queue": launch.queue,
                    "cost": asdict(seen.cost),
                    "leaks": seen.leaks[:LEAKS_KEPT],
                    "system_name": launch.system_name,
                    "decoding": launch.decoding,
                    "created_by": by,
                },
            )
        except IntegrityError as error:  # another run took the name since we looked
            raise RunRefused(_("There is a run of this name already."), field="name") from error
        if is_new:
            _enqueue(run, by=by)
            record("run.launched", by=by, run=str(run.public_id), corpus=seen.content_hash, leaks=len(seen.leaks))
        return run


@transaction.atomic
def stop_run(*, run: TrainingRun, by: User | None) -> Job | None:
    """Let the run end after the step under way, with a checkpoint; the job that was asked to, if one was alive.

    Raises RunRefused if there is nothing to stop.
    """
    run = TrainingRun.objects.select_for_update(of=("self",)).select_related("job").get(pk=run.pk)
    if run.job is None or run.job.is_over:
        raise RunRefused(_("The run does not train now: there is nothing to stop."))
    TrainingRun.objects.filter(pk=run.pk).update(intent=Intent.STOP)
    ledger.request_cancel(run.job.pk)
    record("run.stopped", by=by, run=str(run.public_id))
    return run.job


@transaction.atomic
def resume_run(*, run: TrainingRun, by: User | None) -> TrainingRun:
    """Go on from the newest checkpoint, with a job of its own; the caller sends the hint.

    Raises RunRefused if it trains or has finished, or if corpus or base are no longer what it began with.
    """
    run = TrainingRun.objects.select_for_update(of=("self",)).select_related("job", "corpus").get(pk=run.pk)
    if run.system_id:
        raise RunRefused(_("The run has finished: its weights are there."))
    if run.job is not None and not run.job.is_over:
        raise RunRefused(_("The run trains already, or is about to stop. Wait for it."))
    try:
        corpus = launching.Corpus.read(run.corpus.folder)
        if corpus.train.content_hash != run.content_hash:
            raise RunRefused(explain("RunChanged", EXPLANATIONS))
        check_made_for(corpus, Path(run.base))
    except (FinetuneError, CorpusError, OSError) as error:
        raise _refused(error) from error
    run.intent = Intent.GO
    _enqueue(run, by=by)
    record("run.resumed", by=by, run=str(run.public_id))
    return run


def _enqueue(run: TrainingRun, *, by: User | None) -> None:
    queue = run.queue or (DEFAULT if run.device == "cpu" else gpu_queue())
    params = {"run_id": run.pk, "run": str(run.public_id), "about": run.name}
    run.job = ledger.enqueue(
        kind=TRAIN, params=params, by_id=by.pk if by else None, queue=queue, max_attempts=MAX_ATTEMPTS
    )
    run.save(update_fields=["job", "intent"])


def _refused(error: Exception) -> RunRefused:
    """The sentence in the reader's language, and what the error itself says."""
    name = getattr(error, "error_class", "") or type(error).__name__
    return RunRefused(f"{explain(name, EXPLANATIONS)} {error}", error_class=name)


def _hardware(launch: Launch, job: FinetuneJob) -> Hardware:
    if launch.device == "cpu":
        return hardware_for(job, launch.memory_gib)
    if not launch.memory_gib:
        raise RunRefused(_("Say how much memory one GPU has."), field="memory_gib")
    if launch.processes > 1 and site.GPU_QUEUES and not launch.queue:
        raise RunRefused(_("Choose the queue of a worker that sees all these GPUs."), field="queue")
    return Hardware(launch.gpu or "GPU", launch.memory_gib * GIB, launch.processes)


def _job(
    public_id: uuid.UUID, corpus: Corpus, base: Path, config: FinetuneConfig, device: Device, processes: int
) -> FinetuneJob:
    return FinetuneJob(
        folder=Path(site.RUN_DIR) / str(public_id),
        base=base,
        corpus=corpus.folder / "train",
        config=config,
        device=device,
        processes=processes,
        digest_cache=Path(site.WEIGHTS_DIGESTS),
    )


# --- In the worker ---


def train_run(running: RunningJob, run: TrainingRun) -> TrainingRun:
    """Train in a child process, from the newest checkpoint on, and register what comes out.

    Raises ChildFailed by class, CancelRequested once the child has stopped with a checkpoint, LostLease.
    """
    if run.system_id:  # a worker died between registering it and saying so
        return run
    config = FinetuneConfig.from_json(run.config)
    held_out = launching.Corpus.read(run.corpus.folder).held_out
    job = replace(
        _job(run.public_id, run.corpus, Path(run.base), config, run.device, run.processes),  # type: ignore[arg-type]
        held_out=held_out,
        needed_bytes=sum(run.cost.get("memory", {}).values()) or None,
    )
    facts: dict[str, Any] = {}

    def hear(message: Message) -> None:
        kind = message["type"]
        if kind in ("hardware", "ready"):
            facts.update(message)
            TrainingRun.objects.filter(pk=run.pk).update(facts=facts)
        if kind == "ready":
            running.heartbeat(message=STEPPING)
        elif kind == "checkpoint" and message["step"] == config.steps:
            running.heartbeat(message=WRITING)
        elif kind == "answering":
            running.heartbeat(n_done=message["n_done"], n_total=message["n_total"], message=ANSWERING)
        elif kind == "done":
            card = json.loads((run.folder / EXPORT / CARD).read_text(encoding="utf-8"))
            with transaction.atomic():
                running.hold()
                register_run(run, card)
            running.heartbeat(n_done=config.steps, n_total=config.steps)  # after it: a wish to stop is told here

    run.folder.mkdir(parents=True, exist_ok=True)
    job_file = run.folder / "job.json"
    job_file.write_text(json.dumps(job.to_json(), ensure_ascii=False), encoding="utf-8")
    running.heartbeat(message=LOADING)
    argv = [sys.executable, "-m", "training.finetune.worker", str(job_file)]
    run_child(running, argv, on_message=hear, grace_seconds=GRACE_SECONDS, silent_seconds=SILENT_SECONDS)
    return TrainingRun.objects.select_related("system").get(pk=run.pk)


@transaction.atomic
def register_run(run: TrainingRun, card: Mapping[str, Any]) -> System:
    """The system that answers with the run's weights; however often this is called, there is one."""
    run = TrainingRun.objects.select_for_update(of=("self",)).select_related("corpus", "created_by").get(pk=run.pk)
    if run.system is not None:
        return run.system
    config = FinetuneConfig.from_json(run.config)
    name = run.system_name or run.name
    if System.objects.filter(name=name).exists():  # since the launch; days of training are not thrown away for that
        name = f"{name[:100]} ({run.public_id.hex[:8]})"
    slug = slugify(name)[:50] or "run"
    if System.objects.filter(slug=slug).exists() or slug == "run":
        slug = f"{slug}-{run.public_id.hex[:8]}"
    about = _("Trained here: run %(run)s, corpus %(corpus)s.") % {"run": run.name, "corpus": run.corpus}
    system = register_system(slug=slug, name=name[:120], description=about, is_demo=site.IS_DEMO, by=run.created_by)
    exported, is_adapter = f"{run.public_id}/{EXPORT}", config.method == "lora"  # below RUN_DIR, wherever that is
    decoding = replace(
        PRESETS[run.decoding].decoding,
        max_input_tokens=config.max_context_tokens,
        max_new_tokens=config.max_target_tokens,
    )
    settings = LocalSettings(
        weights=run.base if is_adapter else exported,
        adapter=exported if is_adapter else "",
        family=str(card["family"]),
        template=Template.from_json(run.corpus.card["template"]),
        decoding=decoding,
        dtype=DTYPES[config.precision],
        device=run.device,
    )
    set_runtime(system=system, settings=settings, by=run.created_by)
    TrainingRun.objects.filter(pk=run.pk).update(card=card, system=system)
    record("run.finished", by=run.created_by, run=str(run.public_id), system=system.pk, corpus=run.content_hash)
    return system
