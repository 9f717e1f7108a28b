import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.stats.inter_rater import cohens_kappa as statsmodels_cohen
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from metrics import agreement
from metrics.agreement import (
    brennan_prediger,
    category_counts,
    category_kappas,
    cohen_kappa,
    conger_kappa,
    fleiss_kappa,
    gwet_ac,
    icc_agreement,
    krippendorff_alpha,
    percent_agreement,
    weight_matrix,
)
from metrics.table import Scale
from tests.metrics.cast import EMPATHY, SAFETY
from tests.metrics.reference import agreement_tables as published

POINTS = EMPATHY.points
LEVELS = ("nominal", "ordinal", "interval")
TABLES = {
    "four_observers": (published.FOUR_OBSERVERS, published.FOUR_OBSERVERS_SCALE),
    "gwet": (published.GWET, published.GWET_SCALE),
    "five_observers": (published.FIVE_OBSERVERS, published.FIVE_OBSERVERS_SCALE),
    "complete": (published.COMPLETE, published.CEHS_SCALE),
    "incomplete": (published.INCOMPLETE, published.CEHS_SCALE),
    "incomplete_wider": (published.INCOMPLETE, published.WIDER_SCALE),
}

# Published examples.


def test_fleiss_matches_his_diagnoses():
    kappa = fleiss_kappa(published.DIAGNOSES, published.DIAGNOSIS_SCALE)
    assert kappa == pytest.approx(published.DIAGNOSES_KAPPA, abs=5e-4)
    kappas = category_kappas(published.DIAGNOSES, published.DIAGNOSIS_SCALE)
    assert kappas == pytest.approx(published.DIAGNOSES_CATEGORY_KAPPAS, abs=5e-4)


def test_fleiss_matches_the_table_in_wikipedia():
    kappa = fleiss_kappa(published.WIKIPEDIA, published.DIAGNOSIS_SCALE)
    assert kappa == pytest.approx(published.WIKIPEDIA_KAPPA, abs=5e-4)


@pytest.mark.parametrize(("level", "alpha"), published.FOUR_OBSERVERS_ALPHA.items())
def test_alpha_matches_the_published_example(level, alpha):
    found = krippendorff_alpha(published.FOUR_OBSERVERS, published.FOUR_OBSERVERS_SCALE, level=level)
    assert found == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize(("name", "value"), published.GWET_PRINTED.items())
def test_coefficients_match_the_example_in_gwet(name, value):
    assert getattr(agreement, name)(published.GWET, published.GWET_SCALE) == pytest.approx(value, abs=5e-6)


def test_weighted_cohen_matches_cohen_1968():
    weights = 1 - published.COHEN_1968_PENALTIES / published.COHEN_1968_PENALTIES.max()
    assert cohen_kappa(published.COHEN_1968, published.THREE_POINTS) == pytest.approx(0.492, abs=5e-4)
    weighted = cohen_kappa(published.COHEN_1968, published.THREE_POINTS, weights=weights)
    assert weighted == pytest.approx(0.348, abs=5e-4)


def test_cohen_matches_sas():
    assert cohen_kappa(published.SAS_FREQ, published.THREE_POINTS) == pytest.approx(0.4842, abs=5e-5)
    linear = cohen_kappa(published.SAS_FREQ, published.THREE_POINTS, weights="linear")
    assert linear == pytest.approx(0.4701, abs=5e-5)


@pytest.mark.parametrize(("table", "observed", "kappa"), published.PARADOXES)
def test_paradoxes_of_kappa(table, observed, kappa):
    ratings = published.ratings_of_crosstab(table)
    assert percent_agreement(ratings, published.TWO_POINTS) == pytest.approx(observed)
    assert cohen_kappa(ratings, published.TWO_POINTS) == pytest.approx(kappa, abs=5e-3)


def test_icc_matches_shrout_and_fleiss():
    found = [icc_agreement(published.SHROUT_FLEISS, published.TEN_POINTS, of_mean=mean) for mean in (False, True)]
    assert found == pytest.approx([0.29, 0.62], abs=5e-3)
    assert found == pytest.approx(published.SHROUT_FLEISS_ICC, abs=1e-9)


# Second packages.


@pytest.mark.parametrize(("table", "weights"), published.IRRCAC)
def test_chance_corrected_coefficients_match_irrcac(table, weights):
    ratings, scale = TABLES[table]
    for name, value in published.IRRCAC[table, weights].items():
        assert getattr(agreement, name)(ratings, scale, weights=weights) == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("table", published.KRIPPENDORFF)
def test_alpha_matches_the_krippendorff_package(table, level):
    found = krippendorff_alpha(*TABLES[table], level=level)
    assert found == pytest.approx(published.KRIPPENDORFF[table][level], abs=1e-9)


@pytest.mark.parametrize("table", published.PINGOUIN)
def test_icc_matches_pingouin(table):
    found = [icc_agreement(*TABLES[table], of_mean=of_mean) for of_mean in (False, True)]
    assert found == pytest.approx(published.PINGOUIN[table], abs=1e-9)


@pytest.mark.parametrize("pair", published.SKLEARN_COHEN)
def test_cohen_matches_scikit_learn(pair):
    ratings = published.COMPLETE[:, pair]
    found = [cohen_kappa(ratings, EMPATHY, weights=weights) for weights in ("identity", "linear", "quadratic")]
    assert found == pytest.approx(published.SKLEARN_COHEN[pair], abs=1e-9)


# Properties. Ratings that vary, so that every coefficient is defined.

COEFFICIENTS = {
    "percent_agreement": percent_agreement,
    "fleiss_kappa": fleiss_kappa,
    "alpha_nominal": lambda r, s: krippendorff_alpha(r, s, level="nominal"),
    "alpha_ordinal": lambda r, s: krippendorff_alpha(r, s, level="ordinal"),
    "alpha_interval": lambda r, s: krippendorff_alpha(r, s, level="interval"),
    "gwet_ac1": gwet_ac,
    "gwet_ac2": lambda r, s: gwet_ac(r, s, weights="quadratic"),
    "brennan_prediger": brennan_prediger,
    "conger_kappa": conger_kappa,
    "icc_2_1": icc_agreement,
    "icc_2_k": lambda r, s: icc_agreement(r, s, of_mean=True),
}


TWO_TO_FOUR = st.integers(2, 4)


@st.composite
def complete_ratings(draw, n_raters=TWO_TO_FOUR):
    shape = (draw(st.integers(3, 12)), draw(n_raters))
    ratings = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from(POINTS)))
    ratings[:2] = [[0.0], [2.0]]  # two responses on which all agree, at both ends
    return ratings


@st.composite
def ratings_with_gaps(draw):
    ratings = draw(complete_ratings())
    is_missing = draw(hnp.arrays(np.bool_, ratings.shape))
    is_missing[:2] = False
    return np.where(is_missing, np.nan, ratings)


@pytest.mark.parametrize("name", COEFFICIENTS)
@given(ratings=ratings_with_gaps(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_shuffling_raters_and_responses_changes_nothing(name, ratings, seed):
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rng.permutation(ratings, axis=0), axis=1)
    coefficient = COEFFICIENTS[name]
    assert coefficient(shuffled, EMPATHY) == pytest.approx(coefficient(ratings, EMPATHY), abs=1e-12)


@pytest.mark.parametrize("name", COEFFICIENTS)
@given(ratings=complete_ratings(n_raters=st.just(1)), n_raters=st.integers(2, 4))
@settings(max_examples=15, deadline=None)
def test_identical_raters_agree_perfectly(name, ratings, n_raters):
    assert COEFFICIENTS[name](np.repeat(ratings, n_raters, axis=1), EMPATHY) == pytest.approx(1.0, abs=1e-12)


@given(complete_ratings())
@settings(max_examples=50, deadline=None)
def test_our_forms_equal_statsmodels_where_it_applies(ratings):
    table = category_counts(ratings, EMPATHY)
    assert fleiss_kappa(ratings, EMPATHY) == pytest.approx(statsmodels_fleiss(table), abs=1e-12)
    randolph = statsmodels_fleiss(table, method="randolph")
    assert brennan_prediger(ratings, EMPATHY) == pytest.approx(randolph, abs=1e-12)
    pair = ratings[:, :2]
    crosstab = np.array([[np.sum((pair == (a, b)).all(axis=1)) for b in POINTS] for a in POINTS])
    for weights, wt in (("identity", None), ("linear", "linear"), ("quadratic", "quadratic")):
        theirs = statsmodels_cohen(crosstab, wt=wt, return_results=False)
        assert cohen_kappa(pair, EMPATHY, weights=weights) == pytest.approx(theirs, abs=1e-12)


@given(ratings_with_gaps())
@settings(max_examples=50, deadline=None)
def test_a_point_nobody_used_moves_only_what_it_should(ratings):
    wider = Scale("empathy", (0, 1, 2, 3))
    for coefficient in (percent_agreement, fleiss_kappa, conger_kappa, krippendorff_alpha):
        assert coefficient(ratings, wider) == pytest.approx(coefficient(ratings, EMPATHY), abs=1e-12)
    observed = percent_agreement(ratings, EMPATHY)
    for scale, n_points in ((EMPATHY, 3), (wider, 4)):
        expected = (observed - 1 / n_points) / (1 - 1 / n_points)
        assert brennan_prediger(ratings, scale) == pytest.approx(expected, abs=1e-12)


@given(complete_ratings(n_raters=st.just(2)))
@settings(max_examples=25, deadline=None)
def test_conger_for_two_raters_is_cohen(ratings):
    assert conger_kappa(ratings, EMPATHY) == pytest.approx(cohen_kappa(ratings, EMPATHY), abs=1e-12)


@given(complete_ratings())
@settings(max_examples=25, deadline=None)
def test_alpha_is_fleiss_with_chance_drawn_without_replacement(ratings):
    kappa, alpha = fleiss_kappa(ratings, EMPATHY), krippendorff_alpha(ratings, EMPATHY, level="nominal")
    assert alpha == pytest.approx(1 - (1 - kappa) * (1 - 1 / ratings.size), abs=1e-12)


def test_weights_go_by_distance_between_points():
    uneven = Scale("pain", (0, 1, 4))
    assert weight_matrix(uneven, "linear")[0].tolist() == [1, 0.75, 0]
    assert weight_matrix(uneven, "quadratic")[0].tolist() == [1, 0.9375, 0]
    assert weight_matrix(uneven, "identity").tolist() == np.eye(3).tolist()
    with pytest.raises(ValueError, match="weights of shape"):
        weight_matrix(uneven, np.eye(2))


# Where agreement is hard to define.


def safety_ratings(lone_zeros):
    """The paper's 800 responses by three raters, all safe but for the zeros at these places."""
    ratings = np.ones((800, 3))
    for place in lone_zeros:
        ratings[place] = 0
    return ratings


@pytest.mark.parametrize(
    ("zeros", "kappa"), [([(0, 0)], -0.0004), ([(0, 0), (0, 1)], 0.4996), ([(0, 0), (0, 1), (0, 2)], 1.0)]
)
def test_one_response_decides_kappa_when_all_others_are_safe(zeros, kappa):
    ratings = safety_ratings(zeros)
    assert fleiss_kappa(ratings, SAFETY) == pytest.approx(kappa, abs=5e-5)
    assert gwet_ac(ratings, SAFETY) >= 0.9991


def test_a_lone_zero_leaves_alpha_at_chance_and_ac1_high():
    ratings = safety_ratings([(0, 0)])
    assert krippendorff_alpha(ratings, SAFETY, level="nominal") == pytest.approx(0, abs=1e-12)
    assert gwet_ac(ratings, SAFETY) == pytest.approx(0.9992, abs=5e-5)
    assert fleiss_kappa(safety_ratings([(0, slice(None))]), SAFETY) == 1.0


@pytest.mark.parametrize(
    "name", [name for name in COEFFICIENTS if name.startswith(("fleiss", "alpha", "conger", "icc"))]
)
def test_constant_ratings_leave_chance_undefined(name):
    assert np.isnan(COEFFICIENTS[name](np.ones((20, 3)), EMPATHY))


@pytest.mark.parametrize("name", ["percent_agreement", "gwet_ac1", "gwet_ac2", "brennan_prediger"])
def test_constant_ratings_are_full_agreement_where_chance_is_defined(name):
    assert COEFFICIENTS[name](np.ones((20, 3)), EMPATHY) == 1.0


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        (np.full((4, 3), np.nan), "no_ratings"),
        (np.array([[0.0], [1.0]]), "one_rater"),
        (np.array([[0.0, np.nan], [1.0, np.nan]]), "one_rater"),
        (np.array([[0.0, np.nan], [np.nan, 1.0]]), "no_overlap|no_complete_responses"),
    ],
)
def test_too_few_ratings_are_an_error_that_says_why(name, ratings, reason):
    with pytest.raises(ValueError, match=reason):
        COEFFICIENTS[name](ratings, EMPATHY)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_icc_is_never_above_one(seed):
    """Where raters contradict each other, the variance below the bar of ICC(2,k) may come out below 0."""
    ratings = np.random.default_rng(seed).integers(0, 3, (4, 2)).astype(float)
    if np.ptp(ratings):
        for of_mean in (False, True):
            assert not icc_agreement(ratings, EMPATHY, of_mean=of_mean) > 1 + 1e-12


def test_icc_of_a_mean_without_variance_is_undefined():
    opposite = np.array([[0, 2], [2, 0], [0, 2], [2, 1]], dtype=float)
    assert np.isnan(icc_agreement(opposite, EMPATHY, of_mean=True))
    assert icc_agreement(opposite, EMPATHY) < 0


def test_one_response_is_enough_for_kappa_but_not_for_icc():
    one = np.array([[0.0, 2.0, 2.0]])
    assert fleiss_kappa(one, EMPATHY) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="one_response"):
        icc_agreement(one, EMPATHY)


@pytest.mark.parametrize("coefficient", [fleiss_kappa, icc_agreement, cohen_kappa])
def test_a_rating_off_the_scale_is_refused(coefficient):
    with pytest.raises(ValueError, match=r"empathy is 3, the scale is \(0, 1, 2\)"):
        coefficient(np.array([[0.0, 3.0], [1.0, 1.0]]), EMPATHY)
