import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from metrics.significance import holm, sign_flip


def test_exact_flips_agree_with_scipy():
    gains = np.random.default_rng(0).integers(-3, 5, (10, 4)) / 3.0
    gains[:, 3] = 0
    for test, column in zip(sign_flip(gains, rng=np.random.default_rng(0)), gains.T[:3], strict=False):
        theirs = stats.permutation_test(
            (column, np.zeros(10)), lambda x, y: (x - y).sum(), permutation_type="samples", n_resamples=np.inf
        )
        assert test.is_exact
        assert test.p == pytest.approx(theirs.pvalue, abs=1e-9)


def test_random_flips_come_close_to_all_flips():
    gains = np.random.default_rng(1).normal(0.35, 1, (16, 1))
    [ours] = sign_flip(gains, rng=np.random.default_rng(2), n_flips=100_000)
    signs = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    exact = np.mean(np.abs(signs @ gains) >= abs(gains.sum()) - 1e-12)
    assert not ours.is_exact
    assert ours.p == pytest.approx(exact, abs=0.006)
    assert 0.005 < exact < 0.5


def test_what_rounding_leaves_is_no_gain():
    gains = np.array([1.0] * 5 + [0.1 + 0.2 - 0.3] * 20)[:, None]
    assert gains[-1] != 0
    [test] = sign_flip(gains, rng=np.random.default_rng(0))
    assert (test.n_trials, test.p) == (2**5, 2 / 2**5)


def test_random_flips_count_the_observed_order_once():
    gains = np.full((40, 1), 1.0)
    [test] = sign_flip(gains, rng=np.random.default_rng(0), n_flips=999)
    assert test.p == 1 / 1000
    assert test.p_greater == 0.5 / 1000


@pytest.mark.parametrize("n", range(1, 9))
def test_holm_agrees_with_statsmodels(n):
    p = np.round(np.random.default_rng(n).random(n) ** 3, 1)  # rounded, so that some are tied
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
