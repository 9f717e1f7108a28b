"""What a batch may cost: an estimate before the start, and a hard stop that holds whatever happens.

Before a request is sent, the most it can cost is reserved in a ledger that outlives this process; afterwards the
reservation is settled at what was charged. Spent and reserved together never pass the limit, so neither threads nor a
crash between two lines can overspend: a reservation that nobody settled counts in full until `settle_lost` says it was
spent. The bound rests on two facts: no tokenizer writes more tokens than bytes, and the endpoint keeps to the limit of
new tokens. Where an endpoint charges more than was reserved all the same, the ledger takes the true figure.

Amounts are exact: Decimal, in the currency of the price, never rounded.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal, Inexact
from functools import reduce
from typing import NamedTuple, Protocol

from models_runtime.endpoints.values import Message, Usage

EXACT = Context(prec=50, traps=[Inexact])
# Special tokens and role names of a chat template around each message, and a system prompt that the template adds.
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 64


@dataclass(frozen=True)
class Price:
    """What a provider charges, as somebody entered it; amounts per million tokens, `since` when they were looked up."""

    currency: str
    input_per_million: Decimal
    output_per_million: Decimal
    since: date

    def __post_init__(self) -> None:
        for amount in (self.input_per_million, self.output_per_million):
            if not amount.is_finite() or amount < 0:
                raise ValueError(f"A price is a number of {self.currency} per million tokens, 0 or more: got {amount}.")

    def of(self, usage: Usage) -> Decimal:
        """The cost of these tokens."""
        return EXACT.add(
            EXACT.multiply(usage.prompt_tokens, self.input_per_million).scaleb(-6, EXACT),
            EXACT.multiply(usage.completion_tokens, self.output_per_million).scaleb(-6, EXACT),
        )


class Totals(NamedTuple):
    """What a ledger holds: settled, and reserved but not settled yet."""

    spent: Decimal
    reserved: Decimal


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
    return reduce(EXACT.add, amounts, Decimal(0))


class SpendLedger(Protocol):
    """Where reservations are kept. Called from many threads; atomic; durable when it returns."""

    def try_reserve(self, key: str, amount: Decimal, *, limit: Decimal) -> bool:
        """Reserve `amount` if spent + reserved + amount ≤ limit; whether it was."""

    def settle(self, key: str, amount: Decimal, *, is_certain: bool) -> None:
        """Replace the reservation by what was spent. is_certain: False where the endpoint did not say."""

    def settle_lost(self) -> int:
        """Settle in full, as uncertain, what a crashed process left reserved; how many. For the one who starts anew."""

    def totals(self) -> Totals:
        """Spent and reserved."""


class MemoryLedger:
    """A ledger for a notebook: it ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Decimal] = {}
        self._spent = Decimal(0)

    def try_reserve(self, key: str, amount: Decimal, *, limit: Decimal) -> bool:
        """See SpendLedger."""
        with self._lock:
            fits = total([self._spent, amount, *self._open.values()]) <= limit
            if fits:
                self._open[key] = amount
            return fits

    def settle(self, key: str, amount: Decimal, *, is_certain: bool) -> None:
        """See SpendLedger."""
        with self._lock:
            del self._open[key]
            self._spent = EXACT.add(self._spent, amount)

    def settle_lost(self) -> int:
        """See SpendLedger."""
        with self._lock:
            self._spent, n = total([self._spent, *self._open.values()]), len(self._open)
            self._open.clear()
            return n

    def totals(self) -> Totals:
        """See SpendLedger."""
        with self._lock:
            return Totals(self._spent, total(self._open.values()))


@dataclass(frozen=True)
class Reservation:
    """Room for one request."""

    key: str
    amount: Decimal


class Budget:
    """A price, a limit and a ledger. Threads may share it."""

    def __init__(self, price: Price, *, limit: Decimal, ledger: SpendLedger) -> None:
        if not limit.is_finite() or limit <= 0:
            raise ValueError(f"A budget is an amount above 0: got {limit}.")
        self.price = price
        self.limit = limit
        self._ledger = ledger

    def reserve(self, messages: Sequence[Message], max_new_tokens: int) -> Reservation | None:
        """Room for this request at its worst; None if it does not fit (while others are under way, it may yet)."""
        amount = self.price.of(Usage(most_prompt_tokens(messages), max_new_tokens))
        key = uuid.uuid4().hex
        return Reservation(key, amount) if self._ledger.try_reserve(key, amount, limit=self.limit) else None

    def settle(self, reservation: Reservation, usage: Usage | None) -> Decimal:
        """Note what the request cost, and return it; usage None = the endpoint did not say, so all of it."""
        spent = reservation.amount if usage is None else self.price.of(usage)
        self._ledger.settle(reservation.key, spent, is_certain=usage is not None)
        return spent

    def totals(self) -> Totals:
        """Spent and reserved so far."""
        return self._ledger.totals()


class SpendEstimate(NamedTuple):
    """What a batch will take. cost: with the usual length of an answer; worst_cost: with every answer at its limit."""

    n_requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    worst_cost: Decimal


def estimate(
    dialogues: Sequence[Sequence[Message]], price: Price, *, usual_new_tokens: int, max_new_tokens: int
) -> SpendEstimate:
    """A guess before the start, from the texts alone; retries are not in it."""
    prompt = sum(likely_prompt_tokens(messages) for messages in dialogues)
    n = len(dialogues)
    worst = sum(most_prompt_tokens(messages) for messages in dialogues)
    return SpendEstimate(
        n,
        prompt,
        n * usual_new_tokens,
        price.of(Usage(prompt, n * usual_new_tokens)),
        price.of(Usage(worst, n * max_new_tokens)),
    )


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """More tokens than any tokenizer makes of these messages: one per byte, and the template around them."""
    n_bytes = sum(len(message.content.encode()) for message in messages)
    return n_bytes + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REQUEST


def likely_prompt_tokens(messages: Sequence[Message]) -> int:
    """About as many tokens as today's tokenizers make: one per Chinese character, one per four others, five a turn."""
    text = "".join(message.content for message in messages)
    n_wide = sum(character >= "\u2e80" for character in text)
    return n_wide + -(-(len(text) - n_wide) // 4) + 5 * len(messages)
