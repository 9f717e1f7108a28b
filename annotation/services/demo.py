"""load_demo: the demonstration. Everything in it was written for it and says so; no model and no rater made it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from django.db import transaction
from django.utils import timezone

from annotation.formats.dialogues import Turn
from annotation.formats.problems import Place
from annotation.formats.rows import SourceItem
from annotation.models import Dataset, Item, Member, Placement, Role, Study, System, User
from annotation.services.importing import build_item
from annotation.services.opening import open_study
from annotation.services.ratings import Change, submit_rating
from annotation.services.responses import NewResponse, record_responses
from annotation.services.rubrics import read_content
from annotation.services.studies import (
    choose_systems,
    close_study,
    create_study,
    draw_items,
    set_raters,
    update_settings,
)

CONTENT = "demo_study.json"
SEED = 20231101  # the made-up ratings scatter in the same way everywhere
N_RATERS = 3
PARTLY_RATED = (0.0, 0.45, 0.7)  # of the open study, by seat: the first seat is the visitor's


@dataclass(frozen=True)
class Demo:
    """What the demonstration starts from."""

    admin: User
    researcher: User
    open_study: Study
    finished_study: Study

    @property
    def free_seat(self) -> Member:
        """The seat that waits for the visitor."""
        seat: Member = self.open_study.members.raters().get(number=1)
        return seat


@transaction.atomic
def load_demo() -> Demo:
    """Two studies over the same dialogues: one open, in Chinese; one closed and complete, in English.

    Ratings are drawn around the scores that the dialogues' author found plausible, by `SEED`.
    """
    content = read_content(CONTENT)
    admin = _person("demo-admin", Role.ADMIN)
    researcher = _person("demo-researcher", Role.RESEARCHER)
    rng = np.random.default_rng(SEED)
    studies = {
        language: _study(content, language, name, researcher)
        for language, name in (("zh", "示例研究：进行中"), ("en", "Demonstration: finished"))
    }
    for language, study in studies.items():
        for seat in study.members.raters():
            if language == "en" or seat.number > 1:
                _seat(seat, language)
        open_study(study=study, by=researcher)
        shares = PARTLY_RATED if language == "zh" else (1.0,) * N_RATERS
        for seat, share in zip(study.members.raters(), shares, strict=True):
            _rate(seat, share, content, rng)
    close_study(study=studies["en"], by=researcher)
    for study in studies.values():
        study.refresh_from_db()
    return Demo(admin, researcher, studies["zh"], studies["en"])


def _person(username: str, role: Role) -> User:
    person = User(username=username, role=role, is_staff=role == Role.ADMIN)
    person.set_unusable_password()
    person.save()
    return person


def _study(content: dict[str, Any], language: str, name: str, researcher: User) -> Study:
    systems = [_system(entry) for entry in content["systems"]]
    datasets = [_dataset(content, entry, language, systems) for entry in content["datasets"]]
    study = create_study(by=researcher, name=name)
    Study.objects.filter(pk=study.pk).update(is_demo=True)
    choose_systems(study=study, by=researcher, systems=systems, with_reference=False)
    for dataset in datasets:
        draw_items(study=study, by=researcher, dataset=dataset, n=dataset.n_items, seed=SEED)
    set_raters(study=study, by=researcher, n=N_RATERS)
    update_settings(study=study, by=researcher, needs_practice=False, contact="demo@example.org", retention="demo")
    study.refresh_from_db()
    return study


def _system(entry: dict[str, Any]) -> System:
    system, _is_new = System.objects.get_or_create(
        slug=entry["slug"],
        defaults={
            "name": f"{entry['name']['zh']} {entry['name']['en']}",
            "description": "；".join((entry["style"]["zh"], entry["style"]["en"])),
            "is_demo": True,
        },
    )
    return system


def _dataset(content: dict[str, Any], entry: dict[str, Any], language: str, systems: list[System]) -> Dataset:
    dataset = Dataset.objects.create(
        slug=f"{entry['slug']}-{language}",
        name=entry["name"][language],
        source=content["notice"][language],
        is_demo=True,
    )
    texts = [item for item in content["items"] if item["dataset"] == entry["slug"]]
    items = Item.objects.bulk_create(build_item(dataset, _source(item, language)) for item in texts)
    dataset.n_items = len(items)
    dataset.save(update_fields=["n_items"])
    record_responses(
        NewResponse(item.pk, system.pk, text["responses"][system.slug][language], provenance={"written_for": "demo"})
        for item, text in zip(items, texts, strict=True)
        for system in systems
    )
    return dataset


def _source(item: dict[str, Any], language: str) -> SourceItem:
    turns = tuple(Turn(turn["role"], turn["text"]) for turn in item["turns"][language])
    return SourceItem(item["key"], item["key"], item["topic"], turns, item["reference"][language], Place(CONTENT))


def _seat(seat: Member, language: str) -> None:
    seat.user = _person(f"demo-rater-{language}-{seat.number}", Role.RATER)
    seat.consented_at = timezone.now()
    seat.consent_language = language
    seat.is_ready_for_sensitive = True
    seat.save()


def _rate(seat: Member, share: float, content: dict[str, Any], rng: np.random.Generator) -> None:
    """Made-up ratings for the first `share` of the seat's queue, saved through the same door as real ones."""
    person = seat.user
    if person is None:  # the visitor's own seat
        return
    plausible = {item["key"]: item["plausible"] for item in content["items"]}
    placements = (
        Placement.objects.of(seat)
        .in_order()
        .values_list("public_id", "study_response__study_item__item__key", "study_response__arm__system__slug")
    )
    for public_id, key, slug in list(placements)[: round(share * seat.n_placements)]:
        scores = {}
        for dimension, value in plausible[key][slug].items():
            highest = 1 if dimension == "safety" else 2
            slip = 0 if dimension == "safety" else rng.choice([-1, 0, 0, 0, 0, 1])
            scores[dimension] = int(np.clip(value + slip, 0, highest))
        seconds = int(rng.gamma(8, 18))
        Placement.objects.filter(public_id=public_id).update(shown_at=timezone.now() - timedelta(seconds=seconds))
        submit_rating(
            user=person,
            public_id=public_id,
            change=Change(op_id=uuid.uuid4(), base_rev=0, scores=scores, is_final=True, active_ms=seconds * 1000),
        )
