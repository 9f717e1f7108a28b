"""run_child: one child process for one job. Started, listened to, stopped gently or hard, and no orphan left.

    worker (Celery) ──lifeline, SIGTERM──► launcher ──PDEATHSIG, SIGTERM──► child ──► what it starts
           ◄──────────────── JSON lines on stdout, log on stderr ───────────┘

Whatever dies, the rest goes with it: the launcher sees its lifeline close when the worker dies, even by SIGKILL; the
kernel kills the child when the launcher dies; and every process carries the job's mark in its environment, by which
what escaped both is found: at the end of a run, and before the next attempt of the same job on this machine.

The child writes one JSON object per line. Two types are understood here, all others go to `on_message`:

    {"type": "progress", "n_done": 3, "n_total": 9, "message": "…"}       for the job's row; every field may be left out
    {"type": "failed", "error_class": "…", "error": "…", "is_final": true}   last words before an exit code other than 0
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from jobs.errors import (
    BadOutput,
    CancelRequested,
    ChildFailed,
    CouldNotStart,
    Crashed,
    DiskFull,
    Killed,
    LostLease,
    OutOfMemory,
    Silent,
    Unkillable,
)
from jobs.launcher import NOT_EXECUTABLE, NOT_FOUND
from jobs.logs import Log, log_path
from jobs.registry import RunningJob

Message = dict[str, Any]

MARK = "QINGTING_JOB"  # the job's public id, in the environment of everything it starts
LAUNCHER = Path(__file__).with_name("launcher.py")
LONGEST_LINE_BYTES = 8 * 1024 * 1024
LOOK_SECONDS = 0.2  # between looks at clock and database while the child says nothing
KILL_SECONDS = 10.0  # for a killed process to be gone

# A child needs no keys and no database: of the worker's environment it gets what finds programs, devices and models.
_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH")
_PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "PYTORCH_", "HF_", "OMP_", "MKL_", "ROCR_", "HIP_")
# What programs say when a resource is used up, in lower case.
_OUT_OF_MEMORY = ("out of memory", "outofmemoryerror", "memoryerror", "std::bad_alloc", "can't allocate memory")
_DISK_FULL = ("no space left on device", "disk quota exceeded", "file too large")


@dataclass(frozen=True)
class ChildResult:
    """How a child ended that did its work. `n_messages` counts what went to `on_message`; log: its standard error."""

    n_messages: int
    seconds: float
    log: Path


def run_child(
    running: RunningJob,
    argv: Sequence[str],
    *,
    on_message: Callable[[Message], None] = lambda message: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    n_before: int = 0,
    grace_seconds: float = 60,
    silent_seconds: float = 900,
) -> ChildResult:
    """Run `argv` for a job until it ends, keeping the job's lease; what it did comes by `on_message`, in order.

    on_message: called in this thread with each JSON object, one at a time; while it works the child waits in its
        pipe. Whatever it raises stops the child. When the database does not answer (OperationalError) it is called
        again with the same message for as long as the lease lasts: let it be one transaction, and harmless twice.
    env: added to the few variables that are passed on. cwd: the project's folder if not given.
    n_before: what earlier attempts did; added to the child's counts, which know only its own work.
    grace_seconds: between SIGTERM and SIGKILL when a person cancels or the worker is stopped.
    silent_seconds: without a byte on stdout or stderr the child is taken for dead, and killed.

    Raises CancelRequested once the child has stopped for it, LostLease, or ChildFailed by class: see jobs.errors.
    """
    end_leftovers(str(running.public_id))  # of an attempt whose worker and launcher were both killed
    child = _Child(running, argv, on_message, env or {}, cwd or Path(settings.BASE_DIR), n_before, silent_seconds)
    try:
        try:
            child.watch(grace_seconds)
        except (SystemExit, KeyboardInterrupt):  # the worker is told to stop: let the child keep what it has
            child.ask_to_stop(grace_seconds)
            child.watch(grace_seconds)
            raise
    finally:
        child.end()
    return child.result()


def end_leftovers(mark: str) -> int:
    """Kill every process on this machine that carries a job's mark; how many there were. Raises Unkillable."""
    wanted = f"{MARK}={mark}".encode()
    found: set[int] = set()
    deadline = time.monotonic() + KILL_SECONDS
    while left := {pid for pid in _pids() if _kill_if_marked(pid, wanted)}:
        found |= left
        if time.monotonic() > deadline:
            numbers = ", ".join(map(str, sorted(left)))
            raise Unkillable(f"still there {KILL_SECONDS:.0f} s after SIGKILL: process {numbers}")
        time.sleep(0.01)
    return len(found)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except FileNotFoundError:  # not Linux
        return []


def _kill_if_marked(pid: int, wanted: bytes) -> bool:
    try:
        handle = os.pidfd_open(pid)  # names this very process, also if its number is given to another one meanwhile
    except OSError:
        return False
    try:
        if wanted not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:  # it ended just now, or is somebody else's
        return False
    finally:
        os.close(handle)


class _Child:
    """The child while it runs, and what is known of it."""

    def __init__(
        self,
        running: RunningJob,
        argv: Sequence[str],
        on_message: Callable[[Message], None],
        env: Mapping[str, str],
        cwd: Path,
        n_before: int,
        silent_seconds: float,
    ) -> None:
        self.running = running
        self.on_message = on_message
        self.n_before = n_before
        self.silent_seconds = silent_seconds
        self.log = Log(log_path(running.public_id))
        self.log.write(f"--- attempt {running.attempt}, {timezone.now():%Y-%m-%d %H:%M:%S} UTC\n".encode())
        self.started_at = self.heard_at = self.held_at = time.monotonic()
        self.n_ooms = _n_ooms()
        self.n_messages = 0
        self.last_words: Message = {}
        self.failure: ChildFailed | None = None  # what we killed it for
        self.is_cancelled = False
        self.kill_at: float | None = None  # unless it is gone by then
        self.killed_at: float | None = None
        self.line = b""
        read_end, write_end = os.pipe()
        self.lifeline: int | None = write_end
        try:
            self.process = subprocess.Popen(  # noqa: S603  (argv is the code's own, and no shell reads it)
                [sys.executable, "-I", "-S", str(LAUNCHER), *argv],
                stdin=read_end,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env={**_passed_on(), **env, MARK: str(running.public_id)},
                start_new_session=True,
            )
        except OSError as error:
            os.close(write_end)
            raise CouldNotStart(str(error)) from error
        finally:
            os.close(read_end)
        stdout, stderr = cast(IO[bytes], self.process.stdout), cast(IO[bytes], self.process.stderr)
        self.streams = (stdout, stderr)
        self.pipes = selectors.DefaultSelector()
        self.pipes.register(stdout, selectors.EVENT_READ, self._hear)
        self.pipes.register(stderr, selectors.EVENT_READ, self.log.write)

    # --- while it runs ---

    def watch(self, grace_seconds: float) -> None:
        """Return when the child is gone and all it said is heard."""
        while not self._is_over():
            self._read(LOOK_SECONDS)
            before = time.monotonic()
            self._patiently(self._beat)
            now = time.monotonic()
            self.heard_at += now - before  # while we wait for the database we do not listen
            if self.is_cancelled and self.kill_at is None:
                self.ask_to_stop(grace_seconds)
            if self.killed_at is not None:
                if now - self.killed_at > KILL_SECONDS:
                    return  # `end` does what is left to do
            elif self.kill_at is not None and now >= self.kill_at:
                self.kill()
            elif now - self.heard_at > self.silent_seconds:
                self.failure = Silent(f"no sign of life for {self.silent_seconds:g} s")
                self.kill()

    def ask_to_stop(self, grace_seconds: float) -> None:
        self.kill_at = time.monotonic() + grace_seconds
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Let the launcher kill all, and leave."""
        if self.lifeline is not None:
            self.killed_at = time.monotonic()
            os.close(self.lifeline)
            self.lifeline = None

    def end(self) -> None:
        """Nothing of the child is left after this. Raises Unkillable."""
        self.kill()
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        finally:
            self.pipes.close()
            for pipe in self.streams:
                pipe.close()
        end_leftovers(str(self.running.public_id))
        self.process.wait(KILL_SECONDS)

    def _is_over(self) -> bool:
        """The launcher is gone and the pipes are empty. It goes last, unless it was killed: then an orphan may be
        holding the pipes, and is killed here."""
        if self.process.poll() is None:
            return False
        end_leftovers(str(self.running.public_id))
        return not self._read(0)

    def _read(self, timeout_seconds: float) -> bool:
        """Take in what was written; whether there was anything."""
        if not self.pipes.get_map():
            time.sleep(timeout_seconds)
            return False
        ready = self.pipes.select(timeout_seconds)
        for key, _events in ready:
            data = os.read(key.fd, 1 << 16)
            self.heard_at = time.monotonic()
            if data:
                key.data(data)
            else:
                self.pipes.unregister(key.fileobj)
        return bool(ready)

    def _hear(self, data: bytes) -> None:
        *lines, self.line = (self.line + data).split(b"\n")
        if len(self.line) > LONGEST_LINE_BYTES:
            lines.append(self.line)
        for line in lines:
            if self.failure is None:  # after a bad line nothing is believed
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self.failure = BadOutput(f"not a JSON object on standard output: {line[:200].decode(errors='replace')!r}")
            self.kill()
        elif message.get("type") == "progress":
            told = {name: message[name] for name in ("n_done", "n_total", "message") if message.get(name) is not None}
            told |= {name: told[name] + self.n_before for name in ("n_done", "n_total") if name in told}
            self._patiently(lambda: self._beat(**told))
        elif message.get("type") == "failed":
            self.last_words = message
        else:
            self.n_messages += 1
            self._patiently(lambda: self._tell(message))
            self._patiently(self._beat)
        self.heard_at = time.monotonic()  # the time that we took is not the child's silence

    def _tell(self, message: Message) -> None:
        try:
            self.on_message(message)
        except CancelRequested:
            self.is_cancelled = True

    def _beat(self, **told: Any) -> None:
        try:
            is_written = self.running.heartbeat(**told)
        except CancelRequested:
            self.is_cancelled = is_written = True
        if is_written:
            self.held_at = time.monotonic()

    def _patiently(self, act: Callable[[], None]) -> None:
        """Do it again while the database does not answer and the lease cannot have ended. Raises LostLease after."""
        while True:
            try:
                return act()
            except (OperationalError, InterfaceError) as error:
                if connection.in_atomic_block:  # the caller's transaction is lost, and so is this attempt
                    raise
                connection.close_if_unusable_or_obsolete()
                if time.monotonic() - self.held_at > settings.JOB_LEASE_SECONDS:
                    raise LostLease from error
                time.sleep(LOOK_SECONDS)

    # --- when it is over ---

    def result(self) -> ChildResult:
        """How it ended, or the exception that says so."""
        if self.failure:
            raise self.failure
        if self.is_cancelled:
            raise CancelRequested
        code = self.process.returncode
        if code == 0 and self.line.strip():
            raise BadOutput("standard output ended in the middle of a line")
        if code == 0:
            return ChildResult(self.n_messages, time.monotonic() - self.started_at, self.log.path)
        raise self._what_went_wrong(code)

    def _what_went_wrong(self, code: int) -> ChildFailed:
        how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        if words := self.last_words:
            error_class = str(words.get("error_class") or "Crashed")
            is_final = bool(words.get("is_final", False))
            kind = {"OutOfMemory": OutOfMemory, "DiskFull": DiskFull}.get(error_class, Crashed)
            return kind(f"{words.get('error') or how}", error_class=error_class, is_final=is_final)
        tail = self.log.tail.decode(errors="replace").rpartition("\n--- attempt")[2]
        lines = [line for line in tail.splitlines()[1:] if line.strip()]
        told = f"{how}: {lines[-1].strip()[:500]}" if lines else how
        tail = tail.lower()
        if code in (NOT_FOUND, NOT_EXECUTABLE) and self.n_messages == 0:
            return CouldNotStart(told)
        if code == -signal.SIGKILL:
            if _n_ooms() > self.n_ooms:
                return OutOfMemory("the system killed it, for the machine ran out of memory")
            return Killed("somebody killed it with SIGKILL")
        if any(sign in tail for sign in _OUT_OF_MEMORY):
            return OutOfMemory(told)
        if any(sign in tail for sign in _DISK_FULL):
            return DiskFull(told)
        return Killed(told) if code in (-signal.SIGTERM, -signal.SIGINT) else Crashed(told)


def _passed_on() -> dict[str, str]:
    # Not settings of ours, hence not config/env.py: what the machine tells every program.
    return {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith(_PASSED_ON_PREFIXES)}


def _n_ooms() -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
