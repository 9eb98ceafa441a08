"""Makes the fonts of `analysis/fonts`: DejaVu Sans as matplotlib ships it, with only the signs that figures need.

python -m tests.analysis.fonts analysis/fonts

matplotlib cuts what a PDF uses out of the whole font, 6,000 glyphs and layout tables, once for each figure: out of
these that takes a third of the time. Outlines, hints, widths and kerning are DejaVu's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont

FAMILY = "Insgd Lab Sans"
FILES = {"InsgdLabSans.ttf": "DejaVuSans.ttf", "InsgdLabSans-Bold.ttf": "DejaVuSans-Bold.ttf"}
BLOCKS = {
    "Latin": (0x20, 0x7E),
    "Latin-1": (0xA0, 0xFF),
    "Latin Extended-A": (0x100, 0x17F),
    "Greek": (0x370, 0x3FF),
    "Cyrillic": (0x400, 0x45F),
    "punctuation": (0x2010, 0x2044),
    "superscripts and subscripts": (0x2070, 0x209C),
    "letter-like": (0x2100, 0x214F),
    "arrows": (0x2190, 0x21FF),
    "mathematics": (0x2200, 0x22FF),
}
"""From and to which code point."""


def original(file: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FILES[file]


def make(file: str) -> TTFont:
    """One of the `FILES`; its family is renamed, so that matplotlib can tell it from the whole one."""
    options = subset.Options(glyph_names=True, layout_features=["*"], notdef_outline=True, name_IDs=[*range(7), 13])
    options.drop_tables.append("FFTM")  # when it was saved
    font = subset.load_font(str(original(file)), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in BLOCKS.values() for code in range(first, last + 1)])
    subsetter.subset(font)
    for record in font["name"].names:
        record.string = record.toUnicode().replace("DejaVu Sans", FAMILY).replace("DejaVuSans", "InsgdLabSans")
    return font


if __name__ == "__main__":
    for file in FILES:
        make(file).save(Path(sys.argv[1]) / file)
