"""All agreement coefficients of a table of ratings, with intervals by dialogue: pooled, by stratum, and for repeats.

All coefficients of a stratum share one set of resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from metrics.agreement import VERSION, Coefficient, all_coefficients, repeat_coefficients
from metrics.intervals import (
    N_BOOTSTRAP,
    NO_INTERVAL,
    Interval,
    Kind,
    bootstrap_intervals,
    cluster_sums,
    event_upper_bound,
    interval_settings,
    matrix_counts,
    resample,
    stratum_rng,
)
from metrics.results import Estimate, ResultRow, Signature
from metrics.table import FloatArray, RatingMatrix, RatingTable

ConstantKappa = Literal["undefined", "paper_one"]


@dataclass(frozen=True)
class _Panel:
    """Coefficients of one matrix and what is needed to estimate them with one common set of resamples."""

    dimension: str
    stratum: Mapping[str, str]
    matrix: RatingMatrix
    data: str
    seed: int
    n_bootstrap: int
    confidence: float
    kind: Kind

    def rows(self, coefficients: Sequence[Coefficient], *, family: str) -> list[ResultRow]:
        """One row per coefficient. The resamples follow from seed, family, dimension and stratum alone."""
        counts = matrix_counts(self.matrix)
        if not counts["ratings"]:
            return [self._row(coefficient, None, counts) for coefficient in coefficients]
        blocks = list({id(coefficient.sums): coefficient.sums for coefficient in coefficients}.values())
        ends = np.cumsum([block.shape[1] for block in blocks])
        columns = {id(block): slice(end - block.shape[1], end) for block, end in zip(blocks, ends, strict=True)}
        rng = stratum_rng(self.seed, family, self.dimension, self.stratum)
        sums_CS = cluster_sums(np.column_stack(blocks), self.matrix.clusters)
        resamples = resample(sums_CS, rng=rng, n_bootstrap=self.n_bootstrap)
        tried = [coefficient for coefficient in coefficients if coefficient.lack is None]

        def values(totals: FloatArray) -> FloatArray:
            found = [coefficient.value(totals[..., columns[id(coefficient.sums)]]) for coefficient in tried]
            return np.stack(found, axis=-1)

        intervals = bootstrap_intervals(resamples, values, confidence=self.confidence, kind=self.kind) if tried else []
        found = {id(coefficient): interval for coefficient, interval in zip(tried, intervals, strict=True)}
        return [self._row(coefficient, found.get(id(coefficient)), counts) for coefficient in coefficients]

    def _row(self, coefficient: Coefficient, interval: Interval | None, counts: Mapping[str, int]) -> ResultRow:
        n = {**counts, "responses_used": int(coefficient.used.sum())}
        signature = self.signature(coefficient.name, coefficient.detail)
        if interval is None or not np.isfinite(interval.value):
            estimate = Estimate(None, None, None, n, NO_INTERVAL, signature, coefficient.reason)
        else:
            n |= {"resamples": self.n_bootstrap, "undefined_resamples": interval.n_undefined}
            low, high, method, _, notes, value = interval
            estimate = Estimate(value, low, high, n, method, signature, None, notes)
        return ResultRow(coefficient.name, self.dimension, estimate, self.stratum, coefficient.detail)

    def signature(self, name: str, detail: Mapping[str, str]) -> str:
        """The signature of one coefficient of this panel."""
        settings = interval_settings(
            seed=self.seed,
            n_bootstrap=self.n_bootstrap,
            confidence=self.confidence,
            kind=self.kind,
            data=self.data,
            stratum=self.stratum,
        )
        parts = {"dimension": self.dimension, "scale": self.matrix.scale, **detail, **settings}
        return str(Signature.of(name, VERSION, **parts))


def agreement_panel(
    table: RatingTable,
    *,
    by: Sequence[str] | None = None,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
    constant_kappa: ConstantKappa = "undefined",
) -> list[ResultRow]:
    """Every agreement coefficient of every dimension: over all ratings, then within each level of each column.

    Pooled numbers mix systems, and a difference between systems raises them; that is why the strata stand beside
    them. All coefficients of a stratum share their resamples, so their intervals can be compared. Hidden repeats
    are left out.

    by: columns to split by, one at a time; None means system and, where it was recorded, dataset.
    constant_kappa: what Fleiss' kappa is when every rating is the same point. "undefined" leaves it out with the
        reason "no_variation"; "paper_one" gives 1 with the note "one_by_convention", as the SoulChat paper prints it.

    Rows: percent_agreement, fleiss_kappa, krippendorff_alpha_nominal, _ordinal, _interval, gwet_ac1,
    gwet_ac2_quadratic, brennan_prediger, conger_kappa, icc_2_1, icc_2_k, category_kappa of each point, and
    cohen_kappa_linear and _quadratic of each pair of raters. Where all ratings agree on one point there is also
    other_point_rate, the share of dialogues with any other rating: 0, with its exact one-sided upper bound.
    """
    columns = by if by is not None else [name for name in ("system", "dataset") if table.has(name)]
    parts: list[tuple[dict[str, str], RatingTable]] = [
        ({}, table),
        *[stratum for column in columns for stratum in table.strata([column])],
    ]
    rows = []
    for dimension in table.dimensions:
        for stratum, part in parts:
            panel = _Panel(
                dimension=dimension,
                stratum=stratum,
                matrix=part.matrix(dimension),
                data=part.of_dimension(dimension).content_hash(),
                seed=seed,
                n_bootstrap=n_bootstrap,
                confidence=confidence,
                kind=kind,
            )
            found = panel.rows(all_coefficients(panel.matrix), family="agreement")
            if constant_kappa == "paper_one":
                found = [_with_paper_convention(row) for row in found]
            rows += [*found, *_other_point_rate(panel)]
    return rows


def _with_paper_convention(row: ResultRow) -> ResultRow:
    """The row with kappa set to 1 if it is Fleiss' kappa of constant ratings; any other row as it is."""
    estimate = row.estimate
    if row.metric != "fleiss_kappa" or estimate.reason != "no_variation":
        return row
    conventional = replace(
        estimate,
        value=1.0,
        reason=None,
        notes=("one_by_convention",),
        signature=f"{estimate.signature}|constant_kappa:paper_one",
    )
    return replace(row, estimate=conventional)


def _other_point_rate(panel: _Panel) -> list[ResultRow]:
    """For constant ratings, one row: how often another point may occur although nobody gave one; else no row.

    The unit is the dialogue, since ratings within one are not independent; per system a dialogue is one response.
    """
    given = panel.matrix.ratings[~np.isnan(panel.matrix.ratings)]
    if not given.size or np.ptp(given):
        return []
    counts = matrix_counts(panel.matrix)
    estimate = Estimate(
        value=0.0,
        low=0.0,
        high=event_upper_bound(0, counts["clusters"], confidence=panel.confidence),
        n=counts,
        method=f"exact one-sided upper bound over clusters, {100 * panel.confidence:g}%",
        signature=panel.signature("other_point_rate", {"point": f"{given[0]:g}"}),
    )
    return [ResultRow("other_point_rate", panel.dimension, estimate, panel.stratum, {"point": f"{given[0]:g}"})]


def repeat_agreement(
    table: RatingTable,
    dimension: str,
    *,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
) -> list[ResultRow]:
    """How far raters agree with themselves: first rating against hidden repeat, all raters pooled and then each.

    Rows: repeat_percent_identical, 0 to 1, and repeat_kappa_quadratic, Cohen's quadratic weighted kappa with the two
    occasions as its two raters. Without a repeat both are undefined with the reason "no_repeats". In the counts,
    responses_used is the number of pairs.
    """
    rows = []
    parts: list[tuple[dict[str, str], RatingTable]] = [({}, table), *table.strata(["rater"])]
    for stratum, part in parts:
        panel = _Panel(
            dimension=dimension,
            stratum=stratum,
            matrix=part.repeat_pairs(dimension),
            data=part.of_dimension(dimension).content_hash(),
            seed=seed,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            kind=kind,
        )
        rows += panel.rows(repeat_coefficients(panel.matrix), family="repeats")
    return rows
