"""Times to an event that some runs never had: Kaplan-Meier curves and the log-rank test.

    curve = kaplan_meier([3, 5, 8, 8], [True, True, True, False])    # the last run was stopped at 8, target not reached
    curve.median, curve.median_low, curve.median_high

A mean over the runs that got there would favour an arm whose slow runs never do. A run that did not reach the target is
censored: all that is known is that it needs longer than it had.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from insgd_lab.analysis.statistics.samples import check_level

__all__ = ["Survival", "kaplan_meier", "log_rank"]


@dataclass(frozen=True)
class Survival:
    """The share of runs that have reached the target by each time, with a pointwise band.

    Times have the unit that they were given in. Medians are infinite where fewer than half have reached it, or where
    the band never gets that far. The band is NaN before the first run got there and once all have: there the formula
    knows no width, which is no certainty.
    """

    times: np.ndarray
    """The different times at which some run got there or was censored, ascending."""
    reached: np.ndarray
    """The share that has got there by then, in [0, 1]."""
    low: np.ndarray
    high: np.ndarray
    median: float
    median_low: float
    median_high: float
    runs: int
    events: int
    """Runs that got there."""


def kaplan_meier(times: Sequence[float], reached: Sequence[bool], level: float = 0.95) -> Survival:
    """Kaplan and Meier's estimate (JASA 53, 1958) with a log-log band and the median's interval from it.

    The band is Greenwood's on the log-log scale, so it stays within [0, 1] (Kalbfleisch and Prentice, 1980), and the
    interval of the median is where it includes one half (Brookmeyer and Crowley, Biometrics 38, 1982).

    Args:
        times: of each run, when it got there, or how long it was watched if it did not; at least 0.
        reached: of each run, whether it got there.
        level: coverage, in (0, 1).

    Raises:
        ValueError: no runs, lengths that differ, times that are negative or not finite, or an impossible level.
    """
    check_level(level)
    sample = _censored(times, reached)
    curve = stats.ecdf(sample).cdf
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where none or all have got there
        band = curve.confidence_interval(level, method="log-log")
    low, high = band.low.probabilities, band.high.probabilities
    count = int(np.sum(reached))
    earliest = np.where(curve.probabilities == 1, 1.0, high)  # by then half were there, whatever the band says
    median, median_low, median_high = (_first(curve.quantiles, s) for s in (curve.probabilities, earliest, low))
    return Survival(curve.quantiles, curve.probabilities, low, high, median, median_low, median_high, len(times), count)


def _first(times: np.ndarray, share: np.ndarray) -> float:
    """The first time by which half are there."""
    there = np.flatnonzero(share >= 0.5)
    return float(times[there[0]]) if len(there) else math.inf


def _censored(times: Sequence[float], reached: Sequence[bool]) -> stats.CensoredData:
    numbers, there = np.asarray(times, dtype=np.float64), np.asarray(reached, dtype=bool)
    if not len(numbers) or numbers.shape != there.shape:
        raise ValueError(f"{len(numbers)} times and {len(there)} marks: expected as many, at least one")
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError(f"times = {numbers.tolist()}: expected finite times; censor a run at the budget it had")
    order = np.lexsort((there, numbers))
    return stats.CensoredData.right_censored(numbers[order], ~there[order])


def log_rank(
    times: Sequence[float], reached: Sequence[bool], other_times: Sequence[float], other_reached: Sequence[bool]
) -> float:
    """Return p of the log-rank test that both groups get there at equal rates.

    After Mantel (Cancer Chemotherapy Reports 50, 1966). Two-sided and asymptotic: with 5 runs against 5 its smallest
    values are rough. It does not know pairs. Where no run got there, or nothing tells the groups apart, p is 1.

    Raises:
        ValueError: see `kaplan_meier`.
    """
    one, other = _censored(times, reached), _censored(other_times, other_reached)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where there is nothing to tell
        p = float(stats.logrank(one, other).pvalue)
    return 1.0 if math.isnan(p) else p
