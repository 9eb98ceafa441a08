"""Speed over several tasks at once: each task a study, arms matched by name.

time_profile({"digits": one, "cifar10": other}, {"digits": 5.0, "cifar10": 40.0})
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from insgd_lab.analysis.convergence.targets import Unit, time_to_target
from insgd_lab.analysis.primary import Metric
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.statistics import performance_profile

__all__ = ["time_profile"]


def time_profile(
    studies: Mapping[str, Study], targets: Mapping[str, float], unit: Unit = "steps", metric: Metric = "test_error"
) -> pd.DataFrame:
    """The performance profile of the arms that all studies have: the share of tasks within a factor of the fastest.

    An arm's time on a task is the median of its runs, at its base cell and own best tune; infinite where fewer than
    half of them reached the target.

    Args:
        studies: by task.
        targets: by task, see `target_times`.
        unit: "epochs", "steps" or "seconds".
        metric: a column of `Study.curves`.

    Returns:
        See `performance_profile`.

    Raises:
        ValueError: no studies, a task without a target, or no arm that all studies have.
    """
    if not studies or studies.keys() != targets.keys():
        raise ValueError(f"studies of {list(studies)} and targets of {list(targets)}: expected one target a task")
    medians = {task: _medians(study, targets[task], unit, metric) for task, study in studies.items()}
    arms = [arm for arm in next(iter(medians.values())) if all(arm in found for found in medians.values())]
    return performance_profile({arm: [found[arm] for found in medians.values()] for arm in arms})


def _medians(study: Study, target: float, unit: Unit, metric: Metric) -> dict[str, float]:
    frame = time_to_target(study, target, metric)
    rows = frame.loc[frame["unit"] == unit, ["arm", "cell", "median"]].itertuples(index=False)
    medians = {(str(arm), str(cell)): float(median) for arm, cell, median in rows}
    cells = {name: cell for name in study.arms if (cell := study.shown_cell(name)) is not None}
    return {name: medians.get((name, cell.key), math.inf) for name, cell in cells.items()}
