"""What a study can detect: the smallest difference it would not miss, and designs for the next study with their cost.

The unit is the dialogue: both systems answer it and the same raters rate both, so how hard the dialogue is and how
strict the rater is cancel in the difference. What remains for system A minus system B, with k raters per dialogue, is

    variance of one dialogue's difference = 2 * (dialogue_system + residual / k)

Everything follows from that and from the t-test of those differences; nothing is simulated. Ratings are short and
discrete, so read powers as good to a few percent.

Sources: Cohen (1988), Statistical Power Analysis; Searle, Casella & McCulloch (1992), Variance Components, on the
analysis of variance with unequal numbers of raters; Card et al. (EMNLP 2020) on studies that are too small.

Shapes: C = dialogues, K = raters, S = sums; a leading "..." is one or many resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations, product

import numpy as np
from scipy import optimize, special, stats

from metrics.clustered import Quantity, Resampling, clustered_rows
from metrics.intervals import N_BOOTSTRAP, TOLERANCE, Kind, matrix_counts
from metrics.results import Reason, ResultRow
from metrics.table import FloatArray, RatingMatrix, RatingTable

VERSION = 1
POWER = 0.8
ALPHA = 0.05


def power_of(difference: float, standard_error: float, n: int, *, alpha: float = ALPHA) -> float:
    """The chance, 0 to 1, that a two-sided t-test over n dialogues finds a true difference.

    Raises ValueError unless there are two dialogues, a positive standard error and 0 < alpha < 1.
    """
    if n < 2 or not standard_error > 0 or not 0 < alpha < 1:
        raise ValueError(f"{n} dialogues, standard error {standard_error}, alpha {alpha}")
    critical, shift = stats.t.ppf(1 - alpha / 2, n - 1), abs(difference) / standard_error
    spread, weight = _observed_spread(n - 1)
    found = special.ndtr(shift - critical * spread) + special.ndtr(-shift - critical * spread)
    return float(weight @ found)


@cache
def _observed_spread(freedom: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for a mean over what a standard deviation of 1 is observed as: chi / sqrt(freedom).

    A noncentral t is a normal divided by this; scipy's own loses digits and is NaN where the far tail is tiny.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low, high = np.sqrt(stats.chi2.ppf(1e-17, freedom)), np.sqrt(stats.chi2.isf(1e-17, freedom))
    chi = low + (high - low) * (nodes + 1) / 2
    density = weights * stats.chi.pdf(chi, freedom)
    return chi / np.sqrt(freedom), density / density.sum()


def detectable_shift(n: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference, in standard errors, that the test finds with the stated power: about 2.8.

    Raises ValueError unless there are two dialogues and alpha < power < 1.
    """
    if not alpha < power < 1:
        raise ValueError(f"power is {power}; it lies between alpha ({alpha:g}) and 1")
    highest = 2.0
    while power_of(highest, 1.0, n, alpha=alpha) < power:
        highest *= 2
    return float(optimize.brentq(lambda shift: power_of(shift, 1.0, n, alpha=alpha) - power, 0, highest))


def minimum_detectable_difference(
    table: RatingTable,
    dimension: str,
    *,
    alpha: float = ALPHA,
    power: float = POWER,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
) -> list[ResultRow]:
    """The true difference, in points of the scale, that this study would find with the stated power.

    Rows minimum_detectable_difference: for each pair of systems, and for a typical pair (no "systems" in the detail,
    root mean square over pairs); each as the only test and, in the detail "tests", as the hardest of all pairs under
    Holm, where the first step asks for alpha / number of pairs. The interval says how well the spread is known.
    """
    matrix = table.matrix(dimension)
    systems = table.of_dimension(dimension).levels("system")
    means_CS = _dialogue_means(matrix, systems)
    pairs = list(combinations(range(len(systems)), 2))
    differences = {pair: means_CS[:, pair[0]] - means_CS[:, pair[1]] for pair in pairs}
    sums = {pair: _spread_sums(difference_C) for pair, difference_C in differences.items()}
    counts = {pair: int(pair_sums[:, 2].sum()) for pair, pair_sums in sums.items()}
    settings = {"scale": matrix.scale, "power": power, "alpha": alpha, "test": "t-by-cluster"}
    quantities = []
    for n_tests in dict.fromkeys((1, len(pairs))) if pairs else ():
        detail = {"tests": str(n_tests)}
        shifts = {
            n: detectable_shift(n, alpha=alpha / n_tests, power=power) for n in set(counts.values()) if n > 1
        }  # fmt: skip
        for pair in pairs:
            names = ", ".join(systems[index] for index in pair)
            quantities.append(
                Quantity(
                    "minimum_detectable_difference",
                    sums[pair],
                    partial(_detectable, shifts=(shifts.get(counts[pair], np.nan),)),
                    {**matrix_counts(matrix), "dialogues_used": counts[pair]},
                    _why_undefined(counts[pair]),
                    detail={"systems": names, **detail},
                    settings=settings,
                )
            )
        quantities.append(
            Quantity(
                "minimum_detectable_difference",
                np.column_stack(list(sums.values())),
                partial(_detectable, shifts=tuple(shifts.get(counts[pair], np.nan) for pair in pairs)),
                {**matrix_counts(matrix), "dialogues_used": min(counts.values())},
                _why_undefined(min(counts.values())),
                detail=detail,
                settings=settings,
            )
        )
    return _rows(quantities, table, dimension, len(means_CS), Resampling(seed, n_bootstrap, confidence, kind))


def _why_undefined(n_dialogues: int) -> Reason:
    if n_dialogues == 0:
        return "no_shared_items"
    return "one_dialogue" if n_dialogues == 1 else "no_variation"


def _rows(
    quantities: Sequence[Quantity], table: RatingTable, dimension: str, n_dialogues: int, how: Resampling
) -> list[ResultRow]:
    data = table.of_dimension(dimension).content_hash()
    clusters_C = np.arange(n_dialogues)
    return clustered_rows(
        quantities, clusters_C, dimension=dimension, family="power", version=VERSION, data=data, how=how
    )


def _dialogue_means(matrix: RatingMatrix, systems: Sequence[str]) -> FloatArray:
    """Shape (C, n_systems): means over raters, then over the items of a dialogue; NaN where a system was not rated."""
    return _dialogue_ratings(matrix, systems, _row_means(matrix.ratings)[:, None])[:, :, 0]


def _row_means(ratings_NR: FloatArray) -> FloatArray:
    is_rated = ~np.isnan(ratings_NR)
    means: FloatArray = np.where(is_rated, ratings_NR, 0).sum(axis=1) / is_rated.sum(axis=1)
    return means


def _dialogue_ratings(matrix: RatingMatrix, systems: Sequence[str], columns_NR: FloatArray) -> FloatArray:
    """Shape (C, n_systems, R): means over the items of a dialogue of each column, NaN where there is none."""
    shape = (int(matrix.clusters.max(initial=-1)) + 1, len(systems), columns_NR.shape[1])
    system_N = np.searchsorted(systems, matrix.responses.get_level_values("system"))
    totals, counts = np.zeros(shape), np.zeros(shape)
    is_there = ~np.isnan(columns_NR)
    np.add.at(totals, (matrix.clusters, system_N), np.where(is_there, columns_NR, 0))
    np.add.at(counts, (matrix.clusters, system_N), is_there)
    means: FloatArray = np.divide(totals, counts, out=np.full(shape, np.nan), where=counts > 0)
    return means


def _spread_sums(difference_C: FloatArray) -> FloatArray:
    """Sums for a variance, shape (C, 3): difference, square and count; zero where there is no difference."""
    is_there = ~np.isnan(difference_C)
    known = np.where(is_there, difference_C, 0)
    return np.column_stack([known, known**2, is_there.astype(np.float64)])


def _detectable(totals: FloatArray, shifts: tuple[float, ...]) -> FloatArray:
    """Root mean square, over the pairs whose sums stand side by side, of what each can detect; NaN if all are equal."""
    total, squares, count = np.moveaxis(totals.reshape(*totals.shape[:-1], -1, 3), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares - total**2 / count, 0) / (count - 1)
        squared = np.mean(np.array(shifts) ** 2 * variance / count, axis=-1)
    detectable: FloatArray = np.sqrt(np.where(squared > TOLERANCE, squared, np.nan))
    return detectable


# Where the variance comes from.


@dataclass(frozen=True)
class Components:
    """What makes the difference of two systems vary from dialogue to dialogue, in squared points of the scale.

    dialogue_system: how much better or worse a system is on one dialogue than on another;
    residual: what one rater sees otherwise than the others in one response.
    Raises ValueError unless both are 0 or more and one is above 0.
    """

    dialogue_system: float
    residual: float

    def __post_init__(self) -> None:
        if not (min(self.dialogue_system, self.residual) >= 0 and self.dialogue_system + self.residual > 0):
            raise ValueError(f"variances are 0 or more and not both 0: {self.dialogue_system}, {self.residual}")

    def standard_error(self, n_dialogues: int, n_raters: int) -> float:
        """Of the mean difference of two systems that share dialogues and raters, in points of the scale."""
        return float(np.sqrt(2 * (self.dialogue_system + self.residual / n_raters) / n_dialogues))


def variance_components(table: RatingTable, dimension: str) -> Components | None:
    """The components of this study, for `plan`; None where `variance_rows` says why there are none."""
    values = [row.estimate.value for row in variance_rows(table, dimension, seed=0, n_bootstrap=1)]
    if any(value is None for value in values) or not any(values):
        return None
    dialogue_system, residual = (float(value) for value in values if value is not None)
    return Components(dialogue_system, residual)


def variance_rows(
    table: RatingTable,
    dimension: str,
    *,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
) -> list[ResultRow]:
    """Rows variance_dialogue_system and variance_residual, in squared points of the scale, pooled over pairs.

    From the differences of two systems within dialogue and rater, by a one-way analysis of variance with dialogues as
    groups, after each rater's mean difference was taken out. A negative variance is reported as 0. Where no dialogue
    has two raters on both systems the two cannot be told apart, and the reason is "not_identified".
    """
    matrix = table.matrix(dimension)
    systems = table.of_dimension(dimension).levels("system")
    ratings_CSR = _dialogue_ratings(matrix, systems, matrix.ratings)
    blocks, freedoms = [], []
    for a, b in combinations(range(len(systems)), 2):
        difference_CK = ratings_CSR[:, a] - ratings_CSR[:, b]
        is_there = ~np.isnan(difference_CK)
        count_C, count_K = is_there.sum(axis=1), is_there.sum(axis=0)
        within = int(is_there.sum() - (count_C > 0).sum() - max(0, (count_K > 0).sum() - 1))
        if within > 0 and (count_C > 0).sum() > 1:
            blocks.append(_anova_sums(difference_CK))
            freedoms.append(within)
    n = {**matrix_counts(matrix), "system_pairs": len(blocks)}
    undefined: Reason = "not_identified" if len(systems) > 1 else "one_system"
    sums = np.column_stack(blocks) if blocks else np.zeros((len(ratings_CSR), 5))
    quantities = [
        Quantity(
            metric,
            sums,
            partial(_component, freedoms=tuple(freedoms), is_residual=metric == "variance_residual"),
            n,
            undefined if len(matrix.ratings) else "no_ratings",
            settings={"scale": matrix.scale, "method": "anova-of-differences"},
        )
        for metric in ("variance_dialogue_system", "variance_residual")
    ]
    return _rows(quantities, table, dimension, len(sums), Resampling(seed, n_bootstrap, confidence, kind))


def _anova_sums(difference_CK: FloatArray) -> FloatArray:
    """Sums for an analysis of variance, shape (C, 5): group, raters k, k², total²/k, squares; of centred raters."""
    is_there = ~np.isnan(difference_CK)
    count_K = np.maximum(is_there.sum(axis=0), 1)
    means_K = np.where(is_there, difference_CK, 0).sum(axis=0) / count_K
    known = np.where(is_there, difference_CK - means_K, 0)
    count_C, total_C = is_there.sum(axis=1).astype(np.float64), known.sum(axis=1)
    between_C = np.divide(total_C**2, count_C, out=np.zeros_like(total_C), where=count_C > 0)
    return np.column_stack([count_C > 0, count_C, count_C**2, between_C, (known**2).sum(axis=1)]).astype(np.float64)


def _component(totals: FloatArray, freedoms: tuple[int, ...], *, is_residual: bool) -> FloatArray:
    """One component per system, mean over the pairs whose sums stand side by side; half of that of a difference.

    freedoms: of the rest within dialogues, per pair, as observed. The total of all differences is 0, being centred.
    """
    groups, count, squared_count, between, squares = np.moveaxis(totals.reshape(*totals.shape[:-1], -1, 5), -1, 0)
    if not freedoms:
        return np.full(totals.shape[:-1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        within_mean = np.maximum(squares - between, 0) / np.array(freedoms)
        size = (count - squared_count / count) / (groups - 1)
        dialogue = (between / (groups - 1) - within_mean) / size
    chosen = within_mean if is_residual else np.maximum(dialogue, 0)
    component: FloatArray = chosen.mean(axis=-1) / 2
    return component


# The next study.


@dataclass(frozen=True)
class Design:
    """One way to run the next study, every rater of a dialogue rating all systems on it.

    cost: in the currency of the cost per rating;  difference, detectable …: in points of the scale.
    power …, detectable …: of the only test, and of the hardest of all pairs of systems under Holm.
    """

    n_dialogues: int
    n_raters: int
    n_ratings: int
    cost: float
    difference: float
    standard_error: float
    power_one_test: float
    power_all_pairs: float
    detectable_one_test: float
    detectable_all_pairs: float


def plan(
    components: Components,
    *,
    differences: Sequence[float],
    dialogues: Sequence[int],
    raters: Sequence[int],
    n_systems: int,
    cost_per_rating: float,
    alpha: float = ALPHA,
    power: float = POWER,
) -> list[Design]:
    """All combinations of dialogues, raters per dialogue and true differences, cheapest first.

    cost_per_rating: of one response rated by one rater on all dimensions.
    Raises ValueError for fewer than two dialogues or systems, no rater, a difference of 0, or a negative cost.
    """
    if n_systems < 2 or min(dialogues, default=2) < 2 or min(raters, default=1) < 1:
        raise ValueError("a design needs two systems, two dialogues and one rater at least")
    if any(difference == 0 for difference in differences) or cost_per_rating < 0:
        raise ValueError("a difference to find is not 0, and a rating costs 0 or more")
    n_pairs = n_systems * (n_systems - 1) // 2
    designs = []
    for n_dialogues, n_raters in product(dialogues, raters):
        error = components.standard_error(n_dialogues, n_raters)
        one, all_pairs = (detectable_shift(n_dialogues, alpha=alpha / n, power=power) for n in (1, n_pairs))
        n_ratings = n_dialogues * n_raters * n_systems
        for difference in differences:
            designs.append(
                Design(
                    n_dialogues=n_dialogues,
                    n_raters=n_raters,
                    n_ratings=n_ratings,
                    cost=n_ratings * cost_per_rating,
                    difference=difference,
                    standard_error=error,
                    power_one_test=power_of(difference, error, n_dialogues, alpha=alpha),
                    power_all_pairs=power_of(difference, error, n_dialogues, alpha=alpha / n_pairs),
                    detectable_one_test=one * error,
                    detectable_all_pairs=all_pairs * error,
                )
            )
    return sorted(designs, key=lambda design: (design.cost, design.n_dialogues, design.difference))
