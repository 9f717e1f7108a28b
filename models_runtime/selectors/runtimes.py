"""What the pages on how a system answers read: templates, versions, and what is known of single responses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from annotation.models import Response, System
from models_runtime.engine.prompts import TEMPLATES, BadTemplate, Layout, Template, Turn, chat_messages, prompt_text
from models_runtime.models import PromptTemplate, RuntimeVersion

RESPONSES_SHOWN = 10
LAYOUTS: dict[Layout, str | Promise] = {
    "lines": gettext_lazy("Lines: label and text of each turn"),
    "rounds_from_0": gettext_lazy("Rounds of ChatGLM-6B"),
    "rounds_from_1": gettext_lazy("Rounds of ChatGLM2-6B"),
    "lines_in_round": gettext_lazy("Lines within one round of ChatGLM2-6B"),
    "chat": gettext_lazy("Messages: the model’s own chat template"),
}
# Our own words, to show what a template makes of a dialogue.
EXAMPLE = (
    Turn("client", "我最近总是睡不着。"),
    Turn("counsellor", "听起来这阵子很辛苦。是什么时候开始的？"),
    Turn("client", "换了工作以后。"),
)


@dataclass(frozen=True)
class TemplateChoice:
    """A template that can be chosen. is_published: it comes with the program."""

    name: str  # "id@version"
    template: Template
    is_published: bool

    @property
    def layout(self) -> str:
        """In words."""
        return str(LAYOUTS[self.template.layout])


@dataclass(frozen=True)
class VersionRow:
    """A version of a system, and how many responses were made with it; number None: imported, or not said."""

    number: int | None
    digest: str
    spec: str
    n_responses: int


@dataclass(frozen=True)
class Provenance:
    """What is known of one response."""

    item: str
    repeat: int
    facts: Sequence[tuple[str, str]]


def template_choices() -> list[TemplateChoice]:
    """Those of the program, then edited ones, of each the newest version first."""
    own = [TemplateChoice(_name(one), one, True) for one in TEMPLATES.values()]
    edited = [
        TemplateChoice(_name(template), template, False)
        for row in PromptTemplate.objects.all()
        if (template := _parsed(row.content)) is not None
    ]
    return own + edited


def template_named(name: str) -> Template | None:
    """The template of a choice's name."""
    return next((choice.template for choice in template_choices() if choice.name == name), None)


def newest_template(template_id: str) -> Template | None:
    """The newest text under that id; that of the program where nobody edited it."""
    row = PromptTemplate.objects.filter(template_id=template_id).order_by("-pk").first()
    found = _parsed(row.content) if row else None
    return found or TEMPLATES.get(template_id)


def example_of(template: Template) -> str:
    """What the template makes of a short dialogue; of the layout "chat" the messages."""
    if template.layout == "chat":
        return json.dumps(chat_messages(template, EXAMPLE), ensure_ascii=False, indent=1)
    return prompt_text(template, EXAMPLE)


def versions_of(system: System) -> list[VersionRow]:
    """Every version with its responses, the newest first; what names none of them comes last."""
    rows: Any = (
        Response.objects.filter(system=system).order_by().values_list("provenance__spec_digest").annotate(n=Count("pk"))
    )
    counts = dict(rows)
    known = [
        VersionRow(v.number, v.digest, json.dumps(v.spec, ensure_ascii=False, indent=1), counts.pop(v.digest, 0))
        for v in RuntimeVersion.objects.filter(system=system).order_by("-number")
    ]
    n_other = sum(counts.values())
    return known + ([VersionRow(None, "", "", n_other)] if n_other else [])


def latest_responses(system: System) -> list[Provenance]:
    """What is known of the newest responses; for admins only."""
    newest = Response.objects.filter(system=system).select_related("item").order_by("-pk")[:RESPONSES_SHOWN]
    return [Provenance(one.item.key, one.repeat, _facts(one.provenance)) for one in newest]


def _facts(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values in one level, as they are stored: for checking, not for reading aloud."""
    facts: list[tuple[str, str]] = []
    for name, value in provenance.items():
        if isinstance(value, dict):
            facts += [(f"{name}.{inner}", text) for inner, text in _facts(value)]
        else:
            facts.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return facts


def _name(template: Template) -> str:
    return f"{template.id}@{template.version}"


def _parsed(content: Any) -> Template | None:
    try:
        return Template.from_json(content)
    except BadTemplate:  # of a later release
        return None
