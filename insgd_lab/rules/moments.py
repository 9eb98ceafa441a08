"""Running moments of the gradient: Adam and its kin.

A second moment does not divide the update, it leaves the root as the batch's pending divisor: the division and the
subtraction from the parameters are then one pass over memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from insgd_lab.chain import Batch, Rule, Slot, Tensors, scalar
from insgd_lab.rules.basic import zeros_like_moment

__all__ = [
    "Belief",
    "FirstMoment",
    "Friction",
    "Rectified",
    "SecondMoment",
    "add_number_",
    "average_squares",
    "divide_pending",
    "root_of",
]


@dataclass(frozen=True)
class FirstMoment(Rule):
    """m <- beta1 m + (1 - beta1) u;  u <- m / (1 - beta1^t)  (Kingma and Ba 2015, Algorithm 1)."""

    equation: ClassVar[str] = "m <- beta1 m + (1 - beta1) u;  u <- m / (1 - beta1^t)"
    betas: tuple[float, float] = (0.9, 0.999)

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The first moment."""
        return {"exp_avg": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Average the update; the bias correction is left to the pending factor."""
        beta = batch.group["betas"][0]
        averages = batch.state["exp_avg"]
        torch._foreach_lerp_(averages, update, 1 - beta)
        batch.averaged = update
        batch.factor = batch.factor / (1 - beta**batch.step)
        return averages


@dataclass(frozen=True)
class SecondMoment(Rule):
    """v <- beta2 v + (1 - beta2) g^2;  u <- u / (sqrt(v / (1 - beta2^t)) + eps), eps outside the root.

    g is the gradient with coupled decay, unless a rule put something else in its place. With ``amsgrad`` the
    largest v so far divides (Reddi, Kale and Kumar 2018, Algorithm 2).
    """

    equation: ClassVar[str] = (
        "v <- beta2 v + (1 - beta2) g^2;  u <- u / (sqrt(v / (1 - beta2^t)) + eps)  (amsgrad: the largest v so far)"
    )
    linear: ClassVar[bool] = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = False

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The second moment, and its maximum for AMSGrad."""
        slots: dict[str, Slot] = {"exp_avg_sq": zeros_like_moment}
        if group["amsgrad"]:
            slots["max_exp_avg_sq"] = zeros_like_moment
        return slots

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Divide by the root of the averaged square."""
        squares = average_squares(batch)
        if batch.group["amsgrad"]:
            torch._foreach_maximum_(batch.state["max_exp_avg_sq"], squares)
            squares = batch.state["max_exp_avg_sq"]
        divide_pending(batch, *root_of(squares, batch))
        return update


@dataclass(frozen=True)
class Rectified(Rule):
    """Variance rectification of v (Liu et al. 2020, RAdam, Algorithm 2), in torch's form.

    v <- beta2 v + (1 - beta2) g^2. With rho_inf = 2 / (1 - beta2) - 1 and
    rho = rho_inf - 2 t beta2^t / (1 - beta2^t): where rho > threshold, u <- u r sqrt(1 - beta2^t) / (sqrt(v) + eps)
    with r^2 = (rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho); else u stays as it is.
    """

    equation: ClassVar[str] = (
        "v <- beta2 v + (1 - beta2) g^2;  where rho_t > threshold: u <- u r_t sqrt(1 - beta2^t) / (sqrt(v) + eps)"
    )
    linear: ClassVar[bool] = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    threshold: float = 5.0

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The second moment."""
        return {"exp_avg_sq": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Divide by the root of the averaged square once its variance is finite."""
        beta, eps, step = batch.group["betas"][1], batch.group["eps"], batch.step
        squares = average_squares(batch)
        longest = 2 / (1 - beta) - 1
        length = longest - 2 * step * beta**step / (1 - beta**step)
        if not isinstance(length, Tensor):
            if length > batch.group["threshold"]:
                root = list(torch._foreach_sqrt(squares))
                add_number_(root, eps)
                divide_pending(batch, root, math.sqrt(_rectification(length, longest) * (1 - beta**step)))
            return update
        rectified = length > batch.group["threshold"]
        root = [torch.where(rectified, square.sqrt() + eps, 1.0) for square in squares]
        # Below the threshold the formula may have no root; what stands there is not used, but must be a number.
        inside = _rectification(torch.where(rectified, length, longest), longest) * (1 - beta**step)
        divide_pending(batch, root, torch.where(rectified, inside, 1.0).sqrt())
        return update


def _rectification(length: Any, longest: float) -> Any:
    """The square of r_t."""
    return (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)


@dataclass(frozen=True)
class Belief(Rule):
    """v <- beta2 v + (1 - beta2) (g - m)^2 + eps;  u <- u / (sqrt(v / (1 - beta2^t)) + eps).

    AdaBelief (Zhuang et al. 2020, Algorithm 2): eps adds up inside v, and stands outside the root too. Behind a
    :class:`FirstMoment`, whose m it reads; g is what that averaged, which a norm correction may have "corrected", or
    with ``belief="raw"`` the gradient itself.
    """

    equation: ClassVar[str] = "v <- beta2 v + (1 - beta2) (g - m)^2 + eps;  u <- u / (sqrt(v / (1 - beta2^t)) + eps)"
    linear: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("FirstMoment",)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    belief: str = "corrected"

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The second moment of the gradient about its mean."""
        return {"exp_avg_var": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Divide by the root of the averaged squared surprise."""
        beta, variances = batch.group["betas"][1], batch.state["exp_avg_var"]
        seen = batch.averaged if batch.group["belief"] == "corrected" else batch.grads
        surprise = torch._foreach_sub(seen, batch.state["exp_avg"])
        torch._foreach_mul_(variances, scalar(beta, variances))
        torch._foreach_addcmul_(variances, surprise, surprise, 1 - beta)
        add_number_(variances, batch.group["eps"])
        divide_pending(batch, *root_of(variances, batch))
        return update


@dataclass(frozen=True)
class Friction(Rule):
    """u <- u xi, xi = 1 / (1 + exp(-|g_{t-1} - g_t|)) element by element, g_0 = 0 (diffGrad, Dubey et al. 2020)."""

    equation: ClassVar[str] = "u <- u / (1 + exp(-|g_{t-1} - g_t|)), g_0 = 0"
    linear: ClassVar[bool] = True

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The gradient of the step before."""
        return {"previous_grad": zeros_like_moment}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Slow down where the gradient hardly changes."""
        previous = batch.state["previous_grad"]
        torch._foreach_sub_(previous, batch.grads)  # the old gradient is not needed again: work in its place
        torch._foreach_abs_(previous)
        torch._foreach_sigmoid_(previous)
        if batch.divisor is None:
            update = list(torch._foreach_mul(update, previous))
        else:
            torch._foreach_div_(batch.divisor, previous)
        torch._foreach_copy_(previous, batch.grads)
        return update


def average_squares(batch: Batch) -> Tensors:
    """Update exp_avg_sq and return it."""
    beta, squares = batch.group["betas"][1], batch.state["exp_avg_sq"]
    grads = batch.grads if batch.second is None else batch.second
    torch._foreach_mul_(squares, scalar(beta, squares))
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta)
    return squares


def root_of(squares: Tensors, batch: Batch) -> tuple[Tensors, float]:
    """sqrt(v / c) + eps with c = 1 - beta2^t, and the factor still owed to the update."""
    eps, correction = batch.group["eps"], (1 - batch.group["betas"][1] ** batch.step) ** 0.5
    root = list(torch._foreach_sqrt(squares))
    if isinstance(correction, Tensor):
        torch._foreach_div_(root, scalar(correction, root))
        add_number_(root, eps)
        return root, 1.0
    add_number_(root, eps * correction)  # (sqrt(v) + eps sqrt(c)) / sqrt(c): one pass less
    return root, correction


def add_number_(tensors: Tensors, number: float) -> None:
    """Add one number to all, in place, in the form that is fastest (see :func:`insgd_lab.chain.scalar`)."""
    if tensors[0].device.type == "cpu":
        torch._foreach_add_(tensors, scalar(1.0, tensors), alpha=number)
    else:
        torch._foreach_add_(tensors, number)


def divide_pending(batch: Batch, divisor: Tensors, factor: float | Tensor) -> None:
    """Leave u <- u factor / divisor to be done with the next pass."""
    batch.factor = batch.factor * factor
    batch.divisor = divisor if batch.divisor is None else list(torch._foreach_mul(batch.divisor, divisor))
