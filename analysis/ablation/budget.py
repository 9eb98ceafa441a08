"""What tuning costs: the error to expect after trying k settings, drawn at random from those that were run.

    tuning_budget(study)                                       # a row an arm and budget
    expected_best([0.03, 0.02, 0.05], [0.031, 0.024, 0.049])   # by budget, 1 to 3

An optimizer that is best after 100 trials need not be so after 4 (Dodge et al., Show your work, EMNLP 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.statistics.samples import check_level

__all__ = ["expected_best", "tuning_budget"]

_RESAMPLES = 1000
_MOST = 256
"""The largest budget of which anything is told."""


def expected_best(
    validation: Sequence[float] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    replacement: bool = False,
    most: int | None = None,
) -> np.ndarray:
    """The expected score of the setting with the lowest validation score among k drawn ones, exactly, by k.

    Without replacement the k settings differ: the estimate of Tang et al. (ACL 2020), unbiased for settings drawn from
    anywhere. With replacement it is that of Dodge et al. (EMNLP 2019), which is a little pessimistic for small samples.

    Args:
        validation: of each setting, what it would be chosen by; lower is better.
        scores: of each setting, what is reported; equal to `validation` for the expected minimum.
        replacement: whether a setting may be drawn twice.
        most: the largest k; as many as there are settings if None.

    Returns:
        Expected scores at budgets 1 to `most`, shape [budgets]. Settings with equal validation scores share their
        chances.

    Raises:
        ValueError: lengths that differ, none, or NaN.
    """
    shared = _ranked(validation, scores)
    return _weighted(shared, _weights(len(shared), most or len(shared), replacement))


def _ranked(validation: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """The scores in the order of choice, the best first; of settings that tie, their mean."""
    chosen_by, reported = np.asarray(validation, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if chosen_by.shape != reported.shape or not len(chosen_by) or np.isnan([chosen_by, reported]).any():
        raise ValueError(
            f"{len(chosen_by)} validation scores and {len(reported)} scores: expected as many, at least one, none NaN"
        )
    order = np.lexsort((reported, chosen_by))
    _, first, counts = np.unique(chosen_by[order], return_index=True, return_counts=True)
    return np.asarray(np.repeat(np.add.reduceat(reported[order], first) / counts, counts))


def _weights(n: int, most: int, replacement: bool) -> np.ndarray:
    """The chance that the i-th best of n settings is the best of k drawn ones: shape [k, i], rows add up to 1."""
    budgets, better = np.arange(1, most + 1)[:, None], np.arange(n + 1)[None, :]
    if replacement:
        none_of_them = ((n - better) / n) ** budgets  # chance that none of the `better` best is among the k
    else:
        none_of_them = np.exp(_log_choose(n - better, budgets) - _log_choose(n, budgets))
    return np.asarray(none_of_them[:, :-1] - none_of_them[:, 1:])


def _weighted(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of scores [..., settings] at weights [budgets, settings]: infinite where an infinite score has any."""
    lost = np.isinf(scores)
    means = np.where(lost, 0.0, scores) @ weights.T
    return np.where(lost @ weights.T > 0, np.inf, means) if lost.any() else np.asarray(means)


def _log_choose(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    """The logarithm of n over k, -inf where k > n; n over k itself overflows at a thousand settings."""
    rest = np.maximum(n - k, 0)
    found = special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(rest + 1.0)
    return np.where(k > n, -np.inf, found)


def tuning_budget(study: Study, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """The expected score of each arm after trying 1, 2, … of its settings and keeping the best on the validation split.

    A setting is a cell at a tune, its scores means over its finished seeds; a diverged run has the error of guessing.
    For the trials of a search read them with `load_study(path, trials=True)`.

    Args:
        study: read from disk.
        level: coverage of the intervals, in (0, 1).
        seed: of the drawing.

    Returns:
        Columns arm, budget (settings tried, up to 256), settings (that there are), expected, low, high: the primary
        metric (%, if it is an error), settings drawn without replacement; the interval is a percentile bootstrap over
        settings. It takes them as a sample of what one might try, and is too narrow where they are few, or a chosen
        grid.

    Raises:
        ValueError: an impossible level.
    """
    check_level(level)
    rows: list[dict[str, Any]] = []
    for arm, found in _settings(study).groupby(level="arm", sort=False):
        ranked, most = _ranked(found["place"].to_numpy(), found["score"].to_numpy()), min(len(found), _MOST)
        weights = _weights(len(ranked), most, replacement=False)
        low, high = _bootstrap(ranked, weights, level, seed)
        rows += [
            {"arm": arm, "budget": k + 1, "settings": len(ranked), "expected": value, "low": low[k], "high": high[k]}
            for k, value in enumerate(_weighted(ranked, weights))
        ]
    return pd.DataFrame(rows, columns=["arm", "budget", "settings", "expected", "low", "high"])


def _settings(study: Study) -> pd.DataFrame:
    """By arm, cell and tune: the place by mean validation error, then loss, as `selection` chooses; and the score."""
    primary = primary_of(study)
    means = study.scores.groupby(["arm", "cell", "tune"], sort=False)[["val_error", "val_loss", primary.metric]].mean()
    place = means.groupby([means["val_error"].round(12).fillna(np.inf), means["val_loss"].fillna(np.inf)]).ngroup()
    return pd.DataFrame({"place": place, "score": means[primary.metric] * primary.unit}).dropna()


def _bootstrap(ranked: np.ndarray, weights: np.ndarray, level: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of the expected scores over settings drawn again: shapes [budgets]."""
    generator, n = np.random.default_rng(seed), len(ranked)
    drawn = np.sort(generator.integers(0, n, (_RESAMPLES, n)), axis=1)  # sorted: best first
    with np.errstate(invalid="ignore"):  # halfway between two infinite means
        ends = np.quantile(_weighted(ranked[drawn], weights), [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = np.where(np.isnan(ends), np.inf, ends)
    return low, high
