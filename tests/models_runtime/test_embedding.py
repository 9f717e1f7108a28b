"""Similarity by an encoder from a folder. The one here is a BERT of two layers with random weights."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from django.core.management import CommandError, call_command
from transformers import BertConfig, BertModel, BertTokenizer, RobertaConfig, RobertaModel

from metrics.embedding import Vectors, embedding_scores, greedy_match
from models_runtime.engine import embedding
from models_runtime.engine.embedding import load_encoder, similarity
from models_runtime.engine.errors import CorruptShard, TokenizerMissing, WeightsMissing, WrongArchitecture
from tests.models_runtime.tiny import SENTENCES

torch.set_num_threads(1)
LONGEST = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights, and a vocabulary of the characters of the sentences."""
    path = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({c for s in SENTENCES for c in s.lower()})]
    (path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=LONGEST,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    """A folder that a test may spoil."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder)


def alone(encoder, text: str) -> Vectors:
    """The vectors of one text by the shortest way: no minibatch, no padding, hidden states of the layer asked for."""
    ids = encoder.tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.inference_mode():
        states = encoder.model(**ids, output_hidden_states=True).hidden_states[encoder.layer][0].numpy()
    frame = (encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id)  # an unknown word counts as a word
    own = [token not in frame for token in ids["input_ids"][0].tolist()]
    return Vectors(states, np.array(own))


def test_a_text_is_nearest_to_itself(encoder):
    texts = list(SENTENCES)
    found = similarity({"same": texts, "other": texts[::-1]}, texts, encoder)
    np.testing.assert_allclose(found.scores_NM["same"], 100, atol=1e-3)
    different = [i for i in range(len(texts)) if texts[i] != texts[::-1][i]]
    assert (found.scores_NM["other"][different] < 99.9).all()


def test_minibatches_and_padding_make_no_difference(encoder, monkeypatch):
    monkeypatch.setattr(embedding, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(embedding, "TEXTS_PER_PASS", 2)
    texts, references = [*SENTENCES, ""], [*SENTENCES[2:], *SENTENCES[:2], "谢谢你"]
    found = similarity({"a": texts}, references, encoder).scores_NM["a"]
    by_hand = [
        greedy_match(alone(encoder, text), alone(encoder, reference))
        for text, reference in zip(texts, references, strict=True)
    ]
    np.testing.assert_allclose(found, by_hand, atol=1e-4)
    assert found[-1].tolist() == [0, 0, 0]  # a blank side


def test_a_missing_side_has_no_score(encoder):
    seen: list[tuple[int, int]] = []
    found = similarity(
        {"a": ["你好", None, "你好"]}, ["你好", "你好", None], encoder, on_progress=lambda *at: seen.append(at)
    )
    assert np.isnan(found.scores_NM["a"]).all(axis=1).tolist() == [False, True, True]
    assert seen == [(3, 3)]
    estimate = embedding_scores(found.scores_NM["a"], ["你好", "你好", None], encoder.source)["embedding_f1"]
    assert estimate.value == pytest.approx(100, abs=1e-3)
    assert estimate.n == {"pairs": 1, "missing": 2}
    with pytest.raises(ValueError, match="1 hypotheses for 2"):
        similarity({"a": ["你好"]}, ["你好", "你好"], encoder)


def test_long_texts_are_cut_and_counted(encoder):
    long = SENTENCES[2] * 5
    found = similarity({"a": [long, "你好"]}, [long, "你好"], encoder)
    assert found.n_cut == 2
    assert encoder.longest == LONGEST
    assert not math.isnan(found.scores_NM["a"][0, 2])


def test_roberta_reads_two_tokens_less_than_it_has_positions(copied):
    """Its positions begin behind the padding's: a text of full length would otherwise stop the program."""
    vocabulary = (copied / "vocab.txt").read_text(encoding="utf-8").split("\n")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=LONGEST, pad_token_id=1, **sizes)
    RobertaModel(config).save_pretrained(copied)
    encoder = load_encoder(copied)
    assert encoder.longest == LONGEST - 2
    assert similarity({"a": [SENTENCES[2] * 5]}, ["你好"], encoder).n_cut == 1


def test_the_source_tells_encoders_and_layers_apart(folder, encoder, copied):
    assert (encoder.layer, encoder.source["layer"]) == (2, "2/3")
    assert load_encoder(folder, layer=3).source["layer"] == "3/3"
    assert load_encoder(copied).source == encoder.source  # by content, not by place
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    assert load_encoder(copied).source["encoder"] != encoder.source["encoder"]


def test_layers_that_are_not_there_are_refused(folder):
    for layer in (4, -1):
        with pytest.raises(WrongArchitecture, match="layers 1 to 3"):
            load_encoder(folder, layer=layer)


def test_only_safetensors_are_read(copied, tmp_path):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match="safetensors"):
        load_encoder(copied)
    with pytest.raises(WeightsMissing, match="is no folder"):
        load_encoder(tmp_path / "nowhere")


def test_spoilt_folders_are_refused_by_name(copied):
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(CorruptShard, match=r"model\.safetensors"):
        load_encoder(copied)
    (copied / "model.safetensors").write_bytes(weights)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(WeightsMissing, match="lacks encoder"):  # never random weights in their place
        load_encoder(copied)
    (copied / "config.json").write_text(
        json.dumps(config | {"model_type": "unheard-of", "auto_map": {"AutoModel": "x.Y"}})
    )
    (copied / "x.py").write_text("raise SystemExit('the folder’s code was run')")
    with pytest.raises(WrongArchitecture):
        load_encoder(copied)


def test_a_folder_without_tokenizer_is_refused(copied):
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (copied / name).unlink(missing_ok=True)
    with pytest.raises(TokenizerMissing, match="looked for"):
        load_encoder(copied)


def test_a_tokenizer_of_another_model_is_refused(copied):
    BertTokenizer(vocab={f"w{i}": i for i in range(200)} | {"[UNK]": 200}).save_pretrained(copied)
    with pytest.raises(TokenizerMissing, match="tokens, the weights"):
        load_encoder(copied)


def test_the_command_adds_it_to_the_other_scores(folder, tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        {
            "item": str(i),
            "system": system,
            "hypothesis": SENTENCES[(i + shift) % len(SENTENCES)],
            "reference": SENTENCES[i],
        }
        for i in range(3)
        for system, shift in (("same", 0), ("other", 1))
    ]
    pairs.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    call_command("score", str(pairs), "--embedding", str(folder), "--format", "json")
    rows = json.loads(capsys.readouterr().out)
    rows = rows["rows"] if isinstance(rows, dict) else rows
    f1 = {row["stratum"]["system"]: row["estimate"] for row in rows if row["metric"] == "embedding_f1"}
    assert f1["same"]["value"] == pytest.approx(100)
    assert f1["other"]["value"] < 100
    assert "encoder:bert-" in f1["same"]["signature"]
    assert {row["metric"] for row in rows} > {"bleu_4", "rouge_l"}
    with pytest.raises(CommandError, match="--embedding: "):
        call_command("score", str(pairs), "--embedding", str(tmp_path))
