"""How systems differ once raters and dialogues are accounted for: a cumulative logit mixed model, and GEE beside it.

A rating given by rater r to the response of system s in dialogue d depends on system_s + rater_r, the fixed effects,
and on how dialogues, and responses within them, happen to differ, the random ones. Raters are fixed, because three of
them are too few for a variance. The two fits are those of metrics.ordinal and metrics.gee; this is what is asked of
them, and which systems and raters have an answer.

Source: Howcroft & Rieser (EMNLP 2021) on why to use such a model.

Shapes: N = ratings, X = fixed effects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from metrics.clustered import plain_row
from metrics.gee import Marginal, marginal_fit
from metrics.intervals import FEW_CLUSTERS, NO_INTERVAL
from metrics.ordinal import EFFECT_LIMIT, NODES, Fit, OrdinalData, fit
from metrics.results import Reason, ResultRow, Signature
from metrics.significance import holm
from metrics.table import FloatArray, IntArray, RatingTable

VERSION = 2
NO_VARIANCE = 1e-12  # of an effect, in squared log-odds: it is zero but for rounding
SAME = 1e-6  # log-odds; effects this close do not differ


# Systems and raters of a table.


@dataclass(frozen=True)
class _Design:
    """The ratings of one dimension that a model can use.

    points: the points of the scale that occur, which become 0, 1, …;  infinite: systems and raters whose ratings are
    all the lowest or all the highest point: their effect has no finite estimate, and what is left is the likelihood
    that remains as it grows.
    """

    frame: pd.DataFrame
    points: tuple[float, ...]
    systems: tuple[str, ...]
    raters: tuple[str, ...]
    infinite: tuple[str, ...]
    is_any_unused: bool

    @property
    def points_N(self) -> IntArray:
        return np.searchsorted(self.points, self.frame["value"].to_numpy()).astype(np.int64)

    @property
    def dialogue_N(self) -> IntArray:
        return pd.factorize(self.frame["cluster"])[0].astype(np.int64)

    @property
    def systems_NX(self) -> FloatArray:
        """Treatment contrasts against the first system: shape (N, n_systems - 1)."""
        return _is_one_of(self.frame["system"], self.systems[1:])

    @property
    def raters_NX(self) -> FloatArray:
        """Treatment contrasts against the first rater: shape (N, n_raters - 1)."""
        return _is_one_of(self.frame["rater"], self.raters[1:])

    @property
    def fixed_NX(self) -> FloatArray:
        return np.column_stack([self.systems_NX, self.raters_NX])

    @property
    def reason(self) -> Reason | None:
        """Why no model can be fitted; None if one can be tried."""
        if not len(self.frame):
            return "separation" if self.infinite else "no_ratings"
        if len(self.points) < 2:
            return "separation" if self.infinite else "no_variation"
        if len(self.systems) < 2:
            return "separation" if self.infinite else "one_system"
        with_constant = np.column_stack([np.ones(len(self.frame)), self.fixed_NX])
        return None if np.linalg.matrix_rank(with_constant) == with_constant.shape[1] else "not_identified"

    def data(self, *, by_system: bool = False) -> OrdinalData:
        """For a fit. by_system: thresholds of their own for every system, in place of a system effect.

        A random effect that the ratings cannot show is left out: of responses, if each was rated once or each dialogue
        has one response; of dialogues, if each has one rating or there is only one.
        """
        dialogue_N = self.dialogue_N
        response_N: IntArray = np.asarray(self.frame.groupby(["item", "system"]).ngroup(), dtype=np.int64)
        n_ratings, n_dialogues, n_responses = len(response_N), dialogue_N.max() + 1, response_N.max() + 1
        return OrdinalData(
            points_N=self.points_N,
            fixed_NX=self.raters_NX if by_system else self.fixed_NX,
            dialogue_N=dialogue_N if 1 < n_dialogues < n_ratings else None,
            response_N=response_N if n_dialogues < n_responses < n_ratings else None,
            thresholds_N=np.searchsorted(self.systems, self.frame["system"]).astype(np.int64) if by_system else None,
        )


def _is_one_of(names: "pd.Series[str]", levels: Sequence[str]) -> FloatArray:
    columns: FloatArray = (names.to_numpy()[:, None] == np.array(levels, dtype=object)[None, :]).astype(np.float64)
    return columns


def _design(table: RatingTable, dimension: str) -> _Design:
    of_dimension = table.of_dimension(dimension).frame
    frame = of_dimension[~of_dimension["is_repeat"]]
    infinite: list[str] = []
    n_before = -1
    while len(frame) != n_before and frame["value"].nunique() > 1:
        n_before = len(frame)
        for column in ("system", "rater"):
            ends = frame.groupby(column)["value"].agg(["min", "max"])
            low, high = frame["value"].min(), frame["value"].max()
            is_stuck = (ends["min"] == ends["max"]) & ends["min"].isin([low, high])
            infinite += [f"{column} {name}" for name in ends.index[is_stuck]]
            frame = frame[~frame[column].isin(ends.index[is_stuck])]
            if not len(frame):
                break
    points = tuple(sorted(frame["value"].unique()))
    return _Design(
        frame=frame.reset_index(drop=True),
        points=points,
        systems=tuple(sorted(frame["system"].unique())),
        raters=tuple(sorted(frame["rater"].unique())),
        infinite=tuple(infinite),
        is_any_unused=len(points) < len(table.scale(dimension).points),
    )


@dataclass(frozen=True)
class _Report:
    """Rows about one fit, all with its counts, notes and settings."""

    dimension: str
    n: Mapping[str, int]
    settings: Mapping[str, object]
    confidence: float
    notes: tuple[str, ...]

    def row(
        self,
        metric: str,
        value: float | None,
        *,
        method: str,
        error: float | None = None,
        interval: tuple[float, float] | None = None,
        reason: Reason | None = None,
        notes: tuple[str, ...] = (),
        stratum: Mapping[str, str] | None = None,
        detail: Mapping[str, str] | None = None,
    ) -> ResultRow:
        """One row; the Wald interval of a value with a standard error. A value that has a reason is left out."""
        z = float(stats.norm.ppf((1 + self.confidence) / 2))
        signature = Signature.of(metric, VERSION, dimension=self.dimension, **self.settings, **(detail or {}))
        if reason is not None or value is None:
            value, error, interval, method = None, None, None, NO_INTERVAL
        if value is not None and error is not None:
            interval = (value - z * error, value + z * error)
            method = f"{method}, {100 * self.confidence:g}%"
        low, high = interval if interval is not None else (None, None)
        return plain_row(
            metric,
            value,
            low=low,
            high=high,
            dimension=self.dimension,
            n=self.n,
            method=method,
            signature=signature,
            reason=reason,
            notes=self.notes + notes if value is not None else (),
            stratum=stratum,
            detail=detail,
        )

    def deviation(self, metric: str, sd: float | None, error: float | None, reason: Reason | None) -> ResultRow:
        """A standard deviation, its interval Wald on the log scale; None is one that the ratings cannot show."""
        if sd is None:
            return self.row(metric, None, method="", reason=reason or "not_identified")
        if not error or error > sd:  # so near to zero that its logarithm says nothing
            return self.row(metric, sd, method=NO_INTERVAL, reason=reason, notes=("at_boundary",))
        factor = float(np.exp(stats.norm.ppf((1 + self.confidence) / 2) * error / sd))
        method = f"maximum likelihood, Wald interval of the logarithm, {100 * self.confidence:g}%"
        return self.row(metric, sd, interval=(sd / factor, sd * factor), method=method, reason=reason)

    def contrasts(
        self,
        metric: str,
        systems: Sequence[str],
        estimable: Sequence[str],
        effects: FloatArray,
        covariance: FloatArray,
        *,
        p_name: str,
        method: str,
        reason: Reason | None,
    ) -> list[ResultRow]:
        """All pairs of systems: difference with interval, p and Holm's p over the pairs that have one.

        effects, covariance: of the estimable systems, the first of which is the reference.
        """
        full = np.concatenate([[0.0], effects])
        padded = np.zeros((len(full), len(full)))
        padded[1:, 1:] = covariance
        pairs = list(combinations(systems, 2))
        found: dict[tuple[str, str], tuple[float, float, float]] = {}
        for pair in pairs if reason is None else []:
            if set(pair) <= set(estimable):
                at = np.zeros(len(full))
                at[[estimable.index(name) for name in pair]] = 1, -1
                value, variance = float(at @ full), float(at @ padded @ at)
                if variance > NO_VARIANCE:
                    error = variance**0.5
                    found[pair] = (value, error, float(2 * stats.norm.sf(abs(value) / error)))
                elif abs(value) < SAME:  # one system twice
                    found[pair] = (value, 0.0, 1.0)
                # else so few clusters that they cancel in the sandwich, and nothing is left of its variance
        adjusted = dict(zip(found, holm([p for *_, p in found.values()]), strict=True))
        rows = []
        for pair in pairs:
            detail = {"systems": ", ".join(pair)}
            if pair not in found:
                names, why = (metric, p_name, f"{p_name}_holm"), reason
                if why is None:
                    why = "not_identified" if set(pair) <= set(estimable) else "separation"
                rows += [self.row(name, None, method=NO_INTERVAL, reason=why, detail=detail) for name in names]
                continue
            value, error, p = found[pair]
            test = f"{method}, Wald test"
            with_holm = f"{test}, Holm over {len(found)} pairs"
            rows += [
                self.row(metric, value, error=error, method=f"{method}, Wald interval", detail=detail),
                self.row(p_name, p, method=test, detail=detail),
                self.row(f"{p_name}_holm", float(adjusted[pair]), method=with_holm, detail=detail),
            ]
        return rows


def _report(table: RatingTable, dimension: str, design: _Design, confidence: float, **settings: object) -> _Report:
    of_dimension = table.of_dimension(dimension)
    n = {
        "items": design.frame["item"].nunique(),
        "responses": len(design.frame.drop_duplicates(["item", "system"])),
        "ratings": len(design.frame),
        "raters": len(design.raters),
        "clusters": design.frame["cluster"].nunique(),
    }
    notes = (
        *(("few_clusters",) if n["clusters"] < FEW_CLUSTERS else ()),
        *(("unused_points",) if design.is_any_unused else ()),
    )
    always = {"scale": table.scale(dimension), "link": "logit", "fixed": "system+rater"}
    versions = {"confidence": confidence, "numpy": np.__version__, "data": of_dimension.content_hash()}
    return _Report(dimension, n, {**always, **settings, **versions}, confidence, notes)


def mixed_model(
    table: RatingTable, dimension: str, *, confidence: float = 0.95, nodes: Sequence[int] = NODES
) -> list[ResultRow]:
    """The cumulative logit mixed model of one dimension. Hidden repeats are left out.

    Rows, in log-odds of a higher rating; a pair of systems is A minus B:
    clmm_system, p_clmm, p_clmm_holm: for every pair of systems.
    clmm_rater: per rater, distance from the mean rater; below 0 is stricter.
    clmm_threshold: between two neighbouring points, for the first system and the mean rater.
    clmm_sd_dialogue, clmm_sd_dialogue_system: how far dialogues, and responses within them, differ.
    clmm_loglik: the log-likelihood in nats; parameters, quadrature_nodes and steps are among its counts.
    p_proportional_odds: likelihood ratio test against thresholds of their own for every system; only for three points
        and more. A small p says that systems differ in more than a shift, so that clmm_system is only an average.

    A system or rater with nothing but the lowest or the highest point has an infinite effect: its rows say
    "separation", the others are those of the remaining ratings, which is the limit of the likelihood. Points that
    nobody used are passed over, with the note "unused_points". A random effect that the ratings cannot show is left
    out, and its row says "not_identified": that of responses, for instance, if each was rated once.
    """
    design = _design(table, dimension)
    data = design.data() if design.reason is None else None
    found = fit(data, nodes=nodes) if data is not None else _NOTHING
    reason = design.reason or found.reason
    effects = (("dialogue", data and data.dialogue_N), ("response", data and data.response_N))
    random = "+".join(name for name, codes_N in effects if codes_N is not None) or "none"
    report = _report(table, dimension, design, confidence, random=random, trapezoid_nodes=found.n_nodes or None)
    systems, raters = table.of_dimension(dimension).levels("system"), table.of_dimension(dimension).levels("rater")
    n_systems = max(0, len(design.systems) - 1)
    rows = report.contrasts(
        "clmm_system",
        systems,
        design.systems,
        found.fixed_X[:n_systems],
        found.covariance_XX[:n_systems, :n_systems],
        p_name="p_clmm",
        method="cumulative logit mixed model",
        reason=reason,
    )
    rows += _rater_rows(report, raters, design, found, n_systems, reason)
    rows += [
        report.deviation("clmm_sd_dialogue", found.sd_dialogue, found.deviation_errors[0], reason),
        report.deviation("clmm_sd_dialogue_system", found.sd_response, found.deviation_errors[1], reason),
    ]
    counts = {"parameters": found.n_parameters, "quadrature_nodes": found.n_nodes, "steps": found.n_steps}
    fitted = _Report(dimension, {**report.n, **counts}, report.settings, confidence, report.notes)
    rows.append(fitted.row("clmm_loglik", found.log_likelihood, method="maximum likelihood", reason=reason))
    if len(design.points) > 2:
        rows.append(_proportional_odds(report, design, found, reason))
    return rows


_NOTHING = Fit(
    thresholds_GC=np.empty((1, 0)),
    threshold_errors_GC=np.empty((1, 0)),
    fixed_X=np.empty(0),
    covariance_XX=np.empty((0, 0)),
    sd_dialogue=None,
    sd_response=None,
    deviation_errors=(None, None),
    log_likelihood=0.0,
    n_parameters=0,
    n_nodes=0,
    largest_slope=0.0,
    n_steps=0,
)  # stands in where no fit was tried; its numbers are never shown, because there is a reason


def _rater_rows(
    report: _Report,
    raters: Sequence[str],
    design: _Design,
    found: Fit,
    n_systems: int,
    reason: Reason | None,
) -> list[ResultRow]:
    """Severity of each rater, and the thresholds as the mean rater places them."""
    n = len(design.raters)
    effects, covariance = np.zeros(n), np.zeros((n, n))
    if reason is None:
        effects[1:] = found.fixed_X[n_systems:]
        covariance[1:, 1:] = found.covariance_XX[n_systems:, n_systems:]
    centre = np.eye(n) - 1 / max(n, 1)
    severity, errors = centre @ effects, np.sqrt(np.maximum(np.diag(centre @ covariance @ centre), 0))
    rows = []
    for rater in raters:
        why: Reason | None = reason
        value = error = None
        if rater not in design.raters:
            why = reason or "separation"
        elif n < 2:
            why = reason or "one_rater"
        else:
            value, error = float(severity[design.raters.index(rater)]), float(errors[design.raters.index(rater)])
        method = "cumulative logit mixed model, Wald interval"
        rows.append(report.row("clmm_rater", value, error=error, method=method, reason=why, stratum={"rater": rater}))
    if reason is None:
        between = zip(design.points, design.points[1:], found.thresholds_GC[0], strict=False)
        for low, high, threshold in between:
            value = float(threshold - effects.mean())
            detail = {"points": f"{low:g}|{high:g}"}
            rows.append(report.row("clmm_threshold", value, method="maximum likelihood", detail=detail))
    return rows


def _proportional_odds(report: _Report, design: _Design, found: Fit, reason: Reason | None) -> ResultRow:
    """Whether every system divides the scale alike, by the likelihood ratio, both fits with the same quadrature."""
    uses_all = design.frame.groupby("system")["value"].nunique() == len(design.points)
    if reason is None and not uses_all.all():
        reason = "separation"
    p, method = None, NO_INTERVAL
    if reason is None:
        free = fit(design.data(by_system=True), nodes=(found.n_nodes,))
        reason = free.reason
        n_extra = free.n_parameters - found.n_parameters
        ratio = max(0.0, 2 * (free.log_likelihood - found.log_likelihood))
        p, method = float(stats.chi2.sf(ratio, n_extra)), f"likelihood ratio test, {n_extra} degrees of freedom"
    return report.row("p_proportional_odds", p, method=method, reason=reason)


# The companion without random effects.


def gee(table: RatingTable, dimension: str, *, confidence: float = 0.95) -> list[ResultRow]:
    """Cumulative logit by generalised estimating equations: effects over all dialogues, errors clustered by dialogue.

    It assumes nothing about how ratings of one dialogue hang together, and answers a slightly different question:
    log-odds over the population of dialogues, which are nearer to 0 than log-odds within a dialogue.

    Rows: gee_system, p_gee and p_gee_holm for every pair of systems. Separation as in `mixed_model`.
    Source: Heagerty & Zeger (1996); working independence and the sandwich covariance, see metrics.gee.
    """
    design = _design(table, dimension)
    reason = design.reason
    n_systems = max(0, len(design.systems) - 1)
    found = Marginal(np.zeros(n_systems), None)
    if reason is None and design.frame["cluster"].nunique() < 2:
        reason = "not_identified"  # a single dialogue says nothing about how dialogues differ
    if reason is None:
        found = marginal_fit(design.points_N, design.fixed_NX, design.dialogue_N)
        if np.abs(found.effects_X).max() > EFFECT_LIMIT:
            reason = "separation"
        elif found.covariance_XX is None:
            reason = "not_converged"
    covariance_XX = np.zeros((n_systems, n_systems)) if found.covariance_XX is None else found.covariance_XX
    report = _report(table, dimension, design, confidence, working="independence")
    return report.contrasts(
        "gee_system",
        table.of_dimension(dimension).levels("system"),
        design.systems,
        found.effects_X[:n_systems],
        covariance_XX[:n_systems, :n_systems],
        p_name="p_gee",
        method="GEE, sandwich errors by cluster",
        reason=reason,
    )
