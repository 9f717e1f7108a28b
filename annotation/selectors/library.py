"""What an admin's pages on datasets, systems and imports read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet
from django.utils.functional import Promise
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from annotation import topics
from annotation.models import Dataset, Item, Response, System

N_SAMPLE_ITEMS = 5


# --- Datasets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A part of a whole: how many, and of a hundred."""

    name: str
    n: int
    percent: float
    is_label: bool = False  # the name is the source's own word, not one of the twelve topics


def datasets() -> QuerySet[Dataset]:
    return Dataset.objects.annotate(n_imports=Count("imports"))


def topic_shares(dataset: Dataset) -> list[Share]:
    """Items by topic: the twelve first, in their order, then other labels by size, then items without any."""
    rows = Item.objects.filter(dataset=dataset).values_list("topic", "topic_label").annotate(n=Count("pk")).order_by()
    by_topic: dict[str, int] = {}
    by_label: dict[str, int] = {}
    for topic, label, n in rows:
        group, name = (by_topic, topic) if topic else (by_label, label)
        group[name] = group.get(name, 0) + n
    total = sum(by_topic.values()) + sum(by_label.values()) or 1
    n_none = by_label.pop("", 0)
    shares = [
        Share(name, by_topic[slug], 100 * by_topic[slug] / total)
        for slug, name in topics.names(get_language() or "").items()
        if slug in by_topic
    ]
    shares += [
        Share(label, n, 100 * n / total, is_label=True)
        for label, n in sorted(by_label.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return shares + ([Share(_("no topic"), n_none, 100 * n_none / total)] if n_none else [])


def answers_by_system(dataset: Dataset) -> list[Share]:
    """How many items of the dataset each system has answered."""
    rows = (
        Response.objects.first_of_each()
        .filter(item__dataset=dataset)
        .values_list("system__name")
        .annotate(n=Count("pk"))
        .order_by("system__name")
    )
    return [Share(name, n, 100 * n / (dataset.n_items or 1)) for name, n in rows]


def sample_items(dataset: Dataset) -> QuerySet[Item]:
    return Item.objects.filter(dataset=dataset).order_by("pk")[:N_SAMPLE_ITEMS]


# --- Imports --------------------------------------------------------------------------------------------

_COUNT_NAMES: dict[str, Promise] = {
    "n_new": gettext_lazy("New"),
    "n_unchanged": gettext_lazy("There before, unchanged"),
    "n_dialogues": gettext_lazy("Dialogues in the file"),
    "n_sampled_dialogues": gettext_lazy("Dialogues drawn"),
    "n_duplicates": gettext_lazy("Duplicate dialogues, kept once"),
    "n_without_reply": gettext_lazy("Dialogues without a counsellor’s reply, left out"),
    "n_merged_turns": gettext_lazy("Turns joined to the one before (same speaker)"),
    "n_empty_turns": gettext_lazy("Empty turns, left out"),
    "n_system_messages": gettext_lazy("Instructions to a model, left out"),
    "n_control_characters": gettext_lazy("Texts that lost control characters"),
    "n_ignored_files": gettext_lazy("Other files in the archive, not read"),
    "n_repeated_rows": gettext_lazy("Rows that say the same twice"),
    "n_with_risks": gettext_lazy("Items with a content notice"),
    "n_with_disclosures": gettext_lazy("Responses that may name their system"),
    "n_new_systems": gettext_lazy("Systems registered"),
    "encoding": gettext_lazy("Encoding"),
}


@dataclass(frozen=True)
class Fact:
    name: str
    value: int | str


def facts_of(counts: Mapping[str, Any]) -> list[Fact]:
    """The counts of an import in words, in a fixed order; noughts that say nothing are left out."""
    always = {"n_new", "n_unchanged"} & counts.keys()
    return [Fact(str(name), counts[key]) for key, name in _COUNT_NAMES.items() if counts.get(key) or key in always]


# --- Systems --------------------------------------------------------------------------------------------


def systems() -> QuerySet[System]:
    return System.objects.annotate(n_responses=Count("responses"))
