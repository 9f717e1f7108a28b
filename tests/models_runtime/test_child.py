"""What the parent of a child process sees: lines of JSON, exit codes, a child that listens. Without torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models_runtime.engine.child import read_job
from models_runtime.engine.protocol import NOBODY_READS, BadJob

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import sys, time
from models_runtime.engine.child import as_child
def body(child):
    child.heed_signals()
    print("a library's chatter")
    child.emit({"text": "你好"})
    while not child.is_asked_to_stop:
        {what}
    return 3
sys.exit(as_child(body, lambda error: (70, type(error).__name__, False), traced=(70,)))
"""


def start(what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.replace("{what}", what)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_says_what_it_means_to_say_and_stops_when_asked():
    child = start("time.sleep(0.01)")
    assert child.stdout is not None
    assert json.loads(child.stdout.readline()) == {"text": "你好"}
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (3, "", "a library's chatter\n")


def test_its_last_words_are_of_the_error_and_the_log_has_the_rest():
    out, err = (child := start("raise KeyError('x')")).communicate(timeout=60)
    words = {"type": "failed", "error_class": "KeyError", "error": "'x'", "is_final": False, "exit_code": 70}
    assert (child.returncode, json.loads(out.splitlines()[-1])) == (70, words)
    assert "Traceback" in err


@pytest.mark.parametrize(("what", "code"), [("child.emit({})", NOBODY_READS), ("1 / 0", 70)])
def test_it_ends_where_nobody_reads_any_more(what, code):
    child = start(f"time.sleep(0.5); {what}")
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=60) == code
    assert child.stderr is not None
    with child.stderr as log:
        assert "BrokenPipe" not in log.read()


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("{", "cannot be read"), ("[]", "usage")])
def test_a_job_that_cannot_be_read_is_named(tmp_path, content, said):
    path = tmp_path / "job.json"
    if content:
        path.write_text(content)
    argv = [str(path)] * (2 if said == "usage" else 1)
    with pytest.raises(BadJob, match=said):
        read_job(argv, lambda data: data, BadJob, module="some.worker")
