"""Which training images are kept: a fraction, so many a class, or classes of unequal size.

The options are read in this order. `fraction` keeps that part of every class, `shots` that many images of every
class, and `imbalance` then makes the classes unequal, the first the largest. Each class is put in order once and for
all, and a subset keeps the first so many of it: of two subsets, the one with fewer images of every class lies inside
the other, whatever the options.

>>> Subset(shots=100, imbalance="exponential", imbalance_ratio=100).counts([450, 450, 450])
[100, 10, 1]
>>> Subset(fraction=0.2, imbalance="step").counts([450, 450, 450])
[90, 90, 9]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from insgd_lab.hyperparameters import DOMAINS, check_option
from insgd_lab.training.splits import ImageSplits, Indices, Split, shuffled_by_class


class SubsetError(ValueError):
    """A subset that these data cannot give: the option, its value, and what to do about it."""

    def __init__(self, option: str, value: Any, reason: str) -> None:
        super().__init__(f"{option} = {value!r}: {reason}")
        self.option, self.value, self.reason = option, value, reason


@dataclass(frozen=True)
class Subset:
    """What is kept of a training split; by default, all.

    Attributes:
        fraction: the part of each class to keep, at least one image.
        shots: images of each class to keep; None: all that `fraction` leaves.
        imbalance: "none"; "exponential": class i of C keeps n / ratio^(i / (C - 1)) images (Cui et al. 2019, there
            truncated, here rounded); "step": the second half of the classes (of an odd number, the smaller half)
            keeps n / ratio each, the first half n (Buda et al. 2018). Here n is the size of the smallest class that
            `fraction` and `shots` leave, so that the ratio is what it says (to rounding) also where classes start
            unequal.
        imbalance_ratio: the largest class over the smallest; not read where `imbalance` is "none".

    Raises:
        ValueError: an option outside its domain.
    """

    fraction: float = 1.0
    shots: int | None = None
    imbalance: str = "none"
    imbalance_ratio: float = 10.0

    def __post_init__(self) -> None:
        for option, value in vars(self).items():
            check_option(option, value, DOMAINS[option])

    @property
    def by_class(self) -> bool:
        """Whether results should tell the classes apart: there are few shots, or unequal classes."""
        return self.shots is not None or self.imbalance != "none"

    def counts(self, available: Sequence[int]) -> list[int]:
        """How many images of each class are kept of those available.

        Raises:
            SubsetError: a class has fewer images than `shots`; the classes are too small for `imbalance_ratio`.
        """
        kept = [max(1, round(self.fraction * count)) for count in available]
        if self.shots is not None:
            least = min(kept)
            if self.shots > least:
                place = "" if self.fraction == 1 else f" (fraction = {self.fraction:g})"
                reason = f"the smallest class has {least} training images{place}; choose {least} or fewer"
                raise SubsetError("shots", self.shots, reason)
            kept = [self.shots] * len(kept)
        return kept if self.imbalance == "none" else self._unequal(min(kept), len(kept))

    def _unequal(self, largest: int, classes: int) -> list[int]:
        ratio, last = self.imbalance_ratio, max(1, classes - 1)
        if ratio > largest:
            reason = f"leaves no image in the smallest class where the largest has {largest}; choose at most {largest}"
            raise SubsetError("imbalance_ratio", ratio, reason)
        if self.imbalance == "exponential":
            return [max(1, round(largest / ratio ** (i / last))) for i in range(classes)]
        reduced = classes // 2
        return [largest] * (classes - reduced) + [max(1, round(largest / ratio))] * reduced

    def rows(self, labels: Indices, name: str) -> Indices:
        """Ascending row numbers of what is kept of a training split with these labels, [N].

        Args:
            labels: class of each row.
            name: the data set's name, which names the order of each class.

        Raises:
            SubsetError: as in `counts`.
        """
        rows = shuffled_by_class(labels, f"fraction of {name}")
        counts = self.counts([len(found) for found in rows])
        return np.sort(np.concatenate([found[:k] for found, k in zip(rows, counts, strict=True)]))

    def of(self, splits: ImageSplits) -> ImageSplits:
        """The set with this subset for its training split; validation and test split stay as they are. Copied once."""
        return splits if self == Subset() else _kept(self, splits)


@functools.lru_cache(maxsize=2)
def _kept(subset: Subset, splits: ImageSplits) -> ImageSplits:
    rows = subset.rows(splits.train.labels.numpy(), splits.name)
    train = Split(splits.train.images[rows], splits.train.labels[rows])
    return replace(splits, train=train, by_class=subset.by_class)
