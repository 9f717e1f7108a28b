"""Agreement among raters: percent, Fleiss, Krippendorff, Gwet, Brennan-Prediger, Conger, Cohen and ICC.

Every coefficient is written once, as sums over responses and a function of those sums. The same two lines then serve
the number, its strata and its interval by dialogue; statsmodels and other packages are the witnesses in the tests.
Scales are declared, so a point that nobody used still counts where a formula asks how many points there are, and a
missing rating is left out, never filled in and never a category of its own.

Where every rating is the same point, agreement beyond chance is 0 / 0. That is reported as undefined, beside the
observed agreement of 1, and never silently as 1 or 0.

Shapes: N = responses, R = raters, Q = points of the scale, S = sums; a leading "..." is one or many resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Literal

import numpy as np

from metrics.results import Reason
from metrics.table import BoolArray, FloatArray, IntArray, RatingMatrix, Scale

VERSION = 2

Weights = Literal["identity", "linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval"]

ORDERED: tuple[Weights, ...] = ("linear", "quadratic")
_ZERO = 1e-12  # a denominator below this is zero; on a real scale it is either far above or exactly zero
_YES_NO = Scale("is_point", (0, 1))


@dataclass(frozen=True)
class Coefficient:
    """One agreement coefficient, ready for one matrix of ratings.

    ratings: shape (N, R), what the coefficient looks at; NaN = not rated.
    sums: shape (N, S), one row per response, to be added up;  value: (..., S) ► (...), NaN = undefined.
    used: shape (N,), the responses that carry information about agreement.
    unrated, unused: the reasons to give if there is no rating, or no response that carries information.
    """

    name: str
    ratings: FloatArray
    sums: FloatArray
    value: Callable[[FloatArray], FloatArray]
    used: BoolArray
    unrated: Reason = "no_ratings"
    unused: Reason = "no_overlap"
    detail: Mapping[str, str] = field(default_factory=dict)

    @property
    def lack(self) -> Reason | None:
        """Which ratings are lacking for a value to be tried at all; None if none are."""
        is_rated = ~np.isnan(self.ratings)
        if not is_rated.any():
            return self.unrated
        if is_rated.any(axis=0).sum() < 2:
            return "one_rater"
        return None if self.used.any() else self.unused

    @property
    def reason(self) -> Reason | None:
        """Why this coefficient is undefined for these ratings; None if it is defined."""
        if lack := self.lack:
            return lack
        if np.isfinite(self.value(self.sums.sum(axis=0))):
            return None
        relevant = self.ratings[self.used]
        if np.nanmin(relevant) == np.nanmax(relevant):
            return "no_variation"
        return "one_response" if self.used.sum() == 1 else "zero_denominator"

    def point_value(self) -> float:
        """The coefficient, NaN if ratings do not vary enough to define it; ValueError if too few were given."""
        reason = self.reason
        if reason not in (None, "no_variation", "zero_denominator"):
            raise ValueError(f"{self.name} of ratings of shape {self.ratings.shape}: {reason}")
        return float(self.value(self.sums.sum(axis=0)))


# What each coefficient is made of.


def weight_matrix(scale: Scale, weights: Weights | FloatArray) -> FloatArray:
    """How far two points count as agreement: shape (Q, Q), 1 on the diagonal, 0 for the two ends of the scale.

    "linear" and "quadratic" go by the distance between points, not by their rank. An array is returned as it is
    after its shape was checked; it must hold agreement weights, not penalties.
    """
    if not isinstance(weights, str):
        if weights.shape != (len(scale.points), len(scale.points)):
            raise ValueError(f"weights of shape {weights.shape} for the scale {scale.points}")
        return weights
    if weights == "identity":
        return np.eye(len(scale.points))
    distance = np.abs(scale.values[:, None] - scale.values) / np.ptp(scale.values)
    weights_QQ: FloatArray = 1 - (distance if weights == "linear" else distance**2)
    return weights_QQ


def _one_hot(ratings_NR: FloatArray, scale: Scale) -> FloatArray:
    """Shape (N, R, Q): 1 at the point that was given; all 0 where nothing was."""
    _refuse_off_scale(ratings_NR, scale)
    one_hot_NRQ: FloatArray = (ratings_NR[:, :, None] == scale.values).astype(np.float64)
    return one_hot_NRQ


def _refuse_off_scale(ratings: FloatArray, scale: Scale) -> None:
    off_scale = ~np.isnan(ratings) & ~np.isin(ratings, scale.values)
    if off_scale.any():
        raise ValueError(f"{scale.dimension} is {ratings[off_scale][0]:g}, the scale is {scale.points}")


def category_counts(ratings: FloatArray, scale: Scale) -> IntArray:
    """How many raters gave each point to each response: shape (N, Q), the table that Fleiss' kappa starts from."""
    counts_NQ: IntArray = _one_hot(ratings, scale).sum(axis=1).astype(np.int64)
    return counts_NQ


def _pair_sums(ratings_NR: FloatArray, scale: Scale) -> FloatArray:
    """Per response: rated (1), rated twice (1), share of each point (Q), pairs (Q x Q), coincidences (Q x Q).

    Pairs are the ordered pairs of ratings of two different raters as shares that add up to 1; coincidences are
    Krippendorff's, which add up to the number of ratings.
    """
    counts_NQ = category_counts(ratings_NR, scale).astype(np.float64)
    n_ratings_N = counts_NQ.sum(axis=1)
    pairs_NQQ = counts_NQ[:, :, None] * counts_NQ[:, None, :] - counts_NQ[:, :, None] * np.eye(len(scale.points))
    coincidences_NQQ = pairs_NQQ / np.maximum(n_ratings_N - 1, 1)[:, None, None]
    shares_NQQ = coincidences_NQQ / np.maximum(n_ratings_N, 1)[:, None, None]
    shape_NS = len(ratings_NR), len(scale.points) ** 2
    return np.column_stack(
        [
            n_ratings_N >= 1,
            n_ratings_N >= 2,
            counts_NQ / np.maximum(n_ratings_N, 1)[:, None],
            shares_NQQ.reshape(shape_NS),
            coincidences_NQQ.reshape(shape_NS),
        ]
    )


def _observed(totals: FloatArray, weights_QQ: FloatArray) -> FloatArray:
    """Mean over responses of the weighted agreement of two of its raters."""
    q = len(weights_QQ)
    pairs = totals[..., 2 + q : 2 + q + q * q]
    return _ratio(pairs @ weights_QQ.ravel(), totals[..., 1])


def _shares(totals: FloatArray, q: int) -> FloatArray:
    """Mean over responses of the share of each point: shape (..., Q)."""
    return _ratio(totals[..., 2 : 2 + q], totals[..., :1])


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient; NaN where the denominator is zero."""
    is_zero = np.abs(denominator) <= _ZERO
    quotient: FloatArray = numerator / np.where(is_zero, np.nan, denominator)
    return quotient


def _beyond_chance(observed: FloatArray, expected: FloatArray) -> FloatArray:
    return _ratio(observed - expected, 1 - expected)


def _fleiss_value(totals: FloatArray, weights_QQ: FloatArray) -> FloatArray:
    shares = _shares(totals, len(weights_QQ))
    expected = np.einsum("...k,kl,...l->...", shares, weights_QQ, shares)
    return _beyond_chance(_observed(totals, weights_QQ), expected)


def _gwet_value(totals: FloatArray, weights_QQ: FloatArray) -> FloatArray:
    q = len(weights_QQ)
    shares = _shares(totals, q)
    expected = weights_QQ.sum() / (q * (q - 1)) * (shares * (1 - shares)).sum(axis=-1)
    return _beyond_chance(_observed(totals, weights_QQ), expected)


def _brennan_prediger_value(totals: FloatArray, weights_QQ: FloatArray) -> FloatArray:
    observed = _observed(totals, weights_QQ)
    return _beyond_chance(observed, np.full_like(observed, weights_QQ.mean()))


def _alpha_value(totals: FloatArray, scale: Scale, level: Level) -> FloatArray:
    q = len(scale.points)
    coincidences = totals[..., 2 + q + q * q :].reshape(*totals.shape[:-1], q, q)
    uses = coincidences.sum(axis=-1)  # of each point, among ratings that can be paired
    n_pairable = uses.sum(axis=-1)
    if level == "nominal":
        distance = np.broadcast_to(1 - np.eye(q), coincidences.shape)
    else:
        place = np.cumsum(uses, axis=-1) - uses / 2 if level == "ordinal" else scale.values
        distance = (place[..., :, None] - place[..., None, :]) ** 2
    expected = (uses[..., :, None] * uses[..., None, :] * distance).sum(axis=(-2, -1))
    observed = (coincidences * distance).sum(axis=(-2, -1))
    alpha: FloatArray = 1 - (n_pairable - 1) * _ratio(observed, expected)
    return alpha


def _margin_sums(ratings_NR: FloatArray, scale: Scale) -> FloatArray:
    """Per response: the pair sums, then which point each rater gave (R x Q)."""
    n, n_raters = ratings_NR.shape
    given_NS = _one_hot(ratings_NR, scale).reshape(n, n_raters * len(scale.points))
    return np.column_stack([_pair_sums(ratings_NR, scale), given_NS])


def _conger_value(totals: FloatArray, weights_QQ: FloatArray) -> FloatArray:
    q = len(weights_QQ)
    given = totals[..., 2 + q + 2 * q * q :].reshape(*totals.shape[:-1], -1, q)  # (..., R, Q)
    margins = _ratio(given, given.sum(axis=-1, keepdims=True))
    n_raters = margins.shape[-2]
    everyone = margins.sum(axis=-2)
    any_two = np.einsum("...k,kl,...l->...", everyone, weights_QQ, everyone)
    with_self = np.einsum("...gk,kl,...gl->...", margins, weights_QQ, margins)
    expected = (any_two - with_self) / (n_raters * (n_raters - 1))
    return _beyond_chance(_observed(totals, weights_QQ), expected)


def _crosstab_sums(ratings_N2: FloatArray, scale: Scale) -> FloatArray:
    """Per response: the cell of the Q x Q table of two raters; all 0 unless both rated."""
    one_hot = _one_hot(ratings_N2, scale)
    cells_NQQ = one_hot[:, 0, :, None] * one_hot[:, 1, None, :]
    return cells_NQQ.reshape(len(ratings_N2), len(scale.points) ** 2)


def _cohen_value(totals: FloatArray, weights_QQ: FloatArray) -> FloatArray:
    q = len(weights_QQ)
    cells = totals.reshape(*totals.shape[:-1], q, q)
    table = _ratio(cells, cells.sum(axis=(-2, -1), keepdims=True))
    observed = (table * weights_QQ).sum(axis=(-2, -1))
    expected = np.einsum("...k,kl,...l->...", table.sum(axis=-1), weights_QQ, table.sum(axis=-2))
    return _beyond_chance(observed, expected)


def _anova_sums(ratings_NR: FloatArray, scale: Scale) -> FloatArray:
    """Per complete response: 1, each rating (R), the sum of their squares, the square of their sum; else all 0.

    Ratings are taken from the first point of the scale in units of its length, so that rounding stays harmless.
    """
    _refuse_off_scale(ratings_NR, scale)
    is_complete_N = np.count_nonzero(np.isnan(ratings_NR), axis=1) == 0
    steps_NR = np.where(is_complete_N[:, None], (ratings_NR - scale.points[0]) / np.ptp(scale.values), 0.0)
    return np.column_stack([is_complete_N, steps_NR, (steps_NR**2).sum(axis=1), steps_NR.sum(axis=1) ** 2])


def _icc_value(totals: FloatArray, *, of_mean: bool) -> FloatArray:
    n, columns, squares, squared_rows = totals[..., 0], totals[..., 1:-2], totals[..., -2], totals[..., -1]
    k = columns.shape[-1]
    correction = _ratio(columns.sum(axis=-1) ** 2, n * k)
    between_rows = squared_rows / k - correction
    between_raters = _ratio((columns**2).sum(axis=-1), n) - correction
    residual = squares - correction - between_rows - between_raters
    ms_rows = _ratio(between_rows, n - 1)
    ms_raters = between_raters / (k - 1)
    ms_residual = _ratio(residual, (n - 1) * (k - 1))
    bias = _ratio(ms_raters - ms_residual, n)
    if of_mean:
        total = ms_rows + bias  # an estimate of a variance; at 0 or below, the coefficient could be anything
        return _ratio(ms_rows - ms_residual, np.where(total > 0, total, 0.0))
    return _ratio(ms_rows - ms_residual, ms_rows + (k - 1) * ms_residual + k * bias)


# The coefficients, as plain functions of a matrix.


def _of_pairs(
    name: str, ratings: FloatArray, sums: FloatArray, value: Callable[[FloatArray], FloatArray]
) -> Coefficient:
    return Coefficient(name, ratings, sums, value, np.count_nonzero(~np.isnan(ratings), axis=1) >= 2)


def percent_agreement(ratings: FloatArray, scale: Scale) -> float:
    """The chance that two raters of a response gave it the same point, averaged over responses; 0 to 1.

    ratings: shape (n_responses, n_raters), on the points of the scale; NaN = not rated.
    Raises ValueError if no response has two ratings.
    """
    value = partial(_observed, weights_QQ=np.eye(len(scale.points)))
    return _of_pairs("percent_agreement", ratings, _pair_sums(ratings, scale), value).point_value()


def fleiss_kappa(ratings: FloatArray, scale: Scale, *, weights: Weights | FloatArray = "identity") -> float:
    """Agreement beyond chance if raters are interchangeable; Fleiss' kappa where all responses have equal raters.

    ratings: shape (n_responses, n_raters), on the points of the scale; NaN = not rated. With unequal numbers of
    ratings, responses with two or more give the observed agreement and all give the shares of the points.

    Returns 1 for perfect agreement, 0 for chance; NaN if every rating is the same point.
    Raises ValueError if no response has two ratings, or a rating is off the scale.

    Source: Fleiss (1971), Psychological Bulletin 76; Gwet (2014), Handbook of Inter-Rater Reliability, chapter 2.
    """
    value = partial(_fleiss_value, weights_QQ=weight_matrix(scale, weights))
    return _of_pairs("fleiss_kappa", ratings, _pair_sums(ratings, scale), value).point_value()


def krippendorff_alpha(ratings: FloatArray, scale: Scale, *, level: Level = "ordinal") -> float:
    """Agreement beyond chance among any number of raters, chance drawn without replacement.

    ratings: as for fleiss_kappa; responses with one rating are left out.
    level: how far apart two points are: "nominal", "ordinal" or "interval".

    Returns 1 for perfect agreement, 0 for chance; NaN if every rating is the same point.
    Raises ValueError if no response has two ratings, or a rating is off the scale.

    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability.
    """
    value = partial(_alpha_value, scale=scale, level=level)
    return _of_pairs("krippendorff_alpha", ratings, _pair_sums(ratings, scale), value).point_value()


def gwet_ac(ratings: FloatArray, scale: Scale, *, weights: Weights | FloatArray = "identity") -> float:
    """Gwet's AC1, or AC2 with weights: agreement beyond a chance that skewed ratings do not inflate.

    ratings: as for fleiss_kappa. Defined for constant ratings, where it is 1.
    Raises ValueError if no response has two ratings, or a rating is off the scale.

    Source: Gwet (2008), British Journal of Mathematical and Statistical Psychology 61; Gwet (2014), chapter 4.
    """
    value = partial(_gwet_value, weights_QQ=weight_matrix(scale, weights))
    return _of_pairs("gwet_ac", ratings, _pair_sums(ratings, scale), value).point_value()


def brennan_prediger(ratings: FloatArray, scale: Scale, *, weights: Weights | FloatArray = "identity") -> float:
    """Agreement beyond a chance of one in the number of declared points; also called Randolph's kappa.

    ratings: as for fleiss_kappa. Defined for constant ratings, where it is 1.
    Raises ValueError if no response has two ratings, or a rating is off the scale.

    Source: Brennan & Prediger (1981), Educational and Psychological Measurement 41.
    """
    value = partial(_brennan_prediger_value, weights_QQ=weight_matrix(scale, weights))
    return _of_pairs("brennan_prediger", ratings, _pair_sums(ratings, scale), value).point_value()


def conger_kappa(ratings: FloatArray, scale: Scale, *, weights: Weights | FloatArray = "identity") -> float:
    """Fleiss' kappa with each rater's own habit as chance; equal to Cohen's kappa for two raters who rated all.

    ratings: as for fleiss_kappa; a rater without any rating is left out.
    Returns NaN if every rating is the same point. Raises ValueError as fleiss_kappa does.

    Source: Conger (1980), Psychological Bulletin 88; with missing ratings Gwet (2014), chapter 2.
    """
    ratings = ratings[:, np.count_nonzero(~np.isnan(ratings), axis=0) > 0]
    value = partial(_conger_value, weights_QQ=weight_matrix(scale, weights))
    return _of_pairs("conger_kappa", ratings, _margin_sums(ratings, scale), value).point_value()


def cohen_kappa(ratings: FloatArray, scale: Scale, *, weights: Weights | FloatArray = "identity") -> float:
    """Agreement of two raters beyond the chance that follows from how each uses the scale.

    ratings: shape (n_responses, 2), on the points of the scale; NaN = not rated, and the response is left out.
    Returns NaN if both gave one and the same point throughout.
    Raises ValueError if no response has both ratings, or a rating is off the scale.

    Source: Cohen (1960, 1968), Psychological Bulletin 70.
    """
    value = partial(_cohen_value, weights_QQ=weight_matrix(scale, weights))
    return _of_pairs("cohen_kappa", ratings, _crosstab_sums(ratings, scale), value).point_value()


def category_kappas(ratings: FloatArray, scale: Scale) -> FloatArray:
    """Fleiss' kappa of each point against all others: shape (n_points,); NaN for a point never or always used.

    ratings: as for fleiss_kappa. Shows which point raters see alike and which they do not.
    Source: Fleiss (1971), equation 11.
    """
    return np.array([fleiss_kappa(_is_point(ratings, point), _YES_NO) for point in scale.points])


def icc_agreement(ratings: FloatArray, scale: Scale, *, of_mean: bool = False) -> float:
    """ICC(2,1), or ICC(2,k) of the mean of all raters: absolute agreement, raters taken as a sample.

    ratings: shape (n_responses, n_raters); only responses rated by every rater are used.
    Returns NaN if every rating is the same point. Raises ValueError if fewer than two responses are complete.

    Source: Shrout & Fleiss (1979), Psychological Bulletin 86.
    """
    return icc_coefficient(ratings, scale, of_mean=of_mean).point_value()


def _is_point(ratings: FloatArray, point: float) -> FloatArray:
    return np.where(np.isnan(ratings), np.nan, (ratings == point).astype(np.float64))


def icc_coefficient(ratings: FloatArray, scale: Scale, *, of_mean: bool) -> Coefficient:
    """The same as sums over responses, ready for intervals."""
    return Coefficient(
        name="icc_2_k" if of_mean else "icc_2_1",
        ratings=ratings,
        sums=_anova_sums(ratings, scale),
        value=partial(_icc_value, of_mean=of_mean),
        used=np.count_nonzero(np.isnan(ratings), axis=1) == 0,
        unused="no_complete_responses",
    )


# All of them at once.


def all_coefficients(matrix: RatingMatrix) -> list[Coefficient]:
    """Every coefficient of a matrix: those of all raters, then of each point, then of each pair of raters."""
    ratings, scale = matrix.ratings, matrix.scale
    identity, quadratic = weight_matrix(scale, "identity"), weight_matrix(scale, "quadratic")
    of_pairs = partial(_of_pairs, ratings=ratings, sums=_pair_sums(ratings, scale))
    margins = _margin_sums(ratings, scale)
    return [
        of_pairs("percent_agreement", value=partial(_observed, weights_QQ=identity)),
        of_pairs("fleiss_kappa", value=partial(_fleiss_value, weights_QQ=identity)),
        of_pairs("krippendorff_alpha_nominal", value=partial(_alpha_value, scale=scale, level="nominal")),
        of_pairs("krippendorff_alpha_ordinal", value=partial(_alpha_value, scale=scale, level="ordinal")),
        of_pairs("krippendorff_alpha_interval", value=partial(_alpha_value, scale=scale, level="interval")),
        of_pairs("gwet_ac1", value=partial(_gwet_value, weights_QQ=identity)),
        of_pairs("gwet_ac2_quadratic", value=partial(_gwet_value, weights_QQ=quadratic)),
        of_pairs("brennan_prediger", value=partial(_brennan_prediger_value, weights_QQ=identity)),
        _of_pairs("conger_kappa", ratings, margins, partial(_conger_value, weights_QQ=identity)),
        icc_coefficient(ratings, scale, of_mean=False),
        icc_coefficient(ratings, scale, of_mean=True),
        *[_point_coefficient(matrix, point) for point in scale.points],
        *[_rater_pair_coefficient(matrix, pair, weights) for pair in _pairs_of(matrix) for weights in ORDERED],
    ]


def repeat_coefficients(matrix: RatingMatrix) -> list[Coefficient]:
    """The two coefficients of a matrix whose columns are a first and a repeated rating."""
    ratings, scale = matrix.ratings, matrix.scale
    identical = partial(_observed, weights_QQ=weight_matrix(scale, "identity"))
    kappa = partial(_cohen_value, weights_QQ=weight_matrix(scale, "quadratic"))
    panel = [
        _of_pairs("repeat_percent_identical", ratings, _pair_sums(ratings, scale), identical),
        _of_pairs("repeat_kappa_quadratic", ratings, _crosstab_sums(ratings, scale), kappa),
    ]
    return [replace(coefficient, unrated="no_repeats") for coefficient in panel]


def _pairs_of(matrix: RatingMatrix) -> list[tuple[int, int]]:
    return list(combinations(range(len(matrix.raters)), 2))


def _point_coefficient(matrix: RatingMatrix, point: float) -> Coefficient:
    ratings = _is_point(matrix.ratings, point)
    value = partial(_fleiss_value, weights_QQ=np.eye(2))
    coefficient = _of_pairs("category_kappa", ratings, _pair_sums(ratings, _YES_NO), value)
    return replace(coefficient, detail={"point": f"{point:g}"})


def _rater_pair_coefficient(matrix: RatingMatrix, pair: tuple[int, int], weights: Weights) -> Coefficient:
    ratings = matrix.ratings[:, pair]
    value = partial(_cohen_value, weights_QQ=weight_matrix(matrix.scale, weights))
    coefficient = _of_pairs(f"cohen_kappa_{weights}", ratings, _crosstab_sums(ratings, matrix.scale), value)
    return replace(coefficient, detail={"raters": ", ".join(matrix.raters[rater] for rater in pair)})
