"""How a report shows its numbers and says why one is missing."""

from __future__ import annotations

from typing import Any

from django import template

from annotation.reports import MARKS, REASONS
from annotation.reports import rounded as rounded_number

register = template.Library()


@register.filter
def rounded(value: float) -> str:
    """Two decimals."""
    return rounded_number(value)


@register.filter
def percent(value: float) -> str:
    """A share as percent with one decimal, without the sign."""
    return rounded_number(value, 1, percent=True)


@register.filter
def why(reason: str) -> Any:
    """The sentence behind a reason for which a number is undefined."""
    return REASONS.get(reason, reason)


@register.filter
def mark(note: str) -> str:
    """The sign that stands for a note on an interval; the report explains those that occur."""
    return MARKS.get(note, "")


@register.filter
def short_name(english_name: str) -> str:
    """A dimension's heading as papers print it: "Empathy" is "Emp."."""
    return f"{english_name[:3].title()}."
