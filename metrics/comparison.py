"""Systems side by side on one dimension: differences, tests, effect sizes, wins, ranks and strengths.

All systems answer the same dialogues and the same raters read them, so everything here is paired: a test exchanges
the systems within dialogues, an interval draws whole dialogues. A score is first averaged over the raters of a
response, then over items, as `intervals.mean_score` does it. Wins are counted within an item and a rater, so a rater
who is generous to everybody moves none of them.

Two systems are compared on the items where both were rated; the counts of each number say how many those are.

Shapes: I = items, K = systems, R = raters, P = pairs of systems, Q = points of the scale, C = clusters (dialogues),
S = sums, B = resamples; a leading "..." is one or many resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from metrics.intervals import (
    FEW_CLUSTERS,
    N_BOOTSTRAP,
    NO_INTERVAL,
    Interval,
    Kind,
    Resamples,
    Statistic,
    bootstrap_intervals,
    cluster_sums,
    interval_settings,
    matrix_counts,
    resample,
    stratum_label,
    stratum_rng,
)
from metrics.results import Estimate, Reason, ResultRow, Signature
from metrics.significance import MOST_EXACT, N_FLIPS, holm, sign_flip
from metrics.strengths import davidson_strengths, is_connected
from metrics.table import FloatArray, IntArray, RatingMatrix, RatingTable, Scale

VERSION = 1
DECIMALS = 9  # means of ratings that agree to so many decimals are equal
HOLM: dict[str, object] = {"adjustment": "holm", "family": "pairs-of-dimension-and-stratum"}


class RatingGrid(NamedTuple):
    """The ratings of one dimension as a box, so that responses to one item stand side by side.

    ratings: shape (I, K, R); NaN = not rated.  clusters: shape (I,), 0 … C - 1: the dialogue an item belongs to.
    items, systems, raters: the names along the axes, sorted.
    """

    ratings: FloatArray
    items: tuple[str, ...]
    systems: tuple[str, ...]
    raters: tuple[str, ...]
    clusters: IntArray
    scale: Scale

    @property
    def means(self) -> FloatArray:
        """Mean over the raters of each response, shape (I, K); NaN where nobody rated."""
        return _mean_of_rated(self.ratings)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every pair of systems, by their places."""
        return list(combinations(range(len(self.systems)), 2))


def rating_grid(matrix: RatingMatrix) -> RatingGrid:
    """The rows of a matrix, responses, folded into items by systems."""
    item_N, items = pd.factorize(matrix.responses.get_level_values("item"), sort=True)
    system_N, systems = pd.factorize(matrix.responses.get_level_values("system"), sort=True)
    ratings = np.full((len(items), len(systems), len(matrix.raters)), np.nan)
    ratings[item_N, system_N] = matrix.ratings
    clusters = np.zeros(len(items), dtype=np.int64)
    clusters[item_N] = matrix.clusters
    names = (tuple(map(str, items)), tuple(map(str, systems)))
    return RatingGrid(ratings, *names, matrix.raters, clusters, matrix.scale)


def _mean_of_rated(ratings: FloatArray) -> FloatArray:
    n_rated = np.count_nonzero(~np.isnan(ratings), axis=-1)
    return _ratio(np.nansum(ratings, axis=-1), n_rated.astype(np.float64))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient; NaN where the denominator is zero."""
    quotient: FloatArray = numerator / np.where(denominator == 0, np.nan, denominator)
    return quotient


# Sums over items, and what is made of them.


class _Sums(NamedTuple):
    """Per item, side by side: scores of systems, and for each pair its differences, shares of points, and outcomes.

    sums_IS: shape (I, S). The methods cut the same columns from totals of shape (..., S).
    """

    sums_IS: FloatArray
    n_systems: int
    n_pairs: int
    n_points: int

    def scores(self, totals: FloatArray) -> FloatArray:
        """Shape (..., K, 2): sum of the means over raters, items rated."""
        return self._part(totals, 0, (self.n_systems, 2))

    def differences(self, totals: FloatArray) -> FloatArray:
        """Shape (..., P, 2): sum of first minus second, items where both were rated."""
        return self._part(totals, 2 * self.n_systems, (self.n_pairs, 2))

    def shares(self, totals: FloatArray) -> FloatArray:
        """Shape (..., P, 2, Q): how often each point was given to the first and the second."""
        return self._part(totals, 2 * (self.n_systems + self.n_pairs), (self.n_pairs, 2, self.n_points))

    def outcomes(self, totals: FloatArray) -> FloatArray:
        """Shape (..., P, 3): wins of the first, ties, wins of the second; shares that add up to 1 in an item."""
        start = 2 * (self.n_systems + self.n_pairs * (1 + self.n_points))
        return self._part(totals, start, (self.n_pairs, 3))

    def _part(self, totals: FloatArray, start: int, shape: tuple[int, ...]) -> FloatArray:
        return totals[..., start : start + int(np.prod(shape))].reshape(*totals.shape[:-1], *shape)

    def mean_difference(self, totals: FloatArray, pair: int) -> FloatArray:
        part = self.differences(totals)[..., pair, :]
        return _ratio(part[..., 0], part[..., 1])

    def cliffs_delta(self, totals: FloatArray, pair: int) -> FloatArray:
        shares = self.shares(totals)[..., pair, :, :]
        shares = _ratio(shares, shares.sum(axis=-1, keepdims=True))
        points = np.arange(self.n_points)
        delta: FloatArray = np.einsum(
            "...k,kl,...l->...", shares[..., 0, :], np.sign(points[:, None] - points), shares[..., 1, :]
        )
        return delta

    def rate(self, totals: FloatArray, pair: int, credit: tuple[float, float, float]) -> FloatArray:
        outcomes = self.outcomes(totals)[..., pair, :]
        return _ratio(outcomes @ np.array(credit), outcomes.sum(axis=-1))

    def ranks(self, totals: FloatArray) -> FloatArray:
        """Shape (..., K): 1 + systems with a higher mean; NaN where a system was not rated."""
        scores = self.scores(totals)
        means = np.round(_ratio(scores[..., 0], scores[..., 1]), DECIMALS)
        ranks = 1.0 + np.count_nonzero(means[..., None, :] > means[..., :, None], axis=-1)
        return np.where(np.isnan(means), np.nan, ranks)


def _sums(grid: RatingGrid) -> _Sums:
    means_IK = grid.means
    columns = [np.stack([np.nan_to_num(means_IK), ~np.isnan(means_IK)], axis=2)]
    points_IKQ = (grid.ratings[..., None] == grid.scale.values).sum(axis=2).astype(np.float64)
    shares_IKQ = np.nan_to_num(_ratio(points_IKQ, points_IKQ.sum(axis=2, keepdims=True)))
    first, second = (list(side) for side in zip(*grid.pairs, strict=True))
    difference_IP = means_IK[:, first] - means_IK[:, second]
    is_shared_IP = ~np.isnan(difference_IP)
    difference_IP = np.where(np.abs(difference_IP) < 10.0**-DECIMALS, 0.0, np.nan_to_num(difference_IP))
    columns += [np.stack([difference_IP, is_shared_IP], axis=2)]
    columns += [np.stack([shares_IKQ[:, first], shares_IKQ[:, second]], axis=2) * is_shared_IP[:, :, None, None]]
    gap_IPR = grid.ratings[:, first] - grid.ratings[:, second]
    outcomes_IP3 = np.stack([(gap_IPR > 0).sum(axis=2), (gap_IPR == 0).sum(axis=2), (gap_IPR < 0).sum(axis=2)], axis=2)
    n_both_IP1 = outcomes_IP3.sum(axis=2, keepdims=True).astype(np.float64)
    columns += [np.nan_to_num(_ratio(outcomes_IP3.astype(np.float64), n_both_IP1))]
    flat = [block.astype(np.float64).reshape(len(means_IK), -1) for block in columns]
    return _Sums(np.hstack(flat), len(grid.systems), len(first), len(grid.scale.points))


# Everything about one dimension.


def compare_all(
    table: RatingTable,
    dimension: str,
    *,
    by: Sequence[str] = (),
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    n_flips: int = N_FLIPS,
    confidence: float = 0.95,
    kind: Kind = "bca",
) -> list[ResultRow]:
    """Every pair of systems, every system's place, and whether they differ at all; within each stratum of `by`.

    For each pair, detail {"systems": "A, B"}, sorted by name, A minus B and wins of A:
    mean_difference, in points; p_sign_flip, its test; p_holm, that p over all pairs of this dimension and stratum;
    cliffs_delta, -1 … 1, how much more often a rating of A lies above one of B than below, over all items;
    superiority, 0 … 1, how often A gets the higher rating from the same rater on the same item, ties counting half;
    win_rate, tie_rate, loss_rate, its three parts.

    For each system, detail {"system": "A"}: rank, 1 = highest mean, with the range of ranks over resampled dialogues;
    cluster, 1 = best, with a new cluster only where each system above beats each one below at 1 - confidence after
    Holm; strength, see `davidson_strengths`, in log-odds against the mean system.

    For all systems: friedman_chi2 and its p, friedman, over the dialogues where all systems were rated.

    Hidden repeats are left out. Source of clusters: Bojar et al. (2016), Findings of WMT16; Cliff (1993), Dominance
    Statistics; Friedman (1937), corrected for ties.
    """
    rows: list[ResultRow] = []
    for stratum, part in table.strata(by):
        matrix = part.matrix(dimension)
        comparison = _Comparison(
            dimension=dimension,
            stratum=stratum,
            matrix=matrix,
            grid=rating_grid(matrix),
            data=part.of_dimension(dimension).content_hash(),
            seed=seed,
            n_bootstrap=n_bootstrap,
            n_flips=n_flips,
            confidence=confidence,
            kind=kind,
        )
        rows += comparison.rows()
    return rows


class _Pair(NamedTuple):
    """Two systems and what the test said of them; None where it could not be made."""

    label: str
    gain: float
    p_holm: float | None


@dataclass(frozen=True)
class _Comparison:
    """One dimension in one stratum, and how its numbers are to be made."""

    dimension: str
    stratum: Mapping[str, str]
    matrix: RatingMatrix
    grid: RatingGrid
    data: str
    seed: int
    n_bootstrap: int
    n_flips: int
    confidence: float
    kind: Kind

    def rows(self) -> list[ResultRow]:
        if len(self.grid.systems) < 2:
            reason: Reason = "one_system" if self.grid.systems else "no_ratings"
            counts = matrix_counts(self.matrix)
            return [self._undefined(metric, {}, counts, reason) for metric in ("friedman_chi2", "friedman")]
        sums = _sums(self.grid)
        sums_CS = cluster_sums(sums.sums_IS, self.grid.clusters)
        rng = stratum_rng(self.seed, "comparison", self.dimension, self.stratum)
        resamples = resample(sums_CS, rng=rng, n_bootstrap=self.n_bootstrap)
        pairs, tests = self._tests(sums.differences(sums_CS))
        rows = []
        for place in range(len(pairs)):
            rows += [*self._pair_rows(place, pairs[place].label, sums, resamples), *tests[place]]
        return [*rows, *self._system_rows(pairs, sums, resamples), *self._friedman()]

    @property
    def _test(self) -> dict[str, object]:
        return {"test": "sign-flip-by-cluster", "sides": 2, "n_flips": self.n_flips, "exact_up_to": MOST_EXACT}

    def _tests(self, differences_CP2: FloatArray) -> tuple[list[_Pair], list[list[ResultRow]]]:
        """Every pair, and its rows p_sign_flip and p_holm."""
        rng = stratum_rng(self.seed, "sign_flip", self.dimension, self.stratum)
        flips = sign_flip(differences_CP2[:, :, 0], rng=rng, n_flips=self.n_flips)
        n_clusters_P = np.count_nonzero(differences_CP2[:, :, 1], axis=0)
        is_tested_P = n_clusters_P >= 2
        adjusted = iter(holm([flip.p for flip, is_tested in zip(flips, is_tested_P, strict=True) if is_tested]))
        n_family = int(is_tested_P.sum())
        pairs, rows = [], []
        for place, (flip, (first, second)) in enumerate(zip(flips, self.grid.pairs, strict=True)):
            label = f"{self.grid.systems[first]}, {self.grid.systems[second]}"
            detail, n = {"systems": label}, self._pair_counts(place)
            family = HOLM | {"n_family": n_family}
            gain = float(differences_CP2[:, place, 0].sum())
            if not is_tested_P[place]:
                reason: Reason = "one_dialogue" if n_clusters_P[place] else "no_shared_items"
                rows.append([self._undefined(metric, detail, n, reason) for metric in ("p_sign_flip", "p_holm")])
                pairs.append(_Pair(label, gain, None))
                continue
            n |= {"trials": flip.n_trials}
            p_holm = float(next(adjusted))
            rows.append(
                [
                    self._plain("p_sign_flip", detail, flip.p, n, flip.method, self._test),
                    self._plain(
                        "p_holm", detail, p_holm, n, f"{flip.method}; Holm over {n_family}", self._test | family
                    ),
                ]
            )
            pairs.append(_Pair(label, gain, p_holm))
        return pairs, rows

    def _pair_rows(self, place: int, label: str, sums: _Sums, resamples: Resamples) -> list[ResultRow]:
        statistics: dict[str, Statistic] = {
            "mean_difference": partial(sums.mean_difference, pair=place),
            "cliffs_delta": partial(sums.cliffs_delta, pair=place),
            "superiority": partial(sums.rate, pair=place, credit=(1, 0.5, 0)),
            "win_rate": partial(sums.rate, pair=place, credit=(1, 0, 0)),
            "tie_rate": partial(sums.rate, pair=place, credit=(0, 1, 0)),
            "loss_rate": partial(sums.rate, pair=place, credit=(0, 0, 1)),
        }
        detail = {"systems": label}
        of_pair, of_raters = self._pair_counts(place), self._pair_counts(place, same_rater=True)

        def values(totals: FloatArray) -> FloatArray:
            return np.stack([statistic(totals) for statistic in statistics.values()], axis=-1)

        intervals = bootstrap_intervals(resamples, values, confidence=self.confidence, kind=self.kind)
        rows = []
        for metric, interval in zip(statistics, intervals, strict=True):
            n = of_pair if metric in ("mean_difference", "cliffs_delta") else of_raters
            if np.isfinite(interval.value):
                rows.append(self._row(metric, detail, n, _of_these(interval, n["clusters"])))
            else:
                rows.append(self._undefined(metric, detail, n, "no_shared_items"))
        return rows

    def _system_rows(self, pairs: Sequence[_Pair], sums: _Sums, resamples: Resamples) -> list[ResultRow]:
        ranks = sums.ranks(resamples.totals)
        ranks_K, ranks_BK = ranks[0], ranks[1:]
        clusters = _significance_clusters(ranks_K, self.grid.pairs, pairs, alpha=1 - self.confidence)
        strengths = self._strengths(sums, resamples)
        notes = ("unequal_items",) if np.isnan(self.grid.means).any() else ()
        n = matrix_counts(self.matrix)
        rows = []
        for place, system in enumerate(self.grid.systems):
            detail = {"system": system}
            interval = self._rank_range(ranks_BK[:, place], resamples.n_clusters)
            interval = interval._replace(notes=(*interval.notes, *notes), value=float(ranks_K[place]))
            rows.append(self._row("rank", detail, n, interval))
            method = f"significance clusters at {1 - self.confidence:g} after Holm"
            settings = self._test | HOLM | {"confidence": self.confidence}
            rows.append(self._plain("cluster", detail, float(clusters[place]), n, method, settings, notes))
            rows.append(strengths[place])
        return rows

    def _rank_range(self, ranks_B: FloatArray, n_clusters: int) -> Interval:
        """Quantiles that are ranks. That all resamples agree is a result here, so the range may be a single rank."""
        if n_clusters < 2:
            return Interval(None, None, NO_INTERVAL, 0, ("one_cluster",))
        defined = ranks_B[np.isfinite(ranks_B)]
        n_undefined = len(ranks_B) - len(defined)
        notes = (*(("undefined_resamples",) if n_undefined else ()), *_few(n_clusters))
        tails = [(1 - self.confidence) / 2, (1 + self.confidence) / 2]
        low, high = np.quantile(defined, tails, method="inverted_cdf")
        method = f"rank range, bootstrap by cluster, {len(ranks_B)} resamples, {100 * self.confidence:g}%"
        return Interval(float(low), float(high), method, n_undefined, notes)

    def _strengths(self, sums: _Sums, resamples: Resamples) -> list[ResultRow]:
        grid = self.grid

        def fitted(totals: FloatArray) -> FloatArray:
            return davidson_strengths(sums.outcomes(totals), grid.pairs, len(grid.systems))

        intervals = bootstrap_intervals(resamples, fitted, confidence=self.confidence)
        counts, reason = matrix_counts(self.matrix), self._no_strength(sums.outcomes(resamples.observed_S))
        rows = []
        for system, interval in zip(grid.systems, intervals, strict=True):
            detail = {"system": system}
            if np.isfinite(interval.value):
                interval = _of_these(interval, counts["clusters"])
                rows.append(self._row("strength", detail, counts, interval, kind="percentile"))
            else:
                rows.append(self._undefined("strength", detail, counts, reason))
        return rows

    def _no_strength(self, outcomes_P3: FloatArray) -> Reason:
        """Why there are no strengths, should there be none."""
        if not is_connected(outcomes_P3.sum(axis=1)[None], self.grid.pairs, len(self.grid.systems)).all():
            return "no_shared_items"
        return "separation" if outcomes_P3[:, [0, 2]].any() else "no_variation"

    def _friedman(self) -> list[ResultRow]:
        """The omnibus test: do the systems differ at all? Blocks are dialogues."""
        means_IK = self.grid.means
        rated = np.stack([np.nan_to_num(means_IK), ~np.isnan(means_IK)], axis=2).reshape(len(means_IK), -1)
        sums_CK2 = cluster_sums(rated, self.grid.clusters).reshape(-1, len(self.grid.systems), 2)
        means_CK = _ratio(sums_CK2[..., 0], sums_CK2[..., 1])
        blocks = means_CK[~np.isnan(means_CK).any(axis=1)]
        n = matrix_counts(self.matrix) | {"blocks": len(blocks)}
        metrics = ("friedman_chi2", "friedman")
        reason: Reason | None = None
        if len(blocks) < 2:
            reason = "one_dialogue" if len(blocks) else "no_shared_items"
        elif not np.ptp(np.round(blocks, DECIMALS), axis=1).any():
            reason = "no_variation"
        if reason is not None:
            return [self._undefined(metric, {}, n, reason) for metric in metrics]
        chi2 = friedman_chi2(blocks)
        p = float(stats.chi2.sf(chi2, len(self.grid.systems) - 1))
        method = f"Friedman over clusters, corrected for ties, {len(self.grid.systems) - 1} degrees of freedom"
        return [self._plain(metric, {}, value, n, method, {}) for metric, value in zip(metrics, (chi2, p), strict=True)]

    # Rows.

    def _pair_counts(self, place: int, *, same_rater: bool = False) -> dict[str, int]:
        """What a number about two systems rests on; same_rater: only where one rater rated both."""
        first, second = self.grid.pairs[place]
        is_rated_2IR = ~np.isnan(self.grid.ratings[:, [first, second]]).transpose(1, 0, 2)
        if same_rater:
            is_rated_2IR = np.stack([is_rated_2IR.all(axis=0)] * 2)
        is_shared_I = is_rated_2IR[0].any(axis=1) & is_rated_2IR[1].any(axis=1)
        is_used = is_rated_2IR[:, is_shared_I]
        return {
            "items": int(is_shared_I.sum()),
            "ratings": int(is_used.sum()),
            "raters": int(is_used.any(axis=(0, 1)).sum()),
            "clusters": len(np.unique(self.grid.clusters[is_shared_I])),
        }

    def _row(
        self,
        metric: str,
        detail: Mapping[str, str],
        counts: Mapping[str, int],
        interval: Interval,
        kind: Kind | None = None,
    ) -> ResultRow:
        settings = interval_settings(
            seed=self.seed,
            n_bootstrap=self.n_bootstrap,
            confidence=self.confidence,
            kind=kind or self.kind,
            data=self.data,
            stratum=self.stratum,
        )
        if metric == "rank":
            settings["interval"] = "rank-range-by-cluster"
        n = {**counts, "resamples": self.n_bootstrap, "undefined_resamples": interval.n_undefined}
        signature = self._signature(metric, detail, settings)
        low, high, method, _, notes, value = interval
        estimate = Estimate(value, low, high, n, method, signature, None, notes)
        return ResultRow(metric, self.dimension, estimate, self.stratum, detail)

    def _plain(
        self,
        metric: str,
        detail: Mapping[str, str],
        value: float,
        counts: Mapping[str, int],
        method: str,
        settings: Mapping[str, object],
        notes: tuple[str, ...] = (),
    ) -> ResultRow:
        """A number that has no interval: a p-value, a statistic, a cluster."""
        signature = self._signature(metric, detail, self._without_interval() | dict(settings))
        estimate = Estimate(value, None, None, counts, method, signature, None, notes)
        return ResultRow(metric, self.dimension, estimate, self.stratum, detail)

    def _undefined(
        self, metric: str, detail: Mapping[str, str], counts: Mapping[str, int], reason: Reason
    ) -> ResultRow:
        signature = self._signature(metric, detail, self._without_interval())
        estimate = Estimate(None, None, None, counts, NO_INTERVAL, signature, reason)
        return ResultRow(metric, self.dimension, estimate, self.stratum, detail)

    def _without_interval(self) -> dict[str, object]:
        return {
            "stratum": stratum_label(self.stratum),
            "seed": self.seed,
            "numpy": np.__version__,
            "data": self.data,
        }

    def _signature(self, metric: str, detail: Mapping[str, str], settings: Mapping[str, object]) -> str:
        parts = {"dimension": self.dimension, "scale": self.grid.scale, **detail, "average": "raters-then-items"}
        return str(Signature.of(metric, VERSION, **parts, **settings))


def _of_these(interval: Interval, n_clusters: int) -> Interval:
    """The interval of a number that so many dialogues carry: not always all that were rated."""
    if n_clusters < 2:
        return interval._replace(low=None, high=None, method=NO_INTERVAL, notes=("one_cluster",))
    if n_clusters < FEW_CLUSTERS and interval.low is not None and "few_clusters" not in interval.notes:
        return interval._replace(notes=(*interval.notes, "few_clusters"))
    return interval


def _few(n_clusters: int) -> tuple[str, ...]:
    return ("few_clusters",) if n_clusters < FEW_CLUSTERS else ()


def friedman_chi2(scores: FloatArray) -> float:
    """Friedman's statistic with the correction for ties; chi-squared with n_systems - 1 degrees of freedom.

    scores: shape (n_blocks, n_systems), complete, not all alike in every block.
    """
    ranks = stats.rankdata(np.round(scores, DECIMALS), axis=1)
    n_blocks, n_systems = ranks.shape
    middle = (n_systems + 1) / 2
    between = float(((ranks.sum(axis=0) - n_blocks * middle) ** 2).sum())
    return float((n_systems - 1) * between / ((ranks - middle) ** 2).sum())


def _significance_clusters(
    ranks: FloatArray, pairs: Sequence[tuple[int, int]], tests: Sequence[_Pair], *, alpha: float
) -> IntArray:
    """The cluster of each system, 1 = best, shape (K,).

    A line is drawn only where every system above it is ahead of every one below it, with an adjusted p under alpha.
    """
    n_systems = len(ranks)
    beats = np.zeros((n_systems, n_systems), dtype=np.bool_)
    for (first, second), test in zip(pairs, tests, strict=True):
        if test.p_holm is not None and test.p_holm < alpha:
            beats[(first, second) if test.gain > 0 else (second, first)] = True
    order = np.argsort(ranks, kind="stable")
    lines = [beats[np.ix_(order[:cut], order[cut:])].all() for cut in range(1, n_systems)]
    clusters = np.empty(n_systems, dtype=np.int64)
    clusters[order] = 1 + np.concatenate([[0], np.cumsum(lines)])
    return clusters
