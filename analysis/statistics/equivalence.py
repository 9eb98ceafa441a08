"""Are two means the same, as far as it matters: two one-sided tests against a margin stated beforehand.

    result = tost_published([93.1, 93.4, 92.9], mean=93.3, sd=0.2, n=7, margin=0.5)
    result.p, result.equivalent

That a t-test finds no difference says nothing of the kind: with few seeds it seldom finds one. Here the burden lies the
other way round: "equivalent" is said only if a difference as large as the margin can be ruled out on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from insgd_lab.analysis.statistics.differences import welch_error
from insgd_lab.analysis.statistics.intervals import summarize
from insgd_lab.analysis.statistics.samples import Key, check_level, differences

__all__ = ["Equivalence", "tost_paired", "tost_published", "tost_welch"]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests; differences in the unit of the scores, NaN where there are too few, or they do not spread.

    A few seeds without any difference, of errors that are shares of a small test set, are no proof that there is none.
    """

    difference: float
    low: float
    """The interval at 1 - 2 alpha: it lies within the margin exactly if p < alpha."""
    high: float
    degrees: float
    p_below: float
    """Of the test that rules out a difference of -margin or less."""
    p_above: float
    """Of the test that rules out a difference of +margin or more."""
    margin: float
    alpha: float

    @property
    def p(self) -> float:
        """The larger of the two: both must be ruled out."""
        return max(self.p_below, self.p_above) if not math.isnan(self.p_below) else math.nan

    @property
    def equivalent(self) -> bool:
        """Whether a difference as large as the margin is ruled out at alpha."""
        return self.p < self.alpha


def tost_published(
    values: Sequence[float], mean: float, sd: float, n: int, margin: float, alpha: float = 0.05
) -> Equivalence:
    """Test the mean of our runs against a published one by two one-sided Welch tests.

    After Schuirmann (Journal of Pharmacokinetics and Biopharmaceutics 15, 1987).

    Args:
        values: one finite score a seed, in the unit of the published figures.
        mean: as printed.
        sd: as printed, with n - 1 in the denominator.
        n: how many runs the printed mean is of.
        margin: the smallest difference that would matter, stated before the results are seen; above 0.
        alpha: level of either test, in (0, 0.5).

    Raises:
        ValueError: a margin, alpha, sd or n that cannot be, or a score that is not finite.
    """
    _check(margin, alpha)
    ours = summarize(values)
    if ours.n < 2:
        return _equivalence(ours.mean - mean, math.nan, math.nan, margin, alpha)
    error = welch_error(ours.sd, ours.n, sd, n)
    return _equivalence(ours.mean - mean, error.error, error.degrees, margin, alpha)


def tost_paired(
    treated: Mapping[Key, float], control: Mapping[Key, float], margin: float, alpha: float = 0.05
) -> Equivalence:
    """Test treated - control, paired by seed, against the margin.

    Raises:
        ValueError: a margin or alpha that cannot be, or a score that is not finite.
    """
    _check(margin, alpha)
    summary = summarize(differences(treated, control))
    error = summary.sd / math.sqrt(summary.n) if summary.n else math.nan
    return _equivalence(summary.mean, error, summary.n - 1, margin, alpha)


def tost_welch(treated: Sequence[float], control: Sequence[float], margin: float, alpha: float = 0.05) -> Equivalence:
    """Test the difference of two means, each with a standard deviation of its own, by two one-sided Welch tests.

    Raises:
        ValueError: a margin or alpha that cannot be, or a score that is not finite.
    """
    _check(margin, alpha)
    one, other = summarize(treated), summarize(control)
    difference = one.mean - other.mean
    if min(one.n, other.n) < 2:
        return _equivalence(difference, math.nan, math.nan, margin, alpha)
    error = welch_error(one.sd, one.n, other.sd, other.n)
    return _equivalence(difference, error.error, error.degrees, margin, alpha)


def _check(margin: float, alpha: float) -> None:
    check_level(2 * alpha)
    if not 0 < margin < math.inf:
        raise ValueError(f"margin = {margin}: expected a difference above 0, in the unit of the scores")


def _equivalence(difference: float, error: float, degrees: float, margin: float, alpha: float) -> Equivalence:
    if not error > 0:
        return Equivalence(difference, math.nan, math.nan, math.nan, math.nan, math.nan, margin, alpha)
    half = float(stats.t.ppf(1 - alpha, degrees)) * error
    below, above = (
        float(stats.t.sf(distance / error, degrees)) for distance in (margin + difference, margin - difference)
    )
    return Equivalence(difference, difference - half, difference + half, degrees, below, above, margin, alpha)
