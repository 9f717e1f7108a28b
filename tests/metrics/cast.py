"""A small invented study: dialogues d0 … answered by systems A and B, rated by ann, bob and cem."""

import numpy as np
import pandas as pd

from metrics.table import RatingTable, Scale

EMPATHY = Scale("empathy", (0, 1, 2))
SAFETY = Scale("safety", (0, 1))
RATERS = ("ann", "bob", "cem")


def make_frame(n_items: int = 12, seed: int = 0, n_repeats: int = 0) -> pd.DataFrame:
    """Complete ratings: empathy varies with the dialogue, safety is always 1; the first items may be rated twice."""
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(n_items):
        dataset = "soul" if item % 2 else "smile"
        for system, lift in (("A", 0.0), ("B", 0.4)):
            quality = rng.normal(1 + lift, 0.6)
            for rater in RATERS:
                for is_repeat in (False, True)[: 1 + (item < n_repeats)]:
                    empathy = int(np.clip(round(quality + rng.normal(0, 0.5)), 0, 2))
                    place = {"item": f"d{item}", "system": system, "rater": rater, "dataset": dataset}
                    rows.append({**place, "dimension": "empathy", "value": empathy, "is_repeat": is_repeat})
                    rows.append({**place, "dimension": "safety", "value": 1, "is_repeat": is_repeat})
    return pd.DataFrame(rows)


def make_table(n_items: int = 12, seed: int = 0, n_repeats: int = 0) -> RatingTable:
    """The same as a checked table."""
    return RatingTable.from_frame(make_frame(n_items, seed, n_repeats), (EMPATHY, SAFETY))
