"""Drawing by seed: a lottery that depends on names and seed only."""

from __future__ import annotations

from collections import Counter

import pytest

from annotation.design.sampling import Candidate, draw, share_out


def people(n: int, strata: str = "a") -> list[Candidate]:
    return [Candidate(f"key-{i}", strata[i % len(strata)], i) for i in range(n)]


def test_the_same_seed_draws_the_same_whatever_the_order_of_rows():
    candidates = people(500)
    drawn, n_seen = draw(candidates, 50, seed=7)
    assert n_seen == 500
    assert len(set(drawn)) == 50
    assert draw(reversed(candidates), 50, seed=7)[0] == drawn
    assert draw(candidates, 50, seed=8)[0] != drawn


def test_a_smaller_sample_is_the_beginning_of_a_larger_one():
    assert draw(people(500), 50, seed=7)[0] == draw(people(500), 200, seed=7)[0][:50]


def test_every_candidate_has_the_same_chance():
    counts = Counter(pk for seed in range(600) for pk in draw(people(20), 5, seed)[0])
    expected = 600 * 5 / 20
    chi_square = sum((counts[i] - expected) ** 2 / expected for i in range(20)) / (1 - 5 / 20)
    assert chi_square < 43.8  # the 0.1 % point of chi-square with 19 degrees of freedom


@pytest.mark.parametrize("n", [1, 7, 30, 99])
def test_strata_keep_their_shares(n):
    strata = "aaaaaabbbc"  # 60, 30 and 10 per cent
    drawn, _ = draw(people(300, strata), n, seed=3, by_stratum=True)
    counts = Counter(strata[pk % len(strata)] for pk in drawn)
    assert sum(counts.values()) == n
    for stratum, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert abs(counts[stratum] - share * n) < 1


def test_fewer_come_back_where_there_are_not_enough():
    assert len(draw(people(3), 5, seed=1)[0]) == 3
    assert share_out({"a": 2, "b": 1}, 9) == {"a": 2, "b": 1}
