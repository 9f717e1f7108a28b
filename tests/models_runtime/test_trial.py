"""A model that cannot run in the batch, or answers otherwise there, is found before the first item."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models_runtime.engine import worker
from models_runtime.engine.errors import WrongArchitecture
from models_runtime.engine.trial import try_in_batch
from tests.models_runtime import tiny
from tests.models_runtime.test_generation import causal
from tests.models_runtime.test_worker import make_job, run_here


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_that_listens_to_mask_and_positions_passes(dtype):
    try_in_batch(causal().model.to(dtype))


def deaf_to(name: str) -> Any:
    """A model that takes one of the arguments and makes nothing of it, as some architectures do."""
    model = causal().model
    plain = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.get(name)
        if name == "attention_mask" and given is not None:
            kwargs[name] = torch.ones_like(given)
        if name == "position_ids":
            kwargs[name] = torch.zeros_like(given)
        return plain(*args, **kwargs)

    model.forward = forward
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_what_the_mask_hides_is_refused(dtype):
    with pytest.raises(WrongArchitecture, match="otherwise in a batch"):
        try_in_batch(deaf_to("attention_mask").to(dtype))


def test_a_model_that_fails_in_a_batch_is_refused_with_its_reason(tmp_path, monkeypatch):
    model = causal().model
    monkeypatch.setattr(model, "forward", lambda input_ids: None)
    with pytest.raises(WrongArchitecture, match=r"TypeError.*position_ids.*behind an API"):
        try_in_batch(model)

    def fails(model: Any) -> None:
        raise WrongArchitecture("no")

    monkeypatch.setattr(worker, "try_in_batch", fails)
    with pytest.raises(WrongArchitecture):
        run_here(make_job(tiny.causal(tmp_path / "weights"), tmp_path))


def test_memory_that_runs_out_is_left_to_the_run(monkeypatch):
    model = causal().model

    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("Tried to allocate more than there is")

    monkeypatch.setattr(model, "forward", full)
    try_in_batch(model)
