import random

import jieba
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_chinese import Rouge
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from metrics import segmentation
from metrics.segmentation import (
    Normalisation,
    code_points,
    cut_texts,
    describe,
    is_punctuation,
    is_white_space,
    jieba_words,
    may_need_jieba,
    needs_jieba,
    rouge_chinese_differs,
    rouge_chinese_words,
    text_of,
    without_punctuation,
    words,
    zh_differs,
    zh_tokens,
)
from tests.metrics.sentences import PLAIN, SENTENCES, compose

# Signs, scripts and ideographs on either side of what jieba's patterns know.
HARD = "+#&._%-aZ09，。！？“”…—\n\r\t 　\x1c\x85Ａ１％．éж한か①Ⅳ㎡😀²٣〇々㐀䶵䷀鿕鿖鿿\uf900\ufa0e𠀀𪛖你好我们王"
hard_text = st.text(st.sampled_from(HARD), max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("听起来你最近承受了很大的压力", "听/ 起来/ 你/ 最近/ 承受/ 了/ 很大/ 的/ 压力"),
        ("他来到了网易杭研大厦", "他/ 来到/ 了/ 网易/ 杭研/ 大厦"),  # README of jieba: 杭研 is found by the HMM
        ("我来到北京清华大学", "我/ 来到/ 北京/ 清华大学"),
        ("他的SCL-90得分是2.5", "他/ 的/ SCL/ -/ 90/ 得分/ 是/ 2.5"),
        ("C++和C#", "C++/ 和/ C#"),
    ],
)
def test_words_are_the_published_ones(text, expected):
    assert "/ ".join(jieba_words(text)) == expected


def test_the_sample_is_cut_as_jieba_cuts_it():
    texts = [*SENTENCES, *compose(400, seed=5)]
    assert [jieba_words(text) for text in texts] == [jieba.lcut(text) for text in texts]
    assert 0 < sum(map(needs_jieba, texts)) < len(texts)  # both ways were used


def test_dictionary_words_and_signs_in_any_order_are_cut_as_jieba_cuts_them():
    jieba.initialize()
    rng = random.Random(3)
    common = [word for word, count in jieba.dt.FREQ.items() if count > 500]
    for _ in range(3000):
        pool = (common, common, HARD)
        text = "".join(rng.choice(rng.choice(pool)) for _ in range(rng.randint(1, 14)))
        assert jieba_words(text) == jieba.lcut(text), text


def test_rjieba_alone_would_differ():
    """So the way back to jieba is needed, and these tests would notice if it were lost."""
    rjieba = pytest.importorskip("rjieba")
    for text in ("他的SCL-90得分", "生僻字㐀㐁", "鿖鿖好", "\uf900\uf900好", "岳岳岳岳岳利用"):
        assert needs_jieba(text)
        assert rjieba.cut(text) != jieba.lcut(text)


def test_what_is_said_again_and_again_is_cut_as_jieba_cuts_it():
    """Repetition makes ways of cutting equally likely; the two packages break such ties differently."""
    rng = random.Random(5)
    common = [word for word, count in jieba.dt.FREQ.items() if count > 2000]
    n_to_jieba = 0
    for _ in range(2000):
        unit = "".join(rng.choice(rng.choice(common)) for _ in range(rng.randint(1, 4)))
        text = rng.choice(common) + unit * rng.randint(2, 8) + rng.choice(common)
        assert jieba_words(text) == jieba.lcut(text), text
        n_to_jieba += needs_jieba(text)
    assert 1000 < n_to_jieba < 2000


@given(
    st.lists(
        st.lists(
            st.sampled_from(["好", "难过", "我很", "a", "，", "好好", "㐀", "-", "_", "1", "\ud800", "\uf900"]),
            max_size=12,
        ).map("".join)
    )
)
def test_nothing_that_needs_jieba_is_missed_among_many_texts(texts):
    suspects = may_need_jieba(texts)
    assert suspects.shape == (len(texts),)
    assert all(suspects[i] for i, text in enumerate(texts) if needs_jieba(text))
    assert cut_texts(texts) == [jieba.lcut(text) for text in texts]


def test_without_rjieba_the_words_are_the_same(monkeypatch):
    fast = [jieba_words(text) for text in SENTENCES]
    monkeypatch.setattr(segmentation, "_rjieba_cut", lambda: None)
    assert [jieba_words(text) for text in SENTENCES] == fast


@given(hard_text)
def test_words_joined_are_the_text(text):
    assert "".join(jieba_words(text)) == text


@given(hard_text)
def test_words_hold_no_white_space(text):
    assert "".join(words(text)) == "".join(text.split())


def test_words_that_others_added_to_jieba_change_nothing():
    before = jieba_words("我们一起来想想SCL-90")
    jieba.add_word("一起来想想")
    try:
        assert jieba_words("我们一起来想想SCL-90") == before
    finally:
        jieba.del_word("一起来想想")


def test_zh_knows_the_same_characters_as_sacrebleu():
    for point in (*range(0xD800), *range(0xE000, 0x30000)):
        assert bool(segmentation._IS_ZH.match(chr(point))) == TokenizerZh._is_chinese_char(chr(point)), hex(point)


@pytest.mark.parametrize("text", [*SENTENCES, *compose(100, seed=8)])
def test_zh_tokens_are_sacrebleus(text):
    assert zh_tokens(text) == TokenizerZh()(text.rstrip()).split()


@given(st.text(st.sampled_from(HARD + "{}[]()<>/:;=@'\",$^*`~|!?\\"), max_size=30))
def test_any_zh_tokens_are_sacrebleus(text):
    theirs = TokenizerZh()(text.rstrip()).split()
    assert zh_tokens(text) == theirs
    assert zh_differs(text) or theirs == TokenizerChar()(text).split()


@given(
    st.lists(st.sampled_from([*PLAIN[0], "\n", "\r\n", " ", "。", "？", "......", ".......", "…", "”"]), max_size=25)
)
@settings(max_examples=300)
def test_rouge_chinese_words_are_what_that_package_sees(tokens):
    cut = jieba_words("".join(tokens))
    lines = [" ".join(line.split()) for line in Rouge().cut_sent(" ".join(cut)) if len(line) > 0]
    theirs = [token for line in lines for token in line.split(" ")]
    assert rouge_chinese_words(cut) == theirs
    assert rouge_chinese_differs("".join(tokens)) or theirs == words("".join(tokens))


def test_a_line_end_after_a_stop_leaves_an_empty_word():
    assert rouge_chinese_words(jieba_words("我明白了。\n谢谢你。")).count("") == 1
    assert rouge_chinese_words(jieba_words("我明白了，\n谢谢你。")).count("") == 0
    assert rouge_chinese_words(jieba_words("我明白了\n\n谢谢你。")).count("") == 1


def test_white_space_and_punctuation_are_pythons():
    assert [chr(p).isspace() for p in range(0x110000)] == is_white_space().tolist()
    assert [c for c in "a你，。“…—-_%~～+$😀" if is_punctuation()[ord(c)]] == list("，。“…—-_%")
    assert without_punctuation(["你", "……", "，", "a-b", "", "～"]) == ["你", "a-b", "", "～"]
    assert words("你好，世界……", "drop") == ["你好", "世界"]


@given(st.text())
def test_code_points_and_back(text):
    assert text_of(code_points(text)) == text
    assert len(code_points(text)) == len(text)


def test_nfkc_folds_full_width():
    assert Normalisation(nfkc=True).text("ＡＢＣ１２３，（全角）") == "ABC123,(全角)"
    assert Normalisation().text("Ａ") == "Ａ"


def test_a_description_names_every_version_that_matters():
    assert describe("words") == "words-1(jieba-hmm,jieba=0.42.1,rjieba=0.2.2,dictionary=7197c3211ddd)"
    assert describe("codepoints").startswith("codepoints-1(unicode=")
