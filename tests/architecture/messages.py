"""Every sentence that pages may show, collected from templates and code."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.extract import DEFAULT_KEYWORDS, extract
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("annotation", "jobs", "config", "models_runtime", "training")
KEYWORDS = DEFAULT_KEYWORDS | {
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
    "_": None,
}


def sources() -> Iterator[tuple[Path, str]]:
    """(file, Python-like source) of everything that may hold a sentence."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "templates").rglob("*")):
        if path.suffix in (".html", ".txt"):
            yield path, templatize(path.read_text(encoding="utf-8"))


def messages() -> dict[tuple[str | None, str], str]:
    """(context, English sentence) ► where it first stands. Of a plural the singular is the key."""
    found: dict[tuple[str | None, str], str] = {}
    for path, source in sources():
        for line, _function, message, _comments, context in _extract(source):
            key = message[0] if isinstance(message, tuple) else message
            if key:
                found.setdefault((context, key), f"{path.relative_to(ROOT)}:{line}")
    return found


def _extract(source: str):
    for line, message, comments, context in extract("python", BytesIO(source.encode()), keywords=KEYWORDS):
        yield line, "", message, comments, context
