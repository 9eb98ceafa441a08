"""What a classification set is: fixed splits of small integers, and the constants that normalise them.

The splits are fixed for ever: they are stratified, drawn from a frozen numpy stream named after the data set, and
depend on no seed of a run.

>>> [len(part) for part in stratified_split(np.repeat([0, 1], 50), (20, 10), "an example")]
[70, 20, 10]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from insgd_lab.training.feeds import BatchPlan, ResidentFeed
from insgd_lab.training.objectives import Classification
from insgd_lab.training.streams import derive

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and their labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for name, tensor, kind in (("images", self.images, torch.uint8), ("labels", self.labels, torch.int64)):
            if tensor.dtype != kind:
                raise TypeError(
                    f"{name} of {tensor.dtype}: a split expects {kind}; give pixels as they are stored, and what "
                    "normalises them as the set's scale, mean and std"
                )
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels: expected as many of both")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> Split:
        """The same split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageSplits:
    """A classification set: fixed train, validation and test splits, and how to normalise them; equal only to itself.

    Attributes:
        name: the registry's name of the set.
        classes: number of classes; labels run from 0.
        train: the split to train on; val: the one to choose on; test: the one to report on.
        scale: the pixel value that stands for 1.
        mean: per channel, of the training split on the [0, 1] scale.
        std: likewise.
        by_class: whether the metrics tell the classes apart (balanced accuracy, recall of each).
        fingerprint: of images that anyone may change, a digest of the names and sizes of their files; None where the
            set is what its authors published.
    """

    name: str
    classes: int
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    by_class: bool = False
    fingerprint: str | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return tuple(self.train.images.shape[1:])

    def to(self, device: str | torch.device) -> ImageSplits:
        """The same set on a device, as uint8."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def feed(self, plan: BatchPlan) -> ResidentFeed:
        """The batches of a run, from images that live on its device."""
        return ResidentFeed(self, plan)

    def objective(self, label_smoothing: float = 0.0) -> Classification:
        """The cross-entropy."""
        return Classification(self.classes, tell_classes=self.by_class, label_smoothing=label_smoothing)


def stratified_split(labels: Indices, held_out: Sequence[int], name: str) -> list[Indices]:
    """Row numbers of the rest, then of each held-out part, with every class in proportion.

    Args:
        labels: class of each row, [N].
        held_out: sizes of the parts to take out, in order.
        name: names the random stream; equal names and labels give equal splits.

    Returns:
        Ascending row numbers, the remaining rows first; together they are all N rows, once each.
    """
    rows = shuffled_by_class(labels, f"split of {name}")
    parts = []
    for size in held_out:
        counts = _proportional([len(found) for found in rows], size)
        parts.append(np.sort(np.concatenate([found[:k] for found, k in zip(rows, counts, strict=True)])))
        rows = [found[k:] for found, k in zip(rows, counts, strict=True)]
    return [np.sort(np.concatenate(rows)), *parts]


def shuffled_by_class(labels: Indices, purpose: str) -> list[Indices]:
    """The row numbers of each class that occurs, in the order of the stream that `purpose` names."""
    stream = np.random.RandomState(derive(0, purpose) % 2**32)  # numpy keeps RandomState's numbers for ever
    return [stream.permutation(np.flatnonzero(labels == k)) for k in np.unique(labels)]


def _proportional(available: Sequence[int], size: int) -> list[int]:
    """Whole shares of `size` in proportion to `available`, by largest remainder (ties: the first class)."""
    shares = [size * count / sum(available) for count in available]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda k: counts[k] - shares[k])
    for k in by_remainder[: size - sum(counts)]:
        counts[k] += 1
    return counts
