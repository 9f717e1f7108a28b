"""The child process: its protocol, its exit codes, and stopping between two steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models_runtime.engine import worker
from models_runtime.engine.errors import CorruptShard, DeviceUnavailable, WeightsMissing
from models_runtime.engine.prompts import TEMPLATES, Turn
from models_runtime.engine.protocol import (
    BAD_JOB,
    BAD_MODEL,
    BUG,
    DONE,
    NO_DEVICE,
    OUT_OF_MEMORY,
    STOPPED,
    BadJob,
    Work,
    WorkerJob,
    read_work,
    write_work,
)
from models_runtime.engine.spec import PRESETS, DecodingConfig, SystemSpec
from models_runtime.engine.worker import OtherSpec, failure_of, run
from tests.models_runtime import tiny

ROOT = Path(__file__).resolve().parent.parent.parent
DECODING = DecodingConfig(is_sampled=True, temperature=0.95, top_p=0.75, top_k=50, max_new_tokens=12)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny.causal(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_items(folder: Path, n: int = 5) -> Path:
    path = folder / "items.jsonl"
    write_work(path, [Work(f"{i}#1", i % 2, (Turn("client", "我最近睡不着" * (i + 1)),)) for i in range(n)])
    return path


def make_job(weights: Path, folder: Path, n: int = 5, **changed: Any) -> WorkerJob:
    values: dict[str, Any] = {"weights": weights, "items": write_items(folder, n), "decoding": DECODING, "seed": 7}
    return WorkerJob(**{**values, **changed})


def run_here(job: WorkerJob, should_stop=lambda: False) -> tuple[int, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    return run(job, said.append, should_stop), said


def start(job: WorkerJob | dict[str, Any] | str, folder: Path) -> subprocess.Popen[str]:
    path = folder / "job.json"
    data = job.to_json() if isinstance(job, WorkerJob) else job
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "models_runtime.engine.worker", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_it_says_who_it_is_then_answers_every_item(weights, tmp_path):
    code, said = run_here(make_job(weights, tmp_path))
    assert code == DONE
    ready, done = said[0], said[-1]
    assert (ready["type"], done["type"]) == ("ready", "done")
    spec = SystemSpec.from_json(ready["spec"])
    assert spec.digest == ready["spec_digest"]
    assert (spec.family, spec.template_id, spec.decoding) == ("causal", "chat", DECODING)
    assert {"torch", "transformers", "numpy", "python"} <= set(ready["versions"])
    assert ready["device"].startswith("cpu")
    responses = [message for message in said if message["type"] == "response"]
    assert {(r["item"], r["repeat"]) for r in responses} == {(f"{i}#1", i % 2) for i in range(5)}
    assert done["n_responses"] == 5
    assert done["counts"]["max_drift"] < done["tolerance"]
    for response in responses:
        known = response["provenance"]
        assert response["text"]
        assert known["spec"] == ready["spec"]
        assert known["seed"] == 7
        assert 1 <= known["tokens_out"] <= 12
        assert known["finish_reason"] in ("stop", "length")
        assert {"spec_digest", "versions", "device", "tokens_in", "seconds", "n_turns_cut", "rows_at_once"} <= set(
            known
        )
    assert [m for m in said if m["type"] == "progress"][-1]["n_done"] == 5


def test_it_gives_signs_of_life_before_it_is_ready(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "SECONDS_BETWEEN_SIGNS", 0.0)
    _, said = run_here(make_job(weights, tmp_path))
    before = said[: [message["type"] for message in said].index("ready")]
    assert len(before) > 10
    assert all(message == {"type": "progress"} for message in before)


def test_the_same_job_gives_the_same_texts_and_another_seed_others(weights, tmp_path):
    def texts(**changed: Any) -> dict[tuple[str, int], str]:
        _, said = run_here(make_job(weights, tmp_path, **changed))
        return {(m["item"], m["repeat"]): m["text"] for m in said if m["type"] == "response"}

    first = texts()
    assert texts(batch_rows=1) == first
    assert texts(seed=8) != first


def test_one_bad_item_is_an_error_of_its_own(weights, tmp_path):
    job = make_job(weights, tmp_path)
    with job.items.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"item": "x", "repeat": 0, "turns": [{"role": "counsellor", "text": "嗯"}]}) + "\n")
    code, said = run_here(job)
    [error] = [m for m in said if m["type"] == "error"]
    assert code == DONE
    assert (error["item"], error["code"]) == ("x", "empty_dialogue")
    assert (said[-1]["n_responses"], said[-1]["n_errors"]) == (5, 1)


def test_another_system_than_the_expected_one_is_refused(weights, tmp_path):
    _, said = run_here(make_job(weights, tmp_path))
    digest = said[0]["spec_digest"]
    assert run_here(make_job(weights, tmp_path, expected_spec=digest))[0] == DONE
    with pytest.raises(OtherSpec):
        run_here(make_job(weights, tmp_path, expected_spec=digest, template=TEMPLATES["chat-bare"]))


def test_lengths_beyond_the_model_are_refused(weights, tmp_path):
    with pytest.raises(BadJob, match="2048"):
        run_here(make_job(weights, tmp_path, decoding=DecodingConfig(is_sampled=False, max_input_tokens=2040)))


def test_a_stop_between_steps_leaves_whole_responses(weights, tmp_path):
    asked = iter(range(1000))
    code, said = run_here(make_job(weights, tmp_path, n=40, batch_rows=2), lambda: next(asked) > 80)
    assert code == STOPPED
    assert said[-1]["type"] == "stopped"
    assert 0 < said[-1]["n_responses"] < 40


def test_it_gives_signs_of_life_before_the_first_response(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "SECONDS_BETWEEN_PROGRESS", 0.0)
    _, said = run_here(make_job(weights, tmp_path))
    kinds = [message["type"] for message in said]
    assert kinds.index("progress") < kinds.index("response")
    assert [m["n_done"] for m in said if m["type"] == "progress"] == sorted(
        m["n_done"] for m in said if m["type"] == "progress"
    )


def test_a_job_goes_to_json_and_back(weights, tmp_path):
    job = make_job(weights, tmp_path, template=TEMPLATES["mechat-2"], adapter=tmp_path, batch_rows=3)
    assert WorkerJob.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": "7"}, "seed"),
        ({"dtype": "float8"}, "float8"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"decoding": {"is_sampled": True, "top_p": 3.0}}, "top_p"),
        ({"template": {"id": "x"}}, "layout"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_broken_job_is_named(weights, tmp_path, change, named):
    with pytest.raises(BadJob, match=named):
        WorkerJob.from_json({**make_job(weights, tmp_path).to_json(), **change})


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 2"),
        ('{"item": "a", "repeat": 0}', "turns"),
        ('{"item": "0#1", "repeat": 0, "turns": []}', "twice"),
    ],
)
def test_a_broken_items_file_is_named(tmp_path, line, named):
    path = write_items(tmp_path, 1)
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(BadJob, match=named):
        read_work(path)


def test_work_goes_to_a_file_and_back(tmp_path):
    turns = (Turn("client", "第一行\n第二行\u2028第三行"), Turn("counsellor", "嗯"), Turn("client", "…"))
    write_work(tmp_path / "items.jsonl", [Work("a#1", 2, turns)])
    assert read_work(tmp_path / "items.jsonl") == [Work("a#1", 2, turns)]


def test_as_a_process_it_speaks_json_lines_and_stops_on_sigterm_between_two_steps(weights, tmp_path):
    decoding = DecodingConfig(is_sampled=True, top_p=0.9, max_new_tokens=400)
    child = start(make_job(weights, tmp_path, n=60, decoding=decoding, batch_rows=2), tmp_path)
    assert child.stdout is not None
    said = [json.loads(child.stdout.readline())]
    while said[-1]["type"] != "response":
        said.append(json.loads(child.stdout.readline()))
    child.send_signal(signal.SIGTERM)
    rest, err = child.communicate(timeout=300)
    said += [json.loads(line) for line in rest.splitlines()]
    assert child.returncode == STOPPED, err
    assert (said[0]["type"], said[-1]["type"]) == ("ready", "stopped")
    assert 1 <= said[-1]["n_responses"] < 60


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadJob("x"), (BAD_JOB, "BadJob", True)),
        (OtherSpec("x"), (BAD_JOB, "OtherSpec", True)),
        (DeviceUnavailable("x"), (NO_DEVICE, "DeviceUnavailable", True)),
        (CorruptShard("x"), (BAD_MODEL, "CorruptShard", True)),
        (WeightsMissing("x"), (BAD_MODEL, "WeightsMissing", True)),
        (torch.OutOfMemoryError("x"), (OUT_OF_MEMORY, "OutOfMemory", False)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), (OUT_OF_MEMORY, "OutOfMemory", False)),
        (ZeroDivisionError("x"), (BUG, "ZeroDivisionError", False)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_failure_has_its_exit_code(error, expected):
    assert failure_of(error) == expected


def test_a_device_that_is_not_here_is_refused(weights, tmp_path):
    with pytest.raises(DeviceUnavailable, match="cuda:99"):
        run_here(make_job(weights, tmp_path, device="cuda:99"))


def test_the_papers_preset_fits_chatglm(tmp_path):
    weights = tiny.chatglm(tmp_path / "chatglm")
    job = make_job(weights, tmp_path, n=2, decoding=PRESETS["soulchat-paper"].decoding)
    _, said = run_here(job, should_stop=lambda: True)
    assert said[0]["spec"]["template_id"] == "soulchat"
