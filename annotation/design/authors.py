"""Who wrote this? Whose responses a rater sees as examples once all is rated, and which are then asked about.

Systems go by "Writer 1", "Writer 2", … in an order of the rater's own, so the question needs no names: whoever can tell
writers apart by their hand alone will answer right more often than chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

N_EXAMPLES = 2  # responses by each writer
FEWEST_QUESTIONS, MOST_QUESTIONS = 2, 8
MOST_WRITERS = 8  # our judgement: nobody holds more hands in mind


@dataclass(frozen=True)
class AuthorQuestions:
    """What one rater is asked. Items and systems are counted from 0.

    writers: the system that is "Writer 1", "Writer 2", ….
    examples: items of which the responses of all writers are shown, so that writers differ in nothing but their hand.
    questions: (item, system) of each response that is asked about, each of an item of its own: what one answer tells
        helps with no other.
    """

    writers: tuple[int, ...]
    examples: tuple[int, ...]
    questions: tuple[tuple[int, int], ...]


def draw_author_questions(dialogues: Sequence[str], n_systems: int, rng: np.random.Generator) -> AuthorQuestions | None:
    """The questions to one rater; None if there are too few items, one system, or more than MOST_WRITERS.

    dialogues: of each item that the rater has rated with the responses of all systems, the dialogue it was cut from.
        At most one item of a dialogue is used, since the turns of a later one hold the reply to an earlier one.

    Systems are asked about equally often, give or take one.
    """
    of_dialogue: dict[str, int] = {}
    for item in rng.permutation(len(dialogues)).tolist():
        of_dialogue.setdefault(dialogues[item], item)
    one_each = list(of_dialogue.values())
    examples, asked = one_each[:N_EXAMPLES], one_each[N_EXAMPLES:][:MOST_QUESTIONS]
    if not 2 <= n_systems <= MOST_WRITERS or len(asked) < FEWEST_QUESTIONS:
        return None
    writers, turns = rng.permutation(n_systems), rng.permutation(n_systems)
    systems = rng.permutation([turns[place % n_systems] for place in range(len(asked))])
    return AuthorQuestions(
        writers=tuple(writers.tolist()),
        examples=tuple(examples),
        questions=tuple(zip(asked, systems.tolist(), strict=True)),
    )
