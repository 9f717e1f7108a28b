"""Every sentence has its Chinese, with the same places to fill in, and the compiled file is the written one."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

from tests.architecture.messages import ROOT, messages

PO = Path(ROOT / "locale/zh_Hans/LC_MESSAGES/django.po")
PLACE = re.compile(r"%\((\w+)\)[sd]|\{(\w+)\}")


@pytest.fixture(scope="module")
def chinese():
    return {
        (m.context, m.id[0] if isinstance(m.id, (tuple, list)) else m.id): m
        for m in read_po(BytesIO(PO.read_bytes()), locale="zh_Hans")
        if m.id
    }


def test_every_sentence_is_translated(chinese):
    missing = [f"{place}: {key[1]}" for key, place in messages().items() if key not in chinese]
    assert not missing


def test_no_translation_is_left_over(chinese):
    assert not set(chinese) - set(messages())


def test_translations_fill_in_the_same_places(chinese):
    def places(text: str) -> set[str]:
        return {a or b for a, b in PLACE.findall(text)}

    for (_context, english), message in chinese.items():
        texts = message.string if isinstance(message.string, (tuple, list)) else [message.string]
        wanted = set().union(*(places(t) for t in (message.id if isinstance(message.id, tuple) else [english])))
        for text in texts:
            assert text, english
            assert places(text) <= wanted, english


def test_the_compiled_file_is_the_written_one(chinese):
    compiled = read_mo(BytesIO(PO.with_suffix(".mo").read_bytes()))
    stored = {(m.context, m.id[0] if isinstance(m.id, (tuple, list)) else m.id): m.string for m in compiled if m.id}
    assert set(stored) == set(chinese), "run make translations"
    for key, message in chinese.items():
        wanted = message.string if isinstance(message.string, str) else tuple(message.string)
        found = stored[key] if isinstance(stored[key], str) else tuple(stored[key])
        assert found == wanted, "run make translations"
