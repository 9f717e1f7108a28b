"""finetune: a run file in, weights out, without a database; stopped, it goes on to the same losses."""

from __future__ import annotations

import json
import os
import signal
from io import StringIO
from pathlib import Path

import pytest
import torch
from django.core.management import CommandError, call_command

from models_runtime.engine.loading import load
from tests.factories import make_dataset, make_item
from tests.models_runtime import tiny
from tests.training.corpora import TALK, messages, soulchat
from training.finetune import worker
from training.finetune.protocol import DONE, FinetuneJob
from training.finetune.telemetry import read_table
from training.launching import read_run_file
from training.management.commands import finetune as command

# But for one test, none has a mark for the database, so pytest refuses any query.

SETTINGS = """
preset = "soulchat-paper"
steps = 40
warmup_steps = 2
batch = 4
groups = 2
precision = "fp32"
max_context_tokens = 400
max_target_tokens = 100
row_tokens = 512
n_evaluated = 4
n_generated = 1
evaluate_every = 20
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the child


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a base model, and a corpus prepared for it."""
    folder = tmp_path_factory.mktemp("home")
    tiny.chatglm(folder / "base")
    tiny.causal(folder / "other")
    entries = [
        {"id": i, "topic": "情绪", "messages": messages(*(f"{text}（{i}）" for text in TALK))} for i in range(20)
    ]
    release = soulchat(folder / "release.json", entries)
    call_command(
        "prepare_corpus",
        str(folder / "corpus"),
        str(release),
        f"--weights={folder / 'base'}",
        "--test-share=0.2",
        "--max-context=400",
        "--max-target=100",
        stdout=StringIO(),
        stderr=StringIO(),
    )
    return folder


@pytest.fixture
def run_file(home, tmp_path):
    def write(settings: str = SETTINGS, *, base: str = "base", more: str = "") -> Path:
        path = tmp_path / "run.toml"
        folders = f'base = "{home / base}"\ncorpus = "{home / "corpus"}"\nfolder = "run"\nthreads = 1\n'
        path.write_text(f"{folders}{more}\n[config]\n{settings}", encoding="utf-8")
        return path

    return write


@pytest.fixture
def no_process(monkeypatch):
    """What would have been started, in place of its start."""
    started: list[FinetuneJob] = []

    def train(job, hear):
        started.append(job)
        hear({"type": "done", "folder": "export", "step": 40, "loss": 1.0, "held_out_loss": None})
        return DONE

    monkeypatch.setattr(command, "train", train)
    return started


def finetune(path: Path, *arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("finetune", str(path), *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.slow  # a process that imports torch: about 8 s
def test_ctrl_c_ends_with_a_checkpoint_and_the_same_command_goes_on_to_the_same_losses(run_file, monkeypatch, tmp_path):
    """The process gets SIGTERM, once. It goes on in this one, which has torch in memory already."""
    path, train = run_file(), command.train

    def interrupted(job, hear):
        def heard(message):
            hear(message)
            if message["type"] == "ready":
                os.kill(os.getpid(), signal.SIGINT)

        return train(job, heard)

    monkeypatch.setattr(command, "train", interrupted)
    with pytest.raises(CommandError, match=r"with a checkpoint\. The same command goes on") as stopped:
        finetune(path)
    assert stopped.value.returncode == 130
    stopped_at = len(read_table(tmp_path / "run" / "steps.csv"))
    assert 0 < stopped_at < 40

    n_threads = torch.get_num_threads()
    monkeypatch.setattr(command, "train", lambda job, hear: worker.run(job, hear, lambda: False))
    said, watched = finetune(path)
    assert f"goes on after step {stopped_at}, 40 steps in all" in watched
    assert "step 40: held-out loss" in watched and "1 held-out samples answered: bleu_1" in watched
    assert "Done:" in said and "after step 40" in said
    assert load(tmp_path / "run" / "export").family == "chatglm"

    job = read_run_file(path).job
    whole = FinetuneJob.from_json(job.to_json() | {"folder": str(tmp_path / "whole")})
    assert worker.run(whole, lambda message: None, lambda: False) == DONE
    torch.set_num_threads(n_threads)
    of_both = [[row["loss"] for row in read_table(tmp_path / name / "steps.csv")] for name in ("run", "whole")]
    assert of_both[0] == of_both[1]


def test_folders_are_beside_the_file_and_the_test_part_is_held_out(run_file, home, tmp_path):
    run = read_run_file(run_file())
    assert run.job.folder == tmp_path / "run"
    assert (run.job.corpus, run.job.held_out) == (home / "corpus" / "train", home / "corpus" / "test")
    assert (run.job.config.steps, run.job.config.learning_rate) == (40, 5e-5)


def test_the_estimate_starts_nothing(run_file, no_process, tmp_path):
    said, _ = finetune(run_file(), "--estimate")
    assert "GiB of" in said and "the peak of the CPU is not known" in said and "are free" in said
    assert not no_process and not (tmp_path / "run").exists()


def test_what_cannot_fit_is_refused_unless_told_otherwise(run_file, no_process):
    path = run_file(more="memory_gib = 0.5")
    with pytest.raises(CommandError, match=r"needs about .* the CPU has 0.5 GiB; what would fit: .*--even-so") as no:
        finetune(path)
    assert no.value.returncode == 67 and not no_process
    finetune(path, "--even-so")
    assert len(no_process) == 1


def test_a_base_that_the_corpus_was_not_made_for_is_refused(run_file, no_process):
    with pytest.raises(CommandError, match="was prepared for another model") as refused:
        finetune(run_file(base="other"))
    assert refused.value.returncode == 66 and not no_process


@pytest.mark.django_db
def test_a_corpus_that_holds_an_item_of_a_dataset_is_refused_if_asked(run_file, home, no_process):
    """Blanks and punctuation do not hide it; an item that the test part holds is no leak."""
    path, dataset = run_file(), make_dataset()
    opened = {f"{TALK[0]}（{number}）": number for number in range(20)}
    held_out = [json.loads(line) for line in (home / "corpus" / "test.jsonl").read_text().splitlines()]
    tested = {opened[row["turns"][0]["content"]] for row in held_out}
    a_test, a_training = min(tested), min(set(range(20)) - tested)

    def item(key, number):
        turns = [{"role": "client", "text": f" {TALK[0]} {number}"}]
        return make_item(dataset, key=key, turns=turns, reference=f"{TALK[1]}{number}")

    item("of the test", a_test)
    finetune(path, "--against-database")
    assert len(no_process) == 1
    item("learnt", a_training)
    with pytest.raises(CommandError, match=rf"items of the datasets here \(1\), .*{dataset.name}, learnt;") as refused:
        finetune(path, "--against-database")
    assert refused.value.returncode == 71 and len(no_process) == 1


def test_a_folder_that_is_no_corpus_is_refused(run_file, home, tmp_path, no_process):
    path = run_file()
    text = path.read_text(encoding="utf-8").replace(str(home / "corpus"), "mine")
    path.write_text(text, encoding="utf-8")
    for card, said in (("{", "no folder of prepare_corpus"), ("{}", "was not written by prepare_corpus")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "corpus.json").write_text(card, encoding="utf-8")
        with pytest.raises(CommandError, match=said) as refused:
            finetune(path)
        assert refused.value.returncode == 71 and not no_process


def test_samples_beyond_the_window_are_refused_before_anything_starts(run_file, no_process):
    with pytest.raises(CommandError, match="a target of more than 2 tokens") as refused:
        finetune(run_file(SETTINGS.replace("max_target_tokens = 100", "max_target_tokens = 2")))
    assert refused.value.returncode == 71 and not no_process


def test_devices_that_are_not_there_are_refused(run_file, no_process):
    with pytest.raises(CommandError, match=r"64 CUDA devices are asked for|cannot be asked") as refused:
        finetune(run_file(more='device = "cuda"\nprocesses = 64'))
    assert refused.value.returncode == 65 and not no_process


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base = ", "run.toml cannot be read"),
        ("epochs = 3", "a run file has no epochs; it has base, corpus"),
        ("base = 1", "base is 1; it must be the name of a folder"),
        ('base = "b"\ncorpus = "c"\nfolder = "f"\nmemory_gib = 0', "memory_gib is 0; it must be a number above 0"),
        ('base = "b"\ncorpus = "c"\nfolder = "f"\nconfig = 1', r"write \[config\] above the settings"),
        ('base = "b"\ncorpus = "c"\nfolder = "f"\n[config]\nsteps = -1', "steps is -1"),
        ('base = "b"\ncorpus = "c"\nfolder = "f"\nprocesses = 0', "processes is 0"),
        ('base = "b"\ncorpus = "c"\nfolder = "f"', "c is no folder of prepare_corpus"),
    ],
)
def test_a_run_file_that_cannot_be_used_is_refused_with_its_reason(tmp_path, text, said):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CommandError, match=said):
        finetune(path)


def failed(error_class: str, *, is_final: bool) -> dict:
    return {"type": "failed", "error_class": error_class, "error": "what it said", "is_final": is_final}


@pytest.mark.parametrize(
    ("code", "last", "said", "returncode"),
    [
        (67, failed("OutOfMemory", is_final=False), "OutOfMemory: what it said. Set recompute = true", 67),
        (72, failed("LossIsNaN", is_final=True), "^LossIsNaN: what it said.$", 72),
        (77, failed("LostPeer", is_final=False), "The same command goes on from the last checkpoint", 77),
        (-15, {"type": "note", "text": "loading"}, "Stopped before a step. The same command starts it again", 130),
        (-9, {"type": "note", "text": "loading"}, "ended without a word .signal 9.", 137),
        (70, {"type": "note", "text": "loading"}, "ended without a word .exit code 70.", 70),
    ],
)
def test_an_ending_has_its_words_and_its_exit_code(run_file, monkeypatch, code, last, said, returncode):
    def train(job, hear):
        hear(json.loads(json.dumps(last)))
        return code

    monkeypatch.setattr(command, "train", train)
    with pytest.raises(CommandError, match=said) as ended:
        finetune(run_file())
    assert ended.value.returncode == returncode
