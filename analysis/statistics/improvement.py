"""How often a run of one arm beats a run of the other: P(X > Y).

    improvement = probability_of_improvement([0.98, 0.97, 0.99], [0.96, 0.98, 0.95])
    improvement.value, improvement.low, improvement.high

It only ranks, so it needs no scale on which a diverged run has a number: give it -inf. Larger scores are better;
of errors give the negatives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, stats

from insgd_lab.analysis.statistics.aggregates import Estimate, bootstrap
from insgd_lab.analysis.statistics.samples import check_level, without_nan

__all__ = ["improvement_over_tasks", "probability_of_improvement"]


def probability_of_improvement(treated: Sequence[float], control: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate P(X > Y) + P(X = Y) / 2 of a random run of each arm: Mann and Whitney's U over all pairs.

    The interval is Newcombe's method 5 (Statistics in Medicine 25, 2006, part 2): where no run of one arm beats any of
    the other it still has a width, unlike DeLong's, and a bootstrap's. It is asymptotic: with a few seeds it says
    little more than that they are few.

    Args:
        treated: one score a run, larger is better; -inf for one that diverged.
        control: likewise.
        level: coverage of the interval, in (0, 1).

    Returns:
        The estimate and its interval, in [0, 1]; NaN where an arm has no run.

    Raises:
        ValueError: a score is NaN, or the level is out of range.
    """
    check_level(level)
    one, other = without_nan(treated), without_nan(control)
    if not len(one) or not len(other):
        return Estimate(math.nan, math.nan, math.nan)
    value = _share_won(one, other)
    z = float(stats.norm.ppf(0.5 + level / 2))
    low = 1 - _upper_end(1 - value, len(one), len(other), z)
    return Estimate(value, min(low, value), max(_upper_end(value, len(one), len(other), z), value))


def _share_won(one: np.ndarray, other: np.ndarray) -> float:
    """Wins and half the ties among all pairs; by bisection, for `other` is sorted."""
    wins = np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")
    return float(wins.sum() / (2 * len(one) * len(other)))


def _upper_end(value: float, m: int, n: int, z: float) -> float:
    """The largest share with which `value` agrees: (value - share)^2 = z^2 variance(share)."""
    if value == 1:
        return 1.0
    more = (m + n) / 2 - 1

    def excess(share: float) -> float:
        variance = share * (1 - share) * (1 + more * ((1 - share) / (2 - share) + share / (1 + share))) / (m * n)
        return (value - share) ** 2 - z**2 * variance

    start = max(value, 1e-9)  # at a share of 0 there is no variance, and a root that means nothing
    return float(optimize.brentq(excess, start, 1.0, xtol=1e-12))


def improvement_over_tasks(
    treated: Mapping[str, Sequence[float]],
    control: Mapping[str, Sequence[float]],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The mean over tasks of the probability of improvement, with a stratified bootstrap interval.

    This is the aggregate of Agarwal et al. (Deep RL at the edge of the statistical precipice, NeurIPS 2021): runs are
    drawn again within each task and arm.

    Args:
        treated: by task, one finite score a run, larger is better.
        control: likewise, of the same tasks.
        level: coverage of the interval, in (0, 1).
        resamples: how often runs are drawn again.
        seed: of the drawing.

    Raises:
        ValueError: the tasks differ, there are none, one has fewer than two runs, or a score is not finite.
    """
    if treated.keys() != control.keys():
        raise ValueError(f"tasks {sorted(treated)} and {sorted(control)}: expected the same of both arms")
    tasks = len(treated)

    def mean_share(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        won = [_shares(one, other) for one, other in zip(samples[:tasks], samples[tasks:], strict=True)]
        return np.asarray(np.mean(won, axis=0))

    arms = (treated, control)
    joined = {(k, task): scores for k, arm in enumerate(arms) for task, scores in arm.items()}  # the first arm first
    return bootstrap(joined, mean_share, level, resamples, seed)


def _shares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Wins and half the ties along the last axes: [..., m] and [..., n] give [...]."""
    signs = np.sign(one[..., :, None] - other[..., None, :])
    return np.asarray((1 + signs.mean(axis=(-2, -1))) / 2)
