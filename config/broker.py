"""The broker in a folder, as kombu has it, but it outlives the loss of its folder.

kombu's own ends the worker when the folder goes, and drops messages without a word when it has forgotten which queue
belongs to which exchange. Here the folder is made anew, and a queue is found by its name, which is its exchange's too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kombu.transport import filesystem

_Channel: Any = filesystem.Channel  # kombu has few types
_Transport: Any = filesystem.Transport


class Channel(_Channel):  # type: ignore[misc]
    def _get(self, queue: str) -> Any:
        self._make_folders()
        return super()._get(queue)

    def _put(self, queue: str, payload: Any, **options: Any) -> None:
        self._make_folders()
        super()._put(queue, payload, **options)

    def _size(self, queue: str) -> int:
        self._make_folders()
        return int(super()._size(queue))

    def get_table(self, exchange: str) -> list[Any]:
        found = list(super().get_table(exchange))
        if not found and self.typeof(exchange).type == "direct":
            return [filesystem.exchange_queue_t(exchange, "", exchange)]
        return found

    def _make_folders(self) -> None:
        for folder in (self.data_folder_in, self.data_folder_out, self.control_folder):
            Path(folder).mkdir(parents=True, exist_ok=True)


class Transport(_Transport):  # type: ignore[misc]
    Channel = Channel
    # What is wrong with the disk may be over soon: try again, as with a connection.
    connection_errors = (*filesystem.Transport.connection_errors, OSError)
