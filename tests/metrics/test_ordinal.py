import numpy as np
import pytest
from scipy import integrate, optimize, special, stats
from statsmodels.miscmodels.ordinal_model import OrderedModel

import metrics.ordinal
from metrics.ordinal import Likelihood, OrdinalData, fit
from tests.metrics.reference import wine


def wine_data(*, with_judges=True):
    fixed = np.column_stack([np.tile(wine.IS_WARM, 9), np.tile(wine.HAS_CONTACT, 9)]).astype(float)
    judges = np.repeat(np.arange(9), 8)
    return OrdinalData(wine.BITTERNESS.ravel() - 1, fixed, judges if with_judges else None)


# The likelihood.


def random_data(*, n_sets=1, n_points=4, nested=True):
    rng = np.random.default_rng(n_sets + n_points)
    dialogue, response = np.repeat(np.arange(6), 6), np.repeat(np.arange(18), 2)
    return OrdinalData(
        points_N=np.concatenate([np.arange(n_points), rng.integers(0, n_points, 36 - n_points)]),
        fixed_NX=rng.integers(0, 2, (36, 2)).astype(float),
        dialogue_N=dialogue,
        response_N=response if nested else None,
        thresholds_N=rng.integers(0, n_sets, 36) if n_sets > 1 else None,
    )


@pytest.mark.parametrize("n_sets", [1, 3])
@pytest.mark.parametrize("n_points", [2, 4])
@pytest.mark.parametrize("nested", [True, False])
def test_the_gradient_is_that_of_the_likelihood(n_sets, n_points, nested):
    objective = Likelihood(random_data(n_sets=n_sets, n_points=n_points, nested=nested)).at(9)
    at = np.random.default_rng(1).normal(0, 0.7, objective.likelihood.n_parameters)
    numeric = [(objective(at + step)[0] - objective(at - step)[0]) / 2e-5 for step in 1e-5 * np.eye(len(at))]
    assert objective(at)[1] == pytest.approx(np.array(numeric), abs=1e-6)


def direct_likelihood(data, thresholds, fixed, sd_dialogue, sd_response):
    """The same integrals by Gauss-Hermite quadrature, one dialogue at a time, with plain probabilities."""
    cuts = np.concatenate([[-np.inf], thresholds, [np.inf]])
    location = data.fixed_NX @ fixed
    grid, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    total = 0.0
    for dialogue in np.unique(data.dialogue_N):
        given_u = np.ones(len(grid))
        for response in np.unique(data.response_N[data.dialogue_N == dialogue]):
            probability = np.ones((len(grid), len(grid)))
            for rating in np.flatnonzero((data.dialogue_N == dialogue) & (data.response_N == response)):
                shifted = location[rating] + sd_dialogue * grid[:, None] + sd_response * grid
                point = data.points_N[rating]
                probability *= special.expit(cuts[point + 1] - shifted) - special.expit(cuts[point] - shifted)
            given_u *= probability @ weights
        total += np.log(given_u @ weights)
    return total


def test_nested_quadrature_agrees_with_another_rule():
    data = random_data()
    parameters = np.array([-1.0, 0.1, 0.3, 0.4, -0.7, 1.1, 0.8])
    thresholds = np.cumsum([-1.0, np.exp(0.1), np.exp(0.3)])
    direct = direct_likelihood(data, thresholds, parameters[3:5], 1.1, 0.8)
    assert Likelihood(data).at(41)(parameters)[0] == pytest.approx(direct, abs=1e-8)


def test_a_rule_of_41_nodes_is_enough_for_wide_deviations():
    likelihood = Likelihood(random_data())
    for sd in (1.0, 3.0, 5.0):
        parameters = np.array([-1.0, 0.1, 0.3, 0.4, -0.7, sd / 2, sd])
        assert likelihood.at(41)(parameters)[0] == pytest.approx(likelihood.at(201)(parameters)[0], abs=1e-5)


def test_folding_equal_patterns_and_working_in_blocks_change_nothing(monkeypatch):
    data = random_data()
    parameters = np.random.default_rng(2).normal(0, 0.5, 7)
    value, gradient = Likelihood(data).at(9)(parameters)
    twice = OrdinalData(
        np.tile(data.points_N, 2),
        np.tile(data.fixed_NX, (2, 1)),
        np.concatenate([data.dialogue_N, data.dialogue_N + 6]),
        np.concatenate([data.response_N, data.response_N + 18]),
    )
    model = Likelihood(twice)
    assert len(model.weight_D) == 6 and (model.weight_D == 2).all()
    doubled = model.at(9)(parameters)
    monkeypatch.setattr(metrics.ordinal, "CELLS_AT_ONCE", 500)
    in_blocks = model.at(9)
    assert len(in_blocks.blocks) > 1
    for got in (doubled, in_blocks(parameters)):
        assert got[0] == pytest.approx(2 * value, abs=1e-10)
        assert got[1] == pytest.approx(2 * gradient, abs=1e-10)


# The fit.


def test_wine_without_judges_is_the_published_fit_and_that_of_statsmodels():
    data = wine_data(with_judges=False)
    ours = fit(data)
    published = wine.WITHOUT_JUDGES
    assert ours.fixed_X == pytest.approx(published["effects"], abs=6e-4)
    assert ours.thresholds_GC[0] == pytest.approx(published["thresholds"], abs=6e-4)
    assert ours.log_likelihood == pytest.approx(published["log_likelihood"], abs=6e-3)
    theirs = OrderedModel(data.points_N, data.fixed_NX, distr="logit").fit(method="newton", disp=False, tol=1e-12)
    assert ours.fixed_X == pytest.approx(theirs.params[:2], abs=1e-6)
    assert np.sqrt(np.diag(ours.covariance_XX)) == pytest.approx(theirs.bse[:2], abs=1e-5)
    assert ours.log_likelihood == pytest.approx(theirs.llf, abs=1e-8)


def laplace_likelihood(thresholds, effects, sd):
    """The approximation that the published fit maximises: for each judge a normal curve at the summit."""
    cuts = np.concatenate([[-np.inf], thresholds, [np.inf]])
    location = effects[0] * wine.IS_WARM + effects[1] * wine.HAS_CONTACT
    total = 0.0
    for ratings in wine.BITTERNESS:

        def minus_joint(u, ratings=ratings):
            shifted = location + sd * u
            probability = special.expit(cuts[ratings] - shifted) - special.expit(cuts[ratings - 1] - shifted)
            return -np.log(probability).sum() + u**2 / 2

        summit = optimize.minimize_scalar(minus_joint, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).x
        width = 1e-4
        curvature = (minus_joint(summit + width) - 2 * minus_joint(summit) + minus_joint(summit - width)) / width**2
        total -= minus_joint(summit) + np.log(curvature) / 2
    return total


def test_wine_with_judges_is_near_the_published_laplace_fit():
    """The published fit is of an approximation: at its own estimates it gives its own value, and ours is close."""
    published = wine.LAPLACE
    at_published = laplace_likelihood(published["thresholds"], published["effects"], published["sd"])
    assert at_published == pytest.approx(published["log_likelihood"], abs=6e-3)
    ours = fit(wine_data())
    assert ours.reason is None and ours.largest_slope < 1e-6
    assert ours.fixed_X == pytest.approx(published["effects"], abs=3e-3)
    assert ours.thresholds_GC[0] == pytest.approx(published["thresholds"], abs=4e-3)
    assert ours.sd_dialogue == pytest.approx(published["sd"], abs=5e-3)
    assert ours.log_likelihood == pytest.approx(published["log_likelihood"], abs=0.05)


def test_the_wine_fit_is_the_maximum_of_the_exact_likelihood():
    data, ours = wine_data(), fit(wine_data(), nodes=(41,))

    def exact(thresholds, effects, sd):
        cuts = np.concatenate([[-np.inf], thresholds, [np.inf]])
        location = data.fixed_NX @ effects

        def judge(members):
            def integrand(u):
                shifted = location[members] + sd * u
                points = data.points_N[members]
                probability = special.expit(cuts[points + 1] - shifted) - special.expit(cuts[points] - shifted)
                return np.prod(probability) * stats.norm.pdf(u)

            return integrate.quad(integrand, -8, 8, epsabs=1e-14)[0]

        return sum(np.log(judge(np.flatnonzero(data.dialogue_N == number))) for number in range(9))

    best = exact(ours.thresholds_GC[0], ours.fixed_X, ours.sd_dialogue)
    assert ours.log_likelihood == pytest.approx(best, abs=1e-6)
    for step in 0.02 * np.eye(3):
        for sign in (-1, 1):
            moved = ours.fixed_X + sign * step[:2], ours.sd_dialogue + sign * step[2]
            assert exact(ours.thresholds_GC[0], *moved) < best


def test_standard_errors_are_the_curvature_of_the_likelihood():
    data, ours = wine_data(), fit(wine_data())
    objective = Likelihood(data).at(ours.n_nodes)
    raw = np.concatenate([ours.thresholds_GC[0][:1], np.log(np.diff(ours.thresholds_GC[0]))])
    best = np.concatenate([raw, ours.fixed_X, [ours.sd_dialogue]])

    def slope_at(at):
        return objective(at)[1]

    information = -np.array([(slope_at(best + s) - slope_at(best - s)) / 2e-5 for s in 1e-5 * np.eye(len(best))])
    covariance = np.linalg.inv(information)
    assert ours.covariance_XX == pytest.approx(covariance[4:6, 4:6], rel=1e-4)
    assert ours.deviation_errors[0] == pytest.approx(np.sqrt(covariance[6, 6]), rel=1e-4)
    shifts = np.tril(np.tile(np.concatenate([[1.0], np.exp(raw[1:])]), (4, 1)))
    assert ours.threshold_errors_GC[0] == pytest.approx(
        np.sqrt(np.diag(shifts @ covariance[:4, :4] @ shifts.T)), rel=1e-4
    )


def test_a_point_that_never_occurs_or_a_doubled_effect_is_refused():
    with pytest.raises(ValueError, match="every point from 0 up must occur"):
        fit(OrdinalData(np.array([0, 2, 2]), np.zeros((3, 0))))
    with pytest.raises(ValueError, match="cannot be told apart"):
        fit(OrdinalData(np.array([0, 1, 0, 1]), np.array([[0.0, 0], [1, 1], [0, 0], [1, 1]])))
