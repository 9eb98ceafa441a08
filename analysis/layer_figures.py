"""Figures of what layers did: traces, heat maps, speeds beside SGD, gradient norms.

    figure = draw_layers(shown_traces(layer_traces(layer_records(study, choices))))

Colours, sizes and saving: `canvas`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from insgd_lab.analysis.canvas import MARKERS, WIDTH, plain_log, set_title, share_limits, style, subplots
from insgd_lab.analysis.layers import LayerTraces, heat_maps

__all__ = ["draw_gradient_norms", "draw_heat_maps", "draw_layers", "draw_speeds", "shown_layers"]


def draw_layers(traces: Sequence[LayerTraces]) -> Figure:
    """Effective step of each arm, then input power and step scale of those that read their inputs; lines are layers."""
    reading = [trace for trace in traces if trace.has("input_power")]
    wanted = [(trace, "effective_step") for trace in traces if trace.has("effective_step")]
    wanted += [(t, quantity) for quantity in ("input_power", "step_scale") for t in reading if t.has(quantity)]
    names = shown_layers(traces)
    with style():
        figure, axes = subplots(len(wanted), 2, 2.5)
        for ax, (trace, quantity) in zip(axes, wanted, strict=True):
            _draw_trace(ax, trace, quantity, names)
        for quantity in QUANTITIES:
            share_limits([ax for ax, (_, drawn) in zip(axes, wanted, strict=True) if drawn == quantity])
        for ax in axes:
            plain_log(ax.yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        columns = max(1, min(4, len(labels), 110 // (max(map(len, labels)) + 6)))
        figure.legend(handles, labels, title="parameter, input side first", loc="outside upper center", ncols=columns)
    return figure


QUANTITIES = {
    "effective_step": "effective step ‖Δθ‖ / ‖g‖",
    "input_power": "input power P",
    "step_scale": "step scale 1 / f(P)",
    "norm_gain": "norm gain max(1, e / ‖g‖)",
}
LAYER_LINES = 8


def shown_layers(traces: Sequence[LayerTraces]) -> list[str]:
    """The layers to draw: all if few, else eight spread evenly from first to last."""
    names = list(dict.fromkeys(name for trace in traces for name in trace.frame["parameter"].unique()))
    if len(names) <= LAYER_LINES:
        return names
    return [names[k] for k in np.linspace(0, len(names) - 1, LAYER_LINES).round().astype(int)]


def _draw_trace(ax: Axes, trace: LayerTraces, quantity: str, names: Sequence[str]) -> None:
    rows = trace.frame[trace.frame["quantity"] == quantity]
    few = len(names) <= len(MARKERS)
    colours = sns.color_palette("colorblind") if few else sns.color_palette("viridis", len(names))
    for k, name in enumerate(names):
        part = rows[rows["parameter"] == name].sort_values("step")
        look = {"color": colours[k], "marker": MARKERS[k % len(MARKERS)], "markevery": max(1, len(part) // 6)}
        ax.plot(part["step"], part["value"], label=name, linewidth=1.2, **look)
    set_title(ax, trace.label, 40)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set(xlabel="optimizer step", ylabel=QUANTITIES[quantity], yscale="log")


def draw_heat_maps(traces: Sequence[LayerTraces]) -> Figure:
    """Each quantity of each arm as a heat map: layers from the input side down, the training from left to right."""
    maps = [(trace, heat_maps(trace)) for trace in traces]
    shown = [(trace, name, tables[name]) for name in QUANTITIES for trace, tables in maps if name in tables]
    heights = [0.55 + max(0.8, 0.17 * len(table)) for _, _, table in shown]  # a colour bar needs room for its ticks
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
        axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (trace, name, table) in zip(axes, shown, strict=True):
            _heat(figure, ax, table, QUANTITIES[name], [tables[name] for _, tables in maps if name in tables])
            set_title(ax, trace.label, 90)
        axes[-1].set_xlabel("optimizer step, the last of each part")
    return figure


def _heat(figure: Figure, ax: Axes, table: pd.DataFrame, quantity: str, alike: Sequence[pd.DataFrame]) -> None:
    """One map; the colours are those of all maps of the quantity."""
    values = np.concatenate([each.to_numpy().ravel() for each in alike])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    scale = LogNorm(low / 1.05, high * 1.05) if low < high else LogNorm(low / 2, high * 2)
    every = max(1, len(table.columns) // 8)
    sns.heatmap(table, ax=ax, cmap="cividis", norm=scale, cbar=False, yticklabels=True, xticklabels=every)
    bar = figure.colorbar(ax.collections[0], ax=ax, label="\n".join(quantity.split(" ", 2)[:2]), pad=0.01)
    plain_log(bar.ax.yaxis, 0.7 if len(table) < 8 else 2.5, marks=True)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(left=False, bottom=False)
    ax.tick_params(axis="both", rotation=0)


def draw_speeds(speeds: pd.DataFrame) -> Figure:
    """Each layer's effective step over the same layer's under SGD: left as it is, right over its mean over layers.

    Of one layer alone there is no right side, since it is its own mean. Points are geometric means over seeds, bars
    95 % t-intervals.
    """
    names, arms = list(speeds["parameter"].unique()), list(speeds["label"].unique())
    ratio = f"effective step / that of {speeds['reference'].iloc[0]}"
    sides = {ratio: ("ratio", "low", "high"), "the same / its mean over layers": _RELATIVE}
    shown = list(sides.items())[: 2 if len(names) > 1 else 1]
    with style():
        height = 0.9 + (0.12 + 0.1 * len(arms)) * len(names) + 0.2 * len(arms)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, (label, columns) in zip(axes, shown, strict=True):
            for k, arm in enumerate(arms):
                rows = speeds[speeds["label"] == arm].set_index("parameter").reindex(names)
                _draw_speeds(ax, rows[list(columns)].to_numpy(dtype=float), k, len(arms), arm)
            ax.axvline(1.0, color="dimgrey", linewidth=0.8)
            ax.set(xscale="log", xlabel=label, ylim=(len(names) - 0.5, -0.5))
            ax.set_yticks(range(len(names)), names)
            plain_log(ax.xaxis, room=1.2)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=1 if max(map(len, labels)) > 40 else 2)
    return figure


_RELATIVE = ("relative", "relative_low", "relative_high")


def _draw_speeds(ax: Axes, values: np.ndarray, k: int, count: int, label: str) -> None:
    """One arm's points and bars; `values` are mean, low and high of each layer."""
    places = np.arange(len(values)) + (k - (count - 1) / 2) * 0.7 / count
    colour, marker = sns.color_palette("colorblind")[k % 10], MARKERS[k % len(MARKERS)]
    ax.hlines(places, values[:, 1], values[:, 2], color=colour, linewidth=1.2)
    ax.plot(values[:, 0], places, marker, color=colour, label=label)


def draw_gradient_norms(norms: pd.DataFrame) -> Figure:
    """The norm of the whole gradient by step, an arm a line, with 95 % t-intervals over seeds."""
    with style():
        figure, (ax,) = subplots(1, 1, 3.0)
        for k, (label, rows) in enumerate(norms.groupby("label", sort=False)):
            colour, every = sns.color_palette("colorblind")[k % 10], max(1, len(rows) // 8)
            look = {"color": colour, "marker": MARKERS[k % len(MARKERS)], "markevery": every}
            ax.plot(rows["step"], rows["mean"], label=label, linewidth=1.2, **look)
            ax.fill_between(rows["step"], rows["low"], rows["high"], color=colour, alpha=0.16, linewidth=0)
        ax.set(xlabel="optimizer step", ylabel="norm of the gradient, all layers", yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        plain_log(ax.yaxis)
        figure.legend(loc="outside upper center", ncols=1 if norms["label"].str.len().max() > 40 else 2)
    return figure
