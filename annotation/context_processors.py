"""What every template may use."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, Any]:
    """`is_demo`: pages say that dialogues, replies and ratings are made up."""
    return {"is_demo": settings.IS_DEMO}
