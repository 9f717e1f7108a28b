"""Small helpers for the templates of training."""

from __future__ import annotations

import json
from typing import Any

from django import template

from training.selectors.runs import GIB

register = template.Library()


@register.filter
def gib(n_bytes: float) -> str:
    """Bytes in GiB."""
    return f"{n_bytes / GIB:.1f}" if n_bytes >= GIB / 10 else f"{n_bytes / GIB:.3f}"


@register.filter
def percent(share: float) -> str:
    return f"{share:.0%}"


@register.filter
def pretty(value: Any) -> str:
    """JSON for people to look at."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
