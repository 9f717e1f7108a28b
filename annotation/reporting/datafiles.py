"""StudyData as plain files and back: what an archive holds, and what its numbers are computed from again."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd

from metrics.report import DatasetTexts, ExitAnswers, Guess, StudyData
from metrics.table import COLUMNS, RatingTable, Scale
from metrics.text import TextStatistics

SETTINGS, RATINGS, TEXTS = "data/settings.json", "data/ratings.csv", "data/texts-{}.csv"
EXIT, JUDGES = "data/exit.json", "data/judges.csv"  # there only if there is anything to tell
MOST_DRAWS = 1_000_000  # resamples or exchanges; a report has some thousand
_KINDS: Mapping[str, Any] = {"value": float, "seconds": float, "position": int, "is_repeat": lambda text: text == "1"}


class Unreadable(ValueError):
    """A file of the archive is not what an archive holds; the message names the file and the line."""


def data_files(data: StudyData) -> dict[str, bytes]:
    """File name ► content. Equal data give equal bytes."""
    datasets = sorted(data.texts)
    settings = {
        "seed": data.seed,
        "n_bootstrap": data.n_bootstrap,
        "n_flips": data.n_flips,
        "scales": {scale.dimension: list(scale.points) for scale in data.ratings.scales},
        "texts": [{"dataset": slug, "source": _source(data.texts[slug])} for slug in datasets],
    }
    files = {SETTINGS: (json.dumps(settings, ensure_ascii=False, indent=1) + "\n").encode()}
    files[RATINGS] = _rating_lines(data.ratings)
    if data.exit_answers.guesses or data.exit_answers.recognised:
        files[EXIT] = (json.dumps(asdict(data.exit_answers), ensure_ascii=False, indent=1) + "\n").encode()
    if data.judges is not None:
        files[JUDGES] = _rating_lines(data.judges)
    for number, slug in enumerate(datasets, start=1):
        files[TEXTS.format(number)] = _csv(_text_lines(data.texts[slug]))
    return files


def _rating_lines(ratings: RatingTable) -> bytes:
    frame = ratings.frame
    frame["is_repeat"] = frame["is_repeat"].astype(int)
    return _csv([frame.columns.tolist(), *frame.astype(object).to_numpy().tolist()])


def _source(texts: DatasetTexts) -> list[list[str]]:
    tables = list(texts.statistics.values())
    return [list(pair) for pair in tables[0].source] if tables else []


def _text_lines(texts: DatasetTexts) -> Iterator[list[Any]]:
    """A line per item and arm: the item's number in the study, its dialogue and topic, then the counts."""
    tables = texts.statistics
    yield ["arm", "number", "cluster", "topic", *(next(iter(tables.values())).columns if tables else ())]
    for arm in sorted(tables):
        values = tables[arm].values.tolist()
        for number, cluster, topic, row in zip(
            texts.numbers, texts.clusters.tolist(), texts.topics, values, strict=True
        ):
            yield [arm, number, cluster, topic, *row]


def _csv(rows: Any) -> bytes:
    buffer = StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def read_data(files: Mapping[str, bytes]) -> StudyData:
    """What `data_files` wrote. Raises Unreadable, naming file and line, for anything else."""
    try:
        settings = json.loads(files[SETTINGS])
        scales = [Scale(name, tuple(float(p) for p in points)) for name, points in settings["scales"].items()]
        listed = [
            (str(entry["dataset"]), [(str(a), str(b)) for a, b in entry["source"]]) for entry in settings["texts"]
        ]
        seed = _whole(settings, "seed", 0)
        n_bootstrap, n_flips = (_whole(settings, name, 1, MOST_DRAWS) for name in ("n_bootstrap", "n_flips"))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise Unreadable(f"{SETTINGS}: {error}") from error
    texts = {
        dataset: _read_texts(files, TEXTS.format(number), tuple(source))
        for number, (dataset, source) in enumerate(listed, start=1)
    }
    return StudyData(
        _read_ratings(files, RATINGS, scales),
        texts,
        seed,
        n_bootstrap,
        n_flips,
        exit_answers=_read_exit(files),
        judges=_read_ratings(files, JUDGES, scales) if JUDGES in files else None,
    )


def _whole(settings: Mapping[str, Any], name: str, lowest: int, highest: int | None = None) -> int:
    value = settings[name]
    if type(value) is not int or value < lowest or (highest is not None and value > highest):
        raise ValueError(f"{name} is {value!r}, not a whole number from {lowest} on that a study is computed with")
    return value


def _read_exit(files: Mapping[str, bytes]) -> ExitAnswers:
    if EXIT not in files:
        return ExitAnswers()
    try:
        told = json.loads(files[EXIT])
        return ExitAnswers(
            systems=tuple(str(name) for name in told["systems"]),
            guesses=tuple(Guess(*guess) for guess in told["guesses"]),
            recognised={str(rater): str(answer) for rater, answer in told["recognised"].items()},
            choices=tuple(str(choice) for choice in told["choices"]),
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise Unreadable(f"{EXIT}: {error}") from error


def _lines(files: Mapping[str, bytes], name: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells, the heading first."""
    if name not in files:
        raise Unreadable(f"{name} is not there")
    try:
        text = files[name].decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{name}: byte {error.start} is no UTF-8") from error
    reader = csv.reader(StringIO(text, newline=""))
    width = 0
    try:
        for cells in reader:
            if not width and len(set(cells)) < len(cells):
                raise Unreadable(f"{name}, line 1: a column is there twice")
            width = width or len(cells)
            if len(cells) != width:
                raise Unreadable(f"{name}, line {reader.line_num}: {len(cells)} cells where the heading has {width}")
            yield reader.line_num, cells
    except csv.Error as error:
        raise Unreadable(f"{name}, line {reader.line_num}: {error}") from error


def _read_ratings(files: Mapping[str, bytes], name: str, scales: list[Scale]) -> RatingTable:
    lines = _lines(files, name)
    _number, heading = next(lines, (1, []))
    if unknown := set(heading) - set(COLUMNS):
        raise Unreadable(f"{name}, line 1: no such column: {', '.join(sorted(unknown))}")
    rows: list[list[Any]] = []
    places: list[int] = []
    for place, cells in lines:
        try:
            rows.append([_KINDS.get(column, str)(cell) for column, cell in zip(heading, cells, strict=True)])
        except ValueError as error:
            raise Unreadable(f"{name}, line {place}: {error}") from error
        places.append(place)
    frame = pd.DataFrame(rows, columns=heading, index=pd.Index(places, dtype=int))
    try:
        return RatingTable.from_frame(frame, scales)
    except ValueError as error:  # it names the row by its label, which is the line
        raise Unreadable(f"{name}, {str(error).replace('row ', 'line ', 1)}") from error


def _read_texts(files: Mapping[str, bytes], name: str, source: tuple[tuple[str, str], ...]) -> DatasetTexts:
    lines = _lines(files, name)
    _number, heading = next(lines, (1, []))
    if heading[:4] != ["arm", "number", "cluster", "topic"]:
        raise Unreadable(f"{name}, line 1: the columns are not those of text counts")
    about: dict[str, list[list[str]]] = {}
    values: dict[str, list[list[int]]] = {}
    for place, cells in lines:
        try:
            values.setdefault(cells[0], []).append([_count(cell) for cell in cells[4:]])
            about.setdefault(cells[0], []).append([cells[1], str(int(cells[2])), cells[3]])
        except ValueError as error:
            raise Unreadable(f"{name}, line {place}: {error}") from error
    first = next(iter(about.values()), [])
    if any(items != first for items in about.values()):
        raise Unreadable(f"{name}: the arms do not have the same items")
    return DatasetTexts(
        numbers=tuple(item[0] for item in first),
        clusters=np.array([int(item[1]) for item in first], dtype=np.int64),
        topics=tuple(item[2] for item in first),
        statistics={
            arm: TextStatistics(np.array(rows, dtype=np.int32), tuple(heading[4:]), source)
            for arm, rows in values.items()
        },
    )


def _count(cell: str) -> int:
    count = int(cell)
    if not 0 <= count < 2**31:
        raise ValueError(f"{cell} is no count")
    return count
