"""How many seeds a difference needs, and which difference the seeds at hand could have found.

    seeds_needed(0.5, sd=0.4)            # seeds to find 0.5 points where paired differences have an sd of 0.4
    detectable_difference(5, sd=0.4)     # what 5 seeds find in 4 of 5 studies
    power_of(0.5, sd=0.4, n=5)           # how often 5 seeds find 0.5 points

Exact for two-sided t-tests (noncentral t; Cohen, Statistical power analysis, 1988); where two arms have standard
deviations of their own, as good as Satterthwaite's degrees of freedom. The standard deviation is a guess as good as the
seeds that it was estimated from: of 5, the 95 % interval of an sd reaches from 0.6 to 2.9 times it.
Reckoned with the observed difference, power says nothing that p does not; hence there is no such routine.
"""

from __future__ import annotations

import math
from functools import lru_cache

from scipy import optimize, stats

from insgd_lab.analysis.statistics.differences import WelchError, welch_error
from insgd_lab.analysis.statistics.samples import check_level

__all__ = ["detectable_difference", "power_of", "seeds_needed"]

_MOST = 1_000_000_000


def power_of(
    difference: float, sd: float, n: int, alpha: float = 0.05, paired: bool = True, other_sd: float | None = None
) -> float:
    """The chance that a two-sided t-test at `alpha` finds a true difference.

    Args:
        difference: the true one, in any unit.
        sd: if paired of the differences by seed, else of the scores of one arm; the same unit, above 0.
        n: pairs, or scores in each arm; at least 2.
        alpha: level of the test, in (0, 1).
        paired: whether the arms share their seeds.
        other_sd: if not paired, of the other arm's scores, where it is not that of the first (Welch's test); one of the
            two may be 0.

    Raises:
        ValueError: a value that cannot be.
    """
    _check(sd, other_sd, alpha, paired)
    if n < 2:
        raise ValueError(f"n = {n}: expected at least 2 seeds; fewer have no spread to test with")
    found = WelchError(sd / math.sqrt(n), n - 1) if paired else welch_error(sd, n, _other(sd, other_sd), n)
    shift, critical = abs(difference) / found.error, float(stats.t.isf(alpha / 2, found.degrees))
    # The wrong side as the mirror image of this one: scipy's nct.cdf is NaN where it is tiny.
    return float(stats.nct.sf(critical, found.degrees, shift) + stats.nct.sf(critical, found.degrees, -shift))


def seeds_needed(
    difference: float,
    sd: float,
    power: float = 0.8,
    alpha: float = 0.05,
    paired: bool = True,
    other_sd: float | None = None,
) -> int:
    """The fewest seeds (of each arm) at which a true difference is found with the given power.

    Args:
        difference: the true one, in any unit; not 0.
        sd: see `power_of`.
        power: wanted, in (0, 1) and above alpha.
        alpha: level of the test, in (0, 1).
        paired: whether the arms share their seeds.
        other_sd: see `power_of`.

    Raises:
        ValueError: a value that cannot be, or more than a billion seeds were needed.
    """
    _check(sd, other_sd, alpha, paired, power)
    if not math.isfinite(difference) or difference == 0:
        raise ValueError(f"difference = {difference}: expected a finite one other than 0, which no seeds find")
    low, high = 1, 2  # too few, enough
    while power_of(difference, sd, high, alpha, paired, other_sd) < power:
        low, high = high, 2 * high
        if high > _MOST:
            raise ValueError(f"difference = {difference} beside sd = {sd}: needs more than {_MOST:,} seeds")
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of(difference, sd, middle, alpha, paired, other_sd) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def detectable_difference(n: int, sd: float, power: float = 0.8, alpha: float = 0.05, paired: bool = True) -> float:
    """The smallest true difference that `n` seeds (of each arm) find with the given power, in the unit of `sd`.

    Args:
        n: pairs, or scores in each arm.
        sd: see `power_of`.
        power: wanted, in (0, 1) and above alpha.
        alpha: level of the test, in (0, 1).
        paired: whether the arms share their seeds.

    Returns:
        The difference; NaN below 2 seeds, which find nothing.

    Raises:
        ValueError: a value that cannot be.
    """
    _check(sd, None, alpha, paired, power)
    return math.nan if n < 2 else sd * _detectable_effect(n, power, alpha, paired)


@lru_cache(maxsize=256)
def _detectable_effect(n: int, power: float, alpha: float, paired: bool) -> float:
    high = 1.0
    while power_of(high, 1.0, n, alpha, paired) < power:
        high *= 2
    found = optimize.brentq(lambda effect: power_of(effect, 1.0, n, alpha, paired) - power, 0.0, high, xtol=1e-10)
    return float(found)


def _other(sd: float, other_sd: float | None) -> float:
    return sd if other_sd is None else other_sd


def _check(sd: float, other_sd: float | None, alpha: float, paired: bool, power: float = 0.8) -> None:
    check_level(alpha)
    check_level(power)
    if paired and other_sd is not None:
        raise ValueError(
            f"other_sd = {other_sd}: pairs have one sd, that of their differences; give it or paired=False"
        )
    sds = (sd, _other(sd, other_sd))
    if not (min(sds) >= 0 and 0 < max(sds) < math.inf):
        given = f"sd = {sd}" if other_sd is None else f"sd = {sd} and other_sd = {other_sd}"
        raise ValueError(f"{given}: expected a finite standard deviation above 0")
    if power <= alpha:
        raise ValueError(f"power = {power}: expected more than alpha = {alpha}, which any test has")
