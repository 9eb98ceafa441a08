"""The fonts of figures look as DejaVu does; the whole one stands in for what they lack; PDFs hold them."""

import re
import zlib
from pathlib import Path

import pytest
from fontTools.pens.recordingPen import RecordingPen
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager

import insgd_lab.analysis
from insgd_lab.analysis import canvas
from tests.analysis import fonts

FOLDER = Path(insgd_lab.analysis.__file__).parent / "fonts"


def drawing(font, letter):
    glyphs, name = font.getGlyphSet(), font.getBestCmap()[ord(letter)]
    pen = RecordingPen()
    glyphs[name].draw(pen)
    return pen.value, glyphs[name].width


@pytest.mark.parametrize("file", fonts.FILES)
def test_outlines_and_widths_are_those_of_dejavu(file):
    ours, whole = TTFont(FOLDER / file), TTFont(fonts.original(file))
    assert len(ours.getBestCmap()) > 900
    for code in ours.getBestCmap():
        assert drawing(ours, chr(code)) == drawing(whole, chr(code)), hex(code)


@pytest.mark.parametrize("file", fonts.FILES)
def test_they_have_what_reports_are_written_in(file):
    written = "Aa0±²·×éÖßšŁαβεθΔΣ Жя–—‘’“”†‡•…′″‖₁∞ℓ−√∂∇∑∏∈≤≥≠≈→←"
    assert set(map(ord, written)) <= set(TTFont(FOLDER / file).getBestCmap())


def test_each_weight_is_found_in_its_file():
    for weight, file in zip(("normal", "bold"), fonts.FILES, strict=True):
        asked = FontProperties(family=fonts.FAMILY, weight=weight)
        assert Path(fontManager.findfont(asked, fallback_to_default=False)).name == file


def embedded_fonts(pdf):
    """Names and files of the fonts in a PDF."""
    objects = re.findall(rb"/FontName /(\S+)", pdf)
    packed = re.findall(rb"FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    streams = [zlib.decompress(part) for part in packed]
    return {name.decode() for name in objects}, [part for part in streams if part[:4] == b"\0\1\0\0"]


def test_pdfs_hold_truetype_fonts_and_other_scripts_come_from_the_whole_one(tmp_path):
    with canvas.style():
        figure = Figure()
        figure.text(0.1, 0.5, "β = 0.9, ≤ ∞ ℓ₂ жук")
        figure.text(0.1, 0.7, "שלום ქართული", weight="bold")  # a warning of missing glyphs would be an error
    pdf = canvas.save_figure(figure, tmp_path, "x")["pdf"].read_bytes()
    names, files = embedded_fonts(pdf)
    expected = {"InsgdLabSans", "InsgdLabSans-Bold", "DejaVuSans-Bold"}  # the bold one of ours has the space
    assert {name.split("+")[-1] for name in names} == expected
    assert len(files) >= len(expected)
    assert b"/Type3" not in pdf
