"""Rules that every optimizer shares: learning rate, weight decay, momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from insgd_lab.chain import Batch, Rule, Slot, Tensors, moment_dtype

__all__ = ["L2Penalty", "LearningRate", "Momentum", "zeros_like_moment"]


def zeros_like_moment(param: Tensor) -> Tensor:
    """A zero buffer of the parameter's shape and memory layout, in at least float32."""
    return torch.zeros_like(param, dtype=moment_dtype(param.dtype), memory_format=torch.preserve_format)


@dataclass(frozen=True)
class LearningRate(Rule):
    """u <- lr u."""

    linear: ClassVar[bool] = True
    lr: float | Tensor

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Fold the rate into the pending factor."""
        batch.factor = batch.factor * batch.group["lr"]
        return update


@dataclass(frozen=True)
class L2Penalty(Rule):
    """u <- u + weight_decay theta.

    At the head of a chain the penalty is part of the gradient that later rules read (Adam); further down it
    enters the update alone (INSGD Algorithm 1).
    """

    weight_decay: float = 0.0

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Add the penalty's gradient."""
        decay = batch.group["weight_decay"]
        if decay == 0:
            return update
        penalised = list(torch._foreach_add(update, batch.params, alpha=decay))
        if update is batch.grads:
            batch.grads = penalised
        return penalised


@dataclass(frozen=True)
class Momentum(Rule):
    """b_1 = u_1, b <- momentum b + (1 - dampening) u; u <- b, or u + momentum b with ``nesterov``.

    ``dampening=None`` stands for the value of ``momentum`` (INSGD Algorithm 1 prints 1 - gamma).
    """

    momentum: float = 0.0
    dampening: float | None = 0.0
    nesterov: bool = False

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """One buffer, where there is momentum."""
        return {"momentum_buffer": zeros_like_moment} if group["momentum"] else {}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Average over past updates."""
        momentum, dampening = batch.group["momentum"], batch.group["dampening"]
        if momentum == 0:
            return update
        buffers = batch.state["momentum_buffer"]
        torch._foreach_mul_(buffers, momentum)
        first = "momentum_buffer" in batch.fresh
        weight = 1.0 if first else 1.0 - (momentum if dampening is None else dampening)
        torch._foreach_add_(buffers, update, alpha=weight)
        if batch.group["nesterov"]:
            return list(torch._foreach_add(update, buffers, alpha=momentum))
        return buffers
