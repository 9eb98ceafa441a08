"""Figures of a study. Each function takes numbers computed elsewhere and returns a matplotlib Figure.

    figure = draw_curves(error_curves(study, choices))
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
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from insgd_lab.analysis.labels import name_label, number, percent, value_label
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.series import Grid, LayerTraces, Line, Panel

__all__ = [
    "FORMATS",
    "draw_curves",
    "draw_effects",
    "draw_grids",
    "draw_layers",
    "draw_sensitivity",
    "save_figure",
]

FORMATS = ("svg", "pdf", "png")
WIDTH = 7.4
MARKERS = "osD^vP"
ERROR_TICKS = [m * 10.0**k for k in range(-3, 3) for m in (1, 2, 5) if m * 10.0**k <= 100]

_STYLE: Any = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper"),
    "font.family": ["DejaVu Sans"],  # ships with matplotlib and has the Greek letters, ∞ and ℓ
    "font.size": 9,
    "axes.titlesize": 9,
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


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(_STYLE)


def save_figure(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Write `name`.svg, .pdf and .png into `folder`; returns the paths by format."""
    paths = {form: folder / f"{name}.{form}" for form in FORMATS}
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with _style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is found once, not for each format again
        for form, path in paths.items():
            figure.savefig(path, format=form, metadata=dates[form])
    return paths


# ------------------------------------------------------------------------------------------------ pieces


def _grid(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.3), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _title(ax: Axes, text: str, width: int = 32) -> None:
    ax.set_title("\n".join(textwrap.wrap(text, width)), loc="left")


def _legend(ax: Axes, title: str, width: int = 20) -> None:
    """The legend outside the data, to the right of its panel."""
    handles, labels = ax.get_legend_handles_labels()
    labels = ["\n".join(textwrap.wrap(label, width)) for label in labels]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.03), "alignment": "left"}
    ax.legend(handles, labels, title=title or None, borderaxespad=0.3, handlelength=1.8, **place)


def _plain_log(axis: Any) -> None:
    """Tick labels 0.3, 1, 20 instead of powers of ten, at 1, 2 and 5 of each decade (1 alone over many)."""
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else 1.0
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0, 3.0) if decades < 3.5 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def _error_scale(axes: Sequence[Axes], values: Sequence[float], along: str = "y") -> None:
    """One error axis for all panels: logarithmic where errors span much, which they do once runs diverge."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    positive = finite[finite > 0]
    if len(positive) and positive.max() > 8 * positive.min():
        floor = max(positive.min(), positive.max() / 1e4) / 1.3
        for ax in axes:
            ax.set(**{f"{along}scale": "log", f"{along}lim": (floor, positive.max() * 1.3)})
            _error_ticks(getattr(ax, f"{along}axis"))
    elif len(finite):
        pad = 0.06 * (finite.max() - finite.min()) or 1.0
        for ax in axes:
            ax.set(**{f"{along}lim": (max(0.0, finite.min() - pad), finite.max() + pad)})


def _error_ticks(axis: Any) -> None:
    """Percentages up to 100, though the axis may go on above for marks."""
    axis.set_major_locator(FixedLocator(ERROR_TICKS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_locator(NullLocator())


def _draw_line(ax: Axes, line: Line, k: int, floor: float, **options: Any) -> None:
    colour = sns.color_palette("colorblind")[k % 10]
    marker = MARKERS[k % len(MARKERS)]
    ax.plot(line.x, np.maximum(line.mean, floor), color=colour, marker=marker, label=line.label, **options)
    if np.isfinite(line.low).any():
        ax.fill_between(line.x, np.maximum(line.low, floor), line.high, color=colour, alpha=0.16, linewidth=0)


def _floor(panels: Sequence[Panel]) -> float:
    return _floor_of(np.concatenate([line.mean for panel in panels for line in panel.lines]))


def _key(figure: Figure, *handles: Line2D | Patch) -> None:
    """What marks and bands mean, below all panels."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=len(handles), handlelength=1.4)


# ------------------------------------------------------------------------------------------------ figures


def draw_curves(panels: Sequence[Panel]) -> Figure:
    """Test error against epoch, a panel a comparison; bands are 95 % t-intervals."""
    with _style():
        figure, axes = _grid(len(panels), 2, 2.15)
        floor = _floor(panels)
        for ax, panel in zip(axes, panels, strict=True):
            for k, line in enumerate(panel.lines):
                _draw_line(ax, line, k, floor)
            _title(ax, panel.title)
            _legend(ax, panel.legend)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            ax.set(xlabel="epoch", ylabel="test error (%)")
        _error_scale(axes, _extent(panels, floor))
        _key(figure, Patch(color="grey", alpha=0.3, label="95 % t-interval over seeds"))
    return figure


def _extent(panels: Sequence[Panel], floor: float) -> list[float]:
    lines = [line for panel in panels for line in panel.lines]
    return [float(np.maximum(value, floor)) for line in lines for value in line.mean]


def draw_sensitivity(panels: Sequence[Panel]) -> Figure:
    """Validation error against learning rate; bands span the seeds, the chosen rate is the large marker.

    Crosses above the data stand at rates where at least one seed diverged.
    """
    with _style():
        figure, axes = _grid(len(panels), 2, 2.25)
        floor = _floor(panels)
        for ax, panel in zip(axes, panels, strict=True):
            for k, line in enumerate(panel.lines):
                _draw_line(ax, line, k, floor)
                _mark(ax, line, k, floor)
            _title(ax, panel.title)
            _legend(ax, panel.legend)
            ax.set_xscale("log")
            _rate_ticks(ax, panel)
            ax.set(xlabel="learning rate", ylabel="validation error (%)")
        _error_scale(axes, _extent(panels, floor))
        _headroom(axes, panels)
        band = Patch(color="grey", alpha=0.3, label="range over seeds")
        chosen = Line2D([], [], ls="", marker="o", ms=8, mfc="white", mec="black", label="chosen rate")
        cross = Line2D([], [], ls="", marker="x", ms=5, mew=1.5, color="black", label="some seed diverged")
        _key(figure, band, chosen, cross)
    return figure


def _mark(ax: Axes, line: Line, k: int, floor: float) -> None:
    colour = sns.color_palette("colorblind")[k % 10]
    if line.chosen is not None:
        at = np.maximum(line.mean[line.x == line.chosen], floor)
        ax.plot(
            [line.chosen] * len(at), at, MARKERS[k % len(MARKERS)], ms=8, mfc=colour, mec="black", mew=0.8
        )
    if line.crosses:
        heights = [0.965 - 0.05 * k] * len(line.crosses)
        ax.plot(line.crosses, heights, "x", color=colour, ms=5, mew=1.5, transform=ax.get_xaxis_transform())


def _rate_ticks(ax: Axes, panel: Panel) -> None:
    rates = sorted({float(x) for line in panel.lines for x in line.x})
    ax.set_xlim(min(rates) / 1.6, max(rates) * 1.6)
    if len(rates) <= 7:
        ax.set_xticks(rates, [number(rate) for rate in rates])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_minor_locator(LogLocator(subs=()))
    else:
        _plain_log(ax.xaxis)


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
    """Test error of each level of each axis: left at its own best rate, right at the fixed one, if tuned.

    Points are means over seeds, bars 95 % t-intervals; the base level is filled. Axes in `inert` say so.
    """
    modes = list(dict.fromkeys(effects["at"]))
    parts = [
        (str(arm), str(axis), rows) for (arm, axis), rows in effects.groupby(["arm", "axis"], sort=False)
    ]
    heights = [0.45 + 0.24 * len(rows) / 2 for _, _, rows in parts]
    with _style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.8), layout="constrained")
        axes = figure.subplots(len(parts), len(modes), squeeze=False, sharex="col", height_ratios=heights)
        for row, (arm, axis, rows) in zip(axes, parts, strict=True):
            note = " (inert)" if (arm, axis) in inert else ""
            row[0].set_title(f"{study.arms[arm].label}: {name_label(axis)}{note}", loc="left")
            for k, (ax, at) in enumerate(zip(row, modes, strict=True)):
                _draw_levels(ax, rows[rows["at"] == at], _floor_of(effects["mean"]), k)
            for ax in row[1:]:
                ax.set_yticklabels([])
        for k, at in enumerate(modes):
            shown = effects[effects["at"] == at]
            _error_scale(
                list(axes[:, k]), [*shown["mean"], *shown["low"].clip(lower=0), *shown["high"]], along="x"
            )
            rate = {"best": " at its own best learning rate", "fixed": " at the fixed learning rate"}[at]
            axes[-1, k].set_xlabel("test error (%)" + (rate if len(modes) > 1 else ""))
    return figure


def _draw_levels(ax: Axes, rows: pd.DataFrame, floor: float, colour: int) -> None:
    mean = rows["mean"].to_numpy(dtype=float)
    below = mean - np.maximum(rows["low"].to_numpy(dtype=float), floor)
    above = rows["high"].to_numpy(dtype=float) - mean
    bars = np.nan_to_num(np.maximum([below, above], 0.0))
    places, tint = np.arange(len(rows)), sns.color_palette("colorblind")[colour]
    ax.errorbar(mean, places, xerr=bars, fmt="o", capsize=2.5, color=tint, mfc="white")
    base = rows["base"].to_numpy(dtype=bool)
    ax.plot(mean[base], places[base], "o", color=tint, zorder=4)
    names = [value_label(level) for level in rows["level"]]
    ax.set_yticks(places, [f"{name} (base)" if b else name for name, b in zip(names, base, strict=True)])
    ax.set_ylim(len(rows) - 0.5, -0.5)


def _floor_of(values: Any) -> float:
    """A positive stand-in for zero errors and negative interval ends on a logarithmic axis."""
    numbers = np.asarray(values, dtype=float)
    positive = numbers[numbers > 0]
    return float(positive.min()) / 2 if len(positive) else 1e-3


def draw_grids(grids: Sequence[Grid]) -> Figure:
    """Two crossed axes as heat maps of the test error: left at each cell's own best rate, right at the fixed.

    The small number under each error is the cell's learning rate.
    """
    heights = [0.75 + 0.45 * len(grid.best) for grid in grids]
    values = np.concatenate(
        [frame.to_numpy(dtype=float).ravel() for g in grids for frame in (g.best, g.fixed)]
    )
    values = values[np.isfinite(values)]
    low = _floor_of(values) * 2
    with _style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(grids), 2, squeeze=False, height_ratios=heights)
        for row, grid in zip(axes, grids, strict=True):
            _heat(
                row[0], f"{grid.title}\nown best learning rate", grid.best, grid.best_tunes, low, values.max()
            )
            _heat(row[1], "\nfixed learning rate", grid.fixed, grid.fixed_tunes, low, values.max())
            row[1].set_ylabel("")
        mesh = axes[0, 0].collections[0]
        bar = figure.colorbar(mesh, ax=axes, label="test error (%)", shrink=min(1.0, 2.0 / sum(heights)))
        _plain_log(bar.ax.yaxis)
    return figure


def _heat(ax: Axes, title: str, errors: pd.DataFrame, tunes: pd.DataFrame, low: float, high: float) -> None:
    text = errors.map(percent) + tunes.map(lambda tune: f"\n(rate {tune})" if tune else "")
    sns.heatmap(errors.clip(lower=low), ax=ax, annot=text, fmt="", cmap="cividis_r", cbar=False, linewidths=1,
                norm=LogNorm(low, max(high, 1.5 * low)), annot_kws={"fontsize": 8})  # fmt: skip
    ax.set_title(title, loc="left")
    ax.tick_params(left=False, bottom=False)
    ax.tick_params(axis="y", rotation=0)


def draw_layers(traces: Sequence[LayerTraces]) -> Figure:
    """Effective step of each arm, then input power and step scale of the first; lines are layers."""
    wanted = [(trace, "effective_step") for trace in traces]
    wanted += [(traces[0], quantity) for quantity in ("input_power", "step_scale")]
    wanted = [(trace, quantity) for trace, quantity in wanted if (trace.frame["quantity"] == quantity).any()]
    with _style():
        figure, axes = _grid(len(wanted), 2, 2.3)
        for ax, (trace, quantity) in zip(axes, wanted, strict=True):
            _draw_trace(ax, trace, quantity)
        steps = [ax for ax, (_, quantity) in zip(axes, wanted, strict=True) if quantity == "effective_step"]
        _share_limits(steps)
        for ax in axes:
            _plain_log(ax.yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, title="layer (input first)", loc="outside upper center",
                      ncols=min(4, len(labels)))  # fmt: skip
    return figure


QUANTITIES = {
    "effective_step": "effective step ‖Δθ‖ / ‖g‖",
    "input_power": "input power P",
    "step_scale": "step scale 1 / f(P)",
}
LAYER_LINES = 8


def shown_layers(frame: pd.DataFrame) -> list[str]:
    """The layers to draw: all if few, else eight spread evenly from first to last."""
    names = list(dict.fromkeys(frame["parameter"]))
    if len(names) <= LAYER_LINES:
        return names
    return [names[k] for k in np.linspace(0, len(names) - 1, LAYER_LINES).round().astype(int)]


def _draw_trace(ax: Axes, trace: LayerTraces, quantity: str) -> None:
    rows = trace.frame[trace.frame["quantity"] == quantity]
    names = shown_layers(trace.frame)
    few = len(names) <= len(MARKERS)
    colours = sns.color_palette("colorblind") if few else sns.color_palette("viridis", len(names))
    for k, name in enumerate(names):
        part = rows[rows["parameter"] == name].sort_values("step")
        look = {"color": colours[k], "marker": MARKERS[k % len(MARKERS)], "markevery": max(1, len(part) // 6)}
        ax.plot(part["step"], part["value"], label=name.removesuffix(".weight"), linewidth=1.2, **look)
    _title(ax, trace.label, 42)
    ax.set(xlabel="optimizer step", ylabel=QUANTITIES[quantity], yscale="log")


def _share_limits(axes: Sequence[Axes]) -> None:
    if axes:
        limits = np.array([ax.get_ylim() for ax in axes])
        for ax in axes:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
