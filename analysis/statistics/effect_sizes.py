"""How large a difference is beside the spread of seeds: Hedges' g.

    hedges_g([0.021, 0.019, 0.024], [0.025, 0.024, 0.026])           # in standard deviations of one run
    hedges_g_paired({0: 0.021, 1: 0.019, 2: 0.024}, {0: 0.025, 1: 0.024, 2: 0.026})   # in those of a difference

The two have different units and must not be compared: pairing takes out what seeds share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from insgd_lab.analysis.statistics.intervals import summarize
from insgd_lab.analysis.statistics.samples import Key, check_level, differences

__all__ = ["EffectSize", "hedges_g", "hedges_g_paired", "small_sample_correction"]


@dataclass(frozen=True)
class EffectSize:
    """Hedges' g and its interval, without unit; NaN where there are too few scores, or they do not vary."""

    g: float
    low: float
    high: float


_NONE = EffectSize(math.nan, math.nan, math.nan)


def small_sample_correction(degrees: float) -> float:
    """Hedges' J, which takes the bias out of a standardised mean difference (J. Educ. Stat. 6, 1981, equation 6e).

    It is the exact one with gamma functions, not the usual approximation 1 - 3 / (4 df - 1), which is off by 6 % at
    2 degrees of freedom.

    Raises:
        ValueError: not more than one degree of freedom, where g has no mean.
    """
    if not degrees > 1:
        raise ValueError(f"degrees = {degrees}: expected more than 1, that is at least 3 pairs, or 2 scores an arm")
    return math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees - 1) / 2)) / math.sqrt(degrees / 2)


def hedges_g(treated: Sequence[float], control: Sequence[float], level: float = 0.95) -> EffectSize:
    """The difference of two means over their pooled standard deviation, with its noncentral-t interval.

    Args:
        treated: one finite score a run, at least two.
        control: likewise.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: a score is not finite, or the level is out of range.
    """
    check_level(level)
    one, other = summarize(treated), summarize(control)
    degrees = one.n + other.n - 2
    if min(one.n, other.n) < 2:
        return _NONE
    pooled = ((one.n - 1) * one.sd**2 + (other.n - 1) * other.sd**2) / degrees
    root = math.sqrt(one.n * other.n / (one.n + other.n))
    return _effect(one.mean - other.mean, math.sqrt(pooled), root, degrees, level)


def hedges_g_paired(treated: Mapping[Key, float], control: Mapping[Key, float], level: float = 0.95) -> EffectSize:
    """The mean difference by seed over the standard deviation of the differences, with its noncentral-t interval.

    Raises:
        ValueError: a score is not finite, or the level is out of range.
    """
    summary = summarize(differences(treated, control), level)
    if summary.n < 3:
        return _NONE
    return _effect(summary.mean, summary.sd, math.sqrt(summary.n), summary.n - 1, level)


def _effect(difference: float, sd: float, root: float, degrees: int, level: float) -> EffectSize:
    """Hedges' g is J d, and t = d * root has the noncentral t-distribution with noncentrality delta * root.

    The ends are the noncentralities at which t is an extreme draw (Steiger and Fouladi, 1997), to about 1e-6.
    """
    if not sd > 0 or not math.isfinite(difference / sd):
        return _NONE
    scale = small_sample_correction(degrees)
    t, tail = difference / sd * root, (1 - level) / 2
    low, high = (float(special.nctdtrinc(degrees, p, t)) * scale / root for p in (1 - tail, tail))
    return EffectSize(scale * t / root, low, high)
