import numpy as np
import pytest
from statsmodels.genmod.generalized_estimating_equations import OrdinalGEE

from metrics.gee import marginal_fit


def drawn(n_points, *, n=300, n_clusters=40, seed=0):
    """Points, fixed effects and clusters of ratings that hang together within clusters."""
    rng = np.random.default_rng(seed)
    fixed, clusters = rng.integers(0, 2, (n, 3)).astype(float), rng.integers(0, n_clusters, n)
    latent = fixed @ [0.8, -0.5, 0.3] + rng.normal(size=n_clusters)[clusters] + rng.logistic(size=n)
    return np.digitize(latent, np.linspace(-1, 1.5, n_points - 1)), fixed, clusters


@pytest.mark.parametrize("n_points", [2, 3, 5])
def test_effects_and_errors_are_those_of_statsmodels(n_points):
    points, fixed, clusters = drawn(n_points)
    theirs, effects = OrdinalGEE(points, fixed, clusters).fit(ctol=1e-10), slice(n_points - 1, None)
    ours = marginal_fit(points, fixed, clusters)
    assert ours.effects_X == pytest.approx(np.asarray(theirs.params)[effects], abs=1e-8)
    assert ours.covariance_XX == pytest.approx(np.asarray(theirs.cov_params())[effects, effects], rel=1e-6)


def test_the_scale_turned_over_turns_the_effects():
    points, fixed, clusters = drawn(4)
    ours, turned = marginal_fit(points, fixed, clusters), marginal_fit(3 - points, fixed, clusters)
    assert turned.effects_X == pytest.approx(-ours.effects_X, abs=1e-9)
    assert turned.covariance_XX == pytest.approx(ours.covariance_XX, rel=1e-9)


def test_every_cluster_twice_gives_the_same_effects_and_half_the_variance():
    points, fixed, clusters = drawn(3)
    twice = marginal_fit(np.tile(points, 2), np.tile(fixed, (2, 1)), np.concatenate([clusters, clusters + 40]))
    ours = marginal_fit(points, fixed, clusters)
    assert twice.effects_X == pytest.approx(ours.effects_X, abs=1e-9)
    assert twice.covariance_XX == pytest.approx(ours.covariance_XX / 2, rel=1e-9)


def test_an_effect_without_end_has_no_covariance():
    points = np.array([0, 0, 1, 1] * 5)
    found = marginal_fit(points, points[:, None].astype(float), np.arange(20) // 4)
    assert found.covariance_XX is None
    assert found.effects_X[0] > 15
