"""Where the batches of a run come from.

A data object gives a `Feed` for a `BatchPlan`. What a feed yields depends on the seed, the epoch and the number of
the batch alone, so that a run can go on from any batch, with any number of processes that read ahead::

    feed = data.feed(BatchPlan(seed=0, batch_size=128, eval_batch_size=1000, augment=True, device=torch.device("cpu")))
    for inputs, targets in feed.epoch(3, first=10): ...     # the third epoch, from its eleventh batch on
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from insgd_lab.training.augmentation import Draws, Normalize, crop_and_flip, draw
from insgd_lab.training.streams import generator

if TYPE_CHECKING:
    from insgd_lab.training.splits import ImageSplits

__all__ = ["BatchPlan", "Feed", "ResidentFeed"]

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class BatchPlan:
    """How examples become batches.

    Attributes:
        seed: the run's.
        batch_size: examples of one optimizer step, over all ranks.
        eval_batch_size: likewise, in evaluation.
        augment: whether training images are cropped and mirrored at random.
        device: where the batches are wanted.
        rank: which of the processes that share each batch this is; it gets the rows rank, rank + ranks, …
        ranks: how many they are.
        loaders: processes that read and decode files; 0: this one does.
    """

    seed: int
    batch_size: int
    eval_batch_size: int
    augment: bool
    device: torch.device
    rank: int = 0
    ranks: int = 1
    loaders: int = 0


class Feed(Protocol):
    """The batches of one run: inputs as float32 on the device, normalised and augmented, and their targets.

    A feed that also has ``inspect(model)``, metrics of the model by name, is asked for them with the test split's.
    """

    @property
    def examples(self) -> int:
        """How many examples an epoch has, over all ranks; its batches are ceil(examples / batch_size)."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Pair]:
        """This rank's part of the batches of an epoch (from 1), from the batch with the number `first` on (from 0)."""

    def evaluate(self, split: str) -> Iterator[Pair]:
        """This rank's part of the split "val" or "test", in order."""


class ResidentFeed:
    """Images that live on the device as uint8: a step gathers, crops, mirrors and normalises a batch there.

    The random numbers of an epoch are drawn on the CPU before it, so that they are the same on every device and no
    step waits for the host.
    """

    def __init__(self, data: ImageSplits, plan: BatchPlan) -> None:
        self.data, self.plan = data.to(plan.device), plan
        self.normalize = Normalize(data.scale, data.mean, data.std, plan.device)

    @property
    def examples(self) -> int:
        """Training images."""
        return len(self.data.train)

    def order(self, epoch: int) -> Tensor:
        """The rows of the training images in the order of an epoch, int64 [N]."""
        stream = generator(self.plan.seed, f"order, epoch {epoch}")
        return torch.randperm(self.examples, generator=stream).to(self.plan.device)

    def draws(self, epoch: int) -> Draws | None:
        """Where each training image is cropped and whether it is mirrored in an epoch; None: as it is."""
        if not self.plan.augment:
            return None
        stream = generator(self.plan.seed, f"augmentation, epoch {epoch}")
        return draw(self.examples, stream).to(self.plan.device)

    def images(self, rows: Tensor, draws: Draws | None) -> Tensor:
        """The training images of these rows, ready for the model: float32 [B, C, H, W]."""
        images = self.data.train.images[rows]
        if draws is not None:
            images = crop_and_flip(images, draws.offsets[rows], draws.flips[rows])
        return self.normalize(images)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Pair]:
        """As in `Feed`."""
        draws = self.draws(epoch)
        for batch in torch.split(self.order(epoch), self.plan.batch_size)[first:]:
            rows = batch[self.plan.rank :: self.plan.ranks]
            yield self.images(rows, draws), self.data.train.labels[rows]

    def evaluate(self, split: str) -> Iterator[Pair]:
        """As in `Feed`."""
        part, size = {"val": self.data.val, "test": self.data.test}[split], self.plan.eval_batch_size
        mine = slice(self.plan.rank, None, self.plan.ranks)
        for images, labels in zip(torch.split(part.images, size), torch.split(part.labels, size), strict=True):
            yield self.normalize(images[mine]), labels[mine]
