"""The area under a loss curve: one number for how low the loss was throughout, not only where it ended.

loss_areas(study)[["arm", "cell", "n", "diverged", "mean", "low", "high", "median"]]
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd

from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, choose, tune_at
from insgd_lab.analysis.statistics import summarize

__all__ = ["areas_by_run", "loss_areas"]

Curve = Literal["train_loss", "val_loss", "test_loss", "train_error", "val_error", "test_error"]


def areas_by_run(study: Study, metric: Curve = "train_loss") -> pd.Series:
    """The mean height of each run's curve, by the trapezoidal rule from its first to its last evaluated epoch.

    It has the unit of the metric (errors in percent), so that runs of different lengths can be compared; times the
    epochs between it is the area. Infinite for diverged runs; NaN for a curve of fewer than two points.

    Raises:
        ValueError: there is no such curve.
    """
    if metric not in study.curves:
        raise ValueError(f"metric = {metric!r}: expected one of {[str(name) for name in study.curves]}")
    curve = (study.curves[metric] * (100.0 if metric.endswith("error") else 1.0)).dropna().reset_index()
    same = curve["run"].eq(curve["run"].shift())
    width = curve["epoch"].diff().where(same)
    piece = width * (curve[metric] + curve[metric].shift()) / 2
    runs = curve["run"]
    heights = piece.groupby(runs, sort=False).sum(min_count=1) / width.groupby(runs, sort=False).sum(min_count=1)
    heights = heights.reindex(study.runs.index)
    return heights.mask(study.runs["status"] == "diverged", np.inf)


def loss_areas(
    study: Study, metric: Curve = "train_loss", choices: Choices | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Mean heights of the curves of each cell, at its own best tune.

    Returns:
        Columns arm, cell, tune (keys), n, diverged, mean, sd, low, high, median. Mean, sd and interval are over the
        runs that did not diverge, whose number is n; in the median those that did count, as infinitely high.

    Raises:
        ValueError: there is no such curve, or an impossible level.
    """
    choices = choose(study) if choices is None else choices
    heights = areas_by_run(study, metric)
    rows = []
    for cell in study.cells.values():
        tune = tune_at(study, choices, cell, "best")
        if tune is None:
            continue
        found = heights[study.finished(cell.arm, cell.key, tune)["run"]].dropna()
        summary = summarize([height for height in found if math.isfinite(height)], level)
        lost = int(np.isinf(found).sum())
        row = (cell.arm, cell.key, tune, summary.n, lost, summary.mean, summary.sd, summary.low, summary.high)
        rows.append((*row, found.median()))
    return pd.DataFrame(rows, columns=["arm", "cell", "tune", "n", "diverged", "mean", "sd", "low", "high", "median"])
