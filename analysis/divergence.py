"""Which runs blew up: how often, and up to which learning rate they do not.

divergence_rates(study)        # one row a cell and tune, with exact intervals
largest_stable_rate(study)     # one row a cell: the largest rate that held, the lowest that did not
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.runs import Study, key_of
from insgd_lab.analysis.statistics import binomial_interval

__all__ = ["divergence_rates", "largest_stable_rate", "swept_rates"]

RATE = "lr"


def divergence_rates(study: Study, level: float = 0.95) -> pd.DataFrame:
    """Count the diverged among the finished runs of each cell and tune.

    Returns:
        Columns arm, cell, tune (keys), runs, diverged, share, low, high: shares in [0, 1], with the exact interval of
        Clopper and Pearson (Biometrika 26, 1934). It takes the runs as independent.

    Raises:
        ValueError: an impossible level.
    """
    groups = study.scores.groupby(["arm", "cell", "tune"], sort=False)["status"]
    counts = groups.agg(runs="size", diverged=lambda status: int((status == "diverged").sum())).reset_index()
    counts["share"] = counts["diverged"] / counts["runs"]
    ends = [binomial_interval(k, n, level) for k, n in zip(counts["diverged"], counts["runs"], strict=True)]
    counts[["low", "high"]] = np.array(ends).reshape(-1, 2)
    return counts


def swept_rates(study: Study) -> pd.DataFrame:
    """The finished runs of every cell by learning rate, whether it is tuned or an axis.

    Returns:
        A row a run: arm, setting (key of all settings but the rate), rate, and the columns of `Study.scores`. Runs
        without a rate of their own, for it does not vary, are left out.
    """
    known = {
        (arm, cell, tune): {**study.cells[arm, cell].settings, **study.tunes[tune]}
        for arm, cell, tune in study.scores[["arm", "cell", "tune"]].drop_duplicates().itertuples(index=False)
    }
    rows = pd.DataFrame(list(_rates(known)), columns=["arm", "cell", "tune", "setting", "rate"])
    return study.scores.merge(rows.astype({"rate": float}), on=["arm", "cell", "tune"])


def _rates(known: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str, float]]:
    for (arm, cell, tune), settings in known.items():
        if isinstance(settings.get(RATE), (int, float)):
            rest = {name: value for name, value in settings.items() if name != RATE}
            yield arm, cell, tune, key_of(rest), float(settings[RATE])


def largest_stable_rate(study: Study) -> pd.DataFrame:
    """Find the largest learning rate of each cell at which, and below which, no run diverged.

    Returns:
        Columns arm, setting (key of the other settings), rates (how many were tried), runs, stable (the largest rate
        that held, with all below it; NaN if none), unstable (the lowest at which a run diverged; NaN if none: then the
        limit lies above all that was tried). The limit is between the two, as finely as the rates were spaced.
    """
    swept = swept_rates(study)
    rows = [
        _stable(str(arm), str(setting), part) for (arm, setting), part in swept.groupby(["arm", "setting"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["arm", "setting", "rates", "runs", "stable", "unstable"])


def _stable(arm: str, setting: str, rows: pd.DataFrame) -> tuple[str, str, int, int, float, float]:
    blown = (rows["status"] == "diverged").groupby(rows["rate"]).any().sort_index()
    unstable = float(blown.index[blown].min()) if blown.any() else math.nan
    held = blown.index[blown.index < unstable] if blown.any() else blown.index
    stable = float(held.max()) if len(held) else math.nan
    return arm, setting, len(blown), len(rows), stable, unstable
