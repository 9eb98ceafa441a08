"""What every routine does with its numbers first: checked, sorted, paired.

Sums of floating-point numbers depend on their order. Samples are therefore sorted before anything is computed, so
that the order in which seeds were run, or read from disk, changes no bit of any result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Key", "check_level", "differences", "finite", "ranked_differences", "steady", "without_nan"]

Key = TypeVar("Key")

_STEADY = 1e-9
"""A spread so small, beside the largest score, is the rounding of arithmetic; what seeds do to a score is larger."""


def check_level(level: float) -> None:
    """Raise a ValueError unless `level`, of confidence or of significance, lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a number between 0 and 1, such as 0.95")


def without_nan(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the values sorted, shape [n]; infinite ones, of runs that rank worst, are welcome.

    Raises:
        ValueError: a value is NaN.
    """
    numbers = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if np.isnan(numbers).any():
        raise ValueError(f"values = {numbers.tolist()}: expected numbers; leave out runs without a score")
    return numbers


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the values sorted, shape [n].

    Raises:
        ValueError: a value is not finite.
    """
    numbers = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not np.isfinite(numbers).all():
        raise ValueError(f"values = {numbers.tolist()}: expected finite numbers; score diverged runs first")
    return numbers


def steady(numbers: np.ndarray, largest: float) -> np.ndarray:
    """Return the numbers, all of them equal where only rounding tells them apart; all 0 where it has made them.

    Args:
        numbers: sorted, shape [n].
        largest: size of the largest score that they are made from, which says how large rounding can be.
    """
    if not len(numbers) or numbers[-1] - numbers[0] > _STEADY * largest:
        return numbers
    middle = float(numbers[len(numbers) // 2])
    return np.full_like(numbers, middle if abs(middle) > _STEADY * largest else 0.0)


def differences(treated: Mapping[Key, float], control: Mapping[Key, float]) -> np.ndarray:
    """Return treated - control over the seeds that both have, sorted, shape [pairs]; equal but for rounding, equal.

    Raises:
        TypeError: scores that are not by seed.
        ValueError: a difference is not finite.
    """
    pairs = _pairs(treated, control)
    return steady(finite(_differences(pairs)), float(np.abs(np.asarray(pairs, dtype=np.float64)).max(initial=0.0)))


def ranked_differences(treated: Mapping[Key, float], control: Mapping[Key, float]) -> np.ndarray:
    """Return the differences for methods that only rank: two runs that are both infinitely bad differ by nothing.

    Raises:
        TypeError: scores that are not by seed.
        ValueError: a value is NaN.
    """
    return without_nan(_differences(_pairs(treated, control)))


def _pairs(treated: Mapping[Key, float], control: Mapping[Key, float]) -> list[tuple[float, float]]:
    for scores in (treated, control):
        if not isinstance(scores, Mapping):  # a list would be looked through for the other's scores, as if for seeds
            raise TypeError(
                f"scores of type {type(scores).__name__}: expected one a seed, as {{0: 93.1, 1: 93.4}}, since they are "
                "paired by it; dict(enumerate(scores)) pairs two lists by their order"
            )
    return [(treated[seed], control[seed]) for seed in treated if seed in control]


def _differences(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
    """The differences without the noise of their subtraction: 0.3 - 0.2 ties with 0.2 - 0.1, which floats deny.

    They are rounded to a 2^-46th of the largest score, some thirty times what rounding has done to them.
    """
    numbers = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    known = numbers[:, 0] != numbers[:, 1]  # two infinities differ by nothing
    found = np.zeros(len(numbers))
    np.subtract(numbers[:, 0], numbers[:, 1], out=found, where=known)
    largest = np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0)
    if largest == 0:
        return found
    quantum = 2.0 ** (np.ceil(np.log2(largest)) - 46)
    return np.asarray(np.round(found / quantum) * quantum)
