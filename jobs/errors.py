"""What can end a job's run, by name."""

from __future__ import annotations

from typing import Any


class LostLease(Exception):
    """Another worker holds the job now, or nobody does: whoever gets this must stop and write nothing more."""


class CancelRequested(Exception):
    """A person asked for the job to stop. Raised by a heartbeat, where stopping is safe."""


class Postponed(Exception):
    """The job has been put back into the queue, to begin again later: see ledger.postpone."""


class JobRefused(Exception):
    """The work cannot be done as asked, and trying again would change nothing. `result` says why, for a page."""

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


class UnknownKind(Exception):
    """No handler is registered for a job's kind."""


class ChildFailed(Exception):
    """A child process did not end well. The job is tried again unless `is_final`.

    error_class: what a page calls it: the name that the child gave, else that of the class.
    """

    is_final = False

    def __init__(self, message: str, *, error_class: str = "", is_final: bool | None = None) -> None:
        super().__init__(message)
        self.error_class = error_class or type(self).__name__
        if is_final is not None:
            self.is_final = is_final


class CouldNotStart(ChildFailed):
    """The command is not there or may not be run."""

    is_final = True


class Crashed(ChildFailed):
    """It ended with an exit code other than 0, or by a signal of its own making, such as SIGSEGV."""


class Killed(ChildFailed):
    """Somebody else killed it."""


class OutOfMemory(ChildFailed):
    """The device's memory or the machine's was not enough."""


class DiskFull(ChildFailed):
    """It could not write."""


class BadOutput(ChildFailed):
    """It wrote something else than JSON lines."""


class Silent(ChildFailed):
    """It gave no sign of life for too long, and was killed."""


class Unkillable(ChildFailed):
    """A process of this job is still there after SIGKILL: it hangs in the kernel, and the machine needs a person."""

    is_final = True
