"""A drawing as SVG that can stand inside a page or in a file of its own.

Looks are presentation attributes, which a content security policy allows and a stylesheet overrules: alone the file
shows the print colours, inside a page static/css/figures.css gives it the site's, light or dark.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from annotation.figures.drawing import Dot, Drawing, Mark, Polyline, Rect, Strokes, Text, dot_outline
from annotation.figures.styles import STYLES
from annotation.figures.text import clean


def svg(drawing: Drawing) -> str:
    """The drawing as one `<svg>` element: well-formed XML, all text escaped, no id, no style attribute, no script."""
    title = f"<title>{_text(drawing.title)}</title>"
    description = f"<desc>{_text(drawing.description)}</desc>" if drawing.description else ""
    size = f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}" width="{_n(drawing.width)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" role="img" lang="{_text(drawing.lang)}" {size}'
        f' height="{_n(drawing.height)}" font-family="Noto Sans SC, sans-serif">'
        f"{title}{description}{''.join(map(_mark, drawing.marks))}</svg>"
    )


def _mark(mark: Mark) -> str:
    return _WRITERS[type(mark)](mark)


def _strokes(mark: Strokes) -> str:
    path = "".join(f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}" for x1, y1, x2, y2 in mark.segments)
    return f'<path d="{path}"{_look(mark.role)}/>'


def _polyline(mark: Polyline) -> str:
    return f'<polyline points="{_points(mark.points)}"{_look(mark.role)}/>'


def _rect(mark: Rect) -> str:
    box = f'x="{_n(mark.x)}" y="{_n(mark.y)}" width="{_n(mark.width)}" height="{_n(mark.height)}"'
    return _titled("rect", f"{box}{_look(mark.role)}", mark.title)


def _dot(mark: Dot) -> str:
    if mark.shape == "circle":
        place = f'cx="{_n(mark.x)}" cy="{_n(mark.y)}" r="{_n(mark.radius)}"'
        return _titled("circle", f"{place}{_look(mark.role)}", mark.title)
    return _titled("polygon", f'points="{_points(dot_outline(mark))}"{_look(mark.role)}', mark.title)


def _write_text(mark: Text) -> str:
    anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
    title = f"<title>{_text(mark.title)}</title>" if mark.title else ""
    place = f'x="{_n(mark.x)}" y="{_n(mark.y)}" font-size="{_n(mark.size)}"{anchor}'
    return f"<text {place}{_look(mark.role)}>{title}{_text(mark.text)}</text>"


_WRITERS: dict[type, Callable[..., str]] = {
    Strokes: _strokes,
    Polyline: _polyline,
    Rect: _rect,
    Dot: _dot,
    Text: _write_text,
}


def _titled(tag: str, attributes: str, title: str) -> str:
    return f"<{tag} {attributes}><title>{_text(title)}</title></{tag}>" if title else f"<{tag} {attributes}/>"


def _look(role: str) -> str:
    style = STYLES[role]
    look = f' class="f-{role}" fill="{style.fill}"'
    if style.stroke_width:
        look += f' stroke="{style.stroke}" stroke-width="{_n(style.stroke_width)}"'
    if style.dash:
        look += f' stroke-dasharray="{" ".join(map(_n, style.dash))}"'
    return look


def _points(points: tuple[tuple[float, float], ...]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _text(text: str) -> str:
    return escape(clean(text))


def _n(number: float) -> str:
    """A length with at most two decimals."""
    return f"{round(number, 2) + 0.0:.2f}".rstrip("0").rstrip(".")
