"""Every role looks right in print and has its colours on the page; figures on shades can be read."""

from __future__ import annotations

import re

import pytest

from annotation.figures.styles import N_SHARES, SHARE_MIX, STYLES
from tests.architecture.messages import ROOT

CSS = (ROOT / "static/css/figures.css").read_text(encoding="utf-8")
TOKENS = (ROOT / "static/css/tokens.css").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+):\s*(#\w{6})", half)) for half in TOKENS.split("@media"))


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def rgb(code: str) -> tuple[float, ...]:
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_page_and_print_know_the_same_roles():
    assert set(re.findall(r"\.f-([\w-]+)", CSS)) == set(STYLES)


def test_the_page_mixes_the_shades_that_print_mixes():
    mixed = re.findall(r"\.f-share-\d \{ fill: color-mix\(in srgb, var\(--accent\) (\d+)%", CSS)
    assert [int(percent) / 100 for percent in mixed] == list(SHARE_MIX[:-1])


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("step", range(1, N_SHARES + 1))
def test_figures_on_a_shade_can_be_read_on_the_page(tokens, step):
    accent, surface = rgb(tokens["accent"]), rgb(tokens["surface"])
    share = SHARE_MIX[step - 1]
    ground = tuple(a * share + b * (1 - share) for a, b in zip(accent, surface, strict=True))
    ink = re.search(rf"[^{{}}]*\.f-on-{step}\b[^{{]*\{{ fill: var\(--([\w-]+)\)", CSS)[1]
    assert contrast(rgb(tokens[ink]), ground) >= 4.5


@pytest.mark.parametrize("step", range(1, N_SHARES + 1))
def test_figures_on_a_shade_can_be_read_in_print(step):
    assert contrast(rgb(STYLES[f"on-{step}"].fill), rgb(STYLES[f"share-{step}"].fill)) >= 4.5


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_words_stand_out_from_the_page(tokens):
    for role, least in (("label", 4.5), ("soft", 4.5), ("interval", 3), *((f"line-{i}", 3) for i in range(1, 7))):
        ink = re.search(rf"\.f-{role} \{{ (?:fill|stroke): var\(--([\w-]+)\)", CSS)[1]
        assert contrast(rgb(tokens[ink]), rgb(tokens["surface"])) >= least, role
