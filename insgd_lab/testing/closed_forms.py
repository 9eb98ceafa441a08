"""Every rule written a second time, from the papers' equations, in plain float64 numbers and without the lab's rules.

A spec names its recursion (``Capabilities.closed_form``) and passes its options on; those that a recursion does not
know are ignored, so a rule may have more, as long as their defaults change nothing.

====================  ====================================================================================
closed_form           options it understands, beside ``lr``, ``maximize``, ``adanorm`` and ``project``
====================  ====================================================================================
sgd                   momentum dampening nesterov weight_decay
lars                  trust_coefficient momentum weight_decay eps exclude
lsalr                 weight_decay
nlms                  p eps granularity
insgd                 p beta eps damping granularity center power momentum dampening weight_decay decay nesterov
insgd-reference-l1    momentum dampening weight_decay
insgd-reference-l2    momentum dampening weight_decay
adam                  betas eps weight_decay decoupled amsgrad gamma scope correct
diffgrad              betas eps weight_decay decoupled gamma scope correct
radam                 betas eps weight_decay decoupled threshold gamma scope correct
adabelief             betas eps weight_decay decoupled gamma scope belief
adamw                 as adam, with decoupled weight decay
adamnorm-reference    betas eps weight_decay gamma
radamnorm-reference   betas eps weight_decay (decoupled)
adagrad               lr_decay weight_decay initial_accumulator_value eps
adadelta              rho eps weight_decay
rmsprop               alpha eps weight_decay momentum centered
====================  ====================================================================================

>>> import numpy as np
>>> rule = Recursion("sgd", {"lr": 0.1, "momentum": 0.5})
>>> weights = [np.array([1.0])]
>>> for _ in range(2):
...     weights = rule.step(weights, [np.array([1.0])])
>>> float(weights[0][0])
0.75
"""

# mypy: disable-error-code="no-any-return"
# (options are values of any kind, and so are products with them)

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLOSED_FORMS", "LayerInput", "Recursion", "statistic"]

Array = NDArray[np.float64]

# What an option is where the rule does not have it.
_ABSENT: Mapping[str, Any] = {
    "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0, "decoupled": False, "decay": "after",
    "maximize": False, "adanorm": None, "project": None, "amsgrad": False, "gamma": None, "scope": "tensor",
    "correct": "first", "belief": "corrected", "threshold": 5.0, "exclude": "1d", "granularity": "layer",
    "center": False, "power": True, "beta": 0.0, "lr_decay": 0.0, "initial_accumulator_value": 0.0,
    "centered": False,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class LayerInput:
    """What a layer was fed.

    Attributes:
        x: [batch, features], or [batch, channels, height, width] in front of a convolution; empty where the layer
            was not measured since the last step.
        outputs, kernel, stride, padding, groups: the convolution's geometry; kernel 0 for a linear layer.
    """

    x: Array
    outputs: int = 0
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    groups: int = 1


def statistic(fed: LayerInput, *, p: float, granularity: str, center: bool, power: bool) -> Array:
    """s_t (INSGD Eq. 26, 29): shaped so that it divides the gradient of the layer's weight."""
    x = fed.x
    if not fed.kernel:
        vectors = [_standard(v) if center else v for v in x.reshape(-1, x.shape[-1])]
        return np.array(np.mean([_size(v, p, power) for v in vectors]))
    if center:
        x = np.stack([np.stack([_standard(plane) for plane in example]) for example in x])
    if granularity == "layer":
        return np.array(np.mean([_size(example, p, power) for example in x]))
    if granularity == "channel":
        planes = np.array([np.mean([_size(e[c], p, power) for e in x]) for c in range(x.shape[1])])
        if fed.groups == 1:
            return planes[None, :, None, None]
        return planes.reshape(fed.groups, -1).repeat(fed.outputs // fed.groups, 0)[:, :, None, None]
    means = np.array([np.mean([_size(patch, p, power) for patch in _patches(fed, x, g)]) for g in range(fed.groups)])
    return means[0] if fed.groups == 1 else means.repeat(fed.outputs // fed.groups)[:, None, None, None]


def _patches(fed: LayerInput, x: Array, group: int) -> list[Array]:
    """Receptive fields of one group of channels, zero padding included."""
    channels = x.shape[1] // fed.groups
    width = ((0, 0), (0, 0), (fed.padding, fed.padding), (fed.padding, fed.padding))
    padded = np.pad(x, width)[:, group * channels : (group + 1) * channels]
    ends = [size - fed.kernel + 1 for size in padded.shape[2:]]
    return [
        example[:, i : i + fed.kernel, j : j + fed.kernel]
        for example in padded for i in range(0, ends[0], fed.stride) for j in range(0, ends[1], fed.stride)
    ]  # fmt: skip


def _size(v: Array, p: float, power: bool) -> float:
    if p == math.inf:
        return float(np.abs(v).max())
    total = float((np.abs(v) ** p).sum())
    return total if power else total ** (1 / p)


def _standard(v: Array) -> Array:
    std = float(v.std(ddof=1)) if v.size > 1 else 0.99
    return (v - v.mean()) / max(std, 0.01)


# ------------------------------------------------------------------------------------------------ recursions


@dataclass
class _Tensor:
    """One tensor's step: what is known, and what is remembered from step to step."""

    o: Mapping[str, Any]
    memory: dict[str, Any]
    theta: Array
    g: Array  # with coupled decay
    s: Array  # g, corrected where that is asked for
    fed: LayerInput | None

    @property
    def t(self) -> int:
        return int(self.memory["t"])

    def mean(self, name: str, beta: float, value: Array) -> Array:
        """M <- beta m + (1 - beta) value, m_0 = 0."""
        self.memory[name] = beta * self.memory.get(name, 0.0) + (1 - beta) * value
        return self.memory[name]

    def momentum(self, h: Array) -> Array:
        """b_1 = h, b <- momentum b + (1 - dampening) h; with nesterov h + momentum b."""
        momentum, dampening = self.o["momentum"], self.o["dampening"]
        if momentum == 0:
            return h
        kept = 1 - (momentum if dampening is None else dampening)
        b = momentum * self.memory["b"] + kept * h if "b" in self.memory else h
        self.memory["b"] = b
        return h + momentum * b if self.o["nesterov"] else b


def _sgd(now: _Tensor) -> Array:
    return now.theta - now.o["lr"] * now.momentum(now.s)


def _lars(now: _Tensor) -> Array:
    o, theta, g = now.o, now.theta, now.s
    h = g
    if theta.ndim > 1 or o["exclude"] == "none":
        weight, grad = np.linalg.norm(theta), np.linalg.norm(g)
        decay = o["weight_decay"]
        ratio = o["trust_coefficient"] * weight / (grad + decay * weight + o["eps"]) if weight > 0 < grad else 1.0
        h = ratio * (g + decay * theta)
    return theta - now.momentum(o["lr"] * h)


def _lsalr(now: _Tensor) -> Array:
    norm = np.linalg.norm(now.s)
    return now.theta - (now.o["lr"] * (1 + math.log(1 + 1 / norm)) * now.s if norm > 0 else 0.0)


def _measured(fed: LayerInput, **settings: Any) -> Array:
    """s_t, NaN or infinite where there is none: unmeasured, or of inputs that are not finite."""
    with np.errstate(invalid="ignore"):
        return statistic(fed, **settings) if fed.x.size else np.array(math.nan)


def _power(now: _Tensor, s: Array, beta: float) -> Array:
    """P_1 = s_1, P <- beta P + (1 - beta) s; it stays where there is no s, and is NaN before the first."""
    old = now.memory.get("P", np.array(math.nan))
    new = np.where(np.isnan(old), s, beta * old + (1 - beta) * s)
    now.memory["P"] = np.where(np.isfinite(s), new, old)
    return now.memory["P"]


def _nlms(now: _Tensor) -> Array:
    if now.fed is None:
        return now.theta - now.o["lr"] * now.s
    s = _measured(now.fed, p=now.o["p"], granularity=now.o["granularity"], center=False, power=True)
    P = _power(now, s, 0.0)
    return now.theta - now.o["lr"] * now.s / np.where(np.isnan(P), 1.0, now.o["eps"] + P)


def _insgd(now: _Tensor) -> Array:
    o, h = now.o, now.s
    if now.fed is not None:
        s = _measured(now.fed, p=o["p"], granularity=o["granularity"], center=o["center"], power=o["power"])
        P = _power(now, s, o["beta"])
        logarithmic = o["damping"] == "log"
        eps = (0.01 if logarithmic else 1e-8) if o["eps"] is None else o["eps"]
        h = h / np.where(np.isnan(P), 1.0, np.maximum(np.log(P), eps) if logarithmic else eps + P)
    if o["decay"] == "after":
        h = h + o["weight_decay"] * now.theta
    return now.theta - o["lr"] * now.momentum(h)


def _plane_divisor(now: _Tensor, p: float, constant: float = 1.0) -> Array | float:
    """F of the published code over a constant: Linear layers have one number, convolutions one a channel.

    1 where nothing was recorded.
    """
    if now.fed is None:
        return 1.0
    n = _measured(now.fed, p=p, granularity="channel", center=True, power=True)
    with np.errstate(divide="ignore"):
        f = np.maximum(np.log((1 - now.o["dampening"]) * n), 0.01)
    return np.where(np.isfinite(n), f / constant, 1.0)


def _insgd_reference_l1(now: _Tensor) -> Array:
    constant = math.sqrt(1 + 1e-6) / (math.sqrt(1 - now.o["momentum"]) + 1e-6)
    h = now.s / _plane_divisor(now, 1.0, constant)
    return now.theta - now.o["lr"] * now.momentum(h + now.o["weight_decay"] * now.theta)


def _insgd_reference_l2(now: _Tensor) -> Array:
    o, g = now.o, now.s
    if o["momentum"] and "b" in now.memory:
        g = o["momentum"] * now.memory["b"] + (1 - o["dampening"]) * g
    now.memory["b"] = g / _plane_divisor(now, 2.0)
    return now.theta - o["lr"] * now.memory["b"]


def _moments(now: _Tensor) -> tuple[Array, Array]:
    """m-hat, and v before its correction."""
    beta1, beta2 = now.o["betas"]
    first, second = (
        (now.g if now.o["correct"] == "second" else now.s),
        (now.g if now.o["correct"] == "first" else now.s),
    )
    m = now.mean("m", beta1, first) / (1 - beta1**now.t)
    return m, now.mean("v", beta2, second**2)


def _adam(now: _Tensor) -> Array:
    m, v = _moments(now)
    if now.o["amsgrad"]:
        v = now.memory["vmax"] = np.maximum(now.memory.get("vmax", 0.0), v)
    return now.theta - now.o["lr"] * m / (np.sqrt(v / (1 - now.o["betas"][1] ** now.t)) + now.o["eps"])


def _diffgrad(now: _Tensor) -> Array:
    m, v = _moments(now)
    friction = 1 / (1 + np.exp(-np.abs(now.memory.get("g", 0.0) - now.g)))
    now.memory["g"] = now.g
    return now.theta - now.o["lr"] * friction * m / (np.sqrt(v / (1 - now.o["betas"][1] ** now.t)) + now.o["eps"])


def _radam(now: _Tensor) -> Array:
    m, v = _moments(now)
    beta, t = now.o["betas"][1], now.t
    longest = 2 / (1 - beta) - 1
    length = longest - 2 * t * beta**t / (1 - beta**t)
    if length <= now.o["threshold"]:
        return now.theta - now.o["lr"] * m
    r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return now.theta - now.o["lr"] * m * r * math.sqrt(1 - beta**t) / (np.sqrt(v) + now.o["eps"])


def _adabelief(now: _Tensor) -> Array:
    beta1, beta2 = now.o["betas"]
    m = now.mean("m", beta1, now.s)
    seen = now.s if now.o["belief"] == "corrected" else now.g
    v = beta2 * now.memory.get("v", 0.0) + (1 - beta2) * (seen - m) ** 2 + now.o["eps"]
    now.memory["v"] = v
    return now.theta - now.o["lr"] * m / (1 - beta1**now.t) / (np.sqrt(v / (1 - beta2**now.t)) + now.o["eps"])


def _adamnorm_reference(now: _Tensor) -> Array:
    beta1, beta2 = now.o["betas"]
    m = now.mean("m", beta1, now.s) / (1 - beta1**now.t)
    v = beta2 * now.memory.get("v", 0.0) + (1 - beta2) * now.g**2 + now.o["eps"]
    now.memory["v"] = v
    return now.theta - now.o["lr"] * m / (np.sqrt(v / (1 - beta2**now.t)) + now.o["eps"])


def _adagrad(now: _Tensor) -> Array:
    total = now.memory.get("sum", now.o["initial_accumulator_value"]) + now.g**2
    now.memory["sum"] = total
    return now.theta - now.o["lr"] / (1 + (now.t - 1) * now.o["lr_decay"]) * now.g / (np.sqrt(total) + now.o["eps"])


def _adadelta(now: _Tensor) -> Array:
    rho, eps = now.o["rho"], now.o["eps"]
    v = now.mean("v", rho, now.g**2)
    delta = np.sqrt(now.memory.get("a", 0.0) + eps) / np.sqrt(v + eps) * now.g
    now.mean("a", rho, delta**2)
    return now.theta - now.o["lr"] * delta


def _rmsprop(now: _Tensor) -> Array:
    o = now.o
    v = now.mean("v", o["alpha"], now.g**2)
    if o["centered"]:
        v = v - now.mean("mean", o["alpha"], now.g) ** 2
    h = now.g / (np.sqrt(v) + o["eps"])
    now.memory["b"] = o["momentum"] * now.memory.get("b", 0.0) + h
    return now.theta - o["lr"] * now.memory["b"]


@dataclass(frozen=True)
class _Form:
    """A recursion, and the options that are not left to the caller; its weight decay, unless decoupled, comes first."""

    step: Callable[[_Tensor], Array]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    own_decay: bool = False


CLOSED_FORMS: Mapping[str, _Form] = {
    "sgd": _Form(_sgd),
    "lars": _Form(_lars, own_decay=True),
    "lsalr": _Form(_lsalr),
    "nlms": _Form(_nlms),
    "insgd": _Form(_insgd, own_decay=True),
    "insgd-reference-l1": _Form(_insgd_reference_l1, own_decay=True),
    "insgd-reference-l2": _Form(_insgd_reference_l2),
    "adam": _Form(_adam),
    "diffgrad": _Form(_diffgrad),
    "radam": _Form(_radam),
    "adabelief": _Form(_adabelief),
    "adamw": _Form(_adam, {"decoupled": True}),
    "adamnorm-reference": _Form(_adamnorm_reference),
    "radamnorm-reference": _Form(_radam, {"decoupled": True, "gamma": None}),
    "adagrad": _Form(_adagrad),
    "adadelta": _Form(_adadelta),
    "rmsprop": _Form(_rmsprop),
}
"""The recursions by name."""


class UndeclaredOption(LookupError):
    """The rule declares a recursion and lacks an option that this reads."""


class _Options(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise UndeclaredOption(
            f"the closed form reads the option {key!r}, and the rule has none of that name; name its options as torch "
            "does (lr, betas, eps, …), or declare no closed_form"
        )


class Recursion:
    """A textbook recursion over several tensors.

    Args:
        name: one of :data:`CLOSED_FORMS`.
        options: the rule's options; those that the recursion does not know are ignored.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.form = CLOSED_FORMS[name]
        self.options = _Options({**_ABSENT, **options, **self.form.fixed})
        self._memory: dict[int, dict[str, Any]] = {}

    def step(
        self, thetas: Sequence[Array], grads: Sequence[Array], fed: Sequence[LayerInput | None] = ()
    ) -> list[Array]:
        """The weights after a step; ``fed`` tells what the layers that own them were fed."""
        o = self.options
        decayed = [self._decayed(theta, -g if o["maximize"] else g) for theta, g in zip(thetas, grads, strict=True)]
        norms = [float(np.linalg.norm(g)) for g in decayed]
        if o["scope"] == "global":
            norms = [math.hypot(*norms)] * len(norms)
        inputs = fed or [None] * len(thetas)
        return [self._step(i, *each) for i, each in enumerate(zip(thetas, decayed, norms, inputs, strict=True))]

    def _decayed(self, theta: Array, g: Array) -> Array:
        o = self.options
        first = o["decay"] == "before" if self.form.own_decay else not o["decoupled"]
        return g + o["weight_decay"] * theta if first else g

    def _step(self, number: int, theta: Array, g: Array, norm: float, fed: LayerInput | None) -> Array:
        o, memory = self.options, self._memory.setdefault(number, {"t": 0})
        memory["t"] += 1
        gamma = o["adanorm"] if o["gamma"] is None else o["gamma"]
        s = g
        if gamma is not None:
            memory["e"] = gamma * memory.get("e", 0.0) + (1 - gamma) * norm
            s = g * (memory["e"] / norm) if memory["e"] > norm > 0 else g
        new = self.form.step(_Tensor(o, memory, theta, g, s, fed))
        if o["decoupled"]:
            new = new - o["lr"] * o["weight_decay"] * theta
        return _projected(new, o["project"])


def _projected(theta: Array, project: Mapping[str, Any] | None) -> Array:
    if project is None:
        return theta
    if "box" in project:
        return np.clip(theta, *project["box"])
    norm = float(np.linalg.norm(theta))
    return theta * (project["ball"] / norm) if norm > project["ball"] else theta
