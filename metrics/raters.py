"""How each rater rates: strict or lenient, drifting, letting one dimension colour the next, repeating, hurrying.

A rater is always compared with the other raters of the same responses, never with a panel that the rater belongs to:
that would shrink every deviation, and more so the fewer raters there are. These numbers describe; none of them proves
carelessness. Hidden repeats are left out.

Shapes: N = responses, R = raters, D = dimensions, S = sums; a leading "..." is one or many resamples.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metrics.clustered import Quantity, Resampling, clustered_rows, plain_row, ratio
from metrics.intervals import N_BOOTSTRAP, NO_INTERVAL, TOLERANCE, Kind, Statistic, matrix_counts, stratum_rng
from metrics.results import Reason, ResultRow, Signature
from metrics.table import BoolArray, FloatArray, IntArray, RatingMatrix, RatingTable

VERSION = 1
N_SHUFFLES = 1000
PLACES = 100  # drift is a change per so many places of the queue
FAST = 1 / 3  # of the time that reading takes


# One dimension.


def rater_effects(
    table: RatingTable,
    dimension: str,
    *,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
) -> list[ResultRow]:
    """What one dimension says of each rater, in points of the scale, with intervals by dialogue.

    Rows, per rater (stratum):
    rater_severity: own rating minus the mean of the others on the same responses; below 0 is stricter than they are.
        Also per system, where rater and system together make the stratum.
    rater_severity_shift: severity on one system minus severity on all others; away from 0, the rater favours it or
        holds it back more than the others do.
    rater_spread: standard deviation of the rater's own ratings.
    rater_drift: change of the severity over 100 places of the queue, the least-squares slope; only where the table
        has positions, else undefined with the reason "no_positions".
    """
    matrix = table.matrix(dimension)
    of_dimension = table.of_dimension(dimension)
    place_NR = _beside(of_dimension, matrix, "position")
    settings = {"scale": matrix.scale, "panel": "other-raters"}
    quantities = [
        quantity
        for column in range(len(matrix.raters))
        for quantity in _one_rater(matrix, column, place_NR[:, column], settings)
    ]
    how = Resampling(seed, n_bootstrap, confidence, kind)
    return clustered_rows(
        quantities,
        matrix.clusters,
        dimension=dimension,
        family="raters",
        version=VERSION,
        data=of_dimension.content_hash(),
        how=how,
    )


def _deviation(ratings_NR: FloatArray, column: int) -> FloatArray:
    """Shape (N,): one rater's rating minus the mean of the others; NaN where either is missing."""
    others = np.delete(ratings_NR, column, axis=1)
    is_rated = ~np.isnan(others)
    totals = np.column_stack([np.where(is_rated, others, 0).sum(axis=1), is_rated.sum(axis=1)])
    deviation: FloatArray = ratings_NR[:, column] - ratio(totals)
    return deviation


def _one_rater(
    matrix: RatingMatrix, column: int, place_N: FloatArray, settings: Mapping[str, object]
) -> Iterator[Quantity]:
    """The quantities of one rater. place_N: the place of each response in this rater's queue, NaN = not recorded."""
    own_N, deviation_N = matrix.ratings[:, column], _deviation(matrix.ratings, column)
    is_rated, is_shared = ~np.isnan(own_N), ~np.isnan(deviation_N)
    is_placed = is_shared & ~np.isnan(place_N)
    n = {**matrix_counts(matrix), "ratings": int(is_rated.sum())}

    def quantity(
        metric: str, sums: FloatArray, value: Statistic, used_N: BoolArray, undefined: Reason, **more: Any
    ) -> Quantity:
        stratum = {"rater": matrix.raters[column], **more.pop("stratum", {})}
        counts = {**n, "responses_used": int(used_N.sum())}
        return Quantity(metric, sums, value, counts, undefined, stratum, settings={**settings, **more})

    yield quantity("rater_severity", _sums(is_shared, deviation_N), ratio, is_shared, "no_overlap")
    yield quantity("rater_spread", _sums(is_rated, own_N, own_N**2), _sd, is_rated, "one_response")
    if is_placed.any():
        x_N = place_N - place_N[is_placed].mean()
        slope = _sums(is_placed, x_N, deviation_N, x_N**2, x_N * deviation_N)
    else:
        slope = np.zeros((len(own_N), 5))
    unplaced: Reason = "no_positions" if is_shared.any() else "no_overlap"
    undefined: Reason = "one_response" if is_placed.any() else unplaced
    yield quantity("rater_drift", slope, _slope, is_placed, undefined, per_places=PLACES)

    systems = np.asarray(matrix.responses.get_level_values("system"))
    names = list(dict.fromkeys(systems))
    for system in names if len(names) > 1 else []:
        is_here = is_shared & (systems == system)
        here, elsewhere = _sums(is_here, deviation_N), _sums(is_shared & ~is_here, deviation_N)
        stratum = {"system": str(system)}
        yield quantity("rater_severity", here, ratio, is_here, "no_overlap", stratum=stratum)
        both = np.column_stack([here, elsewhere])
        yield quantity("rater_severity_shift", both, _difference, is_here, "no_overlap", stratum=stratum)


def _sums(used_N: BoolArray, *columns: FloatArray) -> FloatArray:
    """The columns and, last, a count; all zero where a response is not used."""
    return np.column_stack([np.where(used_N[:, None], np.column_stack(columns), 0.0), used_N.astype(np.float64)])


def _difference(totals: FloatArray) -> FloatArray:
    return ratio(totals[..., :2]) - ratio(totals[..., 2:])


def _sd(totals: FloatArray) -> FloatArray:
    """Standard deviation (n - 1) from sum, sum of squares and count."""
    total, squares, count = (totals[..., i] for i in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares - total**2 / count, 0) / (count - 1)
    sd: FloatArray = np.sqrt(np.where(count > 1, variance, np.nan))
    return sd


def _slope(totals: FloatArray) -> FloatArray:
    """Least-squares slope of y on x, times PLACES, from the sums of x, y, x², xy and the count."""
    x, y, xx, xy, count = (totals[..., i] for i in range(5))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = xx - x**2 / count
        slope: FloatArray = PLACES * (xy - x * y / count) / np.where(spread > 1e-9 * xx, spread, np.nan)
    return slope


# All dimensions together.


class _Session(NamedTuple):
    """First ratings of all dimensions, with place and time.

    ratings_NRD: NaN = not rated;  place_NR, seconds_NR: NaN = not recorded;  clusters_N: the dialogue, as numbers.
    responses: (item, system) per row.
    """

    ratings_NRD: FloatArray
    place_NR: FloatArray
    seconds_NR: FloatArray
    clusters_N: IntArray
    responses: list[tuple[str, str]]
    raters: tuple[str, ...]
    dimensions: tuple[str, ...]


def rater_habits(
    table: RatingTable,
    *,
    reading_seconds: Mapping[tuple[str, str], float] | None = None,
    fast: float = FAST,
    seed: int,
    n_bootstrap: int = N_BOOTSTRAP,
    confidence: float = 0.95,
    kind: Kind = "percentile",
) -> list[ResultRow]:
    """What all dimensions of a table, with order and time, say of each rater; the dimension of these rows is "".

    reading_seconds: (item, system) ► how long reading takes;  fast: what part of that is too short to have read.

    Rows, per rater (stratum):
    halo: mean correlation between two of the rater's dimensions over responses.
    halo_excess: halo minus the mean correlation of one of the rater's dimensions with another dimension of another
        rater. What the responses themselves make go together is in both; the rest is the rater's own impression.
        Source: Campbell & Fiske (1959), heterotrait-monomethod against heterotrait-heteromethod correlations.
    same_as_previous: share of responses scored, on all dimensions, exactly as the one before in the queue.
    same_as_previous_expected: that share if the order were shuffled.
    same_as_previous_excess: the share minus that of the other raters' scores of the same responses in the same
        order. Neighbours in a queue often answer the same dialogue, so this is the fairer comparison of the two.
    longest_run, longest_run_expected, longest_run_panel: the longest stretch of equal scores, its mean over
        shuffled orders, and its mean over the other raters' scores in the same order.
    seconds_q1, seconds_median, seconds_q3: active time per response, quartiles of what was recorded.
    fast_share: share of responses rated in less than `fast` of the reading time; only with reading_seconds.

    Raises ValueError unless `fast` and every reading time are above 0.
    """
    if not fast > 0:
        raise ValueError(f"fast is {fast}; it is a part of the reading time, above 0")
    for response, needed in (reading_seconds or {}).items():
        if not needed > 0:
            raise ValueError(f"item {response[0]}, system {response[1]}: reading takes {needed} seconds, not above 0")
    session, data = _session(table), table.content_hash()
    settings = {"dimensions": ",".join(table.dimensions)}
    quantities: list[Quantity] = []
    rows: list[ResultRow] = []
    for column in range(len(session.raters)):
        in_order = _codes_in_order(session, column)
        quantities += _halo(session, column, settings)
        quantities += _repetition(session, in_order, column, settings)
        rows += _runs(session, in_order, column, {**settings, "data": data, "seed": seed})
        rows += _quartiles(session, column, {**settings, "data": data})
        if reading_seconds is not None:
            quantities.append(_fast(session, column, reading_seconds, fast, settings))
    how = Resampling(seed, n_bootstrap, confidence, kind)
    return rows + clustered_rows(
        quantities, session.clusters_N, dimension="", family="habits", version=VERSION, data=data, how=how
    )


def _session(table: RatingTable) -> _Session:
    frame = table.frame
    first = frame[~frame["is_repeat"]]
    known = first.drop_duplicates(["item", "system"]).set_index(["item", "system"]).sort_index()
    raters = tuple(sorted(first["rater"].unique()))

    def wide(column: str, rows: pd.DataFrame) -> FloatArray:
        """Shape (N, R); the largest where dimensions of one response say different things."""
        if column not in rows.columns or not len(rows):
            return np.full((len(known), len(raters)), np.nan)
        cells = rows.pivot_table(index=["item", "system"], columns="rater", values=column, aggfunc="max")
        return cells.reindex(index=known.index, columns=list(raters)).to_numpy(dtype=np.float64)

    ratings = [wide("value", first[first["dimension"] == dimension]) for dimension in table.dimensions]
    return _Session(
        ratings_NRD=np.stack(ratings, axis=-1),
        place_NR=wide("position", _numeric(first, "position")),
        seconds_NR=wide("seconds", _numeric(first, "seconds")),
        clusters_N=pd.factorize(known["cluster"], sort=True)[0].astype(np.int64),
        responses=[(str(item), str(system)) for item, system in known.index],
        raters=raters,
        dimensions=table.dimensions,
    )


def _numeric(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with a column as numbers and without the rows where it is missing."""
    if column not in frame.columns:
        return frame
    return frame.assign(**{column: pd.to_numeric(frame[column], errors="raise")}).dropna(subset=[column])


def _beside(table: RatingTable, matrix: RatingMatrix, column: str) -> FloatArray:
    """A column of numbers in the shape of a matrix of first ratings: (N, R), NaN = not recorded."""
    frame = table.frame
    if column not in frame.columns:
        return np.full(matrix.ratings.shape, np.nan)
    rows = _numeric(frame[~frame["is_repeat"]], column)
    wide = rows.pivot(index=["item", "system"], columns="rater", values=column)
    return wide.reindex(index=matrix.responses, columns=list(matrix.raters)).to_numpy(dtype=np.float64)


# Halo.


def _halo(session: _Session, column: int, settings: Mapping[str, object]) -> Iterator[Quantity]:
    ratings, n_dimensions = session.ratings_NRD, len(session.dimensions)
    own_ND = ratings[:, column]
    others = [rater for rater in range(len(session.raters)) if rater != column]
    own = _defined([_pair_sums(own_ND[:, a], own_ND[:, b]) for a, b in combinations(range(n_dimensions), 2)])
    across = _defined(
        [
            _pair_sums(own_ND[:, a], ratings[:, rater, b])
            for rater in others
            for a, b in permutations(range(n_dimensions), 2)
        ]
    )
    n = {**_counts(session, column), "dimension_pairs": len(own)}
    stratum = {"rater": session.raters[column]}
    sums = np.column_stack(own) if own else np.zeros((len(own_ND), 6))
    yield Quantity("halo", sums, _mean_correlation, n, "one_dimension", stratum, settings=settings)
    both = np.column_stack([sums, *across]) if across else np.column_stack([sums, np.zeros((len(own_ND), 6))])
    why: Reason = "no_overlap" if own else "one_dimension"
    excess = partial(_correlation_excess, n_own=sums.shape[1])
    yield Quantity("halo_excess", both, excess, n, why, stratum, settings={**settings, "panel": "other-raters"})


def _pair_sums(x_N: FloatArray, y_N: FloatArray) -> FloatArray:
    """Sums for a correlation, shape (N, 6): x, y, x², y², xy and the count."""
    return _sums(~np.isnan(x_N) & ~np.isnan(y_N), x_N, y_N, x_N**2, y_N**2, x_N * y_N)


def _defined(pairs: list[FloatArray]) -> list[FloatArray]:
    """The pairs in which both sides vary."""
    return [pair for pair in pairs if np.isfinite(_mean_correlation(pair.sum(axis=0)))]


def _mean_correlation(totals: FloatArray) -> FloatArray:
    """Mean Pearson correlation of the pairs whose sums stand side by side, six each; NaN if one is undefined."""
    x, y, xx, yy, xy, count = np.moveaxis(totals.reshape(*totals.shape[:-1], -1, 6), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (xx - x**2 / count) * (yy - y**2 / count)
        correlation = (xy - x * y / count) / np.sqrt(np.where(spread > TOLERANCE, spread, np.nan))
    mean: FloatArray = np.clip(correlation, -1, 1).mean(axis=-1)
    return mean


def _correlation_excess(totals: FloatArray, n_own: int) -> FloatArray:
    return _mean_correlation(totals[..., :n_own]) - _mean_correlation(totals[..., n_own:])


# Repetition.


def _codes_in_order(session: _Session, column: int) -> tuple[IntArray, IntArray]:
    """The responses in the order in which one rater met them, and every rater's score vectors there, as codes.

    Returns row numbers, shape (M,), and codes, shape (M, R): equal codes are equal scores on all dimensions; -1 where
    a rater left a dimension out. Responses without a place, or not rated on all dimensions by this rater, are left out.
    """
    is_whole_NR: BoolArray = np.all(~np.isnan(session.ratings_NRD), axis=2)
    place_N = session.place_NR[:, column]
    used = np.flatnonzero(is_whole_NR[:, column] & ~np.isnan(place_N))
    order = used[np.argsort(place_N[used], kind="stable")].astype(np.int64)
    ratings_MRD = session.ratings_NRD[order]
    flat = np.nan_to_num(ratings_MRD, nan=-1.0).reshape(-1, ratings_MRD.shape[2])
    codes = np.unique(flat, axis=0, return_inverse=True)[1].reshape(ratings_MRD.shape[:2]).astype(np.int64)
    return order, np.where(is_whole_NR[order], codes, -1)


def _repetition(
    session: _Session, in_order: tuple[IntArray, IntArray], column: int, settings: Mapping[str, object]
) -> Iterator[Quantity]:
    order, codes_MR = in_order
    own, others = _repeats(codes_MR[:, column]), _repeats(np.delete(codes_MR, column, axis=1))
    sums_N4 = np.zeros((len(session.clusters_N), 4))
    if len(order) > 1:
        sums_N4[order[1:]] = np.column_stack([*own, others[0].sum(axis=1), others[1].sum(axis=1)])
    n = {**_counts(session, column), "responses_used": max(0, len(order) - 1)}
    stratum = {"rater": session.raters[column]}
    yield Quantity("same_as_previous", sums_N4[:, :2], ratio, n, "no_positions", stratum, settings=settings)
    why: Reason = "no_overlap" if len(order) > 1 else "no_positions"
    yield Quantity("same_as_previous_excess", sums_N4, _difference, n, why, stratum,
                   settings={**settings, "panel": "other-raters"})  # fmt: skip


def _repeats(codes: IntArray) -> tuple[FloatArray, FloatArray]:
    """For each code but the first along axis 0: whether it equals the one before, and whether both are known."""
    is_known = (codes[1:] >= 0) & (codes[:-1] >= 0)
    return (is_known & (codes[1:] == codes[:-1])).astype(np.float64), is_known.astype(np.float64)


def _runs(
    session: _Session, in_order: tuple[IntArray, IntArray], column: int, settings: Mapping[str, object]
) -> Iterator[ResultRow]:
    order, codes_MR = in_order
    rater, own_M = session.raters[column], codes_MR[:, column]
    n = {**_counts(session, column), "responses_used": len(order)}
    is_panel_R = (codes_MR >= 0).all(axis=0) & (np.arange(codes_MR.shape[1]) != column)
    frequency = np.unique(own_M, return_counts=True)[1]
    found: dict[str, tuple[float | None, str, Reason]] = dict.fromkeys(
        ("longest_run", "longest_run_expected", "same_as_previous_expected", "longest_run_panel"),
        (None, NO_INTERVAL, "no_positions"),
    )
    if len(order) > 1:
        rng = stratum_rng(int(str(settings["seed"])), "longest_run", "", {"rater": rater})
        shuffled = _longest_runs(np.stack([rng.permutation(own_M) for _ in range(N_SHUFFLES)]))
        expected = float((frequency * (frequency - 1)).sum() / (len(own_M) * (len(own_M) - 1)))
        found["longest_run"] = (float(_longest_runs(own_M[None])[0]), "counted", "no_positions")
        found["longest_run_expected"] = (float(np.mean(shuffled)), f"mean of {N_SHUFFLES} shuffles", "no_positions")
        found["same_as_previous_expected"] = (expected, "exact over all orders", "no_positions")
        mean = float(_longest_runs(codes_MR[:, is_panel_R].T).mean()) if is_panel_R.any() else None
        found["longest_run_panel"] = (mean, "mean over raters who rated all of these", "no_overlap")
    for metric, (value, method, undefined) in found.items():
        signature = Signature.of(metric, VERSION, **settings, rater=rater)
        reason = undefined if value is None else None
        yield plain_row(metric, value, dimension="", n=n, method=method, signature=signature, reason=reason,
                        stratum={"rater": rater})  # fmt: skip


def _longest_runs(codes_SM: IntArray) -> IntArray:
    """How many equal codes stand side by side at most, in each row; shape (S,)."""
    places_M = np.arange(codes_SM.shape[1])
    is_same = np.zeros(codes_SM.shape, dtype=np.bool_)
    is_same[:, 1:] = codes_SM[:, 1:] == codes_SM[:, :-1]
    begins_SM = np.maximum.accumulate(np.where(is_same, 0, places_M), axis=1)
    longest_S: IntArray = (places_M - begins_SM).max(axis=1) + 1
    return longest_S


# Time.


def _quartiles(session: _Session, column: int, settings: Mapping[str, object]) -> Iterator[ResultRow]:
    rater = session.raters[column]
    recorded = session.seconds_NR[:, column]
    recorded = recorded[~np.isnan(recorded)]
    n = {**_counts(session, column), "responses_used": len(recorded)}
    for metric, share in (("seconds_q1", 0.25), ("seconds_median", 0.5), ("seconds_q3", 0.75)):
        value = float(np.quantile(recorded, share)) if len(recorded) else None
        signature = Signature.of(metric, VERSION, **settings, rater=rater, quantile="linear")
        method = "quantile of the recorded times" if len(recorded) else NO_INTERVAL
        reason: Reason | None = None if len(recorded) else "no_seconds"
        yield plain_row(metric, value, dimension="", n=n, method=method, signature=signature, reason=reason,
                        stratum={"rater": rater})  # fmt: skip


def _fast(
    session: _Session,
    column: int,
    reading_seconds: Mapping[tuple[str, str], float],
    fast: float,
    settings: Mapping[str, object],
) -> Quantity:
    seconds_N = session.seconds_NR[:, column]
    needed_N = np.array([reading_seconds.get(response, np.nan) for response in session.responses])
    is_timed = ~np.isnan(seconds_N) & ~np.isnan(needed_N)
    is_fast = np.where(is_timed, seconds_N < fast * needed_N, 0.0)
    n = {**_counts(session, column), "responses_used": int(is_timed.sum())}
    stratum = {"rater": session.raters[column]}
    parts = {**settings, "fast": f"{fast:g}"}
    return Quantity("fast_share", _sums(is_timed, is_fast), ratio, n, "no_seconds", stratum, settings=parts)


def _counts(session: _Session, column: int) -> dict[str, int]:
    """What the numbers of one rater count: ratings of all dimensions, responses and dialogues."""
    is_rated_ND = ~np.isnan(session.ratings_NRD[:, column])
    is_met_N = is_rated_ND.any(axis=1)
    return {
        "ratings": int(is_rated_ND.sum()),
        "responses": int(is_met_N.sum()),
        "raters": len(session.raters),
        "clusters": len(np.unique(session.clusters_N[is_met_N])),
    }
