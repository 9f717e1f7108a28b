"""{% lineage system %}: where a system that was trained here comes from; nothing for any other."""

from __future__ import annotations

from typing import Any

from django import template

from annotation.models import System
from training.selectors.runs import lineage_of

register = template.Library()


@register.inclusion_tag("training/_lineage.html")
def lineage(system: System) -> dict[str, Any]:
    return {"lineage": lineage_of(system)}
