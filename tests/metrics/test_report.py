"""All numbers of a study in one pass: whatever the ratings are, each is a number or says why it is none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metrics.report import DIGITS, DatasetTexts, StudyData, compute
from metrics.results import ResultRow
from metrics.table import RatingTable, Scale
from metrics.text import CHAR, CHATGLM, REFERENCE, MixedSignatures, References, text_statistics, tokens_of

SCALES = (Scale("empathy", (0, 1, 2)), Scale("safety", (0, 1)))


def ratings(*, items=4, systems="AB", raters=3, value=None, only=lambda *_: True) -> RatingTable:
    """Ratings of a made-up study; `value` says which, drawn if it is not given."""
    rng = np.random.default_rng(5)
    rows = [
        {
            "item": str(i), "rater": f"R{r}", "system": s, "dimension": scale.dimension,
            "value": rng.choice(scale.points) if value is None else min(value, scale.points[-1]),
            "dataset": f"set{i % 2}", "topic": f"topic {i % 3}", "cluster": f"d{i}", "position": 4 * i, "seconds": 30.0,
        }
        for i in range(items) for s in systems for r in range(1, raters + 1) for scale in SCALES if only(i, s, r)
    ]  # fmt: skip
    columns = ["item", "rater", "system", "dimension", "value", "dataset", "topic", "cluster", "position", "seconds"]
    return RatingTable.from_frame(pd.DataFrame(rows, columns=columns), SCALES)


def texts(systems="AB", *, references=("你好吗", "我很难过", "谢谢")) -> DatasetTexts:
    known = References(references, tokens=tokens_of(CHATGLM, REFERENCE, CHAR))
    said = ("你好", "我知道你难过", "不客气")
    return DatasetTexts(
        numbers=("0", "1", ""),
        clusters=np.array([0, 1, 2]),
        topics=("", "work", "work"),
        statistics={
            system: text_statistics([*said[shift:], *said[:shift]], known) for shift, system in enumerate(systems)
        },
    )


def check(data: StudyData) -> dict[str, tuple[ResultRow, ...]]:
    sections = compute(data)
    for rows in sections.values():
        for row in rows:
            estimate = row.estimate
            numbers = [n for n in (estimate.value, estimate.low, estimate.high) if n is not None]
            assert (estimate.value is None) == (estimate.reason is not None)
            assert all(math.isfinite(number) for number in numbers)
            assert all(float(f"{number:.{DIGITS}g}") == number for number in numbers)
            assert estimate.signature.startswith("name:")
            assert ResultRow.from_dict(json.loads(json.dumps(row.to_dict(), allow_nan=False))) == row
    return sections


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(ratings(), id="a small study"),
        pytest.param(ratings(raters=1), id="one rater"),
        pytest.param(ratings(items=1), id="one item"),
        pytest.param(ratings(systems="A"), id="one system"),
        pytest.param(ratings(items=1, systems="A", raters=1), id="one rating"),
        pytest.param(ratings(value=1), id="the same everywhere"),
        pytest.param(ratings(value=2), id="the highest everywhere"),
        pytest.param(ratings(only=lambda i, s, r: (i + r) % 3 == 0), id="nobody shares a response"),
        pytest.param(ratings(only=lambda i, s, r: s == "A" or i < 2), id="unequal items"),
        pytest.param(ratings(only=lambda i, s, r: (s == "A") == (i < 2)), id="systems on different items"),
    ],
)
def test_each_number_is_a_number_or_says_why_not(table):
    sections = check(StudyData(table, {"set0": texts()}, seed=3, n_bootstrap=40, n_flips=40))
    assert sections["scores"]
    assert sections["texts"]


def test_nothing_rated_and_nothing_written_gives_nothing():
    assert check(StudyData(ratings(items=0))) == {}


def test_texts_alone_have_their_numbers_before_anybody_rates():
    sections = check(StudyData(ratings(items=0), {"set0": texts()}, n_bootstrap=40, n_flips=40))
    assert set(sections) == {"texts", "text_parts", "text_differences"}


def test_without_references_the_automatic_columns_say_so():
    data = StudyData(ratings(), {"set0": texts(references=(None, None, None))}, n_bootstrap=40, n_flips=40)
    sections = check(data)
    assert {row.estimate.reason for row in sections["texts"]} == {"no_pairs"}
    assert "text_differences" not in sections or not sections["text_differences"]


def test_texts_that_were_counted_in_different_ways_do_not_stand_side_by_side():
    mine, theirs = texts(), texts(references=("another", None, "third"))
    with pytest.raises(MixedSignatures, match="in different ways"):
        replace(mine, statistics={"A": mine.statistics["A"], "B": theirs.statistics["B"]})
    with pytest.raises(ValueError, match="arm A has counts of 3 texts for 2 items"):
        replace(mine, numbers=mine.numbers[:2])


def test_equal_data_give_equal_numbers_and_rows_in_another_order_change_nothing():
    table = ratings(items=6)
    shuffled = RatingTable.from_frame(table.frame.sample(frac=1, random_state=1), table.scales)
    one, other = (compute(StudyData(t, n_bootstrap=40, n_flips=40)) for t in (table, shuffled))
    assert one == other


def test_progress_is_told_to_the_end():
    told = []
    compute(
        StudyData(ratings(), n_bootstrap=10, n_flips=10), on_progress=lambda done, total: told.append((done, total))
    )
    assert [done for done, _total in told] == list(range(1, len(told) + 1))
    assert {total for _done, total in told} == {len(told)}
