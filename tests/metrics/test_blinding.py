import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metrics.blinding import blinding_indices, recognition

ARMS = ("drug", "placebo")
# The CRISP trial as Bang, Ni & Davis (2004) use it: guessed drug, guessed placebo, don't know; one guess per person.
CRISP = {"drug": (82, 25, 170), "placebo": (27, 29, 83)}


def guesses_of(counts, names=ARMS):
    """One row per guess, each by another rater."""
    rows = [
        (system, guess)
        for system, numbers in counts.items()
        for guess, n in zip((*names, None), numbers, strict=True)
        for _ in range(n)
    ]
    frame = pd.DataFrame(rows, columns=["system", "guess"])
    frame["rater"] = [f"r{i}" for i in range(len(frame))]
    return frame


def indices(frame, names=ARMS, **settings):
    rows = blinding_indices(frame, names, **settings)
    return {(row.metric, *row.detail.values()): row.estimate for row in rows}


def james_by_hand(counts):
    """The formula as James et al. (1996) and Bang et al. (2004) write it, with weight 1 for every wrong guess."""
    share = np.array(list(counts.values()), dtype=float) / np.sum(list(counts.values()))
    unsure = share[:, -1].sum()
    observed = expected = 0.0
    for i in range(len(share)):
        for j in range(len(share)):
            weight = float(i != j)
            observed += weight * share[i, j] / (1 - unsure)
            expected += weight * share[:, j].sum() * (share[i].sum() - share[i, -1]) / (1 - unsure) ** 2
    return (1 + unsure + (1 - unsure) * (observed - expected) / expected) / 2


# Witnesses.


def test_indices_of_the_published_trial():
    found = indices(guesses_of(CRISP))
    assert found["bang_index", "drug"].value == pytest.approx(0.21, abs=5e-3)
    assert found["bang_index", "placebo"].value == pytest.approx(0.01, abs=5e-3)
    assert found["james_index",].value == pytest.approx(0.75, abs=5e-3)


@pytest.mark.parametrize(
    "counts", [CRISP, {"drug": (9, 4, 0), "placebo": (2, 7, 1)}, {"drug": (5, 5, 5), "placebo": (1, 0, 9)}]
)
def test_indices_by_hand(counts):
    found = indices(guesses_of(counts))
    assert found["james_index",].value == pytest.approx(james_by_hand(counts), abs=1e-12)
    for place, (arm, numbers) in enumerate(counts.items()):
        n, right, wrong = sum(numbers), numbers[place] / sum(numbers), numbers[1 - place] / sum(numbers)
        estimate = found["bang_index", arm]
        assert estimate.value == pytest.approx(right - wrong, abs=1e-12)
        error = np.sqrt((right + wrong - (right - wrong) ** 2) / (n - 1))  # of a multinomial share minus another
        reach = error * stats.t.ppf(0.975, n - 1)
        assert estimate.low == pytest.approx(max(-1, right - wrong - reach), abs=1e-9)
        assert estimate.high == pytest.approx(min(1, right - wrong + reach), abs=1e-9)
        assert (estimate.n["guesses"], estimate.n["right"], estimate.n["dont_know"]) == (n, numbers[place], numbers[2])


def test_the_error_of_james_index_is_that_of_drawing_the_trial_again():
    estimate = indices(guesses_of(CRISP))["james_index",]
    cells = np.array(list(CRISP.values()))
    drawn = np.random.default_rng(0).multinomial(416, cells.ravel() / 416, size=4000).reshape(-1, 2, 3)
    spread = np.std([james_by_hand({"drug": d, "placebo": p}) for d, p in drawn])
    assert (estimate.high - estimate.low) / 2 / 1.966 == pytest.approx(spread, rel=0.05)


# Properties.


def test_knowing_guessing_and_not_knowing():
    knows = indices(guesses_of({"drug": (20, 0, 0), "placebo": (0, 20, 0)}))
    guesses = indices(guesses_of({"drug": (10, 10, 0), "placebo": (10, 10, 0)}))
    unsure = indices(guesses_of({"drug": (0, 0, 20), "placebo": (0, 0, 20)}))
    misled = indices(guesses_of({"drug": (0, 20, 0), "placebo": (20, 0, 0)}))
    assert [found["bang_index", "drug"].value for found in (knows, guesses, unsure, misled)] == [1, 0, 0, -1]
    assert [found["james_index",].value for found in (knows, guesses, unsure)] == pytest.approx([0, 0.5, 1])
    assert knows["bang_index", "drug"].notes == ("degenerate_interval",)
    assert guesses["bang_index", "drug"].low < 0 < guesses["bang_index", "drug"].high


def test_random_guesses_among_four_systems_are_zero():
    names = ("A", "B", "C", "D")
    found = indices(guesses_of(dict.fromkeys(names, (6, 6, 6, 6, 3)), names), names)
    assert [found["bang_index", name].value for name in names] == pytest.approx([0] * 4)
    assert found["james_index",].value == pytest.approx((1 + 12 / 108) / 2)
    wrong = indices(guesses_of({name: (*(6 * (name != other) for other in names), 0) for name in names}, names), names)
    assert [wrong["bang_index", name].value for name in names] == pytest.approx([-1 / 3] * 4)


def test_names_and_order_of_rows_change_nothing():
    frame = guesses_of(CRISP)
    other = frame.assign(rater=frame["rater"] + "x").sample(frac=1, random_state=0)
    for key, estimate in indices(frame).items():
        again = indices(other)[key]
        assert (again.value, again.low) == pytest.approx((estimate.value, estimate.low))
        assert again.signature == estimate.signature


def test_guesses_of_one_rater_hang_together():
    frame = guesses_of({"drug": (20, 10, 0), "placebo": (12, 18, 0)})
    apart = indices(frame)["bang_index", "drug"]
    together = indices(frame.assign(rater=np.arange(60) % 30 // 10))[
        "bang_index", "drug"
    ]  # three raters, each of one mind
    assert together.value == apart.value
    assert together.n["raters"] == 3
    assert together.high - together.low > apart.high - apart.low


def test_intervals_cover_what_is_true_of_ten_raters():
    rng = np.random.default_rng(4)
    n_trials, covered = 200, 0
    for _ in range(n_trials):
        knows = rng.beta(3, 3, 10)  # each rater is right with a chance of his own, on average one half
        right = rng.random((10, 12)) < knows[:, None]
        frame = pd.DataFrame(
            {"rater": np.repeat(np.arange(10), 12), "system": "A", "guess": np.where(right, "A", "B").ravel()}
        )
        estimate = indices(frame, ("A", "B"))["bang_index", "A"]
        covered += estimate.low <= 0 <= estimate.high
    assert 0.91 <= covered / n_trials <= 0.99


# What cannot be told.


def test_nobody_answered():
    found = indices(pd.DataFrame({"rater": [], "system": [], "guess": []}))
    assert {estimate.reason for estimate in found.values()} == {"no_answers"}


def test_one_rater_has_an_index_and_no_interval():
    frame = guesses_of({"drug": (3, 1, 0), "placebo": (1, 1, 1)}).assign(rater="r1")
    for estimate in indices(frame).values():
        assert estimate.value is not None
        assert (estimate.low, estimate.notes) == (None, ("one_rater",))


def test_a_system_nobody_was_asked_about():
    found = indices(guesses_of({"drug": (3, 1, 0), "placebo": (0, 0, 0)}))
    assert found["bang_index", "placebo"].reason == "no_answers"
    all_right = indices(guesses_of({"drug": (5, 0, 2), "placebo": (0, 0, 0)}))
    assert all_right["james_index",].reason == "zero_denominator"  # with one system and one guess, chance is certain


def test_an_index_that_rests_on_one_rater_has_no_interval():
    found = indices(guesses_of({"drug": (5, 1, 0), "placebo": (0, 0, 4)}))
    assert found["james_index",].notes == ("undefined_without_one_rater",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="guess"), "missing columns: guess"),
        (lambda frame: frame.replace({"guess": {"placebo": "sugar"}}), "row 1: guess sugar is none of drug, placebo"),
        (lambda frame: frame.replace({"system": {"drug": None}}), "row 0: system is missing"),
    ],
)
def test_guesses_that_cannot_be_read_are_refused_by_row(change, message):
    with pytest.raises(ValueError, match=message):
        blinding_indices(change(guesses_of({"drug": (1, 1, 0), "placebo": (0, 0, 1)})), ARMS)


@pytest.mark.parametrize("names", [("A",), ("A", "A"), ()])
def test_two_different_systems_are_needed(names):
    with pytest.raises(ValueError, match="two or more different names"):
        blinding_indices(guesses_of(CRISP), names)


# What raters say.

CHOICES = ("no", "sometimes", "often", "unsure")


def test_shares_of_the_answers_have_exact_intervals():
    rows = recognition({"R1": "no", "R2": "no", "R3": "sometimes"}, CHOICES)
    assert [(row.detail["answer"], row.estimate.value) for row in rows] == [
        ("no", pytest.approx(2 / 3)), ("sometimes", pytest.approx(1 / 3)), ("often", 0), ("unsure", 0),
    ]  # fmt: skip
    low, high = stats.beta.ppf(0.025, 2, 2), stats.beta.ppf(0.975, 3, 1)
    assert (rows[0].estimate.low, rows[0].estimate.high) == pytest.approx((low, high), abs=1e-9)
    assert rows[2].estimate.low == 0
    assert rows[2].estimate.high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_no_answer_and_an_unknown_answer():
    assert {row.estimate.reason for row in recognition({}, CHOICES)} == {"no_answers"}
    with pytest.raises(ValueError, match="rater R1: maybe is none of no, sometimes, often, unsure"):
        recognition({"R1": "maybe"}, CHOICES)
