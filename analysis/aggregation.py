"""Several studies as one: each a task, arms matched by name, accuracies in one number with its interval.

over_tasks({"digits": one, "cifar10": other})[["arm", "iqm", "low", "high", "improvement"]]
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from insgd_lab.analysis.primary import Primary, primary_of
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.scores import scored
from insgd_lab.analysis.selection import choose
from insgd_lab.analysis.statistics import improvement_over_tasks, stratified_bootstrap

__all__ = ["over_tasks"]

Accuracies = dict[str, dict[str, list[float]]]


def over_tasks(studies: Mapping[str, Study], level: float = 0.95) -> pd.DataFrame:
    """The interquartile mean of the accuracies of all runs of an arm, over the tasks, and how often it beats another.

    An arm stands with its base cell at its own best tune, in the metric "test_error"; diverged runs count with the
    accuracy of guessing. Accuracies are pooled as they are, so a task where all are close together weighs little. The
    baseline is that of the first study's primary test.

    Args:
        studies: by task, at least two; with at least two seeds.
        level: coverage of the intervals, in (0, 1).

    Returns:
        A row for each arm that all studies have: arm, tasks, runs, iqm, low, high (accuracy in percent, stratified
        bootstrap), improvement, improvement_low, improvement_high (mean over tasks of the probability that its run
        beats one of the baseline; NaN for the baseline, and where not all studies have it).

    Raises:
        ValueError: fewer than two tasks, a task with fewer than two runs of an arm, or an impossible level.
    """
    accuracies = _accuracies(studies)
    baseline = primary_of(next(iter(studies.values()))).baseline if studies else None
    rows = [_row(arm, by_task, accuracies.get(str(baseline)), level) for arm, by_task in accuracies.items()]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame.loc[frame["arm"] == baseline, ["improvement", "improvement_low", "improvement_high"]] = float("nan")
    return frame


_COLUMNS = ("arm", "tasks", "runs", "iqm", "low", "high", "improvement", "improvement_low", "improvement_high")


def _accuracies(studies: Mapping[str, Study]) -> Accuracies:
    """By arm and task, of the arms that all studies have."""
    if len(studies) < 2:
        raise ValueError(f"studies of {list(studies)}: expected at least two tasks; of one see comparisons.compare")
    common = [arm for arm in next(iter(studies.values())).arms if all(arm in study.arms for study in studies.values())]
    by_task = {task: _of_study(study) for task, study in studies.items()}
    return {arm: {task: found[arm] for task, found in by_task.items()} for arm in common}


def _of_study(study: Study) -> dict[str, list[float]]:
    choices, final = choose(study), Primary("paired-t", None, None, "test_error", None, declared=False)
    cells = {arm: study.shown_cell(arm) for arm in study.arms}
    sides = {arm: scored(study, choices, [cell] if cell else [], primary=final) for arm, cell in cells.items()}
    return {arm: [100 - error for error in side.scores.values()] for arm, side in sides.items()}


def _row(
    arm: str, by_task: Mapping[str, list[float]], baseline: Mapping[str, list[float]] | None, level: float
) -> dict[str, object]:
    pooled = stratified_bootstrap(by_task, level=level)
    row: dict[str, object] = {"arm": arm, "tasks": len(by_task), "runs": sum(map(len, by_task.values()))}
    row |= {"iqm": pooled.value, "low": pooled.low, "high": pooled.high}
    if baseline is None:
        return row
    beats = improvement_over_tasks(by_task, baseline, level)
    return row | {"improvement": beats.value, "improvement_low": beats.low, "improvement_high": beats.high}
