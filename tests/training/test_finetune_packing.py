"""Packed rows against each sample alone: through the model's own stock attention, one sample at a time."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from models_runtime.engine.chatglm.configuration import published_config
from models_runtime.engine.chatglm.modeling import ChatGLMForConditionalGeneration
from tests.models_runtime import tiny
from tests.training.samples import drawn, drawn_for_chatglm, some_lengths
from training.finetune import packing
from training.finetune.errors import BadModel
from training.finetune.planner import Placed

CPU = torch.device("cpu")
LENGTHS = [(1, 1), (1, 2), (7, 1), (12, 9), *some_lengths(6, seed=3)]  # single tokens on either side too


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def chatglm_model(**settings):
    values = tiny.chatglm_config(layers=3)
    model = ChatGLMForConditionalGeneration(published_config(values, attn_implementation="eager", **settings))
    tensors = {k: v for k, v in tiny.chatglm_tensors(values, dtype=torch.float32).items() if "inv_freq" not in k}
    model.load_state_dict(tensors)
    return model, drawn_for_chatglm(LENGTHS, values)


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    return tiny.causal(tmp_path_factory.mktemp("causal"), layers=3)


def models(kind, causal_folder):
    if kind == "chatglm":
        return chatglm_model()
    return AutoModelForCausalLM.from_pretrained(causal_folder, attn_implementation="eager"), drawn(LENGTHS, seed=4)


def alone(model, samples, row):
    """The weighted loss of each sample by the model's own attention, positions and labels; then the gradients."""
    total = torch.zeros(())
    for number, weight in row:
        context, target = (torch.as_tensor(part, dtype=torch.long) for part in samples[number])
        ids = torch.cat([context, target])[None]
        labels = torch.cat([torch.full((len(context),), -100), target])[None]
        total = total + model(input_ids=ids, labels=labels).loss * weight * len(target)
    return total.detach(), gradients(model, total)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("kernel", ["by_sample", "varlen"])
@pytest.mark.parametrize("kind", ["chatglm", "causal"])
def test_packed_is_each_sample_alone(kind, kernel, causal_folder, monkeypatch):
    if kernel == "varlen":
        monkeypatch.setattr(packing, "_varlen_of_torch", lambda: (varlen_in_plain_steps, {"is_causal": True}, "scale"))
    model, samples = models(kind, causal_folder)
    row = tuple(Placed(i, 0.001 * (i + 1)) for i in range(len(samples)))
    expected, expected_grads = alone(model, samples, row)
    packing.use_packed_attention(model)
    packed = packing.pack_row(
        row, samples, is_prefix_model=kind == "chatglm", device=CPU, kernel=getattr(packing, kernel)
    )
    loss = packing.weighted_loss(model, packed)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(model, loss).items():
        scale = max(1.0, expected_grads[name].abs().max().item())
        assert (gradient - expected_grads[name]).abs().max().item() < 1e-5 * scale, name


@pytest.mark.parametrize("kind", ["chatglm", "causal"])
def test_flex_attention_makes_the_same_loss(kind, causal_folder):
    """The loss alone: on a CPU torch has no way back through it. On a GPU `pick_kernel` tries its gradients as well."""
    model, samples = models(kind, causal_folder)
    row = tuple(Placed(i, 0.001 * (i + 1)) for i in range(len(samples)))
    expected, _ = alone(model, samples, row)
    packing.use_packed_attention(model.requires_grad_(False))
    packed = packing.pack_row(row, samples, is_prefix_model=kind == "chatglm", device=CPU, kernel=packing.flex)
    assert packing.weighted_loss(model, packed).item() == pytest.approx(expected.item(), rel=1e-6)


def varlen_in_plain_steps(q, k, v, q_bounds, k_bounds, max_q, max_k, *, is_causal=False, scale=None):
    """What the kernel is documented to do, sequence by sequence; causal is aligned at the end."""
    parts = []
    bounds = zip(q_bounds[:-1], q_bounds[1:], k_bounds[:-1], k_bounds[1:], strict=True)
    for q0, q1, k0, k1 in (tuple(int(b) for b in four) for four in bounds):
        assert q1 - q0 <= max_q and k1 - k0 <= max_k
        scores = torch.einsum("qnh,knh->nqk", q[q0:q1], k[k0:k1]) * scale
        if is_causal:
            seen = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0))
            scores = scores.masked_fill(~seen, -torch.inf)
        parts.append(torch.einsum("nqk,knh->qnh", scores.softmax(-1), v[k0:k1]))
    return torch.cat(parts)


@pytest.mark.parametrize("kind", ["chatglm", "causal"])
def test_no_sample_notices_its_neighbours(kind, causal_folder):
    """Other neighbours, another place in the row: the same loss."""
    model, samples = models(kind, causal_folder)
    packing.use_packed_attention(model)

    def own(row):
        counted = [placed if placed.sample == 3 else placed._replace(weight=0.0) for placed in row]
        packed = packing.pack_row(
            tuple(counted), samples, is_prefix_model=kind == "chatglm", device=CPU, kernel=packing.by_sample
        )
        return packing.weighted_loss(model, packed).item()

    first = own([Placed(3, 1.0), Placed(4, 1.0)])
    assert own([Placed(0, 1.0), Placed(5, 1.0), Placed(3, 1.0)]) == pytest.approx(first, rel=1e-6)
    assert own([Placed(3, 1.0), Placed(4, 1.0), Placed(6, 1.0)]) == pytest.approx(first, rel=1e-6)


def test_a_kernel_is_tried_before_it_is_trusted(monkeypatch):
    assert packing.difference_from_plain(packing.by_sample, CPU, torch.float32, 16) < 1e-5
    monkeypatch.setattr(packing, "_varlen_of_torch", lambda: (varlen_in_plain_steps, {"is_causal": True}, "scale"))
    assert packing.difference_from_plain(packing.varlen, CPU, torch.float32, 16) < 1e-5


def test_a_kernel_that_is_wrong_would_be_noticed():
    def without_prefix(query, key, value, scaling, layout):
        whole = packing.Layout(layout.lengths, (0,) * len(layout.lengths), layout.device, layout.kernel)
        return packing.by_sample(query, key, value, scaling, whole)

    assert packing.difference_from_plain(without_prefix, CPU, torch.float32, 16) > 0.1

    def without_gradient(query, key, value, scaling, layout):
        cut = [part.detach().clone() for part in (key, value)]
        return packing.by_sample(query, *cut, scaling, layout) + 0 * (key + value)

    assert packing.difference_from_plain(without_gradient, CPU, torch.float32, 16) > 0.1


def test_pairs_are_what_the_mask_shows():
    layout = packing.Layout((9, 2, 14), (5, 0, 13), CPU, packing.by_sample)
    place = torch.arange(25)
    seen = (layout.sample_T[:, None] == layout.sample_T) & (
        (place <= place[:, None]) | (place < layout.prefix_end_T[:, None])
    )
    assert layout.pairs == int(seen.sum())


def test_a_model_that_drops_the_layout_is_refused():
    model, samples = chatglm_model()
    packing.use_packed_attention(model)
    with pytest.raises(BadModel, match="does not hand on how its row is packed"):
        model(input_ids=torch.tensor([[*samples[4][0], *samples[4][1]]]))


def test_a_model_with_an_attention_of_its_own_is_refused():
    class Own(torch.nn.Module):
        pass

    with pytest.raises(BadModel, match="Own has an attention of its own"):
        packing.use_packed_attention(Own())
