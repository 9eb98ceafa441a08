"""The rate of a linear convergence: by which factor the distance to the optimum shrinks at every step.

    rate = linear_rate([1, 2, 3, 4, 5, 6, 7, 8], [0.5**k for k in range(8)])
    rate.factor                                    # 0.5

On strongly convex tasks a loss falls like factor^step towards its optimum. Elsewhere it does not, and a straight line
through the logarithm of anything has a slope: where the curve bends, or noise has flattened it, no rate is given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd
from scipy import stats

from insgd_lab.analysis.convergence.areas import Curve
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, choose, tune_at
from insgd_lab.analysis.statistics import summarize

__all__ = ["LinearRate", "NotLinear", "fewest_points", "linear_rate", "linear_rates"]

_LEAST = 6
"""Points that a fit needs: three for each half's slope."""
_BEND = 1.25
"""The factor by which the slopes of the tail's halves may differ; for 1/t over a tail of one half it is 1.4."""
_FIT = 0.9
_DIVERGED = "diverged"


class NotLinear(ValueError):
    """The curve does not converge linearly, and why."""


@dataclass(frozen=True)
class LinearRate:
    """A fitted rate; `low` and `high` are its interval if the residuals were independent, which they are not quite."""

    factor: float
    """What the suboptimality is multiplied with at each step."""
    low: float
    high: float
    r_squared: float
    points: int

    @property
    def halving(self) -> float:
        """Steps in which the suboptimality halves."""
        return math.log(0.5) / math.log(self.factor)


def linear_rate(
    steps: Sequence[float], suboptimality: Sequence[float], tail: float = 0.5, level: float = 0.95
) -> LinearRate:
    """Fit log(suboptimality) = a + step log(factor) by least squares over the last part of a curve.

    Args:
        steps: ascending.
        suboptimality: loss minus the optimal loss, above 0.
        tail: the share of the points, from the end, that are fitted: what comes before may be faster.
        level: coverage of the interval, in (0, 1).

    Raises:
        NotLinear: the tail does not fall, bends, or is not near any line (R^2 below 0.9).
        ValueError: lengths that differ, fewer than 6 points in the tail, or values that are not above 0.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(suboptimality, dtype=np.float64)
    first = len(x) - round(tail * len(x))
    if x.shape != y.shape or len(x) - first < _LEAST or not (np.diff(x) > 0).all():
        raise ValueError(
            f"{len(x)} steps, {len(y)} values, tail = {tail}: expected as many values as ascending steps, and at least "
            f"{_LEAST} of them in the tail; evaluate more often or fit a longer tail"
        )
    if not ((y > 0) & np.isfinite(y)).all():
        raise ValueError("suboptimality: expected values above 0; is the optimum given too high?")
    x, logs = x[first:], np.log(y[first:])
    fit = stats.linregress(x, logs)
    squared = float(fit.rvalue) ** 2
    _check_linear(x, logs, float(fit.slope), squared)
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 2)) * float(fit.stderr)
    low, high = math.exp(fit.slope - half), math.exp(fit.slope + half)
    return LinearRate(math.exp(fit.slope), low, high, squared, len(x))


def fewest_points(tail: float = 0.5) -> int:
    """How many points a curve needs for its tail to be fitted."""
    return next(points for points in itertools.count(_LEAST) if round(tail * points) >= _LEAST)


def _check_linear(x: np.ndarray, logs: np.ndarray, slope: float, squared: float) -> None:
    if not slope < 0 or not math.isfinite(squared):
        raise NotLinear(f"the suboptimality does not fall (slope {slope:.3g} a step)")
    middle = (len(x) + 1) // 2
    early, late = (float(np.polyfit(x[part], logs[part], 1)[0]) for part in (slice(middle), slice(-middle, None)))
    if not (late < 0 and 1 / _BEND <= late / early <= _BEND):
        raise NotLinear(f"its logarithm bends (slope {early:.3g} a step in the tail's first half, then {late:.3g})")
    if squared < _FIT:
        raise NotLinear(f"its logarithm is no line (R^2 = {squared:.2f})")


def linear_rates(
    study: Study,
    optimum: float = 0.0,
    metric: Curve = "test_loss",
    tail: float = 0.5,
    choices: Choices | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Fit the rate of every run of each cell at its own best tune.

    Args:
        study: read from disk; of a convex task.
        optimum: the lowest loss there is.
        metric: the curve; evaluate often enough for 6 points in the tail.
        tail: see `linear_rate`.
        choices: what `selection.choose` chose; chosen anew if None.
        level: coverage of the intervals, in (0, 1).

    Returns:
        Columns arm, cell, tune (keys), runs, diverged, fitted (how many converge linearly), factor, low, high (per
        step, of the mean log factor over the fitted runs; with one, its own interval), median (over the fitted runs and
        the diverged ones, whose factor is infinite), r_squared (the lowest), refused (why the others are not fitted,
        each reason once).

    Raises:
        ValueError: there is no such curve.
    """
    if metric not in study.curves:
        raise ValueError(f"metric = {metric!r}: expected one of {[str(name) for name in study.curves]}")
    choices = choose(study) if choices is None else choices
    curves = dict(list(study.curves[["step", metric]].dropna().groupby(level="run", sort=False)))
    rows = []
    for cell in study.cells.values():
        tune = tune_at(study, choices, cell, "best")
        if tune is not None:
            runs = study.finished(cell.arm, cell.key, tune)
            found = [
                _fit(curves.get(run), status, optimum, tail, level) for run, status in runs[["run", "status"]].values
            ]
            rows.append({"arm": cell.arm, "cell": cell.key, "tune": tune, **_summary(found, level)})
    columns = ["arm", "cell", "tune", "runs", "diverged", "fitted", "factor", "low", "high", "median", "r_squared"]
    return pd.DataFrame(rows, columns=[*columns, "refused"])


def _fit(curve: pd.DataFrame | None, status: str, optimum: float, tail: float, level: float) -> LinearRate | str:
    if status == "diverged" or curve is None:
        return _DIVERGED if status == "diverged" else "no curve"
    try:
        return linear_rate(curve.iloc[:, 0].tolist(), (curve.iloc[:, 1] - optimum).tolist(), tail, level)
    except ValueError as error:
        return str(error)


def _summary(found: Sequence[LinearRate | str], level: float) -> dict[str, object]:
    fits = [fit for fit in found if isinstance(fit, LinearRate)]
    reasons = "; ".join(dict.fromkeys(fit for fit in found if isinstance(fit, str)))
    lost = sum(fit == _DIVERGED for fit in found)
    row: dict[str, object] = {"runs": len(found), "diverged": lost, "fitted": len(fits), "refused": reasons}
    if fits or lost:
        row["median"] = median([*(fit.factor for fit in fits), *[math.inf] * lost])
    if not fits:
        return row
    mean = summarize([math.log(fit.factor) for fit in fits], level)
    low, high = (fits[0].low, fits[0].high) if len(fits) == 1 else (math.exp(mean.low), math.exp(mean.high))
    return row | {"factor": math.exp(mean.mean), "low": low, "high": high, "r_squared": min(f.r_squared for f in fits)}
