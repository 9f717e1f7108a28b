"""ChatGLM2-6B on transformers' Glm, against numbers of the original: tests/models_runtime/reference/README.md."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import GlmForCausalLM
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding

from models_runtime.engine.glm2 import (
    ChatGLM2Tokenizer,
    finish_text,
    glm_config,
    renamed,
    renamed_lora,
    renamed_module,
    renamed_targets,
)
from models_runtime.engine.loading import load
from tests.models_runtime import tiny

FOLDER = tiny.REFERENCE / "chatglm2"
CASES = json.loads((FOLDER / "cases.json").read_text())
EXPECTED = json.loads((FOLDER / "tokenizer_expected.json").read_text())
CONFIG = json.loads((FOLDER / "config.json").read_text())


@pytest.fixture(scope="module")
def numbers():
    return load_file(FOLDER / "cases.safetensors")


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request):
    return load(FOLDER, attention=request.param).model


@pytest.mark.parametrize("case", ["prompt", "prompt_plus_target"])
def test_logits_match_the_original(model, numbers, case):
    with torch.no_grad():
        logits = model(numbers[f"{case}/input_ids"]).logits
    torch.testing.assert_close(logits, numbers[f"{case}/logits"], atol=2e-5, rtol=0)


def test_keys_and_values_match_the_original(model, numbers):
    with torch.no_grad():
        cache = model(numbers["prompt_plus_target/input_ids"], use_cache=True).past_key_values
    for i, layer in enumerate(cache.layers):
        torch.testing.assert_close(layer.keys, numbers["prompt_plus_target/keys"][i], atol=5e-6, rtol=0)
        torch.testing.assert_close(layer.values, numbers["prompt_plus_target/values"][i], atol=5e-6, rtol=0)


def test_a_row_padded_on_the_left_matches_the_original(model, numbers):
    ids, mask, positions = (numbers[f"batch_left_pad/{k}"] for k in ("input_ids", "attention_mask", "position_ids"))
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
    is_token = mask.bool()
    torch.testing.assert_close(logits[is_token], numbers["batch_left_pad/logits"][is_token], atol=2e-5, rtol=0)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("case", ["generate_greedy", "generate_beam3", "generate_sample", "generate_batch_left_pad"])
def test_every_generated_sequence_is_the_originals(model, numbers, case, cache):
    ids = numbers[f"{case}/input_ids"]
    if CASES[case]["seed"] is not None:
        torch.manual_seed(CASES[case]["seed"])
    sequences = model.generate(
        ids,
        attention_mask=(ids != 0).long(),
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
    attention = model.model.layers[0].self_attn
    fused = torch.cat([layer.weight.grad for layer in (attention.q_proj, attention.k_proj, attention.v_proj)])
    torch.testing.assert_close(fused, numbers["train_right_pad/grad_qkv0"], atol=1e-5, rtol=0)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    torch.testing.assert_close(norm, numbers["train_right_pad/grad_total_norm"][0], atol=1e-5, rtol=1e-5)


def test_rotary_tables_are_the_originals_in_float32_at_the_real_size(numbers):
    rotary = GlmRotaryEmbedding(glm_config({**CONFIG, "kv_channels": 128, "hidden_size": 512}))
    cos, sin = rotary(torch.zeros(1), numbers["rotary_float/positions"][None])
    torch.testing.assert_close(cos[0, :, :32], numbers["rotary_float/cos"], atol=1e-6, rtol=0)
    torch.testing.assert_close(sin[0, :, :32], numbers["rotary_float/sin"], atol=1e-6, rtol=0)


def test_the_published_size_has_the_published_parameters():
    sizes = {"num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128}
    sizes |= {"multi_query_group_num": 2, "ffn_hidden_size": 13696, "padded_vocab_size": 65024}
    with torch.device("meta"):
        model = GlmForCausalLM(glm_config({**CONFIG, **sizes}))
    assert sum(value.numel() for value in model.parameters()) == 6_243_584_000


@pytest.fixture(scope="module")
def tokenizer():
    return ChatGLM2Tokenizer(FOLDER / "tokenizer.model")


@pytest.mark.parametrize("case", EXPECTED["texts"], ids=lambda case: case["text"][:8] or "empty")
def test_it_makes_the_originals_ids_and_text(tokenizer, case):
    plain = tokenizer.encode(case["text"], add_special_tokens=False)
    assert plain == case["ids_plain"]
    assert tokenizer.tokens(plain) == case["tokens"]
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.decode(case["ids_plain"]) == case["decode"]
    assert tokenizer.decode(case["ids"]) == case["decode_with_specials"]


def test_it_knows_the_special_ids(tokenizer):
    special = EXPECTED["special_ids"]
    assert tokenizer.vocab_size == EXPECTED["vocab_size"]
    assert (tokenizer.gmask_token_id, tokenizer.bos_token_id) == (special["[gMASK]"], special["sop"])
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (special["<pad>"], special["<eos>"])
    assert tokenizer.tokens([special["sop"]]) == ["sop"]


def test_a_pair_is_built_as_the_original_builds_it(tokenizer):
    assert tokenizer.prompt(EXPECTED["pair"]["a"], EXPECTED["pair"]["b"]) == EXPECTED["pair"]["built"]


@pytest.mark.parametrize("case", EXPECTED["decode_generated"], ids=str)
def test_generated_ids_become_the_originals_text(tokenizer, case):
    assert tokenizer.decode(case["ids"]) == case["decode"]


@pytest.mark.parametrize("case", CASES["process_response"], ids=lambda case: case["in"])
def test_a_response_is_finished_as_the_original_does(case):
    assert finish_text(case["in"]) == case["out"]


@pytest.mark.parametrize(
    "key", ["rmsnorm", "post_layer_norm", "multi_query_attention", "add_bias_linear", "original_rope"]
)
def test_a_switch_that_glm_does_not_have_is_refused(key):
    with pytest.raises(ValueError, match=key):
        glm_config({**CONFIG, key: not CONFIG.get(key, True)})


def test_a_longer_context_stretches_the_rotation():
    """ChatGLM2-6B-32k says it by rope_ratio, a factor of the base. Source: its modeling file."""
    assert glm_config({**CONFIG, "rope_ratio": 50}).rope_parameters["rope_theta"] == 500_000


def test_a_name_of_another_model_has_no_place():
    with pytest.raises(KeyError):
        renamed_module("transformer.layers.0.attention.query_key_value")
    with pytest.raises(KeyError):
        renamed_targets(["q_proj"])


def test_an_adapter_of_the_fused_layer_changes_the_same_rows():
    """B @ A, split by name as the weights are, is the change that the adapter makes to each part."""
    config = glm_config(CONFIG)
    a, b = torch.randn(4, 64), torch.randn(128, 4)
    module = "transformer.encoder.layers.1.self_attention.query_key_value"
    new = {}
    for side, value in (("lora_A", a), ("lora_B", b)):
        new |= dict(renamed_lora(f"base_model.model.{module}.{side}.weight", value, config))
    for name, rows in renamed(f"{module}.weight", b @ a, config):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        torch.testing.assert_close(new[f"{stem}.lora_B.weight"] @ new[f"{stem}.lora_A.weight"], rows)
    assert len(new) == 6
