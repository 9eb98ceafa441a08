"""Rules without moments of the gradient's square: SGD, LMS, and the layer-wise ones."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from insgd_lab.optimizers.named import Common, NamedOptimizer
from insgd_lab.rules.basic import L2Penalty, LearningRate, Momentum
from insgd_lab.rules.layerwise import LogNormGain, TrustRatio

__all__ = ["LARS", "LMS", "LSALR", "SGD"]


class SGD(NamedOptimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD computes it.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        momentum: share of the running mean that is kept.
        dampening: share of each new gradient that is left out of the running mean.
        weight_decay: coupled: ``weight_decay * theta`` is added to the gradient.
        nesterov: look ahead; needs momentum and no dampening.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [L2Penalty(weight_decay), Momentum(momentum, dampening, nesterov), LearningRate(lr)]
        super().__init__(params, rules, **common)


class LMS(NamedOptimizer):
    """Least mean squares: theta <- theta + lr e u (INSGD Eq. 6), which is SGD on the loss ``0.5 * e ** 2``.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: step size mu.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **common: Unpack[Common]) -> None:
        super().__init__(params, [LearningRate(lr)], **common)


class LARS(NamedOptimizer):
    """Layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, Algorithm 1).

    INSGD Eq. 17 is ``LARS(params, lr=1.0, trust_coefficient=lr, momentum=0.0, eps=0.0, exclude="none")``.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate; it multiplies the local rate before the momentum.
        trust_coefficient: eta of the local rate eta ||theta|| / (||g|| + weight_decay ||theta|| + eps).
        momentum: share of the running sum that is kept.
        weight_decay: of the parameters that are not excluded.
        eps: keeps the local rate finite.
        exclude: "1d" leaves parameters of at most one dimension without local rate and decay; "none" excludes
            nothing. To exclude others, give them a group with ``skip=("TrustRatio",)``.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1.0, *, trust_coefficient: float = 0.001, momentum: float = 0.9,
        weight_decay: float = 0.0, eps: float = 1e-8, exclude: str = "1d", **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [TrustRatio(trust_coefficient, weight_decay, eps, exclude), LearningRate(lr), Momentum(momentum)]
        super().__init__(params, rules, **common)


class LSALR(NamedOptimizer):
    """Layer-specific adaptive learning rates: the step is multiplied by 1 + log(1 + 1 / ||g||) (INSGD Eq. 18).

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        weight_decay: coupled: added to the gradient before its norm is taken.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-2, *, weight_decay: float = 0.0, **common: Unpack[Common]
    ) -> None:
        super().__init__(params, [L2Penalty(weight_decay), LogNormGain(), LearningRate(lr)], **common)
