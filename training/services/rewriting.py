"""launch_rewriting, resume_rewriting, rewrite_dialogues: questions become dialogues, each text asked for once.

The file of attempts is the ledger of texts (training.corpus.rewriting_run): a line is on the disk before the next
question is asked, and whoever goes on asks only about what is missing. Money is in the database, as for batches.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError, NotReady
from annotation.formats.source import Source
from annotation.models import System, User
from annotation.services.audit import record
from annotation.services.uploads import upload_path
from jobs import ledger
from jobs.errors import JobRefused
from jobs.registry import RunningJob
from jobs.supervisor import Message
from models_runtime.endpoints.batch import Stopped
from models_runtime.endpoints.errors import EndpointError
from models_runtime.endpoints.limiter import Limiter
from models_runtime.engine.prompts import TEMPLATES, Template, Turn
from models_runtime.engine.protocol import Work
from models_runtime.models import Runtime
from models_runtime.runtimes import BadSettings, EndpointSettings, LocalSettings, Settings
from models_runtime.services.batches import queue_of
from models_runtime.services.local import check_family, job_of, run_worker
from models_runtime.services.remote import Connect, Heart, budget_of, connect, permission, refusal
from models_runtime.services.spending import DatabaseLedger, DatabaseThread
from training.corpus import rewriting_run
from training.corpus.errors import CorpusError, DiskFull, FolderTaken, SourceRefused
from training.corpus.rewriting import Checks, Style
from training.corpus.rewriting_run import open_attempts, read_questions, rewrite_by_endpoint
from training.models import Rewriting
from training.services.corpora import FilesRefused

REWRITE = "training.rewrite"
UPLOADS = "rewritings"  # folder of uploads; they stay as long as the rewriting does
MAX_ATTEMPTS = 5  # of the job, each of which goes on where the one before was stopped
MAX_TRIES = 20  # of a question
SECONDS_BETWEEN_NOTES = 1.0


class RewritingRefused(DomainError):
    """A rewriting cannot be started or gone on with like this."""

    code = "rewriting_refused"


@dataclass(frozen=True)
class Order:
    """What a person wants. questions: {"name", "upload", "sha256"} of a file that was read and found good."""

    name: str
    system: System
    questions: dict[str, str]
    n_questions: int
    style: Style
    checks: Checks
    n_tries: int = 3
    max_new_tokens: int = 3000
    seed: int = 1
    limit: Decimal | None = None
    public_id: uuid.UUID = field(default_factory=uuid.uuid4)


def launch_rewriting(order: Order, *, by: User | None) -> Rewriting:
    """A rewriting and its job. Launched a second time, it is the one that is there.

    The caller sends the hint. Raises RewritingRefused if the name is taken, nobody would answer, or a limit is missing.
    """
    settings = settings_of(order)
    limit = _checked_limit(order.limit, settings)
    try:
        with transaction.atomic():
            rewriting, is_new = Rewriting.objects.get_or_create(
                public_id=order.public_id,
                defaults={
                    "name": order.name,
                    "system": order.system,
                    "kind": order.system.runtime.kind,
                    "settings": settings.to_json(),
                    "style": order.style.to_json(),
                    "checks": asdict(order.checks),
                    "n_tries": order.n_tries,
                    "seed": order.seed,
                    "questions": order.questions,
                    "n_questions": order.n_questions,
                    "limit": limit,
                    "created_by": by,
                },
            )
            if is_new:
                _new_job(rewriting, by)
                record("rewriting.launched", by=by, rewriting=str(rewriting.public_id), system=order.system.pk)
    except IntegrityError as error:
        message = _("There is a rewriting of this name already. Choose another name.")
        raise RewritingRefused(message, field="name") from error
    return rewriting


def settings_of(order: Order) -> Settings:
    """How the system answers, but with room for a whole dialogue. Raises RewritingRefused if nobody would answer."""
    runtime = Runtime.objects.filter(system=order.system).first()
    if runtime is None:
        raise RewritingRefused(
            _("%(system)s has no model that answers. Say how it answers first.") % {"system": order.system}
        )
    try:
        settings = runtime.value
        if isinstance(settings, LocalSettings):
            return replace(settings, decoding=replace(settings.decoding, max_new_tokens=order.max_new_tokens))
        # Without a seed: a question that is asked again should be answered in another way.
        sampling = replace(settings.sampling, max_new_tokens=order.max_new_tokens, seed=None)
        return replace(settings, sampling=sampling)
    except (BadSettings, ValueError) as error:
        raise RewritingRefused(f"{order.system}: {error}") from error


def _checked_limit(limit: Decimal | None, settings: Settings) -> str:
    """The limit as it is stored, "" where nothing costs. Raises RewritingRefused if one is missing."""
    if not isinstance(settings, EndpointSettings) or settings.price is None:
        return ""
    if limit is None or not limit.is_finite() or limit <= 0:
        raise RewritingRefused(_("This system costs money: give a limit above 0."), field="limit")
    return str(limit)


def _new_job(rewriting: Rewriting, by: User | None) -> None:
    rewriting.job = ledger.enqueue(
        kind=REWRITE,
        params={"rewriting_id": rewriting.pk, "about": rewriting.name, "rewriting": str(rewriting.public_id)},
        by_id=by.pk if by else None,
        queue=queue_of(rewriting.value),
        max_attempts=MAX_ATTEMPTS,
    )
    rewriting.save(update_fields=["job"])


@transaction.atomic
def resume_rewriting(
    *, rewriting: Rewriting, limit: Decimal | None = None, more_tries: bool = False, by: User | None
) -> Rewriting:
    """Go on with what is missing; more_tries: also ask once more about what was refused. The caller sends the hint.

    Raises NotReady while it runs or stops, RewritingRefused if nothing is left to ask.
    """
    rewriting = Rewriting.objects.select_for_update(of=("self",)).select_related("job").get(pk=rewriting.pk)
    job = rewriting.job
    if job is not None and not job.is_over:
        raise NotReady(_("It is still running or stopping. Try again in a moment."))
    if limit is not None and rewriting.limit:
        rewriting.limit = _checked_limit(limit, rewriting.value)
    if more_tries:
        rewriting.n_tries = min(rewriting.n_tries + 1, MAX_TRIES)
    elif job is not None and job.state == job.State.DONE:
        raise RewritingRefused(_("Nothing is left to ask."))
    rewriting.save(update_fields=["limit", "n_tries"])
    if job is None or not ledger.retry(job.pk):
        _new_job(rewriting, by)
    else:
        job.refresh_from_db()
    record("rewriting.resumed", by=by, rewriting=str(rewriting.public_id))
    return rewriting


# --- The job --------------------------------------------------------------------------------------------


def rewrite_dialogues(running: RunningJob, rewriting: Rewriting, *, connect: Connect = connect) -> Rewriting:
    """Ask about what is missing; in the end, and whenever it stops, the accepted dialogues are in their file.

    Raises EndpointStopped, EndpointDown, ChildFailed, CancelRequested, LostLease; what came before is in the file.
    """
    settings = rewriting.value
    with attempts_of(rewriting) as attempts:
        notes = _Notes(rewriting, attempts)
        try:
            if isinstance(settings, EndpointSettings):
                _by_endpoint(running, rewriting, settings, attempts, notes, connect)
            else:
                _locally(running, rewriting, settings, attempts, notes)
        finally:
            attempts.write_dialogues(rewriting.dialogues_file)
            notes.write(is_due=True)
    rewriting.refresh_from_db()
    return rewriting


@contextmanager
def attempts_of(rewriting: Rewriting) -> Iterator[rewriting_run.Rewriting]:
    """The file of attempts, held by nobody else meanwhile. Raises FilesRefused, JobRefused, FolderTaken, DiskFull."""
    source = Source(upload_path(rewriting.questions["upload"], folder=UPLOADS), rewriting.questions["name"])
    rewriting.folder.mkdir(parents=True, exist_ok=True)
    try:
        questions = read_questions(source)
        with open_attempts(
            rewriting.folder / "attempts.jsonl",
            questions,
            style=Style.from_json(rewriting.style),
            checks=Checks(**rewriting.checks),
            n_tries=rewriting.n_tries,
        ) as attempts:
            yield attempts
    except SourceRefused as error:
        problems = [problem.to_json() for problem in error.problems]
        raise FilesRefused(str(error), {"problems": problems}) from error
    except (FolderTaken, DiskFull):  # may be otherwise at the next attempt
        raise
    except CorpusError as error:
        raise JobRefused(str(error)) from error


def refresh_dialogues(rewriting: Rewriting) -> None:
    """Write the accepted dialogues where a worker was killed before it could."""
    attempts, dialogues = rewriting.folder / "attempts.jsonl", rewriting.dialogues_file
    if attempts.exists() and (not dialogues.exists() or dialogues.stat().st_mtime < attempts.stat().st_mtime):
        with suppress(JobRefused, FolderTaken, DiskFull), attempts_of(rewriting) as found:
            found.write_dialogues(dialogues)
            _Notes(rewriting, found).write(is_due=True)


@dataclass
class _Notes:
    """Tells the row now and then how far the file is; the file alone counts."""

    rewriting: Rewriting
    attempts: rewriting_run.Rewriting
    written_at: float = 0.0

    def write(self, *, is_due: bool = False) -> None:
        if is_due or time.monotonic() - self.written_at > SECONDS_BETWEEN_NOTES:
            self.written_at = time.monotonic()
            with suppress(OperationalError, InterfaceError):  # the next note says the same and more
                Rewriting.objects.filter(pk=self.rewriting.pk).update(
                    n_done=self.attempts.n_done,
                    n_accepted=self.attempts.n_accepted,
                    counts=dict(sorted(self.attempts.counts.items())),
                )


def _by_endpoint(
    running: RunningJob,
    rewriting: Rewriting,
    settings: EndpointSettings,
    attempts: rewriting_run.Rewriting,
    notes: _Notes,
    connect: Connect,
) -> None:
    allowed, key = permission(rewriting.system_id, settings)
    stopped: EndpointError | None = None
    with ExitStack() as stack:
        database = stack.enter_context(DatabaseThread())
        heart = stack.enter_context(Heart(running, database, len(attempts.questions)))
        heart.n_done = attempts.n_done
        budget = budget_of(DatabaseLedger(rewriting.pk, database, owners=Rewriting), rewriting.limit, settings)
        client = stack.enter_context(connect(settings.endpoint(), key, allowed, settings.limits.max_concurrency))

        def tell(n_done: int, total: int) -> None:
            heart.n_done = n_done
            notes.write()

        try:
            rewrite_by_endpoint(
                attempts,
                client,
                lambda: Limiter(settings.limits, rng=random.Random()),  # noqa: S311 - jitter, not a secret
                budget=budget,
                cancel=heart.stop,
                on_progress=tell,
            )
        except Stopped as error:
            stopped = error.error
        heart.check()
    if stopped is not None:
        raise refusal(stopped)


def _locally(
    running: RunningJob,
    rewriting: Rewriting,
    settings: LocalSettings,
    attempts: rewriting_run.Rewriting,
    notes: _Notes,
) -> None:
    """One child after the other, each for a pass over what is pending."""

    def hear(message: Message) -> None:
        kind = message["type"]
        if kind == "ready":
            check_family(settings, message["spec"]["family"])
        elif kind == "response":
            told = {name: message["provenance"].get(name) for name in ("spec_digest", "tokens_out", "finish_reason")}
            if told["finish_reason"] == "length":
                attempts.fail(message["item"], "cut_at_limit", told)
            else:
                attempts.take(message["item"], message["text"], told)
        elif kind == "error":
            attempts.fail(message["item"], message["code"])
        notes.write()

    while work := work_of(attempts):
        n_before = attempts.counts.total()
        job = replace(job_of(settings), seed=rewriting.seed, template=bare_template(settings))
        run_worker(running, job, work, hear, n_before=attempts.n_done)
        if attempts.counts.total() == n_before:
            raise RuntimeError("the answering process ended well and answered nothing")


def work_of(attempts: rewriting_run.Rewriting) -> list[Work]:
    """Each question once. `repeat` enters the draw, so a question that is asked again is answered in another way."""
    return [
        Work(item.key, attempts.n_attempts(item.key), (Turn("client", item.messages[0].content),))
        for item in attempts.pending()
    ]


def bare_template(settings: LocalSettings) -> Template:
    """The question as it stands, in the family's own form; a counsellor's labels and wording would be in the way."""
    family = settings.family or _family_in(job_of(settings).weights)
    return TEMPLATES[{"chatglm": "chatglm-rounds", "chatglm2": "chatglm2-rounds"}.get(family, "chat-bare")]


def _family_in(weights: Path) -> str:
    """As config.json says, for a model that can be loaded at all; the child refuses any other."""
    try:
        config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict) or config.get("model_type") != "chatglm":
        return ""
    return "chatglm" if "inner_hidden_size" in config else "chatglm2"
