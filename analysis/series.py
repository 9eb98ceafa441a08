"""Curves as numbers: what the figures draw, computed here so that tests and tables can have it too.

for panel in test_curves(study, choose(study)):
    for line in panel.lines:
        line.label, line.x, line.mean, line.low, line.high
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.effects import level_cells
from insgd_lab.analysis.labels import describe, name_label, value_label
from insgd_lab.analysis.measures import chosen_by, reported
from insgd_lab.analysis.runs import Arm, Cell, Study, key_of
from insgd_lab.analysis.selection import At, Choices, tune_at, tune_label, tuned_name
from insgd_lab.analysis.statistics import summarize

__all__ = [
    "Grid",
    "Group",
    "Line",
    "Panel",
    "grids",
    "groups",
    "line_of",
    "main_arms",
    "sensitivity",
    "standing_title",
    "test_curves",
]

LINES = 6
"""Lines that one panel can hold and stay legible."""


@dataclass(frozen=True)
class Group:
    """Cells that belong in one panel: what differs (`legend`), and each cell's value of it."""

    title: str
    legend: str
    members: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Line:
    """One line with its band; `crosses` are the x at which some run diverged, `chosen` the x chosen."""

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    crosses: tuple[float, ...] = ()
    chosen: float | None = None


@dataclass(frozen=True)
class Panel:
    """Lines under one title."""

    title: str
    legend: str
    lines: tuple[Line, ...] = field(default=())


# ------------------------------------------------------------------------------------------------ grouping


def main_arms(study: Study) -> list[Arm]:
    """The arms whose base cells are different runs: an arm that repeats an earlier one's base is left out."""
    seen: set[frozenset[str]] = set()
    kept = []
    for arm in study.arms.values():
        cell = study.shown_cell(arm.name)
        if cell is None:
            continue
        rows = study.plan[(study.plan["arm"] == arm.name) & (study.plan["cell"] == cell.key)]
        runs = frozenset(rows["run"])
        if not any(runs & other for other in seen):
            kept.append(arm)
        seen.add(runs)
    return kept


def groups(study: Study) -> list[Group]:
    """The comparisons of a study: the optimizers at their defaults, then each arm's axes.

    One factor at a time: one group an axis. Crossed in full: the last axis within one group, a group for each
    combination of the others. Other grids: all cells, six to a group.
    """
    found = list(_optimizers(study))
    for arm in study.arms.values():
        if not arm.axes:
            continue
        if arm.grid == "one-at-a-time":
            found += [_axis_group(study, arm, axis) for axis in arm.axes if len(arm.levels(axis)) > 1]
        elif arm.grid == "full":
            found += _crossed(study, arm)
        else:
            cells = study.cells_of(arm.name)
            found.append(Group(arm.label, "", tuple((study.cell_label(cell), cell) for cell in cells)))
    return [part for group in found for part in _split(group)]


def _optimizers(study: Study) -> Iterator[Group]:
    arms = main_arms(study)
    cells = [(arm.label, cell) for arm in arms if (cell := study.shown_cell(arm.name))]
    if len(cells) > 1 or not any(arm.axes for arm in arms):
        yield Group(standing_title(study, [cell for _, cell in cells]), "arm", tuple(cells))


def standing_title(study: Study, cells: Sequence[Cell]) -> str:
    """The title of arms side by side: where one has no base cell, its first stands for it."""
    based = all(study.base_cell(cell.arm) == cell for cell in cells)
    return "Arms at their base" if based else "Arms at their base, or first cell where they have none"


def _axis_group(study: Study, arm: Arm, axis: str) -> Group:
    members = []
    for level in arm.levels(axis):
        suffix = " (base)" if key_of({axis: level}) == key_of({axis: arm.base.get(axis)}) else ""
        members += [(value_label(level) + suffix, cell) for cell in level_cells(study, arm.name, axis, level)]
    return Group(f"{arm.label}: {name_label(axis)}", name_label(axis), tuple(members))


def _crossed(study: Study, arm: Arm) -> Iterator[Group]:
    *others, last = arm.axes
    for values in itertools.product(*(arm.levels(axis) for axis in others)):
        rest = dict(zip(others, values, strict=True))
        cells = [(level, study.find_cell(arm.name, {**rest, last: level})) for level in arm.levels(last)]
        title = f"{arm.label}: {describe(rest) or name_label(last)}"
        yield Group(title, name_label(last), tuple((value_label(level), cell) for level, cell in cells if cell))


def _split(group: Group) -> Iterator[Group]:
    count = max(1, -(-len(group.members) // LINES))
    for k in range(count):
        title = group.title if count == 1 else f"{group.title} ({k + 1} of {count})"
        members = group.members[k * LINES : (k + 1) * LINES]
        if members:
            yield Group(title, group.legend, members)


# ------------------------------------------------------------------------------------------------ curves


def test_curves(study: Study, choices: Choices) -> list[Panel]:
    """Test error (%) after each epoch at each cell's chosen rate, or test loss where the task has losses alone.

    Where something is tuned, lines are labelled "level: chosen value". See `line_of` for lines and bands.
    """
    panels = _panels(study, lambda label, cell: _curve(study, choices, label, cell))
    if not study.tuned:
        return panels
    return [replace(panel, legend=f"{panel.legend or 'cell'}: {tuned_name(study)}") for panel in panels]


def _panels(study: Study, line: Any) -> list[Panel]:
    panels = []
    for group in groups(study):
        lines = [made for label, cell in group.members if (made := line(label, cell)) is not None]
        if lines:
            panels.append(Panel(group.title, group.legend, tuple(lines)))
    return panels


def _curve(study: Study, choices: Choices, label: str, cell: Cell) -> Line | None:
    tune = tune_at(study, choices, cell, "best")
    if tune is None:
        return None
    measure = reported(study)
    runs = study.finished(cell.arm, cell.key, tune)["run"].tolist()
    table = study.by_epoch(runs, measure.name)
    if table.empty or not runs:
        return None
    shown = f"{label}: {tune_label(study, tune, name=False)}" if study.tuned and study.tunes[tune] else label
    return line_of(shown, table * measure.unit, medians=study.loss_alone)


def line_of(label: str, table: pd.DataFrame, medians: bool) -> Line:
    """A line over the epochs (rows) of some runs (columns), with its band.

    Args:
        label: of the line.
        table: of `Study.by_epoch`, in the printed unit.
        medians: the median over seeds in a band from the lowest to the highest, which a run that diverged, being
            infinitely bad, leaves on the page; else the mean with its 95 % t-interval, up to where a run has no number.
    """
    if medians:
        table = table.dropna(how="all")
        values = np.sort(table.to_numpy(dtype=float), axis=1)
        x = table.index.to_numpy(dtype=float)
        return Line(label, x, _middle(values), values[:, 0], np.nanmax(values, axis=1))
    table = table.loc[~np.isinf(table.to_numpy(dtype=float)).any(axis=1)]
    summaries = [summarize(row[np.isfinite(row)]) for row in table.to_numpy(dtype=float)]
    mean, low, high = (np.array([getattr(s, part) for s in summaries]) for part in ("mean", "low", "high"))
    return Line(label, table.index.to_numpy(dtype=float), mean, low, high)


def _middle(values: np.ndarray) -> np.ndarray:
    """The median of each row, infinite where it lies between a number and infinity."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nanmedian(values, axis=1))


# ------------------------------------------------------------------------------------------------ sensitivity


def sensitivity(study: Study, choices: Choices) -> list[Panel]:
    """Validation error (%) against the learning rate: mean and range over seeds, a line a cell.

    Where the task has losses alone it is the validation loss, and the median, which a diverged run may make infinite.

    Arms that tune `lr` give the panels of `groups`; arms with `lr` as an axis share one panel, at their base. A
    panel of lone points, as a search leaves that ran no two rates with the same seeds, is left out.
    """
    panels = _panels(study, lambda label, cell: _tuned_line(study, choices, label, cell))
    swept = [arm for arm in study.arms.values() if "lr" in arm.axes and "lr" not in arm.tune]
    lines = [line for arm in swept if (line := _axis_line(study, choices, arm)) is not None]
    chunks = [tuple(lines[k : k + LINES]) for k in range(0, len(lines), LINES)]
    panels += [Panel("Arms at their base", "arm", chunk) for chunk in chunks]
    return [panel for panel in panels if any(len(line.x) > 1 for line in panel.lines)]


def _tuned_line(study: Study, choices: Choices, label: str, cell: Cell) -> Line | None:
    chosen = tune_at(study, choices, cell, "best")
    if chosen is None or "lr" not in study.tunes[chosen]:
        return None
    held = {name: value for name, value in study.tunes[chosen].items() if name != "lr"}
    points = [
        (float(study.tunes[tune]["lr"]), cell, tune)
        for tune in study.tunes_of(cell.arm)
        if {name: value for name, value in study.tunes[tune].items() if name != "lr"} == held
    ]
    return _sweep(study, label, points, float(study.tunes[chosen]["lr"]))


def _axis_line(study: Study, choices: Choices, arm: Arm) -> Line | None:
    cells = [study.find_cell(arm.name, {**arm.base, "lr": rate}) for rate in arm.levels("lr")]
    points = [
        (float(cell.settings["lr"]), cell, tune)
        for cell in cells
        if cell and (tune := tune_at(study, choices, cell, "best")) is not None
    ]
    return _sweep(study, arm.label, points, None)


def _sweep(study: Study, label: str, points: list[tuple[float, Cell, str]], chosen: float | None) -> Line | None:
    found, measure = [], chosen_by(study)
    for rate, cell, tune in sorted(points, key=lambda point: point[0]):
        rows = study.finished(cell.arm, cell.key, tune)
        if len(rows):
            scores = measure.unit * rows[measure.name]
            middle = scores.median() if study.loss_alone else scores.mean()
            crossed = bool((rows["status"] == "diverged").any())
            found.append((rate, middle, scores.min(), scores.max(), crossed))
    if not found:
        return None
    x, mean, low, high, diverged = map(np.array, zip(*found, strict=True))
    return Line(label, x, mean, low, high, tuple(x[diverged].tolist()), chosen)


# ------------------------------------------------------------------------------------------------ grids


@dataclass(frozen=True)
class Grid:
    """Mean test error (%) over two crossed axes [first axis, second axis], and the tunes it was got at.

    Of a task with losses alone the test loss: the median over seeds, averaged over further axes.
    """

    title: str
    tuned: str
    """What the arm tunes, in words; empty where nothing is tuned, and `best` says all."""
    best: pd.DataFrame
    best_tunes: pd.DataFrame
    fixed: pd.DataFrame
    fixed_tunes: pd.DataFrame

    @property
    def maps(self) -> tuple[tuple[str, pd.DataFrame, pd.DataFrame], ...]:
        """What to show: in words at which setting, the errors there and the tunes; one if nothing is tuned."""
        if not self.tuned:
            return (("", self.best, self.best_tunes),)
        own, fixed = f"own best {self.tuned}", f"fixed {self.tuned}"
        return (own, self.best, self.best_tunes), (fixed, self.fixed, self.fixed_tunes)


def grids(study: Study, choices: Choices) -> list[Grid]:
    """Every pair of axes of the arms crossed in full; further axes are averaged out."""
    arms = [arm for arm in study.arms.values() if arm.grid == "full"]
    pairs = [(arm, *pair) for arm in arms for pair in itertools.combinations(arm.axes, 2)]
    return [_pair_grid(study, choices, arm, first, second) for arm, first, second in pairs]


def _pair_grid(study: Study, choices: Choices, arm: Arm, first: str, second: str) -> Grid:
    index = pd.Index(map(value_label, arm.levels(first)), name=name_label(first))
    columns = pd.Index(map(value_label, arm.levels(second)), name=name_label(second))
    frames = []
    for at in ("best", "fixed"):
        found = [
            [_pair_cell(study, choices, arm, {first: a, second: b}, at) for b in arm.levels(second)]
            for a in arm.levels(first)
        ]
        for k, kind in ((0, float), (1, object)):
            values = [[pair[k] for pair in row] for row in found]
            frames.append(pd.DataFrame(values, index=index, columns=columns, dtype=kind))
    others = [name_label(axis) for axis in arm.axes if axis not in (first, second)]
    title = arm.label + (f" (mean over {', '.join(others)})" if others else "")
    return Grid(title, tuned_name(study, arm.name) if arm.tuned else "", *frames)


def _pair_cell(study: Study, choices: Choices, arm: Arm, pair: Mapping[str, Any], at: At) -> tuple[float, str]:
    cells = [c for c in study.cells_of(arm.name) if key_of({a: c.settings[a] for a in pair}) == key_of(pair)]
    tunes = [(cell, tune) for cell in cells if (tune := tune_at(study, choices, cell, at)) is not None]
    measure = reported(study)
    scores = [study.finished(cell.arm, cell.key, tune)[measure.name] for cell, tune in tunes]
    errors = [each.median() if study.loss_alone else each.mean() for each in scores]
    labels = dict.fromkeys(tune_label(study, tune, name=False) for _, tune in tunes if study.tunes[tune])
    return measure.unit * float(np.mean(errors)) if errors else float("nan"), " / ".join(labels)
