"""Losses that optimizers of the lab are defined with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["InverseActivationLoss"]


class InverseActivationLoss(nn.Module):
    """Mean over examples of 0.5 ||phi(d) - W x||^2, phi the inverse of the neurons' activation (INSGD Eq. 21-24).

    The last layer is left linear and its target taken back through the activation, so that the NLMS step is defined
    for it: with ``NLMS(layer, lr=1.0, eps=0.0)``, one example and no bias, a step makes W x = phi(d).

    Args:
        activation: "sigmoid" (targets in (0, 1)), "tanh" (in (-1, 1)), "leaky-relu" (any) or "relu" (any; a ReLU
            has no inverse below 0, and negative targets count as 0).
        negative_slope: of the leaky ReLU; above 0.

    Shapes: ``forward(preactivation, target)`` takes two tensors ``[batch, ...]`` of one shape and gives a scalar.

    Raises:
        ValueError: an unknown activation, a slope that is not above 0, a target that the activation never takes, or
            two shapes.
    """

    def __init__(self, activation: str, negative_slope: float = 0.01) -> None:
        super().__init__()
        if activation not in _INVERSES:
            raise ValueError(f"activation = {activation!r}: expected one of {', '.join(_INVERSES)}")
        if not negative_slope > 0:
            raise ValueError(f"negative_slope = {negative_slope}: expected a number above 0, else there is no inverse")
        self.activation, self.negative_slope = activation, negative_slope

    def extra_repr(self) -> str:
        """The activation, as torch prints modules."""
        return repr(self.activation)

    def forward(self, preactivation: Tensor, target: Tensor) -> Tensor:
        """The loss of a linear layer's output and the desired output of the activation."""
        if preactivation.shape != target.shape:
            raise ValueError(
                f"preactivation {list(preactivation.shape)} and target {list(target.shape)}: expected one shape"
            )
        errors = (self.inverse(target) - preactivation).square()
        return 0.5 * errors.sum() / max(1, len(errors))

    def inverse(self, target: Tensor) -> Tensor:
        """phi(d) of desired outputs."""
        low, high = _RANGES.get(self.activation, (-torch.inf, torch.inf))
        if not bool(((target > low) & (target < high)).all()):
            raise ValueError(
                f"targets of a {self.activation} lie between {low:g} and {high:g}, both excluded; got "
                f"{target.min().item():g} to {target.max().item():g}; scale them into the open interval"
            )
        return _INVERSES[self.activation](target, self.negative_slope)


_RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}

_INVERSES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sigmoid": lambda d, _: torch.logit(d),
    "tanh": lambda d, _: torch.atanh(d),
    "leaky-relu": lambda d, slope: torch.where(d < 0, d / slope, d),
    "relu": lambda d, _: d.clamp(min=0),
}
