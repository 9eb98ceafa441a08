"""Adam and its kin, each with and without AdaNorm's correction of the gradient's norm.

All of them are a first moment, something that divides it, and a learning rate; weight decay is coupled (added to
the gradient) or ``decoupled`` (subtracted from the parameters beside the step).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from insgd_lab.chain import Rule
from insgd_lab.optimizers.named import Common, NamedOptimizer
from insgd_lab.rules.basic import DecoupledDecay, L2Penalty, LearningRate
from insgd_lab.rules.layerwise import NormCorrection
from insgd_lab.rules.moments import Belief, FirstMoment, Friction, Rectified, SecondMoment
from insgd_lab.rules.reference import AccumulatingSecondMoment, ForgetfulNormCorrection

__all__ = [
    "AdaBelief",
    "AdaBeliefNorm",
    "Adam",
    "AdamNorm",
    "AdamNormReference",
    "DiffGrad",
    "DiffGradNorm",
    "RAdam",
    "RAdamNorm",
    "RAdamNormReference",
]

Betas = tuple[float, float]


def _between(rules: Sequence[Rule], lr: float | Tensor, weight_decay: float, decoupled: bool) -> list[Rule]:
    """The chain with weight decay at its place and the learning rate last."""
    if decoupled:
        return [*rules, DecoupledDecay(weight_decay), LearningRate(lr)]
    return [L2Penalty(weight_decay), *rules, LearningRate(lr)]


class Adam(NamedOptimizer):
    """Adam (Kingma and Ba 2015, Algorithm 1), as torch.optim.Adam computes it; with ``decoupled``, AdamW.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: added to the gradient that both moments see, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead (Loshchilov and Hutter 2019).
        amsgrad: divide by the root of the largest second moment so far (Reddi, Kale and Kumar 2018).
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, decoupled: bool = False, amsgrad: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [FirstMoment(betas), SecondMoment(betas, eps, amsgrad)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class AdamNorm(NamedOptimizer):
    """Adam whose first moment sees gradients raised to the running norm of their past (AdaNorm Eq. 2-9).

    The second moment sees the gradient itself. ``gamma = 0`` is :class:`Adam` to the last bit.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        gamma: decay rate of the running norm.
        scope: whose norm: "tensor" each parameter's own, "global" that of all gradients together.
        correct: which moment sees the corrected gradient: "first", "second", or "both" (Table 3).
        weight_decay: added to the gradient before its norm is taken, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        amsgrad: divide by the root of the largest second moment so far.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        gamma: float = 0.95, scope: str = "tensor", correct: str = "first", weight_decay: float = 0.0,
        decoupled: bool = False, amsgrad: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [NormCorrection(gamma, scope, correct), FirstMoment(betas), SecondMoment(betas, eps, amsgrad)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class DiffGrad(NamedOptimizer):
    """diffGrad (Dubey et al. 2020): Adam with each coordinate slowed down where its gradient hardly changes.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: added to the gradient, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, decoupled: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [FirstMoment(betas), SecondMoment(betas, eps), Friction()]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class DiffGradNorm(NamedOptimizer):
    """diffGrad with AdaNorm's correction (AdaNorm Section 3.2); the friction sees the gradient itself.

    ``gamma = 0`` is :class:`DiffGrad` to the last bit.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        gamma: decay rate of the running norm.
        scope: whose norm: "tensor" each parameter's own, "global" that of all gradients together.
        correct: which moment sees the corrected gradient: "first", "second", or "both".
        weight_decay: added to the gradient before its norm is taken, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        gamma: float = 0.95, scope: str = "tensor", correct: str = "first", weight_decay: float = 0.0,
        decoupled: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [NormCorrection(gamma, scope, correct), FirstMoment(betas), SecondMoment(betas, eps), Friction()]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class RAdam(NamedOptimizer):
    """Rectified Adam (Liu et al. 2020, Algorithm 2), in torch.optim.RAdam's form.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        threshold: length rho_t of the approximated average above which the second moment is used; at least 4. Most
            libraries have 5, the paper 4.
        weight_decay: added to the gradient, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        threshold: float = 5.0, weight_decay: float = 0.0, decoupled: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [FirstMoment(betas), Rectified(betas, eps, threshold)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class RAdamNorm(NamedOptimizer):
    """RAdam with AdaNorm's correction (AdaNorm Section 3.2). ``gamma = 0`` is :class:`RAdam` to the last bit.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        threshold: length rho_t of the approximated average above which the second moment is used; at least 4.
        gamma: decay rate of the running norm.
        scope: whose norm: "tensor" each parameter's own, "global" that of all gradients together.
        correct: which moment sees the corrected gradient: "first", "second", or "both".
        weight_decay: added to the gradient before its norm is taken, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        threshold: float = 5.0, gamma: float = 0.95, scope: str = "tensor", correct: str = "first",
        weight_decay: float = 0.0, decoupled: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [NormCorrection(gamma, scope, correct), FirstMoment(betas), Rectified(betas, eps, threshold)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class AdaBelief(NamedOptimizer):
    """AdaBelief (Zhuang et al. 2020, Algorithm 2): Adam with the gradient's variance about its running mean.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the second moment at every step, and to its root.
        weight_decay: added to the gradient, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, decoupled: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [FirstMoment(betas), Belief(betas, eps)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class AdaBeliefNorm(NamedOptimizer):
    """AdaBelief with AdaNorm's correction (AdaNorm Section 3.2). ``gamma = 0`` is :class:`AdaBelief` to the last bit.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the second moment at every step, and to its root.
        gamma: decay rate of the running norm.
        scope: whose norm: "tensor" each parameter's own, "global" that of all gradients together.
        belief: what is compared with its running mean: the "corrected" gradient, or the "raw" one.
        weight_decay: added to the gradient before its norm is taken, or decoupled.
        decoupled: subtract ``lr * weight_decay * theta`` from the parameters instead.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        gamma: float = 0.95, scope: str = "tensor", belief: str = "corrected", weight_decay: float = 0.0,
        decoupled: bool = False, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [NormCorrection(gamma, scope), FirstMoment(betas), Belief(betas, eps, belief)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled), **common)


class AdamNormReference(NamedOptimizer):
    """What the published code of AdamNorm computes: eps is added to the stored second moment at every step.

    So that it settles eps / (1 - beta2) higher (see :class:`insgd_lab.rules.reference.AccumulatingSecondMoment`).
    ``gamma = 0`` is the control without correction.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the second moment at every step, and to its root.
        gamma: decay rate of the running norm, per parameter tensor.
        weight_decay: coupled: added to the gradient before its norm is taken.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        gamma: float = 0.95, weight_decay: float = 0.0, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [NormCorrection(gamma), FirstMoment(betas), AccumulatingSecondMoment(betas, eps)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled=False), **common)


class RAdamNormReference(NamedOptimizer):
    """What the published code of RAdamNorm computes: the running norm is forgotten at every step.

    So that no gradient is ever corrected and it is :class:`RAdam` with decoupled weight decay, to the last bit.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        gamma: decay rate of the running norm, without effect.
        weight_decay: decoupled.
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        gamma: float = 0.95, weight_decay: float = 0.0, **common: Unpack[Common],
    ) -> None:  # fmt: skip
        rules = [ForgetfulNormCorrection(gamma), FirstMoment(betas), Rectified(betas, eps)]
        super().__init__(params, _between(rules, lr, weight_decay, decoupled=True), **common)
