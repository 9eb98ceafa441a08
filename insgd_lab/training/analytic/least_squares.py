"""Noiseless linear regression whose Hessian is known exactly: where the largest stable step sizes are measured.

    loss(w) = (w - w*)' H (w - w*) / 2,    H = X' X / n = Q diag(h) Q'

with a rotation Q and curvatures h from `curvature` / `condition` to `curvature`, spaced geometrically. Each batch is
the whole set: n, the batch size, examples X = sqrt(n) U diag(h)^(1/2) Q' with orthonormal columns U. A step thus has
the exact gradient, and the layer is fed the same input power, mean ||x||_2^2 = sum h, at every one.

>>> task = least_squares(features=2, condition=4.0)
>>> x, y = task.batch(8)
>>> torch.linalg.eigvalsh(x.T @ x / len(x))
tensor([0.2500, 1.0000])
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from insgd_lab.config import ConfigError, Problem
from insgd_lab.training.analytic.landscapes import curvatures
from insgd_lab.training.analytic.regression import SQUARED_ERROR, MeanLoss, frozen, share

if TYPE_CHECKING:
    from insgd_lab.training.feeds import BatchPlan

__all__ = ["LeastSquares", "least_squares"]


def least_squares(
    data_dir: Path | str | None = None,
    features: int = 10,
    condition: float = 100.0,
    curvature: float = 1.0,
    distance: float = 1.0,
    steps: int = 100,
) -> LeastSquares:
    """A convex quadratic behind a linear layer, the same for all seeds.

    Args:
        data_dir: not used.
        features: number of inputs; a batch has at least as many examples.
        condition: largest curvature over the smallest.
        curvature: the largest one, L: gradient descent is stable below 2 / L.
        distance: norm of the answer w*, which lies equally far along every direction of curvature. A linear layer
            starts near 0, so this is about how far away it starts.
        steps: in an epoch.
    """
    return LeastSquares(features, condition, curvature, distance, steps)


@dataclass(frozen=True)
class LeastSquares:
    """The task; its attributes are those of `least_squares`."""

    features: int = 10
    condition: float = 100.0
    curvature: float = 1.0
    distance: float = 1.0
    steps: int = 100
    name: str = "least-squares"
    classes: int = 1
    """Outputs of the model."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The features."""
        return (self.features,)

    def feed(self, plan: BatchPlan) -> LeastSquaresFeed:
        """The batches of a run.

        Raises:
            ConfigError: a batch has fewer examples than there are features.
        """
        if plan.batch_size < self.features:
            message = f"a batch is the whole set, which has an example or more for each of the {self.features} features"
            where = ("train", "batch_size")
            raise ConfigError("run", [Problem(where, plan.batch_size, f"{message}; choose at least as many")])
        return LeastSquaresFeed(self, plan, *self.batch(plan.batch_size))

    def objective(self, label_smoothing: float = 0.0) -> MeanLoss:
        """Half the squared error; there are no labels to smooth."""
        return SQUARED_ERROR

    def batch(self, examples: int) -> tuple[Tensor, Tensor]:
        """Inputs [examples, features] and answers [examples, 1], float32."""
        d = self.features
        rotation, _ = np.linalg.qr(frozen(f"rotation of {d} features").standard_normal((d, d)))
        columns, _ = np.linalg.qr(frozen(f"columns of {examples} examples").standard_normal((examples, d)))
        h = self.curvature * curvatures(d, self.condition).numpy()
        x = columns * np.sqrt(examples * h) @ rotation.T
        answer = self.distance / np.sqrt(d) * rotation.sum(1)
        return torch.from_numpy(x).float(), torch.from_numpy(x @ answer)[:, None].float()


@dataclass(frozen=True)
class LeastSquaresFeed:
    """The same batch at every step, and once to evaluate on."""

    task: LeastSquares
    plan: BatchPlan
    inputs: Tensor
    answers: Tensor

    @property
    def examples(self) -> int:
        """Of an epoch."""
        return self.task.steps * self.plan.batch_size

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from number `first` on."""
        for _ in range(first, self.task.steps):
            yield share(self.plan, self.inputs, self.answers)

    def evaluate(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The set itself, whichever the split."""
        yield share(self.plan, self.inputs, self.answers)
