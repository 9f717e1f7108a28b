"""A language-model judge as one more rater: how it compares with the people, and kept apart from them.

A judge's ratings live in the same long table, under a name of their own. `split_judges` takes them out; what is left
is what human agreement and human scores rest on, and nothing here ever puts the two together again.

Source: Calderon, Reichart & Dror (ACL 2025), The Alternative Annotator Test for LLM-as-a-Judge.

Shapes: N = responses, R = human raters.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from metrics.clustered import Quantity, Resampling, clustered_rows, plain_row, ratio
from metrics.intervals import N_BOOTSTRAP, NO_INTERVAL, TOLERANCE, Kind
from metrics.panels import agreement_panel
from metrics.results import Reason, ResultRow, Signature
from metrics.table import FloatArray, IntArray, RatingTable

VERSION = 1
ALPHA = 0.05
FEWEST_RATERS = 3
PASSING = 0.5  # share of raters that a judge must beat

Alignment = Literal["rmse", "accuracy"]
Unit = Literal["dialogue", "response"]


def split_judges(table: RatingTable, judges: Collection[str]) -> tuple[RatingTable, RatingTable]:
    """The ratings of people, and those of the judges named. Raises ValueError for a judge who rated nothing."""
    if unknown := sorted(set(judges) - set(table.levels("rater"))):
        raise ValueError(f"no ratings by {', '.join(unknown)}; there are ratings by {', '.join(table.levels('rater'))}")
    frame = table.frame
    is_judge = frame["rater"].isin(set(judges))
    people, machines = (RatingTable(frame[rows].reset_index(drop=True), table.scales) for rows in (~is_judge, is_judge))
    return people, machines


class _Shared(NamedTuple):
    """Responses that the judge and enough people rated. humans_NR: NaN = not rated;  clusters_N: dialogues."""

    judge_N: FloatArray
    humans_NR: FloatArray
    clusters_N: IntArray
    systems_N: npt.NDArray[np.object_]
    raters: tuple[str, ...]


def _shared(human: RatingTable, judge: RatingTable, dimension: str, *, n_humans: int) -> _Shared:
    """The responses that the judge and at least so many people rated."""
    people, machine = human.matrix(dimension), judge.matrix(dimension)
    given = pd.Series(machine.ratings[:, 0] if machine.ratings.size else [], index=machine.responses, dtype=np.float64)
    judge_N = given.reindex(people.responses).to_numpy(dtype=np.float64)
    used = ~np.isnan(judge_N) & (np.count_nonzero(~np.isnan(people.ratings), axis=1) >= n_humans)
    systems_N = np.asarray(people.responses.get_level_values("system"), dtype=object)
    return _Shared(judge_N[used], people.ratings[used], people.clusters[used], systems_N[used], people.raters)


def _only_judge(human: RatingTable, judge: RatingTable, dimension: str) -> str:
    """The judge's name. Raises ValueError unless there is one, apart from the people, on the same scale."""
    names = judge.levels("rater")
    if len(names) != 1:
        raise ValueError(f"one judge at a time, got {len(names)}: {', '.join(names) or 'no ratings'}")
    if names[0] in human.levels("rater"):
        raise ValueError(f"{names[0]} is among the human raters; take judges out with split_judges first")
    if human.scale(dimension) != judge.scale(dimension):
        raise ValueError(f"{dimension}: people rate on {human.scale(dimension)}, the judge on {judge.scale(dimension)}")
    return names[0]


# The alternative annotator test.


@dataclass(frozen=True)
class _Against:
    """The judge beside one left-out rater.

    judge, rater: share of responses on which each is at least as close to the other raters as its rival is.
    p: of the hypothesis that the rater is better by epsilon or more; None if the comparison never varies.
    reason: why what is None is undefined.
    """

    judge: float | None
    rater: float | None
    p: float | None
    n_responses: int
    n_units: int
    reason: Reason


def alternative_annotator_test(
    human: RatingTable,
    judge: RatingTable,
    dimension: str,
    *,
    epsilon: float,
    alignment: Alignment = "rmse",
    unit: Unit = "dialogue",
    alpha: float = ALPHA,
) -> list[ResultRow]:
    """Whether a judge could stand in for a rater drawn at random: it must come closer to the others than most do.

    For each rater left out, each response asks who lies closer to the remaining raters, the judge or the rater; a tie
    counts for both. A paired t-test asks whether the judge wins at least as often, less `epsilon`; its p-values are
    adjusted over raters after Benjamini & Yekutieli (2001).

    epsilon: how much worse a judge may be since it costs less: 0.2 for experts and 0.1 for crowd workers in the paper.
    alignment: "rmse", minus the root mean squared distance to the others (for ordered scales), or "accuracy", the
        share of the others who gave the same point (for scales without order, or of two points).
    unit: "dialogue" averages within a dialogue first, since responses to one dialogue are not independent; "response"
        is the test as published.

    Rows, with the judge in the detail: judge_advantage, rater_advantage, p_alternative_annotator and
    p_alternative_annotator_by per rater left out (stratum); winning_rate, the share of raters whose hypothesis is
    rejected, with the note "judge_passes" from 0.5 on; average_advantage, the mean of judge_advantage over raters.

    Undefined with fewer than three raters ("under_three_raters"), and if people gave nothing but one point
    ("no_variation"), since any judge that repeats that point would pass. A rater whose comparisons never vary has no
    p-value for the same reason, and counts as not beaten.
    Raises ValueError unless 0 <= epsilon < 1 and 0 < alpha < 1, or if there is not exactly one judge.
    """
    if not 0 <= epsilon < 1 or not 0 < alpha < 1:
        raise ValueError(f"epsilon is {epsilon} and alpha {alpha}; they lie between 0 and 1")
    name = _only_judge(human, judge, dimension)
    shared = _shared(human, judge, dimension, n_humans=2)
    reason = _refusal(human, shared, dimension)
    against = [_against(shared, column, epsilon, alignment, unit, reason) for column in range(len(shared.raters))]
    adjusted = _adjusted([one.p for one in against])
    report = _Report(
        dimension,
        {"judge": name},
        {
            "scale": human.scale(dimension),
            "epsilon": f"{epsilon:g}",
            "alpha": f"{alpha:g}",
            "alignment": alignment,
            "unit": unit,
            "data": human.of_dimension(dimension).content_hash(),
            "judge_data": judge.of_dimension(dimension).content_hash(),
        },
    )
    rows = []
    for rater, one, p_adjusted in zip(shared.raters, against, adjusted, strict=True):
        test = f"paired t-test over {unit}s, margin {epsilon:g}"
        for metric, value, method in (
            ("judge_advantage", one.judge, f"{alignment} alignment, ties count"),
            ("rater_advantage", one.rater, f"{alignment} alignment, ties count"),
            ("p_alternative_annotator", one.p, test),
            ("p_alternative_annotator_by", p_adjusted, f"{test}, Benjamini-Yekutieli over raters"),
        ):
            rows.append(report.row(metric, value, one, method, rater=rater))
    compared = [one for one in against if one.judge is not None]
    reason = reason or (None if compared else "no_overlap")
    n_beaten = sum(p is not None and p < alpha for p in adjusted)
    n = {"raters": len(compared), "raters_beaten": n_beaten, "responses": len(shared.judge_N)}
    for metric, value, method in (
        ("winning_rate", n_beaten / max(1, len(compared)), f"share of raters beaten, level {alpha:g}"),
        ("average_advantage", float(np.mean([one.judge for one in compared] or [0])), "mean over raters left out"),
    ):
        passes = metric == "winning_rate" and value >= PASSING
        rows.append(report.summary(metric, value, n, method, reason, ("judge_passes",) if passes else ()))
    return rows


def _refusal(human: RatingTable, shared: _Shared, dimension: str) -> Reason | None:
    if not len(human.matrix(dimension).ratings):
        return "no_ratings"
    if len(shared.raters) < FEWEST_RATERS:
        return "under_three_raters"
    if not len(shared.judge_N):
        return "no_overlap"
    return "no_variation" if np.nanmin(shared.humans_NR) == np.nanmax(shared.humans_NR) else None


def _against(
    shared: _Shared, column: int, epsilon: float, alignment: Alignment, unit: Unit, reason: Reason | None
) -> _Against:
    own_N, others_NR = shared.humans_NR[:, column], np.delete(shared.humans_NR, column, axis=1)
    used = ~np.isnan(own_N) & (~np.isnan(others_NR)).any(axis=1)
    if reason is not None or not used.any():
        return _Against(None, None, None, int(used.sum()), 0, reason or "no_overlap")
    judge_N, rater_N = (_aligned(given_N[used], others_NR[used], alignment) for given_N in (shared.judge_N, own_N))
    judge_wins_N = (judge_N >= rater_N - TOLERANCE).astype(np.float64)
    rater_wins_N = (rater_N >= judge_N - TOLERANCE).astype(np.float64)
    lead = rater_wins_N - judge_wins_N
    if unit == "dialogue":
        dialogue_N = np.unique(shared.clusters_N[used], return_inverse=True)[1]
        lead = np.bincount(dialogue_N, weights=lead) / np.bincount(dialogue_N)
    p = None
    if len(lead) > 1 and np.ptp(lead) > TOLERANCE:
        p = float(stats.ttest_1samp(lead, epsilon, alternative="less").pvalue)
    without_p: Reason = "no_variation" if len(lead) > 1 else "one_dialogue"
    shares = float(judge_wins_N.mean()), float(rater_wins_N.mean())
    return _Against(*shares, p, int(used.sum()), len(lead), without_p)


def _aligned(given_N: FloatArray, others_NR: FloatArray, alignment: Alignment) -> FloatArray:
    """How close a rating lies to those of the others, larger is closer: shape (N,)."""
    is_there = ~np.isnan(others_NR)
    distance_NR = np.where(is_there, others_NR - given_N[:, None], 0)
    count_N = is_there.sum(axis=1)
    if alignment == "accuracy":
        closeness: FloatArray = (is_there & (np.abs(distance_NR) <= TOLERANCE)).sum(axis=1) / count_N
        return closeness
    rmse: FloatArray = np.sqrt((distance_NR**2).sum(axis=1) / count_N)
    return -rmse


def _adjusted(p_values: list[float | None]) -> list[float | None]:
    """Benjamini-Yekutieli over all raters; one without a p-value counts as 1 and stays without."""
    if not p_values:
        return []
    adjusted = multipletests([1.0 if p is None else p for p in p_values], method="fdr_by")[1]
    return [None if p is None else float(value) for p, value in zip(p_values, adjusted, strict=True)]


@dataclass(frozen=True)
class _Report:
    """Rows of one test, all with its settings."""

    dimension: str
    detail: Mapping[str, str]
    settings: Mapping[str, object]

    def row(self, metric: str, value: float | None, one: _Against, method: str, *, rater: str) -> ResultRow:
        """One number about one rater left out."""
        reason: Reason | None = None if value is not None else one.reason
        return plain_row(
            metric,
            value,
            dimension=self.dimension,
            n={"responses": one.n_responses, f"{self.settings['unit']}s": one.n_units},
            method=method if value is not None else NO_INTERVAL,
            signature=Signature.of(metric, VERSION, dimension=self.dimension, **self.settings, left_out=rater),
            reason=reason,
            stratum={"rater": rater},
            detail=self.detail,
        )

    def summary(
        self,
        metric: str,
        value: float,
        n: Mapping[str, int],
        method: str,
        reason: Reason | None,
        notes: tuple[str, ...],
    ) -> ResultRow:
        """One number over all raters; left out if there is a reason."""
        return plain_row(
            metric,
            value if reason is None else None,
            dimension=self.dimension,
            n=n,
            method=method if reason is None else NO_INTERVAL,
            signature=Signature.of(metric, VERSION, dimension=self.dimension, **self.settings),
            reason=reason,
            notes=notes if reason is None else (),
            detail=self.detail,
        )


# Agreement with each person.


def judge_agreement(
    human: RatingTable,
    judge: RatingTable,
    dimension: str,
    *,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
) -> list[ResultRow]:
    """How a judge's ratings compare with people's, the judge in the detail, intervals by dialogue.

    Rows: judge_kappa_quadratic, Cohen's quadratic weighted kappa with each person (stratum); judge_bias, the judge
    minus the mean of the people on the same responses, in points of the scale, over all and per system (stratum).
    Raises ValueError as `alternative_annotator_test` does if there is not exactly one judge.
    """
    name = _only_judge(human, judge, dimension)
    detail = {"judge": name}
    rows = []
    for rater in human.of_dimension(dimension).levels("rater"):
        pair = _joined(human.where(rater=rater), judge, dimension)
        panel = agreement_panel(
            pair, by=(), seed=seed, n_bootstrap=n_bootstrap, confidence=confidence, kind=kind
        )  # fmt: skip
        kappa = [row.estimate for row in panel if row.metric == "cohen_kappa_quadratic"]
        rows += [ResultRow("judge_kappa_quadratic", dimension, one, {"rater": rater}, detail) for one in kappa]
    how = Resampling(seed, n_bootstrap, confidence, kind)
    return rows + _bias(human, judge, dimension, detail, how)


def _joined(one: RatingTable, other: RatingTable, dimension: str) -> RatingTable:
    """The ratings of both, with what both recorded."""
    frames = [table.of_dimension(dimension).frame for table in (one, other)]
    common = [column for column in frames[0].columns if column in frames[1].columns]
    joined = pd.concat([frame[common] for frame in frames], ignore_index=True)
    return RatingTable(joined, (one.scale(dimension),))


def _bias(
    human: RatingTable, judge: RatingTable, dimension: str, detail: Mapping[str, str], how: Resampling
) -> list[ResultRow]:
    people = human.matrix(dimension)
    shared = _shared(human, judge, dimension, n_humans=1)
    is_rated = ~np.isnan(shared.humans_NR)
    means_N = np.where(is_rated, shared.humans_NR, 0).sum(axis=1) / is_rated.sum(axis=1)
    difference_N = shared.judge_N - means_N
    systems_N = shared.systems_N
    quantities = []
    for system in (None, *dict.fromkeys(systems_N)):
        used = np.ones(len(systems_N), dtype=np.bool_) if system is None else systems_N == system
        n = {"responses": int(used.sum()), "clusters": len(np.unique(shared.clusters_N[used]))}
        quantities.append(
            Quantity(
                "judge_bias",
                np.column_stack([np.where(used, difference_N, 0), used.astype(np.float64)]),
                ratio,
                n,
                "no_overlap" if len(people.ratings) else "no_ratings",
                {} if system is None else {"system": str(system)},
                detail,
                {"scale": human.scale(dimension), "judge_data": judge.of_dimension(dimension).content_hash()},
            )
        )
    data = human.of_dimension(dimension).content_hash()
    return clustered_rows(
        quantities, shared.clusters_N, dimension=dimension, family="judge", version=VERSION, data=data, how=how
    )
