"""How the roles of marks look in print. On a page, static/css/figures.css says it again with the site's colours."""

from __future__ import annotations

from dataclasses import dataclass

INK, SOFT, LINE, STRONG = "#1f2428", "#565d64", "#d9d4ca", "#8a8780"
ACCENT, WHITE = "#1c625f", "#ffffff"
N_SHARES = 7
N_SERIES = 6


@dataclass(frozen=True)
class Style:
    """Colours as "#rrggbb" or "none"; lengths in points; dash: length of stroke and of gap, or ()."""

    fill: str = "none"
    stroke: str = "none"
    stroke_width: float = 0.0
    dash: tuple[()] | tuple[float, float] = ()


def _mixed(share: float, colour: str = ACCENT, paper: str = WHITE) -> str:
    """`share` of a colour on paper."""
    pairs = [(int(colour[i : i + 2], 16), int(paper[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


# How much of the accent colour a shade holds, from the lowest point of a scale to the highest. The jump in the middle
# keeps figures readable on every shade: dark on light up to the fourth, light on dark from the fifth (and the other
# way round on a dark page).
SHARE_MIX = (0.1, 0.2, 0.31, 0.42, 0.84, 0.92, 1.0)
_SERIES = (ACCENT, "#a3262a", "#0b57d0", "#7a4b00", "#1d6b3a", SOFT)
_DASHES: tuple[tuple[()] | tuple[float, float], ...] = ((), (6, 3), (2, 2), (10, 3), (12, 6), (1, 3))

STYLES: dict[str, Style] = {
    "label": Style(fill=INK),
    "soft": Style(fill=SOFT),
    "axis": Style(stroke=STRONG, stroke_width=1.0),
    "grid": Style(stroke=LINE, stroke_width=0.75),
    "zero": Style(stroke=INK, stroke_width=1.0, dash=(3, 3)),
    "edge": Style(stroke=STRONG, stroke_width=0.75),
    "interval": Style(stroke=ACCENT, stroke_width=2.0),
    "dot": Style(fill=ACCENT, stroke=WHITE, stroke_width=1.0),
    "bar": Style(fill=_mixed(0.7), stroke=ACCENT, stroke_width=0.75),
    **{f"share-{i + 1}": Style(fill=_mixed(mix)) for i, mix in enumerate(SHARE_MIX)},
    # Hatching and figures on top of a share: dark on the light half, light on the dark half.
    **{
        f"hatch-{i + 1}": Style(stroke=WHITE if mix > 0.5 else ACCENT, stroke_width=0.75)
        for i, mix in enumerate(SHARE_MIX)
    },
    **{f"on-{i + 1}": Style(fill=WHITE if mix > 0.5 else INK) for i, mix in enumerate(SHARE_MIX)},
    **{f"line-{i + 1}": Style(stroke=colour, stroke_width=1.75, dash=_DASHES[i]) for i, colour in enumerate(_SERIES)},
    **{f"mark-{i + 1}": Style(fill=colour, stroke=WHITE, stroke_width=0.75) for i, colour in enumerate(_SERIES)},
}
