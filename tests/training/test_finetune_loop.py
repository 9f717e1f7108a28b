"""Whole runs of a toy model: two layers of noise, which learn noise by heart. Nothing here is language."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch
from safetensors import safe_open

from models_runtime.engine.errors import WeightsMissing
from models_runtime.engine.loading import load
from tests.models_runtime import tiny
from tests.training.samples import ListSamples, drawn, drawn_for_chatglm, some_lengths
from training.finetune import checkpoints, export, loop, packing
from training.finetune.config import FinetuneConfig
from training.finetune.errors import (
    BadData,
    BadModel,
    DiskTooFull,
    LossIsNaN,
    RunChanged,
    RunIsBusy,
    TargetMissing,
)
from training.finetune.loop import Run, train
from training.finetune.telemetry import read_table

logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)  # else a failure drowns in its lines

CONFIG = FinetuneConfig(
    steps=6,
    warmup_steps=2,
    batch=8,
    groups=2,
    learning_rate=1e-3,
    precision="fp32",
    max_context_tokens=160,
    max_target_tokens=60,
    row_tokens=256,
    checkpoint_every=2,
    evaluate_every=3,
    n_evaluated=6,
    n_generated=0,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        "chatglm": tiny.chatglm(folder / "chatglm", dtype=torch.float16, form="bin", shards=2),
        "chatglm2": tiny.chatglm2(folder / "chatglm2"),
        "causal": tiny.causal(folder / "causal"),
    }


@pytest.fixture
def start(bases, tmp_path):
    """Start a run, or continue it: the outcome and all messages."""

    def started(kind="chatglm", *, folder="run", stop_after=None, samples=None, **changes):
        values = tiny.chatglm_config()
        make = drawn_for_chatglm if kind == "chatglm" else lambda lengths, _, seed: drawn(lengths, seed=seed)
        run = Run(
            folder=tmp_path / folder,
            base=bases[kind],
            config=dataclasses.replace(CONFIG, **changes),
            samples=samples or make(some_lengths(30), values, seed=1),
            held_out=make(some_lengths(8, seed=9), values, seed=2),
        )
        told, asked = [], iter(range(1, 1000))
        outcome = train(run, told.append, lambda: next(asked) == stop_after)
        return outcome, told, run

    return started


def losses(run):
    return [(int(row["step"]), row["loss"]) for row in read_table(run.folder / "steps.csv")]


def ready(told):
    return next(message for message in told if message["type"] == "ready")


def weights(folder):
    with safe_open(folder / "model-00001.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("kind", ["chatglm", "causal", "chatglm2"])
def test_a_run_learns_and_its_weights_load_as_the_base_did(start, bases, kind):
    outcome, told, run = start(kind, steps=12, evaluate_every=0)
    assert outcome.is_finished and outcome.exported == run.folder / "export"
    found = [float(loss) for _, loss in losses(run)]
    assert found[-1] < 0.9 * found[0]
    before, after = load(bases[kind]), load(outcome.exported)
    assert after.family == before.family and after.weights_digest != before.weights_digest
    changed = {
        name: (value - before.model.get_parameter(name)).abs().max().item()
        for name, value in after.model.named_parameters()
    }
    assert min(changed.values()) > 0
    card = json.loads((outcome.exported / "card.json").read_text())
    assert card["fixed"]["corpus"] == run.samples.content_hash
    assert card["fixed"]["base"] == before.weights_digest
    assert (card["loss"], card["n_steps"]) == (found[-1], 12)
    assert told[0]["type"] == "note"


def test_the_exported_folder_has_the_names_of_the_published_one(start, bases):
    outcome, _, _ = start(steps=1, warmup_steps=0, precision="fp16")
    held = weights(outcome.exported)
    published = json.loads((bases["chatglm"] / "pytorch_model.bin.index.json").read_text())["weight_map"]
    assert set(held) == {name for name in published if "inv_freq" not in name}
    assert {value.dtype for value in held.values()} == {torch.float16}
    assert torch.equal(held["lm_head.weight"], held["transformer.word_embeddings.weight"])


def test_large_models_come_in_shards(start, bases, monkeypatch):
    monkeypatch.setattr(export, "SHARD_BYTES", 100_000)
    outcome, _, _ = start(steps=1, warmup_steps=0)
    names = sorted(path.name for path in outcome.exported.glob("*.safetensors"))
    index = json.loads((outcome.exported / "model.safetensors.index.json").read_text())
    assert len(names) > 2 and set(index["weight_map"].values()) == set(names)
    assert load(outcome.exported).family == "chatglm"


def test_the_update_is_adamws(start, bases):
    """One step of the loop against torch's AdamW on the plain model, sample by sample, weighted by groups."""
    outcome, _, run = start(steps=1, warmup_steps=0, clip_norm=0.5)
    model = load(bases["chatglm"]).model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    total = torch.zeros(())
    for number, weight in loop.Planner(run.samples, run.config).weighted(0):
        context, target = (torch.as_tensor(part, dtype=torch.long) for part in run.samples[number])
        labels = torch.cat([torch.full((len(context),), -100), target])[None]
        own = model(input_ids=torch.cat([context, target])[None], labels=labels).loss
        total = total + own * len(target) * weight
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    assert outcome.progress.loss == pytest.approx(total.item(), rel=1e-5)
    for name, value in load(outcome.exported).model.named_parameters():
        assert torch.allclose(value, model.get_parameter(name), atol=2e-5), name


def test_rows_and_recomputation_change_nothing_but_the_last_bits(start):
    plain = [float(loss) for _, loss in losses(start(folder="a")[2])]
    for number, change in enumerate([{"row_tokens": 1024}, {"recompute": True}, {"row_tokens": 220}]):
        assert [float(v) for _, v in losses(start(folder=f"b{number}", **change)[2])] == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("change", [{}, {"method": "lora", "recompute": True}, {"precision": "bf16"}], ids=str)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(start, change):
    whole, _, reference = start(folder="whole", **change)
    stopped, _, run = start(stop_after=3, **change)
    assert not stopped.is_finished and stopped.progress.step == 3
    finished, told, _ = start(**change)
    assert finished.is_finished and ready(told)["step"] == 3
    assert losses(run) == losses(reference)  # as texts that read back exactly: bit by bit
    assert (run.folder / "evaluations.csv").read_text() == (reference.folder / "evaluations.csv").read_text()
    if "method" not in change:
        one, other = weights(finished.exported), weights(whole.exported)
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_looking_on_changes_nothing(start):
    """Neither evaluations nor checkpoints have a part in the weights."""
    seldom = start(folder="a", evaluate_every=0, checkpoint_every=0)[2]
    often = start(folder="b", evaluate_every=1, checkpoint_every=1)[2]
    assert losses(often) == losses(seldom)
    one, other = weights(often.folder / "export"), weights(seldom.folder / "export")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_lora_trains_the_adapter_alone_and_it_loads(start, bases):
    outcome, told, _ = start(method="lora", lora_rank=4, lora_alpha=8)
    assert ready(told)["trained_parameters"] == 2 * 4 * (64 + 3 * 64)
    base, tuned = load(bases["chatglm"]), load(bases["chatglm"], adapter=outcome.exported)
    changed = {
        name for name, value in tuned.model.named_parameters() if not torch.equal(value, base.model.get_parameter(name))
    }
    assert changed == {f"transformer.layers.{i}.attention.query_key_value.weight" for i in range(2)}


def test_a_lora_target_that_is_not_there_is_named(start):
    with pytest.raises(TargetMissing, match=r"no linear layer q_proj; it has .*query_key_value"):
        start(method="lora", lora_targets=("query_key_value", "q_proj"))
    with pytest.raises(BadModel, match="use method = full"):
        start("chatglm2", method="lora")


def test_fp16_scales_the_loss_and_skips_what_overflows(start):
    """A scale of 2^16 is too high for these gradients at first; skipped steps change nothing and are counted."""
    outcome, _, run = start(precision="fp16", steps=8, checkpoint_every=0)
    rows = read_table(run.folder / "steps.csv")
    skipped = [row for row in rows if row["is_skipped"] == "True"]
    assert outcome.progress.n_skipped == len(skipped)
    assert outcome.progress.n_updates == 8 - len(skipped)
    assert float(rows[0]["loss_scale"]) == 2.0**16
    assert all(float(row["learning_rate"]) == 0.0 for row in skipped)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(start, monkeypatch):
    original, calls = loop.weighted_loss, []

    def spoilt(model, row):
        calls.append(row)
        return original(model, row) * (float("nan") if len(calls) > 15 else 1.0)

    monkeypatch.setattr(loop, "weighted_loss", spoilt)
    with pytest.raises(LossIsNaN, match="the loss of step"):
        start(n_evaluated=0)
    monkeypatch.undo()
    outcome, told, _ = start(n_evaluated=0)
    assert outcome.is_finished and ready(told)["step"] in (2, 4)


def test_another_corpus_base_or_config_is_refused_on_resume(start, bases, monkeypatch, tmp_path):
    _, _, run = start(stop_after=2)
    with monkeypatch.context() as patched, pytest.raises(RunChanged, match="the base model"):
        patched.setitem(bases, "chatglm", tiny.chatglm(tmp_path / "base", seed=1))
        start()
    other = ListSamples([(c, t[::-1].copy()) for c, t in run.samples.pairs])
    with pytest.raises(RunChanged, match="the training samples"):
        start(samples=other)
    with pytest.raises(RunChanged, match="the settings of the run"):
        start(learning_rate=2e-3)
    assert start(keep_checkpoints=1)[0].is_finished  # what has no part in the weights may change


def test_a_damaged_checkpoint_is_passed_over(start):
    _, _, run = start(stop_after=4)
    newest = run.folder / "checkpoints" / "step-00000004"
    part = next(newest.glob("__0_*"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    outcome, told, _ = start()
    assert "is not as it was written; the checkpoint before it is taken" in told[1]["text"]
    assert ready(told)["step"] == 2 and outcome.is_finished


def test_only_the_newest_checkpoints_are_kept(start):
    _, _, run = start()
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]


def test_a_full_disk_is_said_before_anything_is_written(start, monkeypatch):
    usage = checkpoints.shutil.disk_usage
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    with pytest.raises(DiskTooFull, match="make room and continue"):
        start()
    monkeypatch.undo()
    assert start()[0].is_finished


@pytest.mark.parametrize(
    ("kind", "change"), [("chatglm", {}), ("chatglm", {"method": "lora"}), ("causal", {"precision": "fp16"})]
)
def test_room_for_what_comes_out_is_looked_for_before_the_first_step(start, monkeypatch, kind, change):
    """As much as it will take, and a half of it that a killed run left takes none of that."""
    asked, said, tell = [], [], checkpoints.check_room

    def heard(*args, at_the_end, **kwargs):
        asked.append(at_the_end)
        tell(*args, at_the_end=at_the_end, **kwargs)

    monkeypatch.setattr(checkpoints, "check_room", heard)
    monkeypatch.setattr(export, "need_room", lambda folder, n_bytes, what: said.append(list(folder.glob("export*"))))
    stopped = start(kind, stop_after=1, **change)[2]
    (stopped.folder / "export.partial").mkdir()
    outcome, _, _ = start(kind, **change)
    written = sum(path.stat().st_size for path in outcome.exported.glob("*.safetensors"))
    assert asked[0] <= written < asked[0] + 20_000  # the rest is names
    assert said == [[]]


def test_a_base_whose_loss_is_no_number_is_said(start, monkeypatch):
    monkeypatch.setattr(loop, "weighted_loss", lambda model, row: torch.tensor(float("inf")))
    with pytest.raises(LossIsNaN, match="no number in float32; choose another precision"):
        start()


def test_two_launches_of_one_run_are_refused(start, monkeypatch):
    def again(*args):
        monkeypatch.setattr(loop, "take_step", take_step)
        with pytest.raises(RunIsBusy, match="another process trains in"):
            start()
        return take_step(*args)

    take_step = loop.take_step
    monkeypatch.setattr(loop, "take_step", again)
    assert start()[0].is_finished


def test_samples_that_cannot_be_trained_on_stop_it_before_the_model_is_loaded(start, monkeypatch):
    monkeypatch.setattr(loop, "load_trainee", lambda *_: pytest.fail("loaded"))
    with pytest.raises(BadData, match="an empty target"):
        start(samples=ListSamples([([1, 2], [3]), ([1], [])]))


def test_a_base_that_is_not_there_is_named(start, bases, tmp_path):
    bases = {**bases}
    with pytest.raises(WeightsMissing, match="nowhere"):
        train(Run(tmp_path / "run", tmp_path / "nowhere", CONFIG, drawn([(3, 3)] * 8)), print)


def test_a_model_whose_samples_see_each_other_is_refused(start, monkeypatch):
    """As one that looks back by a convolution or a running state: here, by the mean over the row."""
    original = loop.pack_row
    leaking = lambda q, k, v, scaling, layout: packing.by_sample(q, k, v + v.mean(2, keepdim=True), scaling, layout)  # noqa: E731
    monkeypatch.setattr(loop, "pack_row", lambda *args, **kwargs: original(*args, **{**kwargs, "kernel": leaking}))
    with pytest.raises(BadModel, match="so they see each other"):
        start("causal")


def test_tensorboard_files_are_written_on_request(start):
    _, _, run = start(tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    held = {event.step: event.value for event in events.Scalars("training/loss")}
    assert held == {step: pytest.approx(float(loss), rel=1e-6) for step, loss in losses(run)}
