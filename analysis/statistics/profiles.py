"""Many tasks in one picture: which share of them each arm masters, at every standard that one may set.

    performance_profile({"sgd": [10, 40, inf], "insgd": [20, 20, 90]})
    score_profile({"digits": [0.97, 0.98], "cifar10": [0.91, 0.90]}, [0.90, 0.95])

The first is of times: which share of the tasks an arm does within a factor of the fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from insgd_lab.analysis.statistics.aggregates import bootstrap
from insgd_lab.analysis.statistics.samples import finite

__all__ = ["performance_profile", "score_profile"]


def performance_profile(times: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Dolan and More's profile (Mathematical Programming 91, 2002): who is within a factor of the fastest, how often.

    A task counts for nobody where no arm reached the target. With more than two arms the profiles of the slower ones
    depend on which fast one is among them (Gould and Scott, ACM TOMS 43, 2016), so compare pairs if that matters.

    Args:
        times: by arm, the time to the target on each task, in the same order; infinite where it was not reached.

    Returns:
        Share of tasks by factor (index "factor", every ratio at which a curve steps, the first is 1) and arm.

    Raises:
        ValueError: no arm or task, lengths that differ, or a time that is not above 0.
    """
    lengths = {arm: len(row) for arm, row in times.items()}
    if not lengths or len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise ValueError(f"{lengths} times: expected arms with the same tasks, at least one")
    matrix = np.array(list(times.values()), dtype=np.float64)
    if not (matrix > 0).all():
        raise ValueError(f"times = {matrix.tolist()}: expected times above 0, infinite where a target was not reached")
    best = matrix.min(axis=0)
    ratios = np.divide(matrix, best, out=np.full_like(matrix, np.inf), where=np.isfinite(best) & np.isfinite(matrix))
    factors = np.unique(np.append(ratios[np.isfinite(ratios)], 1.0))
    shares = (ratios[:, :, None] <= factors).mean(axis=1)
    return pd.DataFrame(shares.T, index=pd.Index(factors, name="factor"), columns=list(times))


def score_profile(
    scores: Mapping[str, Sequence[float]],
    thresholds: Sequence[float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of runs above each threshold, a mean over tasks, with a band from drawing seeds again in each task.

    The run-score distribution of Agarwal et al. (NeurIPS 2021). The band is pointwise.

    Args:
        scores: by task, one finite score a run, larger is better; at least two tasks.
        thresholds: in the unit of the scores.
        level: coverage, in (0, 1).
        resamples: how often seeds are drawn again.
        seed: of the drawing.

    Returns:
        Columns threshold, share, low, high.

    Raises:
        ValueError: see `stratified_bootstrap`; or a threshold that is not finite.
    """
    rows = []
    for threshold in finite(thresholds):
        above = {task: (np.asarray(values) > threshold).astype(float).tolist() for task, values in scores.items()}
        estimate = bootstrap(above, _mean_of_means, level, resamples, seed)
        rows.append((float(threshold), estimate.value, estimate.low, estimate.high))
    return pd.DataFrame(rows, columns=["threshold", "share", "low", "high"])


def _mean_of_means(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(np.mean([sample.mean(axis=axis) for sample in samples], axis=0))
