"""Static files under hashed names, imports of our own modules included."""

from __future__ import annotations

from collections.abc import Callable
from re import Match
from typing import Any

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # whitenoise has no types
    """Also rewrites `import … from "./x.js"` in static/js, so that modules can be cached for ever."""

    support_js_module_import_aggregation = True

    def url_converter(self, name: str, hashed_files: Any, template: str | None = None) -> Callable[[Match[str]], str]:
        if name.endswith(".js") and not name.startswith("js/"):
            return lambda match: match.group(0)  # what others wrote stays as it is
        converter: Callable[[Match[str]], str] = super().url_converter(name, hashed_files, template)
        return converter
