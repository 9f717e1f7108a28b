"""Intervals by resampling whole dialogues, and the mean score with such an interval.

Systems answer the same dialogue and raters share it, so ratings within a dialogue hang together and only dialogues
may be drawn anew. Every statistic here is a function of sums over clusters: one draw of clusters is then one row of
counts, and all replicates are one matrix product. Clusters that contribute the same sums are drawn as one pattern.

Shapes: C = clusters, P = distinct patterns of sums, S = sums, B = resamples, N = responses.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special, stats

from metrics.results import Estimate, ResultRow, Signature
from metrics.table import FloatArray, IntArray, RatingMatrix, RatingTable

VERSION = 1
N_BOOTSTRAP = 2000
FEW_CLUSTERS = 20
NO_INTERVAL = "no interval"
DRAWS_AT_ONCE = 1_000_000  # clusters drawn before they are counted: about 25 MB, however large the study
TOLERANCE = 1e-12  # two values of a statistic this close are the same value

Kind = Literal["percentile", "bca"]
Statistic = Callable[[FloatArray], FloatArray]
"""Sums of shape (..., S) to values of shape (...); NaN where a value is undefined."""
Statistics = Callable[[FloatArray], FloatArray]
"""Likewise several at once: sums of shape (..., S) to values of shape (..., M)."""


class Resamples(NamedTuple):
    """The same clusters drawn again and again, with replacement.

    patterns_PS: the distinct rows of the cluster sums;  frequency_P: how many clusters share each;
    member_P: the number of one cluster that shows the pattern;  counts_BP: how often each was drawn;
    totals: shape (1 + B, S), the sums over the clusters that were really there, then those of each resample.
    """

    patterns_PS: FloatArray
    frequency_P: IntArray
    member_P: IntArray
    counts_BP: IntArray
    totals: FloatArray

    @property
    def observed_S(self) -> FloatArray:
        """The sums over the clusters that were really there."""
        observed_S: FloatArray = self.totals[0]
        return observed_S

    @property
    def totals_BS(self) -> FloatArray:
        """The sums of each resample."""
        return self.totals[1:]

    @property
    def n_clusters(self) -> int:
        """How many clusters each resample draws."""
        return int(self.frequency_P.sum())


class Interval(NamedTuple):
    """An interval, or None twice with the reason in `notes`; n_undefined resamples had no value and were left out.

    value: the statistic over the clusters that were really there, NaN = undefined.
    """

    low: float | None
    high: float | None
    method: str
    n_undefined: int
    notes: tuple[str, ...]
    value: float = np.nan


def cluster_sums(sums_NS: FloatArray, clusters_N: IntArray) -> FloatArray:
    """Sums per response added up within clusters: shape (n_clusters, n_sums). Clusters are numbered from 0."""
    totals_CS = np.zeros((int(clusters_N.max(initial=-1)) + 1, sums_NS.shape[1]))
    for s in range(sums_NS.shape[1]):
        totals_CS[:, s] = np.bincount(clusters_N, weights=sums_NS[:, s], minlength=len(totals_CS))
    return totals_CS


def resample(sums_CS: FloatArray, *, rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP) -> Resamples:
    """Draw all clusters with replacement, n_bootstrap times.

    sums_CS: shape (n_clusters, n_sums), at least one cluster. The order of clusters does not change the result.
    """
    patterns_PS, member_P, frequency_P = np.unique(sums_CS, axis=0, return_index=True, return_counts=True)
    counts_BP = _pattern_counts(frequency_P.astype(np.int64), rng, n_bootstrap)
    weights = np.empty((1 + n_bootstrap, len(patterns_PS)))
    weights[0], weights[1:] = frequency_P, counts_BP
    totals = (patterns_PS.T @ weights.T).T  # each sum in one stretch of memory, since statistics work sum by sum
    return Resamples(patterns_PS, frequency_P.astype(np.int64), member_P.astype(np.int64), counts_BP, totals)


def _pattern_counts(frequency_P: IntArray, rng: np.random.Generator, n_bootstrap: int) -> IntArray:
    """How often each pattern is drawn: multinomial, shape (n_bootstrap, n_patterns)."""
    n_clusters, n_patterns = int(frequency_P.sum()), len(frequency_P)
    if n_clusters > 16 * n_patterns:  # below this, drawing single clusters is faster than numpy's multinomial
        return rng.multinomial(n_clusters, frequency_P / n_clusters, size=n_bootstrap).astype(np.int64)
    pattern_of_cluster = np.repeat(np.arange(n_patterns), frequency_P)
    counts_BP = np.empty((n_bootstrap, n_patterns), dtype=np.int64)
    n_at_once = max(1, DRAWS_AT_ONCE // n_clusters)
    for first in range(0, n_bootstrap, n_at_once):
        n = min(n_at_once, n_bootstrap - first)
        cells = rng.integers(0, n_clusters, size=(n, n_clusters))
        if n_patterns < n_clusters:
            cells = pattern_of_cluster[cells]
        cells += n_patterns * np.arange(n)[:, None]
        counts = np.bincount(cells.ravel(), minlength=n * n_patterns)
        counts_BP[first : first + n] = counts.reshape(n, n_patterns)
    return counts_BP


def bootstrap_interval(
    resamples: Resamples, statistic: Statistic, *, confidence: float = 0.95, kind: Kind = "percentile"
) -> Interval:
    """The interval of one statistic; see bootstrap_intervals."""

    def alone(sums: FloatArray) -> FloatArray:
        return statistic(sums)[..., None]

    return bootstrap_intervals(resamples, alone, confidence=confidence, kind=kind)[0]


def bootstrap_intervals(
    resamples: Resamples, statistics: Statistics, *, confidence: float = 0.95, kind: Kind = "percentile"
) -> list[Interval]:
    """The value and interval of each statistic from resampled sums.

    kind: "percentile", or "bca" (bias-corrected and accelerated), better for a smooth statistic near the end of its
        range; where a resample or a leave-one-out is undefined it falls back to "percentile", and `method` says so.

    There is no interval (None, with a note) for a single cluster, for a value that is undefined, or if all resamples
    agree: a width of zero would promise a certainty that the data cannot give.

    Source: Efron (1987), Better Bootstrap Confidence Intervals; Field & Welsh (2007) on resampling clusters.
    """
    values = statistics(resamples.totals)
    observed_M, replicates_MB = values[0], np.ascontiguousarray(values[1:].T)
    is_defined_MB = np.isfinite(replicates_MB)
    rising_MB = np.sort(np.where(is_defined_MB, replicates_MB, np.nan), axis=1)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    corrected_M2 = np.full((len(observed_M), 2), np.nan)
    if kind == "bca":
        corrected_M2 = _bca_tails(resamples, statistics, replicates_MB - observed_M[:, None], tails)
    intervals = []
    for m, n_defined in enumerate(is_defined_MB.sum(axis=1).tolist()):
        is_corrected = not np.isnan(corrected_M2[m]).any()
        used: Kind = "bca" if is_corrected else "percentile"
        method = f"{used} bootstrap by cluster, {len(values) - 1} resamples, {100 * confidence:g}%"
        tails_2 = corrected_M2[m] if is_corrected else tails
        without = Interval(None, None, NO_INTERVAL, len(values) - 1 - n_defined, (), float(observed_M[m]))
        intervals.append(_with_ends(without, rising_MB[m, :n_defined], tails_2, method, resamples.n_clusters))
    return intervals


def _with_ends(without: Interval, rising: FloatArray, tails_2: FloatArray, method: str, n_clusters: int) -> Interval:
    """The interval from its defined replicates, in rising order; or without ends, and why."""
    notes = ("undefined_resamples",) if without.n_undefined else ()
    if n_clusters < 2:
        return without._replace(notes=("one_cluster",))
    if not np.isfinite(without.value) or not len(rising):
        return without._replace(notes=notes)
    if rising[-1] - rising[0] <= TOLERANCE:
        return without._replace(notes=(*notes, "degenerate_interval"))
    if n_clusters < FEW_CLUSTERS:
        notes = (*notes, "few_clusters")
    low, high = (_quantile(rising, tail) for tail in tails_2.tolist())
    return without._replace(low=low, high=high, method=method, notes=notes)


def _quantile(rising: FloatArray, share: float) -> float:
    """As numpy.quantile, which would sort once more."""
    at = share * (len(rising) - 1)
    below = int(at)
    low, high = float(rising[below]), float(rising[min(below + 1, len(rising) - 1)])
    return low + (high - low) * (at - below)


def _bca_tails(
    resamples: Resamples, statistics: Statistics, deviations_MB: FloatArray, tails: FloatArray
) -> FloatArray:
    """The two tail probabilities after Efron's corrections, shape (M, 2); NaN where they do not exist."""
    frequency_P = resamples.frequency_P.astype(np.float64)
    left_out_PM = statistics(resamples.observed_S - resamples.patterns_PS)  # without one cluster of each pattern
    influence_PM = frequency_P @ left_out_PM / frequency_P.sum() - left_out_PM
    spread_M, skew_M = frequency_P @ influence_PM**2, frequency_P @ influence_PM**3
    is_tie_MB = np.abs(deviations_MB) <= TOLERANCE
    share_below_M = np.mean((deviations_MB < 0) & ~is_tie_MB, axis=1) + np.mean(is_tie_MB, axis=1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration_M1 = (skew_M / (6 * spread_M**1.5))[:, None]
        bias_M1 = special.ndtri(share_below_M)[:, None]
        shifted_M2 = bias_M1 + special.ndtri(tails)
        corrected_M2 = special.ndtr(bias_M1 + shifted_M2 / (1 - acceleration_M1 * shifted_M2))
        exists_M = np.isfinite(deviations_MB).all(axis=1) & (spread_M > 0) & np.isfinite(bias_M1[:, 0])
        exists_M &= (acceleration_M1 * shifted_M2 < 1).all(axis=1)
    return np.where(exists_M[:, None], corrected_M2, np.nan)


def event_upper_bound(n_events: int, n: int, *, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound on the rate of an event seen n_events times in n independent units.

    With no event it is 1 - (1 - confidence)^(1/n), about 3/n at 95 %: 0.0295 after 100 dialogues without one.
    Raises ValueError unless 0 <= n_events <= n and n is positive.

    Source: Clopper & Pearson (1934); Hanley & Lippman-Hand (1983), If Nothing Goes Wrong, Is Everything All Right?
    """
    if not 0 <= n_events <= n or n == 0:
        raise ValueError(f"{n_events} events in {n} units")
    if n_events == n:
        return 1.0
    return float(stats.beta.ppf(confidence, n_events + 1, n - n_events))


def stratum_label(stratum: Mapping[str, str]) -> str:
    """A stratum in words, for instance "dataset=soul,system=B"; "all" for everything pooled."""
    return ",".join(f"{column}={level}" for column, level in stratum.items()) or "all"


def stratum_rng(seed: int, family: str, dimension: str, stratum: Mapping[str, str]) -> np.random.Generator:
    """The generator of one stratum: its interval does not depend on which other strata are asked for.

    family: metrics of one family share their resamples.
    """
    digest = hashlib.sha256(f"{family}\x1f{dimension}\x1f{stratum_label(stratum)}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8])])


def interval_settings(
    *, seed: int, n_bootstrap: int, confidence: float, kind: Kind, data: str, stratum: Mapping[str, str]
) -> dict[str, object]:
    """The parts of a signature that fix an interval: how clusters are drawn, from which ratings."""
    return {
        "stratum": stratum_label(stratum),
        "interval": f"{kind}-by-cluster",
        "confidence": confidence,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "numpy": np.__version__,
        "data": data,
    }


def matrix_counts(matrix: RatingMatrix) -> dict[str, int]:
    """What an estimate about this matrix counts: items, responses, ratings, raters, clusters."""
    return {
        "items": matrix.n_items,
        "responses": matrix.n_responses,
        "ratings": int(np.count_nonzero(~np.isnan(matrix.ratings))),
        "raters": matrix.n_raters,
        "clusters": len(np.unique(matrix.clusters)),
    }


def mean_score(
    table: RatingTable,
    dimension: str,
    *,
    by: Sequence[str] = ("system",),
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "bca",
) -> list[ResultRow]:
    """The mean rating of each stratum, in points of the scale, with an interval by dialogue.

    Convention: first the mean over the raters of a response, then the mean over responses, so that a response with
    three ratings counts no more than one with a single rating. With complete ratings this is the plain mean. Hidden
    repeats are left out.

    by: columns whose combinations make the strata; () pools everything. The interval is BCa because means of a short
    scale sit near its top, where the resamples are skewed.
    """
    rows = []
    for stratum, part in table.strata(by):
        matrix = part.matrix(dimension)
        data = part.of_dimension(dimension).content_hash()
        settings = interval_settings(
            seed=seed, n_bootstrap=n_bootstrap, confidence=confidence, kind=kind, data=data, stratum=stratum
        )
        signature = Signature.of(
            "mean_score", VERSION, dimension=dimension, scale=matrix.scale, average="raters-then-responses", **settings
        )
        rng = stratum_rng(seed, "mean_score", dimension, stratum)
        estimate = _mean_estimate(matrix, str(signature), rng, n_bootstrap, confidence, kind)
        rows.append(ResultRow("mean_score", dimension, estimate, stratum))
    return rows


def _mean_estimate(
    matrix: RatingMatrix,
    signature: str,
    rng: np.random.Generator,
    n_bootstrap: int,
    confidence: float,
    kind: Kind,
) -> Estimate:
    n = matrix_counts(matrix)
    if not len(matrix.ratings):
        return Estimate(None, None, None, n, NO_INTERVAL, signature, "no_ratings")
    response_means = np.nanmean(matrix.ratings, axis=1)
    sums_NS = np.column_stack([response_means, np.ones_like(response_means)])
    resamples = resample(cluster_sums(sums_NS, matrix.clusters), rng=rng, n_bootstrap=n_bootstrap)
    interval = bootstrap_interval(resamples, _ratio, confidence=confidence, kind=kind)
    n |= {"resamples": n_bootstrap, "undefined_resamples": interval.n_undefined}
    value = float(response_means.mean())
    return Estimate(value, interval.low, interval.high, n, interval.method, signature, None, interval.notes)


def _ratio(totals: FloatArray) -> FloatArray:
    """Mean from a sum and a count, shape (..., 2) to (...)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: FloatArray = totals[..., 0] / totals[..., 1]
    return mean
