"""Every system takes every place equally often, and the queue keeps its promises to the rater."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.design.ordering import (
    balanced_sequences,
    build_queue,
    choose_repeats,
    cohort_size,
    possible_repeats,
    wanted_repeats,
    williams_sequences,
)


def longest_run(flags) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("n", range(1, 10))
def test_williams_sequences_balance_places_and_neighbours(n):
    sequences = williams_sequences(n)
    n_rows = n if n == 1 or n % 2 == 0 else 2 * n
    assert sequences.shape == (n_rows, n)
    for place in range(n):
        assert (np.bincount(sequences[:, place], minlength=n) == n_rows // n).all()
    pairs = Counter((a, b) for row in sequences.tolist() for a, b in pairwise(row))
    assert len(pairs) == n * (n - 1)
    assert set(pairs.values()) <= {n_rows // n}


def test_four_systems_have_the_square_of_the_textbook():  # Williams (1949): 0 1 3 2 and its shifts
    assert williams_sequences(4).tolist() == [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]]


def test_no_system_has_no_order():
    with pytest.raises(ValueError, match="at least 1 system"):
        williams_sequences(0)


@given(st.data())
def test_sequences_are_even_within_a_rater_and_among_the_raters_of_an_item(data):
    n_items, n_raters = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 8))
    n_sequences, seed = data.draw(st.integers(1, 10)), data.draw(st.integers(0, 2**32))
    is_rated = np.array(data.draw(st.lists(st.booleans(), min_size=n_items * n_raters, max_size=n_items * n_raters)))
    rater, item = np.nonzero(is_rated.reshape(n_raters, n_items))
    if len(rater) == 0:
        return
    groups = np.arange(n_items) % 2
    sequence = balanced_sequences(rater, item, n_sequences, np.random.default_rng(seed), groups)
    assert sequence.min() >= 0
    for nodes in (rater, item):
        for node in set(nodes.tolist()):
            assert np.ptp(np.bincount(sequence[nodes == node], minlength=n_sequences)) <= 1
    for node in set(rater.tolist()):
        for group in (0, 1):
            own = sequence[(rater == node) & (groups[item] == group)]
            assert np.ptp(np.bincount(own, minlength=n_sequences)) <= 2


@pytest.mark.parametrize(
    ("n_items", "share", "n"), [(100, 0.05, 5), (200, 0.05, 10), (6, 0.05, 1), (5, 0.05, 0), (7, 0.5, 3), (100, 0, 0)]
)
def test_repeats_are_counted(n_items, share, n):
    assert wanted_repeats(n_items, share) == n
    assert possible_repeats(n_items, share, size=1) == n


def test_a_short_interleaved_queue_has_no_room_for_repeats():
    assert possible_repeats(20, 0.05, size=8) == 0
    assert possible_repeats(23, 0.05, size=8) == 1


def test_repeats_spare_sensitive_items_and_differ_between_raters():
    items = np.arange(12)
    is_sensitive = np.arange(12) >= 8
    n_times = np.zeros(12, dtype=np.int64)
    for _ in range(4):
        repeated = choose_repeats(items, 2, n_times, is_sensitive, np.random.default_rng(0))
        n_times[repeated] += 1
    assert n_times.tolist() == [1] * 8 + [0] * 4


def test_a_gap_that_is_too_large_names_the_largest():
    with pytest.raises(
        ValueError, match=r"at least 8 items per rater; a rater has 5, so the largest gap possible is 5"
    ):
        cohort_size("interleaved", 8, n_items=5, n_systems=4)
    assert cohort_size("interleaved", 8, n_items=8, n_systems=4) == 8
    assert cohort_size("interleaved", 8, n_items=1, n_systems=1) == 1


@st.composite
def queues(draw):
    """A rater's items with tags, and the queue built from them."""
    n_systems, min_gap = draw(st.integers(1, 5)), draw(st.integers(2, 9))
    presentation = draw(st.sampled_from(["blocked", "interleaved"]))
    n_items = draw(st.integers(min_gap if presentation == "interleaved" else 1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    is_sensitive = rng.random(n_items) < draw(st.sampled_from([0, 0.1, 0.3, 0.5, 0.7, 1]))
    size = cohort_size(presentation, min_gap, n_items, n_systems)
    n_repeats = possible_repeats(n_items, draw(st.sampled_from([0, 0.05, 0.2, 0.5])), size)
    n_times = np.zeros(n_items, dtype=np.int64)
    repeated = choose_repeats(np.arange(n_items), n_repeats, n_times, is_sensitive, rng)
    queue = build_queue(is_sensitive, repeated, n_systems=n_systems, size=size, rng=rng)
    return is_sensitive, repeated, n_systems, size, queue


@given(queues())
def test_every_showing_is_complete_in_order_and_keeps_its_distance(made):
    is_sensitive, repeated, n_systems, size, queue = made
    assert len(queue.showing) == (len(is_sensitive) + len(repeated)) * n_systems
    for showing in range(len(is_sensitive) + len(repeated)):
        places = np.flatnonzero(queue.showing == showing)
        assert queue.slot[places].tolist() == list(range(n_systems))
        if size == 1:
            assert (np.diff(places) == 1).all()
        else:
            assert (np.diff(places) >= size).all()


@given(queues())
def test_a_repeat_is_two_thirds_away(made):
    is_sensitive, repeated, _, _, queue = made
    for index, item in enumerate(repeated):
        assert 3 * (np.flatnonzero(queue.showing == item).max() + 1) <= len(queue.showing)
        again = np.flatnonzero(queue.showing == len(is_sensitive) + index)
        assert 3 * again.min() >= 2 * len(queue.showing)


def run_of(made) -> int:
    is_sensitive, repeated, n_systems, size, queue = made
    tags = np.concatenate([is_sensitive, is_sensitive[repeated]])[queue.showing]
    return longest_run(tags[::n_systems] if size == 1 else tags)


@given(queues())
def test_two_sensitive_items_in_a_row_at_most_while_others_can_part_them(made):
    is_sensitive, repeated, _, _, _ = made
    n_sensitive = int(is_sensitive.sum())
    if n_sensitive <= len(is_sensitive) / 2 and len(repeated) <= len(is_sensitive) / 5:
        assert run_of(made) <= 2


@given(st.integers(0, 40), st.integers(0, 20), st.integers(0, 2**32))
def test_without_repeats_the_longest_run_is_the_shortest_possible(n_sensitive, n_other, seed):
    if n_sensitive + n_other == 0:
        return
    is_sensitive = np.arange(n_sensitive + n_other) < n_sensitive
    rng = np.random.default_rng(seed)
    queue = build_queue(is_sensitive, np.empty(0, dtype=np.int64), n_systems=1, size=1, rng=rng)
    assert longest_run(is_sensitive[queue.showing]) <= max(2, -(-n_sensitive // (n_other + 1)))


@pytest.mark.parametrize("n_raters", [1, 2, 3, 5])
@pytest.mark.parametrize("n_items", [1, 3, 4, 7, 50])
def test_a_full_crossing_uses_all_sequences_evenly(n_items, n_raters):
    rater, item = np.repeat(np.arange(n_raters), n_items), np.tile(np.arange(n_items), n_raters)
    for seed in range(20):
        sequence = balanced_sequences(rater, item, 4, np.random.default_rng(seed))
        per_rater = [np.bincount(sequence[rater == r], minlength=4) for r in range(n_raters)]
        assert all(np.ptp(counts) <= 1 for counts in per_rater)
        limit = 2 if n_raters <= 4 else 3  # a fifth rater begins where the first did
        assert np.ptp(np.sum(per_rater, axis=0)) <= limit
