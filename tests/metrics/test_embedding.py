"""Greedy matching of vectors, by hand and by a plain loop; means with intervals."""

import math

import numpy as np
import pytest

from metrics.embedding import METRICS, Vectors, embedding_scores, greedy_match

ENCODER = {"encoder": "bert-0123456789ab", "layer": "8/12"}
A, B, HALF = [1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]


def side(*vectors, special=()):
    return Vectors(
        np.array(vectors, dtype=np.float32).reshape(-1, 2), np.array([i not in special for i in range(len(vectors))])
    )


def test_one_pair_by_hand():
    """Two tokens against one: a matches it fully, the diagonal by cos 45°."""
    precision, recall = (1 + math.sqrt(0.5)) / 2, 1.0
    f1 = 2 * precision * recall / (precision + recall)
    assert greedy_match(side(A, HALF), side(A)) == pytest.approx([100 * precision, 100, 100 * f1])
    assert greedy_match(side(A), side(A, HALF)) == pytest.approx([100, 100 * precision, 100 * f1])


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        (side(A, B), side(B, A), (100, 100, 100)),  # the order of tokens is the encoder's business
        (side(A), side(B), (0, 0, 0)),
        (side(A), side([-1, 0]), (-100, -100, 0)),
        (side(), side(A), (0, 0, 0)),
        (side(A), side(B, special=[0]), (0, 0, 0)),  # nothing but the encoder's own tokens: blank
        (side([3, 0]), side([0.5, 0]), (100, 100, 100)),  # the length of a vector does not count
    ],
)
def test_plain_cases(hypothesis, reference, expected):
    assert greedy_match(hypothesis, reference) == pytest.approx(expected)


def test_an_encoder_s_own_tokens_may_be_matched_but_have_no_say():
    with_own = side(HALF, A, special=[0])
    precision, recall = math.sqrt(0.5), 0.0  # b is nearest to the special token; a has only b
    assert greedy_match(side(B), with_own)[:2] == pytest.approx([100 * precision, 100 * recall], abs=1e-5)


def test_it_equals_a_plain_loop():
    rng = np.random.default_rng(4)
    for _ in range(20):
        sides = [Vectors(rng.normal(size=(n, 5)), rng.random(n) < 0.8) for n in rng.integers(2, 9, size=2)]

        def nearest(vector, others):
            return max(vector @ other / math.sqrt(vector @ vector) / math.sqrt(other @ other) for other in others)

        means = []
        for own, other in (sides, sides[::-1]):
            counted = own.vectors_TD[own.is_counted_T]
            means.append(np.mean([nearest(v, other.vectors_TD) for v in counted]) if len(counted) else None)
        found = greedy_match(*sides)
        if None in means:
            assert found.tolist() == [0, 0, 0]
        else:
            assert found[:2] == pytest.approx([100 * mean for mean in means])
            assert found[2] == pytest.approx(200 / (1 / means[0] + 1 / means[1]) if min(means) > 0 else 0)


def test_means_leave_missing_pairs_out_and_say_so():
    scores = np.array([[80.0, 60, 68], [np.nan] * 3, [60, 40, 48], [0, 0, 0]])
    estimates = embedding_scores(scores, ["甲", None, "乙", "丙"], ENCODER)
    assert list(estimates) == list(METRICS)
    f1 = estimates["embedding_f1"]
    assert f1.value == pytest.approx((68 + 48) / 3)
    assert f1.n == {"pairs": 3, "missing": 1}
    assert "|encoder:bert-0123456789ab|layer:8/12|references:" in f1.signature
    other = embedding_scores(scores, ["甲", None, "乙", "丁"], ENCODER)["embedding_f1"]
    assert other.signature != f1.signature


def test_without_any_pair_there_is_a_reason_and_no_number():
    estimates = embedding_scores(np.full((2, 3), np.nan), [None, "甲"], ENCODER, seed=1)
    assert {(e.value, e.reason) for e in estimates.values()} == {(None, "no_pairs")}


def test_intervals_draw_whole_dialogues():
    rng = np.random.default_rng(3)
    dialogue = np.repeat(np.arange(30), 4)
    scores = 60 + rng.normal(size=30)[dialogue, None] * np.ones(3) + rng.normal(size=(120, 3)) * 0.1
    texts = [str(i) for i in range(120)]
    alone = embedding_scores(scores, texts, ENCODER, seed=5)["embedding_f1"]
    together = embedding_scores(scores, texts, ENCODER, seed=5, clusters=dialogue)["embedding_f1"]
    assert together.n["clusters"] == 30
    assert 1.5 < (together.high - together.low) / (alone.high - alone.low) < 2.5  # 2 = √4 replies a dialogue
    expected = 1.96 * np.std([scores[dialogue == d, 2].mean() for d in range(30)]) / math.sqrt(30)
    assert (together.high - together.low) / 2 == pytest.approx(expected, rel=0.1)
    assert together == embedding_scores(scores, texts, ENCODER, seed=5, clusters=dialogue)["embedding_f1"]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="for 1 references"):
        embedding_scores(np.zeros((2, 3)), ["甲"], ENCODER)
    with pytest.raises(ValueError, match="clusters"):
        embedding_scores(np.zeros((2, 3)), ["甲", "乙"], ENCODER, clusters=np.zeros(3, dtype=np.int64), seed=1)
