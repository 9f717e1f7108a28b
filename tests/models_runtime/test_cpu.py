"""What is quick on a processor gives what is slow gives."""

from __future__ import annotations

import pytest
import torch

from models_runtime.engine import cpu
from models_runtime.engine.cpu import PackedLinear, attends_by_row, by_row, pack_linears
from tests.models_runtime.test_generation import FEW, MAKERS, SAMPLED, alone, causal, chatglm, dialogues, texts


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_packed_weights_answer_what_plain_weights_answer(make, monkeypatch):
    monkeypatch.setattr(cpu, "SMALL_WEIGHT", 0)
    monkeypatch.setattr(cpu, "CALL_BYTES", 0)
    speaker = make()
    ids = torch.arange(10, 60)[None]
    if make is chatglm:
        ids = torch.tensor([speaker.encode("我近来睡不着")])
    with torch.inference_mode():
        plain = speaker.model(input_ids=ids).logits
    expected = {(one.item, 0): alone(speaker, one, SAMPLED) for one in dialogues(4)}
    n_linear = sum(type(module) is torch.nn.Linear for module in speaker.model.modules())
    assert pack_linears(speaker.model) == n_linear > 4
    assert isinstance(speaker.model.lm_head, PackedLinear)
    with torch.inference_mode():
        torch.testing.assert_close(speaker.model(input_ids=ids).logits, plain, atol=2e-5, rtol=0)
    found = texts(speaker, dialogues(4), limits=FEW)
    for key, tokens in expected.items():
        ended = tokens[-1] in speaker.end_token_ids
        assert found[key] == (speaker.decode(tokens[:-1] if ended else tokens) or "empty_response")


def test_small_layers_and_other_precisions_stay_as_they_are(monkeypatch):
    assert pack_linears(causal().model) == 0
    monkeypatch.setattr(cpu, "SMALL_WEIGHT", 0)
    assert pack_linears(causal().model.bfloat16()) == 0


def test_a_row_looks_at_its_own_past_alone_and_the_model_is_left_as_it_was():
    """Four heads of queries on two of keys; what lies beyond a row's length is no number."""
    model = causal().model
    assert attends_by_row(model)
    generator = torch.Generator().manual_seed(0)
    query, lengths = torch.randn(3, 4, 1, 16, generator=generator), [5, 1, 8]
    key, value = torch.randn(2, 3, 2, 8, 16, generator=generator)
    expected = []
    for row, n in enumerate(lengths):
        keys, values = (x[row, :, :n].repeat_interleave(2, dim=0) for x in (key, value))
        expected.append(((query[row] @ keys.transpose(-1, -2) * 0.3).softmax(-1) @ values).transpose(0, 1))
        key[row, :, n:] = value[row, :, n:] = float("nan")
    found, _ = cpu._attend_by_row(model, query, key, value, None, row_lengths=lengths, scaling=0.3)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)
    with pytest.raises(RuntimeError, match="stop"), by_row(model, lengths, 10**9):
        assert model.config._attn_implementation == cpu.BY_ROW
        raise RuntimeError("stop")
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert not attends_by_row(model)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_running_batch_asks_for_it_where_it_pays(make, monkeypatch):
    speaker, seen = make(), []
    plain = cpu._attend_by_row

    def watching(*args, row_lengths, **kwargs):
        seen.append(tuple(row_lengths))
        return plain(*args, row_lengths=row_lengths, **kwargs)

    monkeypatch.setitem(cpu.AttentionInterface._global_mapping, cpu.BY_ROW, watching)
    texts(speaker, dialogues(3), limits=FEW)
    assert not seen
    monkeypatch.setattr(cpu, "CALL_BYTES", 0)
    texts(speaker, dialogues(3), limits=FEW)
    assert max(map(len, seen)) == 3
    assert any(len(set(lengths)) == 3 for lengths in seen)
