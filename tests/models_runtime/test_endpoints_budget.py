"""Money: exact, estimated before the start, and never more than was allowed."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_runtime.endpoints.budget import (
    Budget,
    MemoryLedger,
    Price,
    Totals,
    estimate,
    likely_prompt_tokens,
    most_prompt_tokens,
)
from models_runtime.endpoints.values import Message, Usage
from tests.models_runtime.spending import SqliteLedger

ROOT = Path(__file__).resolve().parents[2]
TODAY = dt.date(2026, 11, 21)
PRICE = Price("USD", Decimal("0.50"), Decimal("1.50"), TODAY)
HELLO = [Message("user", "我睡不着。")]


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    return MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path / "spend.sqlite3")


def test_a_price_is_per_million_tokens_and_exact():
    assert PRICE.of(Usage(1_000_000, 2_000_000)) == Decimal("3.50")
    assert PRICE.of(Usage(1, 1)) == Decimal("0.000002")
    odd = Price("CNY", Decimal("0.333333333333333333"), Decimal("0.1"), TODAY)
    assert odd.of(Usage(3, 3)) == Decimal("0.000001299999999999999999")


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.decimals(0, 10**6, places=9), st.decimals(0, 10**6, places=9))
def test_no_digit_is_ever_lost(n_in, n_out, per_in, per_out):
    """Against fractions of whole numbers, which round nothing."""
    cost = Price("USD", per_in, per_out, TODAY).of(Usage(n_in, n_out))
    assert cost.as_integer_ratio()[0] * 10**15 == (
        (n_in * int(per_in * 10**9) + n_out * int(per_out * 10**9)) * cost.as_integer_ratio()[1]
    )


@pytest.mark.parametrize("amount", ["-0.1", "NaN", "Infinity"])
def test_a_price_that_is_none_is_refused(amount):
    with pytest.raises(ValueError, match="per million tokens"):
        Price("USD", Decimal(amount), Decimal(1), TODAY)


@pytest.mark.parametrize("limit", ["0", "-1", "NaN"])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="above 0"):
        Budget(PRICE, limit=Decimal(limit), ledger=MemoryLedger())


def test_a_reservation_is_for_the_worst_and_settles_at_the_truth(ledger):
    budget = Budget(PRICE, limit=Decimal(1), ledger=ledger)
    reservation = budget.reserve(HELLO, 512)
    worst = PRICE.of(Usage(most_prompt_tokens(HELLO), 512))
    assert reservation is not None and reservation.amount == worst
    assert budget.totals() == Totals(Decimal(0), worst)
    assert budget.settle(reservation, Usage(11, 5)) == Decimal("0.000013")
    assert budget.totals() == Totals(Decimal("0.000013"), Decimal(0))


def test_what_the_endpoint_does_not_say_counts_in_full(tmp_path):
    ledger = SqliteLedger(tmp_path / "spend.sqlite3")
    budget = Budget(PRICE, limit=Decimal(1), ledger=ledger)
    reservation = budget.reserve(HELLO, 512)
    assert budget.settle(reservation, None) == reservation.amount
    assert ledger.states() == ["uncertain"]


def test_the_limit_itself_may_be_spent_and_not_a_digit_more(ledger):
    worst = PRICE.of(Usage(most_prompt_tokens(HELLO), 512))
    budget = Budget(PRICE, limit=3 * worst, ledger=ledger)
    assert [budget.reserve(HELLO, 512) is not None for _ in range(4)] == [True, True, True, False]
    assert budget.totals().reserved == 3 * worst


def test_threads_cannot_pass_the_limit_together(ledger):
    limit = Decimal("0.01")
    budget = Budget(PRICE, limit=limit, ledger=ledger)
    most, lock = [Decimal(0)], threading.Lock()

    def spend() -> None:
        while (reservation := budget.reserve(HELLO, 512)) is not None:
            with lock:
                most[0] = max(most[0], sum(budget.totals()))
            budget.settle(reservation, Usage(90, 500))

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= limit
    spent, reserved = budget.totals()
    assert reserved == 0 and limit - PRICE.of(Usage(most_prompt_tokens(HELLO), 512)) < spent <= limit


def test_processes_that_die_while_spending_cannot_pass_the_limit(tmp_path):
    path, limit = tmp_path / "spend.sqlite3", Decimal("7.5")
    SqliteLedger(path)
    command = [sys.executable, "-m", "tests.models_runtime.spending", str(path), str(limit), "6"]
    spenders = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [spender.wait(60) for spender in spenders] == [-signal.SIGKILL] * 3
    ledger = SqliteLedger(path)
    before = ledger.totals()
    assert before.reserved > 0 and sum(before) <= limit
    n_lost = ledger.settle_lost()
    assert n_lost == before.reserved  # each of them was 1
    assert ledger.totals() == Totals(sum(before), Decimal(0))  # lost, so perhaps charged: never free again


def test_what_a_crash_left_reserved_is_not_forgotten(ledger):
    reservation = Budget(PRICE, limit=Decimal(1), ledger=ledger).reserve(HELLO, 512)
    again = Budget(PRICE, limit=reservation.amount, ledger=ledger)  # the process that starts anew
    assert again.reserve(HELLO, 512) is None
    assert ledger.settle_lost() == 1
    assert again.totals().spent == reservation.amount and again.reserve(HELLO, 512) is None


# --- before the start


def test_an_estimate_adds_up():
    dialogues = [[Message("user", "我睡不着")], [Message("system", "Listen."), Message("user", "我很累，睡不着")]]
    guess = estimate(dialogues, PRICE, usual_new_tokens=120, max_new_tokens=512)
    assert guess.n_requests == 2
    assert guess.prompt_tokens == (4 + 5) + (2 + 7 + 10)
    assert guess.completion_tokens == 240
    assert guess.cost == PRICE.of(Usage(28, 240))
    worst = sum(PRICE.of(Usage(most_prompt_tokens(messages), 512)) for messages in dialogues)
    assert guess.worst_cost == worst > guess.cost


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=40)), min_size=1, max_size=6))
def test_what_is_likely_is_less_than_the_most(turns):
    messages = [Message(*turn) for turn in turns]
    assert likely_prompt_tokens(messages) <= most_prompt_tokens(messages)
