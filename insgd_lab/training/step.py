"""One optimizer step: forward and backward over the parts of a batch, clipping, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from insgd_lab.config import TrainSpec
from insgd_lab.training.objectives import Objective, Tally
from insgd_lab.training.precision import autocast, scaler
from insgd_lab.training.ranks import Ranks

__all__ = ["Step", "Take"]

Take = Callable[[Tensor, Tensor, int], Tensor]
"""One step on a batch: inputs, targets, and the number of examples over all ranks; its share of the mean loss."""


class Step:
    """Trains a network on one batch at a time. It asks the device for no value (but float16's scaler does).

    Args:
        network: what is called: the model, perhaps compiled or data-parallel.
        optimizer: of its parameters.
        objective: what is minimised.
        settings: precision, accumulation and clipping.
        device: where the batches are.
        ranks: the processes that share each batch; their gradients are averaged by the network.

    Attributes:
        skipped: steps that float16's scaler has left out, since a gradient was not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        settings: TrainSpec,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.network, self.optimizer, self.objective = network, optimizer, objective
        self.settings, self.device, self.ranks = settings, device, ranks
        self.scaler = scaler(settings.precision, device)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.skipped = 0

    def __call__(self, inputs: Tensor, targets: Tensor, tally: Tally, count: int) -> Tensor:
        """Take one step.

        Args:
            inputs: this rank's part of the batch, [b, ...].
            targets: likewise, [b, ...].
            tally: where outputs and loss are counted.
            count: examples of the batch over all ranks.

        Returns:
            This rank's share of the batch's mean loss: over all ranks the shares add up to it.
        """
        self.optimizer.zero_grad()
        parts = self._parts(inputs, targets)
        share = torch.zeros((), device=self.device)
        for number, (x, y) in enumerate(parts, 1):
            with self._without_exchange(last=number == len(parts)):
                share = share + self._part(x, y, tally, count)
        if math.isfinite(self.settings.clip_norm):
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self._update_scale()
        return share

    def _update_scale(self) -> None:
        if self.scaler.is_enabled():
            before = self.scaler.get_scale()
            self.scaler.update()
            self.skipped += self.scaler.get_scale() < before

    def _parts(self, inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The parts of a batch: on several ranks, equally many on each, if some are empty."""
        pieces = self.settings.accumulate
        parts = zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
        return [(x, y) for x, y in parts if len(y) or self.ranks.size > 1]

    def _part(self, inputs: Tensor, targets: Tensor, tally: Tally, count: int) -> Tensor:
        """Forward and backward over one part; its share of the batch's mean loss."""
        with autocast(self.settings.precision, self.device):
            outputs = self.network(inputs)
        outputs = outputs.float()
        if not len(targets):  # a last batch with fewer examples than ranks: all ranks exchange gradients, if of zero
            nothing: Tensor = outputs.sum() * 0
            nothing.backward()  # type: ignore[no-untyped-call]
            return nothing.detach()
        loss = self.objective.loss(outputs, targets)
        weight = len(targets) / count
        # The data-parallel network averages over ranks, so each brings its share `size` times over.
        factor = weight * self.ranks.size
        self.scaler.scale(loss if factor == 1 else loss * factor).backward()  # type: ignore[no-untyped-call]
        tally.add(outputs.detach(), targets, loss.detach())
        return loss.detach() * weight

    def _without_exchange(self, *, last: bool) -> Any:
        """Ranks exchange gradients once a step, in the backward pass of the last part."""
        return nullcontext() if last or self.ranks.size == 1 else self.network.no_sync()  # type: ignore[operator]
