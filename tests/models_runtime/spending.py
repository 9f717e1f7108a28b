"""A spend ledger in an SQLite file, as a database would keep it; run as a program, somebody who dies while spending.

python -m tests.models_runtime.spending FILE LIMIT N    reserve N times 1, settle every second one, then die by SIGKILL
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from models_runtime.endpoints.budget import Totals, total


class SqliteLedger:
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connect() as connection:
            connection.execute("create table if not exists spend (key text primary key, amount text, state text)")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30, isolation_level=None)

    def try_reserve(self, key: str, amount: Decimal, *, limit: Decimal) -> bool:
        with closing(self._connect()) as connection:
            connection.execute("begin immediate")
            fits = total([amount, *self._totals(connection)]) <= limit
            if fits:
                connection.execute("insert into spend values (?, ?, 'reserved')", (key, str(amount)))
            connection.execute("commit")
            return fits

    def settle(self, key: str, amount: Decimal, *, is_certain: bool) -> None:
        state = "certain" if is_certain else "uncertain"
        with closing(self._connect()) as connection:
            done = connection.execute(
                "update spend set amount = ?, state = ? where key = ? and state = 'reserved'", (str(amount), state, key)
            )
            assert done.rowcount == 1

    def settle_lost(self) -> int:
        with closing(self._connect()) as connection:
            return connection.execute("update spend set state = 'uncertain' where state = 'reserved'").rowcount

    def totals(self) -> Totals:
        with closing(self._connect()) as connection:
            return self._totals(connection)

    def _totals(self, connection: sqlite3.Connection) -> Totals:
        rows = connection.execute("select amount, state = 'reserved' from spend").fetchall()
        return Totals(
            total(Decimal(amount) for amount, is_open in rows if not is_open),
            total(Decimal(amount) for amount, is_open in rows if is_open),
        )

    def states(self) -> list[str]:
        with closing(self._connect()) as connection:
            return [state for (state,) in connection.execute("select state from spend order by rowid")]


if __name__ == "__main__":
    ledger, limit = SqliteLedger(Path(sys.argv[1])), Decimal(sys.argv[2])
    for number in range(int(sys.argv[3])):
        key = f"{os.getpid()}-{number}"
        if ledger.try_reserve(key, Decimal(1), limit=limit) and number % 2:
            ledger.settle(key, Decimal("0.5"), is_certain=True)
    os.kill(os.getpid(), signal.SIGKILL)
