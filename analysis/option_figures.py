"""Figures of options: shares of variance, importances in random grids, interactions, what tuning costs.

    figure = draw_shares(shares_of(study, choices))

Colours, sizes and saving: `canvas`.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from insgd_lab.analysis.canvas import WIDTH, fit_means, key_below, plain_log, set_title, side_legend, style, subplots
from insgd_lab.analysis.measures import MEASURES, Measure
from insgd_lab.analysis.option_series import Importances, InteractionMap, Shares
from insgd_lab.analysis.series import Line, Panel
from insgd_lab.analysis.training_figures import draw_line

__all__ = ["draw_budgets", "draw_importances", "draw_interactions", "draw_shares"]


def draw_shares(parts: Sequence[Shares]) -> Figure:
    """Bars of the share of variance that each option and pair explains, as found and without what noise gives.

    Grey is what only seeds do.
    """
    rows = [parts[k : k + 2] for k in range(0, len(parts), 2)]
    heights = [0.6 + 0.2 * max(len(part.frame) for part in row) for row in rows]
    palette = sns.color_palette("colorblind")
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
        axes = figure.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
        for pair, row in zip(axes, rows, strict=True):
            for ax, part in zip(pair, row, strict=False):
                _draw_bars(ax, part, max(len(each.frame) for each in row))
        used, unused = axes.flat[: len(parts)], axes.flat[len(parts) :]
        for ax in unused:
            ax.remove()
        for ax in used[-2:]:
            ax.set_xlabel("share of the variance (%)")
        marks = {
            "as found (η²)": (palette[0], _PALE),
            "without noise (ω²)": (palette[0], 1.0),
            "seeds": (palette[7], _PALE),
        }
        key_below(figure, *(Patch(color=tint, alpha=alpha, label=label) for label, (tint, alpha) in marks.items()))
    return figure


_PALE = 0.4


def _draw_bars(ax: Axes, part: Shares, most: int) -> None:
    """The bars of one arm, as thick as where there are `most`; numbers as found, and in brackets without noise."""
    palette = sns.color_palette("colorblind")
    places = range(len(part.frame))
    shares, corrected = (part.frame[name].to_numpy(dtype=float) for name in ("share", "corrected"))
    colours = [palette[7] if seeds else palette[0] for seeds in part.frame["seeds"]]
    ax.barh(places, shares, color=colours, height=0.7, alpha=_PALE)
    own = ~part.frame["seeds"].to_numpy(dtype=bool)
    ax.barh(np.arange(len(shares))[own], np.nan_to_num(np.maximum(corrected, 0.0))[own], color=palette[0], height=0.35)
    for place, share, without, effect in zip(places, shares, corrected, own, strict=True):
        text = _share_text(share) + (f" ({_share_text(max(without, 0.0))})" if effect and np.isfinite(without) else "")
        ax.text(share + 1.5, place, text, va="center", fontsize=8)
    ax.set_yticks(places, part.frame["effect"])
    ax.set(xlim=(0, 125), ylim=(most - 0.4, -0.6), xticks=range(0, 101, 25))
    ax.grid(False, axis="y")
    set_title(ax, f"{part.arm}{f', at {part.at}' if part.at else ''}", 33)


def _share_text(share: float) -> str:
    return "< 0.1" if 0 < share < 0.05 else f"{share:.1f}"


# ------------------------------------------------------------------------------------------------ random grids


def draw_importances(parts: Sequence[Importances]) -> Figure:
    """How much worse forests predict without each option: points with 95 % t-intervals, a panel an arm."""
    heights = [0.55 + 0.22 * len(part.frame) for part in parts]
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, part in zip(axes, parts, strict=True):
            places = np.arange(len(part.frame))
            mean, low, high = part.frame[["importance", "low", "high"]].to_numpy(dtype=float).T
            colour = sns.color_palette("colorblind")[0]
            ax.hlines(places, low, high, color=colour)
            ax.plot(mean, places, "o", color=colour)
            ax.axvline(0.0, color="dimgrey", linewidth=0.8)
            ax.set_yticks(places, part.frame["option"])
            ax.set(ylim=(len(places) - 0.5, -0.5))
            ax.grid(False, axis="y")
            set_title(ax, f"{part.arm}: R² = {part.r_squared:.2f} over {part.settings} settings", 90)
        axes[-1].set_xlabel(f"growth of the mean absolute error, in {parts[0].unit}")
    return figure


# ------------------------------------------------------------------------------------------------ interactions


def draw_interactions(maps: Sequence[InteractionMap], measure: Measure = MEASURES["test_error"]) -> Figure:
    """Differences of differences as heat maps with their intervals; those told apart from 0 are bold.

    Args:
        maps: of `option_series.interaction_maps`.
        measure: what they are differences of.
    """
    rows = [maps[k : k + 2] for k in range(0, len(maps), 2)]
    heights = [0.9 + max(0.9, 0.4 * max(len(one.tables["interaction"]) for one in row)) for row in rows]
    reach = max(float(np.abs(one.tables["interaction"].to_numpy(dtype=float)).max()) for one in maps) or 1.0
    with style():
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
        for ax, one in zip(axes.flat, maps, strict=False):
            _draw_map(ax, one, reach, measure)
        for ax in axes.flat[len(maps) :]:
            ax.remove()
    return figure


def _draw_map(ax: Axes, one: InteractionMap, reach: float, measure: Measure) -> None:
    names = ("interaction", "low", "high", "p_holm")
    mean, low, high, p = (one.tables[name].to_numpy(dtype=float) for name in names)
    sns.heatmap(one.tables["interaction"], ax=ax, cmap="vlag", vmin=-reach, vmax=reach, cbar=False, linewidths=1)
    for i, j in np.ndindex(*mean.shape):
        value, low_end, high_end = (float(table[i, j]) for table in (mean, low, high))
        bold = "bold" if p[i, j] < 0.05 else "normal"
        span = f"\n({measure.signed(low_end)} to {measure.signed(high_end)})" if np.isfinite(low_end) else ""
        colour = "white" if abs(value) > 0.8 * reach else "black"
        ax.text(j + 0.5, i + 0.5, measure.signed(value) + span, ha="center", va="center", fontsize=8,
                fontweight=bold, color=colour)  # fmt: skip
    ax.set(xlabel=one.second, ylabel="\n".join(textwrap.wrap(one.first, 22)))
    ax.tick_params(left=False, bottom=False)
    ax.tick_params(axis="y", rotation=0)
    set_title(ax, one.title, 44)


# ------------------------------------------------------------------------------------------------ tuning


def draw_budgets(panels: Sequence[Panel], metric: str) -> Figure:
    """The expected score against the number of settings tried, with bands from drawing settings again.

    Args:
        panels: of `option_series.budget_panels`.
        metric: what is expected, in words with its unit.
    """
    with style():
        figure, axes = subplots(len(panels), 1, 2.6)
        for ax, panel in zip(axes, panels, strict=True):
            for k, line in enumerate(panel.lines):
                draw_line(ax, _bounded(line), k)
            _fit_budgets(ax, panel)
            most = max(float(line.x.max()) for line in panel.lines)
            if most > 12:
                ax.set(xscale="log", xlim=(0.9, 1.1 * most))
                plain_log(ax.xaxis)
            else:
                ax.set_xlim(0.75, most + 0.25)  # from 1 on, also where the first scores are infinite
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set(xlabel="settings tried", ylabel=f"expected {metric}")
            side_legend(ax, panel.legend, 24)
    return figure


def _bounded(line: Line) -> Line:
    """The line with its band only where that has an upper end: bands without one would fill the panel."""
    known = np.isfinite(line.high)
    return dataclasses.replace(line, low=np.where(known, line.low, np.nan), high=np.where(known, line.high, np.nan))


def _fit_budgets(ax: Axes, panel: Panel) -> None:
    """Fit the axis to the means, and to bands as far as twice that beyond; logarithmic where these span much."""
    fit_means(ax, [line.mean for line in panel.lines])
    ends = np.concatenate([part for line in map(_bounded, panel.lines) for part in (line.low, line.high)])
    ends = ends[np.isfinite(ends) & (ends > 0)]
    low, high = ax.get_ylim()
    if low <= 0 or not len(ends):
        return
    if ax.get_yscale() == "log" or ends.max() > 8 * ends.min():
        reach = max((high / low) ** 2, 10.0)
        bottom, top = max(min(low, ends.min() / 1.2), low / reach), min(max(high, 1.2 * ends.max()), high * reach)
        ax.set(yscale="log", ylim=(bottom, top))
        plain_log(ax.yaxis)
