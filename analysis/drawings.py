"""The figures of a report, with what is said about them.

    for drawing in drawings(study, choices, effects, inert):
        drawing.name, drawing.figure, drawing.alt, drawing.caption

A figure that has nothing to show is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from insgd_lab.analysis import figures, series
from insgd_lab.analysis.effects import Inert
from insgd_lab.analysis.labels import name_label, percent
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choice

__all__ = ["Drawing", "drawings"]

Choices = Mapping[tuple[str, str], Choice]

CAPTIONS = {
    "curves": """
        Test error after each epoch{best}; lines are means over seeds, bands 95 % t-intervals of the mean. A
        diverged run counts with the error of guessing from then on.""",
    "main-effects": """
        Final test error of each level{sides}. Points are means over seeds, bars 95 % t-intervals; the filled
        point is the base level. In an arm crossed in full a level is averaged over the other axes.""",
    "grids": """
        Final test error (%) in every cell of the crossed axes, mean over seeds, with its learning rate.""",
    "sensitivity": """
        Final validation error against the learning rate: mean over seeds, band from the lowest to the
        highest seed. The large marker is the chosen rate. A cross at the top says that at least one seed
        diverged there; it counts with the error of guessing.""",
    "layers": """
        Per-layer records of the base cells at their chosen learning rates, mean over the seeds that trained
        to the end. The effective step is ‖Δθ‖/‖g‖, the length of the parameter's change over that of its
        gradient; with momentum it is a ratio of lengths, not a gain. Weights only: biases and norm layers
        have no input power.""",
}


@dataclass(frozen=True)
class Drawing:
    """A figure with `alt`, for those who cannot see it, and a caption for all."""

    name: str
    figure: Figure
    alt: str
    caption: str


def drawings(study: Study, choices: Choices, effects: pd.DataFrame, inert: Sequence[Inert]) -> Iterator[Drawing]:
    """Draw every figure that the study's runs allow."""
    for name, figure, alt in _drawn(study, choices, effects, inert):
        yield Drawing(name, figure, alt, _caption(study, name))


def _caption(study: Study, name: str) -> str:
    best = ", at each cell's own best learning rate" if study.tuned else ""
    sides = ": left at the level's own best learning rate, right at the fixed one" if study.tuned else ""
    return " ".join(CAPTIONS[name].format(best=best, sides=sides).split())


def _drawn(
    study: Study, choices: Choices, effects: pd.DataFrame, inert: Sequence[Inert]
) -> Iterator[tuple[str, Figure, str]]:
    curves = series.error_curves(study, choices)
    if curves:
        alt = f"Test error against epoch. {_panels(curves)} The last values are in the results table."
        yield "curves", figures.draw_curves(curves), alt
    known = effects[effects["mean"].notna()]
    if len(known):
        whole = [(one.arm, one.axis) for one in inert if one.whole]
        yield "main-effects", figures.draw_effects(study, known, whole), _effects_alt(study, known)
    grids = [grid for grid in series.grids(study, choices) if grid.best.notna().any(axis=None)]
    if grids:
        yield "grids", figures.draw_grids(grids), _grids_alt(grids)
    rates = series.sensitivity(study, choices)
    if rates:
        alt = f"Validation error against learning rate. {_panels(rates)}"
        yield "sensitivity", figures.draw_sensitivity(rates), alt
    traces = series.layer_traces(study, choices)
    if traces:
        yield "layers", figures.draw_layers(traces), _layers_alt(traces)


def _panels(panels: Sequence[series.Panel]) -> str:
    titles = "; ".join(f"{panel.title} ({', '.join(line.label for line in panel.lines)})" for panel in panels)
    return f"{len(panels)} panels: {titles}."


def _effects_alt(study: Study, effects: pd.DataFrame) -> str:
    pairs = zip(effects["arm"], effects["axis"], strict=True)
    how = ", at its own best learning rate and at the fixed one" if study.tuned else ""
    axes = dict.fromkeys(f"{name_label(axis)} ({study.arms[arm].label})" for arm, axis in pairs)
    return (
        f"Final test error of every level of every ablated axis with 95 % intervals{how}, for "
        f"{', '.join(axes)}. The numbers are in the table of main effects."
    )


def _grids_alt(grids: Sequence[series.Grid]) -> str:
    return " ".join(f"{_grid_alt(g, g.best, 'own best')} {_grid_alt(g, g.fixed, 'fixed')}" for g in grids)


def _grid_alt(grid: series.Grid, errors: pd.DataFrame, rate: str) -> str:
    cells = [f"{a} and {b} {percent(errors.loc[a, b])}" for a in errors.index for b in errors.columns]
    names = f"{errors.index.name} and {errors.columns.name}"
    return f"{grid.title}, final test error (%) by {names} at the {rate} learning rate: {', '.join(cells)}."


def _layers_alt(traces: Sequence[series.LayerTraces]) -> str:
    arms = " and ".join(trace.label for trace in traces)
    layers = ", ".join(figures.shown_layers(traces[0].frame))
    return f"Effective step, input power and step scale over training of {arms}, for the layers {layers}."
