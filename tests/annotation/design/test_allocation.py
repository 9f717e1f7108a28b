"""Items are dealt to raters so that nobody carries more and everyone meets everyone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.design.allocation import allocate


@st.composite
def sizes(draw):
    n_items, n_raters = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    return n_items, n_raters, draw(st.integers(1, n_raters)), draw(st.integers(0, 2**32))


@given(sizes(), st.integers(1, 4))
def test_every_item_has_its_raters_and_loads_are_even_in_every_group(size, n_groups):
    n_items, n_raters, raters_per_item, seed = size
    groups = np.arange(n_items) * n_groups // n_items
    allocation = allocate(n_items, n_raters, raters_per_item, np.random.default_rng(seed), groups)
    assert (allocation.sum(axis=1) == raters_per_item).all()
    assert np.ptp(allocation.sum(axis=0)) <= 1
    for group in range(n_groups):
        assert np.ptp(allocation[groups == group].sum(axis=0)) <= 1


def test_all_raters_rate_all_items_in_a_full_crossing():
    assert allocate(5, 3, 3, np.random.default_rng(0)).all()


@pytest.mark.parametrize(("n_raters", "raters_per_item"), [(4, 2), (6, 3), (7, 3), (10, 3), (9, 4)])
def test_pairs_of_raters_meet_about_equally_often(n_raters, raters_per_item):
    n_items = 420
    allocation = allocate(n_items, n_raters, raters_per_item, np.random.default_rng(3)).astype(int)
    together = (allocation.T @ allocation)[~np.eye(n_raters, dtype=bool)]
    even = n_items * raters_per_item * (raters_per_item - 1) / (n_raters * (n_raters - 1))
    assert np.abs(together - even).max() <= 0.06 * even + 1


def test_the_pairs_are_perfect_where_a_balanced_block_design_exists():
    allocation = allocate(6, 4, 2, np.random.default_rng(5)).astype(int)
    together = allocation.T @ allocation
    assert (together[~np.eye(4, dtype=bool)] == 1).all()


def test_the_seed_decides():
    first, again, other = (allocate(30, 6, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("n_items", "n_raters", "raters_per_item", "groups", "message"),
    [
        (0, 3, 1, None, "at least 1 item"),
        (3, 0, 1, None, "1 rater"),
        (3, 2, 3, None, "with 2 raters it is 1 to 2"),
        (3, 2, 0, None, "with 2 raters it is 1 to 2"),
        (3, 2, 1, np.array([0, 1]), "one group per item"),
    ],
)
def test_impossible_numbers_are_refused(n_items, n_raters, raters_per_item, groups, message):
    with pytest.raises(ValueError, match=message):
        allocate(n_items, n_raters, raters_per_item, np.random.default_rng(0), groups)
