import itertools
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import jieba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from rouge_chinese import Rouge
from sacrebleu.metrics import BLEU

from metrics import text as text_metrics
from metrics.segmentation import Normalisation, words
from metrics.text import (
    CHAR,
    CHATGLM,
    METRICS,
    PROTOCOLS,
    REFERENCE,
    MixedSignatures,
    Protocol,
    References,
    corpus_distinct,
    pair_scores,
    refuse_mixed_signatures,
    system_statistics,
    text_scores,
    text_statistics,
    tokens_of,
)
from tests.metrics.sentences import HYPOTHESES, PAIRS, REFERENCES, compose

EVERYTHING = tokens_of(CHATGLM, REFERENCE, CHAR)
EXACT = 1e-12 * 100  # percent
BLEU_COLUMNS, ROUGE_COLUMNS = slice(0, 4), slice(4, 7)
a_text = st.lists(
    st.sampled_from([*"你我好难过的的，。？！\n\n \r　ab1-.😢㐀", "......", "SCL-90", "压力"]), max_size=14
).map("".join)


def count(hypotheses, references, **settings):
    return text_statistics(hypotheses, References(references, tokens=EVERYTHING, **settings))


@pytest.fixture(scope="module")
def sample():
    return count(HYPOTHESES, REFERENCES)


@cache
def jieba_joined(text):
    return " ".join(jieba.cut(text))


def values(table, protocol=CHATGLM, **settings):
    return np.array([estimate.value for estimate in text_scores(table, protocol, **settings).values()])


# Equal to the peers.


def nltk_bleu(hypothesis, reference, method):
    if not hypothesis.strip() or not reference.strip():
        return [0.0] * 4  # the policy for blank sides
    smoothing = getattr(SmoothingFunction(), method)
    with warnings.catch_warnings(action="ignore"):
        return [
            sentence_bleu([list(reference)], list(hypothesis), weights=(1 / n,) * n, smoothing_function=smoothing)
            for n in range(1, 5)
        ]


def rouge_chinese(hypothesis, reference):
    if not hypothesis.strip() or not reference.strip():
        return [0.0] * 3
    scores = Rouge().get_scores(jieba_joined(hypothesis), jieba_joined(reference))[0]
    return [scores[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]


@pytest.mark.parametrize("method", ["method0", "method1", "method2", "method3"])
def test_sentence_bleu_is_nltks(sample, method):
    ours = pair_scores(sample, replace(CHATGLM, smoothing=f"nltk-{method}"))[:, BLEU_COLUMNS]
    theirs = [nltk_bleu(h, r, method) for h, r in PAIRS]
    assert ours == pytest.approx(100 * np.array(theirs), abs=EXACT, rel=1e-12)


def test_rouge_is_rouge_chineses(sample):
    theirs = [rouge_chinese(h, r) for h, r in PAIRS]
    assert pair_scores(sample)[:, ROUGE_COLUMNS] == pytest.approx(100 * np.array(theirs), abs=EXACT)


def test_chatglm_is_the_mean_over_pairs(sample):
    theirs = [[*nltk_bleu(h, r, "method3"), *rouge_chinese(h, r)] for h, r in PAIRS]
    assert values(sample)[:7] == pytest.approx(100 * np.mean(theirs, axis=0), abs=EXACT)


@given(st.lists(st.tuples(a_text, a_text), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_texts_score_as_the_peers_score_them(pairs):
    table = count([h for h, _ in pairs], [r for _, r in pairs])
    theirs = [[*nltk_bleu(h, r, "method3"), *rouge_chinese(h, r)] for h, r in pairs]
    assert pair_scores(table)[:, :7] == pytest.approx(100 * np.array(theirs), abs=EXACT)
    theirs = [
        BLEU(tokenize="zh", max_ngram_order=n).corpus_score([h for h, _ in pairs], [[r for _, r in pairs]]).score
        for n in range(1, 5)
    ]
    assert values(table, REFERENCE)[BLEU_COLUMNS] == pytest.approx(theirs, abs=EXACT)


@pytest.mark.parametrize("method", ["method1", "method2", "method3"])
def test_corpus_bleu_is_nltks(sample, method):
    pairs = [(h, r) for h, r in PAIRS if h.strip() and r.strip()]
    table = sample.rows(np.array([bool(h.strip() and r.strip()) for h, r in PAIRS]))
    smoothing = getattr(SmoothingFunction(), method)
    theirs = [
        corpus_bleu([[list(r)] for _, r in pairs], [list(h) for h, _ in pairs], (1 / n,) * n, smoothing)
        for n in range(1, 5)
    ]
    ours = values(table, replace(CHATGLM, bleu_aggregate="corpus", smoothing=f"nltk-{method}"))[BLEU_COLUMNS]
    assert ours == pytest.approx(100 * np.array(theirs), abs=EXACT)


@pytest.mark.parametrize("smoothing", ["none", "floor", "add-k", "exp"])
@pytest.mark.parametrize("protocol", [REFERENCE, CHAR], ids=lambda p: p.name)
def test_corpus_bleu_is_sacrebleus(sample, protocol, smoothing):
    tokenize = {"zh": "zh", "characters": "char"}[protocol.bleu_tokens]
    protocol = replace(protocol, smoothing=f"sacrebleu-{smoothing}")
    for rows in (slice(None), slice(0, 60), slice(10, 13), slice(4, 5)):  # few pairs, so that smoothing shows
        bleus = [BLEU(tokenize=tokenize, smooth_method=smoothing, max_ngram_order=n) for n in range(1, 5)]
        theirs = [bleu.corpus_score(HYPOTHESES[rows], [REFERENCES[rows]]).score for bleu in bleus]
        table = sample.rows(np.arange(len(PAIRS))[rows])
        assert values(table, protocol)[BLEU_COLUMNS] == pytest.approx(theirs, abs=EXACT)


def test_each_pair_alone_is_sacrebleus_too(sample):
    bleus = [BLEU(tokenize="zh", max_ngram_order=n) for n in range(1, 5)]
    theirs = [[bleu.corpus_score([h], [[r]]).score for bleu in bleus] for h, r in PAIRS]
    assert pair_scores(sample, REFERENCE)[:, BLEU_COLUMNS] == pytest.approx(np.array(theirs), abs=EXACT)


def plain_rouge(hypothesis, reference):
    """ROUGE-1, ROUGE-2 and ROUGE-L as Lin (2004) writes them, with Counters and the textbook table."""
    scores = []
    for n in (1, 2):
        h, r = (
            Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for tokens in (hypothesis, reference)
        )
        scores.append(f1((h & r).total(), h.total(), r.total()))
    row = [0] * (len(reference) + 1)
    for token in hypothesis:
        above = row
        row = [0]
        for j, other in enumerate(reference):
            row.append(above[j] + 1 if token == other else max(above[j + 1], row[j]))
    return [*scores, f1(row[-1], len(hypothesis), len(reference))]


def f1(both, hypothesis, reference):
    return 200 * both / (hypothesis + reference) if both else 0.0


@pytest.mark.parametrize(
    ("protocol", "cut"), [(REFERENCE, words), (CHAR, lambda text: list("".join(text.split())))], ids=["words", "char"]
)
def test_reference_rouge_is_the_textbooks(sample, protocol, cut):
    theirs = [plain_rouge(cut(h), cut(r)) for h, r in PAIRS]
    assert pair_scores(sample, protocol)[:, ROUGE_COLUMNS] == pytest.approx(np.array(theirs), abs=EXACT)
    assert values(sample, protocol)[ROUGE_COLUMNS] == pytest.approx(np.mean(theirs, axis=0), abs=EXACT)


def test_long_blocks_of_many_different_tokens_are_counted_in_64_bits():
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(0x4E00, 0x9FA5, 2000))) for _ in range(60)]
    mixed = [b[:700] + a[300:1500] + b[900:] for a, b in itertools.pairwise([*texts, texts[0]])]
    table = text_statistics(mixed, References(texts, tokens=("codepoints",)))
    theirs = [sentence_bleu([list(r)], list(h), smoothing_function=SmoothingFunction().method3)
              for h, r in zip(mixed[:5], texts, strict=False)]  # fmt: skip
    counts = text_metrics._bleu_counts(table, CHATGLM)
    assert text_metrics._bleu(counts, "nltk-method3")[:5, 3] == pytest.approx(100 * np.array(theirs), abs=EXACT)


# Blank, missing and short.


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
def test_a_blank_side_scores_zero_and_counts(protocol):
    table = count(["", " \n", "你好", "\n　", "你好"], ["你好", "你 好", "", " \n　", "你好"])
    assert (pair_scores(table, protocol)[:4, :7] == 0).all()
    scores = text_scores(table, protocol)
    assert dict(scores["bleu_1"].n) == {"pairs": 5, "blank_hypotheses": 3, "blank_references": 2, "missing": 0}
    assert "blank:zero" in scores["bleu_1"].signature
    if protocol is CHATGLM:
        assert scores["bleu_1"].value == pytest.approx(20.0)


def test_a_missing_side_is_left_out():
    table = count(["你好", None, "再见", None], ["你好", "你好", None, None])
    scores = text_scores(table)
    assert scores["bleu_1"].value == pytest.approx(100)
    assert scores["bleu_1"].n["pairs"] == 1
    assert scores["bleu_1"].n["missing"] == 3
    assert np.isnan(pair_scores(table)[1:]).all()


def test_without_any_reference_the_score_is_undefined():
    for table in (count(["你好"], [None]), count([], [])):
        for estimate in text_scores(table, seed=1).values():
            assert (estimate.value, estimate.low, estimate.reason) == (None, None, "no_pairs")


def test_known_quirks_of_the_default():
    table = count(["我明白了。\n谢谢你。", "好"], ["我明白了。谢谢你。", "好"])
    chatglm, reference = pair_scores(table), pair_scores(table, REFERENCE)
    assert chatglm[0, 4] < 95 and reference[0, 4] == 100  # the empty word
    assert chatglm[1, 3] < 50 and chatglm[1, 4] == pytest.approx(99.9999995)  # one character; the epsilon


def test_surrogates_and_zero_bytes_are_text_too():
    table = count(["\ud800你好\x00", "\udfff"], ["你好\ud800\x00", "好"])
    assert pair_scores(table)[:, 0] == pytest.approx([100, 0], abs=1e-9)


# Properties.


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
def test_identical_texts_reach_the_top(protocol):
    texts = [text for text in compose(50, seed=2) if len(text.strip()) > 8]
    assert pair_scores(count(texts, texts), protocol)[:, :7] == pytest.approx(100, abs=1e-6)


@given(st.permutations(range(40)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_pairs_changes_nothing(order):
    table = count([HYPOTHESES[i] for i in order], [REFERENCES[i] for i in order], block=16)
    straight = count(HYPOTHESES[:40], REFERENCES[:40])
    assert np.array_equal(table.values, straight.values[order])
    for protocol in PROTOCOLS.values():
        assert values(table, protocol) == pytest.approx(values(straight, protocol), rel=1e-13)


@pytest.mark.parametrize("block", [1, 7, 283])
def test_blocks_change_nothing(sample, block):
    assert np.array_equal(count(HYPOTHESES, REFERENCES, block=block).values, sample.values)


def test_sharing_references_changes_nothing():
    systems = {name: compose(80, seed=seed) for seed, name in enumerate("ABC")}
    texts = compose(80, seed=9)
    shared = References(texts, tokens=EVERYTHING, block=32)
    together = system_statistics(systems, shared)
    for name, hypotheses in reversed(systems.items()):
        assert np.array_equal(together[name].values, count(hypotheses, texts).values)
        assert np.array_equal(together[name].values, text_statistics(hypotheses, shared).values)
    forgetful = References(texts, tokens=EVERYTHING, block=32, keep=False)
    again = system_statistics(systems, forgetful)
    assert len(forgetful._blocks) == 1 and len(shared._blocks) == 3
    assert all(np.array_equal(again[name].values, together[name].values) for name in systems)


def test_processes_change_nothing():
    systems = {"A": compose(90, seed=1), "B": [*compose(89, seed=2), None]}
    references = References(compose(90, seed=3), block=8)
    told = []
    two = system_statistics(systems, references, processes=2, on_progress=lambda *step: told.append(step))
    one = system_statistics(systems, references)
    assert all(np.array_equal(one[name].values, two[name].values) for name in systems)
    assert one["A"].source == two["A"].source
    assert told[-1] == (90, 90) and len(told) > 2 and told == sorted(told)


def test_swapping_sides_swaps_precision_and_recall_but_not_f():
    there, back = count(HYPOTHESES, REFERENCES), count(REFERENCES, HYPOTHESES)
    for protocol in PROTOCOLS.values():
        forth = pair_scores(there, protocol)[:, ROUGE_COLUMNS]
        assert forth == pytest.approx(pair_scores(back, protocol)[:, ROUGE_COLUMNS], abs=1e-9)


# Switches.


def test_nfkc_folds_what_differs_in_width_only():
    wide, narrow = "ＡＢＣ１２３，全角的文字（和括号）！", "ABC123,全角的文字(和括号)!"
    kept = count([wide], [narrow])
    folded = count([wide], [narrow], normalisation=Normalisation(nfkc=True))
    for protocol in PROTOCOLS.values():
        assert pair_scores(kept, protocol)[0, 4] < 90
        assert pair_scores(folded, protocol)[0, :7] == pytest.approx(100, abs=1e-6)


def test_dropping_punctuation_drops_tokens_and_cuts_no_other_word():
    normalisation = Normalisation(punctuation="drop")
    table = count(["你好，世界！", "，。", "20-30分"], ["你好世界。", "你好", "20-30分……"], normalisation=normalisation)
    for protocol in PROTOCOLS.values():
        assert pair_scores(table, protocol)[0, :7] == pytest.approx(100, abs=1e-6)
        assert (pair_scores(table, protocol)[1, :7] == 0).all()
        assert pair_scores(table, protocol)[2, ROUGE_COLUMNS] == pytest.approx(100, abs=1e-6)
    assert table.column("hypothesis_blank").tolist() == [0, 1, 0]


@pytest.mark.parametrize("counting", ["sets", "clipped"])
@pytest.mark.parametrize("aggregate", ["mean", "corpus"])
def test_every_switch_shows_in_number_and_signature(sample, counting, aggregate):
    protocol = replace(CHAR, counting=counting, rouge_aggregate=aggregate)
    estimate = text_scores(sample, protocol)["rouge_1"]
    default = text_scores(sample, CHAR)["rouge_1"]
    assert f"counting:{counting}" in estimate.signature and f"aggregate:{aggregate}" in estimate.signature
    assert (protocol.label == "char") == (protocol == CHAR) == (estimate == default)
    if protocol != CHAR:
        assert abs(estimate.value - default.value) > 0.01 and "protocol:char*" in estimate.signature


def test_corpus_rouge_is_the_score_of_the_sums():
    table = count(["你好你好", "再见"], ["你好", "不再见了吧"])
    protocol = replace(CHAR, rouge_aggregate="corpus")
    assert text_scores(table, protocol)["rouge_1"].value == pytest.approx(f1(2 + 2, 4 + 2, 2 + 5))


def test_impossible_protocols_are_refused(sample):
    with pytest.raises(ValueError, match="BLEU needs"):
        replace(CHATGLM, bleu_tokens="rouge_chinese")
    with pytest.raises(ValueError, match="ROUGE is made of"):
        replace(CHATGLM, rouge_tokens="zh")
    with pytest.raises(ValueError, match="not counted: zh"):
        text_scores(text_statistics(["好"], References(["好"])), REFERENCE)
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        text_statistics(["好", "好"], References(["好"]))
    with pytest.raises(ValueError, match="clusters of shape"):
        text_scores(sample, seed=1, clusters=np.arange(3))


# Distinct and length.


def test_distinct_counts_by_response_and_by_corpus():
    texts = ["真的 真的 真的", "好", None]
    table = count(texts, ["你", "我", "他"])
    scores = text_scores(table, CHAR)
    assert scores["distinct_1"].value == pytest.approx(100 * (2 / 6 + 1) / 2)
    assert scores["distinct_2"].value == pytest.approx(100 * (2 / 5 + 0) / 2)
    assert scores["length"].value == pytest.approx(3.5)
    corpus = corpus_distinct([*texts, "真的"], 2, tokens="characters")
    assert corpus.value == pytest.approx(100 * 2 / 6)
    assert dict(corpus.n) == {"responses": 3, "n_grams": 6, "different": 2}
    assert corpus_distinct(["好"], 2).reason == "no_pairs"


@given(st.lists(a_text, max_size=5), st.integers(1, 3))
@settings(deadline=None)
def test_corpus_distinct_is_that_of_a_set(texts, order):
    grams = [tuple(w[i : i + order]) for w in map(words, texts) for i in range(len(w) - order + 1)]
    estimate = corpus_distinct(texts, order)
    assert estimate.value == (pytest.approx(100 * len(set(grams)) / len(grams)) if grams else None)


# Signatures.


def test_a_signature_tells_how_to_repeat_the_number(sample):
    scores = text_scores(sample)
    assert scores["bleu_4"].signature.startswith("name:bleu_4|version:1|protocol:chatglm|tokens:codepoints-1(unicode=")
    for part in ("smoothing:nltk-method3", "aggregate:mean", "nfkc:no", "punctuation:keep", "scale:percent", "n:284"):
        assert part in scores["bleu_4"].signature.split("|")
    assert "jieba=0.42.1,rjieba=0.2.2" in scores["rouge_l"].signature
    assert tuple(scores) == METRICS


def test_mixed_signatures_are_refused(sample):
    one = text_scores(sample)["bleu_4"]
    other = text_scores(count(REFERENCES[::-1], REFERENCES))["bleu_4"]
    assert refuse_mixed_signatures([one, other]) == one.signature
    mixed = text_scores(sample, replace(CHATGLM, smoothing="nltk-method1"))["bleu_4"]
    with pytest.raises(MixedSignatures, match="smoothing:nltk-method3"):
        refuse_mixed_signatures([one, mixed])
    with pytest.raises(ValueError, match="nothing to compare"):
        refuse_mixed_signatures([])


# Intervals and parts.


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
def test_an_interval_surrounds_its_value(rivals, protocol):
    good, _, dialogues, _ = rivals
    scores = text_scores(good, protocol, clusters=dialogues, seed=3)
    for estimate in scores.values():
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n["clusters"] == 10 and "few_clusters" in estimate.notes
    assert scores == text_scores(good, protocol, clusters=dialogues, seed=3)
    without = text_scores(good, protocol)
    assert [e.value for e in scores.values()] == [e.value for e in without.values()]


def test_the_table_serves_breakdowns(sample):
    topic = np.arange(len(sample)) % 3 == 0
    part = count([HYPOTHESES[i] for i in np.flatnonzero(topic)], [REFERENCES[i] for i in np.flatnonzero(topic)])
    assert np.array_equal(sample.rows(topic).values, part.values)
    assert isinstance(CHATGLM, Protocol) and len(sample.rows(topic)) == topic.sum()


PARENT = """
import os
from metrics.text import counting_pool
pool = counting_pool(1)
print(pool.submit(os.getpid).result(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_counting_processes_end_with_the_one_that_made_them():
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=60)
    assert parent.returncode == -9, parent.stderr
    child = Path(f"/proc/{parent.stdout.strip()}")
    deadline = time.monotonic() + 10
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists()
