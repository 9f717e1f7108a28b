"""How fast an endpoint is asked: one limiter for all threads of a batch, since a provider counts the account, not us.

Three brakes at once. Rates that somebody entered (requests and tokens per minute) are token buckets. How many requests
are under way follows AIMD: one more per window of good answers, half as many after a refusal, which finds an unknown
limit and stays near it. A pause, from Retry-After or from x-ratelimit headers, stops everybody, because refused
requests count against the limit too.

`Pacer` is the arithmetic: it gets the time and returns seconds. `Limiter` lets threads wait by it. The threads of one
batch share one Limiter. Batches and processes do not: run one job per endpoint at a time, or divide the rates among
them; their AIMD then settles on a fair share (Chiu & Jain 1989), since each of them sees the refusals.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from models_runtime.endpoints.errors import EndpointError, Kind
from models_runtime.endpoints.values import Answer, RateHints, Usage

BURST_SECONDS = 5.0  # how much of a minute's rate may go at once: providers enforce limits on shorter spans
MAX_WAIT_SECONDS = 600.0  # an endpoint that asks for a longer pause ends the batch, which can be resumed then
BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What an endpoint stands. requests and tokens per minute: None where nobody knows."""

    max_concurrency: int = 8
    start_concurrency: int = 2
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.start_concurrency <= self.max_concurrency:
            raise ValueError("Requests under way begin with 1 or more, and not above their maximum.")
        for rate in (self.requests_per_minute, self.tokens_per_minute):
            if rate is not None and not rate > 0:
                raise ValueError(f"A rate per minute is above 0, or left empty: got {rate}.")


class Closed(Exception):
    """The batch is cancelled or stopping: nobody starts a request any more."""


class Snapshot(NamedTuple):
    """How the limiter stands. concurrency: how many may be under way; pause_seconds: until anybody may start."""

    concurrency: int
    n_under_way: int
    pause_seconds: float


class _Bucket:
    """Allows `per_minute` units; may be drawn below zero by one big request, and then refills before the next."""

    def __init__(self, per_minute: float | None, now: float) -> None:
        self._rate = None if per_minute is None else per_minute / 60
        self._capacity = 0.0 if self._rate is None else max(1.0, self._rate * BURST_SECONDS)
        self._level, self._at = self._capacity, now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` can be drawn."""
        if self._rate is None:
            return 0.0
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        missing = min(amount, self._capacity) - self._level
        return missing / self._rate if missing > 1e-9 else 0.0  # a rounding error is no reason to wait

    def draw(self, amount: float) -> None:
        self._level -= amount


class Pacer:
    """The state of the brakes. All times are seconds on one monotonic clock."""

    def __init__(self, limits: Limits, rng: random.Random, *, now: float) -> None:
        self._limits = limits
        self._rng = rng
        self._window = float(limits.start_concurrency)
        self._requests = _Bucket(limits.requests_per_minute, now)
        self._tokens = _Bucket(limits.tokens_per_minute, now)
        self._paused_until = now
        self._cut_at = float("-inf")
        self._n_refused = 0
        self.n_under_way = 0

    @property
    def concurrency(self) -> int:
        """How many requests may be under way."""
        return int(self._window)

    def pause_left(self, now: float) -> float:
        """Seconds until anybody may start."""
        return max(0.0, self._paused_until - now)

    def wait(self, n_tokens: float, now: float) -> float | None:
        """Seconds until a request of this size may start: 0 = now, None = once another one is back."""
        waits = (self.pause_left(now), self._requests.wait(1, now), self._tokens.wait(n_tokens, now))
        if any(waits):
            return max(waits)
        return 0.0 if self.n_under_way < self.concurrency else None

    def start(self, n_tokens: float) -> None:
        """A request starts."""
        self.n_under_way += 1
        self._requests.draw(1)
        self._tokens.draw(n_tokens)

    def end(self, *, excess_tokens: float = 0.0) -> None:
        """A request is back. excess_tokens: drawn at its start, and not used."""
        self.n_under_way -= 1
        self._tokens.draw(-excess_tokens)

    def good(self, hints: RateHints, now: float) -> None:
        """It brought an answer."""
        self._n_refused = 0
        self._window = min(float(self._limits.max_concurrency), self._window + 1 / self._window)
        for left, reset in (
            (hints.requests_left, hints.requests_reset_seconds),
            (hints.tokens_left, hints.tokens_reset_seconds),
        ):
            if left == 0 and reset:
                self._pause(min(reset, MAX_WAIT_SECONDS), now)

    def refused(self, retry_after: float | None, *, started_at: float, now: float) -> None:
        """It was refused for being too much: everybody waits, and fewer go at once."""
        if self.overloaded(started_at=started_at, now=now):
            self._n_refused += 1
        wait = backoff(self._n_refused, self._rng) if retry_after is None else retry_after
        # Jitter goes on top: whoever starts before Retry-After is refused again.
        self._pause(wait + self._rng.uniform(0, min(1.0, 0.1 * wait)), now)

    def overloaded(self, *, started_at: float, now: float) -> bool:
        """The endpoint is in trouble: fewer go at once; whether this was news.

        Requests that started before the last cut say nothing new: they do not cut again.
        """
        if started_at < self._cut_at:
            return False
        self._cut_at = now
        self._window = max(1.0, self._window / 2)
        return True

    def _pause(self, seconds: float, now: float) -> None:
        self._paused_until = max(self._paused_until, now + seconds)


def backoff(n_failed: int, rng: random.Random) -> float:
    """Seconds before the next try: anything from 0 to a bound that doubles with every failure, up to a minute.

    Source: Brooker (2015), Exponential Backoff And Jitter, AWS Architecture Blog ("full jitter").
    """
    return rng.uniform(0, min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(max(n_failed, 1) - 1, 16)))


class Clock(Protocol):
    """Time, and waiting for it; tests bring their own."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait, holding the condition, until notified or `seconds` have passed."""


class MonotonicClock:
    """The real one."""

    def now(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """See Clock."""
        condition.wait(seconds)


@dataclass(frozen=True)
class Permit:
    """The right to send one request."""

    n_tokens: int
    started_at: float


class Limiter:
    """Lets threads start requests when the brakes allow."""

    def __init__(self, limits: Limits, *, rng: random.Random, clock: Clock | None = None) -> None:
        self.limits = limits
        self._clock = clock or MonotonicClock()
        self._rng = rng
        self._pacer = Pacer(limits, rng, now=self._clock.now())
        self._changed = threading.Condition()
        self._is_closed = False

    def acquire(self, n_tokens: int, *, not_before: float | None = None) -> Permit:
        """Wait until a request of about `n_tokens` may start. Every permit is given back by `release`.

        not_before: a time of the limiter's clock; an item that failed waits so by itself. Raises Closed.
        """
        with self._changed:
            while not self._is_closed:
                now = self._clock.now()
                if not_before is not None and not_before > now:
                    self._clock.wait(self._changed, not_before - now)
                    continue
                wait = self._pacer.wait(n_tokens, now)
                if wait == 0.0:
                    self._pacer.start(n_tokens)
                    return Permit(n_tokens, now)
                self._clock.wait(self._changed, wait)
            raise Closed

    def release(self, permit: Permit, *, usage: Usage | None, result: Answer | EndpointError | None) -> None:
        """The request is back. usage: what it used, None if unknown; result: None if it broke on our side."""
        with self._changed:
            now = self._clock.now()
            self._pacer.end(excess_tokens=0 if usage is None else permit.n_tokens - sum(usage))
            if isinstance(result, Answer):
                self._pacer.good(result.rate, now)
            elif result is not None and (result.kind is Kind.RATE or result.retry_after_seconds is not None):
                self._pacer.refused(result.retry_after_seconds, started_at=permit.started_at, now=now)
            elif result is not None and result.kind in (Kind.OVERLOADED, Kind.TIMEOUT):
                self._pacer.overloaded(started_at=permit.started_at, now=now)
            self._changed.notify_all()

    def after_backoff(self, n_failed: int) -> float:
        """When an item that failed `n_failed` times may try again, for `acquire(not_before=…)`."""
        with self._changed:
            return self._clock.now() + backoff(n_failed, self._rng)

    def close(self) -> None:
        """Nobody starts any more; those who wait get Closed at once."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the batch is over."""
        return self._is_closed

    def snapshot(self) -> Snapshot:
        """For the page that shows how it goes."""
        with self._changed:
            pacer = self._pacer
            return Snapshot(pacer.concurrency, pacer.n_under_way, pacer.pause_left(self._clock.now()))
