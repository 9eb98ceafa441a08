"""The losses and metrics of several members at once: outputs ``[members, B, …]``, targets ``[members, B, …]``."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from insgd_lab.training.objectives import TOP, Classification, Objective, parts_of

__all__ = ["PackedObjective", "Tallies", "packed_objective"]


class Tallies(Protocol):
    """One tally for each member."""

    def add(self, outputs: Tensor, targets: Tensor, losses: Tensor | None = None) -> None:
        """Count a batch of each; ``losses`` are the mean losses ``[members]`` if they are known already."""

    def totals(self) -> list[Tensor]:
        """Each member's sums, as its own tally would hold them."""

    def load(self, totals: list[Tensor]) -> None:
        """Go on from such sums."""


class PackedObjective(Protocol):
    """What each member minimises."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of each member's batch, ``[members]``."""

    def tallies(self, members: int, device: torch.device) -> Tallies:
        """An empty tally for each."""


def packed_objective(objective: Objective) -> PackedObjective:
    """The objective for several members: in one go where it is known how, else one after the other."""
    return _PackedClassification(objective) if type(objective) is Classification else _OneByOne(objective)


class _OneByOne:
    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(outputs.unbind(), targets.unbind(), strict=True)
        return torch.stack([self.objective.loss(*pair) for pair in pairs])

    def tallies(self, members: int, device: torch.device) -> _SeparateTallies:
        return _SeparateTallies(self.objective, members, device)


class _SeparateTallies:
    def __init__(self, objective: Objective, members: int, device: torch.device) -> None:
        self.tallies = [objective.tally(device) for _ in range(members)]

    def add(self, outputs: Tensor, targets: Tensor, losses: Tensor | None = None) -> None:
        each = [None] * len(self.tallies) if losses is None else losses.unbind()
        for tally, output, target, loss in zip(self.tallies, outputs, targets, each, strict=True):
            tally.add(output, target, loss)

    def totals(self) -> list[Tensor]:
        return [tally.totals for tally in self.tallies]

    def load(self, totals: list[Tensor]) -> None:
        for tally, total in zip(self.tallies, totals, strict=True):
            tally.totals.copy_(total)


class _PackedClassification:
    def __init__(self, objective: Classification) -> None:
        self.objective = objective

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _cross_entropy(outputs, targets, self.objective.label_smoothing).mean(1)

    def tallies(self, members: int, device: torch.device) -> _ClassTallies:
        return _ClassTallies(self.objective, members, device)


class _ClassTallies:
    """The sums of `objectives.ClassTally`, one row for each member."""

    def __init__(self, objective: Classification, members: int, device: torch.device) -> None:
        self.objective = objective
        self.sums = objective.tally(device).totals.repeat(members, 1)

    def add(self, outputs: Tensor, targets: Tensor, losses: Tensor | None = None) -> None:
        count, summed, hits, top, *by_class = parts_of(self.sums, self.objective.classes)
        count += targets.shape[1]
        summed += _cross_entropy(outputs, targets).sum(1) if losses is None else losses * targets.shape[1]
        recognised = outputs.argmax(2) == targets
        hits += recognised.sum(1)
        if self.objective.classes > TOP:
            best = outputs.topk(TOP, dim=2, sorted=False).indices
            top += (best == targets.unsqueeze(2)).sum((1, 2))
        if self.objective.tell_classes:
            hits_by_class, all_by_class = by_class
            hits_by_class.scatter_add_(1, targets, recognised.double())
            all_by_class.scatter_add_(1, targets, torch.ones_like(targets, dtype=torch.float64))

    def totals(self) -> list[Tensor]:
        return list(self.sums.unbind())

    def load(self, totals: list[Tensor]) -> None:
        self.sums.copy_(torch.stack([total.to(self.sums.device) for total in totals]))


def _cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Of every example, ``[members, B]``."""
    each = functional.cross_entropy(
        outputs.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return each.view(targets.shape)
