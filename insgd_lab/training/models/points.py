"""A model that is one point: for landscapes, whose loss is a function of the parameters and of nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from insgd_lab.training.models.layers import Shape

__all__ = ["Point", "point"]


class Point(nn.Module):
    """One parameter vector, `theta`, which is the output whatever the input."""

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(start, dtype=torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [B, ...] to the point, [B, dimension]."""
        return self.theta.expand(len(x), -1)


def point(input_shape: Shape, classes: int, *, start: Sequence[float] = (-1.2, 1.0)) -> nn.Module:
    """A point of as many coordinates as the task has outputs.

    Args:
        input_shape: not used.
        classes: number of coordinates.
        start: where it starts, repeated until the coordinates are full; by default where Rosenbrock's valley is
            mostly started.
    """
    return Point(list(itertools.islice(itertools.cycle(start), classes)))
