"""Which options matter in a random grid: permutation importance of a random forest.

Drawn settings are not crossed, so their variance has no exact split. A forest learns error from settings; how much
worse it predicts settings that it has not seen, once an option's values are shuffled, tells how much it leans on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.runs import Study, key_of
from insgd_lab.analysis.statistics import summarize

__all__ = ["forest_importance"]

_FOLDS = 5
_TREES = 100
_SHUFFLES = 5


def forest_importance(study: Study) -> pd.DataFrame:
    """Permutation importance (Breiman, Machine Learning 45, 2001) of the axes and tuned options of random grids.

    It is measured on settings held out of the forest, five times a fifth of them. Options that only matter together
    share their importance, and correlated ones hide each other's.

    Returns:
        Columns arm, method ("permutation importance of a random forest"), axis, importance, low, high (mean growth of
        the mean absolute error when the option is shuffled, percentage points or loss, t-interval over the five
        forests), settings (how many), lost (how many were left out, as a diverged run has an infinite loss), r_squared
        (of the forests on held-out settings: near 0 they know nothing, and their importances neither). Arms with fewer
        than ten settings have no rows.
    """
    rows = [row for arm in study.arms.values() if arm.grid == "random" for row in _arm_rows(study, arm.name)]
    columns = ["arm", "method", "axis", "importance", "low", "high", "settings", "lost", "r_squared"]
    return pd.DataFrame(rows, columns=columns)


def _arm_rows(study: Study, arm: str) -> list[dict[str, Any]]:
    settings, errors, lost = _settings(study, arm)
    if len(settings) < 2 * _FOLDS or settings.shape[1] == 0:
        return []
    growth, squared = _held_out(settings.to_numpy(), errors)
    return [
        {
            "arm": arm,
            "method": "permutation importance of a random forest",
            "axis": axis,
            "importance": (summary := summarize(growth[:, k])).mean,
            "low": summary.low,
            "high": summary.high,
            "settings": len(settings),
            "lost": lost,
            "r_squared": squared,
        }
        for k, axis in enumerate(settings.columns)
    ]


def _settings(study: Study, arm: str) -> tuple[pd.DataFrame, np.ndarray, int]:
    """A row for each setting that ran, its values as ranks, for trees only compare; and its mean score over seeds.

    And how many were left out, whose mean loss is infinite.
    """
    primary = primary_of(study)
    rows = study.scores[study.scores["arm"] == arm]
    means = rows.groupby(["cell", "tune"], sort=True)[primary.metric].mean() * primary.unit
    means, lost = means[np.isfinite(means)], int(np.isinf(means).sum())
    values = [{**study.cells[arm, cell].settings, **study.tunes[tune]} for cell, tune in means.index]
    frame = pd.DataFrame({axis: _ranks([row[axis] for row in values]) for axis in (values[0] if values else {})})
    return frame.loc[:, frame.nunique() > 1], means.to_numpy(), lost


def _ranks(values: list[Any]) -> list[int]:
    """The places of values among the different ones: numbers by size ("inf" last), anything else by its text."""
    numbers = {key_of({"": value}): _size(value) for value in values}
    order = {key: place for place, key in enumerate(sorted(numbers, key=lambda key: (numbers[key], key)))}
    return [order[key_of({"": value})] for value in values]


def _size(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.inf


def _held_out(settings: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, float]:
    """By fold and option, the growth of the error on held-out settings; and R^2 of all held-out predictions."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    growth, predicted = [], np.empty(len(errors))
    for seed, (train, test) in enumerate(KFold(_FOLDS, shuffle=True, random_state=0).split(settings)):
        forest = RandomForestRegressor(_TREES, random_state=seed).fit(settings[train], errors[train])
        predicted[test] = forest.predict(settings[test])
        found = permutation_importance(
            forest,
            settings[test],
            errors[test],
            scoring="neg_mean_absolute_error",
            n_repeats=_SHUFFLES,
            random_state=seed,
        )
        growth.append(found.importances_mean)
    total = float(((errors - errors.mean()) ** 2).sum())
    squared = 1 - float(((errors - predicted) ** 2).sum()) / total if total > 0 else np.nan
    return np.array(growth), squared
