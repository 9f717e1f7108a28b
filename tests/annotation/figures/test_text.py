"""Texts in drawings: harmless, measured on the generous side, rounded as in the tables."""

from __future__ import annotations

import pytest
from fontTools.ttLib import TTFont

from annotation.figures.pdf import FOLDER, FONTS
from annotation.figures.text import clean, fit, number, width


def test_what_xml_forbids_or_turns_the_direction_is_gone():
    assert clean("a\x00b\x1b‮c\u200fd\ud800e￿f") == "abcdef"
    assert clean(" two\n\tlines  here ") == "two lines here"
    assert clean("中文 العربية é 𝒳") == "中文 العربية é 𝒳"


@pytest.mark.parametrize(
    "text", ["Krippendorff’s α (ordinal)", "ChatGLM-6B", "0.53 [0.45, 0.61] †", "心理咨询师：共情"]
)
def test_the_guessed_width_is_at_least_that_of_the_shipped_font(text):
    def printed(character: str) -> float:
        for file in FONTS.values():
            with TTFont(FOLDER / file, lazy=True) as font:
                if glyph := font.getBestCmap().get(ord(character)):
                    return font["hmtx"][glyph][0] / font["head"].unitsPerEm
        raise AssertionError(character)

    real = 12 * sum(map(printed, text))
    assert real <= width(text, 12) <= 1.45 * real


def test_a_text_that_fits_is_left_alone():
    assert fit("Arm A", 100, 12) == ("Arm A", "")


def test_a_text_that_does_not_fit_is_cut_and_kept_in_full():
    shown, full = fit("名" * 300, 100, 12)
    assert shown.endswith("…") and len(shown) > 5
    assert width(shown, 12) <= 100
    assert full == "名" * 300


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.125, 2, "0.13"), (-0.125, 2, "−0.13"), (2.675, 2, "2.68"), (-0.001, 2, "0.00"), (7, 0, "7"), (1e-9, 2, "0.00")],
)
def test_numbers_are_rounded_as_in_the_tables(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_written(value):
    with pytest.raises(ValueError, match="undefined"):
        number(value)
