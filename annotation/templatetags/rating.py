"""Small helpers for the rating templates."""

from __future__ import annotations

from typing import Any

from django import template

register = template.Library()


@register.filter
def at(mapping: dict[str, Any] | None, key: str) -> Any:
    """`mapping[key]`, or None."""
    return (mapping or {}).get(key)
