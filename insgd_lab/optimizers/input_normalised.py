"""Rules that divide the step by what layers are fed."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from insgd_lab.hyperparameters import DOMAINS, check_option
from insgd_lab.optimizers.named import Common, NamedOptimizer, sensor_of
from insgd_lab.rules.basic import L2Penalty, LearningRate, Momentum
from insgd_lab.rules.input_power import InputPower
from insgd_lab.rules.reference import DampedMomentum, PlaneNorm

__all__ = ["INSGD", "NLMS", "INSGDReferenceL1", "INSGDReferenceL2"]


class INSGD(NamedOptimizer):
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
        model: the model that owns the parameters, where ``params`` is not the model itself.
        process_group: average input statistics over these ranks (a DDP model brings its own).
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

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
        decay: str = "after", nesterov: bool = False, model: nn.Module | None = None, process_group: Any = None,
        **common: Unpack[Common],
    ) -> None:  # fmt: skip
        check_option("decay", decay, DOMAINS["decay"])
        sensor = sensor_of(type(self).__name__, params, model, process_group)
        power_rule = InputPower(sensor, p, beta, eps, damping, granularity, center, power)
        penalty = L2Penalty(weight_decay)
        first = [power_rule, penalty] if decay == "after" else [penalty, power_rule]
        super().__init__(params, [*first, Momentum(momentum, dampening, nesterov), LearningRate(lr)], **common)


class NLMS(NamedOptimizer):
    """Normalised least mean squares (INSGD Eq. 7-9, 20): the step is divided by eps + ||x||_p^p.

    With the loss ``0.5 * (d - w @ x) ** 2``, no bias, p = 2, ``lr = 1`` and ``eps = 0``, one step on one example
    makes ``w @ x = d``.

    Args:
        params: a model; or parameters or groups, with ``model`` given beside them.
        lr: step size mu; without a bias and on noiseless linear data it converges for 0 < lr < 2 (p = 2). A bias has no
            input power and takes the plain step, for which such a rate may be too large.
        p: order of the norm.
        eps: keeps a tiny input from making a huge step; a zero input makes none.
        granularity: what counts as one input: "layer", "neuron" or "channel".
        model: the model that owns the parameters, where ``params`` is not the model itself.
        process_group: average input statistics over these ranks (a DDP model brings its own).
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range.
        TypeError: no model to measure.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1.0, *, p: float = 2.0, eps: float = 1e-8,
        granularity: str = "layer", model: nn.Module | None = None, process_group: Any = None,
        **common: Unpack[Common],
    ) -> None:  # fmt: skip
        sensor = sensor_of(type(self).__name__, params, model, process_group)
        super().__init__(params, [InputPower(sensor, p, 0.0, eps, "additive", granularity), LearningRate(lr)], **common)


class INSGDReferenceL2(NamedOptimizer):
    """What the published code of INSGD with l2 computes (see :class:`insgd_lab.rules.reference.DampedMomentum`).

    Weight decay enters first; inputs are standardised per plane; no running power is kept; the momentum buffer
    itself is divided. Where every plane varies, the step does not depend on the input: it is SGD's divided by
    log(pixels - 1), with an effective momentum of ``momentum`` / log(pixels - 1).

    Args:
        params: a model; or parameters or groups, with ``model`` given beside them.
        lr: learning rate.
        momentum: share of the running mean of updates that is kept.
        dampening: share of each update left out of it, and of the input's norm left out of the power.
        weight_decay: coupled: added to the gradient before everything.
        model: the model that owns the parameters, where ``params`` is not the model itself.
        process_group: average input statistics over these ranks (a DDP model brings its own).
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range; a grouped convolution that is not depthwise.
        TypeError: no model to measure.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 0.1, *, momentum: float = 0.9, dampening: float = 0.0,
        weight_decay: float = 0.0, model: nn.Module | None = None, process_group: Any = None,
        **common: Unpack[Common],
    ) -> None:  # fmt: skip
        sensor = sensor_of(type(self).__name__, params, model, process_group)
        rules = [L2Penalty(weight_decay), DampedMomentum(sensor, momentum, dampening), LearningRate(lr)]
        super().__init__(params, rules, **common)


class INSGDReferenceL1(NamedOptimizer):
    """What the published code of INSGD with l1 computes (see :class:`insgd_lab.rules.reference.PlaneNorm`).

    The gradient, divided as in the l2 form but multiplied by a constant near 3.16, then weight decay, then momentum.

    Args:
        params: a model; or parameters or groups, with ``model`` given beside them.
        lr: learning rate.
        momentum: share of the running mean of updates that is kept.
        dampening: share of each update left out of it, and of the input's norm left out of the power.
        weight_decay: added after the division.
        model: the model that owns the parameters, where ``params`` is not the model itself.
        process_group: average input statistics over these ranks (a DDP model brings its own).
        **common: see :class:`insgd_lab.optimizers.named.NamedOptimizer`.

    Raises:
        ValueError: an option outside its range; a grouped convolution that is not depthwise.
        TypeError: no model to measure.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 0.1, *, momentum: float = 0.9, dampening: float = 0.0,
        weight_decay: float = 0.0, model: nn.Module | None = None, process_group: Any = None,
        **common: Unpack[Common],
    ) -> None:  # fmt: skip
        sensor = sensor_of(type(self).__name__, params, model, process_group)
        rules = [
            PlaneNorm(sensor, momentum, dampening), L2Penalty(weight_decay), Momentum(momentum, dampening),
            LearningRate(lr),
        ]  # fmt: skip
        super().__init__(params, rules, **common)
