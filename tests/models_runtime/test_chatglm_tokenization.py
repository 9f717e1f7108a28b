"""ChatGLM-6B's tokenizer against what the original one made of the same texts."""

from __future__ import annotations

import json

import pytest

from models_runtime.engine.chatglm.tokenization import ChatGLMTokenizer, restore_punctuation
from models_runtime.engine.errors import TokenizerMissing
from tests.models_runtime.tiny import REFERENCE

FOLDER = REFERENCE / "chatglm"
EXPECTED = json.loads((FOLDER / "tokenizer_expected.json").read_text())
CASES = json.loads((FOLDER / "cases.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return ChatGLMTokenizer(FOLDER / "ice_text.model")


@pytest.mark.parametrize("case", EXPECTED["texts"], ids=lambda case: case["text"][:8] or "empty")
def test_it_makes_the_originals_ids_and_text(tokenizer, case):
    plain = tokenizer.encode(case["text"], add_special_tokens=False)
    assert plain == case["ids_plain"]
    assert tokenizer.tokens(plain) == case["tokens"]
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.decode(case["ids_plain"]) == case["decode"]
    assert tokenizer.decode(case["ids"]) == case["decode_with_specials"]


@pytest.mark.parametrize("case", EXPECTED["decode_generated"], ids=str)
def test_generated_ids_become_the_originals_text(tokenizer, case):
    assert tokenizer.decode(case["ids"]) == case["decode"]


def test_it_knows_the_special_ids(tokenizer):
    special = EXPECTED["special_ids"]
    assert tokenizer.vocab_size == EXPECTED["vocab_size"]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (special["<pad>"], special["[MASK]"])
    assert (tokenizer.gmask_token_id, tokenizer.bos_token_id) == (special["[gMASK]"], special["<sop>"])
    assert tokenizer.eos_token_id == special["<eop>"]


def test_a_pair_is_built_as_the_original_builds_it(tokenizer):
    pair = EXPECTED["pair"]
    assert tokenizer.prompt(pair["a"], pair["b"]) == pair["built"] == pair["encode_pair"]


def test_the_older_vocabulary_lies_behind_the_image_tokens(tokenizer):
    """20,000 ids before the first word: every id moves, every text stays."""
    older = ChatGLMTokenizer(FOLDER / "ice_text.model", n_image_tokens=20000)
    for case in EXPECTED["texts"]:
        assert older.encode(case["text"]) == [i + 20000 for i in case["ids"]]
        assert older.decode(older.encode(case["text"])) == case["decode"]
    assert older.eos_token_id == tokenizer.eos_token_id + 20000
    assert older.vocab_size == tokenizer.vocab_size + 20000
    assert older.decode([7, 19999, older.eos_token_id]) == ""  # image tokens have no text


@pytest.mark.parametrize("n_blanks", [1, 2, 79, 80, 81, 82, 161, 400])
def test_runs_of_blanks_come_back_whole(tokenizer, n_blanks):
    text = f"a{' ' * n_blanks}b"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("case", CASES["process_response"], ids=lambda case: case["in"])
def test_punctuation_is_restored_as_the_original_does(case):
    assert restore_punctuation(case["in"]) == case["out"]


def test_ids_of_the_unused_rows_have_no_text(tokenizer):
    assert tokenizer.decode([*tokenizer.encode("你好"), tokenizer.vocab_size, 543]) == "你好"


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(TokenizerMissing, match=r"ice_text\.model is missing"):
        ChatGLMTokenizer(tmp_path / "ice_text.model")
    (tmp_path / "ice_text.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(TokenizerMissing, match="no sentencepiece model"):
        ChatGLMTokenizer(tmp_path / "ice_text.model")
    with pytest.raises(TokenizerMissing, match="another model"):
        ChatGLMTokenizer(REFERENCE / "chatglm2" / "tokenizer.model")
