"""Which options matter: the variance of the scores of a full grid, split among its axes and their interactions.

importance(study).query("order == 1")[["arm", "at", "effect", "share"]]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.ablation.crossed import How, crossed
from insgd_lab.analysis.labels import name_label
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, choose

__all__ = ["importance", "omega_squared", "variance_shares"]


def variance_shares(scores: np.ndarray) -> dict[tuple[int, ...], float]:
    """Split the sum of squares of a full grid with seeds: the functional analysis of variance, exact on a grid.

    A grid crosses its axes evenly, so effects and interactions are orthogonal and their sums of squares add up to the
    whole (Hooker, J. Comp. Graph. Stat. 16, 2007; Hutter et al., ICML 2014, fit a forest where there is no grid).

    Args:
        scores: shape [levels of the first axis, …, seeds].

    Returns:
        By the axes that an effect is of, its sum of squares over all runs; by (), what seeds alone and their
        interactions with the axes account for.

    Raises:
        ValueError: fewer than two dimensions, or a score that is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim < 2 or not np.isfinite(values).all():
        raise ValueError(f"scores of shape {values.shape}: expected finite ones, [levels, …, seeds]")
    values = values[..., np.lexsort(values.reshape(-1, values.shape[-1]))]  # the order of seeds must change no bit
    mean = values.mean(axis=-1)
    axes = range(mean.ndim)
    squares = {
        effect: values.shape[-1] * float((_component(mean, effect) ** 2).sum()) * _repeats(mean, effect)
        for order in range(1, mean.ndim + 1)
        for effect in itertools.combinations(axes, order)
    }
    return {**squares, (): float(((values - mean[..., None]) ** 2).sum())}


def omega_squared(squares: Mapping[tuple[int, ...], float], shape: Sequence[int]) -> dict[tuple[int, ...], float]:
    """Shares of variance without what noise alone gives every effect: ω² (Hays, Statistics for Psychologists, 1963).

    With few seeds an option that does nothing still has a share, on average its degrees of freedom times the mean
    square of the seeds. ω² = (SS - df MS) / (SS of all + MS) takes it out; below 0 it says that there is nothing.

    Args:
        squares: of `variance_shares`.
        shape: of the scores that they are of, [levels of the first axis, …, seeds].

    Returns:
        By the axes of an effect its ω²; by () what is left for seeds. NaN of a single seed, or where nothing varies.
    """
    *levels, seeds = shape
    free = math.prod(levels) * (seeds - 1)
    noise = squares[()] / free if free else math.nan
    whole = sum(squares.values()) + noise
    found = {
        effect: (square - math.prod(levels[axis] - 1 for axis in effect) * noise) / whole if whole > 0 else math.nan
        for effect, square in squares.items()
        if effect
    }
    return {**found, (): 1 - sum(found.values())}


def _component(mean: np.ndarray, effect: tuple[int, ...]) -> np.ndarray:
    """What the axes of an effect do together, beyond what fewer of them do; the other axes are averaged out."""
    for axis in range(mean.ndim):
        average = mean.mean(axis=axis, keepdims=True)
        mean = mean - average if axis in effect else average
    return mean


def _repeats(mean: np.ndarray, effect: tuple[int, ...]) -> int:
    return int(np.prod([size for axis, size in enumerate(mean.shape) if axis not in effect], dtype=int))


def importance(study: Study, choices: Choices | None = None) -> pd.DataFrame:
    """Split the variance of every arm crossed in full: at each cell's own best tune, at the fixed one, at every one.

    At every tune, tuned options such as the learning rate are axes like the others; diverged runs, with the error of
    guessing, then make most of the variance, and that of the learning rate is the share that says so.

    Returns:
        Columns arm, at ("best", "fixed", "every"), effect (in words: "p × granularity"; "seeds" for what no axis
        explains), axes (their names, a tuple), order (how many), sum_of_squares (squared percentage points, over all
        runs), share (of the whole, in [0, 1]: η²; NaN where nothing varies), omega_squared (the same without what
        noise alone gives, see `omega_squared`).
    """
    choices = choose(study) if choices is None else choices
    modes: tuple[How, ...] = ("best", "fixed", "every")
    rows: list[dict[str, Any]] = []
    for at in modes:
        for arm in crossed(study, choices, at):
            squares = variance_shares(arm.scores)
            whole, names = sum(squares.values()), list(arm.levels)
            corrected = omega_squared(squares, arm.scores.shape)
            for effect, square in squares.items():
                axes = tuple(names[axis] for axis in effect)
                rows.append(
                    {
                        "arm": arm.arm,
                        "at": at,
                        "effect": " × ".join(map(name_label, axes)) or "seeds",
                        "axes": axes,
                        "order": len(axes),
                        "sum_of_squares": square,
                        "share": square / whole if whole > 0 else np.nan,
                        "omega_squared": corrected[effect],
                    }
                )
    columns = ["arm", "at", "effect", "axes", "order", "sum_of_squares", "share", "omega_squared"]
    return pd.DataFrame(rows, columns=columns)
