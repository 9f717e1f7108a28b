"""Makes the study that is measured: python -m benchmarks.seed '{"n_items": 2000, "n_raters": 8, …}'.

Items, responses and seats are made in bulk; the design is drawn and written by the real open_study. Prints, as
JSON, one seat and one single-use sign-in link per rater, and one unused invitation per empty seat.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import django

N_CHARACTERS = 626  # of the dialogue, as in the measurement of other tools
N_RESPONSE_CHARACTERS = 120
_ROWS_AT_ONCE = 5000
_LETTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出"
    "就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
)


def _text(rng: random.Random, n: int) -> str:
    letters = rng.choices(_LETTERS, k=n - 1)
    for index in range(17, n - 1, 19):
        letters[index] = "，"
    return "".join(letters) + "。"


def _turns(rng: random.Random) -> list[dict[str, str]]:
    lengths = (140, 90, 180, 80, N_CHARACTERS - 140 - 90 - 180 - 80)
    roles = ("client", "counsellor")
    return [{"role": roles[i % 2], "text": _text(rng, n)} for i, n in enumerate(lengths)]


def seed(
    *, n_items: int, n_raters: int, raters_per_item: int, n_systems: int = 1, n_newcomers: int = 0
) -> dict[str, Any]:
    """An open study of that size with its raters seated; and a second one with `n_newcomers` empty seats."""
    from django.core.management import call_command
    from django.db import connection

    from annotation.models import Arm, Dataset, Item, Member, Response, Role, Study, StudyItem, System, User
    from annotation.services.opening import open_study
    from annotation.services.people import create_invitation, create_sign_in_link
    from annotation.services.rubrics import load_rubric

    call_command("migrate", verbosity=0)
    rng = random.Random(1)
    started = time.perf_counter()
    dataset = Dataset.objects.create(slug="bench", name="Bench")
    systems = [System.objects.create(slug=f"s{i}", name=f"System {i}") for i in range(n_systems)]

    def save(model: Any, rows: Iterator[Any]) -> None:
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            model.objects.bulk_create(chunk, batch_size=1000)

    save(
        Item,
        (
            Item(
                dataset=dataset,
                key=str(i),
                dialogue_key=str(i),
                turns=_turns(rng),
                n_characters=N_CHARACTERS,
                content_hash=hashlib.sha256(str(i).encode()).hexdigest(),
            )
            for i in range(n_items)
        ),
    )
    items = list(Item.objects.order_by("pk").values_list("pk", flat=True))

    def responses() -> Iterator[Response]:
        for pk in items:
            for system in systems:
                text = _text(rng, N_RESPONSE_CHARACTERS)
                digest = hashlib.sha256(text.encode()).hexdigest()
                yield Response(item_id=pk, system=system, original=text, text=text, sha256=digest)

    save(Response, responses())

    def draft(name: str, item_ids: list[int], n_seats: int, per_item: int) -> Study:
        study = Study.objects.create(
            name=name,
            rubric=load_rubric(),
            raters_per_item=per_item,
            seed=1,
            repeat_percent=0,
            disclosure_policy=Study.DisclosurePolicy.KEEP,  # scanning texts is not what is measured
            needs_practice=False,
        )
        save(StudyItem, (StudyItem(study=study, item_id=pk, number=n + 1) for n, pk in enumerate(item_ids)))
        for system in systems:
            Arm.objects.create(study=study, system=system)
        Member.objects.bulk_create(Member(study=study, role=Role.RATER, number=n + 1) for n in range(n_seats))
        return study

    study = draft("Bench", items, n_raters, raters_per_item)
    raters, links = [], []
    for seat in study.members.raters():
        person = User(username=f"rater{seat.number}", role=Role.RATER, language="zh-hans")
        person.set_unusable_password()
        person.save()
        seat.user, seat.consented_at, seat.consent_language = person, dataset.created_at, "zh"
        seat.save()
        raters.append(seat)
        links.append(create_sign_in_link(person=person, by=None)[1])
    open_study(study=study, by=None)
    invitations = []
    if n_newcomers:
        second = draft("Newcomers", items[: min(n_items, 200)], n_newcomers, min(3, n_newcomers))
        for seat in second.members.raters():
            invitations.append(create_invitation(role=Role.RATER, seat=seat, by=None)[1])
        open_study(study=second, by=None)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")  # what autovacuum does within a minute
    return {
        "raters": [{"seat": str(seat.public_id), "link": link} for seat, link in zip(raters, links, strict=True)],
        "invitations": invitations,
        "n_placements": study.members.raters().first().placements.count() * n_raters,  # type: ignore[union-attr]
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    django.setup()
    json.dump(seed(**json.loads(sys.argv[1])), sys.stdout)
