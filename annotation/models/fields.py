"""ReadableJSON: how JSON columns that hold dialogues are written."""

from __future__ import annotations

import json
from typing import Any


class ReadableJSON(json.JSONEncoder):
    """Chinese as itself instead of \\uXXXX: a third less to store, read and write."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})
