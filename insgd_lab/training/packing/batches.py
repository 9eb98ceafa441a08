"""The batches of several members side by side.

>>> for inputs, targets in training_batches(feeds, epochs=[1, 1], first=0): ...      # [B, 2 * C, H, W], [2, B]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from insgd_lab.training.augmentation import crop_and_flip
from insgd_lab.training.feeds import Feed, ResidentFeed

__all__ = ["evaluation_batches", "training_batches"]

Pair = tuple[Tensor, Tensor]


def training_batches(feeds: Sequence[Feed], epoch: int, first: int) -> Iterator[Pair]:
    """Every member's batches of an epoch, from the batch with the number ``first`` on.

    Yields:
        Inputs ``[B, members * channels, …]`` and targets ``[members, B, …]``.
    """
    residents = [feed for feed in feeds if isinstance(feed, ResidentFeed)]
    if len(residents) < len(feeds):
        return _stacked([feed.epoch(epoch, first) for feed in feeds])
    return _gathered(residents, epoch, first)


def evaluation_batches(feeds: Sequence[Feed], split: str) -> Iterator[Pair]:
    """Every member's batches of a split, as :func:`training_batches` yields them."""
    if not all(isinstance(feed, ResidentFeed) for feed in feeds):
        yield from _stacked([feed.evaluate(split) for feed in feeds])
        return
    count = len(feeds)
    for inputs, targets in feeds[0].evaluate(split):  # the same for all
        together = inputs.unsqueeze(1).expand(-1, count, *inputs.shape[1:]).flatten(1, 2)
        yield together, targets.expand(count, *targets.shape)


def _stacked(streams: Sequence[Iterator[Pair]]) -> Iterator[Pair]:
    for pairs in zip(*streams, strict=True):
        inputs, targets = zip(*pairs, strict=True)
        yield torch.stack(inputs, 1).flatten(1, 2), torch.stack(targets)


def _gathered(feeds: Sequence[ResidentFeed], epoch: int, first: int) -> Iterator[Pair]:
    """One look-up for all members, who train on the same images."""
    feed, count = feeds[0], len(feeds)
    images, labels = feed.data.train.images, feed.data.train.labels
    orders = torch.stack([feed.order(epoch) for feed in feeds], 1)
    draws = [draws for draws in (feed.draws(epoch) for feed in feeds) if draws is not None]
    offsets, flips = [
        torch.stack([getattr(d, name) for d in draws]) if draws else None for name in ("offsets", "flips")
    ]
    member = torch.arange(count, device=orders.device).expand(feed.plan.batch_size, -1)
    for rows in torch.split(orders, feed.plan.batch_size)[first:]:
        batch = images[rows.flatten()]
        if offsets is not None and flips is not None:
            of_each = member[: len(rows)], rows
            batch = crop_and_flip(batch, offsets[of_each].flatten(0, 1), flips[of_each].flatten())
        batch = feed.normalize(batch)
        yield batch.view(len(rows), -1, *batch.shape[2:]), labels[rows.t()]
