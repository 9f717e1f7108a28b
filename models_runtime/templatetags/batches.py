"""Small helpers for the templates of batches."""

from __future__ import annotations

from django import template

from annotation.selectors.jobs import duration

register = template.Library()


@register.filter
def in_words(seconds: float) -> str:
    """A duration as people say it."""
    return duration(seconds)
