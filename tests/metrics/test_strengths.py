import numpy as np
import pytest
import statsmodels.api as sm

from metrics.strengths import davidson_strengths

PAIRS = [(0, 1), (0, 2), (1, 2)]


def test_strengths_agree_with_a_log_linear_model():  # Davidson's model as Poisson regression, fitted by statsmodels
    outcomes = np.array([[30, 12, 18], [25, 20, 15], [22, 9, 14]], dtype=float)
    design, counts = [], []
    for place, (first, second) in enumerate(PAIRS):
        for outcome, credit in enumerate([(1, 0), (0.5, 0.5), (0, 1)]):
            strength = np.zeros(3)
            strength[[first, second]] = credit
            design.append([*(place == np.arange(3)), outcome == 1, *strength[1:]])
            counts.append(outcomes[place, outcome])
    fit = sm.GLM(np.array(counts), np.array(design, float), family=sm.families.Poisson()).fit(tol=1e-14)
    theirs = np.array([0, *fit.params[-2:]])
    assert davidson_strengths(outcomes, PAIRS, 3) == pytest.approx(theirs - theirs.mean(), abs=1e-9)


def test_strengths_without_ties_are_those_of_bradley_and_terry():
    outcomes = np.array([[3.0, 0.0, 1.0]])
    assert davidson_strengths(outcomes, [(0, 1)], 2) == pytest.approx(np.log(3) * np.array([0.5, -0.5]), abs=1e-9)


def test_many_strengths_at_once_are_those_of_each():
    outcomes = np.random.default_rng(0).integers(1, 40, (20, 3, 3)).astype(float)
    together = davidson_strengths(outcomes, PAIRS, 3)
    assert together.shape == (20, 3)
    assert together == pytest.approx(np.array([davidson_strengths(one, PAIRS, 3) for one in outcomes]), abs=1e-9)


@pytest.mark.parametrize(
    ("outcomes", "pairs"),
    [
        ([[0, 9, 0], [0, 9, 0], [0, 9, 0]], PAIRS),
        ([[5, 2, 3], [0, 0, 0], [0, 0, 0]], PAIRS),
        ([[5, 1, 0], [5, 0, 0], [4, 3, 2]], [(0, 1), (0, 2), (1, 2)]),
        ([[5, 5, 0]], [(0, 1)]),
    ],
    ids=["ties alone", "the third met nobody", "a tie bounds the first", "never a loss"],
)
def test_strengths_without_an_end_are_undefined(outcomes, pairs):
    strengths = davidson_strengths(np.array(outcomes, float), pairs, 1 + max(max(pair) for pair in pairs))
    assert np.isfinite(strengths).all() == (outcomes[0] == [5, 1, 0])
