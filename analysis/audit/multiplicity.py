"""Many comparisons at once.

holm([0.01, 0.04, 0.03])    # 0.03, 0.06, 0.06
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["holm"]


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down p-values (Scandinavian Journal of Statistics 6, 1979), in the given order, shape [comparisons].

    The smallest of m is multiplied by m, the next by m - 1 and so on; none may be less than one before it.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    factors = len(values) - np.arange(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted
