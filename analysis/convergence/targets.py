"""Epochs, steps and seconds to a target, of runs some of which never reach it.

    times = target_times(study, 5.0)               # a row a run
    medians = time_to_target(study, 5.0)           # a row a cell and unit

A run that did not reach the target, or diverged before it did, is censored at its full budget: it would have taken
longer than it was given. It is neither left out nor counted as having arrived at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from insgd_lab.analysis.primary import Metric, primary_of
from insgd_lab.analysis.runs import Cell, Study
from insgd_lab.analysis.selection import Choices, choose, tune_at
from insgd_lab.analysis.statistics import holm, kaplan_meier, log_rank

__all__ = ["UNITS", "Unit", "target_times", "time_to_target"]

Unit = Literal["epochs", "steps", "seconds"]
UNITS: tuple[Unit, ...] = ("epochs", "steps", "seconds")


def target_times(study: Study, target: float, metric: Metric = "test_error") -> pd.DataFrame:
    """When each finished run first had `metric` at the target or below.

    A curve is known where it was evaluated, so times are those of evaluations, not interpolated. A run that reaches the
    target and diverges later has reached it: whoever trains to a target stops there.

    Args:
        study: read from disk.
        target: in percent for errors, else a loss.
        metric: a column of `Study.curves`.

    Returns:
        A row a run and row of the plan: arm, cell, tune, seed, run, status, reached, epochs, steps, seconds (of
        training and evaluation, up to then); of runs that did not reach it the full budgets, in seconds what the
        slowest run of the cell took.

    Raises:
        ValueError: there is no such curve, or the target is not a number.
    """
    if metric not in study.curves or np.isnan(target):
        known = [name for name in study.curves if str(name).endswith(("_error", "_loss"))]
        raise ValueError(f"target = {target} of {metric!r}: expected a number, of one of {known}")
    unit = 100.0 if metric.endswith("error") else 1.0
    reached = _first_epochs(study.curves[metric] * unit, target)
    rows = study.scores[["arm", "cell", "tune", "seed", "run", "status"]].copy()
    at = rows["run"].map(reached)
    rows["reached"] = at.notna()
    budgets = _budgets(study, rows)
    rows["epochs"] = at.fillna(budgets).astype(float)
    rows["steps"] = rows["epochs"] * _per_epoch(rows, _epoch_steps(study))
    rows["seconds"] = _seconds(study, rows, budgets)
    return rows


def _first_epochs(curve: pd.Series, target: float) -> pd.Series:
    """By run, the first epoch at which the curve is at the target or below."""
    there = curve[curve <= target].reset_index()
    return there.groupby("run", sort=False)["epoch"].min()


def _budgets(study: Study, rows: pd.DataFrame) -> pd.Series:
    """The epochs that each run was planned for."""
    common = {"train.epochs": (study.info.get("train") or {}).get("epochs", np.nan)}
    found = {
        (arm, cell, tune): {
            **common,
            **study.arms[arm].options,
            **study.cells[arm, cell].settings,
            **study.tunes[tune],
        }["train.epochs"]
        for arm, cell, tune in rows[["arm", "cell", "tune"]].drop_duplicates().itertuples(index=False)
    }
    keys = zip(rows["arm"], rows["cell"], rows["tune"], strict=True)
    return pd.Series([float(found[key]) for key in keys], index=rows.index)


def _epoch_steps(study: Study) -> pd.Series:
    """By run, optimizer steps an epoch: those of its first evaluated epoch, which was not broken off."""
    curves = study.curves
    whole = curves[curves[["val_loss", "test_loss"]].notna().any(axis=1)]
    first = whole.reset_index(level="epoch").groupby(level="run").first()
    return first["step"] / first["epoch"]


def _per_epoch(rows: pd.DataFrame, by_run: pd.Series) -> pd.Series:
    """What an epoch takes of each row's run; of a run that finished none, as much as of its cell's, arm's or any."""
    own = rows["run"].map(by_run)
    for keys in (["arm", "cell", "tune"], ["arm"]):
        own = own.fillna(own.groupby([rows[key] for key in keys]).transform("median"))
    return own.fillna(own.median()) if own.notna().any() else own


def _seconds(study: Study, rows: pd.DataFrame, budgets: pd.Series) -> pd.Series:
    """Seconds up to the epoch, as clocked epoch by epoch, else the run's total in proportion.

    Runs of a cell take different times for equal epochs. One that did not arrive is censored at what the slowest took:
    at its own, a quick run would be out of the reckoning before a slow one arrived, as if it might have been first.
    """
    done = pd.to_numeric(study.runs["epochs_done"]).where(lambda epochs: epochs > 0)
    mean = _per_epoch(rows, pd.to_numeric(study.runs["seconds"]) / done)
    clocks = {run: _clock(epochs) for run, epochs in study.runs["epochs"].items() if isinstance(epochs, list)}
    clocked = [
        _clocked(clocks.get(run), int(epoch)) if reached else np.nan
        for run, epoch, reached in zip(rows["run"], rows["epochs"], rows["reached"], strict=True)
    ]
    arrived = pd.Series(clocked, index=rows.index, dtype=float).fillna(mean * rows["epochs"])
    longest = (mean * budgets).groupby([rows[key] for key in ("arm", "cell", "tune")]).transform("max")
    return arrived.where(rows["reached"], longest)


def _clock(epochs: list[Mapping[str, Any]]) -> np.ndarray:
    return np.cumsum([float(epoch["seconds"]) for epoch in epochs])


def _clocked(clock: np.ndarray | None, epoch: int) -> float:
    return float(clock[epoch - 1]) if clock is not None and epoch <= len(clock) else np.nan


# ------------------------------------------------------------------------------------------------ by cell


def time_to_target(
    study: Study, target: float, metric: Metric = "test_error", choices: Choices | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Median times to the target, of each cell at its own best tune, and whether they differ from the baseline's.

    Args:
        study: read from disk.
        target: in percent for errors, else a loss; fix it before looking.
        metric: a column of `Study.curves`.
        choices: what `selection.choose` chose; chosen anew if None.
        level: coverage of the intervals, in (0, 1).

    Returns:
        A row a cell and unit: arm, cell, tune (keys), unit ("epochs", "steps", "seconds"), runs, reached (how many),
        median, low, high (Kaplan-Meier; infinite where fewer than half reached it), p (log-rank against the cell that
        stands for the baseline; NaN for itself), p_holm (over all rows: epochs, steps
        and seconds are three looks at one thing).

    Raises:
        ValueError: see `target_times`.
    """
    choices = choose(study) if choices is None else choices
    groups = dict(list(target_times(study, target, metric).groupby(["arm", "cell", "tune"], sort=False)))
    primary = primary_of(study)
    shown = study.shown_cell(primary.baseline) if primary.baseline else None
    reference = _at_best(study, choices, groups, shown) if shown else None
    rows = [
        row
        for cell in study.cells.values()
        if (found := _at_best(study, choices, groups, cell)) is not None
        for row in _cell_rows(cell, found, None if cell == shown else reference, level)
    ]
    columns = ["arm", "cell", "tune", "unit", "runs", "reached", "median", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=float)))


def _at_best(study: Study, choices: Choices, groups: Mapping[Any, pd.DataFrame], cell: Cell) -> pd.DataFrame | None:
    tune = tune_at(study, choices, cell, "best")
    return groups.get((cell.arm, cell.key, tune))


def _cell_rows(
    cell: Cell, times: pd.DataFrame, reference: pd.DataFrame | None, level: float
) -> Iterator[dict[str, Any]]:
    there = times["reached"].tolist()
    for unit in UNITS:
        mine = times[unit].tolist()
        if not np.isfinite(mine).all():  # a study of long ago that kept no clock
            continue
        curve = kaplan_meier(mine, there, level)
        row = {"arm": cell.arm, "cell": cell.key, "tune": times["tune"].iloc[0], "unit": unit}
        row |= {"runs": curve.runs, "reached": curve.events, "median": curve.median}
        row |= {"low": curve.median_low, "high": curve.median_high, "p": np.nan}
        if reference is not None and np.isfinite(reference[unit]).all():
            row["p"] = log_rank(mine, there, reference[unit].tolist(), reference["reached"].tolist())
        yield row
