"""All numbers of a study in one pass: data in, sections of ResultRows out.

The same call serves the page, the files and whoever rebuilds an archived study: equal data give equal rows, whatever
machine computed them, since every row is rounded to the digits that all processors agree on.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd

from metrics import blinding, comparison, correlation, intervals, judge, mixed, panels, power, raters, text
from metrics.randomisation import compare_systems
from metrics.results import Estimate, Reason, ResultRow, Signature
from metrics.significance import N_FLIPS
from metrics.table import IntArray, RatingTable
from metrics.text import CHATGLM, METRICS, PROTOCOLS, MixedSignatures, Protocol, TextStatistics

VERSION = 2
DIGITS = 8  # significant; sums in another order differ from the fifteenth on, and few numbers lie on the edge
FITTED_DIGITS = 5  # of numbers at which an optimiser stopped
FITTED = ("clmm", "gee", "p_clmm", "p_gee", "p_proportional", "strength")
SPLITS = ("system", "dataset", "topic")
LENGTHS = ("short", "medium", "long")
UNKNOWN = "unknown"
EPSILON = 0.2  # by how much a judge may be worse than a rater, being cheaper: the value for experts, see metrics.judge
AGAINST_PEOPLE = ("bleu_1", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "length")  # length alone is the sentinel

Progress = Callable[[int, int], None]
"""Called with the number of steps done and the number of steps in all."""


@dataclass(frozen=True)
class DatasetTexts:
    """The automatic side of one dataset: the items that every system answered, in one order for all systems.

    numbers: the item's number in the study, as text; "" for an item that was not drawn for rating.
    clusters: shape (n_items,), equal where two items come from one dialogue;  topics: "" where none is known.
    statistics: arm code ► a row per item. MixedSignatures unless all arms were counted in one way.
    """

    numbers: tuple[str, ...]
    clusters: IntArray
    topics: tuple[str, ...]
    statistics: Mapping[str, TextStatistics]

    def __post_init__(self) -> None:
        for arm, table in self.statistics.items():
            if not len(table) == len(self.numbers) == len(self.topics) == len(self.clusters):
                raise ValueError(f"arm {arm} has counts of {len(table)} texts for {len(self.numbers)} items")
        if len({(table.source, table.columns) for table in self.statistics.values()}) > 1:
            raise MixedSignatures("the texts of these arms were counted in different ways")


class Guess(NamedTuple):
    """Whom one rater takes for the writer of one response; guess None = cannot tell."""

    rater: str
    system: str
    guess: str | None


@dataclass(frozen=True)
class ExitAnswers:
    """What raters said once they were done. Sorted, so that equal answers make equal data.

    systems: all that could be guessed;  recognised: rater ► one of `choices`, to "did you ever believe you knew?".
    """

    systems: tuple[str, ...] = ()
    guesses: tuple[Guess, ...] = ()
    recognised: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyData:
    """All that a study's numbers rest on. Systems are arm codes and raters are pseudonyms, so it may be published.

    ratings: all dimensions, hidden repeats included, with dataset, topic, cluster, position and seconds.
    texts: dataset ► its texts;  seed: of the intervals and tests.
    n_bootstrap: resamples of each interval;  n_flips: of each test by exchange. Both stand in every signature.
    """

    ratings: RatingTable
    texts: Mapping[str, DatasetTexts] = field(default_factory=dict)
    seed: int = 0
    n_bootstrap: int = intervals.N_BOOTSTRAP
    n_flips: int = N_FLIPS
    exit_answers: ExitAnswers = field(default_factory=ExitAnswers)
    judges: RatingTable | None = None  # each judge is a "rater" of its own name; never part of `ratings`


Sections = dict[str, tuple[ResultRow, ...]]


def compute(data: StudyData, *, on_progress: Progress | None = None) -> Sections:
    """Section ► its rows; a section with nothing to compute is not there.

    scores, distribution, comparison, mixed, power: systems;  agreement, repeats, raters, blinding: people;  texts,
    text_parts, text_differences: text metrics;  correlation: text metrics against people;  judges: judges against
    people.
    """
    steps = deque(_steps(data))
    n_steps = len(steps)
    found: dict[str, list[ResultRow]] = {}
    for done in range(1, n_steps + 1):
        section, step = steps.popleft()  # what a step kept of its table goes with the last step that uses it
        found.setdefault(section, []).extend(_rounded(row) for row in step())
        del step
        if on_progress is not None:
            on_progress(done, n_steps)
    return {section: tuple(rows) for section, rows in found.items()}


def _rounded(row: ResultRow) -> ResultRow:
    estimate = row.estimate.rounded(FITTED_DIGITS if row.metric.startswith(FITTED) else DIGITS)
    return ResultRow(row.metric, row.dimension, estimate, row.stratum, row.detail)


Step = Callable[[], Sequence[ResultRow]]


class Draws(TypedDict):
    """What every resampled number is made with."""

    seed: int
    n_bootstrap: int


def _steps(data: StudyData) -> Iterator[tuple[str, Step]]:
    drawn: Draws = {"seed": data.seed, "n_bootstrap": data.n_bootstrap}
    rated = [dimension for dimension in data.ratings.dimensions if len(data.ratings.of_dimension(dimension))]
    scores = _scores_of_rated_items(data.texts)
    for dimension in rated:
        table = data.ratings.of_dimension(dimension)
        yield from _rating_steps(table, dimension, drawn, data.n_flips)
        if len(scores):
            against = partial(correlation.correlate_all, table, dimension, scores, n_flips=data.n_flips, **drawn)
            yield "correlation", against
        yield from _judge_steps(table, data.judges, dimension, drawn)
    if rated:
        yield "raters", partial(raters.rater_habits, data.ratings, **drawn)
    yield from _blinding_steps(data.exit_answers)
    for dataset, texts in sorted(data.texts.items()):
        yield from _text_steps(dataset, texts, drawn, data.n_flips)


def _rating_steps(table: RatingTable, dimension: str, drawn: Draws, n_flips: int) -> Iterator[tuple[str, Step]]:
    compared = partial(comparison.compare_all, table, dimension, n_flips=n_flips, **drawn)
    yield "scores", partial(_scores, table, dimension, drawn)
    yield "distribution", partial(_point_counts, table, dimension)
    if len(table.levels("system")) > 1:
        yield "comparison", compared
        if len(table.levels("dataset")) > 1:
            yield "comparison", partial(compared, by=("dataset",))
        yield "mixed", partial(mixed.mixed_model, table, dimension)
        yield "mixed", partial(mixed.gee, table, dimension)
        yield "power", partial(power.minimum_detectable_difference, table, dimension, **drawn)
        yield "power", partial(power.variance_rows, table, dimension, **drawn)
    yield "agreement", partial(panels.agreement_panel, table, by=_splits(table), **drawn)
    yield "repeats", partial(panels.repeat_agreement, rated_twice(table), dimension, **drawn)
    yield "raters", partial(raters.rater_effects, table, dimension, **drawn)


def _judge_steps(
    table: RatingTable, judges: RatingTable | None, dimension: str, drawn: Draws
) -> Iterator[tuple[str, Step]]:
    if judges is None:
        return
    given = judges.of_dimension(dimension)
    alignment: judge.Alignment = "accuracy" if len(table.scale(dimension).points) == 2 else "rmse"
    test = partial(judge.alternative_annotator_test, epsilon=EPSILON, alignment=alignment)
    for name in given.levels("rater"):
        rated = given.where(rater=name)
        yield "judges", partial(test, table, rated, dimension)
        yield "judges", partial(judge.judge_agreement, table, rated, dimension, **drawn)


def _blinding_steps(answers: ExitAnswers) -> Iterator[tuple[str, Step]]:
    if answers.guesses and len(answers.systems) > 1:
        guesses = pd.DataFrame(list(answers.guesses), columns=list(Guess._fields))
        yield "blinding", partial(blinding.blinding_indices, guesses, answers.systems)
    if answers.recognised:
        yield "blinding", partial(blinding.recognition, answers.recognised, answers.choices)


def _splits(table: RatingTable) -> list[str]:
    """The columns that split the ratings at all."""
    return [column for column in SPLITS if table.has(column) and len(table.levels(column)) > 1]


def _scores(table: RatingTable, dimension: str, drawn: Draws) -> list[ResultRow]:
    rows = intervals.mean_score(table, dimension, by=("dataset", "system"), **drawn)
    if len(table.levels("dataset")) > 1:
        rows += intervals.mean_score(table, dimension, by=("system",), **drawn)
    return rows


def _point_counts(table: RatingTable, dimension: str) -> list[ResultRow]:
    """How often each point of the scale was given, per dataset and system; hidden repeats are left out."""
    rows = []
    for stratum, part in table.strata(("dataset", "system")):
        matrix = part.matrix(dimension)
        data = part.of_dimension(dimension).content_hash()
        signature = str(Signature.of("point_count", VERSION, dimension=dimension, scale=matrix.scale, data=data))
        n = intervals.matrix_counts(matrix)
        for point in matrix.scale.points:
            count = Estimate(float((matrix.ratings == point).sum()), None, None, n, "count", signature)
            rows.append(ResultRow("point_count", dimension, count, stratum, {"point": f"{point:g}"}))
    return rows


def rated_twice(table: RatingTable) -> RatingTable:
    """Only what a rater's agreement with himself rests on: the responses that he met a second time."""
    frame = table.frame
    is_twice = frame.groupby(["item", "system", "rater"])["is_repeat"].transform("any").astype(bool)
    return RatingTable(frame[is_twice].reset_index(drop=True), table.scales)


# Texts.


def _scores_of_rated_items(texts: Mapping[str, DatasetTexts]) -> pd.DataFrame:
    """item, system and a column per metric of AGAINST_PEOPLE: the scores of single responses that people rated."""
    parts = []
    for dataset in texts.values():
        is_rated = np.array([number != "" for number in dataset.numbers], dtype=np.bool_)
        items = [number for number in dataset.numbers if number]
        for system, statistics in dataset.statistics.items():
            scores = pd.DataFrame(text.pair_scores(statistics.rows(is_rated), CHATGLM), columns=list(METRICS))
            parts.append(scores[list(AGAINST_PEOPLE)].assign(item=items, system=system).dropna())
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _text_steps(dataset: str, texts: DatasetTexts, drawn: Draws, n_flips: int) -> Iterator[tuple[str, Step]]:
    arms = sorted(texts.statistics)
    clusters = texts.clusters
    for arm in arms:
        statistics, stratum = texts.statistics[arm], {"dataset": dataset, "system": arm}
        yield "texts", partial(_text_scores, statistics, clusters, stratum, drawn, tuple(PROTOCOLS.values()))
        yield "text_parts", partial(_text_parts, texts, statistics, stratum, drawn)
    for pair in combinations(arms, 2):
        yield "text_differences", partial(_text_difference, texts, pair, {"dataset": dataset}, drawn, n_flips)


def _text_parts(
    texts: DatasetTexts, statistics: TextStatistics, stratum: Mapping[str, str], drawn: Draws
) -> list[ResultRow]:
    """The default protocol by topic, and by thirds of the items by length of their references."""
    lengths = statistics.column(f"{CHATGLM.bleu_tokens}.reference_length")
    edges = np.quantile(lengths, [1 / 3, 2 / 3]) if len(lengths) else np.zeros(2)
    parts = {"topic": np.array(texts.topics, dtype=object), "length": np.array(LENGTHS)[np.digitize(lengths, edges)]}
    rows: list[ResultRow] = []
    for name, levels in parts.items():
        found = sorted(set(levels))
        for level in found if len(found) > 1 else ():
            chosen = levels == level
            here = {**stratum, name: level or UNKNOWN}
            rows += _text_scores(statistics.rows(chosen), texts.clusters[chosen], here, drawn, (CHATGLM,))
    return rows


def _text_scores(
    statistics: TextStatistics,
    clusters: IntArray,
    stratum: Mapping[str, str],
    drawn: Draws,
    protocols: Sequence[Protocol],
) -> list[ResultRow]:
    rows = []
    for protocol in protocols:
        found = text.text_scores(statistics, protocol, clusters=clusters, **drawn)
        detail = {"protocol": protocol.label}
        rows += [ResultRow(metric, "", estimate, stratum, detail) for metric, estimate in found.items()]
    return rows


def _text_difference(
    texts: DatasetTexts, pair: tuple[str, str], stratum: Mapping[str, str], drawn: Draws, n_flips: int
) -> list[ResultRow]:
    """Of the default protocol only: a difference is a question asked once."""
    first, second = (texts.statistics[arm] for arm in pair)
    if not (first.is_complete & second.is_complete).any():
        return []
    detail = {"systems": ", ".join(pair), "protocol": CHATGLM.label}
    rows = []
    compared = compare_systems(first, second, CHATGLM, clusters=texts.clusters, n_permutations=n_flips, **drawn)
    for metric, found in compared.items():
        rows.append(ResultRow(f"{metric}_difference", "", found.estimate, stratum, detail))
        for name, p in (("p_randomisation", found.p_randomisation), ("p_bootstrap", found.p_bootstrap)):
            reason: Reason | None = "one_dialogue" if p is None else None
            estimate = replace(found.estimate, value=p, low=None, high=None, method=name, reason=reason, notes=())
            rows.append(ResultRow(f"{metric}_{name}", "", estimate, stratum, detail))
    return rows
