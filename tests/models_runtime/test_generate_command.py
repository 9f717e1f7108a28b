"""generate: a model answers a file, without a database, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from django.core.management import CommandError, call_command
from safetensors.torch import load_file, save_file

from annotation.formats.problems import Findings
from annotation.formats.rows import read_responses
from annotation.formats.source import Source
from models_runtime import answering
from models_runtime.answering import AnsweringFailed, ItemsRefused, answer, read_questions, responses_file
from models_runtime.engine.prompts import TEMPLATES, Turn
from models_runtime.engine.protocol import WorkerJob
from models_runtime.engine.spec import PRESETS, DecodingConfig, SystemSpec, digest_of
from tests.models_runtime import tiny
from tests.models_runtime.here import child_messages

# The tests below have no mark for the database, so pytest refuses any query.

SAMPLED = replace(PRESETS["soulchat-paper"].decoding, max_new_tokens=40)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the child


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny.causal(tmp_path_factory.mktemp("models") / "Tiny Chat")


@pytest.fixture
def here(monkeypatch):
    """Answered in this process, where the process itself is not what is asked about."""
    monkeypatch.setattr(answering, "child_messages", child_messages)


def write_items(folder: Path, n: int = 4) -> Path:
    rows = [{"key": f"{i}#1", "turns": [{"role": "client", "content": "我睡不着。" * (i + 1)}]} for i in range(n)]
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def make_job(weights: Path, **changed: Any) -> WorkerJob:
    values: dict[str, Any] = {"weights": weights, "items": Path(), "decoding": SAMPLED, "seed": 1, "batch_rows": 2}
    return WorkerJob(**{**values, **changed})


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["item"], row["repeat"], row["system"], row["response"], row["provenance"]["finish_reason"]


def fake_response(folder: Path, items: Path, **changed: Any) -> Path:
    """A file as a run of `make_job` would have begun it, by a system of another digest."""
    spec = SystemSpec("causal", "aa", None, "chat", TEMPLATES["chat"].version, SAMPLED)
    turns = read_questions(items, 1)[0].turns
    known = {
        "spec": spec.to_json(),
        "spec_digest": spec.digest,
        "seed": 1,
        "dialogue_digest": digest_of([turn._asdict() for turn in turns]),
    }
    row = {"item": "0#1", "system": "x", "repeat": 0, "response": "嗯", "provenance": {**known, **changed}}
    path = folder / "responses.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def test_it_answers_a_file_and_says_what_it_did(weights, tmp_path):
    items, responses, out, err = write_items(tmp_path, 3), tmp_path / "responses.jsonl", StringIO(), StringIO()
    with items.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": "long", "turns": [{"role": "client", "content": "abc" * 2000}]}) + "\n")
    arguments = ["generate", "--weights", str(weights), str(items), str(responses), "--repeats", "2", "--seed", "5"]
    with pytest.raises(CommandError, match="6 responses written, 0 were there before, 2 items"):
        call_command(*arguments, stdout=out, stderr=err)
    assert "top_k 50 (not stated by the source" in err.getvalue()
    assert "long: The newest turn alone" in err.getvalue()

    findings = Findings()
    found = list(read_responses(Source(responses, "responses.jsonl"), "jsonl", findings))
    assert not findings.problems  # what it writes, import_responses reads
    assert Counter((one.item, one.repeat) for one in found) == Counter((f"{i}#1", r) for i in range(3) for r in (0, 1))
    known = found[0].provenance
    assert found[0].system == "tiny-chat"
    assert SystemSpec.from_json(known["spec"]).digest == known["spec_digest"]
    assert known["seed"] == 5
    assert {"versions", "device", "tokens_in", "tokens_out", "finish_reason", "seconds", "n_turns_cut"} <= set(known)


def test_a_run_that_was_stopped_goes_on_to_the_same_responses(weights, tmp_path, monkeypatch):
    """Stopped is a real child, which Ctrl-C reaches in the middle; the whole and the rest are answered here."""
    work, job = read_questions(write_items(tmp_path, 12), 2), make_job(weights)
    with monkeypatch.context() as patched, responses_file(tmp_path / "whole.jsonl") as whole:
        patched.setattr(answering, "child_messages", child_messages)
        assert answer(job, work, whole, system="s").n_responses == 24

    def interrupt(n_done: int, n_total: int, seconds: float) -> None:
        if n_done == 3:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does

    path = tmp_path / "parts.jsonl"
    with responses_file(path) as parts:
        first = answer(job, work, parts, system="s", on_progress=interrupt)
    assert first.is_stopped
    assert 3 <= first.n_responses < 24
    with path.open("a", encoding="utf-8") as file:
        file.write('{"item": "9#1", "resp')  # and then the power went
    monkeypatch.setattr(answering, "child_messages", child_messages)
    with responses_file(path) as parts:
        second = answer(job, work, parts, system="s")
    assert second.n_there_before == first.n_responses
    assert second.n_responses == 24 - first.n_responses
    assert sorted(map(told, rows_of(path))) == sorted(map(told, rows_of(tmp_path / "whole.jsonl")))


@pytest.mark.usefixtures("here")
def test_other_weights_do_not_go_on_with_a_file(weights, tmp_path):
    other = shutil.copytree(weights, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["lm_head.weight"] += torch.ones(1) * 0.01
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    path = fake_response(tmp_path, write_items(tmp_path))
    before = path.read_bytes()
    with responses_file(path) as responses, pytest.raises(AnsweringFailed, match="what is to be completed"):
        answer(make_job(other), read_questions(tmp_path / "items.jsonl", 1), responses, system="s")
    assert path.read_bytes() == before


@pytest.mark.usefixtures("here")
def test_a_model_of_another_family_is_refused(weights, tmp_path):
    arguments = ["generate", str(write_items(tmp_path, 1)), str(tmp_path / "r.jsonl"), "--weights", str(weights)]
    with pytest.raises(CommandError, match="family causal"):
        call_command(*arguments, "--family", "chatglm", stderr=StringIO())
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed 1"),
        ({"decoding": DecodingConfig(is_sampled=False)}, "decoding"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"template": TEMPLATES["chat-bare"]}, "template_id"),
        ({"template": replace(TEMPLATES["chat"], instruction="别的")}, "template_version"),
    ],
)
def test_another_setting_does_not_go_on_with_a_file_and_loads_nothing(tmp_path, change, named):
    path = fake_response(tmp_path, write_items(tmp_path))
    job = make_job(tmp_path / "no weights here", **change)
    with responses_file(path) as responses, pytest.raises(AnsweringFailed, match=named):
        answer(job, read_questions(tmp_path / "items.jsonl", 1), responses, system="s")


def test_a_changed_dialogue_under_the_same_key_is_noticed(tmp_path):
    path = fake_response(tmp_path, write_items(tmp_path), dialogue_digest="other")
    with (
        responses_file(path) as responses,
        pytest.raises(AnsweringFailed, match="another dialogue under the key '0#1'"),
    ):
        answer(make_job(tmp_path), read_questions(tmp_path / "items.jsonl", 1), responses, system="s")


def test_with_nothing_left_to_do_nothing_is_loaded(tmp_path):
    path = fake_response(tmp_path, write_items(tmp_path, 1))
    with responses_file(path) as responses:
        outcome = answer(make_job(tmp_path), read_questions(tmp_path / "items.jsonl", 1), responses, system="s")
    assert (outcome.n_responses, outcome.n_there_before, outcome.is_stopped) == (0, 1, False)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{}\n", "line 2 is no response"),
        ("nonsense\n", "line 2 is no response"),
        ('{"item": "1#1", "provenance": {"spec_digest": "b", "seed": 1, "dialogue_digest": "c"}}\n', "another system"),
    ],
)
def test_a_file_of_something_else_is_not_written_to(tmp_path, line, named):
    path = fake_response(tmp_path, write_items(tmp_path))
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
    before = path.read_bytes()
    with pytest.raises(AnsweringFailed, match=named), responses_file(path):
        pass
    assert path.read_bytes() == before


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "responses.jsonl"
    with responses_file(path), pytest.raises(AnsweringFailed, match="Another run"), responses_file(path):
        pass
    with responses_file(path):
        pass  # and it is free again


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"key": "a", "turns": [{"role": "client", "content": "x"}]}\n{"key": "b"}\n', "missing"),
        ('{"key": "a", "turns": [{"role": "counsellor", "content": "x"}]}\n', "last_turn"),
        ('{"key": "a", "turns": []}\n', "no_turns"),
        ('{"key": "a", "turns": [{"role": "client", "content": "x"}]}\n' * 2, "duplicate_key"),
        ("[]", "unknown_format"),
        ('{"key": \n', "broken_json"),
    ],
)
def test_items_with_problems_are_refused_with_their_line(tmp_path, text, code):
    path = tmp_path / "items.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ItemsRefused) as refused:
        read_questions(path, 1)
    assert code in [problem.code for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--repeats", "0"], "repeats"),
        (["--template", "sonnet"], "no template sonnet"),
        (["--batch-rows", "0"], "batch_rows"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(weights, tmp_path, changed, named):
    items = write_items(tmp_path, 1)
    with pytest.raises(CommandError, match=named):
        call_command("generate", "--weights", str(weights), str(items), str(tmp_path / "r.jsonl"), *changed)
    with pytest.raises(CommandError, match="no file"):
        call_command("generate", "--weights", str(weights), str(tmp_path / "none"), str(tmp_path / "r.jsonl"))


def test_reading_and_resuming_need_no_torch():
    script = "import sys, models_runtime.answering; print([n for n in ('torch', 'transformers') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=answering.ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_repeats_of_an_item_are_pieces_of_work(tmp_path):
    work = read_questions(write_items(tmp_path, 2), 3)
    assert [(one.item, one.repeat) for one in work] == [(f"{i}#1", r) for i in range(2) for r in range(3)]
    assert work[0].turns == (Turn("client", "我睡不着。"),)
