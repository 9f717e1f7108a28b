"""SVG: well-formed, told to those who cannot see it, nothing in it that a policy forbids, no text that escapes."""

from __future__ import annotations

import re

import pytest
from defusedxml import ElementTree

from annotation.figures.charts import Row, intervals
from annotation.figures.drawing import SHAPES, Dot, Drawing, Polyline, Rect, Strokes, Text
from annotation.figures.svg import svg
from tests.annotation.figures.test_charts import EVERY

NAMESPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "</svg><script>alert(1)</script>",
    "\" onload='x'",
    "‮txet",
    "a\x00\x1b\ud800b",
    "名" * 300,
    "<!--",
    "]]>",
    "&amp;",
]


@pytest.mark.parametrize("chart", EVERY)
def test_a_chart_is_well_formed_and_within_the_policy(chart):
    text = svg(chart.drawing)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root[0].tag == f"{NAMESPACE}title" and root[0].text == "t"
    for element in root.iter():
        assert element.tag.removeprefix(NAMESPACE) in {
            "svg", "title", "desc", "path", "polyline", "polygon", "rect", "circle", "text",
        }  # fmt: skip
        assert not {"style", "id"} & set(element.attrib)
        assert not [name for name in element.attrib if name.startswith("on")]
        for name in {"d", "points", "x", "y", "cx", "cy", "r", "width", "height"} & set(element.attrib):
            assert re.fullmatch(r"[-ML0-9., ]+", element.get(name)), (name, element.get(name))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_a_text(text):
    chart = intervals([Row(text, text, 0.5, note=text), Row(text, text, None, reason=text)], title=text, axis=text,
                      description=text, lang=text)  # fmt: skip
    written = svg(chart.drawing)
    root = ElementTree.fromstring(written.encode())
    assert {element.tag.removeprefix(NAMESPACE) for element in root.iter()} <= {
        "svg", "title", "desc", "path", "circle", "text",
    }  # fmt: skip
    assert not [e for e in root.iter() if any(name.startswith("on") for name in e.attrib)]
    assert "‮" not in written


def test_a_text_that_was_cut_can_be_read_in_full():
    root = ElementTree.fromstring(svg(intervals([Row("", "名" * 300, 0.5)], title="t", axis="x").drawing))
    cut = next(element for element in root.iter(f"{NAMESPACE}text") if len(element))
    assert cut[0].text == "名" * 300
    assert cut[0].tail.endswith("…")


def test_each_mark_is_written_with_its_look():
    marks = (
        Strokes(((0, 0, 1.234, 5),), "zero"),
        Polyline(((0, 0), (1, 1)), "line-2"),
        Rect(1, 2, 3, 4, "bar", "three & more"),
        *(Dot(5, 5, 2, "dot", shape) for shape in SHAPES),
        Text(1, 2, "倾听", "label", "end"),
    )
    root = ElementTree.fromstring(svg(Drawing(10, 10, marks, "t", "d", "zh-Hans")))
    assert root.get("lang") == "zh-Hans"
    tags = [element.tag.removeprefix(NAMESPACE) for element in root]
    assert tags == ["title", "desc", "path", "polyline", "rect", "circle", "polygon", "polygon", "polygon", "text"]
    assert root[2].attrib == {
        "d": "M0 0L1.23 5", "class": "f-zero", "fill": "none", "stroke": "#1f2428", "stroke-width": "1",
        "stroke-dasharray": "3 3",
    }  # fmt: skip
    assert root[4][0].text == "three & more"
    assert (root[9].text, root[9].get("text-anchor")) == ("倾听", "end")
