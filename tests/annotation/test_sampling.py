"""Draws by hash: repeatable, independent of order, whole dialogues at a time."""

from __future__ import annotations

import random

import pytest

from annotation.design.sampling import share_out
from annotation.formats.dialogues import SourceDialogue, Turn
from annotation.formats.problems import Place
from annotation.sampling import DialogueSpool, Entry, items_of, n_items_of, natural, one_of, rank

HERE = Place("x")


def talk(key: str, n_rounds: int = 3, *, opens: str = "client") -> SourceDialogue:
    roles = ["client", "counsellor"] * n_rounds
    if opens == "counsellor":
        roles = ["counsellor", *roles]
    return SourceDialogue(key, "", tuple(Turn(role, f"{key}-{n}") for n, role in enumerate(roles)), HERE)


def spooled(dialogues: list[SourceDialogue], *, seed: int = 1, topics: dict[str, str] | None = None) -> DialogueSpool:
    spool = DialogueSpool(seed)
    for dialogue in dialogues:
        entry = Entry(dialogue.key, "", "", dialogue.turns, "", HERE)
        taken = spool.add(entry, stratum=(topics or {}).get(dialogue.key, ""), n_items=n_items_of(dialogue.turns))
        assert taken is None
    return spool


def keys(spool: DialogueSpool, **options) -> list[str]:
    return [item.key for item in spool.items(**{"one_per_dialogue": False, **options})]


def test_an_item_holds_all_earlier_turns_of_its_own_dialogue():
    items = items_of(talk("7"))
    assert [item.key for item in items] == ["7#1", "7#2", "7#3"]
    assert [len(item.turns) for item in items] == [1, 3, 5]
    assert [item.reference for item in items] == ["7-1", "7-3", "7-5"]
    assert all(item.turns[-1].role == "client" for item in items)


def test_a_counsellor_who_opens_answers_nobody():
    items = items_of(talk("7", 2, opens="counsellor"))
    assert [(item.key, len(item.turns)) for item in items] == [("7#1", 2), ("7#2", 4)]
    assert n_items_of(talk("7", 2, opens="counsellor").turns) == 2


@pytest.mark.parametrize("one_per_dialogue", [True, False])
def test_the_draw_does_not_depend_on_the_order_of_the_file(one_per_dialogue):
    dialogues = [talk(str(n)) for n in range(60)]
    found = []
    for seed_of_order in (1, 2):
        random.Random(seed_of_order).shuffle(dialogues)
        with spooled(dialogues, seed=5) as spool:
            spool.gather()
            spool.choose(10)
            found.append(keys(spool, one_per_dialogue=one_per_dialogue))
    assert found[0] == found[1]
    assert len(found[0]) == (10 if one_per_dialogue else 30)


def test_another_seed_draws_others_and_a_smaller_draw_lies_within_a_larger_one():
    dialogues = [talk(str(n)) for n in range(200)]
    draws = {}
    for seed, n in [(1, 20), (2, 20), (1, 50)]:
        with spooled(dialogues, seed=seed) as spool:
            spool.gather()
            spool.choose(n)
            draws[seed, n] = {item.dialogue for item in spool.items(one_per_dialogue=True)}
    assert draws[1, 20] != draws[2, 20]
    assert draws[1, 20] < draws[1, 50]


def test_every_dialogue_is_as_likely_as_another():
    """4,000 draws of 1 in 4: a chi-square with 3 degrees of freedom stays below 16.3 in 999 of 1,000."""
    counts = dict.fromkeys("abcd", 0)
    for seed in range(4000):
        counts[min(counts, key=lambda key: rank(seed, "dialogue", key))] += 1
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 16.3


def test_the_one_item_is_drawn_and_not_always_the_first():
    picked = {one_of(items_of(talk("7")), seed).key for seed in range(40)}
    assert picked == {"7#1", "7#2", "7#3"}


def test_a_stratified_draw_keeps_the_proportions():
    topics = {str(n): "家庭" if n < 60 else "情绪" if n < 90 else "" for n in range(100)}
    with spooled([talk(key, 1) for key in topics], topics=topics) as spool:
        spool.gather()
        spool.choose(10, is_stratified=True)
        drawn = [topics[item.dialogue] for item in spool.items(one_per_dialogue=False)]
    assert (drawn.count("家庭"), drawn.count("情绪"), drawn.count("")) == (6, 3, 1)


@pytest.mark.parametrize(
    ("n", "sizes", "expected"),
    [
        (10, {"a": 50, "b": 50}, {"a": 5, "b": 5}),
        (1, {"a": 1, "b": 1}, {"a": 1, "b": 0}),  # a tie goes to the name that sorts first
        (7, {"a": 30, "b": 30, "c": 40}, {"a": 2, "b": 2, "c": 3}),
        (0, {"a": 3}, {"a": 0}),
        (0, {}, {}),
    ],
)
def test_largest_remainder(n, sizes, expected):
    assert share_out(sizes, n) == expected


def test_a_share_never_exceeds_its_stratum():
    rng = random.Random(3)
    for _ in range(200):
        sizes = {str(n): rng.randint(1, 20) for n in range(rng.randint(1, 8))}
        n = rng.randint(0, sum(sizes.values()))
        shares = share_out(sizes, n)
        assert sum(shares.values()) == n
        assert all(shares[name] <= sizes[name] for name in sizes)


def test_more_than_there_are_is_an_error():
    with spooled([talk("1")]) as spool:
        spool.gather()
        with pytest.raises(ValueError):
            spool.choose(2)


def test_of_duplicates_the_key_that_sorts_first_is_kept():
    same = talk("10")
    with spooled([same, same._replace(key="9"), talk("8")]) as spool:
        assert spool.drop_duplicates() == 1
        assert spool.gather() == 2
        assert [item.dialogue for item in spool.items(one_per_dialogue=True)] == ["8", "9"]


def test_a_key_that_is_taken_says_by_whom():
    with spooled([talk("1")]) as spool:
        same = spool.add(Entry("1", "", "", talk("1").turns, "", HERE), stratum="", n_items=3)
        other = spool.add(Entry("1", "", "", talk("2").turns, "", HERE), stratum="", n_items=3)
    assert same and same.is_same and same.first == HERE
    assert other and not other.is_same


def test_rows_of_one_dialogue_stay_together():
    with DialogueSpool(1) as spool:
        for n in range(20):
            for part in range(3):
                entry = Entry(f"d{n}", f"d{n}/{part}", "", (Turn("client", f"{n} {part}"),), "", HERE)
                assert spool.add(entry, stratum="", n_items=1) is None
        assert spool.gather() == 20
        spool.choose(5)
        drawn = [item.dialogue for item in spool.items(one_per_dialogue=False)]
        assert spool.n_items(one_per_dialogue=False) == 15
    assert all(drawn.count(name) == 3 for name in drawn) and len(drawn) == 15


def test_numbers_in_keys_sort_by_value():
    assert sorted(["d10", "d9", "d9#10", "d9#2"], key=natural) == ["d9", "d9#2", "d9#10", "d10"]
