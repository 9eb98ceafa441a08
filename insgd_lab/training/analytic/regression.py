"""What tasks without classes have in common: a mean loss, a rank's share of a batch, a stream for ever.

>>> SQUARED_ERROR.loss(torch.tensor([[3.0]]), torch.tensor([[1.0]]))      # e^2 / 2, as in LMS
tensor(2.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from insgd_lab.training.streams import derive

if TYPE_CHECKING:
    from insgd_lab.training.feeds import BatchPlan

__all__ = ["EVALUATED", "SQUARED_ERROR", "LossTally", "MeanLoss", "frozen", "share"]

EVALUATED = 1000
"""Examples in a validation or test split that has to be sampled."""

Each = Callable[[Tensor, Tensor], Tensor]
"""The loss of each example, [B], from outputs and targets."""


@dataclass(frozen=True)
class MeanLoss:
    """An objective: the mean over the batch of what `each` example costs."""

    each: Each

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch, 0-dim."""
        return self.each(outputs, targets).mean()

    def tally(self, device: str | torch.device) -> LossTally:
        """A count of nothing yet."""
        return LossTally(self.each, torch.zeros(2, dtype=torch.float64, device=device))


@dataclass
class LossTally:
    """The mean loss over many batches; `totals` are the sum of the losses and the number of examples, float64."""

    each: Each
    totals: Tensor

    def add(self, outputs: Tensor, targets: Tensor, loss: Tensor | None = None) -> None:
        """Count a batch in; `loss` is its mean loss if that is known already."""
        known = self.each(outputs, targets).double().sum() if loss is None else loss.double() * len(targets)
        self.totals[0] += known
        self.totals[1] += len(targets)

    def metrics(self) -> dict[str, float]:
        """The mean loss."""
        total, count = self.totals.tolist()
        return {"loss": total / count if count else float("nan")}


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error of each example, summed over its outputs: outputs and targets [B, K] to [B]."""
    return (outputs - targets).square().sum(1) / 2


SQUARED_ERROR = MeanLoss(squared_error)
"""Half the squared error, summed over outputs, averaged over the batch: with it, SGD on single examples is LMS."""


def share(plan: BatchPlan, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a batch that are this rank's, on its device."""
    rows = slice(plan.rank, None, plan.ranks)
    return inputs[rows].to(plan.device), targets[rows].to(plan.device)


def frozen(purpose: str) -> np.random.RandomState:
    """The stream of numbers that a task is made of, the same for ever; numpy keeps RandomState's numbers."""
    return np.random.RandomState(derive(0, purpose) % 2**32)
