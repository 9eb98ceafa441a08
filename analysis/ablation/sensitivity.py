"""How much a learning rate may be off: how wide the valley of error over the logarithm of the rate is.

lr_sensitivity(study, within=1.0)[["arm", "best_rate", "tried_within", "share", "decades"]]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from insgd_lab.analysis.divergence import swept_rates
from insgd_lab.analysis.measures import Measure, chosen_by
from insgd_lab.analysis.runs import Study

__all__ = ["Valley", "lr_sensitivity", "near_best"]


@dataclass(frozen=True)
class Valley:
    """The rates around the best one whose error is within some points of the lowest."""

    best_rate: float
    low: float
    """Where the valley begins and ends, between tried rates by interpolation, linear in the logarithm of the rate."""
    high: float
    open_low: bool
    """Whether it reaches the lowest, or the highest, tried rate: then it may be wider than can be seen."""
    open_high: bool

    @property
    def decades(self) -> float:
        """Its width in powers of ten."""
        return math.log10(self.high / self.low)


def near_best(rates: Sequence[float], errors: Sequence[float], within: float) -> Valley:
    """Find the valley around the rate of lowest error (of equal ones the smallest rate).

    Args:
        rates: different ones, above 0.
        errors: of each; infinite ones are never near.
        within: how much above the lowest error counts as near it, in the unit of the errors; at least 0.

    Raises:
        ValueError: lengths that differ, no rates, equal rates, or values that are out of range.
    """
    x, y = np.asarray(rates, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    possible = x.shape == y.shape and len(x) and (x > 0).all() and len(np.unique(x)) == len(x)
    possible = possible and not np.isnan(y).any() and np.isfinite(y.min())
    if not possible or not within >= 0:
        raise ValueError(
            f"rates = {list(rates)}, errors = {list(errors)}, within = {within}: expected an error for each of "
            "some different rates above 0, one of them finite, and within >= 0"
        )
    order = np.argsort(x)
    x, y = x[order], y[order]
    logs, best = np.log(x), int(np.argmin(y))
    limit = float(y[best]) + within
    high, open_high = _edge(logs[best:], y[best:], limit)
    low, open_low = _edge(logs[best::-1], y[best::-1], limit)
    return Valley(float(x[best]), math.exp(low), math.exp(high), open_low, open_high)


def _edge(logs: np.ndarray, errors: np.ndarray, limit: float) -> tuple[float, bool]:
    """Where the errors first cross the limit, going along `logs`; else the last of them, and True."""
    above = np.flatnonzero(errors > limit)
    if not len(above):
        return float(logs[-1]), True
    k = int(above[0])
    share = (limit - errors[k - 1]) / (errors[k] - errors[k - 1])  # 0 before an infinite one
    return float(logs[k - 1] + share * (logs[k] - logs[k - 1])), False


def lr_sensitivity(study: Study, within: float = 1.0) -> pd.DataFrame:
    """How wide the range of good learning rates is, of every cell that ran at several; on the validation split.

    Args:
        study: read from disk.
        within: percentage points of validation error above the best; of a task with losses alone, by which share of the
            lowest validation loss others may exceed it: 1 for up to twice the lowest.

    Returns:
        Columns arm, setting (key of all settings but the rate), rates (how many were tried), best_rate, best_error
        (mean over seeds, %; a diverged run has the error of guessing; or loss, infinite if a run diverged),
        tried_within (how many tried rates are within), share (of the tried range of the logarithm that the valley
        around the best covers, in [0, 1]), decades (the valley's width, interpolated: of losses in their logarithm),
        open_low, open_high (whether it reaches the end of what was tried). Cells without a rate at which no run
        diverged have no row, if they have losses alone.

    Raises:
        ValueError: `within` is negative.
    """
    measure = chosen_by(study)
    swept = swept_rates(study).dropna(subset=measure.name)
    means = swept.groupby(["arm", "setting", "rate"], sort=False)[measure.name].mean() * measure.unit
    rows = []
    for _, errors in means.groupby(level=["arm", "setting"], sort=False):
        rates = errors.index.get_level_values("rate").to_numpy()
        if len(rates) < 2 or not np.isfinite(errors.min()):
            continue
        valley, near = _valley(rates, errors.to_numpy(), within, measure)
        tried = math.log10(rates.max() / rates.min())
        row = (*errors.index[0][:2], len(rates), valley.best_rate, float(errors.min()), near, valley.decades / tried)
        rows.append((*row, valley.decades, valley.open_low, valley.open_high))
    columns = ["arm", "setting", "rates", "best_rate", "best_error", "tried_within", "share", "decades"]
    return pd.DataFrame(rows, columns=[*columns, "open_low", "open_high"])


def _valley(rates: np.ndarray, scores: np.ndarray, within: float, measure: Measure) -> tuple[Valley, int]:
    """The valley, and how many tried rates are near the best: of losses both in their logarithm."""
    if not measure.is_error and within >= 0:
        scores, within = np.log(np.maximum(scores, np.finfo(float).tiny)), math.log1p(within)
    valley = near_best(rates.tolist(), scores.tolist(), within)
    return valley, int((scores <= scores.min() + within).sum())
