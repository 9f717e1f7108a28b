"""Did blinding hold? Bang's and James' indices of guesses, and what raters say when asked outright.

Two questions, asked once all is rated. "Which system wrote this?", about responses the rater has read, with "don't
know" among the answers: from it come the indices. "Did you at any time believe you knew?": from it comes the share of
each answer, which says less, since belief is not knowledge.

Intervals of the indices go by rater: guesses of one rater hang together, and three raters make a wide interval.

Shapes: G = guesses, K = systems, R = raters; a leading "..." is one or many sets of guesses. Guesses are counted in
tables of K rows, who wrote it, by K + 1 columns, whom the rater named, the last being "don't know".
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from metrics.clustered import plain_row
from metrics.intervals import NO_INTERVAL, Interval
from metrics.results import Reason, ResultRow, Signature
from metrics.table import FloatArray

VERSION = 1

Index = Callable[[FloatArray], FloatArray]
"""Tables of guesses, shape (..., K, K + 1), to values of shape (...); NaN where undefined."""


def blinding_indices(guesses: pd.DataFrame, systems: Sequence[str], *, confidence: float = 0.95) -> list[ResultRow]:
    """Bang's index of each system and James' index of all, with intervals by rater.

    guesses: one row per answer, with columns rater, system (who wrote it) and guess (who the rater thinks wrote it);
        a missing guess is "don't know". A rater may answer about several responses.
    systems: all that could be guessed, two or more.

    bang_index, detail {"system": name}: the share of right guesses minus the share of wrong ones divided by the
    number of wrong choices, "don't know" counting as neither: 1 if everybody knows, 0 if they guess at random, below
    0 if they are led astray. With two systems this is Bang's index; dividing by the wrong choices is ours, and keeps
    0 at chance with more.

    james_index: 1 if nobody has an idea (or all are led astray, with two systems), 0.5 if they guess at random, 0 if
    everybody knows. Answers "don't know" lift it, so it can look well while one system is known: read Bang's, too.

    Intervals are by jackknife over raters with Student's t. Rows have no dimension.
    Raises ValueError, naming the row, if a column or a name is missing, or a name is not among the systems.

    Source: Bang, Ni & Davis (2004), Assessment of Blinding in Clinical Trials, Controlled Clinical Trials 25; James et
    al. (1996), An Index for Assessing Blindness, Statistics in Medicine 15.
    """
    names = [str(name) for name in systems]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"systems: two or more different names are needed, got {', '.join(names) or 'none'}")
    tables_RKK = _tables_by_rater(guesses, names)
    counted = sorted(tables_RKK.astype(int).tolist())
    data = hashlib.sha256(repr((names, counted)).encode()).hexdigest()[:12]  # who was who does not matter
    indices: list[tuple[str, Mapping[str, str], Index, FloatArray]] = []
    for place, name in enumerate(names):
        about_RKK = np.zeros_like(tables_RKK)
        about_RKK[:, place] = tables_RKK[:, place]
        indices.append(("bang_index", {"system": name}, partial(_bang, place=place), about_RKK))
    indices.append(("james_index", {}, _james, tables_RKK))
    rows = []
    for metric, detail, index, counted_RKK in indices:
        used_RKK = counted_RKK[counted_RKK.any(axis=(1, 2))]
        table_KK = used_RKK.sum(axis=0)
        value = float(index(table_KK))
        is_defined = bool(np.isfinite(value))
        undefined: Reason = "zero_denominator" if len(used_RKK) else "no_answers"
        lowest = 0.0 if metric == "james_index" else -1 / (len(names) - 1)
        interval = _jackknife(used_RKK, index, lowest, confidence) if is_defined else None
        low, high, method, _, notes, _ = interval or Interval(None, None, NO_INTERVAL, 0, ())
        signature = Signature.of(
            metric,
            VERSION,
            **detail,
            systems=len(names),
            interval="jackknife-by-rater",
            confidence=confidence,
            data=data,
        )
        n = {
            "guesses": int(table_KK.sum()),
            "right": int(np.trace(table_KK)),
            "dont_know": int(table_KK[:, -1].sum()),
            "raters": len(used_RKK),
        }
        rows.append(
            plain_row(
                metric, value if is_defined else None, dimension="", n=n, method=method, signature=signature, low=low,
                high=high, reason=None if is_defined else undefined, notes=notes, detail=detail,
            )
        )  # fmt: skip
    return rows


def _tables_by_rater(guesses: pd.DataFrame, names: Sequence[str]) -> FloatArray:
    """Each rater's guesses counted, shape (R, K, K + 1); raters in the order of their names."""
    if absent := [name for name in ("rater", "system", "guess") if name not in guesses.columns]:
        raise ValueError(f"guesses: missing columns: {', '.join(absent)}")
    for column in ("rater", "system"):
        empty = guesses[column].isna()
        if empty.any():
            raise ValueError(f"guesses, row {guesses.index[empty][0]}: {column} is missing")
    for column in ("system", "guess"):
        unknown = guesses[column].notna() & ~guesses[column].astype(str).isin(names)
        if unknown.any():
            row = guesses[unknown].iloc[0]
            raise ValueError(
                f"guesses, row {guesses.index[unknown][0]}: {column} {row[column]} is none of {', '.join(names)}"
            )
    places = {name: place for place, name in enumerate(names)}
    rater_G, raters = pd.factorize(guesses["rater"].astype(str), sort=True)
    system_G = np.array([places[str(name)] for name in guesses["system"]], dtype=np.int64)
    is_known_G = guesses["guess"].notna()
    guess_G = np.array(
        [
            places[str(name)] if is_known else len(names)
            for name, is_known in zip(guesses["guess"], is_known_G, strict=True)
        ],
        dtype=np.int64,
    )
    tables = np.zeros((len(raters), len(names), len(names) + 1))
    np.add.at(tables, (rater_G, system_G, guess_G), 1)
    return tables


def _bang(table: FloatArray, place: int) -> FloatArray:
    answers = table[..., place, :]
    right, wrong = answers[..., place], answers[..., :-1].sum(axis=-1) - answers[..., place]
    return _ratio(right - wrong / (answers.shape[-1] - 2), answers.sum(axis=-1))


def _james(table: FloatArray) -> FloatArray:
    named = table[..., :-1]  # (..., K, K), without "don't know"
    n_named, n = named.sum(axis=(-2, -1)), table.sum(axis=(-2, -1))
    right = np.einsum("...kk->...", named)
    right_by_chance = (named.sum(axis=-1) * named.sum(axis=-2)).sum(axis=-1)
    observed = _ratio(n_named - right, n_named)  # disagreement with the truth, all wrong guesses alike
    expected = _ratio(n_named**2 - right_by_chance, n_named**2)
    beyond_chance = np.where(n_named > 0, _ratio(observed - expected, expected), 0.0)
    share = _ratio(n - n_named, n)
    index: FloatArray = (1 + share + (1 - share) * beyond_chance) / 2
    return index


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient; NaN where the denominator is zero."""
    quotient: FloatArray = numerator / np.where(denominator == 0, np.nan, denominator)
    return quotient


def _jackknife(tables_RKK: FloatArray, index: Index, lowest: float, confidence: float) -> Interval:
    """The interval from leaving out one rater at a time, cut off at the ends of the index.

    With one guess per rater its standard error is the usual one of a mean, n - 1 below the square root.
    Source: Efron & Stein (1981), The Jackknife Estimate of Variance.
    """
    n_raters = len(tables_RKK)
    if n_raters < 2:
        return Interval(None, None, NO_INTERVAL, 0, ("one_rater",))
    total = tables_RKK.sum(axis=0)
    left_out = index(total - tables_RKK)
    n_undefined = int(np.count_nonzero(~np.isfinite(left_out)))
    if n_undefined:
        return Interval(None, None, NO_INTERVAL, n_undefined, ("undefined_without_one_rater",))
    error = np.sqrt((n_raters - 1) / n_raters * ((left_out - left_out.mean()) ** 2).sum())
    if error < 1e-12:
        return Interval(None, None, NO_INTERVAL, 0, ("degenerate_interval",))
    value, reach = float(index(total)), float(error * stats.t.ppf((1 + confidence) / 2, n_raters - 1))
    method = f"jackknife by rater, Student's t, {100 * confidence:g}%"
    return Interval(max(lowest, value - reach), min(1.0, value + reach), method, 0, ())


def recognition(answers: Mapping[str, str], choices: Sequence[str], *, confidence: float = 0.95) -> list[ResultRow]:
    """The share of raters who gave each answer when asked whether they ever believed they knew, 0 … 1.

    answers: rater ► one of `choices`; a rater who was not asked is not there.  choices: in the order of the question.

    One row `recognised` per choice, detail {"answer": choice}, with the exact interval of a share.
    Raises ValueError, naming the rater, if an answer is none of the choices.

    Source: Clopper & Pearson (1934), The Use of Confidence or Fiducial Limits.
    """
    for rater, answer in answers.items():
        if answer not in choices:
            raise ValueError(f"rater {rater}: {answer} is none of {', '.join(choices)}")
    given = sorted(answers.values())
    data = hashlib.sha256("\n".join(given).encode()).hexdigest()[:12]
    rows = []
    for choice in choices:
        count, n, detail = given.count(choice), len(given), {"answer": choice}
        signature = Signature.of(
            "recognised", VERSION, **detail, interval="clopper-pearson", confidence=confidence, data=data
        )
        counts = {"raters": n, "answers": count}
        if not n:
            rows.append(
                plain_row(
                    "recognised", None, dimension="", n=counts, method=NO_INTERVAL, signature=signature,
                    reason="no_answers", detail=detail,
                )
            )  # fmt: skip
            continue
        low, high = stats.binomtest(count, n).proportion_ci(confidence)
        method = f"exact interval over raters, {100 * confidence:g}%"
        rows.append(
            plain_row(
                "recognised", count / n, dimension="", n=counts, method=method, signature=signature, low=float(low),
                high=float(high), detail=detail,
            )
        )  # fmt: skip
    return rows
