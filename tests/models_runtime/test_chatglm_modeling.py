"""ChatGLM-6B against numbers of the original implementation: tests/models_runtime/reference/README.md."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from models_runtime.engine.chatglm.configuration import ChatGLMConfig
from models_runtime.engine.chatglm.modeling import (
    ChatGLMForConditionalGeneration,
    next_positions,
    prompt_positions,
    rotation,
)
from tests.models_runtime.tiny import REFERENCE

FOLDER = REFERENCE / "chatglm"
CASES = json.loads((FOLDER / "cases.json").read_text())
PROMPTS = ("prompt_gmask", "prompt_plus_target", "mask_in_middle", "both_masks", "text_after_gmask")
IMPLEMENTATIONS = ("eager", "sdpa")


@pytest.fixture(scope="module")
def numbers():
    return load_file(FOLDER / "cases.safetensors")


def build(implementation="eager", dtype=torch.float32):
    settings = json.loads((FOLDER / "config.json").read_text())
    model = ChatGLMForConditionalGeneration(ChatGLMConfig(**settings, attn_implementation=implementation))
    weights = {k: v.to(dtype) for k, v in load_file(FOLDER / "model.safetensors").items() if "inv_freq" not in k}
    model.to(dtype).load_state_dict(weights)
    return model.eval()


@pytest.fixture(params=IMPLEMENTATIONS, scope="module")
def model(request):
    return build(request.param)


@pytest.mark.parametrize("case", PROMPTS)
def test_logits_match_the_original(model, numbers, case):
    with torch.no_grad():
        logits = model(numbers[f"{case}/input_ids"]).logits
    torch.testing.assert_close(logits, numbers[f"{case}/logits"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("case", PROMPTS)
def test_positions_match_the_original(model, numbers, case):
    positions = prompt_positions(numbers[f"{case}/input_ids"], None, model.config)
    assert torch.equal(positions.transpose(0, 1), numbers[f"{case}/position_ids"])


def test_keys_and_values_match_the_original(model, numbers):
    with torch.no_grad():
        cache = model(numbers["prompt_plus_target/input_ids"], use_cache=True).past_key_values
    for i, layer in enumerate(cache.layers):
        torch.testing.assert_close(layer.keys, numbers["prompt_plus_target/keys"][i], atol=5e-6, rtol=0)
        torch.testing.assert_close(layer.values, numbers["prompt_plus_target/values"][i], atol=5e-6, rtol=0)


def padded(numbers, case="batch_left_pad"):
    ids = numbers[f"{case}/input_ids"]
    return ids, (ids != 3).long()


def test_a_row_padded_on_the_left_matches_the_original(model, numbers):
    ids, mask = padded(numbers)
    positions = prompt_positions(ids, mask, model.config)
    assert torch.equal(positions.transpose(0, 1), numbers["batch_left_pad/position_ids"])
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
    is_token = mask.bool()
    torch.testing.assert_close(logits[is_token], numbers["batch_left_pad/logits"][is_token], atol=2e-5, rtol=0)


def test_the_cached_step_gives_what_the_whole_row_gives(model, numbers):
    """Every step of the greedy sequence, against one pass of the original over all of it."""
    ids = numbers["greedy_sequence_rescored/input_ids"]
    n_prompt = numbers["generate_greedy/input_ids"].shape[1]
    positions = prompt_positions(ids[:, :n_prompt], None, model.config)
    with torch.no_grad():
        out = model(ids[:, :n_prompt], position_ids=positions, use_cache=True)
        steps = [out.logits]
        for t in range(n_prompt, ids.shape[1]):
            positions = next_positions(positions)
            out = model(ids[:, t : t + 1], position_ids=positions, past_key_values=out.past_key_values)
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), numbers["greedy_sequence_rescored/logits"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("case", ["generate_greedy", "generate_beam3", "generate_sample", "generate_batch_left_pad"])
def test_every_generated_sequence_is_the_originals(model, numbers, case, cache):
    ids = numbers[f"{case}/input_ids"]
    if CASES[case]["seed"] is not None:
        torch.manual_seed(CASES[case]["seed"])
    sequences = model.generate(
        ids,
        attention_mask=(ids != 3).long(),
        cache_implementation=cache,
        disable_compile=True,
        **CASES[case]["generate_kwargs"],
    )
    assert sequences.tolist() == numbers[f"{case}/sequences"].tolist()


def test_loss_and_gradients_match_the_original(model, numbers):
    model.zero_grad()
    out = model(numbers["train_right_pad/input_ids"], labels=numbers["train_right_pad/labels"])
    out.loss.backward()
    torch.testing.assert_close(out.loss.detach(), numbers["train_right_pad/loss"][0], atol=1e-5, rtol=0)
    grad = model.transformer.layers[0].attention.query_key_value.weight.grad
    torch.testing.assert_close(grad, numbers["train_right_pad/grad_qkv0"], atol=1e-5, rtol=0)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    torch.testing.assert_close(norm, numbers["train_right_pad/grad_total_norm"][0], atol=1e-5, rtol=1e-5)
    words = model.transformer.word_embeddings.weight.grad.norm()
    torch.testing.assert_close(words, numbers["train_right_pad/grad_emb_norm"][0], atol=1e-5, rtol=1e-5)


def test_recomputing_activations_changes_no_gradient(model, numbers):
    def gradients():
        model.zero_grad()
        model(numbers["train_right_pad/input_ids"], labels=numbers["train_right_pad/labels"]).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    model.train()
    plain = gradients()
    model.activation_checkpointing_enable()
    recomputed = gradients()
    model.activation_checkpointing_disable()
    model.eval()
    for one, other in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


def test_float16_stays_near_the_original_in_float16(numbers):
    """Nearer than float16 took the original from its own float32: 0.023, at logits up to 14."""
    with torch.no_grad():
        logits = build("eager", torch.float16)(numbers["prompt_plus_target_fp16/input_ids"]).logits.float()
    torch.testing.assert_close(logits, numbers["prompt_plus_target_fp16/logits"], atol=0.02, rtol=0)


def packed(numbers):
    """Two samples in one row, with the positions of each and a mask that keeps them apart; and their logits alone."""
    cases = ("prompt_plus_target", "text_after_gmask")
    ids = [numbers[f"{case}/input_ids"] for case in cases]
    positions = [numbers[f"{case}/position_ids"].transpose(0, 1) for case in cases]
    is_seen = [~numbers[f"{case}/attention_mask_true_is_masked"][0, 0] for case in cases]
    logits = [numbers[f"{case}/logits"] for case in cases]
    mask = torch.block_diag(*is_seen).bool()[None, None]
    return torch.cat(ids, 1), torch.cat(positions, 2), mask, torch.cat(logits, 1)


def test_packed_samples_do_not_see_each_other(numbers):
    """Explicit positions and a finished mask, as training feeds them."""
    ids, positions, mask, expected = packed(numbers)
    with torch.no_grad():
        logits = build("sdpa")(ids, position_ids=positions, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


def test_an_attention_of_ones_own_gets_its_arguments(numbers):
    """Packed training computes attention in two calls per sample; here it is handed the spans as an argument."""

    def by_span(module, query, key, value, attention_mask, scaling, spans, **kwargs):
        assert attention_mask is None
        out = torch.zeros_like(query)
        for begin, start, end in spans:
            for rows, last in [(slice(begin, start), start)] + [(slice(t, t + 1), t + 1) for t in range(start, end)]:
                seen = slice(begin, last)
                weights = (query[:, :, rows] @ key[:, :, seen].transpose(-1, -2) * scaling).softmax(-1)
                out[:, :, rows] = weights @ value[:, :, seen]
        return out.transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("by_span", by_span)
    ids, positions, _, expected = packed(numbers)
    starts = (positions[1, 0] == 1).nonzero().flatten().tolist()
    spans = [(0, starts[0], 15), (15, starts[1], ids.shape[1])]
    model = build("sdpa")
    model.set_attn_implementation("by_span")
    with torch.no_grad():
        logits = model(ids, position_ids=positions, use_cache=False, spans=spans).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


def test_only_the_logits_asked_for_are_made(model, numbers):
    ids, expected = numbers["prompt_plus_target/input_ids"], numbers["prompt_plus_target/logits"]
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[0, [2, 9, 14]] = True
    with torch.no_grad():
        assert model(ids, logits_to_keep=1).logits.shape == (1, 1, 544)
        torch.testing.assert_close(model(ids, logits_to_keep=wanted).logits, expected[wanted], atol=2e-5, rtol=0)


def test_a_row_that_is_no_prompt_is_named(model, numbers):
    ids = numbers["prompt_gmask/input_ids"].repeat(2, 1)
    ids[1, -1] = 400  # no <sop>
    with pytest.raises(ValueError, match=r"row 1 is no ChatGLM-6B prompt.*<sop>"):
        model(ids)


def test_a_later_token_needs_its_position(model, numbers):
    with torch.no_grad():
        cache = model(numbers["prompt_gmask/input_ids"], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="position_ids"):
        model(torch.tensor([[400]]), past_key_values=cache)


def test_positions_do_not_depend_on_padding(numbers):
    ids = numbers["prompt_plus_target/input_ids"]
    config = ChatGLMConfig(**json.loads((FOLDER / "config.json").read_text()))
    wide = torch.nn.functional.pad(ids, (7, 0), value=3)
    positions = prompt_positions(wide, (wide != 3).long(), config)
    assert torch.equal(positions[:, :, 7:], prompt_positions(ids, None, config))
    assert not positions[:, :, :7].any()


def test_the_published_size_has_the_published_parameters():
    """6,173,286,400 numbers, the embedding table counted once, and the tensor names of the published index."""
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(ChatGLMConfig())
    assert sum(value.numel() for value in model.parameters()) == 6_173_286_400
    n_tables = 28  # of positions, one per layer, in the files and not in the model
    assert len(model.state_dict()) == 368 - n_tables


@pytest.mark.parametrize(("table", "dtype"), [("rotary_half", torch.float16), ("rotary_float", torch.float32)])
def test_rotary_tables_are_the_originals_at_the_real_size(numbers, table, dtype):
    positions = numbers[f"{table}/positions"]
    cos, sin = rotation(torch.stack([positions, positions])[:, None], 128, dtype, dtype)
    for half in (slice(0, 64), slice(64, 128)):
        torch.testing.assert_close(cos[0, 0, :, half].float(), numbers[f"{table}/cos"], atol=1e-6, rtol=0)
        torch.testing.assert_close(sin[0, 0, :, half].float(), numbers[f"{table}/sin"], atol=1e-6, rtol=0)
