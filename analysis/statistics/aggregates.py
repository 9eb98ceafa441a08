"""Several tasks in one number: the interquartile mean, with intervals from a stratified bootstrap.

    estimate = stratified_bootstrap({"digits": [0.97, 0.98], "cifar10": [0.91, 0.90]}, iqm)
    estimate.value, estimate.low, estimate.high

After Agarwal et al., Deep RL at the edge of the statistical precipice (NeurIPS 2021), whose code is rliable. A single
task is refused: resampling a handful of numbers gives too narrow an interval (see `intervals`), and it is only over
tasks that there are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from insgd_lab.analysis.statistics.samples import check_level, finite

__all__ = ["Estimate", "bootstrap", "iqm", "stratified_bootstrap"]

Method = Literal["percentile", "BCa"]


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: float
    low: float
    high: float


def iqm(scores: Any, axis: int | None = None) -> Any:
    """The mean of the middle half: a quarter of the scores is cut off at either end, as rliable does.

    It is less at the mercy of one run than the mean, and takes less luck to get than the median.

    Args:
        scores: of all runs and tasks, which a common scale must suit.
        axis: along which; all if None.
    """
    return stats.trim_mean(np.sort(scores, axis=axis), 0.25, axis=axis)


def stratified_bootstrap(
    scores: Mapping[str, Sequence[float]],
    statistic: Callable[..., Any] = iqm,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    method: Method = "percentile",
) -> Estimate:
    """A statistic of all scores together, with an interval from drawing seeds again within each task.

    The tasks stay as they are, so the interval speaks of these tasks with other seeds, not of other tasks.

    Args:
        scores: by task, one finite score a run; of a comparison, one paired difference a seed.
        statistic: of all scores, called with `axis`; such as `iqm`, numpy.mean or numpy.median.
        level: coverage of the interval, in (0, 1).
        resamples: how often seeds are drawn again.
        seed: of the drawing; equal seeds give equal intervals.
        method: "percentile", as rliable has it, or "BCa", bias-corrected and accelerated (Efron, JASA 82, 1987).

    Raises:
        ValueError: fewer than two tasks, one with fewer than two runs, a score that is not finite, or an impossible
            level.
    """

    def whole(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(statistic(np.concatenate(samples, axis=axis), axis=axis))

    return bootstrap(scores, whole, level, resamples, seed, method)


def bootstrap(
    samples: Mapping[Any, Sequence[float]],
    statistic: Callable[..., np.ndarray],
    level: float,
    resamples: int,
    seed: int,
    method: Method = "percentile",
) -> Estimate:
    """The interval of a statistic of several samples, each drawn again for itself; scipy.stats.bootstrap does it.

    Args:
        samples: by name, at least two; the order of neither names nor numbers matters.
        statistic: called with one array a sample, [..., runs], and `axis`; samples in the order of their names.
        level: coverage of the interval, in (0, 1).
        resamples: how often.
        seed: of the drawing.
        method: "percentile" or "BCa".

    Raises:
        ValueError: see `stratified_bootstrap`.
    """
    check_level(level)
    drawn = [finite(samples[name]) for name in sorted(samples)]
    if len(drawn) < 2 or min(map(len, drawn)) < 2:
        raise ValueError(
            f"{list(map(len, drawn))} scores: expected two tasks or more, each with two runs or more; of a single task "
            "give the t-interval (summarize)"
        )
    value = float(statistic(*drawn, axis=-1))
    if all(np.ptp(sample) == 0 for sample in drawn):
        return Estimate(value, value, value)  # nothing varies, which BCa cannot divide by
    found = stats.bootstrap(
        drawn,
        statistic,
        n_resamples=resamples,
        confidence_level=level,
        method=method,
        batch=1000,
        vectorized=True,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high))
