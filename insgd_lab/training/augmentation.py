"""Crop, flip and normalise as tensor operations on a batch, on whatever device the batch is.

What is drawn and what is done are apart: `draw` takes one epoch's random numbers from a generator,
`crop_and_flip` is a plain function of images and those numbers, on uint8, before `Normalize` makes floats of
them.

>>> draws = draw(len(images), generator)
>>> batch = normalize(crop_and_flip(images[rows], draws.offsets[rows], draws.flips[rows]))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PADDING = 4


@dataclass(frozen=True)
class Draws:
    """One epoch's random numbers: offsets int64 [N, 2] (down, right) up to 2 * padding, flips bool [N]."""

    offsets: Tensor
    flips: Tensor

    def to(self, device: str | torch.device) -> Draws:
        """The same numbers on a device."""
        return Draws(self.offsets.to(device), self.flips.to(device))


def draw(count: int, generator: torch.Generator, padding: int = PADDING) -> Draws:
    """Where to crop each of `count` images, and which half of them to mirror."""
    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=generator, device=generator.device)
    flips = torch.randint(0, 2, (count,), generator=generator, device=generator.device, dtype=torch.bool)
    return Draws(offsets, flips)


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int = PADDING) -> Tensor:
    """Pad each image with zeros, cut a window of its old size at its offset, and mirror it where asked.

    Args:
        images: [B, C, H, W], any dtype.
        offsets: int64 [B, 2], the window's top and left corner in the padded image.
        flips: bool [B].
        padding: pixels of zeros on each side.

    Returns:
        [B, C, H, W], of the same dtype.
    """
    count, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + offsets[:, 1:]
    rows = torch.arange(height, device=images.device) + offsets[:, :1]
    pixels = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    padded = functional.pad(images, (padding,) * 4).flatten(2)
    return padded.gather(2, pixels.view(count, 1, -1).expand(-1, channels, -1)).view_as(images)


class Normalize:
    """(x / scale - mean) / std per channel, from uint8 [B, C, H, W] to float32, in two passes."""

    def __init__(
        self,
        scale: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str | torch.device = "cpu",
    ) -> None:
        deviation = torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
        centre = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1)
        self.factor = (1 / (scale * deviation)).to(device, torch.float32)
        self.shift = (-centre / deviation).to(device, torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        # The product is a new tensor whatever the images' type is: they are not to be written to.
        return torch.mul(images, self.factor).add_(self.shift)
