"""Items to raters, with overlap and even load."""

import numpy as np

from annotation.design.arrays import BoolArray, IntArray


def allocate(
    n_items: int,
    n_raters: int,
    raters_per_item: int,
    rng: np.random.Generator,
    groups: IntArray | None = None,
) -> BoolArray:
    """Which rater rates which item: shape (n_items, n_raters), exactly `raters_per_item` True per row.

    groups: shape (n_items,), the dataset of each item; None = all items are of one dataset.

    The loads of two raters differ by at most one item, over all items and within each group. Among the
    raters whose turn it is, the one who shared fewest items with those already chosen for the item comes
    next, so the pairs of raters meet about equally often (near a balanced incomplete block design, and a
    full crossing when every rater rates every item).

    Raises ValueError if the numbers admit no such allocation.
    """
    _check(n_items, n_raters, raters_per_item, groups)
    if raters_per_item == n_raters:
        return np.ones((n_items, n_raters), dtype=np.bool_)

    items = rng.permutation(n_items)
    if groups is not None:
        items = items[np.argsort(groups[items], kind="stable")]  # one group after the other, random inside
    chosen = _deal(items, n_raters, raters_per_item, groups)

    allocation = np.zeros((n_items, n_raters), dtype=np.bool_)
    names = rng.permutation(n_raters)  # the dealing favours low numbers in ties; the rater behind one is chance
    allocation[items[:, None], names[chosen]] = True
    return allocation


def _check(n_items: int, n_raters: int, raters_per_item: int, groups: IntArray | None) -> None:
    if n_items < 1 or n_raters < 1:
        raise ValueError(f"a design needs at least 1 item and 1 rater, got {n_items} and {n_raters}")
    if not 1 <= raters_per_item <= n_raters:
        raise ValueError(f"raters_per_item is {raters_per_item}; with {n_raters} raters it is 1 to {n_raters}")
    if groups is not None and groups.shape != (n_items,):
        raise ValueError(f"groups has shape {groups.shape}, expected one group per item: ({n_items},)")


def _deal(items: IntArray, n_raters: int, raters_per_item: int, groups: IntArray | None) -> IntArray:
    """The raters of each item in dealing order, shape (n_items, raters_per_item)."""
    load = np.zeros(n_raters, dtype=np.int64)
    group_load = np.zeros(n_raters, dtype=np.int64)
    n_shared = np.zeros((n_raters, n_raters), dtype=np.int64)
    chosen = np.empty((len(items), raters_per_item), dtype=np.int64)
    current_group = None
    for row, item in enumerate(items):
        if groups is not None and groups[item] != current_group:
            current_group = groups[item]
            group_load[:] = 0
        is_taken = np.zeros(n_raters, dtype=np.bool_)
        n_met = np.zeros(n_raters, dtype=np.int64)
        for place in range(raters_per_item):
            # Last key first: not yet taken, fewest items of the group, fewest items, fewest shared items.
            rater = np.lexsort((n_met, load, group_load, is_taken))[0]
            chosen[row, place] = rater
            is_taken[rater] = True
            n_met += n_shared[rater]
        raters = chosen[row]
        load[raters] += 1
        group_load[raters] += 1
        n_shared[np.ix_(raters, raters)] += 1
    return chosen
