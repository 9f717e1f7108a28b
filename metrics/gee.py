"""The cumulative logit without random effects: effects over all clusters, with errors that respect the clusters.

    logit P(y <= c) = threshold_c - x * effect

Generalised estimating equations with working independence: ratings count as independent of each other, the indicators
y > 0, y > 1, … of one rating do not, since their covariance is that of its points. These are then the score equations
of the proportional odds model, so an equation costs as much as there are distinct fixed parts, not ratings. That
ratings of a cluster hang together is left to the sandwich: information^-1 * (sum of squared scores) * information^-1.

Sources: Liang & Zeger (1986), Longitudinal data analysis using generalized linear models; Heagerty & Zeger (1996),
Marginal regression models for clustered ordinal measurements.

Shapes: N = ratings, X = fixed effects, C = thresholds, T = C + X parameters, J = distinct fixed parts, Q = points,
K = J * Q cells, G = clusters.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from metrics.table import FloatArray, IntArray

MOST_STEPS = 60
SMALLEST_STEP = 1e-10  # log-odds


class Marginal(NamedTuple):
    """Effects on the log-odds of a higher rating, shape (X,), and their covariance; None where nothing was found."""

    effects_X: FloatArray
    covariance_XX: FloatArray | None


def marginal_fit(points_N: IntArray, fixed_NX: FloatArray, clusters_N: IntArray) -> Marginal:
    """The solution, by Fisher's scoring.

    points_N: 0 … Q - 1, each of which occurs;  fixed_NX: no constant among them;  clusters_N: 0 … G - 1.
    """
    n_points = int(points_N.max()) + 1
    fixed_JX, part_N = np.unique(fixed_NX, axis=0, return_inverse=True)
    cells = (clusters_N, part_N * n_points + points_N)
    shape = (int(clusters_N.max()) + 1, len(fixed_JX) * n_points)
    counts_GK = sparse.csr_array(sparse.coo_array((np.ones(len(points_N)), cells), shape=shape))
    n_K = np.asarray(counts_GK.sum(axis=0), dtype=np.float64)
    n_JQ = n_K.reshape(-1, n_points)
    below = np.cumsum(n_JQ.sum(axis=0))[:-1] / len(points_N)
    parameters = np.concatenate([special.logit(below), np.zeros(fixed_JX.shape[1])])
    effects = slice(n_points - 1, None)
    with np.errstate(all="ignore"):  # an effect without end leaves a point without probability
        for _ in range(MOST_STEPS):
            p_JQ, scores_KT = _scores(parameters, fixed_JX, n_points)
            expected_K = (n_JQ.sum(axis=1, keepdims=True) * p_JQ).ravel()
            information = (scores_KT * expected_K[:, None]).T @ scores_KT
            try:
                inverse = np.linalg.inv(information)
            except np.linalg.LinAlgError:
                break
            step = inverse @ (n_K @ scores_KT)
            if not np.isfinite(step).all():
                break
            parameters = parameters + step
            if np.abs(step).max() < SMALLEST_STEP:
                scores_GT = counts_GK @ _scores(parameters, fixed_JX, n_points)[1]
                covariance = inverse @ (scores_GT.T @ scores_GT) @ inverse
                return Marginal(parameters[effects], covariance[effects, effects])
    return Marginal(parameters[effects], None)


def _scores(parameters: FloatArray, fixed_JX: FloatArray, n_points: int) -> tuple[FloatArray, FloatArray]:
    """The chance of each point, shape (J, Q), and the slope of its logarithm in each parameter, shape (K, T)."""
    thresholds_C, effects_X = np.split(parameters, [n_points - 1])
    below_JC = special.expit(thresholds_C - (fixed_JX @ effects_X)[:, None])
    edges = np.zeros((len(fixed_JX), 1))
    below_JE = np.column_stack([edges, below_JC, edges + 1])  # E: the edges of the points
    p_JQ = np.diff(below_JE, axis=1)
    density_JC = below_JC * (1 - below_JC)
    slopes_JQC = density_JC[:, None, :] * (np.eye(n_points)[:, :-1] - np.eye(n_points, k=-1)[:, :-1]) / p_JQ[:, :, None]
    pull_JQ = below_JE[:, 1:] + below_JE[:, :-1] - 1  # of the effects: minus the sum of those of the thresholds
    slopes_JQX = pull_JQ[:, :, None] * fixed_JX[:, None, :]
    return p_JQ, np.concatenate([slopes_JQC, slopes_JQX], axis=2).reshape(-1, len(parameters))
