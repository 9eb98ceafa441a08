"""The rules that have moments or norms, written a second time: numpy, float64, one tensor after the other.

Straight from the equations, with nothing shared with the package and no thought of speed. An oracle keeps its state;
``step(thetas, gradients, lr)`` returns the new parameters, and leaves those whose gradient is None where they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Oracle:
    """Bookkeeping: one state a tensor, and the gradient with its sign and its coupled decay."""

    weight_decay: float = 0.0
    decoupled: bool = False
    maximize: bool = False
    state: dict[int, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))

    def step(self, thetas: Sequence[Array], gradients: Sequence[Array | None], lr: float) -> list[Array]:
        known = {i: self.gradient(thetas[i], g) for i, g in enumerate(gradients) if g is not None}
        corrected = self.correct_norms(known)
        return [
            self.move(i, theta, known[i], corrected[i], lr) if i in known else theta
            for i, theta in enumerate(thetas)
        ]  # fmt: skip

    def gradient(self, theta: Array, g: Array) -> Array:
        g = -g if self.maximize else g
        return g if self.decoupled else g + self.weight_decay * theta

    def correct_norms(self, gradients: dict[int, Array]) -> dict[int, Array]:
        return gradients

    def move(self, i: int, theta: Array, g: Array, s: Array, lr: float) -> Array:
        raise NotImplementedError


def longer(g: Array, norm: float, running: float) -> Array:
    """AdaNorm Eq. 3-4: g as long as the running norm where it is shorter; 0 stays 0."""
    return g * (running / norm) if 0 < norm < running else g


@dataclass
class NormCorrected(Oracle):
    """AdaNorm Eq. 2-4; gamma None corrects nothing."""

    gamma: float | None = None
    scope: str = "tensor"
    running: float = 0.0

    def correct_norms(self, gradients: dict[int, Array]) -> dict[int, Array]:
        if self.gamma is None or not gradients:
            return gradients
        if self.scope == "global":
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
            self.running = self.gamma * self.running + (1 - self.gamma) * norm
            return {i: longer(g, norm, self.running) for i, g in gradients.items()}
        return {i: self._longer_alone(self.state[i], g) for i, g in gradients.items()}

    def _longer_alone(self, state: dict[str, Any], g: Array) -> Array:
        norm = math.sqrt(float((g**2).sum()))
        state["e"] = self.gamma * state.get("e", 0.0) + (1 - self.gamma) * norm
        return longer(g, norm, state["e"])


@dataclass
class Moments(NormCorrected):
    """Adam, diffGrad, RAdam and AdaBelief, each with and without the correction.

    ``accumulate`` is adamnorm-reference: eps goes into the stored second moment, at every step.
    """

    kind: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    correct: str = "first"
    belief: str = "corrected"
    amsgrad: bool = False
    threshold: float = 5.0
    accumulate: bool = False

    def move(self, i: int, theta: Array, g: Array, s: Array, lr: float) -> Array:
        state, (beta1, beta2) = self.state[i], self.betas
        t = state["t"] = state.get("t", 0) + 1
        m = beta1 * state.get("m", 0.0) + (1 - beta1) * (g if self.correct == "second" else s)
        v = beta2 * state.get("v", 0.0) + (1 - beta2) * self._squared(g, s, m) + self._added_eps()
        state["m"], state["v"] = m, v
        state["largest"] = v = np.maximum(state.get("largest", 0.0), v) if self.amsgrad else v
        direction = self._direction(m / (1 - beta1**t), v, t)
        if self.kind == "diffgrad":
            direction = direction / (1 + np.exp(-np.abs(state.get("g", 0.0) - g)))
            state["g"] = g
        kept = theta * (1 - lr * self.weight_decay) if self.decoupled else theta
        return kept - lr * direction

    def _squared(self, g: Array, s: Array, m: Array) -> Array:
        if self.kind == "adabelief":
            return ((g if self.belief == "raw" else s) - m) ** 2
        return (g if self.correct == "first" else s) ** 2

    def _added_eps(self) -> float:
        return self.eps if self.kind == "adabelief" or self.accumulate else 0.0

    def _direction(self, m_hat: Array, v: Array, t: int) -> Array:
        kept = self.betas[1] ** t
        if self.kind != "radam":
            return m_hat / (np.sqrt(v / (1 - kept)) + self.eps)
        longest = 2 / (1 - self.betas[1]) - 1
        length = longest - 2 * t * kept / (1 - kept)
        if length < self.threshold:
            return m_hat
        variance = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        return math.sqrt(variance) * m_hat * math.sqrt(1 - kept) / (np.sqrt(v) + self.eps)


@dataclass
class CorrectedSGD(NormCorrected):
    """SGD with momentum behind the correction."""

    momentum: float = 0.0
    dampening: float = 0.0

    def move(self, i: int, theta: Array, g: Array, s: Array, lr: float) -> Array:
        state = self.state[i]
        first = "b" not in state
        state["b"] = s if first else self.momentum * state["b"] + (1 - self.dampening) * s
        return theta - lr * (state["b"] if self.momentum else s)


@dataclass
class LARS(Oracle):
    """You et al. 2017: momentum on the global rate times the local rate times the gradient with decay."""

    trust_coefficient: float = 0.001
    momentum: float = 0.9
    eps: float = 1e-8
    exclude: str = "1d"

    def gradient(self, theta: Array, g: Array) -> Array:
        return -g if self.maximize else g

    def move(self, i: int, theta: Array, g: Array, s: Array, lr: float) -> Array:
        excluded = self.exclude == "1d" and theta.ndim <= 1
        step = lr * g if excluded else lr * self._ratio(theta, g) * (g + self.weight_decay * theta)
        self.state[i]["b"] = self.momentum * self.state[i].get("b", 0.0) + step
        return theta - self.state[i]["b"]

    def _ratio(self, theta: Array, g: Array) -> float:
        size, slope = math.sqrt(float((theta**2).sum())), math.sqrt(float((g**2).sum()))
        if size == 0 or slope == 0:
            return 1.0
        return self.trust_coefficient * size / (slope + self.weight_decay * size + self.eps)


@dataclass
class LSALR(Oracle):
    """INSGD Eq. 18."""

    def move(self, i: int, theta: Array, g: Array, s: Array, lr: float) -> Array:
        norm = math.sqrt(float((g**2).sum()))
        return theta - lr * (1 + math.log(1 + 1 / norm)) * g if norm else theta


# ------------------------------------------------------------------------------- INSGD's published code


def plane_power(x: Array, kind: str, order: int) -> Array | float:
    """n: the sum of |z|^order over a plane, mean over examples, shaped to divide the gradient of the weight.

    x is [examples, channels, height, width], for ``kind`` "linear" [..., features].
    """
    if kind == "linear":
        return float(np.mean([_size(vector, order) for vector in x.reshape(-1, x.shape[-1])]))
    means = np.array([np.mean([_size(example[c], order) for example in x]) for c in range(x.shape[1])])
    return means.reshape((1, -1, 1, 1) if kind == "plain" else (-1, 1, 1, 1))


def _size(plane: Array, order: int) -> float:
    spread = plane.std(ddof=1) if plane.size > 1 else 0.99
    z = (plane - plane.mean()) / max(float(spread), 0.01)
    return float((np.abs(z) ** order).sum())


@dataclass
class InsgdReference:
    """insgd-reference-l1 and -l2 for one parameter; ``n`` is None for a parameter without a recorded input."""

    order: int
    momentum: float = 0.9
    dampening: float = 0.0
    weight_decay: float = 0.0
    b: Array | None = None

    def step(self, theta: Array, g: Array, n: Array | float | None, lr: float) -> Array:
        f = 1.0 if n is None else self._divisor(n)
        if self.order == 2:
            g = g + self.weight_decay * theta
            self.b = (g if self.b is None else self.momentum * self.b + (1 - self.dampening) * g) / f
            return theta - lr * (self.b if self.momentum else g / f)
        rest = 1.0 if n is None else math.sqrt(1 + 1e-6) / (math.sqrt(1 - self.momentum) + 1e-6)
        h = rest * g / f + self.weight_decay * theta
        self.b = h if self.b is None else self.momentum * self.b + (1 - self.dampening) * h
        return theta - lr * (self.b if self.momentum else h)

    def _divisor(self, n: Array | float) -> Array:
        power = (1 - self.dampening) * np.asarray(n)
        logs = np.log(power, out=np.full_like(power, -math.inf), where=power > 0)
        return np.maximum(logs, 0.01)
