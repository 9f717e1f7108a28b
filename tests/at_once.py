"""at_once: several threads do the same at the same moment, as two clicks or two tabs do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def at_once(n: int, act: Callable[[], T]) -> list[T]:
    """What `act` returned in each of n threads. For tests with `transaction=True`, on PostgreSQL."""
    barrier = threading.Barrier(n)

    def in_a_thread(_number: int) -> T:
        barrier.wait()
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(in_a_thread, range(n)))
