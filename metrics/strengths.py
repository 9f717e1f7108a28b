"""How strong each system is, from who won against whom: Davidson's model of wins, ties and losses.

Shapes: B = sets of outcomes (resamples), P = pairs of systems, K = systems.
"""

from collections.abc import Sequence

import numpy as np

from metrics.table import BoolArray, FloatArray


def davidson_strengths(outcomes: FloatArray, pairs: Sequence[tuple[int, int]], n_systems: int) -> FloatArray:
    """Log-strengths that sum to 0, shape (..., n_systems): where neither ties, exp(a - b) are the odds of a over b.

    outcomes: shape (..., P, 3), wins of the first of each pair, ties, wins of the second; fractions are fine.

    NaN where no finite strengths exist: systems that no chain of comparisons connects, nothing but ties, or a system
    so far ahead that the likelihood rises for ever. One parameter for the frequency of ties is shared by all pairs.

    Source: Davidson (1970), On Extending the Bradley-Terry Model to Accommodate Ties. Fitted by Newton's method.
    """
    lead = outcomes.shape[:-2]
    counts_BP3 = outcomes.reshape(-1, len(pairs), 3)
    total_BP = counts_BP3.sum(axis=2)
    contrast_PK = np.zeros((len(pairs), n_systems))
    for place, (first, second) in enumerate(pairs):
        contrast_PK[place, [first, second]] = 1, -1
    crossed_PKK = contrast_PK[:, :, None] * contrast_PK[:, None, :]
    strength_BK, log_ties_B = np.zeros((len(counts_BP3), n_systems)), np.zeros(len(counts_BP3))
    step_BK = np.full_like(strength_BK, np.inf)
    for _ in range(60):
        half_lead_BP = strength_BK @ contrast_PK.T / 2
        weight_BP3 = np.exp(np.stack([half_lead_BP, np.tile(log_ties_B[:, None], len(pairs)), -half_lead_BP], axis=2))
        win, tie, loss = np.moveaxis(weight_BP3 / weight_BP3.sum(axis=2, keepdims=True), 2, 0)
        lead_BP = (win - loss) / 2
        slope_BP = (counts_BP3[:, :, 0] - counts_BP3[:, :, 2]) / 2 - total_BP * lead_BP
        gradient = np.column_stack([slope_BP @ contrast_PK, (counts_BP3[:, :, 1] - total_BP * tie).sum(axis=1)])
        information = np.empty((len(counts_BP3), n_systems + 1, n_systems + 1))
        information[:, :-1, :-1] = np.tensordot(total_BP * ((win + loss) / 4 - lead_BP**2), crossed_PKK, 1)
        information[:, :-1, :-1] += total_BP.mean(axis=1)[:, None, None]  # only differences are known: their sum is 0
        information[:, -1, :-1] = information[:, :-1, -1] = (-total_BP * tie * lead_BP) @ contrast_PK
        information[:, -1, -1] = (total_BP * tie * (1 - tie)).sum(axis=1)
        information += 1e-9 * np.eye(n_systems + 1)  # where there are no ties at all their parameter has no end
        step = np.clip(np.linalg.solve(information, gradient[:, :, None])[:, :, 0], -1, 1)
        step_BK = step[:, :-1]
        strength_BK, log_ties_B = strength_BK + step_BK, log_ties_B + step[:, -1]
        if np.abs(step_BK).max(initial=0) < 1e-10:
            break
    is_finite: BoolArray = np.abs(step_BK).max(axis=1) < 1e-8
    is_finite &= np.ptp(strength_BK, axis=1) < 12  # odds of 160,000 to 1
    is_finite &= is_connected(total_BP, pairs, n_systems) & (counts_BP3[:, :, [0, 2]].sum(axis=(1, 2)) > 0)
    found = np.where(is_finite[:, None], strength_BK - strength_BK.mean(axis=1, keepdims=True), np.nan)
    return found.reshape(*lead, n_systems)


def is_connected(total_BP: FloatArray, pairs: Sequence[tuple[int, int]], n_systems: int) -> BoolArray:
    """Whether a chain of compared pairs leads from every system to every other, shape (B,)."""
    reached = np.tile(np.eye(n_systems), (len(total_BP), 1, 1))
    for place, (first, second) in enumerate(pairs):
        reached[:, first, second] = reached[:, second, first] = total_BP[:, place] > 0
    for _ in range(n_systems.bit_length()):
        reached = (reached @ reached > 0).astype(np.float64)
    is_connected: BoolArray = reached.reshape(len(total_BP), -1).min(axis=1) > 0
    return is_connected
