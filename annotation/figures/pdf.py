"""A drawing as a PDF of one page, vectors and embedded fonts only: the same bytes every time, on every machine.

The fonts lie beside this file (fonts/README.md says where they come from), so Chinese needs nothing installed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fontTools.ttLib import TTFont
from fpdf import FPDF

from annotation.figures.drawing import Dot, Drawing, Mark, Polyline, Rect, Strokes, Text, dot_outline
from annotation.figures.styles import STYLES
from annotation.figures.text import clean

FOLDER = Path(__file__).parent / "fonts"
# The first font that has a character writes it; what both scripts use is Chinese beside Chinese.
FONTS = {
    "latin": "noto-sans-5.3.0-latin-400.woff",
    "chinese": "noto-sans-sc-5.3.0-chinese-simplified-400.woff",
    "greek": "noto-sans-5.3.0-greek-400.woff",
    "latin-ext": "noto-sans-5.3.0-latin-ext-400.woff",
    "symbols": "noto-sans-sc-5.3.0-symbols-400.woff",
    "daggers": "noto-sans-sc-5.3.0-daggers-400.woff",
}
SHARED = frozenset("‘’“”·…—")  # half as wide beside Latin letters as beside Chinese characters
UNKNOWN = "□"
_MADE = datetime(2000, 1, 1, tzinfo=UTC)  # one date for all: a figure is dated by its numbers, not by its printing


class Printed(NamedTuple):
    """content: the PDF.  n_unknown: characters that no font has, shown as □."""

    content: bytes
    n_unknown: int


def pdf(drawing: Drawing) -> Printed:
    """The drawing on a page of its own size; text stays text, and can be searched and copied."""
    page = FPDF(unit="pt", format=(drawing.width, drawing.height))
    page.set_creation_date(_MADE)
    page.set_title(clean(drawing.title))
    page.set_lang(drawing.lang)
    page.set_auto_page_break(False)
    page.set_margin(0)
    page.add_page()
    texts = [clean(mark.text) for mark in drawing.marks if isinstance(mark, Text)]
    used = {font for text in texts for font, _ in runs(text)}
    for name, file in FONTS.items():
        if name in used:
            page.add_font(name, fname=FOLDER / file)
            page.fonts[name].name = f"{page.fonts[name].name}-{name}"  # two parts of one typeface are two fonts
    for mark in drawing.marks:
        _put(page, mark)
    n_unknown = sum(not is_known(character) for text in texts for character in text)
    return Printed(bytes(page.output()), n_unknown)


@lru_cache(maxsize=1)
def _coverage() -> dict[str, frozenset[int]]:
    """Font ► the code points that it can write."""
    coverage = {}
    for name, file in FONTS.items():
        with TTFont(FOLDER / file, lazy=True) as font:
            coverage[name] = frozenset(font.getBestCmap())
    return coverage


def is_known(character: str) -> bool:
    """Whether any font has the character."""
    return any(ord(character) in points for points in _coverage().values())


def runs(text: str) -> list[tuple[str, str]]:
    """The text in pieces with the font that writes each; □ where no font has a character."""
    shown = "".join(character if is_known(character) else UNKNOWN for character in text)
    fonts = [next(name for name, points in _coverage().items() if ord(character) in points) for character in shown]
    for i, character in enumerate(shown):
        if character in SHARED and "chinese" in fonts[max(i - 1, 0) : i + 2]:
            fonts[i] = "chinese"
    return [(font, "".join(c for _, c in run)) for font, run in groupby(zip(fonts, shown, strict=True), lambda p: p[0])]


def _put(page: FPDF, mark: Mark) -> None:
    if isinstance(mark, Text):
        _put_text(page, mark)
        return
    how = _prepare(page, mark.role)
    if isinstance(mark, Strokes):
        for x1, y1, x2, y2 in mark.segments:
            page.line(x1, y1, x2, y2)
    elif isinstance(mark, Polyline):
        page.polyline(list(mark.points), style="D")
    elif isinstance(mark, Rect):
        page.rect(mark.x, mark.y, mark.width, mark.height, style=how)
    elif isinstance(mark, Dot) and mark.shape == "circle":
        page.circle(mark.x, mark.y, mark.radius, style=how)
    else:
        page.polygon(list(dot_outline(mark)), style=how)


def _prepare(page: FPDF, role: str) -> str:
    """Set the colours and lines of a role; the letters that tell fpdf2 to fill, to draw, or both."""
    style = STYLES[role]
    if style.fill != "none":
        page.set_fill_color(style.fill)
    if style.stroke_width:
        page.set_draw_color(style.stroke)
        page.set_line_width(style.stroke_width)
    page.set_dash_pattern()
    if style.dash:
        page.set_dash_pattern(dash=style.dash[0], gap=style.dash[1])
    return ("F" if style.fill != "none" else "") + ("D" if style.stroke_width else "")


def _put_text(page: FPDF, mark: Text) -> None:
    """One run per font; a run starts where the one before it ends."""
    page.set_text_color(STYLES[mark.role].fill)
    pieces = runs(clean(mark.text))
    widths = []
    for font, piece in pieces:
        page.set_font(font, size=mark.size)
        widths.append(page.get_string_width(piece))
    x = mark.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor] * sum(widths)
    for (font, piece), width in zip(pieces, widths, strict=True):
        page.set_font(font, size=mark.size)
        page.text(x, mark.y, piece)
        x += width
