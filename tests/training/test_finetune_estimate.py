from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from models_runtime.engine.chatglm.configuration import published_config
from models_runtime.engine.chatglm.modeling import ChatGLMForConditionalGeneration
from models_runtime.engine.loading import load
from tests.models_runtime import tiny
from tests.training.samples import drawn
from training.finetune import packing
from training.finetune.config import SOULCHAT_PAPER
from training.finetune.errors import BadModel, DoesNotFit
from training.finetune.estimate import Hardware, estimate, refuse_what_cannot_fit
from training.finetune.hardware import CHATGLM_6B, ModelShape, peak_tflops, shape_from_config
from training.finetune.planner import Placed
from training.finetune.sharding import _with_adapters
from training.finetune.telemetry import shape_of

H200, A800 = Hardware("NVIDIA H200", 150e9), Hardware("NVIDIA A800-SXM4-80GB", 85e9)
# Means of SMILECHAT at 0.62 tokens a character: 318 and 68. Alike for all, so only the quadratic part differs.
LENGTHS = np.full(100, 318), np.full(100, 68)
PUBLISHED = {"hidden_size": 4096, "num_layers": 28, "inner_hidden_size": 16384, "vocab_size": 130528}


def test_chatglm_6b_has_its_published_size():
    assert shape_from_config(PUBLISHED) == CHATGLM_6B
    assert CHATGLM_6B.block_weights == pytest.approx(5.637e9, rel=1e-3)


@pytest.mark.parametrize("make", [tiny.chatglm, tiny.chatglm2, tiny.causal])
def test_a_config_tells_the_sizes_of_the_model(make, tmp_path):
    folder = make(tmp_path / "model")
    told = shape_from_config(json.loads((folder / "config.json").read_text()))
    assert dataclasses.replace(told, kept=0) == shape_of(load(folder).model)


def test_adapters_are_counted(tmp_path):
    folder = tiny.chatglm(tmp_path / "model")
    config = dataclasses.replace(SOULCHAT_PAPER, method="lora", lora_targets=("query_key_value", "dense"))
    model = _with_adapters(load(folder).model, config)
    parsed = json.loads((folder / "config.json").read_text())
    told = shape_from_config(parsed, lora_rank=config.lora_rank, lora_targets=config.lora_targets)
    assert told.adapter_weights == shape_of(model).adapter_weights > 0


def test_a_config_without_sizes_is_refused():
    with pytest.raises(BadModel, match="hidden_size"):
        shape_from_config({"model_type": "qwen2"})


def test_flops_are_those_of_the_published_arithmetic():
    """13.5 TFLOP for a mean SMILECHAT sample of 386 tokens, logits where a label is; varying lengths add 0.1."""
    flops = CHATGLM_6B.flops(tokens=386, labels=68, pairs=318 * 386 + 68 * 69 / 2, method="full")
    assert flops / 1e12 == pytest.approx(13.4, abs=0.15)


@pytest.mark.parametrize(("hardware", "hours"), [(dataclasses.replace(A800, devices=8), 7.2), (H200, 18.2)])
def test_the_papers_run_takes_as_long_as_reckoned_by_hand(hardware, hours):
    cost = estimate(SOULCHAT_PAPER, CHATGLM_6B, LENGTHS, hardware, is_prefix_model=True, mfu=0.5)
    assert cost.hours == pytest.approx(hours, rel=0.02)


def test_an_unknown_device_has_no_hours_rather_than_somebody_elses():
    cost = estimate(SOULCHAT_PAPER, CHATGLM_6B, LENGTHS, Hardware("Some GPU", 1e12), is_prefix_model=True)
    assert peak_tflops("NVIDIA H100 NVL") == 835 and peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("Some GPU") is None and cost.hours is None and cost.samples_per_second is None


def test_the_papers_run_fits_eight_a800_and_not_one():
    refuse_what_cannot_fit(
        SOULCHAT_PAPER, CHATGLM_6B, LENGTHS, dataclasses.replace(A800, devices=8), is_prefix_model=True
    )
    with pytest.raises(DoesNotFit, match=r"about 1\d\d\.\d GiB .* what would fit: [248] such devices"):
        refuse_what_cannot_fit(SOULCHAT_PAPER, CHATGLM_6B, LENGTHS, A800, is_prefix_model=True)
    tuned = dataclasses.replace(SOULCHAT_PAPER, method="lora")
    shape = shape_from_config(PUBLISHED, lora_rank=8, lora_targets=("query_key_value",))
    assert refuse_what_cannot_fit(tuned, shape, LENGTHS, A800, is_prefix_model=True).fits


def test_a_way_out_is_named_and_fits():
    small = dataclasses.replace(H200, memory_bytes=125e9)
    with pytest.raises(DoesNotFit, match="what would fit: recompute = true"):
        refuse_what_cannot_fit(SOULCHAT_PAPER, CHATGLM_6B, LENGTHS, small, is_prefix_model=True)
    recomputed = dataclasses.replace(SOULCHAT_PAPER, recompute=True)
    assert refuse_what_cannot_fit(recomputed, CHATGLM_6B, LENGTHS, small, is_prefix_model=True).fits


@pytest.mark.parametrize("kind", ["chatglm", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(kind, dtype):
    """Counted by the tensors it saves; the estimate adds the four copies of the kernel that a GPU uses."""
    hidden, inner = 256, 1024
    kept = {layers: _saved_bytes(kind, layers, hidden, inner, dtype) for layers in (1, 3)}
    per_number = (kept[3] - kept[1]) / 2 / 600 / dtype.itemsize
    shape: ModelShape = shape_from_config(
        {**PUBLISHED, "hidden_size": hidden, "inner_hidden_size": inner}
        if kind == "chatglm"
        else _qwen(1, hidden, inner).to_dict()
    )
    assert 0.75 * shape.kept < per_number < shape.kept


def _qwen(layers, hidden, inner):
    return Qwen2Config(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


def _saved_bytes(kind, layers, hidden, inner, dtype):
    if kind == "chatglm":
        model = ChatGLMForConditionalGeneration(published_config(tiny.chatglm_config(layers=layers, hidden=hidden)))
    else:
        model = Qwen2ForCausalLM(_qwen(layers, hidden, inner))
    model = model.to(dtype).train()
    packing.use_packed_attention(model)
    row = (Placed(0, 0.1), Placed(1, 0.1))
    packed = packing.pack_row(
        row,
        drawn([(300, 60), (200, 40)], high=300),
        is_prefix_model=kind == "chatglm",
        device=torch.device("cpu"),
        kernel=packing.by_sample,
    )
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    held: dict[int, torch.Tensor] = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = packing.weighted_loss(model, packed)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())
