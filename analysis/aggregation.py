"""Several studies as one: each a task, arms matched by name, normalised accuracies in one number with its interval.

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


def over_tasks(studies: Mapping[str, Study], level: float = 0.95, baseline: str | None = None) -> pd.DataFrame:
    """The interquartile mean of the normalised accuracies of all runs of an arm, over the tasks, and how often it wins.

    Tasks are of unlike difficulty, so accuracies are normalised before they are pooled, as Agarwal et al. (NeurIPS
    2021; rliable) do with human-normalised scores, (score - random) / (human - random). Here guessing is 0, and the
    baseline's mean accuracy on the task, in the place of the human's score, is 1, as PPO's is in scores on Procgen; the
    best of the arms would be a maximum of noisy means, and another one with every arm that is added. The reference is
    held fixed: intervals are about the arm's runs. An arm stands with its base cell at its own best tune, in the metric
    "test_error"; diverged runs count with the accuracy of guessing, 0.

    Args:
        studies: by task, at least two; with at least two seeds.
        level: coverage of the intervals, in (0, 1).
        baseline: the arm that is 1; that of the first study's primary test if None.

    Returns:
        A row for each arm that all studies have: arm, tasks, runs, iqm, low, high (normalised accuracy, stratified
        bootstrap), improvement, improvement_low, improvement_high (mean over tasks of the probability that its run
        beats one of the baseline; NaN for the baseline).

    Raises:
        ValueError: fewer than two tasks, one with losses alone, a baseline that not all studies have or that is no
            better than guessing, a task with fewer than two runs of an arm, or an impossible level.
    """
    if len(studies) < 2:
        raise ValueError(f"studies of {list(studies)}: expected at least two tasks; of one see comparisons.compare")
    chosen = primary_of(next(iter(studies.values()))).baseline if baseline is None else baseline
    lacking = [task for task, study in studies.items() if chosen not in study.arms]
    if chosen is None or lacking:
        raise ValueError(f"baseline {chosen!r}: expected an arm of every study, and {lacking} lack it; name another")
    by_task = {task: _normalised(task, study, chosen) for task, study in studies.items()}
    arms = [arm for arm in next(iter(studies.values())).arms if all(arm in found for found in by_task.values())]
    rows = [_row(arm, {task: found[arm] for task, found in by_task.items()}, level) for arm in arms]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    reference = {task: found[chosen] for task, found in by_task.items()}
    for k, arm in enumerate(arms):
        if arm != chosen:
            beats = improvement_over_tasks({task: found[arm] for task, found in by_task.items()}, reference, level)
            frame.loc[k, list(_IMPROVEMENT)] = (beats.value, beats.low, beats.high)
    return frame


_IMPROVEMENT = ("improvement", "improvement_low", "improvement_high")
_COLUMNS = ("arm", "tasks", "runs", "iqm", "low", "high", *_IMPROVEMENT)


def _normalised(task: str, study: Study, baseline: str) -> dict[str, list[float]]:
    """By arm, the accuracies of its runs: 0 for guessing, 1 for the mean of the baseline's."""
    if study.loss_alone:
        raise ValueError(
            f"{task} has losses alone, without a level of guessing between which and the baseline to normalise; leave "
            "it out, and see convergence.time_profile for times to a target"
        )
    choices, final = choose(study), Primary("paired-t", None, None, "test_error", None, declared=False)
    cells = {arm: study.shown_cell(arm) for arm in study.arms}
    sides = {arm: scored(study, choices, [cell] if cell else [], primary=final) for arm, cell in cells.items()}
    guesses = {arm: 100 * _guess(study, arm) for arm in sides}
    guess = guesses[baseline]
    gained = guess - sides[baseline].mean
    if not gained > 0:
        raise ValueError(
            f"{task}: the mean error of {baseline!r} is {sides[baseline].mean:.4g} %, that of guessing {guess:.4g} %; "
            "expected a baseline with finished runs that are better than guessing; name another"
        )
    return {arm: [(guesses[arm] - error) / gained for error in side.scores.values()] for arm, side in sides.items()}


def _guess(study: Study, arm: str) -> float:
    """The error of guessing of an arm, which may have data of its own."""
    return float(study.runs.loc[study.plan.loc[study.plan["arm"] == arm, "run"], "guess"].iloc[0])


def _row(arm: str, by_task: Mapping[str, list[float]], level: float) -> dict[str, object]:
    pooled = stratified_bootstrap(by_task, level=level)
    row: dict[str, object] = {"arm": arm, "tasks": len(by_task), "runs": sum(map(len, by_task.values()))}
    return row | {"iqm": pooled.value, "low": pooled.low, "high": pooled.high}
