"""What can end a job's run, by name."""

from __future__ import annotations

from typing import Any


class LostLease(Exception):
    """Another worker holds the job now, or nobody does: whoever gets this must stop and write nothing more."""


class CancelRequested(Exception):
    """A person asked for the job to stop. Raised by a heartbeat, where stopping is safe."""


class JobRefused(Exception):
    """The work cannot be done as asked, and trying again would change nothing. `result` says why, for a page."""

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


class UnknownKind(Exception):
    """No handler is registered for a job's kind."""
