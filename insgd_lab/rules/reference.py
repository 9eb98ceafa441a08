"""What the papers' published code computes instead of what the papers print, step for step.

If the tables were made with that code, these are the rules that they measured; nothing in the texts ties the two
together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from insgd_lab.chain import Batch, Slot, Tensors, moment_dtype, scalar
from insgd_lab.rules.basic import zeros_like_moment
from insgd_lab.rules.input_power import Measuring
from insgd_lab.rules.layerwise import NormCorrection
from insgd_lab.rules.moments import SecondMoment, add_number_, average_squares, divide_pending, root_of

__all__ = ["AccumulatingSecondMoment", "DampedMomentum", "ForgetfulNormCorrection", "PlaneNorm"]

_FLOOR = 0.01


@dataclass(frozen=True)
class _OfPlanes(Measuring):
    """f = max(log((1 - dampening) n), 0.01), n the norm of standardised planes per input channel.

    z is x standardised per example and channel over its plane (Linear: over its features), with the unbiased standard
    deviation clamped below at 0.01; n is the mean over examples of the sum of |z|^order. The code means to keep
    gamma P + (1 - tau) n, but never stores P. Parameters whose input was not recorded or is not finite are not divided.
    """

    order: ClassVar[float]

    def settings(self, group: Mapping[str, Any]) -> Mapping[str, Any]:
        """Standardised planes."""
        return {"p": self.order, "granularity": "channel", "center": True, "power": True}

    def join(self, group: Mapping[str, Any]) -> None:
        """Watch the layers; raises ValueError for grouped convolutions that are not depthwise."""
        super().join(group)
        for param in group["params"]:
            for layer in self.sensor.layers(param):
                if getattr(layer, "groups", 1) != 1:
                    self._refuse_unless_depthwise(param, layer)

    def _refuse_unless_depthwise(self, param: Tensor, layer: Any) -> None:
        inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        if (inputs, outputs) != (1, 1):
            raise ValueError(
                f"{self.sensor.name(param)} has {layer.groups} groups of {inputs} inputs and {outputs} outputs; the "
                "published code takes one input and one output a group; use insgd-l1 or insgd-l2"
            )

    def divisors(self, batch: Batch, constant: float = 1.0) -> dict[int, Tensor]:
        """By the parameter's number in the batch: f over a constant."""
        dtype = moment_dtype(batch.params[0].dtype)
        # The mean of no deviations is 0, and its logarithm minus infinity: clamped like the rest.
        kept = math.log1p(-batch.group["dampening"]) if batch.group["dampening"] < 1 else -math.inf
        logs = {i: log_n + kept for i, log_n in self.readings(batch).items() if log_n is not None}
        found = {i: _divisor(log, constant).to(dtype) for i, log in logs.items()}
        batch.note("input_power", lambda: [(batch.params[i], log.exp().mean()) for i, log in logs.items()])
        batch.note("step_scale", lambda: [(batch.params[i], f.reciprocal().mean()) for i, f in found.items()])
        batch.note("clipped", lambda: [(batch.params[i], (v < _FLOOR).double().mean()) for i, v in logs.items()])
        return found


def _divisor(log_power: Tensor, constant: float) -> Tensor:
    """The divisor f over a constant; 1 where no number was recorded."""
    f = log_power.clamp(min=_FLOOR) / constant
    return torch.where(log_power < math.inf, f, 1.0)  # NaN is not less


def _divide(tensors: Tensors, divisors: Mapping[int, Tensor]) -> Tensors:
    """A copy of the list in which the tensors that have a divisor are divided by it."""
    result = list(tensors)
    for i, divisor in divisors.items():
        result[i] = tensors[i] / divisor
    return result


@dataclass(frozen=True)
class DampedMomentum(_OfPlanes):
    """b_1 = u_1 / f_1, b <- (momentum b + (1 - dampening) u) / f;  u <- b  (published code of INSGD with l2).

    The stored buffer itself is divided, so that past updates are damped again at every step. Where every plane
    varies, n is the number of its pixels less one whatever the data, so f does not depend on the input at all; where
    f < momentum (dead planes) the buffer grows at each step.
    """

    equation: ClassVar[str] = (
        "f = max(log((1 - dampening) mean ||z||_2^2), 0.01), z standardised planes;  "
        "b <- (momentum b + (1 - dampening) u) / f, at first b = u / f;  u <- b"
    )
    order: ClassVar[float] = 2.0
    momentum: float = 0.9
    dampening: float = 0.0

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """One buffer, where there is momentum."""
        return {"momentum_buffer": zeros_like_moment} if group["momentum"] else {}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Average, and divide the average in place."""
        divisors = self.divisors(batch)
        if not batch.group["momentum"]:
            return _divide(update, divisors)
        buffers = batch.state["momentum_buffer"]
        if "momentum_buffer" in batch.fresh:
            torch._foreach_copy_(buffers, update)
        else:
            torch._foreach_mul_(buffers, scalar(batch.group["momentum"], buffers))
            torch._foreach_add_(buffers, update, alpha=1 - batch.group["dampening"])
        for i, divisor in divisors.items():
            buffers[i].div_(divisor)
        return buffers


@dataclass(frozen=True)
class PlaneNorm(_OfPlanes):
    """u <- u c / f, c = sqrt(1 + 1e-6) / (sqrt(1 - momentum) + 1e-6)  (published code of INSGD with l1).

    An accumulator like Adadelta's and a bias correction were meant, but neither is ever stored, so both stay at
    their first value: the constant c, about 3.16 at momentum 0.9.
    """

    equation: ClassVar[str] = (
        "f = max(log((1 - dampening) mean ||z||_1), 0.01), z standardised planes;  "
        "u <- u sqrt(1 + 1e-6) / (sqrt(1 - momentum) + 1e-6) / f"
    )
    order: ClassVar[float] = 1.0
    momentum: float = 0.9
    dampening: float = 0.0

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Scale what was recorded."""
        constant = math.sqrt(1 + 1e-6) / (math.sqrt(1 - batch.group["momentum"]) + 1e-6)
        return _divide(update, self.divisors(batch, constant))


@dataclass(frozen=True)
class ForgetfulNormCorrection(NormCorrection):
    """e = (1 - gamma) ||g||: the published RadamNorm sets e to 0 before each step, so that it corrects nothing."""

    equation: ClassVar[str] = "e <- 0;  e <- gamma e + (1 - gamma) ||u||;  u <- u max(1, e / ||u||) = u"

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Forget, then correct."""
        batch.vector("exp_avg_norm").zero_()
        return super().__call__(update, batch)


@dataclass(frozen=True)
class AccumulatingSecondMoment(SecondMoment):
    """v <- beta2 v + (1 - beta2) g^2 + eps;  u <- u / (sqrt(v / (1 - beta2^t)) + eps)  (published code of AdamNorm).

    eps is added to the stored v at every step, so that v settles eps / (1 - beta2) higher.
    """

    equation: ClassVar[str] = "v <- beta2 v + (1 - beta2) g^2 + eps;  u <- u / (sqrt(v / (1 - beta2^t)) + eps)"

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Divide by the root of the averaged square and all the eps so far."""
        squares = average_squares(batch)
        add_number_(squares, batch.group["eps"])
        divide_pending(batch, *root_of(squares, batch))
        return update
