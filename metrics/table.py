"""The checked long table of ratings that every human-rating metric starts from.

One row is one rating: one rater's value for one system's response to one item, on one dimension. A rating that was
not given is a row that is not there.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

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
        if len(self.points) < 2 or any(high <= low for low, high in zip(self.points, self.points[1:], strict=False)):
            raise ValueError(f"{self.dimension}: a scale needs two or more rising points, got {self.points}")

    def __str__(self) -> str:
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
    responses: pd.Index
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
        return len({(item, system) for item, system, *_ in self.responses})

    @property
    def n_raters(self) -> int:
        """Distinct raters, who stand in the columns or, for repeat pairs, in the rows."""
        return len(self.responses.unique("rater") if "rater" in self.responses.names else self.raters)


class RatingTable:
    """Ratings that were checked once, so that nothing after this has to ask again.

    Names of items, raters, systems and so on become text; the order of rows means nothing.
    """

    def __init__(self, frame: pd.DataFrame, scales: tuple[Scale, ...]) -> None:
        """For rows that are checked already; `from_frame` is the way in."""
        self._frame = frame
        self.scales = scales

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
        return len(self._frame)

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of the checked rows, sorted."""
        return self._frame.copy()

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
        return column in self._frame.columns

    def levels(self, column: str) -> tuple[str, ...]:
        """The distinct names in a column, sorted. Raises ValueError if the column was not recorded."""
        if not self.has(column):
            raise ValueError(f"the ratings have no column {column!r}")
        return tuple(sorted(self._frame[column].unique()))

    def where(self, **levels: str) -> "RatingTable":
        """The ratings of one stratum, for instance where(system="B", dataset="smilechat")."""
        kept = np.ones(len(self._frame), dtype=np.bool_)
        for column, level in levels.items():
            if not self.has(column):
                raise ValueError(f"the ratings have no column {column!r}")
            kept &= (self._frame[column] == level).to_numpy()
        return RatingTable(self._frame[kept].reset_index(drop=True), self.scales)

    def strata(self, by: Sequence[str]) -> Iterator[tuple[dict[str, str], "RatingTable"]]:
        """Each combination of levels that occurs, sorted, with its ratings; no columns: all ratings, once."""
        for column in by:
            self.levels(column)
        if not by:
            yield {}, self
            return
        for levels in sorted(set(self._frame[list(by)].itertuples(index=False, name=None))):
            stratum = dict(zip(by, levels, strict=True))
            yield stratum, self.where(**stratum)

    def matrix(self, dimension: str) -> RatingMatrix:
        """One dimension as responses by raters, first ratings only; raters without a rating here are left out."""
        rows = self._of(dimension)
        return _pivoted(rows[~rows["is_repeat"]], ["item", "system"], "rater", self.scale(dimension))

    def repeat_pairs(self, dimension: str) -> RatingMatrix:
        """First and repeated rating of every response that a rater met twice.

        Columns are "first" and "repeat"; rows are (item, system, rater), so one response may fill several rows.
        """
        rows = self._of(dimension)
        occasion = np.where(rows["is_repeat"], "repeat", "first")
        rows = rows.assign(occasion=occasion)
        twice = rows.groupby(["item", "system", "rater"])["occasion"].transform("size") == 2
        pairs = _pivoted(rows[twice], ["item", "system", "rater"], "occasion", self.scale(dimension))
        if len(pairs.ratings):
            return pairs
        return pairs._replace(ratings=np.empty((0, 2)), raters=("first", "repeat"))

    def content_hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of scales and ratings; the order of rows changes nothing."""
        columns = [self._frame[name].astype(str).tolist() for name in self._frame.columns]
        lines = ["\x1f".join(row) for row in zip(*columns, strict=True)]
        scales = sorted(f"{scale.dimension}\x1f{scale}" for scale in self.scales)
        text = "\n".join([*scales, ",".join(self._frame.columns), *sorted(lines)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def of_dimension(self, dimension: str) -> "RatingTable":
        """The ratings of one dimension, with only its scale: what a number about that dimension rests on."""
        return RatingTable(self._of(dimension).reset_index(drop=True), (self.scale(dimension),))

    def _of(self, dimension: str) -> pd.DataFrame:
        self.scale(dimension)
        return self._frame[self._frame["dimension"] == dimension]


def _name_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in (*NAMES, *STRATA, "cluster") if name in frame.columns]


def _pivoted(rows: pd.DataFrame, index: list[str], columns: str, scale: Scale) -> RatingMatrix:
    """Long rows as a matrix; row and column order is sorted, so equal ratings always give equal matrices."""
    wide = rows.pivot(index=index, columns=columns, values="value").sort_index().sort_index(axis=1)
    cluster_of_item = rows.drop_duplicates("item").set_index("item")["cluster"]
    names = cluster_of_item.loc[wide.index.get_level_values("item")]
    clusters = pd.factorize(names, sort=True)[0].astype(np.int64)
    return RatingMatrix(
        ratings=wide.to_numpy(dtype=np.float64),
        responses=wide.index,
        raters=tuple(str(name) for name in wide.columns),
        clusters=clusters,
        scale=scale,
    )


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
