"""How fast losses fall, as tables of a report on a task that has losses alone.

    convergence_tables(study, choices)["linear-rates"].markdown()

All numbers are those of `convergence` and `divergence`; nothing is computed anew.
"""

from __future__ import annotations

import math
import re

import pandas as pd

from insgd_lab.analysis.convergence import fewest_points, linear_rates, loss_areas
from insgd_lab.analysis.divergence import largest_stable_rate
from insgd_lab.analysis.labels import MISSING, number, option_name
from insgd_lab.analysis.measures import MEASURES, rounded
from insgd_lab.analysis.option_series import setting_words
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, tune_label, tuned_name
from insgd_lab.analysis.tables import Column, Table, count

__all__ = ["OPTIMA", "convergence_tables", "rates_note"]

OPTIMA = {"quadratic": 0.0, "least-squares": 0.0, "system-identification": 0.0}
"""The lowest loss of the convex tasks, by their data: of the test split, which is free of noise."""

_LOSS = MEASURES["test_loss"]


def convergence_tables(study: Study, choices: Choices) -> dict[str, Table]:
    """Mean heights of loss curves; of a convex task linear rates and the largest stable learning rates too.

    Nothing of a task that has classes.
    """
    if not study.loss_alone:
        return {}
    tables = [_areas(study, choices)]
    optimum = _optimum(study)
    if optimum is not None:
        tables += [*([] if rates_note(study) else [_rates(study, choices, optimum)]), _stable(study)]
    return {table.name: table for table in tables if len(table.frame)}


def rates_note(study: Study) -> str:
    """Why a convex task has no table of linear rates; empty where it has one, or needs none."""
    if not study.loss_alone or _optimum(study) is None:
        return ""
    there = int(study.curves["test_loss"].dropna().groupby(level="run").size().max() or 0)
    least = fewest_points()
    if there >= least:
        return ""
    return f"A linear rate needs at least {least} evaluated epochs; this study has {there}."


def _optimum(study: Study) -> float | None:
    """The lowest loss of the study's task; None where it is not convex, or arms have data of their own."""
    own = any(path == "task.data" for arm in study.arms.values() for path in arm.options)
    return None if own else OPTIMA.get(option_name((study.info.get("task") or {}).get("data")))


def _worded(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the arm, setting and tune of each row in words."""
    cells = [study.cells[place] for place in zip(frame["arm"], frame["cell"], strict=True)]
    return frame.assign(
        label=[study.arms[arm].label for arm in frame["arm"]],
        setting=[study.cell_label(cell) for cell in cells],
        tuned=[tune_label(study, tune, name=False) for tune in frame["tune"]],
    )


def _names(study: Study) -> tuple[Column, ...]:
    tuned = (Column(tuned_name(study), ("tuned",), str, True),) if study.tuned else ()
    return Column("arm", ("label",)), Column("setting", ("setting",)), *tuned


def _areas(study: Study, choices: Choices) -> Table:
    columns = (
        *_names(study),
        Column("median", ("median",), _LOSS.text, True),
        Column("n", ("n",), count, True),
        Column("mean", ("mean",), _LOSS.text, True),
        Column("95 % interval", ("low", "high"), _LOSS.interval, True),
        Column("diverged", ("diverged",), count, True),
    )
    caption = (
        "How low the train loss was all along: the mean height of its curve from the first to the last epoch. Median "
        "over all runs, where a diverged one counts as infinitely high; and over the runs that did not diverge, whose "
        "number is n, mean and 95 % t-interval."
    )
    return Table("loss-areas", caption, _worded(study, loss_areas(study, choices=choices)), columns)


def _rates(study: Study, choices: Choices, optimum: float) -> Table:
    columns = (
        *_names(study),
        Column("runs", ("runs",), count, True),
        Column("diverged", ("diverged",), count, True),
        Column("fitted", ("fitted",), count, True),
        Column("factor a step", ("factor",), _factor, True),
        Column("95 % interval", ("low", "high"), _factors, True),
        Column("median factor", ("median",), _factor, True),
        Column("lowest R²", ("r_squared",), lambda value: MISSING if math.isnan(value) else f"{value:.3f}", True),
        Column("not fitted, since", ("refused",), _reasons),
    )
    caption = (
        f"Linear rates: by which factor the test loss less its optimum, {number(optimum)}, shrinks at each step over "
        "the second half of training; geometric mean over the runs that could be fitted, with its 95 % t-interval. In "
        "the median diverged runs count, as infinitely bad, and those that do not converge linearly do not."
    )
    return Table("linear-rates", caption, _worded(study, linear_rates(study, optimum, choices=choices)), columns)


def _reasons(refused: str) -> str:
    """Each kind of reason once, without its numbers."""
    kinds = (re.sub(r" \(.*?\)", "", reason) for reason in refused.split("; "))
    return "; ".join(dict.fromkeys(kinds)) or MISSING


def _factor(value: float) -> str:
    """Digits enough to tell factors near 1 apart."""
    if math.isnan(value) or math.isinf(value):
        return number(value)
    digits = 3 + (0 if value <= 0.9 or value >= 1 else math.ceil(-math.log10(1 - value)))
    return f"{rounded(value, digits):.{digits}g}"


def _factors(low: float, high: float) -> str:
    return MISSING if math.isnan(low) else f"{_factor(low)} to {_factor(high)}"


def _stable(study: Study) -> Table:
    frame = largest_stable_rate(study)
    frame = frame[frame["rates"] > 1]
    frame = frame.assign(
        label=[study.arms[arm].label for arm in frame["arm"]],
        words=[setting_words(study, arm, key) for arm, key in zip(frame["arm"], frame["setting"], strict=True)],
    )
    columns = (
        Column("arm", ("label",)),
        Column("setting", ("words",)),
        Column("rates", ("rates",), count, True),
        Column("runs", ("runs",), count, True),
        Column("largest stable rate", ("stable",), number, True),
        Column("lowest at which a run diverged", ("unstable",), number, True),
    )
    caption = (
        "The largest learning rate at which, and below which, no run diverged, and the lowest at which one did: the "
        "limit lies between, as finely as the rates were spaced; above all that was tried where none diverged."
    )
    return Table("stable-rates", caption, frame, columns)
