"""Rules that every optimizer shares: learning rate, weight decay, momentum, projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from insgd_lab.chain import Batch, Rule, Slot, Tensors, moment_dtype, scalar

__all__ = ["DecoupledDecay", "L2Penalty", "LearningRate", "Momentum", "Projection", "zeros_like_moment"]


def zeros_like_moment(param: Tensor) -> Tensor:
    """A zero buffer of the parameter's shape and memory layout, in at least float32."""
    return torch.zeros_like(param, dtype=moment_dtype(param.dtype), memory_format=torch.preserve_format)


def _is_zero(value: float | Tensor) -> bool:
    return not isinstance(value, Tensor) and value == 0


@dataclass(frozen=True)
class LearningRate(Rule):
    """u <- lr u."""

    equation: ClassVar[str] = "u <- lr u"
    linear: ClassVar[bool] = True
    lr: float | Tensor

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Fold the rate into the pending factor."""
        rate = batch.group["lr"]
        if isinstance(rate, Tensor) and rate.device.type == "cpu" and not isinstance(batch.step, Tensor):
            rate = rate.item()  # a number costs no pass over memory; to be captured, the rate must stay a tensor
        batch.factor = batch.factor * rate
        return update


@dataclass(frozen=True)
class L2Penalty(Rule):
    """u <- u + weight_decay theta.

    At the head of a chain the penalty is part of the gradient that later rules read (Adam); further down it
    enters the update alone (INSGD Algorithm 1).
    """

    equation: ClassVar[str] = "u <- u + weight_decay theta  (at the head of the chain g too)"
    weight_decay: float = 0.0

    def idle(self, group: Mapping[str, Any]) -> bool:
        """Without weight decay there is nothing to add."""
        return _is_zero(group["weight_decay"])

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Add the penalty's gradient."""
        penalised = list(torch._foreach_add(update, batch.params, alpha=batch.group["weight_decay"]))
        if update is batch.grads:
            batch.grads = penalised
        return penalised


@dataclass(frozen=True)
class DecoupledDecay(Rule):
    """u <- u + weight_decay theta, after the moments and before the rate (Loshchilov and Hutter 2019, Algorithm 2).

    With the learning rate behind it this is theta <- (1 - lr weight_decay) theta.
    """

    equation: ClassVar[str] = "u <- u + weight_decay theta"
    weight_decay: float = 0.0

    def idle(self, group: Mapping[str, Any]) -> bool:
        """Without weight decay there is nothing to add."""
        return _is_zero(group["weight_decay"])

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Add the decay to the update; the gradient stays as it is."""
        return list(torch._foreach_add(update, batch.params, alpha=batch.group["weight_decay"]))


@dataclass(frozen=True)
class Momentum(Rule):
    """b_1 = u_1, b <- momentum b + (1 - dampening) u; u <- b, or u + momentum b with ``nesterov``.

    ``dampening=None`` stands for the value of ``momentum`` (INSGD Algorithm 1 prints 1 - gamma).
    """

    equation: ClassVar[str] = "b <- momentum b + (1 - dampening) u, at first b = u;  u <- b  (nesterov: u + momentum b)"
    momentum: float = 0.0
    dampening: float | None = 0.0
    nesterov: bool = False

    def idle(self, group: Mapping[str, Any]) -> bool:
        """Without momentum the update stays as it is."""
        return _is_zero(group["momentum"])

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """One buffer."""
        return {"momentum_buffer": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Average over past updates."""
        momentum, dampening = batch.group["momentum"], batch.group["dampening"]
        buffers = batch.state["momentum_buffer"]
        if "momentum_buffer" in batch.fresh:
            torch._foreach_copy_(buffers, update)
        elif dampening is None or dampening == momentum:
            torch._foreach_lerp_(buffers, update, 1.0 - momentum)  # the same in one pass
        else:
            torch._foreach_mul_(buffers, scalar(momentum, buffers))
            torch._foreach_add_(buffers, update, alpha=1.0 - dampening)
        if batch.group["nesterov"]:
            return list(torch._foreach_add(update, buffers, alpha=momentum))
        return buffers


@dataclass(frozen=True)
class Projection(Rule):
    """theta <- the nearest point of a box or a ball, after the step, for each parameter tensor.

    ``project`` is ``{"box": [low, high]}`` for low <= theta <= high element by element, or ``{"ball": radius}``
    for ||theta||_2 <= radius. Online convex optimization is defined with it (Zinkevich 2003).
    """

    equation: ClassVar[str] = "after the step: theta <- its nearest point with low <= theta <= high, or ||theta|| <= r"
    linear: ClassVar[bool] = True
    project: Mapping[str, Any] | None = None

    def idle(self, group: Mapping[str, Any]) -> bool:
        """Without a set nothing is projected."""
        return group["project"] is None

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """The update is not its business."""
        return update

    def finish(self, batch: Batch) -> None:
        """Project."""
        project = batch.group["project"]
        if "box" in project:
            low, high = project["box"]
            torch._foreach_clamp_min_(batch.params, low)
            torch._foreach_clamp_max_(batch.params, high)
            return
        for param in batch.params:
            norm = torch.linalg.vector_norm(param, dtype=torch.float64)
            # Rounding may leave the scaled tensor a hair outside, as it may any computed point of the sphere.
            param.mul_((project["ball"] / norm).clamp(max=1).to(moment_dtype(param.dtype)))
