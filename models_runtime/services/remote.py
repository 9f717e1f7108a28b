"""answer_by_endpoint: many requests under way at once, one limit of money, one lease that a timer keeps."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, cast

from jobs.errors import CancelRequested, JobRefused
from jobs.registry import RunningJob
from models_runtime.endpoints.allowed import AllowList
from models_runtime.endpoints.batch import Answered, Failed, Outcome, Stopped, WorkItem, generate_many
from models_runtime.endpoints.budget import Budget
from models_runtime.endpoints.errors import Action, EndpointError
from models_runtime.endpoints.limiter import Limiter
from models_runtime.endpoints.secret import Secret
from models_runtime.endpoints.values import Answer, Endpoint, Message
from models_runtime.engine.prompts import Template, Turn, chat_messages, response_text
from models_runtime.models import BatchPart, Runtime
from models_runtime.runtimes import EndpointSettings
from models_runtime.services.batches import Todo, items_with_turns, try_passing_again, work_left
from models_runtime.services.local import turns_of
from models_runtime.services.recording import Recorder
from models_runtime.services.runtimes import RuntimeRefused, check_endpoint, key_of, note_version
from models_runtime.services.spending import DatabaseLedger, DatabaseThread, patiently

SECONDS_BETWEEN_BEATS = 0.5
ITEMS_AT_ONCE = 200


class EndpointStopped(JobRefused):
    """The endpoint will not go on as things are, and trying again by itself would not help."""

    def __init__(self, error: EndpointError) -> None:
        super().__init__(str(error))
        self.error_class = error.kind.value


class EndpointDown(Exception):
    """The endpoint does not answer now; the job tries again by itself, some minutes at most."""

    def __init__(self, error: EndpointError) -> None:
        super().__init__(str(error))
        self.error_class = error.kind.value


class EndpointNotAllowed(JobRefused):
    """The endpoint was taken off the list since the batch was launched."""

    error_class = "NotAllowed"


class Client(Protocol):
    """What is asked of models_runtime.endpoints.client.ChatClient."""

    endpoint: Endpoint

    def answer(self, messages: Any) -> Answer: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Connect = Callable[[Endpoint, Secret | None, AllowList, int], Client]


def connect(endpoint: Endpoint, key: Secret | None, allowed: AllowList, n_connections: int) -> Client:
    """A client of the endpoint."""
    # Here, because the SDK takes half a second and 25 MB, and the web process imports this module and never calls.
    from models_runtime.endpoints.client import ChatClient

    return ChatClient(endpoint, key=key, allowed=allowed, n_connections=n_connections)


class Heart:
    """Beats while requests are under way. A wish to cancel, or a lost lease, sets `stop`."""

    def __init__(self, running: RunningJob, database: DatabaseThread, n_total: int) -> None:
        self.n_done = 0
        self.stop = threading.Event()
        self._n_total = n_total
        self._running, self._database = running, database
        self._is_over = threading.Event()
        self._why: BaseException | None = None
        self._thread = threading.Thread(target=self._beat, name="batch-heart", daemon=True)

    def _beat(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_BEATS):
            try:
                self._database.call(lambda: self._running.heartbeat(n_done=self.n_done, n_total=self._n_total))
            except BaseException as error:  # CancelRequested, LostLease, or a database that is gone: all end the run
                self._why = error
                self.stop.set()
                return

    def take_in(self, store: Callable[[], None]) -> None:
        """Store something in this thread, also if the wish to cancel comes up meanwhile. Raises LostLease."""
        try:
            patiently(store)
        except CancelRequested as error:
            self._why = self._why or error
            self.stop.set()

    def check(self) -> None:
        """Raises what stopped it, if anything did."""
        if self._why is not None:
            raise self._why

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if self.n_done == self._n_total and self._why is None:  # the last count, too, stands on the job's page
            with suppress(CancelRequested):
                self._database.call(lambda: self._running.heartbeat(n_done=self.n_done, n_total=self._n_total))


def answer_by_endpoint(
    running: RunningJob, part: BatchPart, settings: EndpointSettings, *, connect: Connect = connect
) -> Recorder:
    """Answer what is missing, and what failed by chance before.

    Raises EndpointStopped, EndpointDown, EndpointNotAllowed, CancelRequested, LostLease; what came before is stored.
    """
    allowed, key = permission(part.system_id, settings)
    part.version = note_version(part.system, settings.digest, settings.spec)
    part.save(update_fields=["version"])
    try_passing_again(part)
    todo = work_left(part)
    recorder = Recorder(running, part)
    with ExitStack() as stack:
        database = stack.enter_context(DatabaseThread())
        heart = stack.enter_context(Heart(running, database, len(todo)))
        budget = budget_of(DatabaseLedger(part.pk, database), part.limit, settings)
        for repeat in range(part.batch.repeats):
            these = [one for one in todo if one.repeat == repeat]
            client = connect(settings.endpoint(repeat=repeat), key, allowed, settings.limits.max_concurrency)
            with client:
                outcomes = generate_many(
                    _questions(these, settings.template),
                    client,
                    Limiter(settings.limits, rng=random.Random()),  # noqa: S311 - jitter, not a secret
                    budget=budget,
                    cancel=heart.stop,
                )
                with closing(cast(Generator[Outcome], outcomes)):  # whatever happens, its threads end before the client
                    _take_in(outcomes, repeat, part, settings, recorder, heart)
            heart.check()
    return recorder


def _take_in(
    outcomes: Iterator[Outcome],
    repeat: int,
    part: BatchPart,
    settings: EndpointSettings,
    recorder: Recorder,
    heart: Heart,
) -> None:
    """Store what comes. Once the batch is to stop, what is still under way is waited for, since it is paid for."""
    stopped: EndpointError | None = None
    try:
        for outcome in outcomes:
            heart.take_in(partial(_store, outcome, repeat, part, settings, recorder))
            heart.n_done += 1
    except Stopped as error:
        stopped = error.error
    heart.take_in(recorder.flush)
    heart.check()
    if stopped is not None:
        raise refusal(stopped)


def refusal(error: EndpointError) -> Exception:
    """What ends the job where an endpoint stopped it all: to be tried again by itself, or not."""
    return (EndpointDown if error.action is Action.RETRY else EndpointStopped)(error)


def ask_once(running: RunningJob, settings: EndpointSettings, runtime: Runtime, turns: tuple[Turn, ...]) -> Answer:
    """One answer, for trying a runtime out. Raises EndpointStopped, EndpointNotAllowed."""
    try:
        allowed = check_endpoint(settings.base_url)
    except RuntimeRefused as error:
        raise EndpointNotAllowed(error.message) from error
    with (
        DatabaseThread() as database,
        Heart(running, database, 1),
        connect(settings.endpoint(), key_of(runtime), allowed, 1) as client,
    ):
        try:
            return client.answer(_messages(settings.template, turns))
        except EndpointError as error:
            raise EndpointStopped(error) from error


def permission(system_id: int, settings: EndpointSettings) -> tuple[AllowList, Secret | None]:
    """The list that the endpoint is on, and the key to call it with. Raises EndpointNotAllowed."""
    try:
        allowed = check_endpoint(settings.base_url)
    except RuntimeRefused as error:
        raise EndpointNotAllowed(error.message) from error
    runtime = Runtime.objects.filter(system=system_id, kind=Runtime.Kind.ENDPOINT).first()
    # A key goes to the server it was entered for and to no other, whatever the system was changed to meanwhile.
    is_same = runtime is not None and runtime.settings.get("base_url") == settings.base_url
    return allowed, key_of(runtime) if is_same else None


def budget_of(ledger: DatabaseLedger, limit: str, settings: EndpointSettings) -> Budget | None:
    """The budget for a run that begins, None where there is no price; what a killed one had set aside is spent."""
    if settings.price is None or not limit:
        return None
    ledger.settle_lost()
    return Budget(settings.price, limit=Decimal(limit), ledger=ledger)


def _questions(todo: list[Todo], template: Template) -> Iterator[WorkItem]:
    for start in range(0, len(todo), ITEMS_AT_ONCE):
        some = todo[start : start + ITEMS_AT_ONCE]
        items = items_with_turns(one.item_id for one in some)
        for one in some:
            yield WorkItem(str(one.item_id), _messages(template, turns_of(items[one.item_id])))


def _messages(template: Template, turns: tuple[Turn, ...]) -> list[Message]:
    return [Message(message["role"], message["content"]) for message in chat_messages(template, turns)]


def _store(outcome: Outcome, repeat: int, part: BatchPart, settings: EndpointSettings, recorder: Recorder) -> None:
    item_id = int(outcome.key)
    if isinstance(outcome, Failed):
        recorder.failure(item_id, repeat, outcome.error.kind.value, str(outcome.error), outcome.n_attempts)
        return
    answer = outcome.answer
    text = response_text(settings.template, answer.text)
    if not text:
        code = "withheld" if answer.is_withheld else "empty"
        recorder.failure(item_id, repeat, code, f"finish reason: {answer.finish_reason or 'none'}", outcome.n_attempts)
        return
    recorder.response(item_id, repeat, text, _provenance(outcome, text, repeat, part, settings))


def _provenance(
    outcome: Answered, text: str, repeat: int, part: BatchPart, settings: EndpointSettings
) -> dict[str, Any]:
    answer, version = outcome.answer, part.version
    return {
        "spec": settings.spec,
        "spec_digest": settings.digest,
        "runtime_version": version.number if version else None,
        "batch": str(part.batch.public_id),
        "seed": settings.endpoint(repeat=repeat).sampling.seed,
        "model_reported": answer.model,
        "system_fingerprint": answer.system_fingerprint,
        "request_id": answer.request_id,
        "answered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "finish_reason": answer.finish_reason,
        "tokens_in": answer.usage.prompt_tokens if answer.usage else None,
        "tokens_out": answer.usage.completion_tokens if answer.usage else None,
        "seconds": round(answer.seconds, 3),
        "n_attempts": outcome.n_attempts,
        **({"cost": str(outcome.cost)} if outcome.cost is not None and settings.price else {}),
        **({"currency": settings.price.currency} if settings.price else {}),
        **({"raw_text": answer.text} if answer.text != text else {}),
    }
