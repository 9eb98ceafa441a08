"""What every figure is drawn on: size, look, panels, ticks, and how it is saved.

    with style():
        figure, axes = subplots(4, columns=2, height=2.5)
        …
    save_figure(figure, Path("report"), "curves")      # curves.svg, curves.pdf, curves.png

Colours are seaborn's colour-blind-safe palette, and every line has a marker of its own besides. Nothing here
touches pyplot's global state, and files carry no dates: equal numbers give equal figures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from insgd_lab.analysis.labels import number

__all__ = [
    "DASHES",
    "FORMATS",
    "MARKERS",
    "WIDTH",
    "fit_means",
    "key_below",
    "key_lines",
    "plain_log",
    "plain_tick",
    "save_figure",
    "set_title",
    "share_limits",
    "side_legend",
    "step_line",
    "style",
    "subplots",
]

FORMATS = ("svg", "pdf", "png")
WIDTH = 8.0
MARKERS = "osD^vP"
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (3, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.5)), (0, (8, 2, 1, 2, 1, 2)))

_STYLE: Any = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper"),
    "font.family": ["Insgd Lab Sans", "DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,  # names are the user's, and may have a dollar
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # else matplotlib measures all tick labels once more for each, to dodge an offset over the axis
    "axes.formatter.useoffset": False,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.hashsalt": "insgd-lab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
}


# Letters of Europe and mathematical signs of DejaVu Sans: cutting what a PDF needs out of the whole font
# takes three times as long. The whole font, which ships with matplotlib, stands in for what these lack.
for _file in sorted((Path(__file__).parent / "fonts").glob("*.ttf")):
    fontManager.addfont(_file)


def style() -> AbstractContextManager[None]:
    """The look of all figures, while it is entered."""
    return mpl.rc_context(_STYLE)


def save_figure(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Write `name`.svg, .pdf and .png into `folder`, which is made if need be; returns the paths by format."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {form: folder / f"{name}.{form}" for form in FORMATS}
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with style():
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # found once: each format would find it anew
        for form, path in paths.items():
            figure.savefig(path, format=form, metadata=dates[form])
    return paths


def subplots(count: int, columns: int, height: float, keys: Sequence[int] = ()) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, so many beside each other, each `height` inches high.

    A row is higher where the legend of a panel, of as many lines as `keys` has for it, needs the room.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    lines = [max(keys[row * columns : (row + 1) * columns], default=0) for row in range(rows)]
    heights = [max(height, 0.17 * lines[row]) for row in range(rows)]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, height_ratios=heights).flat)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def set_title(ax: Axes, text: str, width: int = 32) -> None:
    """A title over the left end of a panel, wrapped."""
    ax.set_title("\n".join(textwrap.wrap(text, width)), loc="left")


def side_legend(ax: Axes, title: str, width: int = 20) -> None:
    """The legend outside the data, to the right of its panel; labels are wrapped, and may have lines of their own."""
    handles, labels = ax.get_legend_handles_labels()
    labels = ["\n".join(_wrapped(label, width)) for label in labels]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.03), "alignment": "left"}
    ax.legend(handles, labels, title=title or None, borderaxespad=0.3, handlelength=1.8, **place)


def _wrapped(label: str, width: int) -> list[str]:
    return [part for line in label.splitlines() for part in textwrap.wrap(line, width)]


def key_lines(title: str, labels: Sequence[str], width: int = 20) -> int:
    """How many lines a `side_legend` has, with some room around it."""
    return sum(len(_wrapped(label, width)) for label in labels) + bool(title) + 4


def plain_tick(value: float, position: int | None = None) -> str:
    """A tick's label; a function of the module, so that figures can be pickled."""
    return number(value)


def plain_log(axis: Any, room: float = 2.5, marks: bool = False) -> None:
    """Tick labels 0.3, 1, 20 instead of powers of ten, at 1, 2 and 5 of each decade.

    Over more than `room` decades at 1 and 3, over more again at 1 alone, unless that leaves fewer than three; an axis
    that spans too little for three of these has evenly spaced ticks. `marks`: it has tick marks, as a colour bar has.
    """
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else 1.0
    sparse = 1 if decades < room else 2 if decades < 1.4 * room else 3
    found = [subs for subs in _SUBS[sparse::-1] if low <= 0 or _ticks(low, high, subs) >= 3]
    axis.set_major_locator(LogLocator(base=10, subs=found[0], numticks=12) if found else MaxNLocator(5, **_EVEN))
    axis.set_major_formatter(FuncFormatter(plain_tick))
    axis.set_minor_formatter(NullFormatter())
    if not marks:
        axis.set_minor_locator(NullLocator())  # minor ticks would show nothing, and cost as much as others


_SUBS = ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))


_EVEN: dict[str, Any] = {"steps": [1, 2, 5, 10], "min_n_ticks": 3}


def _ticks(low: float, high: float, subs: Sequence[float]) -> int:
    """How many of these multiples of powers of ten lie between two positive numbers."""
    powers = range(int(np.floor(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    return sum(low <= sub * 10.0**power <= high for power in powers for sub in subs)


def step_line(k: int, count: int) -> dict[str, Any]:
    """How the k-th of so many lines of steps is drawn: where they coincide, each shows from under the later ones.

    Earlier ones are wider, with larger markers; later ones are dashed. Nothing is moved, for values are read off it.
    """
    beneath = count - 1 - k
    marks: dict[str, Any] = {"marker": MARKERS[k % len(MARKERS)], "markersize": 4 + 0.9 * beneath}
    look: dict[str, Any] = {"linestyle": DASHES[k % len(DASHES)], "linewidth": 1.4 + 0.45 * beneath}
    return {"color": sns.color_palette("colorblind")[k % 10], "zorder": 3 + 0.1 * k, **marks, **look}


def fit_means(ax: Axes, means: Sequence[np.ndarray]) -> None:
    """Fit the y-axis to the means drawn: logarithmic once they span much.

    Bands may run off, for with few seeds they are wide without end.
    """
    values = np.concatenate([np.asarray(part, dtype=float) for part in means])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and positive.max() > 8 * positive.min():
        ax.set(yscale="log", ylim=(positive.min() / 1.4, 1.4 * positive.max()))
        plain_log(ax.yaxis)
    elif len(values):
        low, high = float(values.min()), float(values.max())
        if not 1e-3 < high < 1e5:  # a factor over the axis might stand in a title's way
            ax.yaxis.set_major_formatter(FuncFormatter(plain_tick))
        room = 0.25 * (high - low) or 0.1 * abs(high) or 1.0
        ax.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + room)


def key_below(figure: Figure, *handles: Line2D | Patch) -> None:
    """What marks and bands mean, below all panels."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=len(handles), handlelength=1.4)


def share_limits(axes: Sequence[Axes]) -> None:
    """Give panels one y-axis: the widest."""
    if axes:
        limits = np.array([ax.get_ylim() for ax in axes])
        for ax in axes:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
