"""The checked long table of ratings that every human-rating metric starts from.

One row is one rating: one rater's value for one system's response to one item, on one dimension. A rating that was
not given is a row that is not there.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
NameArray = npt.NDArray[np.object_]

NAMES = ("item", "rater", "system", "dimension")
STRATA = ("dataset", "topic")
COLUMNS = (*NAMES, "value", *STRATA, "cluster", "is_repeat", "position", "seconds")
KEY = ["item", "system", "rater", "dimension", "is_repeat"]


@dataclass(frozen=True)
class Scale:
    """The points that a dimension allows, declared beforehand: a point that nobody used is still a point.

    points: at least two different numbers in rising order, for instance (0, 1, 2).
    """

    dimension: str
    points: tuple[float, ...]

    def __post_init__(self) -> None:
        is_rising = all(low < high for low, high in zip(self.points, self.points[1:], strict=False))
        if len(self.points) < 2 or not is_rising or not np.isfinite(self.points).all():
            raise ValueError(f"{self.dimension}: a scale needs two or more rising points, got {self.points}")

    def __str__(self) -> str:
        return self._label

    @cached_property
    def _label(self) -> str:
        return ",".join(f"{point:g}" for point in self.points)

    @property
    def values(self) -> FloatArray:
        """The points as an array of shape (n_points,)."""
        return np.asarray(self.points, dtype=np.float64)


class RatingMatrix(NamedTuple):
    """The ratings of one dimension, responses in rows.

    ratings: shape (n_responses, n_raters), on the points of the scale; NaN = not rated.
    responses: one (item, system) per row, sorted, as a MultiIndex;  raters: one name per column, sorted.
    clusters: shape (n_responses,), 0 … n_clusters - 1: the dialogue a row belongs to.
    """

    ratings: FloatArray
    responses: pd.MultiIndex
    raters: tuple[str, ...]
    clusters: IntArray
    scale: Scale

    @property
    def n_items(self) -> int:
        """Distinct items among the rows."""
        return len(self.responses.unique("item"))

    @property
    def n_responses(self) -> int:
        """Distinct responses among the rows."""
        is_of_raters = "rater" in self.responses.names
        return len(self.responses.droplevel("rater").unique() if is_of_raters else self.responses)

    @property
    def n_raters(self) -> int:
        """Distinct raters, who stand in the columns or, for repeat pairs, in the rows."""
        return len(self.responses.unique("rater") if "rater" in self.responses.names else self.raters)


class _Rows:
    """The checked rows of a table and all its parts, with what is worked out once for all of them."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._codes: dict[str, tuple[IntArray, NameArray]] = {}
        self._indexes: dict[str, pd.Index] = {}

    def codes(self, column: str) -> tuple[IntArray, NameArray]:
        """The names in a column, sorted, and which of them stands in each row."""
        if column not in self._codes:
            codes, levels = pd.factorize(self.frame[column], sort=True)
            self._codes[column] = codes.astype(np.int64), np.asarray(levels, dtype=object)
        return self._codes[column]

    def index(self, column: str) -> pd.Index:
        """The names in a column, sorted, for a MultiIndex."""
        if column not in self._indexes:
            self._indexes[column] = pd.Index(self.codes(column)[1])
        return self._indexes[column]

    @cached_property
    def is_repeat(self) -> BoolArray:
        return self.frame["is_repeat"].to_numpy(dtype=np.bool_)

    @cached_property
    def values(self) -> FloatArray:
        return self.frame["value"].to_numpy(dtype=np.float64)

    @cached_property
    def lines(self) -> NameArray:
        """Each row as text, for a hash."""
        columns = [self.frame[name].astype(str).tolist() for name in self.frame.columns]
        return np.array(["\x1f".join(row) for row in zip(*columns, strict=True)], dtype=object)


class _Combinations(NamedTuple):
    """codes: one array per column;  first: the first row of each;  which: the combination of each row."""

    codes: list[IntArray]
    first: IntArray
    which: IntArray


class RatingTable:
    """Ratings that were checked once, so that nothing after this has to ask again.

    Names of items, raters, systems and so on become text; the order of rows means nothing.
    """

    def __init__(self, frame: pd.DataFrame, scales: tuple[Scale, ...]) -> None:
        """For rows that are checked already; `from_frame` is the way in."""
        self._set(_Rows(frame), np.arange(len(frame)), scales)

    def _set(self, rows: _Rows, places: IntArray, scales: tuple[Scale, ...]) -> None:
        """places: which of the rows are in this table."""
        self._rows, self._places, self.scales = rows, places, scales
        # Every metric asks for the same parts and matrices again.
        self._strata: dict[tuple[str, ...], dict[tuple[str, ...], RatingTable]] = {}
        self._matrices: dict[str, RatingMatrix] = {}
        self._hash = ""

    def _part(self, places: IntArray, scales: tuple[Scale, ...]) -> "RatingTable":
        part = RatingTable.__new__(RatingTable)
        part._set(self._rows, places, scales)
        return part

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, scales: Iterable[Scale]) -> "RatingTable":
        """The table of a DataFrame with columns item, rater, system, dimension, value.

        Also used if present: dataset, topic; cluster, the dialogue an item belongs to (else each item is its own);
        is_repeat, True where a rater met a response a second time (else False); position and seconds, which may be
        missing in some rows. Other columns are dropped.

        Raises ValueError, naming the first offending row (its index label in the frame), if a column or a name is
        missing, a value is missing or off its scale, a dimension has no declared scale or two, a rating appears
        twice, or an item belongs to two clusters, datasets or topics.
        """
        declared = tuple(scales)
        if absent := [name for name in (*NAMES, "value") if name not in frame.columns]:
            raise ValueError(f"missing columns: {', '.join(absent)}")
        checked = frame[[name for name in COLUMNS if name in frame.columns]].copy()
        if "cluster" not in checked:
            checked["cluster"] = checked["item"]
        if "is_repeat" not in checked:
            checked["is_repeat"] = False
        _refuse_gaps(checked)
        for name in _name_columns(checked):
            checked[name] = checked[name].astype(str)
        checked["is_repeat"] = checked["is_repeat"].astype(bool)
        checked["value"] = pd.to_numeric(checked["value"], errors="raise").astype(np.float64)
        _refuse_off_scale(checked, declared)
        _refuse_duplicates(checked)
        _refuse_split_items(checked)
        order = [name for name in COLUMNS if name in checked.columns]
        return cls(checked[order].sort_values(KEY, ignore_index=True), declared)

    def __len__(self) -> int:
        """Ratings, hidden repeats included."""
        return len(self._places)

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of the checked rows, sorted."""
        return self._rows.frame.iloc[self._places].reset_index(drop=True)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The declared dimensions, in the order of their scales."""
        return tuple(scale.dimension for scale in self.scales)

    def scale(self, dimension: str) -> Scale:
        """The declared scale of a dimension. Raises ValueError if there is none."""
        for scale in self.scales:
            if scale.dimension == dimension:
                return scale
        raise ValueError(f"no scale is declared for {dimension!r}; there are {', '.join(self.dimensions)}")

    def has(self, column: str) -> bool:
        """Whether a column, for instance "dataset", was recorded."""
        return column in self._rows.frame.columns

    def levels(self, column: str) -> tuple[str, ...]:
        """The distinct names in a column, sorted. Raises ValueError if the column was not recorded."""
        codes, levels = self._codes(column)
        return tuple(levels[np.unique(codes)])

    def where(self, **levels: str) -> "RatingTable":
        """The ratings of one stratum, for instance where(system="B", dataset="smilechat")."""
        kept = np.ones(len(self), dtype=np.bool_)
        for column, level in levels.items():
            codes, names = self._codes(column)
            kept &= (names == level)[codes]
        return self._part(self._places[kept], self.scales)

    def strata(self, by: Sequence[str]) -> Iterator[tuple[dict[str, str], "RatingTable"]]:
        """Each combination of levels that occurs, sorted, with its ratings; no columns: all ratings, once."""
        if not by:
            yield {}, self
            return
        key = tuple(by)
        if key not in self._strata:
            codes, _, which = self._combined(by, self._places)
            names = [self._rows.codes(column)[1][of_column] for column, of_column in zip(by, codes, strict=True)]
            self._strata[key] = {
                levels: self._part(self._places[which == number], self.scales)
                for number, levels in enumerate(zip(*names, strict=True))
            }
        for levels, part in self._strata[key].items():
            yield dict(zip(by, levels, strict=True)), part

    def matrix(self, dimension: str) -> RatingMatrix:
        """One dimension as responses by raters, first ratings only; raters without a rating here are left out.

        The arrays are shared by all who ask and cannot be written to.
        """
        if dimension not in self._matrices:
            places = self._of(dimension)
            places = places[~self._rows.is_repeat[places]]
            rater_N, raters = self._rows.codes("rater")
            found = self._pivoted(places, ("item", "system"), rater_N[places], raters, self.scale(dimension))
            for array in (found.ratings, found.clusters):
                array.setflags(write=False)
            self._matrices[dimension] = found
        return self._matrices[dimension]

    def repeat_pairs(self, dimension: str) -> RatingMatrix:
        """First and repeated rating of every response that a rater met twice.

        Columns are "first" and "repeat"; rows are (item, system, rater), so one response may fill several rows.
        """
        index = ("item", "system", "rater")
        places = self._of(dimension)
        which = self._combined(index, places).which
        places = places[np.bincount(which)[which] == 2]
        occasion_N = self._rows.is_repeat[places].astype(np.int64)
        occasions = np.array(["first", "repeat"], dtype=object)
        pairs = self._pivoted(places, index, occasion_N, occasions, self.scale(dimension))
        if len(pairs.ratings):
            return pairs
        return pairs._replace(ratings=np.empty((0, 2)), raters=("first", "repeat"))

    def content_hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of scales and ratings; the order of rows changes nothing."""
        if self._hash:
            return self._hash
        scales = sorted(f"{scale.dimension}\x1f{scale}" for scale in self.scales)
        text = "\n".join([*scales, ",".join(self._rows.frame.columns), *sorted(self._rows.lines[self._places])])
        self._hash = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._hash

    def of_dimension(self, dimension: str) -> "RatingTable":
        """The ratings of one dimension, with only its scale: what a number about that dimension rests on."""
        if self.dimensions == (dimension,):
            return self
        return self._part(self._of(dimension), (self.scale(dimension),))

    def _of(self, dimension: str) -> IntArray:
        """Which rows are about a dimension."""
        self.scale(dimension)
        codes, names = self._codes("dimension")
        is_here: BoolArray = names == dimension
        return self._places[is_here[codes]]

    def _codes(self, column: str, places: IntArray | None = None) -> tuple[IntArray, NameArray]:
        """Of these rows, or of all in the table. Raises ValueError if the column was not recorded."""
        if not self.has(column):
            raise ValueError(f"the ratings have no column {column!r}")
        codes, levels = self._rows.codes(column)
        return codes[self._places if places is None else places], levels

    def _combined(self, columns: Sequence[str], places: IntArray) -> _Combinations:
        """The combinations of names that occur in these rows, sorted."""
        coded = [self._codes(column, places) for column in columns]
        shape = [max(1, len(levels)) for _, levels in coded]
        keys = np.ravel_multi_index([codes for codes, _ in coded], shape)
        found, first, which = np.unique(keys, return_index=True, return_inverse=True)
        return _Combinations(list(np.unravel_index(found, shape)), first, which)

    def _pivoted(
        self,
        places: IntArray,
        index: Sequence[str],
        column_N: IntArray,
        columns: NameArray,
        scale: Scale,
    ) -> RatingMatrix:
        """Long rows as a matrix; row and column order is sorted, so equal ratings always give equal matrices."""
        rows = self._combined(index, places)
        used, column_N = np.unique(column_N, return_inverse=True)
        ratings = np.full((len(rows.first), len(used)), np.nan)
        ratings[rows.which, column_N] = self._rows.values[places]
        clusters = np.unique(self._rows.codes("cluster")[0][places[rows.first]], return_inverse=True)[1]
        # Not from_arrays, which would sort the names of every stratum again; its stubs know lists alone.
        levels: Any = [self._rows.index(name) for name in index]
        codes: Any = rows.codes
        responses = pd.MultiIndex(levels=levels, codes=codes, names=list(index), verify_integrity=False)
        raters = tuple(str(name) for name in columns[used])
        return RatingMatrix(ratings, responses, raters, clusters.astype(np.int64), scale)


def _name_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in (*NAMES, *STRATA, "cluster") if name in frame.columns]


def _refuse_gaps(frame: pd.DataFrame) -> None:
    for name in (*_name_columns(frame), "value", "is_repeat"):
        empty = frame[name].isna()
        if empty.any():
            hint = "; a rating that was not given is a row that is not there" if name == "value" else ""
            raise ValueError(f"row {frame.index[empty][0]}: {name} is missing{hint}")
    odd = ~frame["is_repeat"].isin([True, False])
    if odd.any():
        raise ValueError(
            f"row {frame.index[odd][0]}: is_repeat is {frame['is_repeat'][odd].iloc[0]!r}, not true or false"
        )


def _refuse_off_scale(frame: pd.DataFrame, scales: tuple[Scale, ...]) -> None:
    points = {scale.dimension: scale.points for scale in scales}
    if len(points) < len(scales):
        raise ValueError("a dimension has two scales")
    for label, dimension, value in zip(frame.index, frame["dimension"], frame["value"], strict=True):
        if dimension not in points:
            raise ValueError(f"row {label}: no scale is declared for {dimension!r}")
        if value not in points[dimension]:
            raise ValueError(f"row {label}: {dimension} is {value:g}, the scale is {points[dimension]}")


def _refuse_duplicates(frame: pd.DataFrame) -> None:
    twice = frame.duplicated(KEY)
    if twice.any():
        row = frame[twice].iloc[0]
        named = ", ".join(f"{name} {row[name]}" for name in KEY)
        raise ValueError(f"row {frame.index[twice][0]}: rated twice: {named}")


def _refuse_split_items(frame: pd.DataFrame) -> None:
    for name in ("cluster", *STRATA):
        if name in frame.columns:
            n_levels = frame.groupby("item")[name].nunique()
            if (n_levels > 1).any():
                raise ValueError(f"item {n_levels.idxmax()} belongs to {n_levels.max()} values of {name}")
