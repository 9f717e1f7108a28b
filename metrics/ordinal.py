"""The cumulative logit mixed model: its likelihood by quadrature, and where that is highest.

The model of a rating y on points 0 … Q-1, with fixed effects x, in response s of dialogue d:

    logit P(y <= c) = threshold_c - (x * fixed + sd_dialogue * u_d + sd_response * v_ds),   u, v ~ N(0, 1)

The likelihood integrates u and v on an even grid, one within the other, and is maximised with its exact gradient. For
a smooth function under a normal curve this trapezoid rule converges exponentially; Gauss-Hermite needs twice as many
nodes for the same digits once deviations reach 3, because it spends many of them far out. Equal patterns of ratings
in a response, and of responses in a dialogue, are computed once, so a study costs as much as its distinct patterns.
Standard errors come from the observed information.

Sources: Christensen (2019), A Tutorial on fitting Cumulative Link Mixed Models with the ordinal package; Tutz &
Hennevogl (1996), Random effects in ordinal regression models; Trefethen & Weideman (2014), The Exponentially Convergent
Trapezoidal Rule.

Shapes: N = ratings, X = fixed effects, G = sets of thresholds, J = distinct fixed parts, Q = points, P = distinct
responses, D = distinct dialogues, U and V = nodes of the outer and inner integral, M = U * V.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse, special

from metrics.results import Reason
from metrics.table import FloatArray, IntArray

GRID_END = 6.0  # standard deviations; a normal curve holds 2e-9 beyond
NODES = (21, 41, 61)  # tried in turn until a rule of twice the size agrees
SETTLED = 1e-4  # nats by which two rules may differ
GRADIENT = 1e-8  # slope, in nats per unit, at which the search may stop …
FLAT = 1e-4  # … and the largest at which its end is a maximum
MOST_STEPS = 12  # with one inverse of the information
BOUNDARY = 1e-3  # a standard deviation below this is zero
SD_LIMIT = 8.0  # log-odds; beyond it the ratings do not bound the deviation
EFFECT_LIMIT = 15.0  # log-odds; beyond it an effect is infinite for all we know
CELLS_AT_ONCE = 2_000_000  # distinct responses × nodes computed together: some 16 MB an array


# The likelihood.


@dataclass(frozen=True)
class OrdinalData:
    """Ratings ready for a fit.

    points_N: 0 … n_points - 1, each of which occurs;  fixed_NX: columns of fixed effects, no constant among them.
    dialogue_N, response_N: which dialogue and response a rating belongs to; None leaves that random effect out.
    thresholds_N: which set of thresholds applies, 0 … G - 1 (all zero: the proportional odds model).
    """

    points_N: IntArray
    fixed_NX: FloatArray
    dialogue_N: IntArray | None = None
    response_N: IntArray | None = None
    thresholds_N: IntArray | None = None


class _Block(NamedTuple):
    """Some distinct dialogues: cells of each distinct response, responses of each dialogue, how many dialogues."""

    cells_PK: sparse.csr_array  # K = J * Q: which points were given to which fixed part, how often
    responses_DP: sparse.csr_array
    weight_D: FloatArray


class Likelihood:
    """The log-likelihood of a cumulative logit mixed model and its gradient.

    Parameters, in order: for each set of thresholds the lowest and the logarithms of the steps to the next; fixed
    effects; standard deviation of dialogues and of responses, where present. The sign of a deviation means nothing.
    """

    def __init__(self, data: OrdinalData) -> None:
        self.n_points = int(data.points_N.max()) + 1
        sets_N = np.zeros(len(data.points_N), dtype=np.int64) if data.thresholds_N is None else data.thresholds_N
        self.n_sets = int(sets_N.max()) + 1
        self.has_dialogue, self.has_response = data.dialogue_N is not None, data.response_N is not None
        distinct, part_N = np.unique(np.column_stack([sets_N, data.fixed_NX]), axis=0, return_inverse=True)
        self.set_J, self.fixed_JX = distinct[:, 0].astype(np.int64), distinct[:, 1:]
        self.n_thresholds, self.n_fixed = self.n_sets * (self.n_points - 1), self.fixed_JX.shape[1]
        self.n_parameters = self.n_thresholds + self.n_fixed + self.has_dialogue + self.has_response
        cell_N = part_N * self.n_points + data.points_N
        self._set_patterns(data, cell_N, len(distinct) * self.n_points)

    def _set_patterns(self, data: OrdinalData, cell_N: IntArray, n_cells: int) -> None:
        """Fold equal responses, then equal dialogues. Without a random effect every rating is a unit of its own."""
        n = len(cell_N)
        inner_N = np.arange(n) if data.response_N is None else np.unique(data.response_N, return_inverse=True)[1]
        outer_N = inner_N if data.dialogue_N is None else np.unique(data.dialogue_N, return_inverse=True)[1]
        ones = np.ones(n)
        cells_RK = sparse.csr_array(sparse.coo_array((ones, (inner_N, cell_N)), shape=(inner_N.max() + 1, n_cells)))
        response_P, pattern_R, _ = _distinct_rows(cells_RK)
        outer_R = np.empty(len(pattern_R), dtype=np.int64)
        outer_R[inner_N] = outer_N
        shape = (outer_R.max() + 1, len(response_P))
        patterns_CP = sparse.csr_array(sparse.coo_array((np.ones(len(outer_R)), (outer_R, pattern_R)), shape=shape))
        dialogue_D, _, weight_D = _distinct_rows(patterns_CP)
        self.cells_PK, self.responses_DP, self.weight_D = cells_RK[response_P], patterns_CP[dialogue_D], weight_D

    def blocks(self, n_nodes: int) -> list[_Block]:
        """The dialogues in blocks small enough for their responses × nodes to be held at once."""
        n_responses = np.diff(self.responses_DP.indptr)
        block_D = np.cumsum(n_responses) * n_nodes // CELLS_AT_ONCE
        blocks = []
        for block in np.unique(block_D):
            responses_DP = self.responses_DP[np.flatnonzero(block_D == block)]
            used_P = np.unique(responses_DP.indices)
            blocks.append(_Block(self.cells_PK[used_P], responses_DP[:, used_P], self.weight_D[block_D == block]))
        return blocks

    def at(self, n_nodes: int) -> "Quadrature":
        """The likelihood by a rule of so many nodes for each of its integrals."""
        return Quadrature(self, n_nodes)

    def split(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
        """Thresholds of shape (G, Q - 1), fixed effects, and the two deviations (0 where absent)."""
        raw_GC = parameters[: self.n_thresholds].reshape(self.n_sets, -1)
        thresholds_GC = np.cumsum(np.column_stack([raw_GC[:, :1], np.exp(raw_GC[:, 1:])]), axis=1)
        fixed_X = parameters[self.n_thresholds : self.n_thresholds + self.n_fixed]
        deviations = iter(parameters[self.n_thresholds + self.n_fixed :])
        dialogue = float(next(deviations)) if self.has_dialogue else 0.0
        response = float(next(deviations)) if self.has_response else 0.0
        return thresholds_GC, fixed_X, dialogue, response


def _distinct_rows(rows: sparse.csr_array) -> tuple[IntArray, IntArray, FloatArray]:
    """One row number per distinct row, the distinct row that each row is, and how many rows share it."""
    rows.sum_duplicates()
    seen: dict[bytes, int] = {}
    first: list[int] = []
    which = np.empty(rows.shape[0], dtype=np.int64)
    for row in range(rows.shape[0]):
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        key = rows.indices[part].tobytes() + b"|" + rows.data[part].tobytes()
        which[row] = seen.setdefault(key, len(seen))
        if which[row] == len(first):
            first.append(row)
    return np.array(first, dtype=np.int64), which, np.bincount(which).astype(np.float64)


class Quadrature:
    """`Likelihood` with its integrals written as sums over nodes; called with parameters, it gives value and slope."""

    def __init__(self, likelihood: Likelihood, n_nodes: int) -> None:
        self.likelihood, self.n_nodes = likelihood, n_nodes
        self.u_U, self.log_weight_U = _nodes(n_nodes if likelihood.has_dialogue else 1)
        self.v_V, self.log_weight_V = _nodes(n_nodes if likelihood.has_response else 1)
        self.blocks = likelihood.blocks(len(self.u_U) * len(self.v_V))

    def __call__(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """The log-likelihood in nats, and its gradient in the parameters."""
        model = self.likelihood
        thresholds_GC, fixed_X, sd_dialogue, sd_response = model.split(parameters)
        u_M, v_M = np.tile(self.u_U, len(self.v_V)), np.repeat(self.v_V, len(self.u_U))
        fixed_JC = thresholds_GC[model.set_J] - (model.fixed_JX @ fixed_X)[:, None]
        z_JCM = fixed_JC[:, :, None] - (sd_dialogue * u_M + sd_response * v_M)
        steps_JC = np.diff(thresholds_GC, axis=1)[model.set_J]  # distances between neighbouring thresholds
        log_below_JCM = special.log_expit(z_JCM)
        log_above_JCM = log_below_JCM - z_JCM
        log_p_JQM = _log_probabilities(log_below_JCM, log_above_JCM, steps_JC)
        value, weights_JQM = self._integrate(log_p_JQM)
        below_JCM = np.exp(log_below_JCM)
        with np.errstate(over="ignore"):  # a search may try thresholds so far apart that 1 / expm1 is 0
            return value, self._gradient(parameters, weights_JQM, below_JCM, steps_JC, u_M, v_M)

    def _integrate(self, log_p_JQM: FloatArray) -> tuple[float, FloatArray]:
        """The log-likelihood, and how often each cell is to be expected at each node, given the ratings."""
        n_cells, shape = log_p_JQM.shape[0] * log_p_JQM.shape[1], (-1, len(self.v_V), len(self.u_U))
        log_p_KM = log_p_JQM.reshape(n_cells, -1)
        total, weights_KM = 0.0, np.zeros_like(log_p_KM)
        for cells_PK, responses_DP, weight_D in self.blocks:
            joint_PVU = (cells_PK @ log_p_KM).reshape(shape) + self.log_weight_V[:, None]
            top_PU = joint_PVU.max(axis=1)
            joint_PVU = np.exp(joint_PVU - top_PU[:, None, :])
            sum_PU = joint_PVU.sum(axis=1)
            joint_DU = responses_DP @ (top_PU + np.log(sum_PU)) + self.log_weight_U
            top_D = joint_DU.max(axis=1)
            joint_DU = np.exp(joint_DU - top_D[:, None])
            sum_D = joint_DU.sum(axis=1)
            total += float(weight_D @ (top_D + np.log(sum_D)))
            posterior_DU = (weight_D / sum_D)[:, None] * joint_DU
            joint_PVU *= ((responses_DP.T @ posterior_DU) / sum_PU)[:, None, :]
            weights_KM += cells_PK.T @ joint_PVU.reshape(len(joint_PVU), -1)
        return total, weights_KM.reshape(log_p_JQM.shape)

    def _gradient(
        self,
        parameters: FloatArray,
        weights_JQM: FloatArray,
        below_JCM: FloatArray,
        steps_JC: FloatArray,
        u_M: FloatArray,
        v_M: FloatArray,
    ) -> FloatArray:
        """By the chain rule from the expected cells; d log p / d upper = 1 - F(upper), / d lower = -F(lower)."""
        model = self.likelihood
        up_JCM = weights_JQM[:, :-1] * (1 - below_JCM)  # the point below each threshold pulls it up …
        down_JCM = weights_JQM[:, 1:] * below_JCM  # … and the point above it pulls it down
        pull_JCM = up_JCM - down_JCM
        pull_JM = pull_JCM.sum(axis=1)
        gradient = [np.empty(model.n_thresholds), -model.fixed_JX.T @ pull_JM.sum(axis=1)]
        if model.has_dialogue:
            gradient.append(np.array([-(pull_JM @ u_M).sum()]))
        if model.has_response:
            gradient.append(np.array([-(pull_JM @ v_M).sum()]))
        pull_GC = np.zeros((model.n_sets, model.n_points - 1))
        np.add.at(pull_GC, model.set_J, pull_JCM.sum(axis=2))
        later_GC = np.cumsum(pull_GC[:, ::-1], axis=1)[:, ::-1]  # a step moves its threshold and all above it
        widen_GC = np.zeros((model.n_sets, model.n_points - 2))
        np.add.at(widen_GC, model.set_J, weights_JQM[:, 1:-1].sum(axis=2) / np.expm1(steps_JC))
        steps_GC = np.exp(parameters[: model.n_thresholds].reshape(model.n_sets, -1)[:, 1:])
        raw_GC = np.column_stack([later_GC[:, :1], steps_GC * (later_GC[:, 1:] + widen_GC)])
        gradient[0] = raw_GC.ravel()
        return np.concatenate(gradient)


def _nodes(n_nodes: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and log weights for the mean of a function of a standard normal; a single node is its mean, 0."""
    nodes = np.linspace(-GRID_END, GRID_END, n_nodes) if n_nodes > 1 else np.zeros(1)
    log_weights = -(nodes**2) / 2
    return nodes, log_weights - special.logsumexp(log_weights)


def _log_probabilities(log_below_JCM: FloatArray, log_above_JCM: FloatArray, steps_JC: FloatArray) -> FloatArray:
    """log P of each point: F(b) - F(a) = F(b) * F(-a) * (1 - exp(a - b)), which never subtracts like from like."""
    between = log_below_JCM[:, 1:] + log_above_JCM[:, :-1] + np.log(-np.expm1(-steps_JC))[:, :, None]
    return np.concatenate([log_below_JCM[:, :1], between, log_above_JCM[:, -1:]], axis=1)


# The fit.


@dataclass(frozen=True)
class Fit:
    """The maximum and what it rests on. Deviations are 0 or more; 0 means the boundary, and then they have no error.

    covariance_XX: of the fixed effects;  deviation_errors: standard errors of the two deviations, None where absent
    or at the boundary;  threshold_errors_GC: likewise of the thresholds.
    reason: why these numbers cannot be trusted; None if they can.
    """

    thresholds_GC: FloatArray
    threshold_errors_GC: FloatArray
    fixed_X: FloatArray
    covariance_XX: FloatArray
    sd_dialogue: float | None
    sd_response: float | None
    deviation_errors: tuple[float | None, float | None]
    log_likelihood: float
    n_parameters: int
    n_nodes: int
    largest_slope: float
    n_steps: int
    reason: Reason | None = None


def fit(data: OrdinalData, *, nodes: Sequence[int] = NODES) -> Fit:
    """The maximum likelihood fit.

    nodes: sizes of the quadrature rule, tried in turn until a rule of twice the size gives the same log-likelihood to
    1e-4; a single size is taken as it is. If the last one still differs, the reason is "not_converged".

    Raises ValueError if a point does not occur or the fixed effects cannot be told apart.
    """
    _refuse_unfit(data)
    model = Likelihood(data)
    parameters, n_steps = _start(model, data), 0
    for size in nodes:
        objective = model.at(size)
        parameters, information, n = _maximum(objective, parameters)
        n_steps += n
        is_settled = len(nodes) == 1 or abs(model.at(2 * size)(parameters)[0] - objective(parameters)[0]) < SETTLED
        if is_settled:
            break
    return _described(objective, parameters, information, n_steps, is_settled=is_settled)


def _refuse_unfit(data: OrdinalData) -> None:
    counts = np.bincount(data.points_N)
    if len(counts) < 2 or not counts.all():
        raise ValueError(f"every point from 0 up must occur, and at least two; they occur {counts.tolist()} times")
    constant = np.ones((len(data.points_N), 1))
    with_constant = np.column_stack([constant, data.fixed_NX])
    if np.linalg.matrix_rank(with_constant) < with_constant.shape[1]:
        raise ValueError("the fixed effects cannot be told apart: one of them follows from the others")


def _start(model: Likelihood, data: OrdinalData) -> FloatArray:
    """Thresholds from the shares of the points, no effects, deviations of 1."""
    below = np.cumsum(np.bincount(data.points_N))[:-1] / len(data.points_N)
    thresholds = special.logit(below)
    raw = np.concatenate([thresholds[:1], np.log(np.diff(thresholds))])
    deviations = [1.0] * (model.has_dialogue + model.has_response)
    return np.concatenate([np.tile(raw, model.n_sets), np.zeros(model.n_fixed), deviations])


def _maximum(objective: Quadrature, parameters: FloatArray) -> tuple[FloatArray, FloatArray, int]:
    """Where the likelihood is highest, the information there, and how many steps led to it: BFGS, then Newton's."""

    def minus(at: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = objective(at)
        return -value, -gradient

    found = optimize.minimize(minus, parameters, jac=True, method="BFGS", options={"gtol": FLAT, "maxiter": 200})
    best, inverse, n_steps = np.asarray(found.x, dtype=np.float64), np.asarray(found.hess_inv), int(found.nit)
    for _ in range(5):
        best, slope, n = _stepped(objective, best, inverse)
        information, n_steps = _information(objective, best), n_steps + n
        if slope < GRADIENT or not np.isfinite(information).all() or np.linalg.matrix_rank(information) < len(best):
            break
        inverse = np.linalg.inv(information)
    return best, information, n_steps


def _stepped(objective: Quadrature, parameters: FloatArray, inverse: FloatArray) -> tuple[FloatArray, float, int]:
    """Steps with one inverse of the information, while they lead upwards: where to, the slope there, and how many."""
    (value, gradient), n_steps = objective(parameters), 0
    slope = float(np.abs(gradient).max())
    while slope >= GRADIENT and n_steps < MOST_STEPS:
        next_value, next_gradient = objective(parameters + inverse @ gradient)
        next_slope = float(np.abs(next_gradient).max())
        if not next_slope < slope or next_value < value - 1e-12 * abs(value):
            break
        parameters, value, gradient = parameters + inverse @ gradient, next_value, next_gradient
        slope, n_steps = next_slope, n_steps + 1
    return parameters, slope, n_steps


def _information(objective: Quadrature, parameters: FloatArray) -> FloatArray:
    """Minus the Hessian, from central differences of the exact gradient."""
    width = 1e-4
    rows = []
    for index in range(len(parameters)):
        step = np.zeros(len(parameters))
        step[index] = width * max(1.0, abs(parameters[index]))
        rows.append((objective(parameters - step)[1] - objective(parameters + step)[1]) / (2 * step[index]))
    hessian = np.array(rows)
    symmetric: FloatArray = (hessian + hessian.T) / 2
    return symmetric


def _described(
    objective: Quadrature, parameters: FloatArray, information: FloatArray, n_steps: int, *, is_settled: bool
) -> Fit:
    model = objective.likelihood
    thresholds_GC, fixed_X, *signed = model.split(parameters)
    present = (model.has_dialogue, model.has_response)
    deviations = [abs(sd) if abs(sd) >= BOUNDARY else 0.0 for sd in signed]
    first = model.n_thresholds + model.n_fixed
    places = dict(zip([which for which in (0, 1) if present[which]], range(first, model.n_parameters), strict=True))
    # At the boundary the likelihood is flat in the deviation and does not link it to any other parameter.
    kept = [*range(first), *[place for which, place in places.items() if deviations[which]]]
    value, gradient = objective(parameters)
    covariance = _inverse(information[np.ix_(kept, kept)])
    reason: Reason | None = None
    if max(deviations) > SD_LIMIT:
        reason = "not_converged"  # raters who never differ, for instance; effects then grow with the deviation
    elif np.abs(fixed_X).max(initial=0) > EFFECT_LIMIT:
        reason = "separation"
    elif covariance is None or not is_settled or np.abs(gradient).max() > FLAT:
        reason = "not_converged"
    if covariance is None:
        covariance = np.zeros((len(kept), len(kept)))
    errors = {place: float(np.sqrt(covariance[at, at])) for at, place in enumerate(kept)}
    jacobian = _threshold_slopes(model, parameters)
    threshold_variance = np.diag(jacobian @ covariance[: model.n_thresholds, : model.n_thresholds] @ jacobian.T)
    return Fit(
        thresholds_GC=thresholds_GC,
        threshold_errors_GC=np.sqrt(threshold_variance).reshape(thresholds_GC.shape),
        fixed_X=fixed_X,
        covariance_XX=covariance[model.n_thresholds : first, model.n_thresholds : first],
        sd_dialogue=deviations[0] if model.has_dialogue else None,
        sd_response=deviations[1] if model.has_response else None,
        deviation_errors=(errors.get(places.get(0, -1)), errors.get(places.get(1, -1))),
        log_likelihood=value,
        n_parameters=model.n_parameters,
        n_nodes=objective.n_nodes,
        largest_slope=float(np.abs(gradient).max()),
        n_steps=n_steps,
        reason=reason,
    )


def _inverse(information: FloatArray) -> FloatArray | None:
    """The covariance; None unless the information is positive definite."""
    if not np.isfinite(information).all() or np.linalg.eigvalsh(information).min() <= 0:
        return None
    return np.asarray(np.linalg.inv(information), dtype=np.float64)


def _threshold_slopes(model: Likelihood, parameters: FloatArray) -> FloatArray:
    """How thresholds move with the parameters that make them, one block per set."""
    raw_GC = parameters[: model.n_thresholds].reshape(model.n_sets, -1)
    width = raw_GC.shape[1]
    jacobian = np.zeros((model.n_thresholds, model.n_thresholds))
    for index, raw_C in enumerate(raw_GC):
        part = slice(index * width, (index + 1) * width)
        jacobian[part, part] = np.tril(np.tile(np.concatenate([[1.0], np.exp(raw_C[1:])]), (width, 1)))
    return jacobian
