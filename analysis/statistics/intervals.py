"""What one arm's seeds can say: means, standard deviations, intervals.

    summary = summarize([0.021, 0.019, 0.024, 0.022, 0.020])
    summary.mean, summary.low, summary.high     # the mean and its 95 % t-interval

Intervals of means are Student's t-intervals. A percentile bootstrap is not offered for single arms:
resampling 3 to 7 numbers cannot produce values more spread out than those numbers, so an interval that says
95 % covers only 75 to 88 % of the time there. It is a tool for aggregates over many runs (`aggregates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from insgd_lab.analysis.statistics.samples import Key, check_level, differences, finite, steady

__all__ = ["Summary", "binomial_interval", "paired_difference", "summarize"]


@dataclass(frozen=True)
class Summary:
    """Numbers from `n` seeds in brief; `sd` and the interval are NaN where n < 2, everything where n = 0.

    Numbers that do not spread have no interval either: that a few are alike, being shares of a small test set, or the
    error of guessing of runs that diverged, or one run again, does not make their mean certain.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Summary:
        """The summary of the same numbers in other units, `factor` > 0 of them in one of these."""
        return Summary(self.n, self.mean * factor, self.sd * factor, self.low * factor, self.high * factor)


@lru_cache(maxsize=256)
def _t_quantile(degrees: int, level: float) -> float:
    return float(stats.t.ppf(0.5 + level / 2, degrees))


def summarize(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Summary:
    """Mean, standard deviation (n - 1 in the denominator) and t-interval of the mean.

    Args:
        values: one finite number a seed, in any unit, which all results share.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: a value is not finite, or the level is out of range.
    """
    check_level(level)
    numbers = finite(values)
    n = len(numbers)
    if n < 2:
        mean = float(numbers[0]) if n else float("nan")
        return Summary(n, mean, float("nan"), float("nan"), float("nan"))
    numbers = steady(numbers, float(np.abs(numbers[[0, -1]]).max()))
    if numbers[0] == numbers[-1]:  # numpy has a mean of equal numbers that is not theirs, and a spread around it
        return Summary(n, float(numbers[0]), 0.0, float("nan"), float("nan"))
    mean, sd = float(numbers.mean()), float(numbers.std(ddof=1))
    half = _t_quantile(n - 1, level) * sd / float(np.sqrt(n))
    return Summary(n, mean, sd, mean - half, mean + half)


def paired_difference(treated: Mapping[Key, float], control: Mapping[Key, float], level: float = 0.95) -> Summary:
    """Summary of treated - control over the seeds that both have.

    Runs with one seed share initial weights, data order and augmentation, so their difference varies less
    than either score does.
    """
    return summarize(differences(treated, control), level)


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a share, e.g. of runs that diverged.

    Raises:
        ValueError: not 0 <= successes <= trials, or trials = 0; or the level is out of range.
    """
    check_level(level)
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials}: expected 0 <= successes <= trials and trials > 0")
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high
