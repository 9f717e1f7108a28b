from __future__ import annotations

import dataclasses
import math
import sys
import types

import pytest
import torch

from tests.training.samples import drawn
from training.finetune import telemetry
from training.finetune.config import FinetuneConfig
from training.finetune.errors import BadConfig
from training.finetune.hardware import CHATGLM_6B
from training.finetune.planner import Planner
from training.finetune.telemetry import STEP_FIELDS, Board, Meter, StepRecord, Table, read_table

CONFIG = FinetuneConfig(steps=10, warmup_steps=1, batch=2, groups=1, row_tokens=2048)
SAMPLES = drawn([(300, 60), (500, 100)])


@pytest.fixture
def meter(monkeypatch):
    monkeypatch.setattr(telemetry, "shape_of", lambda model: CHATGLM_6B)
    trainee = types.SimpleNamespace(model=None, device=torch.device("cpu"), is_prefix_model=True)
    made = Meter(Planner(SAMPLES, CONFIG), trainee, CONFIG)
    made.peak_tflops = 989.0
    return made


def record(meter, step=0, **values):
    given = {
        "loss": 2.0, "learning_rate": 1e-5, "gradient_norm": 1.0, "loss_scale": 1.0, "is_skipped": False,
        "n_skipped": 0, "seconds": 0.5, **values,
    }  # fmt: skip
    return meter.record(meter.planner.plan(step), **given)


def test_rates_count_what_samples_hold(meter):
    one = record(meter)
    assert (one.samples, one.tokens, one.labels, one.padding) == (2, 960, 160, 0)
    assert (one.samples_per_second, one.tokens_per_second, one.labels_per_second) == (4.0, 1920.0, 320.0)
    assert one.padding_per_second == 0


def test_mfu_is_flops_over_peak(meter):
    """6 N T for the blocks, 6 N L for the head, 12 layers x width x pairs, written out."""
    pairs = sum(c * (c + t) + t * (t + 1) // 2 for c, t in ((300, 60), (500, 100)))
    flops = 6 * 5_637_144_576 * 960 + 6 * 130_528 * 4096 * 160 + 12 * 28 * 4096 * pairs
    assert record(meter).mfu == pytest.approx(flops / (0.5 * 989e12), rel=1e-9)


def test_a_device_of_unknown_peak_has_no_mfu(meter):
    meter.peak_tflops = None
    assert record(meter).mfu is None


def test_padding_of_a_device_without_work_is_counted(meter):
    config = dataclasses.replace(CONFIG, batch=3, max_context_tokens=120, max_target_tokens=60, row_tokens=220)
    meter.planner = Planner(drawn([(100, 50)] * 3), config, world=2)
    one = record(meter)
    assert (one.tokens, one.padding) == (450, 150)


def test_the_time_left_follows_the_newest_steps(meter):
    assert record(meter, 0, seconds=1.0).remaining_seconds == 9.0
    assert record(meter, 1, seconds=2.0).remaining_seconds == pytest.approx(8 * 1.1)


def test_no_number_is_written_where_there_is_none(meter, tmp_path):
    one = record(meter, loss=math.inf, gradient_norm=math.nan, is_skipped=True)
    table = Table(tmp_path / "steps.csv", STEP_FIELDS, after_step=0)
    table.add(one)
    table.close()
    row = read_table(tmp_path / "steps.csv")[0]
    assert (one.loss, one.gradient_norm, row["loss"], row["gradient_norm"]) == (None, None, "", "")


def test_numbers_read_back_exactly(meter, tmp_path):
    written = [record(meter, step, loss=2 / 3, gradient_norm=0.1 + step) for step in range(4)]
    table = Table(tmp_path / "steps.csv", STEP_FIELDS, after_step=0)
    for one in written:
        table.add(one)
    table.close()
    for row, one in zip(read_table(tmp_path / "steps.csv"), written, strict=True):
        assert all(str(getattr(one, name)) == row[name] for name in STEP_FIELDS)


def test_a_table_goes_on_after_the_step_of_the_checkpoint(meter, tmp_path):
    path = tmp_path / "steps.csv"
    table = Table(path, STEP_FIELDS, after_step=0)
    for step in range(4):
        table.add(record(meter, step))
    table.close()
    path.write_text(path.read_text()[:-30])  # killed in the middle of the fourth row
    table = Table(path, STEP_FIELDS, after_step=2)
    table.add(record(meter, 2, loss=9.0))
    table.close()
    assert [(row["step"], row["loss"]) for row in read_table(path)] == [("1", "2.0"), ("2", "2.0"), ("3", "9.0")]


def test_tensorboard_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadConfig, match="pip install tensorboard"):
        Board(tmp_path, after_step=0)


def test_every_field_is_documented():
    fields = {field.name for field in dataclasses.fields(StepRecord)}
    told = {name for name in fields if name in (StepRecord.__doc__ or "") or name.endswith("_per_second")}
    assert fields - told <= {"loss_scale", "n_skipped", "seconds", "samples"}  # their names say it
