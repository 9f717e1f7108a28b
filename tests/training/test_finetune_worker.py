"""The training process from outside: files in, JSON lines and exit codes out, signals in between."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models_runtime.engine.errors import DeviceUnavailable
from models_runtime.engine.loading import load
from tests.models_runtime import tiny
from tests.training.samples import drawn_for_chatglm, some_lengths
from training.corpus.errors import StoreBroken
from training.corpus.store import Span, StoreWriter
from training.finetune import worker
from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig, DeviceTooSmall, LostPeer, RunIsBusy
from training.finetune.loop import claimed
from training.finetune.protocol import DONE, STOP_FILE, STOPPED, FinetuneJob
from training.finetune.telemetry import read_table

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = FinetuneConfig(
    steps=8,
    warmup_steps=2,
    batch=8,
    groups=2,
    learning_rate=1e-3,
    precision="fp32",
    max_context_tokens=160,
    max_target_tokens=60,
    row_tokens=256,
    checkpoint_every=1,
    evaluate_every=4,
    n_evaluated=6,
    n_generated=2,
)


def store(folder: Path, n: int, seed: int) -> Path:
    samples = drawn_for_chatglm(some_lengths(n, seed=seed), tiny.chatglm_config(), seed=seed)
    with StoreWriter(folder, tokenizer_digest="noise") as writer:
        for context, target in samples.pairs:
            span = Span(0, len(context), len(context), len(target))
            writer.add(np.concatenate([context, target]).astype(np.int32), [span])
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "base": tiny.chatglm(folder / "base"),
        "corpus": store(folder / "corpus", 30, 1),
        "held_out": store(folder / "held_out", 8, 2),
    }


@pytest.fixture
def write_job(inputs, tmp_path):
    def written(name="run", *, processes=1, **changes):
        job = FinetuneJob(
            folder=tmp_path / name,
            **inputs,
            config=dataclasses.replace(CONFIG, **changes),
            processes=processes,
            threads=1,
        )
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(job.to_json()))
        return job, path

    return written


def ready(told):
    return next(message for message in told if message["type"] == "ready")


class Child:
    """A training process, its messages as they come."""

    def __init__(self, job_file: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "training.finetune.worker", str(job_file)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.messages: list[dict] = []

    def until(self, kind: str) -> dict:
        for line in self.process.stdout:
            self.messages.append(json.loads(line))
            if self.messages[-1]["type"] == kind:
                return self.messages[-1]
        raise AssertionError(self.process.stderr.read())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def losses(job):
    return [(int(row["step"]), row["loss"], row["gradient_norm"]) for row in read_table(job.folder / "steps.csv")]


def in_this_process(job):
    """The messages of a run without a process of its own."""
    told, before = [], torch.get_num_threads()
    try:
        assert worker.run(job, told.append, lambda: False) == DONE
    finally:
        torch.set_num_threads(before)
    return told


@pytest.fixture(scope="module")
def reference(inputs, tmp_path_factory):
    """A run that nothing disturbed, and what it told."""
    # A guess of what it needs does not keep a CPU from trying.
    job = FinetuneJob(tmp_path_factory.mktemp("reference"), **inputs, config=CONFIG, threads=1, needed_bytes=1e18)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker, "SECONDS_BETWEEN_SIGNS", 0)
        return job, in_this_process(job)


def test_the_job_comes_back_from_its_file(write_job):
    job, path = write_job()
    assert FinetuneJob.from_json(json.loads(path.read_text())) == job


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "tpu"}, "cpu or cuda"),
        ({"processes": 0}, "processes is 0"),
        ({"epochs": 2}, "has no epochs"),
        ({"corpus": None}, "needs corpus"),
        ({"config": {"steps": -1}}, "steps is -1"),
    ],
)
def test_a_job_that_cannot_be_is_refused(write_job, change, said):
    data = {k: v for k, v in {**write_job()[0].to_json(), **change}.items() if v is not None}
    with pytest.raises(BadConfig, match=said):
        FinetuneJob.from_json(data)


def test_a_run_tells_what_it_does_and_answers_the_held_out_samples(reference):
    job, told = reference
    kinds = [message["type"] for message in told]
    assert kinds[:3] == ["hardware", "note", "ready"] and kinds[-2:] == ["answers", "done"]
    assert told[0]["devices"] == 1 and told[0]["memory_bytes"] == worker.machine_bytes() > 2**20
    signs = [(message["n_done"], message["n_total"]) for message in told if message["type"] == "answering"]
    assert signs[0] == (0, 2) and (1, 2) in signs and signs[-1] == (2, 2) and signs == sorted(signs)
    assert len(signs) > 3  # it gives signs of life while the first answer is being written
    assert kinds.count("evaluation") == 2 and kinds.count("checkpoint") == 8
    answers, done = told[-2:]
    assert answers["n"] == 2 and "protocol:chatglm" in answers["scores"]["bleu_4"]["signature"]
    card = json.loads((job.folder / "export" / "card.json").read_text())
    assert card["held_out_answers"] == {key: answers[key] for key in ("n", "decoding", "scores")}
    assert load(Path(done["folder"])).family == "chatglm"


@pytest.mark.slow  # a process that imports torch
def test_kill_9_in_the_middle_of_a_checkpoint_changes_no_loss(write_job, reference):
    """The third checkpoint is being written when it dies; from the second on, bit by bit the same."""
    job, path = write_job()
    child = Child(path)
    target = job.folder / "checkpoints" / "step-00000003"
    child.until("checkpoint")
    deadline = time.monotonic() + 60
    while not target.exists() and time.monotonic() < deadline:
        time.sleep(0.0002)
    child.kill()
    assert ready(in_this_process(job))["step"] in (2, 3)  # 3 if the kill came a millisecond late
    assert losses(job) == losses(reference[0])


@pytest.fixture
def launched(monkeypatch):
    """What torchrun's processes say; the launcher is this process, and SIGTERM reaches it after the first checkpoint.

    How one process alone takes SIGTERM: test_finetune_command.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def launch(job, path):
        told = []

        def hear(message):
            told.append(message)
            if message["type"] == "checkpoint":
                os.kill(os.getpid(), signal.SIGTERM)

        return worker.launch(str(path), job, hear), told

    yield launch
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow  # torchrun and two processes that import torch: about 12 s
def test_two_processes_make_the_losses_of_one(write_job, reference, launched):
    """And stop when they are told to; what two saved, one continues."""
    job, path = write_job(processes=2, n_generated=0)
    code, told = launched(job, path)
    assert code == STOPPED and not (job.folder / STOP_FILE).exists()
    assert ready(told)["n_processes"] == 2
    assert 1 <= told[-1]["step"] < 8
    assert ready(in_this_process(job))["step"] == told[-1]["step"]
    for own, expected in zip(losses(job), losses(reference[0]), strict=True):
        assert [float(value) for value in own] == pytest.approx([float(value) for value in expected], rel=1e-5)
    one, other = load(job.folder / "export").model, load(reference[0].folder / "export").model
    for name, value in one.named_parameters():
        assert torch.allclose(value, other.get_parameter(name), atol=1e-4), name


def test_a_second_launch_leaves_the_first_one_its_wish_to_stop(write_job, monkeypatch):
    monkeypatch.setattr(worker.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    job, path = write_job(processes=2)
    with claimed(job.folder):
        (job.folder / STOP_FILE).touch()
        with pytest.raises(RunIsBusy, match="another process trains in"):
            worker.launch(str(path), job, print)
    assert (job.folder / STOP_FILE).exists()


@pytest.mark.parametrize(
    ("n_there", "memory_gib", "error"),
    [(1, 40, DeviceTooSmall), (0, 80, DeviceUnavailable), (1, 80, StoreBroken)],  # the last: it goes on to the corpus
)
def test_the_device_that_is_there_counts_not_the_one_that_was_stated(tmp_path, monkeypatch, n_there, memory_gib, error):
    about = SimpleNamespace(name="NVIDIA Toy", total_memory=memory_gib * 2**30)
    for name, answer in (
        ("is_available", lambda: n_there > 0),
        ("device_count", lambda: n_there),
        ("get_device_properties", lambda device: about),
    ):
        monkeypatch.setattr(torch.cuda, name, answer)
    nowhere = tmp_path / "nowhere"
    job = FinetuneJob(nowhere, nowhere, nowhere, CONFIG, device="cuda", needed_bytes=50 * 2**30)
    told: list[dict] = []
    with pytest.raises(error) as caught:
        worker.run(job, told.append, lambda: False)
    if n_there:
        assert told == [{"type": "hardware", "device": "NVIDIA Toy", "memory_bytes": memory_gib * 2**30, "devices": 1}]
    if error is DeviceTooSmall:
        assert "about 50.0 GiB" in str(caught.value) and "NVIDIA Toy has 40.0 GiB" in str(caught.value)
        assert worker.failure_of(caught.value) == (78, "DeviceTooSmall", True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StoreBroken("x"), (71, "StoreBroken", True)),
        (LostPeer("x"), (77, "LostPeer", False)),
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1234"), (77, "LostPeer", False)),
        (torch.OutOfMemoryError("CUDA out of memory"), (67, "OutOfMemory", False)),
        (OSError(28, "No space left on device"), (73, "DiskFull", False)),
        (KeyError("x"), (70, "KeyError", False)),
    ],
)
def test_failures_have_classes(error, words):
    assert worker.failure_of(error) == words


def the_process(path):
    """Exit code and lines of `main`, which takes standard output for itself."""
    read_end, write_end = os.pipe()
    stdout = os.dup(1)
    os.dup2(write_end, 1)
    try:
        code = worker.main([str(path)])
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(write_end)
    with os.fdopen(read_end) as told:
        return code, [json.loads(line) for line in told]


def test_a_failure_is_the_last_line(tmp_path):
    code, told = the_process(tmp_path / "nothing.json")
    words = told[-1]
    assert (code, words["error_class"], words["is_final"]) == (65, "BadConfig", True)
    assert "nothing.json cannot be read" in words["error"]


def test_several_processes_are_torchruns(write_job, monkeypatch):
    def launch(job_file, job, emit):
        emit({"type": "done", "processes": job.processes, "job_file": job_file})
        return 42

    monkeypatch.setattr(worker, "launch", launch)
    _, path = write_job(processes=2)
    assert the_process(path) == (42, [{"type": "done", "processes": 2, "job_file": str(path)}])
