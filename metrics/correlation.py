"""Automatic scores against human ratings: does a metric see what raters see?

Two questions, two levels. Within a dialogue: does the metric order the systems' responses as the raters do? Kendall's
tau-b and tie-calibrated pairwise accuracy, dialogue by dialogue, never pooled: some dialogues are easier for everyone,
and pooling would credit the metric with knowing that. Over all dialogues: does it order the systems? With a handful
of systems no correlation coefficient is worth printing, so pairs of systems are counted, and compared by p-value.

Three things stand beside each number. The ceiling: how well the mean of these raters could be matched at all. The
human score: how well each rater matches the mean of the others. The sentinel: response length, given as a metric
like any other; a metric that does not beat it has measured length.

Shapes: I = items, K = systems, P = pairs of systems, C = clusters (dialogues), N = valid pairs of responses.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from metrics.agreement import icc_coefficient
from metrics.clustered import Quantity, Resampling, clustered_rows, plain_row, ratio
from metrics.comparison import RatingGrid, rating_grid
from metrics.intervals import N_BOOTSTRAP, NO_INTERVAL, cluster_sums, stratum_label, stratum_rng
from metrics.results import Reason, ResultRow, Signature
from metrics.significance import N_FLIPS, sign_flip
from metrics.table import BoolArray, FloatArray, IntArray, RatingTable

VERSION = 2
N_FOLDS = 5
TIE = 1e-9  # mean ratings that differ by less are tied


def correlate_all(
    table: RatingTable,
    dimension: str,
    scores: pd.DataFrame,
    *,
    by: Sequence[str] = (),
    lower_is_better: Collection[str] = (),
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    n_flips: int = N_FLIPS,
    confidence: float = 0.95,
) -> list[ResultRow]:
    """Every metric against the mean of the raters on one dimension, within each stratum of `by`.

    scores: one row per response, with columns item, system and one per metric; a missing score leaves the response
        out for that metric. Responses without a rating are ignored. Give response length as a metric, too.
    lower_is_better: metrics whose sign is to be turned.

    For each metric, detail {"metric": name}: item_tau_b, mean over items of Kendall's tau-b over the systems, where
    both sides vary; item_pairwise_accuracy, 0 … 1, the share of pairs within an item that come out as the raters have
    them, ties included, with tie_epsilon as the largest difference of the metric that counts as a tie: chosen on the
    other dialogues for the accuracy, on all of them for the row; system_pairwise_accuracy, 0 … 1, the share of pairs
    of systems in the raters' order; soft_pairwise_accuracy, 0 … 1, the mean of 1 - |p - p'| over pairs of systems, p
    and p' the one-sided sign-flip p-values of metric and raters.

    For each rater, detail {"rater": name}, and for all together: human_tau_b and human_pairwise_accuracy, the rater
    against the mean of the others, without calibration since both use the same points.

    For each pair of metrics, detail {"metrics": "a, b"}, on items where both are defined: tau_b_difference and
    accuracy_difference, a minus b, and p_tau_b_difference and p_accuracy_difference, two-sided, from exchanging the
    two metrics within dialogues.

    reliability_ceiling: the square root of ICC(2,k), which no correlation over all responses with the mean of the
    raters exceeds in expectation; within dialogues, where systems alone differ, the bound is lower.

    Intervals are percentile, by dialogue; for the accuracies they take the calibration as given.
    Raises ValueError, naming the place, if columns are missing, a response has two rows, or a score is no number.

    Source: Deutsch, Foster & Freitag (2023), Ties Matter; Kocmi et al. (2021), To Ship or Not to Ship; Thompson et
    al. (2024), Improving Statistical Significance in Human Evaluation of Automatic Metrics via Soft Pairwise Accuracy;
    Deutsch, Dror & Roth (2021), A Statistical Analysis of Summarization Evaluation Metrics Using Resampling Methods.
    """
    checked = _checked(scores, lower_is_better)
    rows: list[ResultRow] = []
    for stratum, part in table.strata(by):
        matrix = part.matrix(dimension)
        side_by_side = _SideBySide(
            dimension=dimension,
            stratum=stratum,
            grid=rating_grid(matrix),
            scores=checked,
            data=part.of_dimension(dimension).content_hash(),
            how=Resampling(seed, n_bootstrap, confidence),
            n_flips=n_flips,
        )
        ceiling = side_by_side.ceiling(matrix.ratings, matrix.clusters)
        rows += [*side_by_side.rows(), ceiling]
    return rows


def _checked(scores: pd.DataFrame, lower_is_better: Collection[str]) -> pd.DataFrame:
    """One row per response, item and system as index; higher is better in every column."""
    if absent := [name for name in ("item", "system") if name not in scores.columns]:
        raise ValueError(f"scores: missing columns: {', '.join(absent)}")
    metrics = [str(name) for name in scores.columns if name not in ("item", "system")]
    if not metrics:
        raise ValueError("scores: there is no column beside item and system; each metric needs one")
    if unknown := sorted(set(lower_is_better) - set(metrics)):
        raise ValueError(f"scores: lower_is_better names {', '.join(unknown)}; the metrics are {', '.join(metrics)}")
    frame = scores.astype({"item": str, "system": str}).set_axis([str(name) for name in scores.columns], axis=1)
    twice = frame.duplicated(["item", "system"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise ValueError(f"scores, row {frame.index[twice][0]}: item {row['item']}, system {row['system']} comes twice")
    for metric in metrics:
        numbers = pd.to_numeric(frame[metric], errors="coerce").astype(np.float64)
        odd = (numbers.isna() & frame[metric].notna()) | np.isinf(numbers)
        if odd.any():
            found = frame[metric][odd].iloc[0]
            raise ValueError(f"scores, row {frame.index[odd][0]}: {metric} is {found}; leave a missing score empty")
        frame[metric] = -numbers if metric in lower_is_better else numbers
    return frame.set_index(["item", "system"])[metrics].sort_index()


def _scores_hash(scores: pd.DataFrame) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the scores; their order changes nothing."""
    return hashlib.sha256(scores.to_csv(float_format="%.12g", lineterminator="\n").encode()).hexdigest()[:12]


# Two ways of ordering the responses to one item.


@dataclass(frozen=True)
class _Orders:
    """Every pair of responses to one item, as raters and as a metric (or another rater) see it.

    human, gap: shape (I, P), first minus second; human differences below TIE are exactly 0.
    is_valid: shape (I, P), both responses have both values; elsewhere human and gap are 0.
    """

    human: FloatArray
    gap: FloatArray
    is_valid: BoolArray

    @property
    def is_right(self) -> BoolArray:
        """Same order or both tied, ties of the metric being exact; shape (I, P)."""
        right: BoolArray = np.sign(self.human) == np.sign(self.gap)
        return right

    def tau_b(self) -> FloatArray:
        """Kendall's tau-b of each item, shape (I,); NaN where one side has nothing but ties.

        Source: Kendall (1945), The Treatment of Ties in Ranking Problems.
        """
        human, gap = np.sign(self.human), np.sign(self.gap)
        norm = np.sqrt((human**2).sum(axis=1) * (gap**2).sum(axis=1))
        tau: FloatArray = (human * gap).sum(axis=1) / np.where(norm > 0, norm, np.nan)
        return tau

    def accuracy(self, epsilon_I1: FloatArray | float = 0.0) -> FloatArray:
        """Share of an item's pairs that are right if gaps up to epsilon are ties, shape (I,); NaN without a pair."""
        right = np.where(np.abs(self.gap) <= epsilon_I1, self.human == 0, self.is_right)
        return ratio(np.stack([(right & self.is_valid).sum(axis=1), self.is_valid.sum(axis=1)], axis=1).astype(float))


def _orders(human_IK: FloatArray, scores_IK: FloatArray) -> _Orders:
    first, second = (list(side) for side in zip(*combinations(range(human_IK.shape[1]), 2), strict=True))
    human, gap = (values[:, first] - values[:, second] for values in (human_IK, scores_IK))
    is_valid = ~(np.isnan(human) | np.isnan(gap))
    human = np.where(is_valid & (np.abs(human) > TIE), human, 0.0)
    return _Orders(human, np.where(is_valid, gap, 0.0), is_valid)


def tie_epsilon(gap: FloatArray, human: FloatArray, weights: FloatArray) -> float:
    """The smallest epsilon with the most pairs right when gaps up to it are ties; 0 or one of the absolute gaps.

    gap, human: shape (N,), differences of the metric and of the raters;  weights: shape (N,), of each pair.
    Source: Deutsch, Foster & Freitag (2023), section 5.
    """
    order = np.argsort(np.abs(gap), kind="stable")
    size, is_tie, is_right = np.abs(gap)[order], human[order] == 0, (np.sign(human) == np.sign(gap))[order]
    gains = np.cumsum(weights[order] * (is_tie.astype(np.float64) - is_right))
    is_last = np.append(size[1:] > size[:-1], True)[: len(size)]  # a threshold takes in all gaps of its size
    sizes, gains = np.append(0.0, size[is_last]), np.append(0.0, gains[is_last])
    return float(sizes[np.argmax(gains > gains.max() - TIE)])


def _calibrated(orders: _Orders, clusters_I: IntArray, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Accuracy of each item, epsilon chosen on the other folds of dialogues; and epsilon chosen on all."""
    n_clusters = int(clusters_I.max(initial=-1)) + 1
    fold_I = (rng.permutation(n_clusters) % min(N_FOLDS, n_clusters))[clusters_I]
    weights_IP = orders.is_valid / np.maximum(orders.is_valid.sum(axis=1, keepdims=True), 1)

    def best(is_used_I: BoolArray) -> float:
        kept = orders.is_valid & is_used_I[:, None]
        return tie_epsilon(orders.gap[kept], orders.human[kept], weights_IP[kept])

    epsilon_I = np.zeros(len(clusters_I))
    for fold in range(min(N_FOLDS, n_clusters)):
        epsilon_I[fold_I == fold] = best(fold_I != fold)
    return orders.accuracy(epsilon_I[:, None]), best(np.ones(len(clusters_I), dtype=np.bool_))


# All rows of one stratum.


@dataclass(frozen=True)
class _Judged:
    """What one metric (or rater) makes of each item, shape (I,) each; NaN = undefined."""

    tau_b: FloatArray
    accuracy: FloatArray


@dataclass(frozen=True)
class _SideBySide:
    """One dimension in one stratum, beside the scores of the same responses."""

    dimension: str
    stratum: Mapping[str, str]
    grid: RatingGrid
    scores: pd.DataFrame
    data: str
    how: Resampling
    n_flips: int

    def rows(self) -> list[ResultRow]:
        metrics = [str(metric) for metric in self.scores.columns]
        if len(self.grid.systems) < 2:
            reason: Reason = "one_system" if self.grid.systems else "no_ratings"
            return [self._plain("item_tau_b", None, {"metric": metric}, {}, reason=reason) for metric in metrics]
        aligned = self.scores.reindex(pd.MultiIndex.from_product([self.grid.items, self.grid.systems]))
        shape = len(self.grid.items), len(self.grid.systems)
        quantities: list[Quantity] = []
        plain: list[ResultRow] = []
        judged: dict[str, _Judged] = {}
        for metric in metrics:
            orders = _orders(self.grid.means, aligned[metric].to_numpy().reshape(shape))
            rng = stratum_rng(self.how.seed, "folds", self.dimension, self.stratum)
            accuracy, epsilon = _calibrated(orders, self.grid.clusters, rng)
            detail = {"metric": metric}
            source = {"scores": _scores_hash(self.scores[[metric]])}
            if self._n_clusters(~np.isnan(accuracy)) < 2:  # nothing to choose epsilon on but the answer itself
                accuracy = np.full_like(accuracy, np.nan)
            judged[metric] = _Judged(orders.tau_b(), accuracy)
            quantities += [
                self._mean("item_tau_b", judged[metric].tau_b, detail, self._no_tau(orders), source),
                self._mean(
                    "item_pairwise_accuracy", accuracy, detail, self._no_pair(orders), source | {"folds": str(N_FOLDS)}
                ),
                self._system_accuracy(orders, detail, source),
            ]
            plain += [self._epsilon(orders, epsilon, detail, source), self._soft_accuracy(orders, detail, source)]
        quantities += self._human()
        for one, other in combinations(metrics, 2):
            source = {"scores": _scores_hash(self.scores[[one, other]])}
            detail = {"metrics": f"{one}, {other}"}
            differences, p_values = self._difference(judged[one], judged[other], detail, source)
            quantities += differences
            plain += p_values
        estimated = clustered_rows(
            quantities, self.grid.clusters, dimension=self.dimension, family=f"correlation {self._label}",
            version=VERSION, data=self.data, how=self.how,
        )  # fmt: skip
        return [*estimated, *plain]

    def ceiling(self, ratings: FloatArray, clusters: IntArray) -> ResultRow:
        """The row reliability_ceiling; an ICC below 0 counts as 0."""
        icc = icc_coefficient(ratings, self.grid.scale, of_mean=True)
        n = {"responses": int(icc.used.sum()), "raters": ratings.shape[1], "clusters": len(np.unique(clusters))}
        if icc.reason is not None:
            return self._plain("reliability_ceiling", None, {}, n, reason=icc.reason)
        quantity = Quantity(
            "reliability_ceiling",
            icc.sums,
            lambda totals: np.sqrt(np.maximum(icc.value(totals), 0)),
            n,
            "zero_denominator",
            self.stratum,
        )
        [row] = clustered_rows(
            [quantity], clusters, dimension=self.dimension, family=f"ceiling {self._label}", version=VERSION,
            data=self.data, how=self.how,
        )  # fmt: skip
        return row

    @property
    def _label(self) -> str:
        return stratum_label(self.stratum)

    def _n_clusters(self, is_used_I: BoolArray) -> int:
        return len(np.unique(self.grid.clusters[is_used_I]))

    def _mean(
        self,
        metric: str,
        values_I: FloatArray,
        detail: Mapping[str, str],
        undefined: Reason,
        settings: Mapping[str, object],
    ) -> Quantity:
        """The mean over the items where it is defined."""
        is_defined = ~np.isnan(values_I)
        sums = np.column_stack([np.nan_to_num(values_I), is_defined])
        n = {"items": int(is_defined.sum()), "clusters": self._n_clusters(is_defined)}
        return Quantity(metric, sums, ratio, n, undefined, self.stratum, detail, settings)

    def _no_pair(self, orders: _Orders) -> Reason:
        """Why a number about pairs of responses is undefined, should it be."""
        return "one_dialogue" if orders.is_valid.any() else "no_scores"

    def _no_tau(self, orders: _Orders) -> Reason:
        return "no_variation" if orders.is_valid.any() else "no_scores"

    def _system_accuracy(self, orders: _Orders, detail: Mapping[str, str], source: Mapping[str, str]) -> Quantity:
        n_pairs = orders.gap.shape[1]
        largest = np.abs(orders.gap).max(initial=0) or 1.0
        sums = np.hstack([orders.human, orders.gap / largest, orders.is_valid])
        n = {"pairs": int(orders.is_valid.any(axis=0).sum()), **self._pair_counts(orders)}
        value = partial(_share_in_order, n_pairs=n_pairs)
        return Quantity("system_pairwise_accuracy", sums, value, n, "no_scores", self.stratum, detail, source)

    def _soft_accuracy(self, orders: _Orders, detail: Mapping[str, str], source: Mapping[str, str]) -> ResultRow:
        sums_CS = cluster_sums(np.hstack([orders.human, orders.gap, orders.is_valid]), self.grid.clusters)
        human_CP, gap_CP, valid_CP = np.split(sums_CS, 3, axis=1)
        is_tested_P = np.count_nonzero(valid_CP, axis=0) >= 2
        n = {"pairs": int(is_tested_P.sum()), **self._pair_counts(orders)}
        if not is_tested_P.any():
            return self._plain("soft_pairwise_accuracy", None, detail, n, reason=self._no_pair(orders))
        rng = stratum_rng(self.how.seed, "sign_flip", self.dimension, self.stratum)
        flips = sign_flip(np.hstack([human_CP, gap_CP])[:, np.tile(is_tested_P, 2)], rng=rng, n_flips=self.n_flips)
        human_p, metric_p = np.split(np.array([flip.p_greater for flip in flips]), 2)
        value = float(1 - np.abs(human_p - metric_p).mean())
        settings = {"test": "sign-flip-by-cluster", "sides": 1, "n_flips": self.n_flips, **source}
        return self._plain("soft_pairwise_accuracy", value, detail, n, settings=settings)

    def _epsilon(
        self, orders: _Orders, epsilon: float, detail: Mapping[str, str], source: Mapping[str, str]
    ) -> ResultRow:
        n = self._pair_counts(orders)
        if not orders.is_valid.any():
            return self._plain("tie_epsilon", None, detail, n, reason="no_scores")
        return self._plain("tie_epsilon", epsilon, detail, n, settings=source)

    def _pair_counts(self, orders: _Orders) -> dict[str, int]:
        is_used = np.count_nonzero(orders.is_valid, axis=1) > 0
        return {"items": int(is_used.sum()), "clusters": self._n_clusters(is_used)}

    def _human(self) -> list[Quantity]:
        """Each rater against the mean of the others, and all raters together."""
        n_raters = len(self.grid.raters)
        found: list[_Judged] = []
        quantities: list[Quantity] = []
        for place, rater in enumerate(self.grid.raters):
            others = np.delete(self.grid.ratings, place, axis=2)
            orders = _orders(self.grid._replace(ratings=others).means, self.grid.ratings[:, :, place])
            found.append(_Judged(orders.tau_b(), orders.accuracy()))
            reason: Reason = "no_variation" if orders.is_valid.any() else "no_overlap"
            if n_raters > 1:
                quantities += self._human_pair(found[-1:], {"rater": rater}, reason)
        return quantities + self._human_pair(found, {}, "one_rater" if n_raters < 2 else "no_overlap")

    def _human_pair(self, found: Sequence[_Judged], detail: Mapping[str, str], undefined: Reason) -> list[Quantity]:
        parts = {
            "human_tau_b": [one.tau_b for one in found],
            "human_pairwise_accuracy": [one.accuracy for one in found],
        }
        quantities = []
        for metric, values in parts.items():
            values_RI = np.array(values)
            is_defined = ~np.isnan(values_RI)
            sums = np.column_stack([np.nan_to_num(values_RI).sum(axis=0), is_defined.sum(axis=0)])
            is_used = np.count_nonzero(is_defined, axis=0) > 0
            n = {"items": int(is_used.sum()), "clusters": self._n_clusters(is_used), "raters": len(found)}
            quantities.append(Quantity(metric, sums, ratio, n, undefined, self.stratum, detail))
        return quantities

    def _difference(
        self, one: _Judged, other: _Judged, detail: Mapping[str, str], source: Mapping[str, str]
    ) -> tuple[list[Quantity], list[ResultRow]]:
        quantities, p_values = [], []
        for name, gain_I in (("tau_b", one.tau_b - other.tau_b), ("accuracy", one.accuracy - other.accuracy)):
            quantity = self._mean(f"{name}_difference", gain_I, detail, "no_scores", source)
            quantities.append(quantity)
            n = quantity.n
            if n["clusters"] < 2:
                reason: Reason = "one_dialogue" if n["clusters"] else "no_scores"
                p_values.append(self._plain(f"p_{name}_difference", None, detail, n, reason=reason))
                continue
            rng = stratum_rng(self.how.seed, "sign_flip", self.dimension, self.stratum)
            gains_C1 = cluster_sums(quantity.sums_NS[:, :1], self.grid.clusters)
            [flip] = sign_flip(gains_C1, rng=rng, n_flips=self.n_flips)
            settings = {"test": "sign-flip-by-cluster", "sides": 2, "n_flips": self.n_flips, **source}
            n = {**n, "trials": flip.n_trials}
            p_values.append(self._plain(f"p_{name}_difference", flip.p, detail, n, flip.method, settings))
        return quantities, p_values

    def _plain(
        self,
        metric: str,
        value: float | None,
        detail: Mapping[str, str],
        n: Mapping[str, int],
        method: str = NO_INTERVAL,
        settings: Mapping[str, object] | None = None,
        reason: Reason | None = None,
    ) -> ResultRow:
        parts = {"dimension": self.dimension, **detail, "stratum": self._label, **(settings or {})}
        parts |= {"seed": self.how.seed, "numpy": np.__version__, "data": self.data}
        return plain_row(
            metric, value, dimension=self.dimension, n=n, method=method,
            signature=Signature.of(metric, VERSION, **parts), reason=reason, stratum=self.stratum, detail=detail,
        )  # fmt: skip


def _share_in_order(totals: FloatArray, n_pairs: int) -> FloatArray:
    """Share of pairs of systems with the same sign on both sides, shape (...); NaN without a pair."""
    human, gap, n = (totals[..., start * n_pairs : (start + 1) * n_pairs] for start in range(3))
    human, gap = (np.sign(np.where(np.abs(side) > TIE, side, 0.0)) for side in (human, gap))
    is_compared = n > 0
    counts = np.stack([((human == gap) & is_compared).sum(axis=-1), is_compared.sum(axis=-1)], axis=-1)
    return ratio(counts.astype(np.float64))
