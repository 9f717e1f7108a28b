"""PDF: one page, its fonts inside, its text readable, the same bytes every time."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import subprocess
import sys
import zlib

import pytest

from annotation.figures.charts import Row, intervals
from annotation.figures.drawing import Drawing, Text
from annotation.figures.pdf import FOLDER, FONTS, pdf, runs
from tests.annotation.figures.test_charts import EVERY, agreement
from tests.architecture.messages import ROOT

CHINESE = "共情 Fleiss’ κ “可读” ‡ †"


def drawing(*lines: str) -> Drawing:
    return Drawing(300, 100, tuple(Text(10, 20 * i, text, "label") for i, text in enumerate(lines, 1)), "t")


@pytest.mark.parametrize("chart", EVERY)
def test_every_chart_becomes_one_page_without_pictures(chart):
    printed = pdf(chart.drawing)
    assert printed.content.startswith(b"%PDF-1.")
    assert printed.n_unknown == 0
    assert len(re.findall(rb"/Type /Page\b", printed.content)) == 1
    assert b"/Subtype /Image" not in printed.content
    assert f"/MediaBox [0 0 {chart.drawing.width:.2f} {chart.drawing.height:.2f}]".encode() in printed.content


def test_fonts_are_embedded_and_only_as_far_as_used():
    content = pdf(drawing(CHINESE)).content
    assert content.count(b"/FontFile2") == len({font for font, _ in runs(CHINESE)}) == 5
    assert len(content) < 40_000 < (FOLDER / FONTS["chinese"]).stat().st_size
    assert content.count(b"/FontFile2") > pdf(drawing("Empathy")).content.count(b"/FontFile2") == 1


def test_the_same_drawing_gives_the_same_bytes_here_and_in_another_process():
    chart = intervals([*agreement(), Row("安全", CHINESE, 0.5)], title="t", axis="系数")
    here = pdf(chart.drawing).content
    assert pdf(chart.drawing).content == here
    script = (
        "import hashlib; from annotation.figures.charts import Row, intervals; from annotation.figures.pdf import pdf\n"
        "from tests.annotation.figures.test_charts import agreement\n"
        "from tests.annotation.figures.test_pdf import CHINESE\n"
        "chart = intervals([*agreement(), Row('安全', CHINESE, 0.5)], title='t', axis='系数')\n"
        "print(hashlib.sha256(pdf(chart.drawing).content).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert other.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_what_no_font_has_is_a_box_and_is_counted(caplog):
    with caplog.at_level(logging.WARNING):
        printed = pdf(drawing("A😀B", "ש"))
    assert printed.n_unknown == 2
    assert runs("A😀B") == [("latin", "A"), ("symbols", "□"), ("latin", "B")]
    assert not caplog.records, "fpdf2 itself found nothing missing"


def test_marks_shared_by_two_scripts_follow_their_neighbours():
    assert runs("Fleiss’ “甲” A…乙…") == [
        ("latin", "Fleiss’ "),
        ("chinese", "“甲”"),
        ("latin", " A"),
        ("chinese", "…乙…"),
    ]


def test_text_of_another_size_and_anchor_ends_where_it_should():
    """The same text right-aligned at 200 and centred at 100: its first piece starts a full and a half width before."""
    starts = []
    for anchor, x in (("start", 0.0), ("middle", 100.0), ("end", 200.0)):
        content = pdf(Drawing(300, 40, (Text(x, 20, "Empathy", "label", anchor),), "t")).content
        page = next(
            text for part in re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)
            if (text := _inflated(part)) and b" Td" in text
        )  # fmt: skip
        starts.append(x - float(re.search(rb"BT (-?[\d.]+) ", page)[1]))
    assert starts[2] == pytest.approx(2 * starts[1], abs=0.02) and starts[2] > 30


def _inflated(part: bytes) -> bytes | None:
    try:
        return zlib.decompress(part)
    except zlib.error:
        return None


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext (poppler-utils) is not installed")
def test_text_can_be_copied_chinese_included(tmp_path):
    file = tmp_path / "figure.pdf"
    file.write_bytes(pdf(drawing(CHINESE, "心理咨询师，倾听。")).content)
    text = subprocess.run(["pdftotext", "-layout", str(file), "-"], capture_output=True, text=True, check=True).stdout
    assert " ".join(text.split()) == f"{CHINESE} 心理咨询师，倾听。"


def test_fonts_come_with_their_source_and_licence():
    said = (FOLDER / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert all(name in said for name in files)
    assert set(FONTS.values()) == {name for name in files if not name.startswith("LICENSE")}
