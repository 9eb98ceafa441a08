"""Figures of training: losses and errors by epoch, and the share of runs that have reached a target.

    figure = draw_training(training_panels(study, choices))

Colours, sizes and saving: `canvas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from insgd_lab.analysis.canvas import MARKERS, WIDTH, fit_means, side_legend, step_line, style, subplots
from insgd_lab.analysis.labels import number
from insgd_lab.analysis.series import LINES, Line, Panel
from insgd_lab.analysis.training_series import Arrival, Arrivals

__all__ = ["draw_arrivals", "draw_line", "draw_training"]


def draw_training(rows: Sequence[Sequence[Panel]]) -> Figure:
    """Losses and errors against epoch, a column a quantity; bands are 95 % t-intervals over seeds."""
    keys = [_key_columns(panels[0]) for panels in rows]
    heights = [2.2 + 0.17 * -(-len(panels[0].lines) // key) for panels, key in zip(rows, keys, strict=True)]
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, panels, key in zip(parts, rows, keys, strict=True):
            axes = part.subplots(1, len(panels), squeeze=False)[0]
            for column, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
                for k, line in enumerate(panel.lines):
                    draw_line(ax, line, k)
                fit_means(ax, [line.mean for row in rows for line in row[column].lines])
                ax.set(xlabel="epoch", ylabel=panel.title)
                ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            part.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=key)
    return figure


def _key_columns(panel: Panel) -> int:
    """How many labels of the legend fit beside each other."""
    return max(1, min(3, 118 // (max(len(line.label) for line in panel.lines) + 7)))


def draw_line(ax: Axes, line: Line, k: int) -> None:
    """The k-th line of a panel with its band, in a colour and with a marker of its own."""
    colour = sns.color_palette("colorblind")[k % 10]
    every: dict[str, Any] = {"marker": MARKERS[k % len(MARKERS)], "markevery": max(1, len(line.x) // 8)}
    ax.plot(line.x, line.mean, color=colour, label=line.label, **every)
    if np.isfinite(line.low).any():
        known = line.high[np.isfinite(line.high)]
        high = np.minimum(line.high, 100 * known.max(initial=1.0))  # of a run that diverged, off the axis
        ax.fill_between(line.x, line.low, high, color=colour, alpha=0.16, linewidth=0)


# ------------------------------------------------------------------------------------------------ targets


def draw_arrivals(found: Arrivals) -> Figure:
    """The share of runs that have reached the target by epoch, with 95 % bands; a panel for every six arms."""
    chunks = [found.arms[k : k + LINES] for k in range(0, len(found.arms), LINES)]
    with style():
        figure, axes = subplots(len(chunks), 1, 2.6)
        for ax, arms in zip(axes, chunks, strict=True):
            for k, arm in enumerate(arms):
                _draw_arrival(ax, arm, k, len(arms))
            ax.set(xlabel="epoch", ylabel="runs there (%)", ylim=(-4, 104), xlim=(0, None))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
            side_legend(ax, "arm, runs there", 32)
    return figure


def _draw_arrival(ax: Axes, arm: Arrival, k: int, count: int) -> None:
    """Steps from nobody at epoch 0 on."""
    x = np.array([0.0, *arm.curve.times, arm.last])
    shares = [np.array([0.0, *part, part[-1]]) for part in (arm.curve.reached, arm.curve.low, arm.curve.high)]
    share, low, high = (100 * part for part in shares)
    label = f"{arm.label}\n{arm.curve.events} of {arm.curve.runs}, median epoch {number(arm.curve.median)}"
    look = step_line(k, count)
    ax.step(x, share, where="post", label=label, **look)
    ax.fill_between(x, low, high, step="post", color=look["color"], alpha=0.1, linewidth=0)
