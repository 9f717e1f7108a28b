"""All that a report can be made of, in plain values and as little of it as will do."""

from __future__ import annotations

import numpy as np
import pandas as pd

from metrics.report import DatasetTexts, ExitAnswers, Guess, StudyData
from metrics.table import RatingTable, Scale
from metrics.text import PROTOCOLS, References, system_statistics, tokens_of
from tests.annotation.plain_files import REFERENCES, RESPONSES

RATERS = ("R1", "R2", "judge")


def small_data() -> StudyData:
    """Two arms, four items, two raters, texts, a judge, and an answer about blinding."""
    rng = np.random.default_rng(1)
    columns = ["item", "rater", "system", "dimension", "value", "dataset", "cluster"]
    rows = [(f"{i}", r, s, "empathy", rng.integers(3), "set", f"d{i}") for i in range(4) for s in "AB" for r in RATERS]
    ratings = pd.DataFrame([row for row in rows if row[1] != "judge"], columns=columns)
    judge = pd.DataFrame([row for row in rows if row[1] == "judge"], columns=columns)
    scales = [Scale("empathy", (0, 1, 2))]
    references = References(REFERENCES, tokens=tokens_of(*PROTOCOLS.values()))
    responses = dict(zip("AB", RESPONSES.values(), strict=True))
    return StudyData(
        RatingTable.from_frame(ratings, scales),
        {"set": DatasetTexts(tuple("0123"), np.arange(4), tuple("aabb"), system_statistics(responses, references))},
        n_bootstrap=20,
        n_flips=20,
        exit_answers=ExitAnswers(("A", "B"), (Guess("R1", "A", "B"),), {"R1": "no"}, ("no", "often")),
        judges=RatingTable.from_frame(judge, scales),
    )
