"""Many items through one endpoint: everything that can be answered is, once, whatever happens to the others."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from models_runtime.endpoints.allowed import AllowList
from models_runtime.endpoints.batch import Answered, Failed, Patience, Stopped, WorkItem, generate_many
from models_runtime.endpoints.budget import Budget, MemoryLedger, Price, most_prompt_tokens
from models_runtime.endpoints.client import ChatClient
from models_runtime.endpoints.errors import EndpointError, Kind
from models_runtime.endpoints.limiter import Limiter, Limits
from models_runtime.endpoints.secret import Secret
from models_runtime.endpoints.values import Answer, Endpoint, Message, RateHints, Sampling, Usage
from tests.models_runtime.stub_server import cuts, fails, finishes, resets, says, stub

PRICE = Price("USD", Decimal("0.50"), Decimal("1.50"), dt.date(2026, 11, 21))


class FastClock:
    """Time passes when somebody waits for it, and at once; who waits for another thread, really waits."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waited: list[float] = []

    def now(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        if seconds is None:
            condition.wait()
        else:
            self.waited.append(seconds)
            self.time += seconds


class Scripted:
    """A client whose every answer is decided by a function of the item's text and of the number of its try."""

    def __init__(self, decide: Callable[[str, int], Answer | EndpointError], max_new_tokens: int | None = 512) -> None:
        self.endpoint = Endpoint("http://x/v1", "toy", Sampling(max_new_tokens=max_new_tokens))
        self.tries: dict[str, int] = {}
        self._decide = decide
        self._lock = threading.Lock()

    def answer(self, messages):
        text = messages[-1].content
        with self._lock:
            self.tries[text] = n = self.tries.get(text, 0) + 1
        decided = self._decide(text, n)
        if isinstance(decided, EndpointError):
            raise decided
        return decided


def good(text: str = "好", usage: Usage | None = Usage(10, 5)) -> Answer:  # noqa: B008
    return Answer(text, "stop", usage, "toy", "", "", 0.01, RateHints())


def items(n: int) -> Iterator[WorkItem]:
    return (WorkItem(f"item-{i}", [Message("user", f"第{i}句")]) for i in range(n))


def limiter_of(n: int = 4, clock: FastClock | None = None) -> Limiter:
    return Limiter(Limits(max_concurrency=n, start_concurrency=n), rng=random.Random(1), clock=clock or FastClock())


def run(n: int, decide, *, n_threads: int = 4, **options):
    client = Scripted(decide, options.pop("max_new_tokens", 512))
    outcomes = {o.key: o for o in generate_many(items(n), client, limiter_of(n_threads), **options)}
    return outcomes, client


def stopped(n: int, decide, **options):
    """The outcomes before the batch stopped, why it did, and the client."""
    client, outcomes = Scripted(decide), []
    with pytest.raises(Stopped) as caught:
        outcomes.extend(generate_many(items(n), client, limiter_of(options.pop("n_threads", 4)), **options))
    return outcomes, caught.value, client


def test_every_item_is_answered_once():
    outcomes, client = run(200, lambda text, n: good(text), n_threads=8)
    assert {key: o.answer.text for key, o in outcomes.items()} == {f"item-{i}": f"第{i}句" for i in range(200)}
    assert set(client.tries.values()) == {1}
    assert all(o.n_attempts == 1 and o.cost is None for o in outcomes.values())


def test_one_poisoned_item_does_not_stop_the_rest():
    def decide(text, n):
        return EndpointError(Kind.CONTEXT_LENGTH, "too long") if text == "第3句" else good()

    outcomes, client = run(20, decide)
    assert isinstance(outcomes["item-3"], Failed) and outcomes["item-3"].error.kind is Kind.CONTEXT_LENGTH
    assert sum(isinstance(o, Answered) for o in outcomes.values()) == 19
    assert client.tries["第3句"] == 1


def test_items_that_cannot_be_sent_fail_without_a_request():
    bad = [WorkItem("none", []), WorkItem("half", [Message("user", "\ud83d")]), WorkItem("ok", [Message("user", "好")])]
    client = Scripted(lambda text, n: good())
    budget = Budget(PRICE, limit=Decimal(1), ledger=MemoryLedger())
    outcomes = {o.key: o for o in generate_many(bad, client, limiter_of(), budget=budget)}
    assert [type(outcomes[key]) for key in ("none", "half", "ok")] == [Failed, Failed, Answered]
    assert outcomes["half"].n_attempts == 0 and list(client.tries) == ["好"]


@pytest.mark.parametrize("kind", [Kind.OVERLOADED, Kind.TIMEOUT, Kind.UNREACHABLE, Kind.HALF, Kind.RATE, Kind.EMPTY])
def test_passing_trouble_passes(kind):
    outcomes, _ = run(5, lambda text, n: good() if n == 3 else EndpointError(kind, "not now"))
    assert all(isinstance(o, Answered) and o.n_attempts == 3 for o in outcomes.values())


@pytest.mark.parametrize(("kind", "n_tries"), [(Kind.OVERLOADED, 5), (Kind.RATE, 8), (Kind.EMPTY, 3)])
def test_an_item_is_given_up_after_its_tries(kind, n_tries):
    outcomes, client = run(2, lambda text, n: EndpointError(kind, "never") if text == "第1句" else good())
    assert isinstance(outcomes["item-1"], Failed) and outcomes["item-1"].n_attempts == n_tries
    assert client.tries == {"第0句": 1, "第1句": n_tries}


def test_tries_back_off_between():
    clock = FastClock()
    client = Scripted(lambda text, n: good() if n == 5 else EndpointError(Kind.OVERLOADED, "500"))
    [outcome] = generate_many(items(1), client, limiter_of(1, clock))
    assert outcome.n_attempts == 5
    assert len(clock.waited) == 4 and all(0 < w <= b for w, b in zip(clock.waited, (1, 2, 4, 8), strict=True))


@pytest.mark.parametrize("kind", [Kind.AUTH, Kind.QUOTA, Kind.NO_MODEL, Kind.PARAMETER, Kind.REDIRECT])
def test_what_every_item_would_meet_stops_the_batch(kind):
    def decide(text, n):
        return EndpointError(kind, "everybody's trouble") if int(text[1:-1]) >= 10 else good()

    outcomes, why, client = stopped(1000, decide)
    assert why.error.kind is kind and str(why) == "everybody's trouble"
    assert {f"item-{i}" for i in range(10)} == {o.key for o in outcomes}
    assert len(client.tries) <= 10 + 4  # those that were under way, and nobody after


def test_an_endpoint_that_is_down_stops_the_batch():
    outcomes, why, client = stopped(1000, lambda text, n: EndpointError(Kind.UNREACHABLE, "down"))
    assert why.error.kind is Kind.UNREACHABLE
    assert len(client.tries) <= 10 + 4
    assert len(outcomes) >= 10 and all(isinstance(o, Failed) for o in outcomes)


def test_failures_with_answers_in_between_do_not():
    def decide(text, n):
        return EndpointError(Kind.BAD_REQUEST, "no") if int(text[1:-1]) % 2 else good()

    outcomes, _ = run(100, decide, n_threads=1, patience=Patience(give_up_after=2))
    assert sum(isinstance(o, Failed) for o in outcomes.values()) == 50


def test_an_endpoint_that_asks_for_an_hour_stops_the_batch_instead_of_holding_it():
    _, why, client = stopped(50, lambda text, n: EndpointError(Kind.RATE, "wait", retry_after_seconds=3600.0))
    assert why.error.retry_after_seconds == 3600.0 and max(client.tries.values()) == 1


def test_cancel_keeps_what_is_under_way_and_starts_nothing_new():
    cancel, gate, under_way = threading.Event(), threading.Event(), threading.Semaphore(0)

    def decide(text, n):
        under_way.release()
        assert gate.wait(10)
        return good()

    client = Scripted(decide)
    outcomes = generate_many(items(1000), client, limiter_of(4), cancel=cancel)

    def stop() -> None:
        for _ in range(4):
            under_way.acquire()
        cancel.set()
        gate.set()

    thread = threading.Thread(target=stop)
    thread.start()
    got = list(outcomes)
    thread.join()
    assert len(got) == len(client.tries) < 1000
    assert all(isinstance(o, Answered) for o in got)


def test_cancel_ends_a_long_pause_at_once():
    """The real clock, and an endpoint that asked for 500 seconds."""
    cancel = threading.Event()

    def decide(text, n):
        cancel.set()
        return EndpointError(Kind.RATE, "wait", retry_after_seconds=500.0)

    limiter = Limiter(Limits(), rng=random.Random(1))
    assert list(generate_many(items(100), Scripted(decide), limiter, cancel=cancel)) == []


def test_whoever_stops_listening_leaves_no_thread_behind():
    before = set(threading.enumerate())
    outcomes = generate_many(items(10_000), Scripted(lambda text, n: good()), limiter_of(8))
    assert isinstance(next(outcomes), Answered)
    outcomes.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert not [t for t in threading.enumerate() if t not in before]


def test_items_are_read_as_they_are_needed():
    n_read = []

    def counted() -> Iterator[WorkItem]:
        for item in items(10_000):
            n_read.append(item.key)
            yield item

    outcomes = generate_many(counted(), Scripted(lambda text, n: good()), limiter_of(4))
    next(outcomes)
    assert len(n_read) <= 1 + 4 + 4 + 8 + 4  # yielded, ready, in hand, done, and some more in between
    outcomes.close()


def test_items_are_read_in_the_callers_thread():
    """A database connection belongs to the thread that opened it."""
    threads = set()

    def rows() -> Iterator[WorkItem]:
        for item in items(50):
            threads.add(threading.current_thread())
            yield item

    assert len(list(generate_many(rows(), Scripted(lambda text, n: good()), limiter_of(4)))) == 50
    assert threads == {threading.current_thread()}


def test_no_items_no_outcomes():
    assert list(generate_many([], Scripted(lambda text, n: good()), limiter_of(4))) == []


def test_a_broken_list_of_items_is_told_to_the_caller():
    def broken() -> Iterator[WorkItem]:
        yield from items(3)
        raise LookupError("row 4 is gone")

    outcomes = []
    with pytest.raises(LookupError, match="row 4"):
        outcomes.extend(generate_many(broken(), Scripted(lambda text, n: good()), limiter_of()))
    assert len(outcomes) == 3


def test_a_fault_of_ours_is_told_to_the_caller_and_not_swallowed():
    def decide(text, n):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        run(10, decide)


# --- money


def test_costs_add_up_over_all_tries():
    def decide(text, n):
        if n == 1:
            return EndpointError(Kind.EMPTY, "no text", may_be_billed=True, usage=Usage(10, 1))
        if n == 2:
            return EndpointError(Kind.OVERLOADED, "500")
        return good(usage=Usage(10, 5))

    ledger = MemoryLedger()
    outcomes, _ = run(6, decide, budget=Budget(PRICE, limit=Decimal(1), ledger=ledger))
    each = PRICE.of(Usage(20, 6))
    assert [o.cost for o in outcomes.values()] == [each] * 6
    assert ledger.totals() == (6 * each, 0)


def test_a_timeout_counts_in_full_since_it_may_be_charged_for():
    ledger = MemoryLedger()
    timeout = EndpointError(Kind.TIMEOUT, "late", may_be_billed=True)
    outcomes, _ = run(
        1, lambda text, n: timeout if n == 1 else good(), budget=Budget(PRICE, limit=Decimal(1), ledger=ledger)
    )
    worst = PRICE.of(Usage(most_prompt_tokens([Message("user", "第0句")]), 512))
    assert outcomes["item-0"].cost == worst + PRICE.of(Usage(10, 5)) == ledger.totals().spent


@pytest.mark.parametrize("n_threads", [1, 8])
def test_the_hard_stop_is_never_passed_and_comes_no_sooner_than_it_must(n_threads):
    ledger, limit = MemoryLedger(), Decimal("0.01")
    outcomes, why, _ = stopped(
        1000,
        lambda text, n: good(usage=Usage(20, 400)),
        n_threads=n_threads,
        budget=Budget(PRICE, limit=limit, ledger=ledger),
    )
    assert why.error.kind is Kind.BUDGET and "0.01 USD" in str(why)
    spent, reserved = ledger.totals()
    assert reserved == 0 and spent == len(outcomes) * PRICE.of(Usage(20, 400))
    worst_next = PRICE.of(Usage(most_prompt_tokens([Message("user", "第999句")]), 512))
    assert limit - worst_next < spent <= limit


def test_a_budget_needs_a_limit_of_new_tokens():
    with pytest.raises(ValueError, match="limit of new tokens"):
        run(
            1,
            lambda text, n: good(),
            max_new_tokens=None,
            budget=Budget(PRICE, limit=Decimal(1), ledger=MemoryLedger()),
        )


# --- through a real socket


def test_a_bad_day_of_a_server():
    """Everything at once, and every item has its outcome."""
    tries: dict[str, int] = {}

    def decide(body):
        text = body["messages"][-1]["content"]
        tries[text] = n = tries.get(text, 0) + 1
        number = int(text[1:-1])
        if number == 7:
            return fails(400, code="context_length_exceeded")
        if number == 8:
            return finishes("content_filter", None)
        if number == 9:
            return finishes("length", "我觉")
        if n == 1:
            return [resets, cuts, fails(503), fails(429, headers={"Retry_After": "0.01"}), says(None)][number % 5]
        return says(text)

    with stub(decide=decide) as server:
        endpoint = Endpoint(f"{server.origin}/v1", "toy", Sampling(max_new_tokens=512), timeout_seconds=30)
        client = ChatClient(endpoint, key=Secret("sk-1234567890"), allowed=AllowList.parse([server.origin]))
        with client:
            outcomes = {o.key: o for o in generate_many(items(30), client, limiter_of(4))}
    assert len(outcomes) == 30
    assert [key for key, o in outcomes.items() if isinstance(o, Failed)] == ["item-7"]
    assert outcomes["item-8"].answer.is_withheld and outcomes["item-9"].answer.is_truncated
    others = [outcomes[f"item-{i}"] for i in range(30) if i not in (7, 8, 9)]
    assert all(o.n_attempts == 2 for o in others)
    assert [o.answer.text for o in others] == [f"第{i}句" for i in range(30) if i not in (7, 8, 9)]


def test_a_used_up_account_stops_at_once_and_is_not_asked_again():
    with stub(fails(429, code="insufficient_quota", headers={"Retry_After": "1"})) as server:
        endpoint = Endpoint(f"{server.origin}/v1", "toy", timeout_seconds=30)
        client = ChatClient(endpoint, key=Secret("sk-1234567890"), allowed=AllowList.parse([server.origin]))
        with client, pytest.raises(Stopped, match="account is used up"):
            list(generate_many(items(100), client, limiter_of(2)))
        assert len(server.requests) <= 2
