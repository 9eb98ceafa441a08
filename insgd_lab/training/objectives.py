"""What a batch of a model's outputs is worth: the loss that is trained on, and the metrics that are told.

>>> objective = Classification(classes=10)
>>> tally = objective.tally("cpu")
>>> tally.add(scores, labels)
>>> tally.metrics()
{'loss': 2.3, 'accuracy': 0.11, 'top5_accuracy': 0.52}
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from insgd_lab.training.recall import by_class as recalls

__all__ = ["TOP", "Classification", "Objective", "Tally", "parts_of"]

TOP = 5


class Tally(Protocol):
    """Sums over examples, kept on the device: no `add` waits for it.

    `totals` is one float64 vector, so that ranks can add theirs up and a checkpoint can keep it.
    """

    totals: Tensor

    def add(self, outputs: Tensor, targets: Tensor, loss: Tensor | None = None) -> None:
        """Count a batch; `loss` is its mean loss if that is known already."""

    def metrics(self) -> dict[str, float]:
        """The metrics of all that was counted, by name; the only call that waits for the device."""


class Objective(Protocol):
    """What is minimised, and what is measured."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over a batch of what training minimises, a float32 scalar."""

    def tally(self, device: str | torch.device) -> Tally:
        """An empty tally."""


class Classification:
    """Cross-entropy over classes.

    Args:
        classes: their number; outputs are scores [B, classes], targets are labels int64 [B].
        tell_classes: whether the metrics have the balanced accuracy and each class's recall too.
        label_smoothing: share of the target that training spreads evenly over all classes (Szegedy et al. 2016);
            evaluation is always on the labels themselves.
    """

    def __init__(self, classes: int, *, tell_classes: bool = False, label_smoothing: float = 0.0) -> None:
        self.classes, self.tell_classes, self.label_smoothing = classes, tell_classes, label_smoothing

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy with smoothed labels."""
        return functional.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def tally(self, device: str | torch.device) -> ClassTally:
        """An empty tally."""
        return ClassTally(self.classes, device, tell_classes=self.tell_classes)


def parts_of(totals: Tensor, classes: int) -> tuple[Tensor, ...]:
    """The sums of a tally, or of several ``[tallies, sums]``, one by one, to be written to.

    Images, their summed loss, those recognised, those in the top five; by class those recognised, and all.
    """
    return *totals[..., :4].unbind(-1), *torch.split(totals[..., 4:], classes, -1)


class ClassTally:
    """Loss, accuracy, top-5 accuracy where there are more than five classes, and how each class fares if asked.

    An image counts towards the top-5 accuracy if its class is among the five with the highest scores.
    """

    def __init__(self, classes: int, device: str | torch.device, *, tell_classes: bool = False) -> None:
        self.classes, self.tell_classes = classes, tell_classes
        by_class = 2 * classes if tell_classes else 0
        self.totals = torch.zeros(4 + by_class, dtype=torch.float64, device=device)
        self._parts = parts_of(self.totals, classes)

    def add(self, outputs: Tensor, targets: Tensor, loss: Tensor | None = None) -> None:
        """Count a batch: scores [B, classes], labels int64 [B]."""
        count, summed, hits, top, *by_class = self._parts
        if loss is None:
            summed += functional.cross_entropy(outputs, targets, reduction="sum")
        else:
            summed.add_(loss, alpha=len(targets))
        count += len(targets)
        recognised = outputs.argmax(1) == targets
        hits += recognised.sum()
        if self.classes > TOP:
            best = outputs.topk(TOP, dim=1, sorted=False).indices
            top += (best == targets[:, None]).sum()
        if self.tell_classes:
            hits_by_class, all_by_class = by_class
            hits_by_class.index_add_(0, targets, recognised.double())
            all_by_class.index_add_(0, targets, torch.ones_like(targets, dtype=torch.float64))

    def metrics(self) -> dict[str, float]:
        """The metrics by name."""
        (count, loss, hits, top), by_class = self.totals[:4].tolist(), self.totals[4:].cpu()
        means = {"loss": loss / count, "accuracy": hits / count}
        means |= {"top5_accuracy": top / count} if self.classes > TOP else {}
        return {**means, **(recalls(*torch.split(by_class, self.classes)) if self.tell_classes else {})}
