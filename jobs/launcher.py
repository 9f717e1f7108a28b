"""Between the supervisor and its child: starts the child, and leaves nothing of it behind.

    python -I -S launcher.py COMMAND [ARGUMENT …]

Standard input is a lifeline: when its other end closes, because the supervisor wants that or because it died, the child
and everything it started are killed. SIGTERM is passed on to the child alone, which may stop in its own time. When the
child ends, what it left running is killed, and the launcher ends as the child did: same exit code, or same signal.
If the launcher itself is killed, the kernel kills the child; the supervisor looks for what the child had started.

A file of its own, standard library only: it must start in milliseconds, and it holds no memory worth speaking of.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it


def main(argv: list[str]) -> None:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the child leaves behind becomes ours, daemons too
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGCHLD, *TO_STOP):
        signal.signal(number, lambda *_: None)
    child = _start(argv)
    _to_null(1, os.O_WRONLY)  # so that the supervisor's pipes end with the child
    _to_null(2, os.O_WRONLY)
    status = None
    while status is None:
        ready, _, _ = select.select([0, wake_read], [], [])
        if 0 in ready:
            break
        if set(os.read(wake_read, 512)) & set(TO_STOP):
            os.kill(child, signal.SIGTERM)  # not yet reaped, so the number is still its own
        pid, found = os.waitpid(child, os.WNOHANG)
        status = found if pid else None
    _end_all()
    _end_as(signal.SIGKILL if status is None else status)


def _start(argv: list[str]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")  # where memory runs out, the kernel should take this one and not the worker
        for number in (signal.SIGCHLD, signal.SIGPIPE, *TO_STOP):
            signal.signal(number, signal.SIG_DFL)
        _to_null(0, os.O_RDONLY)
        os.execvp(argv[0], argv)  # noqa: S606  (no shell is what we want)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
    finally:
        os._exit(1)


def _end_all() -> None:
    """Kill and reap until nobody is left. A killed parent hands its children to us, hence the loop."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _children() -> list[int]:
    """Our direct children. Each is alive or waits to be reaped by us, so no number here can be a stranger's."""
    own, found = str(os.getpid()), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                if file.read().rpartition(")")[2].split()[1] == own:
                    found.append(int(name))
    return found


def _end_as(status: int) -> None:
    """End with the child's exit code, or by the signal that ended it."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _to_null(descriptor: int, flags: int) -> None:
    null = os.open(os.devnull, flags)
    os.dup2(null, descriptor)
    os.close(null)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    main(sys.argv[1:])
