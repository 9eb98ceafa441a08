"""The figures of a report, with what is said about them.

    for drawing in drawings(study, choices, effects, inert, records):
        drawing.name, drawing.figure, drawing.alt, drawing.caption

A figure that has nothing to show is left out.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from insgd_lab.analysis import figures, layer_figures, layers, series
from insgd_lab.analysis.effects import Inert, level_notes
from insgd_lab.analysis.labels import name_label, number
from insgd_lab.analysis.measures import Measure, chosen_by, reported
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, tuned_name

__all__ = ["Drawing", "drawings", "embedded"]


CAPTIONS = {
    "curves": """
        {Noun} after each epoch{best}; {lines}.""",
    "main-effects": """
        Final {noun} of each level{sides}. {points}; the filled point is the base level. In an arm crossed in full a
        level is averaged over the other axes.""",
    "grids": """
        Final {label} in every cell of the crossed axes, {middle} over seeds{brackets}.""",
    "sensitivity": """
        Final {chosen_by} against the learning rate: {middle} over seeds, band from the lowest to the highest seed.""",
    "layers": """
        Per-layer records of the base cells (of an arm without one, its first){chosen}, mean over the seeds that
        trained to the end. The effective step is ‖Δθ‖/‖g‖, the length of the parameter's change over that of its
        gradient; with momentum it is a ratio of lengths, not a gain. The input power is what an arm that reads its
        inputs measured at the layer.""",
    "layer-maps": """
        The same records as heat maps, layers from the input side down: each field is the geometric mean over a part of
        the training and over the seeds that trained to the end. Colours are on a logarithmic scale.""",
    "layer-speeds": """
        How far each layer's parameters move a step for their gradient, beside the same layer under SGD{chosen}:
        geometric means over the steps that both recorded, paired by seed, with 95 % t-intervals.""",
    "gradient-norms": """
        Norm of the gradient of all layers together{chosen}: geometric means over the seeds that trained to the end,
        bands 95 % t-intervals.""",
}
SCORES = {
    True: {
        "middle": "mean",
        "lines": "lines are means over seeds, bands 95 % t-intervals of the mean. A diverged run counts with the error "
        "of guessing from then on",
        "points": "Points are means over seeds, bars 95 % t-intervals",
    },
    False: {
        "middle": "median",
        "lines": "lines are medians over seeds, bands reach from the lowest to the highest. A diverged run counts as "
        "infinitely bad from then on, and a line ends where half of the runs have diverged",
        "points": "Points are medians over seeds, bars reach from the lowest to the highest, those of diverged runs, "
        "which count as infinitely bad, off the axis",
    },
}
"""What captions say of errors, and of losses, of which a mean over diverged runs does not exist."""
TUNED = {
    "best": ", at each cell's own best {tuned} (after the colon in the legend)",
    "sides": ": left at the level's own best {tuned}, right at the fixed one",
    "brackets": "; in brackets under it its {tuned}, where one was tuned",
    "chosen": " at their own best {tuned}",
}
"""What captions say besides where something was tuned."""


@dataclass(frozen=True)
class Drawing:
    """A figure with `alt`, for those who cannot see it, and a caption for all."""

    name: str
    figure: Figure
    alt: str
    caption: str


def drawings(
    study: Study,
    choices: Choices,
    effects: pd.DataFrame,
    inert: Sequence[Inert],
    records: Sequence[layers.LayerRecords],
) -> Iterator[Drawing]:
    """Draw every figure that the study's runs allow."""
    parts = itertools.chain(_drawn(study, choices, effects, inert), _drawn_layers(records))
    for name, figure, alt, note in parts:
        yield Drawing(name, figure, alt, " ".join(f"{_caption(study, name)} {note}".split()))


def embedded(drawing: Drawing, saved: dict[str, Path]) -> dict[str, Any]:
    """The smaller of SVG and PNG as a data URI; its size on the page is the figure's own, in CSS pixels."""
    kinds = {"svg": "image/svg+xml", "png": "image/png"}
    form = min(kinds, key=lambda kind: saved[kind].stat().st_size)
    data = base64.b64encode(saved[form].read_bytes()).decode("ascii")
    width, height = (round(96 * inches) for inches in drawing.figure.get_size_inches())
    return {
        "name": drawing.name,
        "uri": f"data:{kinds[form]};base64,{data}",
        "alt": drawing.alt,
        "caption": drawing.caption,
        "width": width,
        "height": height,
    }


def _caption(study: Study, name: str) -> str:
    tuned = tuned_name(study)
    parts = {part: text.format(tuned=tuned) if study.tuned else "" for part, text in TUNED.items()}
    measure = reported(study)
    words = {"noun": measure.noun, "Noun": measure.noun.capitalize(), "label": measure.label}
    return CAPTIONS[name].format(**parts, **words, **SCORES[measure.is_error], chosen_by=chosen_by(study).noun)


def _drawn(
    study: Study, choices: Choices, effects: pd.DataFrame, inert: Sequence[Inert]
) -> Iterator[tuple[str, Figure, str, str]]:
    measure, chooser = reported(study), chosen_by(study)
    noun = measure.noun.capitalize()
    curves = series.test_curves(study, choices)
    if curves:
        alt = f"{noun} against epoch. {_panels(curves)} The last values are in the results table."
        yield "curves", figures.draw_curves(curves, measure), alt, ""
    known = effects[effects["median"].notna()]
    if len(known):
        whole = [(one.arm, one.axis) for one in inert if one.whole]
        alt, note = _effects_alt(study, known), _effects_note(study, known)
        yield "main-effects", figures.draw_effects(study, known, whole), alt, note
    grids = [grid for grid in series.grids(study, choices) if grid.best.notna().any(axis=None)]
    if grids:
        yield "grids", figures.draw_grids(grids, measure), _grids_alt(measure, grids), ""
    rates = series.sensitivity(study, choices)
    if rates:
        alt = f"{chooser.noun.capitalize()} against learning rate. {_panels(rates)}"
        yield "sensitivity", figures.draw_sensitivity(rates, chooser), alt, _marks_note(chooser, rates)


def _drawn_layers(records: Sequence[layers.LayerRecords]) -> Iterator[tuple[str, Figure, str, str]]:
    recorded = layers.layer_traces(records)
    if not recorded:
        return
    traces = layers.shown_traces(recorded)
    yield "layers", layer_figures.draw_layers(traces), _layers_alt(traces), _layers_note(recorded, traces)
    note = _layers_note(recorded, traces, few=False)
    yield "layer-maps", layer_figures.draw_heat_maps(traces), _maps_alt(traces), note
    speeds = layers.speeds(records)
    if len(speeds):
        yield "layer-speeds", layer_figures.draw_speeds(speeds), _speeds_alt(speeds), _speeds_note(speeds)
    norms = layers.gradient_norms(records)
    if len(norms):
        alt = f"Norm of the whole gradient over training of {', '.join(norms['label'].unique())}."
        yield "gradient-norms", layer_figures.draw_gradient_norms(norms), alt, ""


def _panels(panels: Sequence[series.Panel]) -> str:
    titles = "; ".join(f"{panel.title} ({', '.join(line.label for line in panel.lines)})" for panel in panels)
    return f"{len(panels)} panel{'' if len(panels) == 1 else 's'}: {titles}."


def _marks_note(measure: Measure, panels: Sequence[series.Panel]) -> str:
    """What the marks mean that are there."""
    lines = [line for panel in panels for line in panel.lines]
    notes = [_CHOSEN[measure.is_error]] if any(line.chosen is not None for line in lines) else []
    if any(line.crosses for line in lines):
        cross = "A cross at the top says that at least one seed diverged there"
        counts = "with the error of guessing" if measure.is_error else "as infinitely bad"
        notes.append(f"{cross}; it counts {counts}.")
    return " ".join(notes)


_CHOSEN = {
    True: "The large marker is the chosen rate.",
    False: "The large marker is the chosen rate, which has the lowest mean over seeds, of the rates at which the most "
    "seeds finished: its median, which is drawn, need not be the lowest.",
}


def _effects_alt(study: Study, effects: pd.DataFrame) -> str:
    pairs = zip(effects["arm"], effects["axis"], strict=True)
    how = f", at its own best {tuned_name(study)} and at the fixed one" if study.tuned else ""
    axes = dict.fromkeys(f"{name_label(axis)} ({study.arms[arm].label})" for arm, axis in pairs)
    return (
        f"Final {reported(study).noun} of every level of every ablated axis with its spread over seeds{how}, for "
        f"{', '.join(axes)}. The numbers are in the table of main effects."
    )


def _effects_note(study: Study, known: pd.DataFrame) -> str:
    """Over which cells levels are averaged; and where axes of errors cut off t-intervals, which know no 0."""
    shown = "low" if reported(study).is_error else "lowest"
    cut = ["Bars that would reach below 0 % are cut off there."] if (known[shown] < 0).any() else []
    spans = figures.effect_spans(reported(study), known)
    own = len(set(spans.values())) > 1
    apart = ["The two sides have axes of their own, for one spans far more than the other."] if own else []
    return " ".join([*cut, *apart, *level_notes(study)])


def _grids_alt(measure: Measure, grids: Sequence[series.Grid]) -> str:
    return " ".join(_grid_alt(measure, grid, where, errors) for grid in grids for where, errors, _ in grid.maps)


def _grid_alt(measure: Measure, grid: series.Grid, where: str, errors: pd.DataFrame) -> str:
    cells = [f"{a} and {b} {measure.text(errors.loc[a, b])}" for a in errors.index for b in errors.columns]
    names = f"{errors.index.name} and {errors.columns.name}" + (f" at the {where}" if where else "")
    return f"{grid.title}, final {measure.label} by {names}: {', '.join(cells)}."


def _layers_alt(traces: Sequence[layers.LayerTraces]) -> str:
    arms = " and ".join(trace.label for trace in traces)
    reading = " and ".join(trace.label for trace in traces if trace.has("input_power"))
    more = f", input power and step scale of {reading}" if reading else ""
    return (
        f"Effective step over training of {arms}{more}, for the layers {', '.join(layer_figures.shown_layers(traces))}."
    )


def _maps_alt(traces: Sequence[layers.LayerTraces]) -> str:
    maps = (f"{trace.label}: {', '.join(map(name_label, layers.heat_maps(trace)))}" for trace in traces)
    return f"Heat maps by layer and time. {'; '.join(maps)}."


def _speeds_note(speeds: pd.DataFrame) -> str:
    """What the right side shows, which one layer alone has not."""
    if speeds["parameter"].nunique() < 2:
        return ""
    return (
        "On the right each ratio is divided by its mean over the layers, which takes out what one learning rate for "
        "all would do: right of 1 a layer is sped up beside the others, left of it slowed down."
    )


def _speeds_alt(speeds: pd.DataFrame) -> str:
    columns = zip(speeds["parameter"], speeds["label"], speeds["ratio"], strict=True)
    each = (f"{parameter} of {label} {number(ratio)} times" for parameter, label, ratio in columns)
    return f"Effective step beside that of {speeds['reference'].iloc[0]}: {', '.join(each)}."


def _layers_note(recorded: Sequence[layers.LayerTraces], traces: Sequence[layers.LayerTraces], few: bool = True) -> str:
    """Which arms and parameters are shown, and by which rule; `few`: only so many that lines stay legible."""
    powers = any(trace.has("input_power") for trace in recorded)
    which = "those with a measured input power" if powers else "all but biases"
    notes = [f"Parameters: {which}"]
    names = list(dict.fromkeys(name for trace in traces for name in trace.frame["parameter"].unique()))
    shown = layer_figures.shown_layers(traces)
    if few and len(shown) < len(names):
        notes.append(f", of these {len(names)} the {len(shown)} spread evenly from the input to the output side")
    notes.append(".")
    if len(traces) < len(recorded):
        notes.append(
            f" Arms: {len(traces)} of {len(recorded)}, the first two that read their inputs and the first two that "
            "do not, filled up in the order of the study."
        )
    return "".join(notes)
