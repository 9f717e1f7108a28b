"""generate_many: the answers of one endpoint to many items, as they come, whatever goes wrong with some of them.

item ──► wait for the limiter ──► reserve money ──► ask ──► Answered
            ▲                                        ├────► Failed: its own fault, or tried too often
            └───────────── wait, try again ──────────┴────► Stopped: everybody's fault (key, account, budget, …)
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol

from models_runtime.endpoints.budget import Budget, Reservation, likely_prompt_tokens, total
from models_runtime.endpoints.errors import Action, EndpointError, Kind
from models_runtime.endpoints.limiter import MAX_WAIT_SECONDS, Closed, Limiter
from models_runtime.endpoints.reading import check_messages
from models_runtime.endpoints.values import Answer, Endpoint, Message, Usage

USUAL_NEW_TOKENS = 256  # drawn from the limit of tokens per minute where a system has no limit of its own


class WorkItem(NamedTuple):
    """One thing to answer; `key` comes back with the outcome."""

    key: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class Answered:
    """An item and its answer. n_attempts: requests it took; cost: of all of them, None without a budget."""

    key: str
    answer: Answer
    n_attempts: int
    cost: Decimal | None


@dataclass(frozen=True)
class Failed:
    """An item without an answer; the batch went on."""

    key: str
    error: EndpointError
    n_attempts: int
    cost: Decimal | None


Outcome = Answered | Failed


class Stopped(Exception):
    """The batch cannot go on as things are. Items without outcome were not answered and can be resumed.

    error: what every further item would meet; its kind says whether it is the key, the account, our budget, …
    """

    def __init__(self, error: EndpointError) -> None:
        super().__init__(str(error))
        self.error = error


class Asks(Protocol):
    """What generate_many needs of a client."""

    endpoint: Endpoint

    def answer(self, messages: Sequence[Message]) -> Answer:
        """Raises EndpointError."""


@dataclass(frozen=True)
class Patience:
    """How often one item is tried, by what went wrong, and when a batch is given up.

    give_up_after: so many failed items in a row, none answered in between, stop the batch: the endpoint is down or
        wrongly set up. Dialogues that are empty or too long do not count.
    """

    n_tries: int = 5
    n_tries_rate: int = 8
    n_tries_strange: int = 3  # empty or malformed answers, which are paid for
    give_up_after: int = 10

    def tries(self, kind: Kind) -> int:
        """How often an item is tried that keeps failing in this way."""
        if kind is Kind.RATE:
            return self.n_tries_rate
        return self.n_tries_strange if kind in (Kind.EMPTY, Kind.MALFORMED) else self.n_tries


def generate_many(
    items: Iterable[WorkItem],
    client: Asks,
    limiter: Limiter,
    *,
    budget: Budget | None = None,
    patience: Patience | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Outcomes as they come, in no order, one per item.

    items: read as they are needed and in the caller's thread, so it may be a long query.
    cancel: when set, nothing new starts; requests under way are waited for and yielded, since they are paid for.
        Closing the iterator does the same, without yielding.
    The limiter is closed at the end; a batch has one of its own.

    Raises Stopped once the requests under way are in, ValueError for a budget without a limit of new tokens, and
    whatever `items` raises.
    """
    if budget is not None and client.endpoint.sampling.max_new_tokens is None:
        raise ValueError("A budget needs a limit of new tokens: without one, nobody knows what a request can cost.")
    run = _Run(items, client, limiter, budget, patience or Patience())
    return run.outcomes(cancel or threading.Event())


class _Run:
    """The threads of one batch and what they share."""

    def __init__(
        self, items: Iterable[WorkItem], client: Asks, limiter: Limiter, budget: Budget | None, patience: Patience
    ) -> None:
        self._items = iter(items)
        self._client = client
        self._limiter = limiter
        self._budget = budget
        self._patience = patience
        self._lock = threading.Lock()
        self._settled = threading.Condition()
        self._n_reserved = 0
        self._n_failed_in_a_row = 0
        self._stop: EndpointError | None = None
        self._bug: BaseException | None = None
        n_threads = limiter.limits.max_concurrency
        self._is_over = False
        self._in: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()  # None = there are no more
        self._out: queue.Queue[Outcome | None] = queue.Queue(maxsize=2 * n_threads)  # None = a thread is done
        self._threads = [
            threading.Thread(target=self._work, name=f"endpoint-{number}", daemon=True) for number in range(n_threads)
        ]

    def outcomes(self, cancel: threading.Event) -> Iterator[Outcome]:
        n_running = 0
        try:
            for thread in self._threads:
                thread.start()
                n_running += 1
            while n_running:
                if cancel.is_set():
                    self._end()
                self._hand_out()
                try:
                    outcome = self._out.get(timeout=0.2)  # and look at `cancel` now and then
                except queue.Empty:
                    continue
                if outcome is None:
                    n_running -= 1
                else:
                    yield outcome
        finally:
            self._end()
            while n_running:  # a thread may be waiting to hand over what nobody wants any more
                n_running -= self._out.get() is None
        if self._bug is not None:
            raise self._bug
        if self._stop is not None:
            raise Stopped(self._stop)

    def _hand_out(self) -> None:
        """Keep an item ready for every thread. Items are read here, in the caller's thread: they may come from a
        database, whose connections belong to a thread."""
        while not self._is_over and self._in.qsize() < len(self._threads):
            item = None
            try:
                item = next(self._items, None)
            except Exception as error:  # raised again once the items before it are answered
                self._bug = error
            if item is None:
                self._no_more()
            else:
                self._in.put(item)

    def _no_more(self) -> None:
        self._is_over = True
        for _ in self._threads:
            self._in.put(None)

    def _end(self) -> None:
        self._limiter.close()
        self._no_more()
        with self._settled:
            self._settled.notify_all()

    def _work(self) -> None:
        try:
            while (item := self._in.get()) is not None and not self._limiter.is_closed:
                self._out.put(self._counted(self._outcome(item)))
        except Closed:
            pass
        except EndpointError as error:
            self._stop = self._stop or error
            self._end()
        except BaseException as error:  # of the ledger, or of ours: the caller gets it
            self._bug = self._bug or error
            self._end()
        finally:
            self._out.put(None)

    def _counted(self, outcome: Outcome) -> Outcome:
        """The outcome itself; the batch stops after it if nothing but failures came for a while."""
        with self._lock:
            if isinstance(outcome, Answered):
                self._n_failed_in_a_row = 0
            elif outcome.error.kind not in (Kind.BAD_ITEM, Kind.CONTEXT_LENGTH):
                self._n_failed_in_a_row += 1
                if self._n_failed_in_a_row >= self._patience.give_up_after:
                    self._stop = self._stop or outcome.error
                    self._end()
        return outcome

    def _outcome(self, item: WorkItem) -> Outcome:
        """Try one item until it is answered or given up. Raises EndpointError if the batch is to stop, or Closed."""
        n_attempts, not_before = 0, None
        n_by_kind: dict[Kind, int] = {}
        cost = None if self._budget is None else Decimal(0)
        try:
            check_messages(item.messages)
        except EndpointError as error:
            return Failed(item.key, error, 0, cost)
        while True:
            n_attempts += 1
            result, spent = self._attempt(item, not_before)
            cost = None if cost is None else total([cost, spent])
            if isinstance(result, Answer):
                return Answered(item.key, result, n_attempts, cost)
            n_by_kind[result.kind] = n_by_kind.get(result.kind, 0) + 1
            if result.action is Action.STOP or (result.retry_after_seconds or 0) > MAX_WAIT_SECONDS:
                raise result
            if result.action is Action.FAIL_ITEM or n_by_kind[result.kind] >= self._patience.tries(result.kind):
                return Failed(item.key, result, n_attempts, cost)
            not_before = None if result.kind is Kind.RATE else self._limiter.after_backoff(n_attempts)

    def _attempt(self, item: WorkItem, not_before: float | None) -> tuple[Answer | EndpointError, Decimal]:
        """One request: its answer or its error, and what it cost. Raises Closed."""
        new_tokens = self._client.endpoint.sampling.max_new_tokens or USUAL_NEW_TOKENS
        permit = self._limiter.acquire(likely_prompt_tokens(item.messages) + new_tokens, not_before=not_before)
        result: Answer | EndpointError | None = None
        reservation: Reservation | None = None
        spent = Decimal(0)
        try:
            reservation = self._reserve(item.messages, new_tokens)
            result = self._client.answer(item.messages)
        except EndpointError as error:
            result = error
        finally:  # whatever happened: what was taken is given back, and what nobody knows counts as spent
            usage = result.usage if result else None
            if isinstance(result, EndpointError) and not result.may_be_billed:
                usage = Usage(0, 0)
            if self._budget is not None and reservation is not None:
                spent = self._settle(self._budget, reservation, usage)
            self._limiter.release(permit, usage=usage, result=result)
        return result, spent

    def _reserve(self, messages: Sequence[Message], new_tokens: int) -> Reservation | None:
        """Room in the budget; waits for requests under way, which may cost less than they reserved. None: no budget."""
        if self._budget is None:
            return None
        with self._settled:
            while (reservation := self._budget.reserve(messages, new_tokens)) is None:
                if self._limiter.is_closed:
                    raise Closed
                if not self._n_reserved:
                    limit = f"{self._budget.limit} {self._budget.price.currency}"
                    message = f"The next request could pass the limit of {limit}. Raise the limit, then resume."
                    raise EndpointError(Kind.BUDGET, message)
                self._settled.wait()
            self._n_reserved += 1
            return reservation

    def _settle(self, budget: Budget, reservation: Reservation, usage: Usage | None) -> Decimal:
        with self._settled:
            spent = budget.settle(reservation, usage)
            self._n_reserved -= 1
            self._settled.notify_all()
            return spent
