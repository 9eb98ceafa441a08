"""The named optimizers: each a list of rules, in the order in which its paper prints them.

>>> import torch
>>> model = torch.nn.Linear(3, 1)
>>> INSGD(model, lr=0.1, p=1).rules[0].beta
0.9
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from insgd_lab.chain import ChainOptimizer
from insgd_lab.hyperparameters import DOMAINS, check_option
from insgd_lab.rules.basic import L2Penalty, LearningRate, Momentum
from insgd_lab.rules.layerwise import InputPower, NormCorrection
from insgd_lab.rules.moments import FirstMoment, SecondMoment
from insgd_lab.sensors import InputSensor

__all__ = ["INSGD", "NLMS", "SGD", "Adam", "AdamNorm", "param_groups"]


class SGD(ChainOptimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD computes it.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        momentum: share of the running mean that is kept.
        dampening: share of each new gradient that is left out of the running mean.
        weight_decay: coupled: ``weight_decay * theta`` is added to the gradient.
        nesterov: look ahead; needs momentum and no dampening.
        maximize: climb instead of descend.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, maximize: bool = False,
    ) -> None:  # fmt: skip
        rules = [L2Penalty(weight_decay), Momentum(momentum, dampening, nesterov), LearningRate(lr)]
        super().__init__(params, rules, maximize=maximize)


class Adam(ChainOptimizer):
    """Adam (Kingma and Ba 2015, Algorithm 1), as torch.optim.Adam computes it.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: coupled: added to the gradient that both moments see.
        maximize: climb instead of descend.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, maximize: bool = False,
    ) -> None:  # fmt: skip
        rules = [L2Penalty(weight_decay), FirstMoment(betas), SecondMoment(betas, eps), LearningRate(lr)]
        super().__init__(params, rules, maximize=maximize)


class AdamNorm(ChainOptimizer):
    """Adam whose first moment sees gradients raised to the running norm of their past (AdaNorm Eq. 2-9).

    The second moment sees the gradient itself. ``gamma = 0`` is :class:`Adam` to the last bit.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        lr: learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        gamma: decay rate of the running norm, per parameter tensor.
        weight_decay: coupled: added to the gradient before its norm is taken.
        maximize: climb instead of descend.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, gamma: float = 0.95, weight_decay: float = 0.0, maximize: bool = False,
    ) -> None:  # fmt: skip
        rules = [
            L2Penalty(weight_decay), NormCorrection(gamma), FirstMoment(betas), SecondMoment(betas, eps),
            LearningRate(lr),
        ]  # fmt: skip
        super().__init__(params, rules, maximize=maximize)


class INSGD(ChainOptimizer):
    """Input Normalized SGD (Algorithm 1): each layer's step is divided by f(P), P its running input power.

    Args:
        params: a model; or parameters or groups, with ``model`` given beside them.
        lr: learning rate.
        p: order of the norm, in [1, 16] or infinity.
        beta: decay rate of the running power; 0 uses the last batch alone.
        eps: floor of log P (default 0.01), or what is added to P (default 1e-8), by ``damping``.
        damping: "log" for f = max(log P, eps) (Eq. 27-28), "additive" for f = eps + P (Eq. 25).
        granularity: what counts as one input: "layer", "neuron" or "channel".
        center: standardise inputs per example (and channel) before the norm.
        power: take the p-th power of the norm; False takes the norm itself.
        momentum: share of the running mean of updates that is kept.
        dampening: share of each update left out of it; None stands for the value of ``momentum``.
        weight_decay: lambda of Algorithm 1.
        decay: "after" adds weight decay after the division (Algorithm 1), "before" divides it too.
        nesterov: look ahead; needs ``dampening=0``.
        maximize: climb instead of descend.
        model: the model that owns the parameters, where ``params`` is not the model itself.
        process_group: average input statistics over these ranks (a DDP model brings its own).

    ``p``, ``granularity``, ``center`` and ``power`` are read when a group is added or a state loaded, and
    then by the hooks on the model. ``optimizer.zero_grad()`` discards what no step used;
    ``model.zero_grad()`` does not. At p = infinity with inputs in [0, 1], log P <= 0 and the step is always
    multiplied by 1/eps.

    Raises:
        ValueError: an option outside its range; a granularity that a layer does not have.
        TypeError: no model to measure.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 0.1, *, p: float = 2.0, beta: float = 0.9,
        eps: float | None = None, damping: str = "log", granularity: str = "layer", center: bool = False,
        power: bool = True, momentum: float = 0.9, dampening: float | None = None, weight_decay: float = 0.0,
        decay: str = "after", nesterov: bool = False, maximize: bool = False, model: nn.Module | None = None,
        process_group: Any = None,
    ) -> None:  # fmt: skip
        check_option("decay", decay, DOMAINS["decay"])
        sensor = _sensor(type(self).__name__, params, model, process_group)
        power_rule = InputPower(sensor, p, beta, eps, damping, granularity, center, power)
        penalty = L2Penalty(weight_decay)
        first = [power_rule, penalty] if decay == "after" else [penalty, power_rule]
        super().__init__(params, [*first, Momentum(momentum, dampening, nesterov), LearningRate(lr)], maximize=maximize)


class NLMS(ChainOptimizer):
    """Normalised least mean squares (INSGD Eq. 7-8, 20): the step is divided by eps + ||x||_p^p.

    With the loss ``0.5 * (d - w @ x) ** 2``, no bias, ``lr = 1`` and ``eps = 0``, one step on one example makes
    ``w @ x = d``.

    Args:
        params: a model; or parameters or groups, with ``model`` given beside them.
        lr: step size mu; on noiseless linear data it converges for 0 < lr < 2.
        p: order of the norm.
        eps: keeps a zero input from dividing by zero; with ``eps=0`` such a step is 0/0.
        granularity: what counts as one input: "layer", "neuron" or "channel".
        maximize: climb instead of descend.
        model: the model that owns the parameters, where ``params`` is not the model itself.
        process_group: average input statistics over these ranks (a DDP model brings its own).

    Raises:
        ValueError: an option outside its range.
        TypeError: no model to measure.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1.0, *, p: float = 2.0, eps: float = 1e-8,
        granularity: str = "layer", maximize: bool = False, model: nn.Module | None = None,
        process_group: Any = None,
    ) -> None:  # fmt: skip
        sensor = _sensor(type(self).__name__, params, model, process_group)
        rules = [InputPower(sensor, p, 0.0, eps, "additive", granularity), LearningRate(lr)]
        super().__init__(params, rules, maximize=maximize)


def _sensor(name: str, params: Any, model: nn.Module | None, process_group: Any) -> InputSensor:
    measured = params if isinstance(params, nn.Module) else model
    if not isinstance(measured, nn.Module):
        raise TypeError(
            f"{name} measures what layers are fed and needs the model, got {type(params).__name__}; "
            f"write {name}(model, ...) or {name}(params, model=model, ...)"
        )
    return InputSensor(measured, process_group)


def param_groups(
    model: nn.Module, weight_decay: float, no_decay: tuple[str, ...] = ("bias", "norm")
) -> list[dict[str, Any]]:
    """Two groups of a model's parameters: with weight decay and without.

    Args:
        model: the model.
        weight_decay: for the first group; the second has 0.
        no_decay: "bias" stands for parameters of that name, "norm" for those of normalisation layers; any
            other word for parameters whose full name contains it.

    Returns:
        Groups of (name, parameter) pairs, ready for any optimizer; empty ones are left out.
    """
    norms = {
        id(param)
        for module in model.modules() if "norm" in type(module).__name__.lower()
        for param in module.parameters(recurse=False)
    }  # fmt: skip

    def exempt(name: str, param: Tensor) -> bool:
        words = {
            "bias": name.rpartition(".")[2].endswith("bias"),
            "norm": id(param) in norms,
        }
        return any(words.get(word, word in name) for word in no_decay)

    named = list(model.named_parameters())
    plain = [(name, param) for name, param in named if exempt(name, param)]
    decayed = [(name, param) for name, param in named if not exempt(name, param)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
