"""What comes out of a folder, and what is said of one that is missing, damaged, foreign or hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from models_runtime.engine.errors import (
    AdapterMismatch,
    CorruptShard,
    DeviceUnavailable,
    EngineError,
    TokenizerMissing,
    UnsafeWeights,
    WeightsMissing,
    WrongArchitecture,
)
from models_runtime.engine.loading import adapter_digest, chat_text, load, weights_digest
from tests.models_runtime import tiny

V1 = tiny.REFERENCE / "chatglm"
MAKERS = {"chatglm": tiny.chatglm, "chatglm2": tiny.chatglm2, "causal": tiny.causal}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder of each family, to be read only."""
    home = tmp_path_factory.mktemp("weights")
    return {family: make(home / family) for family, make in MAKERS.items()}


@pytest.fixture
def v1(tmp_path):
    """A ChatGLM-6B folder to spoil: two pickled shards, as published."""
    return tiny.chatglm(tmp_path / "v1", form="bin", shards=2)


def logits(loaded, text="你好，我睡不着"):
    if loaded.family == "causal":
        message = [{"role": "user", "content": text}]
        ids = loaded.tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
    else:
        ids = loaded.tokenizer.encode(text)
    with torch.no_grad():
        return loaded.model(torch.tensor([ids])).logits


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**config, **changes})


@pytest.mark.parametrize("family", MAKERS)
def test_families_are_told_apart(folders, family):
    loaded = load(folders[family])
    assert loaded.family == family
    assert not loaded.model.training
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float32}
    assert not [name for name, value in loaded.model.named_parameters() if value.is_meta]
    assert not [name for name, value in loaded.model.named_buffers() if value.is_meta]
    assert loaded.stop_ids and loaded.context_length == 2048
    assert torch.isfinite(logits(loaded)).all()


def test_v1_and_v2_are_told_apart_although_they_share_their_type(folders):
    types = [json.loads((folders[f] / "config.json").read_text())["model_type"] for f in ("chatglm", "chatglm2")]
    assert types == ["chatglm", "chatglm"]


@pytest.mark.parametrize(("form", "shards"), [("bin", 1), ("bin", 3), ("safetensors", 3)])
@pytest.mark.parametrize("family", ["chatglm", "chatglm2"])
def test_every_published_layout_gives_the_same_model(folders, tmp_path, family, form, shards):
    other = MAKERS[family](tmp_path / "other", form=form, shards=shards)
    assert torch.equal(logits(load(other)), logits(load(folders[family])))


@pytest.mark.parametrize("family", MAKERS)
def test_dtype_is_the_callers(folders, family):
    loaded = load(folders[family], dtype=torch.float16)
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float16}
    torch.testing.assert_close(logits(loaded).float(), logits(load(folders[family])), atol=0.15, rtol=0)


def test_the_output_layer_of_v1_is_the_embedding_table(folders):
    model = load(folders["chatglm"]).model
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_unequal_output_and_embedding_tables_are_said(folders, tmp_path, form):
    """The published code ties them on loading, and the embeddings win."""
    folder = shutil.copytree(folders["chatglm"], tmp_path / "v1")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    (folder / "model.safetensors").unlink()
    tiny.save_tensors(folder, tensors, form=form)
    loaded = load(folder)
    assert "lm_head differs" in loaded.notes[0]
    assert torch.equal(logits(loaded), logits(load(folders["chatglm"])))


def test_v1_without_an_output_table_is_whole(folders, tmp_path):
    """transformers writes tied weights once."""
    load(folders["chatglm"]).model.save_pretrained(tmp_path / "saved")
    shutil.copyfile(V1 / "ice_text.model", tmp_path / "saved" / "ice_text.model")
    assert "lm_head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")
    assert torch.equal(logits(load(tmp_path / "saved")), logits(load(folders["chatglm"])))


def test_the_first_release_with_its_larger_vocabulary_loads(folders, tmp_path):
    """20,000 image tokens before the words, and a config.json that leaves the mask ids to its class."""
    folder = shutil.copytree(folders["chatglm"], tmp_path / "first")
    tensors = load_file(folder / "model.safetensors")
    for name in ("lm_head.weight", "transformer.word_embeddings.weight"):
        tensors[name] = torch.cat([torch.zeros(20000, 64, dtype=torch.float16), tensors[name]])
    save_file(tensors, folder / "model.safetensors")
    ids = {"bos_token_id": 20008, "eos_token_id": 20009, "mask_token_id": 20004, "gmask_token_id": 20005}
    change_config(folder, vocab_size=20544, pad_token_id=20003, **ids)
    loaded = load(folder)
    assert loaded.stop_ids == {20009} and loaded.pad_id == 20003
    assert torch.equal(logits(loaded)[..., 20000:], logits(load(folders["chatglm"])))


def quantise(weight, bits):
    """The official form: integers and one scale per row; at 4 bits two columns to a byte, the even one above.

    Returns what is stored, the scales, and the weights that they stand for.
    """
    scale = weight.float().abs().amax(dim=1) / (2 ** (bits - 1) - 1)
    codes = (weight.float() / scale[:, None]).round().to(torch.int8)
    meant = codes.float() * scale.half().float()[:, None]
    if bits == 4:
        even, odd = codes[:, 0::2].to(torch.uint8), codes[:, 1::2].to(torch.uint8)
        codes = ((even << 4) | (odd & 0xF)).view(torch.int8)
    return codes, scale.half(), meant


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shards", [1, 3])
def test_official_integer_weights_are_dequantised(folders, tmp_path, bits, shards):
    folder = shutil.copytree(folders["chatglm"], tmp_path / "int")
    tensors, plain = load_file(folder / "model.safetensors"), {}
    for name in [n for n in tensors if ".layers." in n and n.endswith("weight") and tensors[n].ndim == 2]:
        tensors[name], tensors[f"{name}_scale"], plain[name] = quantise(tensors[name], bits)
    assert len(plain) == 8
    change_config(folder, quantization_bit=bits)
    (folder / "model.safetensors").unlink()
    tiny.save_tensors(folder, dict(sorted(tensors.items(), reverse=True)), form="bin", shards=shards)
    loaded = load(folder)
    values = dict(loaded.model.named_parameters())
    for name, expected in plain.items():
        torch.testing.assert_close(values[name].detach(), expected, atol=0, rtol=1e-6)
    assert loaded.notes == (f"int{bits} weights, dequantised on loading",)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (64, 1)], ids=str)
def test_integer_weights_need_a_scale_for_each_row(folders, tmp_path, shape):
    folder = shutil.copytree(folders["chatglm"], tmp_path / "int")
    tensors, name = load_file(folder / "model.safetensors"), "transformer.layers.0.attention.dense.weight"
    tensors[name], _, _ = quantise(tensors[name], 8)
    save_file({**tensors, f"{name}_scale": torch.ones(shape)}, folder / "model.safetensors")
    with pytest.raises(WrongArchitecture, match=r"dense\.weight.*one for each row"):
        load(folder)


def test_an_official_int8_layer_comes_back_within_half_a_step():
    """Integers and scales made by the original quantisation code."""
    numbers = load_file(V1 / "cases.safetensors")
    codes, scale = numbers["quant_int8/qweight"], numbers["quant_int8/weight_scale"]
    from models_runtime.engine.loading import _unpacked

    restored = _unpacked(codes, 8) * scale[:, None]
    # Half a step, and what float16 took from the scale at the largest of 127 steps.
    off = (restored - numbers["quant_int8/weight"]).abs()
    assert (off <= scale[:, None] * (0.5 + 127 * 2**-11) + 1e-7).all()


def test_four_bit_bytes_are_read_as_the_original_kernel_writes_them():
    """[1, -2, 7, -7, 0, 3, -1, -8] ► 1e 79 03 f8, measured with the published kernel."""
    from models_runtime.engine.loading import _unpacked

    packed = torch.tensor([[0x1E, 0x79, 0x03, 0xF8]], dtype=torch.uint8).view(torch.int8)
    assert _unpacked(packed, 4).tolist() == [[1, -2, 7, -7, 0, 3, -1, -8]]


# Adapters


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_lora_adapter_loads_under_the_original_names(folders, tmp_path, form):
    adapter = tiny.chatglm_lora(tmp_path / "lora")
    tensors = load_file(adapter / "adapter_model.safetensors")
    if form == "bin":
        (adapter / "adapter_model.safetensors").unlink()
        torch.save(tensors, adapter / "adapter_model.bin")
    loaded = load(folders["chatglm"], adapter=adapter)
    name = "transformer.layers.1.attention.query_key_value"
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    plain = load(folders["chatglm"])
    expected = plain.model.get_submodule(name).weight + 2 * b @ a  # alpha / r = 2
    torch.testing.assert_close(loaded.model.get_submodule(name).weight, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(logits(loaded), logits(plain), atol=0.01)
    assert loaded.adapter_digest == adapter_digest(adapter) and plain.adapter_digest is None
    # Another base of the same shape cannot be told from the right one, so its name is on record.
    assert (loaded.notes, plain.notes) == (("the adapter says that it was trained on somewhere/base",), ())
    assert loaded.weights_digest == plain.weights_digest


def test_what_peft_trains_and_saves_is_what_loads(folders, tmp_path):
    base = load(folders["chatglm"])
    adapted = get_peft_model(base.model, LoraConfig(r=4, target_modules=["query_key_value"]))
    ids = torch.tensor([base.tokenizer.prompt([349, 405], [349, 355])])
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=5.0)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    adapted.save_pretrained(tmp_path / "trained")
    with torch.no_grad():
        expected = adapted.eval()(input_ids=torch.tensor([base.tokenizer.encode("你好，我睡不着")])).logits
    loaded = logits(load(folders["chatglm"], adapter=tmp_path / "trained"))
    torch.testing.assert_close(loaded, expected, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(loaded, logits(load(folders["chatglm"])), atol=0.01)


def test_an_adapter_of_published_chatglm2_modules_loads(folders, tmp_path):
    """Fused query_key_value, dense and both layers of the feed-forward part, as MeChat's was trained."""
    layer = "transformer.encoder.layers.0."
    adapter = tiny.lora(
        tmp_path / "lora",
        {
            f"{layer}self_attention.query_key_value": (128, 64),
            f"{layer}self_attention.dense": (64, 64),
            f"{layer}mlp.dense_h_to_4h": (192, 64),
            f"{layer}mlp.dense_4h_to_h": (64, 96),
        },
    )
    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["layers_to_transform"], config["layers_pattern"] = [0], "layers"
    tiny.write_json(adapter / "adapter_config.json", config)
    loaded, plain = load(folders["chatglm2"], adapter=adapter), load(folders["chatglm2"])

    def change(module):
        return loaded.model.get_submodule(module).weight - plain.model.get_submodule(module).weight

    def product(module):
        a, b = (tensors[f"base_model.model.{layer}{module}.lora_{side}.weight"] for side in "AB")
        return 2 * b @ a

    attention = "model.layers.0.self_attn."
    fused = torch.cat([change(f"{attention}{part}_proj") for part in "qkv"])
    torch.testing.assert_close(fused, product("self_attention.query_key_value"), atol=1e-6, rtol=0)
    torch.testing.assert_close(change(f"{attention}o_proj"), product("self_attention.dense"), atol=1e-6, rtol=0)
    gate_up = change("model.layers.0.mlp.gate_up_proj")
    torch.testing.assert_close(gate_up, product("mlp.dense_h_to_4h"), atol=1e-6, rtol=0)


def test_an_adapter_of_a_chat_model_loads(folders, tmp_path):
    loaded = load(folders["causal"], adapter=tiny.causal_lora(tmp_path / "lora"))
    assert not torch.allclose(logits(loaded), logits(load(folders["causal"])), atol=0.01)


@pytest.mark.parametrize("family", ["chatglm", "chatglm2"])
def test_an_adapter_of_another_model_is_refused(folders, tmp_path, family):
    with pytest.raises(AdapterMismatch, match="does not fit"):
        load(folders[family], adapter=tiny.causal_lora(tmp_path / "lora"))


def test_an_adapter_of_another_size_is_refused(folders, tmp_path):
    with pytest.raises(AdapterMismatch, match="does not fit"):
        load(folders["chatglm"], adapter=tiny.chatglm_lora(tmp_path / "lora", hidden=32))


def test_an_adapter_of_fewer_layers_is_refused(folders, tmp_path):
    with pytest.raises(AdapterMismatch, match=r"layers\.1"):
        load(folders["chatglm"], adapter=tiny.chatglm_lora(tmp_path / "lora", layers=1))


def test_another_kind_of_adapter_is_refused(folders, tmp_path):
    adapter = tiny.chatglm_lora(tmp_path / "lora")
    tiny.write_json(adapter / "adapter_config.json", {"peft_type": "PREFIX_TUNING"})
    with pytest.raises(AdapterMismatch, match="PREFIX_TUNING"):
        load(folders["chatglm"], adapter=adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(AdapterMismatch, match="adapter_config"):
        load(folders["chatglm"], adapter=adapter)


# Missing, damaged, foreign


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(WeightsMissing, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("config.json", WeightsMissing),
        ("ice_text.model", TokenizerMissing),
        ("pytorch_model-00002-of-00002.bin", WeightsMissing),
    ],
)
def test_a_missing_file_is_named(v1, file, error):
    (v1 / file).unlink()
    with pytest.raises(error, match=file):
        load(v1)


def test_a_folder_without_weights_is_said(v1):
    for file in v1.glob("pytorch_model*"):
        file.unlink()
    with pytest.raises(WeightsMissing, match="no weights"):
        load(v1)


def test_a_tensor_that_the_index_promises_must_be_there(v1):
    shard = v1 / "pytorch_model-00002-of-00002.bin"
    held = torch.load(shard, weights_only=True)
    held.pop("transformer.final_layernorm.weight")
    torch.save(held, shard)
    with pytest.raises(WeightsMissing, match=r"00002-of-00002.*final_layernorm"):
        load(v1)


def test_a_tensor_that_the_config_promises_must_be_there(v1):
    change_config(v1, num_layers=3)
    with pytest.raises(WeightsMissing, match=r"layers\.2"):
        load(v1)


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish", "pointer"])
@pytest.mark.parametrize(("form", "file"), [("bin", "pytorch_model-00002-of-00002.bin"), ("safetensors", None)])
def test_a_damaged_shard_is_named(tmp_path, damage, form, file):
    folder = tiny.chatglm(tmp_path / "v1", form=form, shards=2)
    shard = folder / (file or "model-00002-of-00002.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "rubbish": b"\x93rubbish" * 100,
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:5e97\nsize 1740651802\n",
        }[damage]
    )
    with pytest.raises(CorruptShard, match="00002-of-00002") as raised:
        load(folder)
    assert ("git lfs pull" in str(raised.value)) == (damage == "pointer")


def test_a_damaged_shard_of_a_chat_model_is_named(folders, tmp_path):
    folder = shutil.copytree(folders["causal"], tmp_path / "causal")
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CorruptShard, match=r"model\.safetensors"):
        load(folder)


@pytest.mark.parametrize("family", MAKERS)
def test_numbers_that_are_none_are_found(folders, tmp_path, family):
    folder = shutil.copytree(folders[family], tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(tensors) if n.endswith("input_layernorm.weight"))
    tensors[name][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptShard, match=r"input_layernorm.*NaN"):
        load(folder)


def test_another_size_than_the_config_says_is_refused(v1):
    change_config(v1, inner_hidden_size=128)
    with pytest.raises(WrongArchitecture, match=r"dense_h_to_4h.*\(256, 64\)"):
        load(v1)


def test_weights_of_another_model_are_refused(v1, folders):
    """ChatGLM2's weights beside ChatGLM's config.json."""
    for file in v1.glob("pytorch_model*"):
        file.unlink()
    shutil.copyfile(folders["chatglm2"] / "model.safetensors", v1 / "model.safetensors")
    with pytest.raises(WrongArchitecture, match=r"model\.safetensors: transformer\."):
        load(v1)


def test_chatglm3_is_not_taken_for_chatglm2(folders, tmp_path):
    folder = shutil.copytree(folders["chatglm2"], tmp_path / "v3")
    tiny.write_json(folder / "tokenizer_config.json", {"added_tokens": ["<|user|>", "<|assistant|>"]})
    with pytest.raises(WrongArchitecture, match="ChatGLM3"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"model_type": "nothing-like-it"}, WrongArchitecture, "does not know"),
        ({"model_type": "own", "auto_map": {"AutoModel": "x.Y"}}, UnsafeWeights, "never run"),
        ({"model_type": "bert"}, WrongArchitecture, "another model than the weights"),
        ({"model_type": None}, WrongArchitecture, "no model_type"),
    ],
)
def test_models_that_cannot_be_run_are_refused(folders, tmp_path, changes, error, reason):
    folder = shutil.copytree(folders["causal"], tmp_path / "other")
    change_config(folder, **changes)
    with pytest.raises(error, match=reason):
        load(folder)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("chatglm", {"hidden_size": "abc"}),
        ("chatglm", {"num_attention_heads": 0}),
        ("chatglm", {"num_attention_heads": 5}),
        ("chatglm", {"num_layers": -1}),
        ("chatglm", {"layernorm_epsilon": "1e-5"}),
        ("chatglm", {"max_sequence_length": 0}),
        ("chatglm", {"bos_token_id": [8]}),
        ("chatglm", {"rotary_angles": "float64"}),
        ("chatglm2", {"hidden_size": "abc"}),
        ("chatglm2", {"kv_channels": None}),
        ("chatglm2", {"multi_query_group_num": 3}),
        ("chatglm2", {"quantization_bit": 8}),
        ("causal", {"hidden_size": "abc"}),
        ("causal", {"num_attention_heads": 0}),
        ("causal", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    ],
)
def test_a_config_that_describes_no_model_is_said(folders, tmp_path, family, changes):
    folder = shutil.copytree(folders[family], tmp_path / "odd")
    change_config(folder, **changes)
    with pytest.raises(WrongArchitecture):
        load(folder)


def test_a_config_that_is_nested_without_end_is_said(v1):
    (v1 / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(CorruptShard, match=r"config\.json is no JSON"):
        load(v1)


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_weights": "other.safetensors"},
        {"_attn_implementation": "somebody/kernels"},
        {"attn_implementation": "somebody/kernels", "experts_implementation": "somebody/kernels"},
        {"torch_dtype": "no such type"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_config_does_not_lead_out_of_its_folder(folders, tmp_path, changes):
    """Neither other weights than those in the digest, nor kernels that would be fetched and run."""
    folder = shutil.copytree(folders["causal"], tmp_path / "led")
    tensors = load_file(folder / "model.safetensors")
    save_file({n: value * 2 for n, value in tensors.items()}, folder / "other.safetensors", metadata={"format": "pt"})
    change_config(folder, **changes)
    loaded = load(folder)
    assert torch.equal(logits(loaded), logits(load(folders["causal"])))
    assert loaded.model.config._attn_implementation == "sdpa"


def test_weights_and_digest_are_of_the_same_file_where_two_layouts_lie(folders, tmp_path):
    """One file, and the shards of another model beside it, as after a conversion that was broken off."""
    folder = shutil.copytree(folders["causal"], tmp_path / "both")
    tensors = load_file(folder / "model.safetensors")
    tiny.save_tensors(folder, {name: value * 2 for name, value in tensors.items()}, shards=2)
    assert torch.equal(logits(load(folder)), logits(load(folders["causal"])))
    assert weights_digest(folder) == weights_digest(folders["causal"])


@pytest.mark.parametrize("family", MAKERS)
def test_an_adapter_within_a_models_folder_is_not_taken_for_nothing(folders, tmp_path, family):
    """transformers would add it to the weights, and no digest would know."""
    folder = shutil.copytree(folders[family], tmp_path / "mixed")
    shutil.copytree(tiny.causal_lora(tmp_path / "lora"), folder, dirs_exist_ok=True)
    with pytest.raises(WrongArchitecture, match="adapter_config"):
        load(folder)


def test_code_beside_a_known_model_is_not_run(folders, tmp_path):
    folder = shutil.copytree(folders["causal"], tmp_path / "coded")
    mark = tmp_path / "it_ran"
    (folder / "modeling_own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    auto = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}
    change_config(folder, auto_map=auto)
    assert torch.equal(logits(load(folder)), logits(load(folders["causal"])))
    assert not mark.exists()


def test_a_chat_model_needs_a_template_and_safetensors(folders, tmp_path):
    folder = shutil.copytree(folders["causal"], tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(TokenizerMissing, match="chat template"):
        load(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match="safetensors"):
        load(folder)


def shifted(words):
    return {word: number + 1000 * (number >= 300) for word, number in words.items()}


TOKENIZER_LIES = {
    "no words": (lambda f: (f / "tokenizer.json").unlink(), TokenizerMissing, "no tokenizer; looked for"),
    "words of another file": (
        lambda f: (f / "tokenizer.json").rename(f / "vocab.txt"),
        TokenizerMissing,
        "chat template and tokenizer leave no trace",
    ),
    "words without embedding": (
        lambda f: change_tokenizer(f, lambda model: model.update(vocab=shifted(model["vocab"]))),
        TokenizerMissing,
        "has 1[0-9]{3} words, the weights 512",
    ),
    "a template that fails": (
        lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('never') }}"),
        TokenizerMissing,
        "fails on one plain message: TemplateError: never",
    ),
    "a template that breaks out": (
        lambda f: (f / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}"),
        TokenizerMissing,
        "SecurityError",
    ),
    "a template without the message": (
        lambda f: (f / "chat_template.jinja").write_text("Say something."),
        TokenizerMissing,
        "leave no trace",
    ),
    "an end that is no number": (
        lambda f: tiny.write_json(f / "generation_config.json", {"eos_token_id": [2, "<end>"]}),
        TokenizerMissing,
        "eos_token_id",
    ),
    "an end that cannot be read": (
        lambda f: (f / "generation_config.json").write_text("{"),
        CorruptShard,
        r"generation_config\.json is no JSON",
    ),
}


def change_tokenizer(folder, change):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content["model"])
    tiny.write_json(folder / "tokenizer.json", content)


@pytest.mark.parametrize(("lie", "error", "reason"), TOKENIZER_LIES.values(), ids=TOKENIZER_LIES)
def test_a_tokenizer_that_lies_is_found_before_the_first_item(folders, tmp_path, lie, error, reason):
    folder = shutil.copytree(folders["causal"], tmp_path / "lying")
    lie(folder)
    with pytest.raises(error, match=reason):
        load(folder)


def test_a_tokenizer_saved_with_truncation_and_padding_does_neither(folders, tmp_path):
    folder = shutil.copytree(folders["causal"], tmp_path / "cutting")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    tiny.write_json(folder / "tokenizer.json", content)
    text = "你好，我睡不着" * 3
    assert load(folder).tokenizer.encode(text) == load(folders["causal"]).tokenizer.encode(text)


def test_a_prompt_does_not_depend_on_the_day_it_is_made(folders, tmp_path):
    """Templates of the Llama 3 family write the date into the system message."""
    folder = shutil.copytree(folders["causal"], tmp_path / "dated")
    (folder / "chat_template.jinja").write_text(
        "{%- if strftime_now is defined %}Today: {{ strftime_now('%d %b %Y') }}, {{ strftime_now(\"%B\") }}{% endif %}"
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    tokenizer = load(folder).tokenizer
    assert chat_text(tokenizer, [{"role": "user", "content": "嗯"}]) == "Today: 26 Jul 2024, July嗯"


def test_a_tokenizer_of_another_vocabulary_is_refused(v1):
    change_config(v1, bos_token_id=8, eos_token_id=11)
    with pytest.raises(WrongArchitecture, match="eos_token_id"):
        load(v1)


def test_p_tuning_is_refused_by_name(v1):
    change_config(v1, pre_seq_len=128)
    with pytest.raises(WrongArchitecture, match="P-tuning"):
        load(v1)


@pytest.mark.parametrize("device", ["cuda:97", "no such thing"])
def test_a_device_that_is_not_here_is_said(folders, device):
    with pytest.raises(DeviceUnavailable):
        load(folders["chatglm"], device=device)


# Hostile


class Hostile:
    """Runs a command when it is unpickled without care."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("write", ["zip", "legacy", "plain"])
def test_a_hostile_pickle_is_refused_and_does_not_run(v1, tmp_path, write):
    mark, shard = tmp_path / "it_ran", v1 / "pytorch_model-00001-of-00002.bin"
    held = {"lm_head.weight": Hostile(mark)}
    if write == "plain":
        shard.write_bytes(pickle.dumps(held, protocol=2))
    else:
        torch.save(held, shard, _use_new_zipfile_serialization=write == "zip")
    with pytest.raises(UnsafeWeights, match=r"00001-of-00002.*not run"):
        load(v1)
    assert not mark.exists()
    torch.load(shard, weights_only=False) if write != "plain" else pickle.loads(shard.read_bytes())
    assert mark.exists()  # it was hostile indeed


ODD_TENSORS = {
    "sparse": (lambda value: value.float().to_sparse(), CorruptShard),
    "quantised": (lambda value: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8), CorruptShard),
    "without content": (lambda value: value.to("meta"), CorruptShard),
    "whole numbers": (lambda value: value.long(), WrongArchitecture),
    "complex": (lambda value: value.to(torch.complex64), WrongArchitecture),
    "larger than any memory": (lambda value: torch.zeros(1).expand(10**7, 10**7), WrongArchitecture),
}


@pytest.mark.parametrize(("odd", "error"), ODD_TENSORS.values(), ids=ODD_TENSORS)
def test_a_tensor_of_an_odd_kind_is_refused(folders, tmp_path, odd, error):
    folder = shutil.copytree(folders["chatglm"], tmp_path / "odd")
    tensors, name = load_file(folder / "model.safetensors"), "transformer.layers.0.attention.dense.weight"
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, name: odd(tensors[name])}, folder / "pytorch_model.bin")
    with pytest.raises(error, match=r"pytorch_model\.bin"):
        load(folder)
    torch.save({**tensors, 7: tensors[name]}, folder / "pytorch_model.bin")
    with pytest.raises(CorruptShard, match="no table of plain tensors"):
        load(folder)


def test_a_hostile_adapter_is_refused_and_does_not_run(folders, tmp_path):
    adapter, mark = tiny.chatglm_lora(tmp_path / "lora"), tmp_path / "it_ran"
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"x": Hostile(mark)}, adapter / "adapter_model.bin")
    with pytest.raises(UnsafeWeights):
        load(folders["chatglm"], adapter=adapter)
    assert not mark.exists()


def test_an_index_cannot_point_outside_of_its_folder(v1, tmp_path):
    index = v1 / "pytorch_model.bin.index.json"
    tiny.write_json(index, {"weight_map": {"lm_head.weight": "../secret.bin"}})
    with pytest.raises(UnsafeWeights, match=r"\.\./secret\.bin"):
        load(v1)


# Digests


def test_the_digest_follows_what_is_read_and_nothing_else(folders, tmp_path):
    folder = shutil.copytree(folders["chatglm"], tmp_path / "moved")
    (folder / "README.md").write_text("words about it")
    assert weights_digest(folder) == weights_digest(folders["chatglm"])
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.final_layernorm.bias"][0] += 1
    save_file(tensors, folder / "model.safetensors")
    changed = weights_digest(folder)
    assert changed != weights_digest(folders["chatglm"])
    change_config(folder, layernorm_epsilon=1e-6)
    assert weights_digest(folder) != changed


def test_every_error_has_a_word_of_its_own():
    kinds = EngineError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
