"""read_support: the words of the help page."""

from __future__ import annotations

from typing import Any

from annotation.services.rubrics import read_content


def read_support(*, language: str, contacts: tuple[str, ...]) -> dict[str, Any]:
    """The help page in one language ("zh" or "en"), with the contacts filled in."""
    content = read_content("support_v1.json")
    contact = " · ".join(contacts)
    return {
        "title": content["title"][language],
        "sections": [
            {
                "heading": section["heading"][language],
                "paragraphs": [text.replace("{contact}", contact) for text in section["paragraphs"][language]],
            }
            for section in content["sections"]
            if contact or section["key"] != "contact"
        ],
        "lines_heading": content["lines_heading"][language],
        "lines": [
            {"number": line["number"], "name": line["name"][language], "about": line["about"][language]}
            for line in content["lines"]
        ],
        "source": content["source"][language],
    }
