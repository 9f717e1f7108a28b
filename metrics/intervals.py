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
from scipy import stats

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


class Resamples(NamedTuple):
    """The same clusters drawn again and again, with replacement.

    patterns_PS: the distinct rows of the cluster sums;  frequency_P: how many clusters share each;
    member_P: the number of one cluster that shows the pattern;  counts_BP: how often each was drawn;
    totals_BS: the sums of each resample.
    """

    patterns_PS: FloatArray
    frequency_P: IntArray
    member_P: IntArray
    counts_BP: IntArray
    totals_BS: FloatArray

    @property
    def observed_S(self) -> FloatArray:
        """The sums over the clusters that were really there."""
        return self.frequency_P.astype(np.float64) @ self.patterns_PS

    @property
    def n_clusters(self) -> int:
        """How many clusters each resample draws."""
        return int(self.frequency_P.sum())


class Interval(NamedTuple):
    """An interval, or None twice with the reason in `notes`; n_undefined resamples had no value and were left out."""

    low: float | None
    high: float | None
    method: str
    n_undefined: int
    notes: tuple[str, ...]


def cluster_sums(sums_NS: FloatArray, clusters_N: IntArray) -> FloatArray:
    """Sums per response added up within clusters: shape (n_clusters, n_sums). Clusters are numbered from 0."""
    totals_CS = np.zeros((int(clusters_N.max(initial=-1)) + 1, sums_NS.shape[1]))
    np.add.at(totals_CS, clusters_N, sums_NS)
    return totals_CS


def resample(sums_CS: FloatArray, *, rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP) -> Resamples:
    """Draw all clusters with replacement, n_bootstrap times.

    sums_CS: shape (n_clusters, n_sums), at least one cluster. The order of clusters does not change the result.
    """
    patterns_PS, member_P, frequency_P = np.unique(sums_CS, axis=0, return_index=True, return_counts=True)
    counts_BP = _pattern_counts(frequency_P.astype(np.int64), rng, n_bootstrap)
    totals_BS = counts_BP.astype(np.float64) @ patterns_PS
    return Resamples(patterns_PS, frequency_P.astype(np.int64), member_P.astype(np.int64), counts_BP, totals_BS)


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
        drawn = pattern_of_cluster[rng.integers(0, n_clusters, size=(n, n_clusters))]
        cells = drawn + n_patterns * np.arange(n)[:, None]
        counts = np.bincount(cells.ravel(), minlength=n * n_patterns)
        counts_BP[first : first + n] = counts.reshape(n, n_patterns)
    return counts_BP


def bootstrap_interval(
    resamples: Resamples, statistic: Statistic, *, confidence: float = 0.95, kind: Kind = "percentile"
) -> Interval:
    """The interval of one statistic from resampled sums.

    kind: "percentile", or "bca" (bias-corrected and accelerated), better for a smooth statistic near the end of its
        range; where a resample or a leave-one-out is undefined it falls back to "percentile", and `method` says so.

    There is no interval (None, with a note) for a single cluster, for a value that is undefined, or if all resamples
    agree: a width of zero would promise a certainty that the data cannot give.

    Source: Efron (1987), Better Bootstrap Confidence Intervals; Field & Welsh (2007) on resampling clusters.
    """
    replicates = statistic(resamples.totals_BS)
    defined = replicates[np.isfinite(replicates)]
    n_undefined = len(replicates) - len(defined)
    observed = float(statistic(resamples.observed_S))
    notes = ["undefined_resamples"] if n_undefined else []
    if resamples.n_clusters < 2:
        return Interval(None, None, NO_INTERVAL, n_undefined, ("one_cluster",))
    if not np.isfinite(observed) or not len(defined):
        return Interval(None, None, NO_INTERVAL, n_undefined, tuple(notes))
    if np.ptp(defined) <= TOLERANCE:
        return Interval(None, None, NO_INTERVAL, n_undefined, (*notes, "degenerate_interval"))
    if resamples.n_clusters < FEW_CLUSTERS:
        notes.append("few_clusters")
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    corrected = _bca_tails(resamples, statistic, replicates - observed, tails) if kind == "bca" else None
    used: Kind = "percentile" if corrected is None else "bca"
    low, high = np.quantile(defined, tails if corrected is None else corrected)
    method = f"{used} bootstrap by cluster, {len(replicates)} resamples, {100 * confidence:g}%"
    return Interval(float(low), float(high), method, n_undefined, tuple(notes))


def _bca_tails(
    resamples: Resamples, statistic: Statistic, deviations_B: FloatArray, tails: FloatArray
) -> FloatArray | None:
    """The two tail probabilities after Efron's corrections; None where they do not exist."""
    left_out_P = statistic(resamples.observed_S - resamples.patterns_PS)  # without one cluster of each pattern
    influence_P = np.average(left_out_P, weights=resamples.frequency_P) - left_out_P
    spread = float(resamples.frequency_P @ influence_P**2)
    is_tie_B = np.abs(deviations_B) <= TOLERANCE
    share_below = float(np.mean((deviations_B < 0) & ~is_tie_B) + np.mean(is_tie_B) / 2)
    if not (np.isfinite(deviations_B).all() and np.isfinite(spread) and spread > 0 and 0 < share_below < 1):
        return None
    acceleration = float(resamples.frequency_P @ influence_P**3) / (6 * spread**1.5)
    bias = stats.norm.ppf(share_below)
    shifted = bias + stats.norm.ppf(tails)
    if (acceleration * shifted >= 1).any():
        return None
    corrected: FloatArray = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    return corrected


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
