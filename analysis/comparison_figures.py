"""Figures that set results side by side: differences with their intervals, and the published beside ours.

    figure = draw_forest(forest_of(study, compare(study)))

Colours, sizes and saving: `canvas`.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from insgd_lab.analysis.canvas import WIDTH, key_below, style
from insgd_lab.analysis.comparison_series import Forest
from insgd_lab.analysis.labels import MISSING, half_up, number
from insgd_lab.analysis.measures import MEASURES, Measure, rounded

__all__ = ["COLUMN", "draw_forest", "draw_published", "forest_limit", "forest_pages"]

_MARKERS = {"primary": "D", "exploratory": "o"}
_COLOURS = dict(zip(_MARKERS, (sns.color_palette("colorblind")[k] for k in (0, 7)), strict=True))
_ROW = 0.21
"""Inches for a row of dots."""
COLUMN = 4.6
"""Inches that the forest plot is wide: at 3.5, a column of print, its letters of 8 points are 6 high."""
LINES = 42
"""Lines of text and intervals on one page of it."""
_LINE = 0.155
"""Inches for one of them."""


def _signed_tick(value: float, position: int | None = None) -> str:
    """A function of the module, so that the figure can be pickled."""
    return number(value).replace("-", "\N{MINUS SIGN}", 1)


def forest_pages(forest: Forest) -> list[Forest]:
    """The rows of a forest plot page by page, in their order, as many as a page's lines allow and at least one."""
    rows, cuts, first = forest.rows, [0], 0
    for k in range(1, len(rows)):
        if _layout(rows.iloc[first : k + 1]).bottom > LINES:
            cuts.append(k)
            first = k
    ends = zip(cuts, [*cuts[1:], len(rows)], strict=True)
    return [dataclasses.replace(forest, rows=rows.iloc[start:end]) for start, end in ends]


def draw_forest(forest: Forest, limit: float | None = None) -> Figure:
    """Mean differences with their intervals, under the name of what is compared; left of zero is lower, that is better.

    Names stand in a column at the left, numbers in one at the right. Intervals that run off the axis end in an arrow.
    It is narrow enough for one column of print, where its letters are 6 points high.

    Args:
        forest: a page of `forest_pages`.
        limit: how far the axis goes to each side, where pages share one; as `forest_limit` has it if None.
    """
    limit = forest_limit(forest) if limit is None else limit
    rows, layout, measure = forest.rows, _layout(forest.rows), MEASURES[forest.metric]
    places = np.array(layout.places)
    with style():
        figure = Figure(figsize=(COLUMN, _LINE * layout.bottom + 1.05), layout="constrained")
        names, ax, texts = figure.subplots(1, 3, width_ratios=_WIDTHS, sharey=True)
        _write_names(names, layout)
        _draw_margin(ax, forest.margin)
        for role in _MARKERS:
            own = (rows["role"] == role).to_numpy()
            _draw_differences(ax, places[own], rows[own], role, limit)
        ax.set_yticks(places, [])
        ax.grid(False, axis="y")
        ax.spines[["left", "right", "top"]].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(_signed_tick))
        unit = measure.label.replace("(%)", "\n(percentage points)")
        ax.set(xlim=(-limit, limit), ylim=(layout.bottom, -0.6), xlabel=f"difference in {unit}")
        _write_numbers(texts, layout.places, rows, measure)
        _forest_key(figure, forest)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in lines from the top: intervals, and the lines of text over them (bold: a group's title)."""

    places: list[float]
    texts: list[tuple[float, str, bool]]
    bottom: float


def _layout(rows: pd.DataFrame) -> _Layout:
    at, last = 1.4, None
    places: list[float] = []
    texts: list[tuple[float, str, bool]] = []
    for row in rows.to_dict("records"):
        heads = textwrap.wrap(row["group"], _BOLD) if row["group"] != last else []
        at += 0.5 if heads and last is not None else 0.0
        names = textwrap.wrap(_marked(row), _PLAIN)
        lines = max(2, len(names))  # its numbers take two
        first = at + len(heads) + (lines - len(names)) / 2
        texts += [(at + k, line, True) for k, line in enumerate(heads)]
        texts += [(first + k, line, False) for k, line in enumerate(names)]
        places.append(at + len(heads) + (lines - 1) / 2)
        last, at = row["group"], at + len(heads) + lines + 0.4
    return _Layout(places, texts, at)


_WIDTHS = (1.6, 1.05, 1.85)
"""Of names, plot and numbers."""
_BOLD, _PLAIN = 22, 25
"""Letters that a line of names holds."""


def _write_names(ax: Axes, layout: _Layout) -> None:
    """What is compared, in a column without axes."""
    ax.axis("off")
    for place, line, bold in layout.texts:
        weight = "bold" if bold else "normal"
        text = ax.text(0.0, place, line, transform=ax.get_yaxis_transform(), va="center", fontweight=weight, fontsize=8)
        text.set_in_layout(False)  # it fits into its column, and measuring each takes long


def forest_limit(forest: Forest) -> float:
    """How far the axis of differences goes to each side: to the farthest end, or to four times the usual one.

    One arm that diverged would otherwise press all others onto the line of no difference.
    """
    reach = forest.rows[["low", "high", "difference"]].abs().max(axis=1).to_numpy(dtype=float)
    usual = 4 * float(np.median(reach[reach > 0])) if (reach > 0).any() else 1.0
    return 1.06 * max(min(float(reach.max()), usual), 1.2 * (forest.margin or 0.0), np.finfo(float).tiny)


def _places(groups: list[str]) -> tuple[list[float], dict[float, str]]:
    """From the top, where each row stands, and the title of each group, in a row of its own over it."""
    places: list[float] = []
    heads: dict[float, str] = {}
    last, at = None, -1.0
    for group in groups:
        if group != last:
            at += 1.0 if last is None else 1.3
            heads[at], last = group, group
        at += 1.0
        places.append(at)
    return places, heads


def _write_heads(figure: Figure, ax: Axes, heads: Mapping[float, str]) -> None:
    """Titles of groups, from the figure's left edge on, in rows where nothing else stands."""
    across = blended_transform_factory(figure.transFigure, ax.transData)
    for place, title in heads.items():
        text = ax.text(0.005, place, title, transform=across, va="center", fontweight="bold", fontsize=8, zorder=5)
        text.set_in_layout(False)  # it may reach over the plot and must not widen its margin


def _marked(row: dict[Any, Any]) -> str:
    return f"{row['name']} †" if row["diverged"] or row["reference_diverged"] else str(row["name"])


def _draw_margin(ax: Axes, margin: float | None) -> None:
    if margin is not None:
        ax.axvspan(-margin, margin, color="grey", alpha=0.15, linewidth=0)
    ax.axvline(0.0, color="dimgrey", linewidth=0.8)


def _draw_differences(ax: Axes, places: np.ndarray, rows: pd.DataFrame, role: str, limit: float) -> None:
    """Points with their intervals: filled where the verdict is lower or higher; arrows at what runs off."""
    mean, low, high = (rows[name].to_numpy(dtype=float) for name in ("difference", "low", "high"))
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)
    colour = _COLOURS[role]
    inside = (high >= -limit) & (low <= limit)
    ends = np.clip([low, high], -limit, limit)
    ax.hlines(places[inside], *ends[:, inside], color=colour, linewidth=1.4)
    for outside, edge, arrow in ((low < -limit, -limit, "<"), (high > limit, limit, ">")):
        if outside.any():  # the layout would make room for an empty line that is not clipped
            ax.plot([edge] * int(outside.sum()), places[outside], arrow, color=colour, ms=5, clip_on=False, zorder=4)
    told = rows["verdict"].str.startswith(("lower", "higher")).to_numpy(dtype=bool)
    for chosen, inner in ((told, colour), (~told, "white")):
        shown = chosen & (np.abs(mean) <= limit)
        ax.plot(mean[shown], places[shown], _MARKERS[role], color=colour, mfc=inner, ms=5, zorder=4)


_COLUMNS = {"difference\n(95 % interval)": 0.0, "n": 0.78, "p": 1.0}


def _write_numbers(ax: Axes, places: list[float], rows: pd.DataFrame, measure: Measure) -> None:
    """The numbers of each row in columns, without axes."""
    ax.axis("off")
    where: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
    sides = dict(zip(_COLUMNS, ("left", "right", "right"), strict=True))
    for title, x in _COLUMNS.items():
        ax.text(x, 0.1, title, ha=sides[title], fontweight="bold", **where)
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        n = min(row["n"], row["n_reference"]) if row["test"] == "welch" else row["pairs"]
        texts = (_difference_text(row, measure), f"{n:.0f}", _p_text(row["p_shown"]))
        for (title, x), text in zip(_COLUMNS.items(), texts, strict=True):
            written = ax.text(x, place, text, ha=sides[title], **where)
            written.set_in_layout(False)  # it fits beside the others, and measuring each takes long


def _difference_text(row: dict[Any, Any], measure: Measure) -> str:
    """Two digits of a loss, for more have no room."""
    values = [row[name] for name in ("difference", "low", "high")]
    mean, low, high = (measure.signed(value if measure.is_error else rounded(value, 2)) for value in values)
    return mean if np.isnan(row["low"]) else f"{mean}\n({low} to {high})"


def _p_text(p: float) -> str:
    if np.isnan(p):
        return MISSING
    return "< 0.001" if p < 0.001 else half_up(p, 3)


def _forest_key(figure: Figure, forest: Forest) -> None:
    roles = [role for role in _MARKERS if (forest.rows["role"] == role).any()]
    marks: list[Line2D | Patch] = [
        Line2D([], [], color=_COLOURS[role], marker=_MARKERS[role], mfc="white", ms=5, label=role) for role in roles
    ]
    marks.append(Line2D([], [], ls="", marker="o", ms=5, color=_COLOURS["exploratory"], label="filled: p < 0.05"))
    if forest.margin is not None:
        marks.append(Patch(color="grey", alpha=0.15, label="within the margin"))
    figure.legend(handles=marks, loc="outside lower center", ncols=3 if len(marks) == 3 else 2, handlelength=1.4)


# ------------------------------------------------------------------------------------------------ published


def draw_published(frame: pd.DataFrame) -> Figure:
    """Printed accuracies beside ours, and each optimizer's lead over its baseline, a row an optimizer and condition.

    Args:
        frame: of `reproduction.reproduce(…).table`.
    """
    rows = frame.to_dict("records")
    places, heads = _places([row["condition"] for row in rows])
    heads = {at: title for at, title in heads.items() if title}
    bottom = places[-1] + 0.7
    with style():
        figure = Figure(figsize=(WIDTH, 1.4 * _ROW * (bottom + 1.6) + 0.9), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for k, kind in enumerate(_PUBLISHED):
            _draw_side(axes[0], np.array(places), frame, kind, 0.22 * (k - 1))
        axes[1].axvline(0.0, color="dimgrey", linewidth=0.8)
        for k, kind in enumerate(_LEADS):
            _draw_side(axes[1], np.array(places), frame, kind, 0.22 * (k - 0.5))
        _write_heads(figure, axes[0], heads)
        axes[0].set_yticks(places, [row["printed"] for row in rows])
        axes[0].set(ylim=(bottom, -0.7), xlabel="test accuracy (%), mean ± sd")
        axes[1].set(xlabel=f"lead over {_baseline(frame)} (percentage points)")
        for ax, kinds in zip(axes, (_PUBLISHED, _LEADS), strict=True):
            ax.grid(False, axis="y")
            _keep_points(ax, frame[[kind[3][0] for kind in kinds]].to_numpy(dtype=float))
        key_below(figure, *(_published_mark(kind) for kind in _PUBLISHED))
    return figure


def _baseline(frame: pd.DataFrame) -> str:
    names = frame["baseline"].dropna().unique()
    return str(names[0]) if len(names) == 1 else "the baseline"


# label, colour, marker, columns: mean, and what the bar is
_Source = tuple[str, int, str, tuple[str, ...]]
_PUBLISHED: tuple[_Source, ...] = (
    ("paper", 1, "D", ("paper_mean", "paper_sd")),
    ("here, best epoch", 0, "o", ("best_mean", "best_sd")),
    ("here, last epoch", 2, "^", ("final_mean", "final_sd")),
)
_LEADS: tuple[_Source, ...] = (
    ("paper", 1, "D", ("paper_lead",)),
    ("here, best epoch", 0, "o", ("lead", "lead_low", "lead_high")),
)


def _published_mark(kind: _Source) -> Line2D:
    label, colour, marker, _ = kind
    return Line2D([], [], color=sns.color_palette("colorblind")[colour], marker=marker, label=label)


def _draw_side(ax: Axes, places: np.ndarray, frame: pd.DataFrame, kind: _Source, shift: float) -> None:
    """Points of one source with their bars: mean ± sd, or from low to high."""
    label, tint, marker, names = kind
    columns = [frame[name].to_numpy(dtype=float) for name in names]
    mean, colour = columns[0], sns.color_palette("colorblind")[tint]
    if len(columns) == 2:
        ax.hlines(places + shift, mean - columns[1], mean + columns[1], color=colour, linewidth=1.2)
    if len(columns) == 3:
        ax.hlines(places + shift, columns[1], columns[2], color=colour, linewidth=1.2)
    ax.plot(mean, places + shift, marker, color=colour, label=label)


def _keep_points(ax: Axes, means: np.ndarray) -> None:
    """Bars of a few seeds that spread widely may run off the axis, points may not."""
    known = means[np.isfinite(means)]
    if len(known):
        room = 0.4 * float(np.ptp(known)) or 1.0
        low, high = ax.get_xlim()
        ax.set_xlim(max(low, known.min() - room), min(high, known.max() + room))
