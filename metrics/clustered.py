"""Rows of a report whose numbers are sums over responses, with intervals by dialogue from one set of resamples.

Shapes: N = responses, S = sums; a leading "..." is one or many resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from metrics.intervals import (
    N_BOOTSTRAP,
    NO_INTERVAL,
    Interval,
    Kind,
    Statistic,
    bootstrap_intervals,
    cluster_sums,
    interval_settings,
    resample,
    stratum_rng,
)
from metrics.results import Estimate, Reason, ResultRow, Signature
from metrics.table import FloatArray, IntArray


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn: the settings that travel with every number."""

    seed: int
    n_bootstrap: int = N_BOOTSTRAP
    confidence: float = 0.95
    kind: Kind = "percentile"


@dataclass(frozen=True)
class Quantity:
    """One number to come: what to add up over responses, and what to make of the sums.

    sums_NS: shape (N, S), all zero where a response says nothing about it;  value: (..., S) ► (...), NaN = undefined.
    n: what it rests on;  undefined: the reason to give where the value is NaN.
    settings: what fixes the number beyond the interval, for its signature.
    """

    metric: str
    sums_NS: FloatArray
    value: Statistic
    n: Mapping[str, int]
    undefined: Reason
    stratum: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)


def clustered_rows(
    quantities: Sequence[Quantity],
    clusters_N: IntArray,
    *,
    dimension: str,
    family: str,
    version: int,
    data: str,
    how: Resampling,
) -> list[ResultRow]:
    """One row per quantity. All share their resamples, which follow from seed, family and dimension alone.

    clusters_N: the dialogue of each response, as numbers;  data: the hash of the ratings.
    """
    if not quantities:
        return []
    codes_N = np.unique(clusters_N, return_inverse=True)[1].astype(np.int64)
    ends = np.cumsum([quantity.sums_NS.shape[1] for quantity in quantities])
    columns = [slice(end - quantity.sums_NS.shape[1], end) for quantity, end in zip(quantities, ends, strict=True)]

    def values(totals: FloatArray) -> FloatArray:
        found = [quantity.value(totals[..., place]) for quantity, place in zip(quantities, columns, strict=True)]
        return np.stack(found, axis=-1)

    nothing = Interval(None, None, NO_INTERVAL, 0, ())
    intervals = [nothing] * len(quantities)
    if len(codes_N):
        stacked = np.column_stack([quantity.sums_NS for quantity in quantities])
        rng = stratum_rng(how.seed, family, dimension, {})
        resamples = resample(cluster_sums(stacked, codes_N), rng=rng, n_bootstrap=how.n_bootstrap)
        intervals = bootstrap_intervals(resamples, values, confidence=how.confidence, kind=how.kind)
    rows = []
    for quantity, interval in zip(quantities, intervals, strict=True):
        settings = interval_settings(
            seed=how.seed,
            n_bootstrap=how.n_bootstrap,
            confidence=how.confidence,
            kind=how.kind,
            data=data,
            stratum=quantity.stratum,
        )
        parts = {"dimension": dimension or None, **quantity.settings, **quantity.detail, **settings}
        signature = str(Signature.of(quantity.metric, version, **parts))
        low, high, method, n_undefined, notes, value = interval
        if np.isfinite(value):
            n = {**quantity.n, "resamples": how.n_bootstrap, "undefined_resamples": n_undefined}
            estimate = Estimate(value, low, high, n, method, signature, None, notes)
        else:
            estimate = Estimate(None, None, None, quantity.n, NO_INTERVAL, signature, quantity.undefined)
        rows.append(ResultRow(quantity.metric, dimension, estimate, quantity.stratum, quantity.detail))
    return rows


def ratio(totals: FloatArray) -> FloatArray:
    """A mean from a sum and a count: (..., 2) ► (...); NaN for a count of zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: FloatArray = totals[..., 0] / totals[..., 1]
    return mean


def plain_row(
    metric: str,
    value: float | None,
    *,
    dimension: str,
    n: Mapping[str, int],
    method: str,
    signature: Signature,
    low: float | None = None,
    high: float | None = None,
    reason: Reason | None = None,
    notes: tuple[str, ...] = (),
    stratum: Mapping[str, str] | None = None,
    detail: Mapping[str, str] | None = None,
) -> ResultRow:
    """One row whose interval, if it has one, comes from elsewhere than resampling."""
    estimate = Estimate(value, low, high, n, method, str(signature), reason, notes)
    return ResultRow(metric, dimension, estimate, stratum or {}, detail or {})
