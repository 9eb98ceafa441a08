"""Figures of a study. Each function takes numbers computed elsewhere and returns a matplotlib Figure.

    figure = draw_curves(test_curves(study, choices))
    save_figure(figure, Path("report"), "curves")      # of `canvas`: curves.svg, curves.pdf, curves.png

Colours, sizes and saving: `canvas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from insgd_lab.analysis.canvas import (
    MARKERS,
    WIDTH,
    key_below,
    key_lines,
    plain_log,
    plain_tick,
    set_title,
    side_legend,
    style,
    subplots,
)
from insgd_lab.analysis.labels import name_label, number, value_label
from insgd_lab.analysis.measures import MEASURES, Measure, reported
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import tuned_name
from insgd_lab.analysis.series import Grid, Line, Panel

__all__ = [
    "draw_curves",
    "draw_effects",
    "draw_grids",
    "draw_sensitivity",
    "effect_spans",
]

ERROR_TICKS = [m * 10.0**k for k in range(-3, 3) for m in (1, 2, 5) if m * 10.0**k <= 100]


@dataclass(frozen=True)
class Span:
    """The axis of errors (%) or losses that panels share: logarithmic once they span much, as when runs diverge."""

    log: bool
    low: float
    high: float
    errors: bool = True

    def apply(self, ax: Axes, along: str = "y") -> None:
        """Set scale, limits and ticks of one axis."""
        axis = getattr(ax, f"{along}axis")
        if self.log:
            ax.set(**{f"{along}scale": "log"})
        ax.set(**{f"{along}lim": (self.low, self.high)})
        if self.log and self.errors:
            _error_ticks(axis)
        elif self.log:
            plain_log(axis)

    def width(self, part: Span) -> float:
        """How much of this axis a part takes, in its own units or, if it is logarithmic, in their logarithms."""
        low, high = (max(end, self.low) for end in (part.low, part.high))
        return float(np.log(high / low) if self.log else high - low)

    def means(self, values: Any) -> np.ndarray:
        """Values as they are drawn: zeros stand at the foot of a logarithmic axis."""
        drawn: np.ndarray = np.maximum(values, 1.05 * self.low if self.log else -np.inf)
        return drawn

    def ends(self, values: Any) -> np.ndarray:
        """Lower interval ends as they are drawn: those under zero run off the axis."""
        drawn: np.ndarray = np.maximum(values, self.low / 2 if self.log else 0.0)
        return drawn

    def tops(self, values: Any) -> np.ndarray:
        """Upper ends as they are drawn: those of runs that diverged run off the axis."""
        return np.asarray(np.minimum(values, 100 * self.high))


def _span(measure: Measure, means: Any, lows: Any = (), highs: Any = ()) -> Span:
    centre, inner = (np.asarray(values, dtype=float) for values in (means, [*means, *lows, *highs]))
    centre, inner = centre[np.isfinite(centre)], inner[np.isfinite(inner)]
    positive = centre[centre > 0]
    spread = len(positive) > 0 and positive.max() > 8 * positive.min()
    if not measure.is_error:
        return (
            _loss_span(centre, inner) if not spread else Span(True, positive.min() / 1.5, 1.5 * positive.max(), False)
        )
    if spread:
        top = max(positive.max(), min(inner.max(), 100.0))
        return Span(True, max(positive.min() / (1.5 if centre.min() > 0 else 3), top / 1e4), 1.25 * top)
    low, high = (max(0.0, inner.min()), inner.max()) if len(inner) else (0.0, 1.0)
    pad = 0.06 * (high - low) or 1.0
    return Span(False, max(0.0, low - pad), min(high + pad, 102.0))  # an error is at most 100 %; intervals run off


def _loss_span(centre: np.ndarray, inner: np.ndarray) -> Span:
    """An even axis of losses: of bars that span little, else of the points alone; bars may run off."""
    shown = inner if len(inner) and np.ptp(inner) <= 4 * np.ptp(centre) else centre
    low, high = (shown.min(), shown.max()) if len(shown) else (0.0, 1.0)
    pad = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return Span(False, max(0.0, low - pad) if low >= 0 else low - pad, high + pad, False)


def _panel_span(measure: Measure, panels: Sequence[Panel]) -> Span:
    return _span(measure, np.concatenate([line.mean for panel in panels for line in panel.lines]))


def _keys(panels: Sequence[Panel]) -> list[int]:
    return [key_lines(panel.legend, [line.label for line in panel.lines]) for panel in panels]


def _error_ticks(axis: Any) -> None:
    """Percentages up to 100, though the axis may go on above for marks."""
    axis.set_major_locator(FixedLocator(ERROR_TICKS))
    axis.set_major_formatter(FuncFormatter(plain_tick))
    axis.set_minor_locator(NullLocator())


def _draw_line(ax: Axes, line: Line, k: int, span: Span) -> None:
    colour = sns.color_palette("colorblind")[k % 10]
    marks: dict[str, Any] = {"marker": MARKERS[k % len(MARKERS)], "markevery": max(1, len(line.x) // 10)}
    ax.plot(line.x, span.means(line.mean), color=colour, label=line.label, **marks)
    if np.isfinite(line.low).any():
        ax.fill_between(line.x, span.ends(line.low), span.tops(line.high), color=colour, alpha=0.16, linewidth=0)


# ------------------------------------------------------------------------------------------------ figures


def draw_curves(panels: Sequence[Panel], measure: Measure = MEASURES["test_error"]) -> Figure:
    """Test error (or loss) against epoch, a panel a comparison; bands are 95 % t-intervals, of losses ranges."""
    with style():
        figure, axes = subplots(len(panels), 2, 2.15, _keys(panels))
        span = _panel_span(measure, panels)
        for place, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
            for k, line in enumerate(panel.lines):
                _draw_line(ax, line, k, span)
            set_title(ax, panel.title)
            side_legend(ax, panel.legend)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            ax.set(xlabel="epoch", ylabel="" if place % 2 else measure.label)
        for ax in axes:
            span.apply(ax)
        band = "95 % t-interval over seeds" if measure.is_error else "range over seeds"
        key_below(figure, Patch(color="grey", alpha=0.3, label=band))
    return figure


def draw_sensitivity(panels: Sequence[Panel], measure: Measure = MEASURES["val_error"]) -> Figure:
    """Validation error (or loss) against learning rate; bands span the seeds, the chosen rate is the large marker.

    Crosses above the data stand at rates where at least one seed diverged.
    """
    with style():
        figure, axes = subplots(len(panels), 2, 2.25, _keys(panels))
        span = _panel_span(measure, panels)
        for place, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
            for k, line in enumerate(panel.lines):
                _draw_line(ax, line, k, span)
                _mark(ax, line, k, span)
            set_title(ax, panel.title)
            side_legend(ax, panel.legend)
            ax.set_xscale("log")
            _rate_ticks(ax, panel)
            ax.set(xlabel="learning rate", ylabel="" if place % 2 else measure.label)
        for ax in axes:
            span.apply(ax)
        _headroom(axes, panels)
        lines = [line for panel in panels for line in panel.lines]
        marks: list[Line2D | Patch] = [Patch(color="grey", alpha=0.3, label="range over seeds")]
        if any(line.chosen is not None for line in lines):
            marks.append(Line2D([], [], ls="", marker="o", ms=8, mfc="white", mec="black", label="chosen rate"))
        if any(line.crosses for line in lines):
            marks.append(Line2D([], [], ls="", marker="x", ms=5, mew=1.5, color="black", label="some seed diverged"))
        key_below(figure, *marks)
    return figure


def _mark(ax: Axes, line: Line, k: int, span: Span) -> None:
    colour = sns.color_palette("colorblind")[k % 10]
    if line.chosen is not None:
        at = span.means(line.mean[line.x == line.chosen])
        ax.plot([line.chosen] * len(at), at, MARKERS[k % len(MARKERS)], ms=8, mfc=colour, mec="black", mew=0.8)
    if line.crosses:
        heights = [0.965 - 0.05 * k] * len(line.crosses)
        ax.plot(line.crosses, heights, "x", color=colour, ms=5, mew=1.5, transform=ax.get_xaxis_transform())


def _rate_ticks(ax: Axes, panel: Panel) -> None:
    rates = sorted({float(x) for line in panel.lines for x in line.x})
    ax.set_xlim(min(rates) / 1.6, max(rates) * 1.6)
    gaps = np.diff(np.log(rates)) / (np.log(max(rates) / min(rates)) or 1.0)
    if len(rates) <= 8 and (gaps > 0.17).all():
        ax.set_xticks(rates, [number(rate) for rate in rates])
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        plain_log(ax.xaxis, room=1.7)


def _headroom(axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Room above the data for the crosses of diverged runs."""
    stacked = max((k + 1 for p in panels for k, line in enumerate(p.lines) if line.crosses), default=0)
    share = min(0.06 * stacked, 0.4)
    for ax in axes if stacked else ():
        low, high = ax.get_ylim()
        if ax.get_yscale() == "log":
            ax.set_ylim(low, high * (high / low) ** (share / (1 - share)))
        else:
            ax.set_ylim(low, high + (high - low) * share / (1 - share))


def draw_effects(study: Study, effects: pd.DataFrame, inert: Sequence[tuple[str, str]] = ()) -> Figure:
    """Test error of each level of each axis: left at its own best tune, right at the fixed one, if tuned.

    Points are means over seeds, bars 95 % t-intervals, of a task with losses alone medians and ranges; the base level
    is filled. Axes in `inert` say so.
    """
    measure = reported(study)
    spans = effect_spans(measure, effects)
    effects = effects if measure.is_error else effects.assign(**_medians(effects))
    modes, tuned = list(dict.fromkeys(effects["at"])), tuned_name(study)
    parts = [(str(arm), str(axis), rows) for (arm, axis), rows in effects.groupby(["arm", "axis"], sort=False)]
    heights = [0.45 + 0.24 * (rows["at"] == modes[0]).sum() for _, _, rows in parts]
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.8), layout="constrained")
        axes = figure.subplots(len(parts), len(modes), squeeze=False, sharex="col", height_ratios=heights)
        for k, at in enumerate(modes):
            for ax, (_, _, rows) in zip(axes[:, k], parts, strict=True):
                _draw_levels(ax, rows[rows["at"] == at], spans[at], k)
                spans[at].apply(ax, "x")
            where = {"best": f" at its own best {tuned}", "fixed": f" at the fixed {tuned}"}[at]
            axes[-1, k].set_xlabel(measure.label + (where if len(modes) > 1 else ""))
        for row, (arm, axis, _) in zip(axes, parts, strict=True):
            note = " (inert)" if (arm, axis) in inert else ""
            row[0].set_title(f"{study.arms[arm].label}: {name_label(axis)}{note}", loc="left")
            for ax in row[1:]:
                ax.set_yticklabels([])
    return figure


def effect_spans(measure: Measure, effects: pd.DataFrame) -> dict[str, Span]:
    """The axis of each side of `draw_effects`: one for both, unless one side spans five times as much as the other."""
    rows = effects if measure.is_error else effects.assign(**_medians(effects))
    sides = {at: rows[rows["at"] == at] for at in dict.fromkeys(rows["at"])}
    own = {at: _span(measure, side["mean"], side["low"], side["high"]) for at, side in sides.items()}
    whole = _span(measure, rows["mean"], rows["low"], rows["high"])
    widths = [whole.width(span) for span in own.values()]
    return dict.fromkeys(own, whole) if max(widths) <= 5 * min(widths) else own


def _medians(effects: pd.DataFrame) -> dict[str, pd.Series]:
    return {"mean": effects["median"], "low": effects["lowest"], "high": effects["highest"]}


def _draw_levels(ax: Axes, rows: pd.DataFrame, span: Span, colour: int) -> None:
    if rows.empty:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "nothing tuned", transform=ax.transAxes, ha="center", va="center", color="dimgrey")
        return
    mean = span.means(rows["mean"].to_numpy(dtype=float))
    beyond = np.isinf(mean)
    mean = np.where(beyond, np.nan, mean)
    below = mean - span.ends(rows["low"].to_numpy(dtype=float))
    above = span.tops(rows["high"].to_numpy(dtype=float)) - mean
    bars = np.nan_to_num(np.maximum([below, above], 0.0))
    places, tint = np.arange(len(rows)), sns.color_palette("colorblind")[colour]
    ax.errorbar(mean, places, xerr=bars, fmt="o", capsize=2.5, color=tint, mfc="white")
    ax.plot(
        np.full(beyond.sum(), 0.985),
        places[beyond],
        ">",
        color=tint,
        ms=5,
        transform=ax.get_yaxis_transform(),
        zorder=4,
    )
    base = rows["base"].to_numpy(dtype=bool)
    ax.plot(mean[base], places[base], "o", color=tint, zorder=4)
    names = [value_label(level) for level in rows["level"]]
    ax.set_yticks(places, [f"{name} (base)" if b else name for name, b in zip(names, base, strict=True)])
    ax.set_ylim(len(rows) - 0.5, -0.5)


def draw_grids(grids: Sequence[Grid], measure: Measure = MEASURES["test_error"]) -> Figure:
    """Two crossed axes as heat maps of the test error (or loss): left at each cell's own best tune, right at the fixed.

    Under each number stands the cell's tune in brackets. Where nothing is tuned there is one map.
    """
    heights = [0.75 + 0.45 * len(grid.best) for grid in grids]
    values = np.concatenate([errors.to_numpy(dtype=float).ravel() for grid in grids for _, errors, _ in grid.maps])
    low, high = _heat_limits(values, 1e-2 if measure.is_error else 1e-300)
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
        width = max(len(grid.maps) for grid in grids)
        axes = figure.subplots(len(grids), width, squeeze=False, height_ratios=heights)
        for row, grid in zip(axes, grids, strict=True):
            first = f"{grid.title}\n"
            for ax, (where, errors, tunes) in zip(row, grid.maps, strict=False):
                texts, norm = errors.map(measure.text), LogNorm(low, high)
                _heat(ax, f"{first}{where}".rstrip(), errors.clip(low, high), texts, tunes, norm)
                first = ""
            for ax in row[1:]:
                ax.set_ylabel("")
            for ax in row[len(grid.maps) :]:
                ax.remove()
        mesh = axes[0, 0].collections[0]
        bar = figure.colorbar(mesh, ax=axes, label=measure.label, shrink=min(1.0, 2.0 / sum(heights)))
        plain_log(bar.ax.yaxis, marks=True)
    return figure


def _heat_limits(values: np.ndarray, least: float) -> tuple[float, float]:
    """The ends of a logarithmic scale of colours, none of them below `least`; any, where no value is finite."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 1.0, 10.0
    low = max(float(known[known > 0].min()) if (known > 0).any() else 0.0, least)
    return low, max(float(known.max()), 1.5 * low)


def _heat(ax: Axes, title: str, values: pd.DataFrame, texts: pd.DataFrame, tunes: pd.DataFrame, norm: LogNorm) -> None:
    text = texts + tunes.map(lambda tune: f"\n({tune})" if tune else "")
    sns.heatmap(values, ax=ax, annot=text, fmt="", cmap="cividis_r", cbar=False, linewidths=1,
                norm=norm, annot_kws={"fontsize": 8})  # fmt: skip
    for text_at, colour in zip(ax.texts, _cell_colours(ax), strict=True):
        text_at.set_color("black" if _luminance(colour) > 0.18 else "white")  # equal contrast with both
    ax.set_title(title, loc="left")
    ax.tick_params(left=False, bottom=False)
    ax.tick_params(axis="y", rotation=0)


def _cell_colours(ax: Axes) -> np.ndarray:
    """The colours of a heat map's annotated cells, in the order of its texts."""
    mesh = ax.collections[0]
    values: Any = np.ma.asarray(mesh.get_array()).ravel()
    return np.asarray(mesh.to_rgba(values.compressed()))


def _luminance(colour: np.ndarray) -> float:
    """Relative luminance of an sRGB colour, as accessibility guidelines define it."""
    channels = np.where(colour[:3] <= 0.04045, colour[:3] / 12.92, ((colour[:3] + 0.055) / 1.055) ** 2.4)
    return float(channels @ [0.2126, 0.7152, 0.0722])
