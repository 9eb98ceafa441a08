"""Functions of one point: the noisy quadratic and Rosenbrock's valley.

The model is `point`, whose output is its parameter; an example carries no input. An epoch has a set number of steps,
whatever the batch size, which matters only to noise.

>>> feed = quadratic(dimension=2, steps=3).feed(plan)      # of batches of 4
>>> [targets.shape for _, targets in feed.epoch(1)]
[torch.Size([4, 2, 2]), torch.Size([4, 2, 2]), torch.Size([4, 2, 2])]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from insgd_lab.training.analytic.regression import Each, MeanLoss, share
from insgd_lab.training.streams import generator

if TYPE_CHECKING:
    from insgd_lab.training.feeds import BatchPlan

__all__ = ["Landscape", "curvatures", "quadratic", "quadratic_loss", "rosenbrock", "rosenbrock_loss"]

Targets = Callable[[int, torch.Generator | None], Tensor]


@dataclass(frozen=True, eq=False)
class Landscape:
    """A function of one point as a data set.

    Attributes:
        name: in the registry.
        dimension: of the point.
        steps: in an epoch.
        targets: those of a batch of so many examples, drawn from a generator; without one, free of noise.
        each: the function's value for each example.
    """

    name: str
    dimension: int
    steps: int
    targets: Targets
    each: Each

    @property
    def classes(self) -> int:
        """Outputs of the model: the coordinates of the point."""
        return self.dimension

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Inputs are zeros of the point's shape, of which only the number counts."""
        return (self.dimension,)

    def feed(self, plan: BatchPlan) -> LandscapeFeed:
        """The batches of a run."""
        return LandscapeFeed(self, plan)

    def objective(self, label_smoothing: float = 0.0) -> MeanLoss:
        """The value of the function; there are no labels to smooth."""
        return MeanLoss(self.each)


@dataclass(frozen=True)
class LandscapeFeed:
    """Batches of noise for a landscape, and one example without noise to evaluate on."""

    task: Landscape
    plan: BatchPlan

    @property
    def examples(self) -> int:
        """Of an epoch."""
        return self.task.steps * self.plan.batch_size

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from number `first` on; each has a stream of its own."""
        for step in range(first, self.task.steps):
            stream = generator(self.plan.seed, f"noise, epoch {epoch}, step {step}")
            yield self._batch(self.plan.batch_size, stream)

    def evaluate(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The function itself, whichever the split."""
        yield self._batch(1, None)

    def _batch(self, count: int, stream: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return share(self.plan, torch.zeros(count, self.task.dimension), self.task.targets(count, stream))


def quadratic(
    data_dir: Path | str | None = None,
    dimension: int = 10,
    condition: float = 100.0,
    noise: float = 0.0,
    steps: int = 100,
) -> Landscape:
    """The noisy quadratic of Zhang et al. 2019: sum h_i (theta_i - z_i)^2 / 2, its minimum z at 0 but for noise.

    The minimum of an example is drawn from N(0, noise^2 / h_i), so that the gradient of a batch has the covariance
    noise^2 diag(h) / batch size: proportional to the Hessian, as theirs, and as that of a model near its optimum, where
    the gradients' covariance is the Fisher matrix.

    Args:
        data_dir: not used.
        dimension: number of coordinates.
        condition: the largest curvature, 1, over the smallest; those between are spaced geometrically.
        noise: scale of the noise; 0 for none.
        steps: in an epoch.
    """
    targets = partial(_quadratic_targets, curvatures(dimension, condition), noise)
    return Landscape("quadratic", dimension, steps, targets, quadratic_loss)


def curvatures(dimension: int, condition: float) -> Tensor:
    """From 1 / condition up to 1, spaced geometrically; a single one is 1. Float64 [dimension]."""
    exponents = torch.linspace(-1, 0, dimension, dtype=torch.float64) if dimension > 1 else torch.zeros(1)
    return torch.as_tensor(condition, dtype=torch.float64) ** exponents


def _quadratic_targets(h: Tensor, noise: float, count: int, stream: torch.Generator | None) -> Tensor:
    """The curvatures and the minimum of each example, [count, 2, dimension]."""
    minimum = torch.zeros(count, len(h))
    if noise and stream is not None:
        minimum = noise / h.sqrt() * torch.randn(count, len(h), generator=stream, dtype=torch.float64)
    return torch.stack([h.expand(count, -1).float(), minimum.float()], 1)


def quadratic_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum of h_i (theta_i - z_i)^2 / 2, of each example: outputs [B, d], targets (h and z) [B, 2, d] to [B]."""
    h, minimum = targets.unbind(1)
    return (h * (outputs - minimum).square()).sum(1) / 2


def rosenbrock(data_dir: Path | str | None = None, dimension: int = 2, steps: int = 100) -> Landscape:
    """Rosenbrock's valley in pairs of coordinates: sum 100 (y - x^2)^2 + (1 - x)^2, with its minimum 0 at (1, 1).

    Args:
        data_dir: not used.
        dimension: number of coordinates, even.
        steps: in an epoch.
    """
    return Landscape("rosenbrock", dimension, steps, partial(_no_targets, dimension), rosenbrock_loss)


def _no_targets(dimension: int, count: int, stream: torch.Generator | None) -> Tensor:
    return torch.zeros(count, dimension)


def rosenbrock_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The value at each output, [B, d] to [B]; pairs are (x, y), and the targets are not looked at."""
    x, y = outputs[:, ::2], outputs[:, 1::2]
    return (100 * (y - x.square()).square() + (1 - x).square()).sum(1)
