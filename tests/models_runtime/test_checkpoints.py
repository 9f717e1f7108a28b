"""Weights files: found, read one by one, and hashed. What is wrong with them is told in test_loading."""

from __future__ import annotations

import hashlib
import time

import pytest
import torch

from models_runtime.engine import checkpoints
from models_runtime.engine.errors import CorruptShard
from models_runtime.engine.loading import load
from tests.models_runtime import tiny


@pytest.mark.parametrize(("form", "shards"), [("safetensors", 1), ("safetensors", 4), ("bin", 1), ("bin", 4)])
def test_every_tensor_comes_once_and_as_written(tmp_path, form, shards):
    folder = tiny.chatglm(tmp_path / "v1", form=form, shards=shards)
    written = tiny.chatglm_tensors(tiny.chatglm_config())
    read = [(name, tensor.clone()) for name, tensor, _ in checkpoints.tensors(checkpoints.find_weights(folder))]
    assert sorted(name for name, _ in read) == sorted(written)
    assert all(torch.equal(tensor, written[name]) for name, tensor in read)


def test_safetensors_are_taken_where_both_forms_lie(tmp_path):
    folder = tiny.chatglm(tmp_path / "v1", form="bin", shards=2)
    tiny.chatglm(folder)
    assert [file.name for file in checkpoints.find_weights(folder).files] == ["model.safetensors"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_number_that_is_none_is_enough(tmp_path, bad, dtype):
    tensor = torch.ones(3, 1000, dtype=dtype)
    checkpoints.check_finite("fine", tensor, tmp_path)
    checkpoints.check_finite("empty", tensor[:0], tmp_path)
    tensor[1, 500] = bad
    with pytest.raises(CorruptShard, match="layer"):
        checkpoints.check_finite("layer", tensor, tmp_path)


@pytest.mark.parametrize(("names", "text"), [(["b", "a"], "a, b"), (list("edcba"), "a, b, c and 2 more")])
def test_long_lists_of_names_are_cut(names, text):
    assert checkpoints.listed(names) == text


def test_the_digest_is_sha256_and_tells_of_itself_only_while_bytes_come(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(range(256)) * 5)
    inner = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(checkpoints, "BLOCK", 256)
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_LOOKS", 0.02)
    told, plain = [], checkpoints._file_digest

    def slow(path, n_read):
        """Some bytes, then a disk that hangs for many looks, then the rest."""
        n_read[path] += 1
        time.sleep(0.3)
        return plain(path, n_read)

    monkeypatch.setattr(checkpoints, "_file_digest", slow)
    found = checkpoints.digest([file], tell=lambda: told.append(1))
    assert found == hashlib.sha256(f"a.bin {inner}\n".encode()).hexdigest()
    assert 1 <= len(told) <= 3


def test_every_tensor_read_is_a_sign_of_life(tmp_path):
    told = []
    load(tiny.chatglm(tmp_path / "v1", shards=2), tell=lambda: told.append(1))
    assert len(told) >= len(tiny.chatglm_tensors(tiny.chatglm_config()))


def test_a_known_digest_is_not_computed_again(tmp_path, monkeypatch):
    cache, file = tmp_path / "digests.json", tmp_path / "a.bin"
    file.write_bytes(b"one")
    first = checkpoints.digest([file], cache=cache)
    assert first == checkpoints.digest([file])
    monkeypatch.setattr(checkpoints, "_file_digest", lambda *_: pytest.fail("hashed again"))
    assert checkpoints.digest([file], cache=cache) == first
    monkeypatch.undo()
    file.write_bytes(b"two!")
    assert checkpoints.digest([file], cache=cache) != first


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    nowhere = checkpoints.digest([file], cache=tmp_path / "no folder" / "digests.json")
    (tmp_path / "broken.json").write_text("{")
    assert checkpoints.digest([file], cache=tmp_path / "broken.json") == nowhere
