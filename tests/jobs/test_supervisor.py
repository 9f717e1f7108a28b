"""One child process for one job: what it says arrives, how it ends is told apart, and nothing of it stays behind.

The children are small Python programs; every process here is a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import OperationalError

from jobs import ledger, supervisor
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
)
from jobs.ledger import Claim
from jobs.logs import log_path, log_tail
from jobs.models import Job
from jobs.registry import RunningJob
from jobs.supervisor import MARK, end_leftovers, run_child

ROOT = Path(__file__).parents[2]

TELL = """
import json, os, signal, subprocess, sys, time
def tell(**message):
    print(json.dumps(message), flush=True)
"""
# A child with a grandchild in a session of its own and a daemon that let go of everything but its environment.
FAMILY = (
    TELL
    + """
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
sleep = [sys.executable, "-I", "-S", "-c", deaf]
apart = subprocess.Popen(sleep, start_new_session=True)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    daemon = subprocess.Popen(sleep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.write(write, str(daemon.pid).encode())
    os._exit(0)
os.wait()
tell(type="family", child=os.getpid(), launcher=os.getppid(), apart=apart.pid, daemon=int(os.read(read, 20)))
"""
)


def script(code: str, before: str = TELL) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", before + textwrap.dedent(code)]


def is_alive(pid: int) -> bool:
    """Alive, or at least not yet dead: a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


class Held(RunningJob):
    """A job whose lease nobody disputes: these tests are about processes. `beats` keeps what was told."""

    def __init__(self) -> None:
        super().__init__(Claim(0, 1), "test.kind", {}, 1, None)
        self.beats: list[dict] = []
        self.trouble: list[Exception] = []  # what the next heartbeats raise

    def heartbeat(self, **told) -> bool:
        self.beats.append(told)
        if self.trouble:
            raise self.trouble.pop(0)
        return True


@pytest.fixture(autouse=True)
def logs(tmp_path, settings):
    settings.JOB_LOG_DIR = tmp_path / "logs"


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def family(held):
    """After the test none of the family may live; the test fills it in."""
    found: dict[str, int] = {}
    yield found
    assert set(found) >= {"child", "launcher", "apart", "daemon"}
    wait_until(lambda: not any(is_alive(pid) for name, pid in found.items() if name != "type"))


# --- what it says ---------------------------------------------------------------------------------------


def test_what_the_child_says_arrives_in_order_and_its_log_is_kept(held):
    messages = []
    argv = script("""
        print("loading", file=sys.stderr)
        for n in range(1000):
            tell(type="response", n=n, text="听" * 100)
    """)
    result = run_child(held, argv, on_message=messages.append)
    assert [message["n"] for message in messages] == list(range(1000))
    assert messages[0]["text"] == "听" * 100
    assert result.n_messages == 1000
    assert log_tail(held.public_id).splitlines()[1:] == ["loading"]


def test_progress_goes_to_the_jobs_row(held):
    argv = script("""
        tell(type="progress", n_done=3, n_total=9, message="Generating")
        time.sleep(0.5)
    """)
    assert run_child(held, argv).n_messages == 0
    assert [told for told in held.beats if told] == [{"n_done": 3, "n_total": 9, "message": "Generating"}]
    assert len(held.beats) > 1


def test_what_was_done_before_is_added_to_the_childs_counts(held):
    run_child(held, script("tell(type='progress', n_done=3, n_total=9)"), n_before=100)
    assert [told for told in held.beats if told] == [{"n_done": 103, "n_total": 109}]


def test_the_child_gets_no_secrets_no_input_and_its_own_variables(held, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://somebody:secret@host/db")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    messages = []
    argv = script("tell(type='x', env=dict(os.environ), input=sys.stdin.read(), cwd=os.getcwd())")
    run_child(held, argv, on_message=messages.append, env={"QINGTING_X": "1"})
    env = messages[0]["env"]
    assert "DATABASE_URL" not in env
    assert (env["CUDA_VISIBLE_DEVICES"], env["QINGTING_X"], env[MARK]) == ("7", "1", str(held.public_id))
    assert (messages[0]["input"], messages[0]["cwd"]) == ("", str(ROOT))


def test_a_long_log_keeps_its_newest_half_and_no_more(held):
    argv = script("""
        for n in range(60_000):
            print(f"line {n} " + "x" * 50, file=sys.stderr)
    """)
    run_child(held, argv)
    kept = sum(path.stat().st_size for path in log_path(held.public_id).parent.iterdir())
    assert kept <= 2 * 1024 * 1024 + (1 << 16)
    assert log_tail(held.public_id).splitlines()[-1].startswith("line 59999 ")


def test_a_log_that_cannot_be_written_stops_nothing(held, settings, tmp_path):
    (tmp_path / "a file").write_text("")
    settings.JOB_LOG_DIR = tmp_path / "a file" / "logs"
    assert run_child(held, script("print('x', file=sys.stderr); tell(type='x')")).n_messages == 1
    assert log_tail(held.public_id) == ""


# --- how it ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("sys.exit(3)", Crashed, "exit code 3"),
        ("raise ValueError('no such folder')", Crashed, "exit code 1: ValueError: no such folder"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", Crashed, "signal SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", Killed, "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", Killed, "signal SIGTERM"),
        ("raise MemoryError", OutOfMemory, "MemoryError"),
        ("sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB')", OutOfMemory, "2 GiB"),
        ("open('/dev/full', 'w', buffering=1).write('x\\n')", DiskFull, "No space left on device"),
        ("print('hello')", BadOutput, "'hello'"),
        ("print('[1, 2]')", BadOutput, "[1, 2]"),
        ('sys.stdout.write(\'{"type": "x"\')', BadOutput, "in the middle of a line"),
        ("sys.stdout.write('x' * 9_000_000); sys.stdout.flush(); time.sleep(60)", BadOutput, "'xxx"),
    ],
)
def test_an_end_is_called_by_its_name(held, code, error, says):
    with pytest.raises(ChildFailed) as caught:
        run_child(held, script(code))
    assert (type(caught.value), caught.value.error_class) == (error, error.__name__)
    assert says in str(caught.value)
    assert not caught.value.is_final


def test_the_childs_last_words_count_most(held):
    argv = script("tell(type='failed', error_class='WrongWeights', error='no shard 3', is_final=True); sys.exit(5)")
    with pytest.raises(ChildFailed, match="no shard 3") as caught:
        run_child(held, argv)
    assert (caught.value.error_class, caught.value.is_final) == ("WrongWeights", True)


def test_what_an_earlier_attempt_wrote_explains_nothing_now(held):
    with pytest.raises(OutOfMemory):
        run_child(held, script("raise MemoryError"))
    with pytest.raises(Crashed, match=r"^exit code 3$"):
        run_child(held, script("sys.exit(3)"))


@pytest.mark.parametrize("command", ["/no/such/program", "/etc/passwd"])
def test_a_command_that_is_not_there_is_final(held, command):
    with pytest.raises(CouldNotStart) as caught:
        run_child(held, [command])
    assert caught.value.is_final


def test_a_child_out_of_disk_space_says_so(held, tmp_path):
    """A limit on the file's size stands in for a full disk: the write fails in the same place, with another errno."""
    argv = script(f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open({str(tmp_path / "weights")!r}, "w") as file:
            file.write("x" * 100_000)
    """)
    with pytest.raises(DiskFull, match="File too large"):
        run_child(held, argv)


def test_what_on_message_raises_stops_the_child(held, family):
    def take(message):
        family.update(message)
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError):
        run_child(held, script("time.sleep(60)", FAMILY), on_message=take)


# --- who dies, and who goes with it ---------------------------------------------------------------------


def test_nothing_stays_behind_when_the_child_ends_well(held, family):
    run_child(held, script("", FAMILY), on_message=family.update)


@pytest.mark.parametrize("who", ["child", "launcher"])
def test_nothing_stays_behind_when_one_of_them_is_killed(held, family, who):
    def take(message):
        family.update(message)
        os.kill(message[who], signal.SIGKILL)

    with pytest.raises(Killed):
        run_child(held, script("time.sleep(60)", FAMILY), on_message=take)


def test_a_silent_child_is_killed(held, family):
    # Three seconds are far more than its first words take, also on a machine that does much else.
    with pytest.raises(Silent, match=r"3(\.0)? s"):
        run_child(held, script("time.sleep(60)", FAMILY), on_message=family.update, silent_seconds=3.0)


def test_a_slow_reader_is_not_the_childs_silence(held):
    def take(message):
        time.sleep(0.5)

    result = run_child(held, script("for n in range(3): tell(type='x')"), on_message=take, silent_seconds=0.4)
    assert result.n_messages == 3


@pytest.mark.parametrize("who", ["worker", "worker and launcher"])
def test_nothing_stays_behind_when_the_worker_is_killed(family, who):
    """The worker here is a process of its own that supervises; its lifeline breaks as a Celery worker's would."""
    mark = uuid.uuid4()
    code = f"""
        import uuid, sys, json, django
        django.setup()
        from jobs.supervisor import run_child
        from tests.jobs.test_supervisor import FAMILY, Held, script
        held = Held()
        held.public_id = uuid.UUID("{mark}")
        tell = lambda message: print(json.dumps(message), flush=True)
        run_child(held, script("time.sleep(60)", FAMILY), on_message=tell)
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings.test"},
        stdout=subprocess.PIPE,
    )
    with worker:
        family.update(json.loads(worker.stdout.readline()))
        if who == "worker":
            worker.kill()
        else:
            # First the worker is frozen, so that it cannot see to things between the two.
            os.kill(worker.pid, signal.SIGSTOP)
            os.kill(family["launcher"], signal.SIGKILL)
            worker.kill()
            wait_until(lambda: not is_alive(family["child"]))
            assert is_alive(family["apart"]) and is_alive(family["daemon"])  # the one hole: nobody is left to see
            assert end_leftovers(str(mark)) == 2  # the next attempt begins with this


def test_the_next_attempt_ends_what_is_left_of_the_last(held):
    left = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"],
        env={MARK: str(held.public_id)},
        start_new_session=True,
    )
    stranger = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"], env={MARK: str(uuid.uuid4())}
    )
    try:
        wait_until(lambda: MARK.encode() in Path(f"/proc/{left.pid}/environ").read_bytes())
        run_child(held, script("tell(type='x')"))
        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


# --- stopping -------------------------------------------------------------------------------------------

STEPS = """
should_stop = []
signal.signal(signal.SIGTERM, lambda *_: should_stop.append(1))
for step in range(1000):
    time.sleep(0.02)
    tell(type="step", step=step)
    if should_stop:
        tell(type="saved", step=step)
        sys.exit(0)
"""


@pytest.fixture
def claimed(db) -> RunningJob:
    """A job as a worker holds it, ledger and all; every heartbeat is written."""
    job = ledger.enqueue(kind="test.kind", params={})
    claim = ledger.claim(job.pk, worker="w")
    assert claim
    return RunningJob(claim, job.kind, {}, 1, None, job.public_id, seconds_between_beats=0)


def test_a_person_cancels_and_the_child_stops_where_it_is_safe(claimed):
    messages = []

    def take(message):
        messages.append(message)
        if message.get("step") == 5:
            assert ledger.request_cancel(claimed.claim.job_id)

    with pytest.raises(CancelRequested):
        run_child(claimed, script(STEPS), on_message=take)
    assert messages[-1]["type"] == "saved"
    assert messages[-1]["step"] < 100
    assert Job.objects.get(pk=claimed.claim.job_id).state == "running"  # who called ends it
    ledger.cancel(claimed.claim)


def test_a_child_that_does_not_stop_is_killed_after_its_grace(held, family):
    def take(message):
        family.update(message)
        held.trouble = [CancelRequested()] * 1000

    began = time.monotonic()
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n    tell(type='x'); time.sleep(0.05)"
    with pytest.raises(CancelRequested):
        run_child(held, script(code, FAMILY), on_message=take, grace_seconds=0.4)
    assert time.monotonic() - began > 0.4


def test_a_job_that_was_lost_is_dropped_at_once(claimed):
    def take(message):
        Job.objects.filter(pk=claimed.claim.job_id).update(token=99)

    with pytest.raises(LostLease):
        run_child(claimed, script(STEPS), on_message=take)
    assert end_leftovers(str(claimed.public_id)) == 0


def test_a_worker_that_is_told_to_stop_lets_the_child_save(held):
    messages = []

    def take(message):
        messages.append(message)
        if message.get("step") == 3:
            signal.raise_signal(signal.SIGALRM)

    def leave(*_):
        raise SystemExit

    before = signal.signal(signal.SIGALRM, leave)  # as Celery's pool does for SIGTERM
    try:
        with pytest.raises(SystemExit):
            run_child(held, script(STEPS), on_message=take)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert messages[-1]["type"] == "saved"


# --- a database that does not answer --------------------------------------------------------------------


def test_a_locked_database_delays_and_loses_nothing(held, monkeypatch):
    """Heartbeats and writes fail for a while, as they do once SQLite's busy timeout is over."""
    monkeypatch.setattr(supervisor, "connection", Unanswering())
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.01)
    stored, failures = [], iter([True] * 5 + [False] * 1000)

    def take(message):
        if next(failures):
            raise OperationalError("database is locked")
        stored.append(message["n"])

    held.trouble = [OperationalError("database is locked")] * 20
    run_child(held, script("for n in range(50): tell(type='x', n=n)"), on_message=take, silent_seconds=5)
    assert stored == list(range(50))


def test_without_the_database_the_job_is_let_go_when_its_lease_is_over(held, monkeypatch, settings):
    settings.JOB_LEASE_SECONDS = 0.3
    monkeypatch.setattr(supervisor, "connection", Unanswering())
    held.trouble = [OperationalError("database is locked")] * 1000
    with pytest.raises(LostLease):
        run_child(held, script("time.sleep(60)"))
    assert end_leftovers(str(held.public_id)) == 0


class Unanswering:
    """In place of the connection: not in the transaction that wraps a test."""

    in_atomic_block = False

    def close_if_unusable_or_obsolete(self) -> None:
        pass
