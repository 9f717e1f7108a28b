"""Valid things by default; name only what matters to the test."""

from __future__ import annotations

import hashlib
from itertools import count

from django.utils import timezone

from annotation.models import Dataset, Item, Member, Response, Role, Study, StudyItem, System, User
from annotation.models.study import Arm
from annotation.services.rubrics import load_rubric

_numbers = count(1)


def make_user(name: str | None = None, *, role: str = Role.RATER, **fields) -> User:
    name = name or f"person{next(_numbers)}"
    fields.setdefault("language", "en")  # a person's language goes before the site's
    is_admin = role == Role.ADMIN
    user = User(username=name, role=role, is_staff=is_admin, is_superuser=False, **fields)
    user.set_unusable_password()
    user.save()
    return user


def make_dataset(slug: str | None = None, **fields) -> Dataset:
    slug = slug or f"dataset-{next(_numbers)}"
    return Dataset.objects.create(slug=slug, name=fields.pop("name", slug), **fields)


def make_item(dataset: Dataset, key: str | None = None, **fields) -> Item:
    number = next(_numbers)
    key = key or f"item-{number}"
    turns = fields.pop("turns", [{"role": "client", "text": f"我最近睡不好，想说说话。（{number}）"}])
    reference = fields.pop("reference", f"谢谢你愿意告诉我，可以多说一点吗？（{number}）")
    return Item.objects.create(
        dataset=dataset,
        key=key,
        dialogue_key=fields.pop("dialogue_key", key),
        turns=turns,
        reference=reference,
        n_characters=sum(len(turn["text"]) for turn in turns),
        content_hash=hashlib.sha256(repr((turns, reference)).encode()).hexdigest(),
        **fields,
    )


def make_system(slug: str | None = None, **fields) -> System:
    slug = slug or f"system-{next(_numbers)}"
    return System.objects.create(slug=slug, name=fields.pop("name", slug.title()), **fields)


def make_response(item: Item, system: System, text: str | None = None, **fields) -> Response:
    text = text or f"我听到了，这一定不容易。（回复 {next(_numbers)}）"
    return Response.objects.create(
        item=item,
        system=system,
        original=fields.pop("original", text),
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        **fields,
    )


def make_study(
    *,
    researcher: User | None = None,
    n_items: int = 4,
    n_systems: int = 4,
    n_raters: int = 3,
    **fields,
) -> Study:
    """A draft: items with responses of all systems, seats R1 … Rn, and `researcher` as its researcher."""
    dataset = fields.pop("dataset", None) or make_dataset()
    systems = fields.pop("systems", None) or [make_system() for _ in range(n_systems)]
    fields.setdefault("needs_practice", False)
    study = Study.objects.create(
        name=fields.pop("name", f"Study {next(_numbers)}"),
        rubric=load_rubric(),
        raters_per_item=fields.pop("raters_per_item", n_raters),
        seed=fields.pop("seed", 7),
        consent=fields.pop("consent", {}),
        **fields,
    )
    for number in range(n_items):
        item = make_item(dataset)
        StudyItem.objects.create(study=study, item=item, number=number + 1)
        for system in systems:
            make_response(item, system)
    for system in systems:
        Arm.objects.create(study=study, system=system)
    if researcher:
        Member.objects.create(study=study, user=researcher, role=Role.RESEARCHER)
    for number in range(1, n_raters + 1):
        Member.objects.create(study=study, role=Role.RATER, number=number)
    return study


def seat_raters(study: Study) -> None:
    """A person in every empty seat, consented and past practice."""
    for seat in study.members.raters().filter(user=None):
        seat.user = make_user()
        seat.consented_at = seat.practice_passed_at = timezone.now()
        seat.consent_language = "en"
        seat.is_ready_for_sensitive = True
        seat.save()


def open_for_rating(study: Study, *, by: User | None = None) -> Study:
    from annotation.services.opening import open_study

    seat_raters(study)
    open_study(study=study, by=by)
    study.refresh_from_db()
    return study
