"""A drawing made of few marks, written as SVG or PDF by other modules.

Lengths are in points, x to the right and y down from the upper left corner; a text's y is its baseline. A mark says
what it is for (`role`), and annotation/figures/styles.py says how that looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]
Shape = Literal["circle", "square", "diamond", "triangle"]
SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle")

Segment = tuple[float, float, float, float]
"""x and y of one end, x and y of the other."""


@dataclass(frozen=True)
class Strokes:
    """Straight lines of one kind."""

    segments: tuple[Segment, ...]
    role: str


@dataclass(frozen=True)
class Polyline:
    """A line through the points, in their order."""

    points: tuple[tuple[float, float], ...]
    role: str


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    role: str
    title: str = ""  # what a pointer that rests on it reads


@dataclass(frozen=True)
class Dot:
    """A marker around its centre; `radius` is half its height."""

    x: float
    y: float
    radius: float
    role: str
    shape: Shape = "circle"
    title: str = ""


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    role: str
    anchor: Anchor = "start"
    size: float = 12.0
    title: str = ""  # the full text where only its beginning is shown


Mark = Strokes | Polyline | Rect | Dot | Text


@dataclass(frozen=True)
class Drawing:
    """width, height: the page in points.  title, description: what someone who cannot see it is told.
    lang: the language of its texts, as HTML names it ("en", "zh-Hans")."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    title: str
    description: str = ""
    lang: str = "en"


def dot_outline(dot: Dot) -> tuple[tuple[float, float], ...]:
    """The corners of a marker that is no circle."""
    x, y, r = dot.x, dot.y, dot.radius
    if dot.shape == "square":
        return (x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)
    if dot.shape == "diamond":
        return (x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)
    return (x, y - 1.2 * r), (x + 1.2 * r, y + r), (x - 1.2 * r, y + r)


def hatching(x: float, y: float, width: float, height: float, *, spacing: float = 5.0) -> tuple[Segment, ...]:
    """Diagonal lines that fill a rectangle and never leave it. Drawn, not referred to: a pattern would need an id
    that is unique on the page."""
    segments = []
    offset = spacing
    while offset < width + height:
        # The line x' + y' = offset, cut to the rectangle.
        x1, y1 = (offset, 0.0) if offset <= width else (width, offset - width)
        x2, y2 = (0.0, offset) if offset <= height else (offset - height, height)
        segments.append((x + x1, y + y1, x + x2, y + y2))
        offset += spacing
    return tuple(segments)
