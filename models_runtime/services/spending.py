"""DatabaseLedger: what an endpoint may cost and has cost, in the database, so that no crash overspends."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Model

from models_runtime.endpoints.budget import EXACT, Totals, total
from models_runtime.models import BaseReservation, BatchPart

PAUSE_SECONDS = 0.05
T = TypeVar("T")


class DatabaseThread:
    """One thread with a connection of its own, for the many threads of a batch that must not share one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch-database")

    def call(self, act: Callable[[], T]) -> T:
        """What `act` returns or raises, done in the thread; again while the database does not answer.

        That is for as long as a lease lasts: after it, the job is somebody else's.
        """
        return self._pool.submit(patiently, act).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.submit(lambda: connection.close())  # the thread's own: `connection` is another one in each thread
        self._pool.shutdown()


def patiently(act: Callable[[], T]) -> T:
    """What `act` returns, again while the database does not answer, but not for longer than a lease lasts."""
    deadline = time.monotonic() + settings.JOB_LEASE_SECONDS
    while True:
        try:
            return act()
        except (OperationalError, InterfaceError):
            if time.monotonic() > deadline:
                raise
            connection.close_if_unusable_or_obsolete()
            time.sleep(PAUSE_SECONDS)


class DatabaseLedger:
    """The SpendLedger of a row that owns reservations, such as a part. The sums stand in it; every change locks it."""

    def __init__(self, owner_id: int, database: DatabaseThread, *, owners: type[Model] = BatchPart) -> None:
        self._owners: Any = owners._default_manager
        self._owner_id = owner_id
        self._database = database

    def try_reserve(self, key: str, amount: Decimal, *, limit: Decimal) -> bool:
        """See SpendLedger. Asking again with the same key, after a lost answer, reserves once."""

        @transaction.atomic
        def reserve() -> bool:
            owner = self._locked()
            if owner.reservations.filter(key=key).exists():
                return True
            reserved = EXACT.add(Decimal(owner.reserved), amount)
            if EXACT.add(Decimal(owner.spent), reserved) > limit:
                return False
            owner.reservations.create(key=key, amount=str(amount))
            owner.reserved = str(reserved)
            owner.save(update_fields=["reserved"])
            return True

        return self._database.call(reserve)

    def settle(self, key: str, amount: Decimal, *, is_certain: bool) -> None:
        """See SpendLedger."""
        state = BaseReservation.State.CERTAIN if is_certain else BaseReservation.State.UNCERTAIN

        @transaction.atomic
        def settle() -> None:
            owner = self._locked()
            row = owner.reservations.get(key=key)
            if row.state != BaseReservation.State.RESERVED:
                return  # done before the answer was lost
            owner.reserved = str(EXACT.subtract(Decimal(owner.reserved), Decimal(row.amount)))
            owner.spent = str(EXACT.add(Decimal(owner.spent), amount))
            owner.save(update_fields=["reserved", "spent"])
            row.amount, row.state = str(amount), state
            row.save(update_fields=["amount", "state"])

        self._database.call(settle)

    def settle_lost(self) -> int:
        """See SpendLedger."""

        @transaction.atomic
        def settle() -> int:
            owner = self._locked()
            lost = owner.reservations.filter(state=BaseReservation.State.RESERVED)
            amounts = [Decimal(amount) for amount in lost.values_list("amount", flat=True)]
            n: int = lost.update(state=BaseReservation.State.UNCERTAIN)
            owner.spent, owner.reserved = str(total([Decimal(owner.spent), *amounts])), "0"
            owner.save(update_fields=["reserved", "spent"])
            return n

        return self._database.call(settle)

    def totals(self) -> Totals:
        """See SpendLedger."""
        owner = self._database.call(lambda: self._owners.get(pk=self._owner_id))
        return Totals(Decimal(owner.spent), Decimal(owner.reserved))

    def _locked(self) -> Any:
        return self._owners.select_for_update().get(pk=self._owner_id)
