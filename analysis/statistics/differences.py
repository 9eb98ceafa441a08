"""Is one arm's mean another than the other's: the tests of two arms over the same or over different seeds.

    test = paired_t({0: 0.021, 1: 0.019, 2: 0.024}, {0: 0.025, 1: 0.024, 2: 0.026})
    test.difference, test.low, test.high, test.p

Runs with one seed share initial weights, data order and augmentation, so the paired t-test is the primary one. All
tests are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from insgd_lab.analysis.statistics.intervals import summarize
from insgd_lab.analysis.statistics.samples import Key, differences, ranked_differences, steady

__all__ = ["MeanTest", "RankTest", "WelchError", "paired_t", "welch", "welch_error", "wilcoxon"]

_EXACT = 50
"""Pairs up to which the signed-rank distribution is enumerated; beyond, its normal approximation is as good."""


@dataclass(frozen=True)
class MeanTest:
    """A t-test of a difference of means, in the unit of the scores; NaN where there are too few, or they do not spread.

    Scores are shares of a test set, and a few of them are soon alike by chance: a difference without any spread is not
    beyond doubt, it is untested. Only where there is no difference either is p 1, of a setting that changes nothing.
    """

    difference: float
    low: float
    high: float
    t: float
    degrees: float
    p: float
    sizes: tuple[int, ...]
    """How many pairs, or how many scores of each arm."""


@dataclass(frozen=True)
class RankTest:
    """Wilcoxon's signed-rank test."""

    pairs: int
    zeros: int
    """Pairs without a difference; they take no part."""
    statistic: float
    """Sum of the ranks of the positive differences."""
    p: float
    smallest_p: float
    """What p would be if all differences had one sign: with 5 pairs 0.0625, so no 5 seeds reach 0.05."""


def paired_t(treated: Mapping[Key, float], control: Mapping[Key, float], level: float = 0.95) -> MeanTest:
    """Student's t-test of treated - control over the seeds that both have (Student, Biometrika 6, 1908).

    Args:
        treated: one finite score a seed.
        control: likewise.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: a score is not finite, or the level is out of range.
    """
    summary = summarize(differences(treated, control), level)
    error = summary.sd / math.sqrt(summary.n) if summary.n else math.nan
    t, p = _t_and_p(summary.mean, error, summary.n - 1)
    return MeanTest(summary.mean, summary.low, summary.high, t, float(summary.n - 1), p, (summary.n,))


def welch(treated: Sequence[float], control: Sequence[float], level: float = 0.95) -> MeanTest:
    """Welch's t-test of two means with standard deviations of their own (Welch, Biometrika 34, 1947).

    Raises:
        ValueError: a score is not finite, or the level is out of range.
    """
    one, other = summarize(treated, level), summarize(control, level)
    sizes = (one.n, other.n)
    difference = float(steady(np.array([one.mean - other.mean]), max(abs(one.mean), abs(other.mean)))[0])
    if min(sizes) < 2:
        return MeanTest(difference, math.nan, math.nan, math.nan, math.nan, math.nan, sizes)
    error = welch_error(one.sd, one.n, other.sd, other.n)
    t, p = _t_and_p(difference, error.error, error.degrees)
    half = float(stats.t.ppf(0.5 + level / 2, error.degrees)) * error.error if error.error > 0 else math.nan
    return MeanTest(difference, difference - half, difference + half, t, error.degrees, p, sizes)


@dataclass(frozen=True)
class WelchError:
    """The standard error of a difference of means, and its degrees of freedom."""

    error: float
    degrees: float


def welch_error(sd: float, n: int, other_sd: float, other_n: int) -> WelchError:
    """Welch's standard error and the degrees of freedom of Satterthwaite (Biometrics Bulletin 2, 1946).

    Raises:
        ValueError: fewer than two of either, or a negative standard deviation.
    """
    if min(n, other_n) < 2 or not min(sd, other_sd) >= 0:
        raise ValueError(f"n = {n}, {other_n} and sd = {sd}, {other_sd}: expected at least two of each, and sd >= 0")
    first, second = sd**2 / n, other_sd**2 / other_n
    total = first + second
    if total == 0:
        return WelchError(0.0, float(n + other_n - 2))
    # Shares first: the squares of small variances would vanish.
    degrees = 1 / ((first / total) ** 2 / (n - 1) + (second / total) ** 2 / (other_n - 1))
    return WelchError(math.sqrt(total), degrees)


def _t_and_p(difference: float, error: float, degrees: float) -> tuple[float, float]:
    """Student's t and its two-sided p; without a spread there is no test, but of no difference at all p is 1."""
    if not error > 0:
        return math.nan, 1.0 if error == difference == 0 else math.nan
    t = difference / error
    return t, float(2 * stats.t.sf(abs(t), degrees))


def wilcoxon(treated: Mapping[Key, float], control: Mapping[Key, float]) -> RankTest:
    """Wilcoxon's signed-rank test over the seeds that both have (Wilcoxon, Biometrics Bulletin 1, 1945).

    Up to 50 differences p is exact, with ties too (scipy's exact method knows none): all 2^n signs are counted. A
    score may be infinite: a diverged run ranks worst.

    Raises:
        ValueError: a score is NaN.
    """
    found = ranked_differences(treated, control)
    moved = found[found != 0]
    if not len(moved):
        return RankTest(len(found), len(found), 0.0, 1.0 if len(found) else math.nan, 1.0 if len(found) else math.nan)
    ranks = stats.rankdata(np.abs(moved))
    positive = float(ranks[moved > 0].sum())
    exact = len(moved) <= _EXACT
    p = _signed_rank_p(ranks, positive) if exact else float(stats.wilcoxon(moved, method="asymptotic").pvalue)
    return RankTest(len(found), len(found) - len(moved), positive, p, min(1.0, 2.0 ** (1 - len(moved))))


def _signed_rank_p(ranks: np.ndarray, positive: float) -> float:
    """Share of the 2^n sign vectors whose rank sum is as far out as `positive`, both sides."""
    doubled = np.rint(2 * ranks).astype(int)  # ties share halves of ranks
    counts = np.zeros(int(doubled.sum()) + 1)
    counts[0] = 1.0
    for rank in doubled:
        counts[rank:] = counts[rank:] + counts[: len(counts) - rank]
    lower = round(2 * min(positive, float(ranks.sum()) - positive))
    return float(min(1.0, 2 * counts[: lower + 1].sum() / 2.0 ** len(ranks)))
