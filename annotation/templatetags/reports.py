"""How a report shows its numbers and says why one is missing."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.safestring import SafeString, mark_safe

from annotation.figures.drawing import Drawing
from annotation.figures.svg import svg
from annotation.reporting.numbers import MARKS, REASONS
from annotation.reporting.table import Column, shown_number

register = template.Library()


@register.filter
def shown_in(value: float, column: Column) -> str:
    """The number as its column shows it."""
    return shown_number(value, column)


@register.filter
def why(reason: str) -> Any:
    """The sentence behind a reason for which a number is undefined."""
    return REASONS.get(reason, reason)


@register.filter
def mark(note: str) -> str:
    """The sign that stands for a note on an interval; the report explains those that occur."""
    return MARKS.get(note, "")


@register.filter
def drawn(drawing: Drawing) -> SafeString:
    """The drawing as an SVG element. svg() escapes every text in it."""
    return mark_safe(svg(drawing))  # noqa: S308
