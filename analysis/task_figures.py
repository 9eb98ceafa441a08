"""Several tasks in one picture: which share of them each arm masters, and how accurate it is over all.

    for drawing in task_drawings({"digits": load_study("runs/digits"), "cifar10": load_study("runs/cifar10")}):
        save_figure(drawing.figure, Path("."), drawing.name)       # of `canvas`

A study that varies its task, with an axis such as `task.data`, is split by it: `task_drawings(by_task(study))`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from insgd_lab.analysis.aggregation import over_tasks
from insgd_lab.analysis.canvas import WIDTH, plain_log, side_legend, step_line, style
from insgd_lab.analysis.convergence import time_profile
from insgd_lab.analysis.convergence.targets import Unit
from insgd_lab.analysis.drawings import Drawing
from insgd_lab.analysis.labels import describe, number
from insgd_lab.analysis.primary import Metric
from insgd_lab.analysis.runs import Cell, Study, key_of
from insgd_lab.analysis.selection import choose
from insgd_lab.analysis.training_series import default_target

__all__ = ["by_task", "draw_over_tasks", "draw_profile", "task_drawings"]


def task_drawings(
    studies: Mapping[str, Study], targets: Mapping[str, float] | None = None, unit: Unit = "epochs"
) -> list[Drawing]:
    """Draw the performance profile of times to a target, and the interquartile mean of normalised accuracies.

    Args:
        studies: by task, at least two; arms are matched by name.
        targets: by task, test errors in percent, or losses where tasks have those alone; where None, what the median
            run of each task's baseline ends at.
        unit: in which the times of the profile are, "epochs", "steps" or "seconds".

    Raises:
        ValueError: fewer than two tasks, no arm that all have, tasks without a target, or some with losses alone.
    """
    found = {task: default_target(study, choose(study)) for task, study in studies.items()}
    metrics = {None if target is None else target[1] for target in found.values()}
    if len(studies) < 2 or None in metrics or len(metrics) > 1:
        told = {task: target and target[1] for task, target in found.items()}
        raise ValueError(f"tasks with the metrics {told}: expected at least two with finished runs, and one metric")
    metric: Metric = "test_error" if metrics == {"test_error"} else "test_loss"
    chosen = {task: target[0] for task, target in found.items() if target} if targets is None else dict(targets)
    profile = time_profile(studies, chosen, unit, metric)
    labels = {name: arm.label for name, arm in next(iter(studies.values())).arms.items()}
    drawn = [_profile_drawing(profile.rename(columns=labels), chosen, unit, targets is None)]
    if metric == "test_error":
        drawn.append(_means_drawing(over_tasks(studies).assign(label=lambda frame: frame["arm"].map(labels))))
    return drawn


def by_task(study: Study) -> dict[str, Study]:
    """Split a study that varies its task into one for each: by the values of its axes that begin with `task.`.

    Arms without such an axis are left out. Within each part the arms' own values of these axes are those of the task.
    """
    arms = {name: arm for name, arm in study.arms.items() if _task_axes(arm.axes)}
    axes = list(dict.fromkeys(axis for arm in arms.values() for axis in _task_axes(arm.axes)))
    levels = [
        {key_of({axis: value}): value for arm in arms.values() for value in arm.axes.get(axis, [])}.values()
        for axis in axes
    ]
    tasks = [dict(zip(axes, values, strict=True)) for values in itertools.product(*levels)] if axes else []
    parts = {describe(task): _part(study, task) for task in tasks}
    return {task: part for task, part in parts.items() if part.cells}


def _task_axes(axes: Mapping[str, Any]) -> list[str]:
    return [axis for axis in axes if axis.startswith("task.")]


def _part(study: Study, task: Mapping[str, Any]) -> Study:
    """The study's cells that are of one task."""
    cells = {place: cell for place, cell in study.cells.items() if _is_of(cell, task)}
    arms = {name: study.arms[name] for name in dict.fromkeys(arm for arm, _ in cells)}
    arms = {name: dataclasses.replace(arm, base={**arm.base, **_own(task, arm.axes)}) for name, arm in arms.items()}
    kept = [(arm, cell) in cells for arm, cell in zip(study.plan["arm"], study.plan["cell"], strict=True)]
    return dataclasses.replace(study, arms=arms, cells=cells, plan=study.plan[kept].reset_index(drop=True))


def _is_of(cell: Cell, task: Mapping[str, Any]) -> bool:
    own = _own(task, cell.settings)
    return bool(own) and key_of({axis: cell.settings[axis] for axis in own}) == key_of(own)


def _own(task: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {axis: value for axis, value in task.items() if axis in settings}


# ------------------------------------------------------------------------------------------------ profile


def _profile_drawing(profile: pd.DataFrame, targets: Mapping[str, float], unit: str, default: bool) -> Drawing:
    fastest = "; ".join(f"{arm} {100 * profile[arm].iloc[0]:.0f} %" for arm in profile)
    named = ", ".join(f"{task} {number(target)}" for task, target in targets.items())
    whose = ", what the median run of each task's baseline ends at" if default else ""
    return Drawing(
        "performance-profile",
        draw_profile(profile, unit),
        f"Performance profile over {len(targets)} tasks. Share of them on which each arm is the fastest: {fastest}.",
        f"Share of {len(targets)} tasks on which an arm reaches the target within a factor of the {unit} that the "
        f"fastest arm takes (Dolan and Moré): medians over seeds, arms at their base and own best setting. Targets: "
        f"{named}{whose}. A curve that ends below 100 % belongs to an arm that never got there on the others.",
    )


def draw_profile(profile: pd.DataFrame, unit: str) -> Figure:
    """The share of tasks that each arm does within a factor of the fastest, as steps.

    Args:
        profile: of `convergence.time_profile`.
        unit: of the times, for the axis.
    """
    end = max(2.0, 1.15 * float(profile.index[-1]))
    with style():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        ax = figure.subplots()
        for k, arm in enumerate(profile):
            _draw_steps(ax, 100 * profile[arm], end, k, len(profile.columns))
        ax.set(xlim=(0.97, end), ylim=(-4, 104), xlabel=f"{unit} to the target / those of the fastest arm")
        ax.set_ylabel("tasks (%)")
        if end > 4:
            ax.set_xscale("log")
            plain_log(ax.xaxis)
        side_legend(ax, "arm", 28)
    return figure


def _draw_steps(ax: Axes, shares: pd.Series, end: float, k: int, count: int) -> None:
    """One arm's curve."""
    x, y = shares.index.to_numpy(dtype=float), shares.to_numpy(dtype=float)
    ends = ([*x, end], [*y, y[-1]])
    ax.step(*ends, where="post", markevery=list(range(len(x))), label=shares.name, **step_line(k, count))


# ------------------------------------------------------------------------------------------------ means


def _means_drawing(frame: pd.DataFrame) -> Drawing:
    each = (f"{row['label']} {row['iqm']:.3f}" for row in frame.to_dict("records"))
    return Drawing(
        "over-tasks",
        draw_over_tasks(frame),
        f"Interquartile mean of the normalised test accuracies over {frame['tasks'].max()} tasks: {'; '.join(each)}.",
        "Left: interquartile mean of the test accuracies of all runs of all tasks, each task's normalised to 0 for "
        "guessing and 1 for the baseline's mean, with its 95 % stratified bootstrap interval. Right: the mean over "
        "tasks of the probability that a run of the arm beats one of the baseline, with its interval; right of 50 % "
        "the arm is ahead. Diverged runs count with the accuracy of guessing.",
    )


def draw_over_tasks(frame: pd.DataFrame) -> Figure:
    """Accuracies over all tasks, and how often a run beats one of the baseline, a row an arm.

    Args:
        frame: of `aggregation.over_tasks`, with a column label.
    """
    places = np.arange(len(frame))
    sides = {
        "normalised accuracy, interquartile mean": frame[["iqm", "low", "high"]],
        "runs that beat the baseline's (%)": 100 * frame[["improvement", "improvement_low", "improvement_high"]],
    }
    with style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.28 * len(frame)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for k, (ax, (title, values)) in enumerate(zip(axes, sides.items(), strict=True)):
            mean, low, high = values.to_numpy(dtype=float).T
            colour = sns.color_palette("colorblind")[k]
            ax.hlines(places, low, high, color=colour)
            ax.plot(mean, places, "oD"[k], color=colour)
            ax.set(xlabel=title, ylim=(len(frame) - 0.5, -0.5))
            ax.grid(False, axis="y")
        axes[0].set_yticks(places, frame["label"])
        axes[0].axvline(1, color="dimgrey", linewidth=0.8)
        axes[1].axvline(50, color="dimgrey", linewidth=0.8)
        axes[1].set_xlim(-4, 104)
    return figure
