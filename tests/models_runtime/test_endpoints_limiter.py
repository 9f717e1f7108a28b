"""How fast an endpoint is asked, told with a clock that moves only when somebody waits."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_runtime.endpoints.errors import EndpointError, Kind
from models_runtime.endpoints.limiter import (
    MAX_BACKOFF_SECONDS,
    Closed,
    Limiter,
    Limits,
    Pacer,
    backoff,
)
from models_runtime.endpoints.values import Answer, RateHints, Usage

NO_HINTS = RateHints()


class FakeClock:
    """Time passes when somebody waits, and at once."""

    def __init__(self) -> None:
        self.time = 100.0
        self.waits: list[float | None] = []

    def now(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        assert seconds is not None, "waits for another request, and there is none in this story"
        self.waits.append(seconds)
        self.time += seconds


def answer(rate: RateHints = NO_HINTS) -> Answer:
    return Answer("好", "stop", Usage(5, 5), "toy", "", "", 0.1, rate)


def limiter_of(clock: FakeClock, **limits) -> Limiter:
    return Limiter(Limits(**limits), rng=random.Random(1), clock=clock)


def pacer_of(now: float = 0.0, **limits) -> Pacer:
    return Pacer(Limits(**limits), random.Random(1), now=now)


# --- additive increase, multiplicative decrease


def test_good_answers_let_one_more_go_at_once_per_round():
    pacer = pacer_of(start_concurrency=2, max_concurrency=5)
    rounds = []
    for _ in range(6):
        rounds.append(pacer.concurrency)
        for _ in range(rounds[-1]):
            pacer.good(NO_HINTS, 0.0)
    assert rounds == [2, 2, 3, 4, 5, 5]
    assert pacer.concurrency == 5


def test_a_refusal_halves_and_the_others_of_its_round_do_not_halve_again():
    pacer = pacer_of(start_concurrency=8, max_concurrency=8)
    for _ in range(8):  # all eight were under way when the first was refused
        pacer.refused(1.0, started_at=0.0, now=1.0)
    assert pacer.concurrency == 4
    pacer.refused(1.0, started_at=2.0, now=3.0)
    assert pacer.concurrency == 2


def test_one_request_is_always_allowed():
    pacer = pacer_of(start_concurrency=1, max_concurrency=4)
    for second in range(10):
        pacer.refused(0.0, started_at=float(second), now=float(second))
    assert pacer.concurrency == 1


def test_it_finds_a_limit_that_nobody_told():
    """A server that refuses whatever goes beyond six at once: the rounds stay near it, without knowing."""
    pacer, now, rounds = pacer_of(start_concurrency=1, max_concurrency=64), 0.0, []
    for _ in range(400):
        n = pacer.concurrency
        rounds.append(n)
        for number in range(n):
            if number < 6:
                pacer.good(NO_HINTS, now + 1)
            else:
                pacer.refused(0.0, started_at=now, now=now + 1)
        now += 2
    late = rounds[100:]
    assert max(late) <= 8 and min(late) >= 3 and sum(late) / len(late) > 4


# --- rates


def started(limiter: Limiter, clock: FakeClock, n: int, n_tokens: int = 1) -> list[float]:
    """When n requests started, each of which is back at once."""
    times = []
    for _ in range(n):
        permit = limiter.acquire(n_tokens)
        times.append(clock.time - 100.0)
        limiter.release(permit, usage=Usage(n_tokens, 0), result=answer())
    return times


def test_requests_per_minute_are_kept_after_a_short_burst():
    clock = FakeClock()
    times = started(limiter_of(clock, requests_per_minute=60), clock, 20)
    assert times[:5] == [0.0] * 5  # five seconds' worth
    assert times[5:] == pytest.approx(list(range(1, 16)))


def test_tokens_per_minute_are_kept():
    clock = FakeClock()
    times = started(limiter_of(clock, tokens_per_minute=6000), clock, 20, n_tokens=250)  # 100 a second
    assert times[:2] == [0.0, 0.0]
    assert times[-1] == pytest.approx((20 * 250 - 500) / 100)


def test_a_request_bigger_than_the_burst_goes_and_the_next_one_waits_for_it():
    clock = FakeClock()
    times = started(limiter_of(clock, tokens_per_minute=600), clock, 2, n_tokens=1000)
    assert times == pytest.approx([0.0, 100.0])


def test_tokens_that_were_not_used_come_back():
    clock = FakeClock()
    limiter = limiter_of(clock, tokens_per_minute=6000)
    for _ in range(10):
        permit = limiter.acquire(500)
        limiter.release(permit, usage=Usage(10, 10), result=answer())
    assert clock.time - 100.0 == pytest.approx((9 * 20) / 100)


@settings(max_examples=40, deadline=None)
@given(st.floats(1, 1000), st.floats(10, 100_000), st.lists(st.integers(1, 3000), min_size=2, max_size=30))
def test_no_span_of_time_sees_more_than_the_rate_and_one_burst(requests, tokens, sizes):
    clock = FakeClock()
    limiter = limiter_of(clock, requests_per_minute=requests, tokens_per_minute=tokens)
    log = []
    for size in sizes:
        permit = limiter.acquire(size)
        log.append((clock.time, size))
        limiter.release(permit, usage=Usage(size, 0), result=answer())
    for first, (begin, _) in enumerate(log):
        for last in range(first, len(log)):
            seconds = log[last][0] - begin
            n, n_tokens = last - first + 1, sum(size for _, size in log[first:last])  # the last may overdraw
            assert n <= max(1, requests / 12) + seconds * requests / 60 + 1 + 1e-6
            assert n_tokens <= max(1, tokens / 12) + seconds * tokens / 60 + max(sizes) + 1e-6


# --- pauses


def refusal(seconds: float | None, kind: Kind = Kind.RATE) -> EndpointError:
    return EndpointError(kind, "slower", retry_after_seconds=seconds)


@pytest.mark.parametrize("kind", [Kind.RATE, Kind.OVERLOADED])
def test_retry_after_pauses_everybody_for_that_long_and_a_little(kind):
    clock = FakeClock()
    limiter = limiter_of(clock)
    limiter.release(limiter.acquire(1), usage=None, result=refusal(7.0, kind))
    assert 7.0 <= limiter.snapshot().pause_seconds <= 7.7
    limiter.acquire(1)
    assert 107.0 <= clock.time <= 107.7


def test_refusals_without_a_word_wait_longer_and_longer_but_at_most_a_minute():
    waits = []
    for seed in range(200):
        pacer, now = Pacer(Limits(), random.Random(seed), now=0.0), 0.0
        row = []
        for _ in range(10):
            pacer.refused(None, started_at=now, now=now)
            row.append(pacer.pause_left(now))
            now += row[-1]
        waits.append(row)
    means = [sum(column) / len(column) for column in zip(*waits, strict=True)]
    assert means[:6] == sorted(means[:6])
    assert means[0] == pytest.approx(0.5, rel=0.2)  # full jitter: the mean is half of the bound
    assert means[9] == pytest.approx(MAX_BACKOFF_SECONDS / 2, rel=0.2)
    assert max(map(max, waits)) <= MAX_BACKOFF_SECONDS + 1


def test_an_answer_ends_the_row_of_refusals():
    pacer = pacer_of()
    for second in range(8):
        pacer.refused(None, started_at=float(second), now=float(second))
    pacer.good(NO_HINTS, 500.0)
    pacer.refused(None, started_at=500.0, now=500.0)
    assert pacer.pause_left(500.0) <= 1.1


def test_an_endpoint_that_says_it_is_used_up_is_left_alone_until_it_is_not():
    clock = FakeClock()
    limiter = limiter_of(clock)
    used_up = RateHints(requests_left=0, requests_reset_seconds=4.0, tokens_left=900, tokens_reset_seconds=50.0)
    limiter.release(limiter.acquire(1), usage=None, result=answer(used_up))
    limiter.acquire(1)
    assert clock.time == pytest.approx(104.0)


def test_trouble_of_the_server_slows_down_without_a_pause():
    clock = FakeClock()
    limiter = limiter_of(clock, start_concurrency=8)
    limiter.release(limiter.acquire(1), usage=None, result=EndpointError(Kind.OVERLOADED, "500"))
    assert limiter.snapshot() == (4, 0, 0.0)


def test_an_item_that_failed_waits_by_itself():
    clock = FakeClock()
    limiter = limiter_of(clock)
    limiter.acquire(1, not_before=103.5)
    assert clock.waits == [3.5] and limiter.snapshot().pause_seconds == 0.0


@given(st.integers(1, 1000), st.integers(0, 2**32))
def test_backoff_is_never_more_than_its_bound(n_failed, seed):
    assert 0 <= backoff(n_failed, random.Random(seed)) <= min(MAX_BACKOFF_SECONDS, 2.0 ** min(n_failed - 1, 10))


def test_the_same_seed_waits_the_same():
    assert [backoff(n, random.Random(3)) for n in range(9)] == [backoff(n, random.Random(3)) for n in range(9)]


# --- threads


def test_no_more_are_under_way_than_allowed():
    limiter = Limiter(Limits(max_concurrency=3, start_concurrency=3), rng=random.Random(1))
    now, most, lock = [0], [0], threading.Lock()
    barrier = threading.Event()

    def work() -> None:
        for _ in range(20):
            permit = limiter.acquire(1)
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            barrier.wait(0.001)
            with lock:
                now[0] -= 1
            limiter.release(permit, usage=None, result=answer())

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 3 and limiter.snapshot().n_under_way == 0


def test_closing_wakes_whoever_waits():
    limiter = Limiter(Limits(), rng=random.Random(1))
    limiter.release(limiter.acquire(1), usage=None, result=refusal(500.0))
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(Closed):
            limiter.acquire(1)
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    limiter.close()
    assert ended.wait(10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_concurrency": 0},
        {"start_concurrency": 9, "max_concurrency": 8},
        {"requests_per_minute": 0},
        {"tokens_per_minute": float("nan")},
    ],
)
def test_limits_that_let_nothing_through_are_refused(wrong):
    with pytest.raises(ValueError, match=r"under way|above 0"):
        Limits(**wrong)
