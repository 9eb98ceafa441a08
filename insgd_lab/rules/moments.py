"""Running moments of the gradient: Adam and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from insgd_lab.chain import Batch, Rule, Slot, Tensors
from insgd_lab.rules.basic import zeros_like_moment

__all__ = ["FirstMoment", "SecondMoment"]


@dataclass(frozen=True)
class FirstMoment(Rule):
    """m <- beta1 m + (1 - beta1) u;  u <- m / (1 - beta1^t)  (Kingma and Ba 2015, Algorithm 1)."""

    betas: tuple[float, float] = (0.9, 0.999)

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The first moment."""
        return {"exp_avg": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Average the update; the bias correction is left to the pending factor."""
        beta = batch.group["betas"][0]
        averages = batch.state["exp_avg"]
        torch._foreach_lerp_(averages, update, 1 - beta)
        batch.factor = 1 / (1 - beta**batch.step)
        return averages


@dataclass(frozen=True)
class SecondMoment(Rule):
    """v <- beta2 v + (1 - beta2) g^2;  u <- u / (sqrt(v / (1 - beta2^t)) + eps), eps outside the root.

    g is the gradient as ``batch.grads`` has it: with coupled decay, without a norm correction.
    """

    linear: ClassVar[bool] = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The second moment."""
        return {"exp_avg_sq": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Divide by the root of the averaged square."""
        beta = batch.group["betas"][1]
        squares = batch.state["exp_avg_sq"]
        torch._foreach_mul_(squares, beta)
        torch._foreach_addcmul_(squares, batch.grads, batch.grads, 1 - beta)
        root = torch._foreach_sqrt(squares)
        torch._foreach_div_(root, (1 - beta**batch.step) ** 0.5)
        torch._foreach_add_(root, batch.group["eps"])
        return list(torch._foreach_div(update, root))
