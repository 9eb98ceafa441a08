"""Many statements at once: p-values corrected so that the chance of even one false finding stays at its level.

holm([0.01, 0.04, 0.03])              # 0.03, 0.06, 0.06
holm_together([0.01], [0.04, 0.03])   # the same, part by part
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["holm", "holm_together"]


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down p-values (Scandinavian Journal of Statistics 6, 1979), in the given order, shape [statements].

    They need no assumption about how the statements depend on each other. NaN stands for a statement without a test:
    it stays NaN and is not counted.

    Raises:
        ValueError: a value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(values))
    found = values[tested]
    if ((found < 0) | (found > 1)).any():
        raise ValueError(f"p = {values.tolist()}: expected numbers from 0 to 1, or NaN where nothing was tested")
    order = np.argsort(found, kind="stable")
    factors = len(found) - np.arange(len(found))
    adjusted = np.full(len(values), np.nan)
    adjusted[tested[order]] = np.minimum(np.maximum.accumulate(found[order] * factors), 1.0)
    return adjusted


def holm_together(*parts: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Holm's p-values of several lists of statements as one family, list by list.

    Raises:
        ValueError: see `holm`.
    """
    numbers = [np.asarray(part, dtype=np.float64) for part in parts]
    ends = np.cumsum([len(part) for part in numbers])
    return np.split(holm(np.concatenate(numbers)), ends[:-1])
