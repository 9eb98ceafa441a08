"""Does an option do something else where another one is changed: two-way interactions, paired by seed.

interactions(study)         # a row for each pair of levels: the difference of differences
interaction_tests(study)    # a row for each pair of axes: one F test over all their levels
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from insgd_lab.analysis.ablation.crossed import Crossed, crossed
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import At, Choices, choose
from insgd_lab.analysis.statistics import holm, paired_t

__all__ = ["FTest", "interaction_f", "interaction_tests", "interactions"]


def interactions(study: Study, at: At = "best", choices: Choices | None = None, level: float = 0.95) -> pd.DataFrame:
    """Differences of differences in every arm crossed in full: (both changed - first changed) - (second - neither).

    Other axes are averaged out, seed by seed. 0 means that the two changes add up.

    Args:
        study: read from disk.
        at: each cell at its own best tune, or at the arm's fixed one.
        choices: what `selection.choose` chose; chosen anew if None.
        level: coverage of the intervals, in (0, 1).

    Returns:
        A row for each two axes and level of each that is not its base: arm, first, second, first_level, second_level,
        pairs, interaction, low, high (percentage points, t-interval), p (paired t), p_holm (over all rows).

    Raises:
        ValueError: an impossible level.
    """
    choices = choose(study) if choices is None else choices
    rows = [row for arm in crossed(study, choices, at) for row in _contrasts(arm, level)]
    columns = ["arm", "first", "second", "first_level", "second_level", "pairs", "interaction", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=float)))


def _contrasts(arm: Crossed, level: float) -> Iterator[dict[str, Any]]:
    for first, second in itertools.combinations(arm.levels, 2):
        table = _pair(arm, first, second)
        i0, j0 = arm.base[first], arm.base[second]
        for i, j in itertools.product(range(table.shape[0]), range(table.shape[1])):
            if i != i0 and j != j0:
                # Sums, not differences: their size says how large rounding can be.
                with_it, without = table[i, j] + table[i0, j0], table[i, j0] + table[i0, j]
                test = paired_t(dict(enumerate(with_it)), dict(enumerate(without)), level)
                yield {
                    "arm": arm.arm,
                    "first": first,
                    "second": second,
                    "first_level": arm.levels[first][i],
                    "second_level": arm.levels[second][j],
                    "pairs": test.sizes[0],
                    "interaction": test.difference,
                    "low": test.low,
                    "high": test.high,
                    "p": test.p,
                }


def _pair(arm: Crossed, first: str, second: str) -> np.ndarray:
    """Scores by two axes and seed, the others averaged out: shape [first, second, seeds]."""
    names = list(arm.levels)
    others = tuple(k for k, name in enumerate(names) if name not in (first, second))
    return np.asarray(arm.scores.mean(axis=others))


# ------------------------------------------------------------------------------------------------ all levels


_ROUNDING = 1e-9
"""Variation that is no more than this share of the scores is rounding; see `statistics.samples`."""


@dataclass(frozen=True)
class FTest:
    """An F test; p is NaN where there is a single seed, or an interaction that does not vary between them."""

    f: float
    degrees: tuple[int, int]
    p: float


def interaction_f(table: np.ndarray) -> FTest:
    """Test the interaction of two axes over all their levels at once, seeds being the subjects.

    Repeated-measures analysis of variance: the interaction's mean square over its own variation between seeds. It
    takes the contrasts to vary equally (sphericity), which matters with more than two levels; with two by two it is the
    square of the paired t.

    Args:
        table: scores, shape [first levels, second levels, seeds].

    Raises:
        ValueError: not such a table with at least two levels of each axis.
    """
    if table.ndim != 3 or min(table.shape[:2]) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"a table of shape {table.shape}: expected finite scores [first, second, seeds], 2 x 2 or more"
        )
    table = table[:, :, np.lexsort(table.reshape(-1, table.shape[2]))]  # the order of seeds must change no bit
    a, b, n = table.shape
    joint = table - table.mean(axis=0, keepdims=True)
    joint = joint - joint.mean(axis=1, keepdims=True)  # what is left of each seed's table without rows and columns
    mean = joint.mean(axis=2, keepdims=True)
    degrees = ((a - 1) * (b - 1), (a - 1) * (b - 1) * (n - 1))
    between, within = n * float((mean**2).sum()), float(((joint - mean) ** 2).sum())
    if n < 2:
        return FTest(math.nan, degrees, math.nan)
    noise = _ROUNDING**2 * float((table**2).sum())
    if within <= noise:
        return FTest(0.0, degrees, 1.0) if between <= noise else FTest(math.nan, degrees, math.nan)
    f = (between / degrees[0]) / (within / degrees[1])
    return FTest(f, degrees, float(stats.f.sf(f, *degrees)))


def interaction_tests(study: Study, at: At = "best", choices: Choices | None = None) -> pd.DataFrame:
    """One F test for each two axes of every arm crossed in full.

    Returns:
        Columns arm, first, second, seeds, f, df, df_error, p, p_holm (over all rows).
    """
    choices = choose(study) if choices is None else choices
    rows = []
    for arm in crossed(study, choices, at):
        for first, second in itertools.combinations(arm.levels, 2):
            test = interaction_f(_pair(arm, first, second))
            rows.append((arm.arm, first, second, arm.scores.shape[-1], test.f, *test.degrees, test.p))
    frame = pd.DataFrame(rows, columns=["arm", "first", "second", "seeds", "f", "df", "df_error", "p"])
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=float)))
