"""Tests from what papers print: means, standard deviations and numbers of runs, all rounded.

arm, base = Summary(78.15, 0.43, 7, 0.005, 0.005), Summary(77.22, 0.43, 7, 0.005, 0.005)
p_value(arm, base)                     # Welch's t-test, two-sided: 0.0016
interval(arm, base)                    # of the difference of means: 0.43 to 1.43
p_range(arm, base)                     # what p can be, as every figure was rounded to two decimals
runs_needed(arm, base)                 # runs an arm for 80 % power at this difference and these sds: 5
sd_bound(0.93, 7, 7)                   # the sd of both arms below which the difference would be significant
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from insgd_lab.analysis.statistics import seeds_needed, welch_error

__all__ = ["LEVEL", "POWER", "Summary", "interval", "p_range", "p_value", "runs_needed", "sd_bound"]

LEVEL = 0.05
"""Two-sided level of every test and 1 - coverage of every interval."""
POWER = 0.8
_GRID = 65
"""Points at which an edge, and then the best stretch of it, is looked at."""
_ROUNDS = 3
"""How often: the last grid is a thousand times as fine as the first, and p is flat where it is least."""

Range = tuple[float, float]
Numbers = float | np.ndarray


@dataclass(frozen=True)
class Summary:
    """An arm as printed: mean, standard deviation (n - 1 in its denominator) and number of runs, at least 2."""

    mean: float
    sd: float
    n: int
    half: float = 0.0
    """By how much rounding can have moved the mean: half a unit of its last printed digit."""
    sd_half: float = 0.0
    """By how much it can have moved the standard deviation."""


def _p(difference: float, sd: Numbers, n: int, base_sd: Numbers, base_n: int) -> Numbers:
    """Welch's p-value; of arrays of standard deviations, that of each pair."""
    with np.errstate(divide="ignore", invalid="ignore"):  # two standard deviations of 0
        test = stats.ttest_ind_from_stats(difference, sd, n, 0.0, base_sd, base_n, equal_var=False)
    found: Numbers = np.where(difference == 0, 1.0, test.pvalue)
    return found


def p_value(arm: Summary, base: Summary) -> float:
    """Welch's two-sided t-test of equal means (Welch, Biometrika 34, 1947)."""
    return float(_p(arm.mean - base.mean, arm.sd, arm.n, base.sd, base.n))


def interval(arm: Summary, base: Summary) -> Range:
    """The 95 % interval of the difference of means that belongs to Welch's test."""
    found = welch_error(arm.sd, arm.n, base.sd, base.n)
    error, degrees = found.error, found.degrees
    half = float(stats.t.ppf(1 - LEVEL / 2, degrees)) * error
    difference = arm.mean - base.mean
    return difference - half, difference + half


# ------------------------------------------------------------------------------------------------ rounding


def p_range(arm: Summary, base: Summary) -> Range:
    """The least and the largest p-value that printed figures allow, each rounded by at most what the arms say.

    p falls as the difference moves away from 0 and rises as both standard deviations grow together. It does not
    always rise in one of them alone: raising the smaller one also adds degrees of freedom. So the extremes lie on
    edges of the rectangle of standard deviations, not always in its corners, and are searched for there.
    """
    differences = abs(arm.mean - base.mean) + np.array([-1, 1]) * (arm.half + base.half)
    sds, base_sds = ((max(one.sd - one.sd_half, 0.0), one.sd + one.sd_half) for one in (arm, base))

    def p_at(difference: float) -> Callable[[Numbers, Numbers], Numbers]:
        return lambda sd, base_sd: _p(difference, sd, arm.n, base_sd, base.n)

    low = _least(p_at(float(differences[1])), sds, base_sds)
    if differences[0] <= 0:
        return low, 1.0
    return low, -_least(lambda a, b: -p_at(float(differences[0]))(a, b), sds[::-1], base_sds[::-1])


def _least(function: Callable[[Numbers, Numbers], Numbers], first: Range, second: Range) -> float:
    """The least value of a function on the two edges that meet at (first[0], second[0])."""
    edges = (
        _least_on(lambda x: function(first[0], x), second),
        _least_on(lambda x: function(x, second[0]), first),
    )
    return min(edges)


def _least_on(function: Callable[[Numbers], Numbers], ends: Range) -> float:
    """By a grid over the edge, then over the stretch around its least value, and so on."""
    low, high, least = min(ends), max(ends), math.inf
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _GRID)
        values = np.asarray(function(grid))
        at = int(values.argmin())
        least = min(least, float(values[at]))
        low, high = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, _GRID - 1)])
    return least


# ------------------------------------------------------------------------------------------------ power


def runs_needed(arm: Summary, base: Summary) -> int | None:
    """The fewest runs an arm that give 80 % power if the difference and the standard deviations are the printed ones.

    Without any correction for several comparisons, with which it takes more. None where the means are equal, or so near
    that a billion runs would not do.
    """
    difference = arm.mean - base.mean
    if difference == 0:
        return None
    if arm.sd == base.sd == 0:
        return 2
    try:
        return seeds_needed(difference, arm.sd, POWER, LEVEL, paired=False, other_sd=base.sd)
    except ValueError:
        return None


def sd_bound(difference: float, n: int, base_n: int, level: float = LEVEL) -> float:
    """The standard deviation, the same in both arms, below which a difference has p < level in Welch's test."""
    found = welch_error(1.0, n, 1.0, base_n)
    error, degrees = found.error, found.degrees
    return abs(difference) / (error * float(stats.t.ppf(1 - level / 2, degrees)))
