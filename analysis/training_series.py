"""The main arms while they train: losses and errors by epoch, and when their runs reach a target.

    training_panels(study, choices)                     # train loss, test loss and test error: a line an arm
    arrivals(study, choices, default_target(study, choices))

Every arm stands with its base cell at its own best tune.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from insgd_lab.analysis.convergence import target_times
from insgd_lab.analysis.labels import metric_label
from insgd_lab.analysis.primary import Metric, primary_of
from insgd_lab.analysis.runs import Arm, Study
from insgd_lab.analysis.selection import Choices, tune_at, tune_label
from insgd_lab.analysis.series import LINES, Panel, line_of, main_arms
from insgd_lab.analysis.statistics import Survival, kaplan_meier

__all__ = ["Arrival", "Arrivals", "arrivals", "default_target", "training_panels"]


def training_panels(study: Study, choices: Choices) -> list[list[Panel]]:
    """Train loss, test loss (validation loss, where there is no other) and test error by epoch, side by side.

    Means over seeds with 95 % t-intervals, errors in percent. From its divergence on a diverged run has the error of
    guessing, and no loss, so there the mean loss of its arm ends. Where the task has losses alone: medians and ranges.

    Returns:
        A row of panels for every six arms; a panel for each of these curves that the study has.
    """
    known = study.curves.notna().any()
    held_out = "test_loss" if known.get("test_loss", False) else "val_loss"
    columns = [column for column in ("train_loss", held_out, "test_error") if known.get(column, False)]
    arms = [found for arm in main_arms(study) if (found := _runs_of(study, choices, arm)) is not None]
    chunks = [arms[k : k + LINES] for k in range(0, len(arms), LINES)]
    rows = [[_panel(study, chunk, column) for column in columns] for chunk in chunks]
    return [row for row in rows if row]


@dataclass(frozen=True)
class _Runs:
    label: str
    runs: list[str]


def _runs_of(study: Study, choices: Choices, arm: Arm) -> _Runs | None:
    cell = study.shown_cell(arm.name)
    tune = tune_at(study, choices, cell, "best") if cell else None
    if cell is None or tune is None:
        return None
    label = f"{arm.label}: {tune_label(study, tune, name=False)}" if study.tuned and study.tunes[tune] else arm.label
    return _Runs(label, study.finished(cell.arm, cell.key, tune)["run"].tolist())


def _panel(study: Study, arms: Sequence[_Runs], column: str) -> Panel:
    unit = 100.0 if column.endswith("error") else 1.0
    tables = [(arm.label, study.by_epoch(arm.runs, column) * unit) for arm in arms]
    lines = (line_of(label, table, medians=study.loss_alone) for label, table in tables)
    return Panel(metric_label(column), "", tuple(lines))


# ------------------------------------------------------------------------------------------------ targets


@dataclass(frozen=True)
class Arrival:
    """When the runs of an arm reached the target, and the last epoch of any of them."""

    label: str
    curve: Survival
    last: float


@dataclass(frozen=True)
class Arrivals:
    """Of every main arm, the share of runs that have reached `target` by epoch."""

    target: float
    metric: Metric
    arms: tuple[Arrival, ...]


def default_target(study: Study, choices: Choices) -> tuple[float, Metric] | None:
    """What the median run of the baseline ends at, in percent for errors: the target to ask every arm for.

    Of the two runs in the middle of an even number it is the worse one, so that a run has just that. Runs that diverged
    are left out; None where no other is left. It is a number that the study itself has produced: for a test, state a
    target beforehand and call `convergence.time_to_target`.
    """
    primary = primary_of(study)
    cell = study.shown_cell(primary.baseline) if primary.baseline else None
    tune = tune_at(study, choices, cell, "best") if cell else None
    if cell is None or tune is None:
        return None
    metric: Metric = "test_loss" if study.loss_alone or primary.metric == "test_loss" else "test_error"
    rows = study.finished(cell.arm, cell.key, tune)
    ends = rows.loc[rows["status"] == "done", metric].dropna().tolist()
    unit = 100.0 if metric == "test_error" else 1.0
    return (statistics.median_high(ends) * unit, metric) if ends else None


def arrivals(study: Study, choices: Choices, target: float, metric: Metric = "test_error") -> Arrivals:
    """Kaplan-Meier curves of the epochs to the target; see `convergence.target_times`."""
    times = target_times(study, target, metric)
    groups = {str(arm): rows for arm, rows in times.groupby("arm", sort=False)}
    found = (_arrival(study, choices, arm, groups.get(arm.name)) for arm in main_arms(study))
    return Arrivals(target, metric, tuple(arrival for arrival in found if arrival is not None))


def _arrival(study: Study, choices: Choices, arm: Arm, times: pd.DataFrame | None) -> Arrival | None:
    shown = _runs_of(study, choices, arm)
    if shown is None or times is None:
        return None
    rows = times[times["run"].isin(shown.runs)].drop_duplicates("run")
    if rows.empty:
        return None
    curve = kaplan_meier(rows["epochs"].tolist(), rows["reached"].tolist())
    trained = study.curves.index[study.curves.index.isin(shown.runs, level="run")].get_level_values("epoch")
    return Arrival(shown.label, curve, float(max(rows["epochs"].max(), *trained)))
