"""The twelve topics, and which of them a source's label means. Pure: reads one content file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

_TOPICS = Path(__file__).parent / "content" / "topics.json"


@cache
def _topics() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(_TOPICS.read_text(encoding="utf-8"))["topics"])


@cache
def _slugs_by_label() -> dict[str, str]:
    found: dict[str, str] = {}
    for topic in _topics():
        labels = [topic["slug"], *topic["name"].values(), *topic["aliases"]["zh"], *topic["aliases"]["en"]]
        for label in labels:
            found.setdefault(_fold(label), topic["slug"])
    return found


def _fold(label: str) -> str:
    return " ".join(label.split()).casefold()


def slug_of(label: str) -> str:
    """The slug of the topic that a label names, in Chinese or English; "" if it is none of the twelve."""
    return _slugs_by_label().get(_fold(label), "")


def names(language: str) -> dict[str, str]:
    """Slug ► name, in the order of the content file; `language` as Django writes it ("zh-hans", "en")."""
    key = "zh" if language.startswith("zh") else "en"
    return {topic["slug"]: topic["name"][key] for topic in _topics()}
