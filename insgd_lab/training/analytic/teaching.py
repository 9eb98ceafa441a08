"""Teacher and student: regression on what a small network answers to normal inputs.

    x = Q Lambda^(1/2) n,    y = teacher(x) + noise v

with n and v normal, Q a rotation, and eigenvalues Lambda of mean 1 spaced geometrically, so that the inputs' power does
not depend on their condition number. The teacher's answers have unit standard deviation. The three sets are fixed:
noise is part of the training set alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from insgd_lab.training.analytic.landscapes import curvatures
from insgd_lab.training.analytic.regression import (
    EVALUATED,
    SQUARED_ERROR,
    MeanLoss,
    frozen,
    share,
)
from insgd_lab.training.streams import generator

if TYPE_CHECKING:
    from insgd_lab.training.feeds import BatchPlan

__all__ = ["TeacherStudent", "teacher_student"]

Array = NDArray[np.float64]
Examples = tuple[Tensor, Tensor]
"""Inputs float32 [N, features] and answers float32 [N, 1]."""


@dataclass(frozen=True, eq=False)
class TeacherStudent:
    """The fixed sets of a teacher; `sets` has "train", "val" and "test"."""

    features: int
    sets: dict[str, Examples]
    name: str = "teacher-student"
    classes: int = 1
    """Outputs of the student."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The features."""
        return (self.features,)

    def feed(self, plan: BatchPlan) -> TeacherFeed:
        """The batches of a run."""
        return TeacherFeed(self, plan)

    def objective(self, label_smoothing: float = 0.0) -> MeanLoss:
        """Half the squared error; there are no labels to smooth."""
        return SQUARED_ERROR


@dataclass(frozen=True)
class TeacherFeed:
    """The training set in a new order each epoch, the others as they are."""

    task: TeacherStudent
    plan: BatchPlan

    @property
    def examples(self) -> int:
        """Of the training set."""
        return len(self.task.sets["train"][0])

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from number `first` on."""
        order = torch.randperm(self.examples, generator=generator(self.plan.seed, f"order, epoch {epoch}"))
        x, y = self.task.sets["train"]
        for rows in torch.split(order, self.plan.batch_size)[first:]:
            yield share(self.plan, x[rows], y[rows])

    def evaluate(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A split in batches."""
        x, y = self.task.sets[split]
        for rows in torch.split(torch.arange(len(x)), self.plan.eval_batch_size):
            yield share(self.plan, x[rows], y[rows])


def teacher_student(
    data_dir: Path | str | None = None,
    features: int = 20,
    condition: float = 1.0,
    hidden: Sequence[int] = (10,),
    noise: float = 0.0,
    examples: int = 1000,
) -> TeacherStudent:
    """Normal inputs and what a teacher answers; the student is `mlp` or `linear`.

    Args:
        data_dir: not used.
        features: number of inputs.
        condition: of the inputs' covariance: its largest eigenvalue over the smallest.
        hidden: widths of the teacher's hidden ReLU layers; without any it is linear.
        noise: standard deviation of the noise on the training set's answers, whose own is 1.
        examples: size of the training set; the validation and the test set have 1000.
    """
    root = _root_of_covariance(features, condition)
    teacher = _Teacher(features, hidden)
    scale = teacher(frozen("teacher-student, scale").standard_normal((10 * EVALUATED, features)) @ root).std()
    sets = {}
    for split, count in (("train", examples), ("val", EVALUATED), ("test", EVALUATED)):
        x = frozen(f"teacher-student, {split} inputs").standard_normal((count, features)) @ root
        y = teacher(x) / scale
        if split == "train":
            y = y + noise * frozen("teacher-student, noise").standard_normal((count, 1))
        sets[split] = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    return TeacherStudent(features, sets)


def _root_of_covariance(features: int, condition: float) -> Array:
    """Rows of normal numbers times this have the covariance; [features, features]."""
    rotation, _ = np.linalg.qr(frozen(f"rotation of {features} features").standard_normal((features, features)))
    eigenvalues = curvatures(features, condition).numpy()
    root: Array = np.sqrt(eigenvalues / eigenvalues.mean())[:, None] * rotation.T
    return root


class _Teacher:
    """A perceptron with ReLU hidden layers and no biases, its weights scaled as He et al. (ICCV 2015) do."""

    def __init__(self, features: int, hidden: Sequence[int]) -> None:
        widths = [features, *hidden, 1]
        stream = frozen(f"teacher of widths {widths}")
        self.layers = [stream.standard_normal((m, n)) * np.sqrt(2 / m) for m, n in pairwise(widths)]

    def __call__(self, x: Array) -> Array:
        """Inputs [N, features] to answers [N, 1]."""
        *hidden, last = self.layers
        for weights in hidden:
            x = np.maximum(x @ weights, 0)
        answers: Array = x @ last
        return answers
