"""NLMS: the constraint, the zero step and the distance to the true weights, also behind an activation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from insgd_lab.losses import InverseActivationLoss
from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import strategies
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, LawBroken, Need, law, promises

__all__ = ["LAWS"]

_UNIT = torch.finfo(torch.float64).eps


def _either(*names: str) -> Need:
    """The rule promises one of these."""

    def need(spec: OptimizerSpec) -> str | None:
        kept = any(promises(name)(spec) is None for name in names)
        return None if kept else f"its capabilities promise none of {', '.join(names)}"

    return need


def _neurons(seed: int, examples: int, features: int, outputs: int = 1) -> tuple[nn.Linear, Tensor, Tensor]:
    """Linear neurons without bias, inputs [examples, features], and the true weights [outputs, features]."""
    numbers = np.random.default_rng([seed, 5])
    layer = nn.Linear(features, outputs, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(numbers.standard_normal((outputs, features))))
    x = torch.from_numpy(numbers.standard_normal((examples, features)) * 10 ** numbers.uniform(-1, 1))
    return layer, x, torch.from_numpy(numbers.standard_normal((outputs, features)))


def _within_domain(spec: OptimizerSpec, x: Tensor, lr: float) -> Tensor:
    """Inputs for which the law is promised: with the l1 norm, those with lr ||x||_2^2 < 2 ||x||_1."""
    if "least-squares" in spec.capabilities.invariances:
        return x
    ratio = lr * x.square().sum(1, keepdim=True) / (2 * x.abs().sum(1, keepdim=True))
    return x * (0.9 / ratio).clamp(max=1.0)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


@law(
    "constraint",
    "with lr = 1, eps = 0 and one example, w x = d after the step",
    domain="rules that promise least-squares (NLMS-l2); no bias, e^2 / 2",
    source="NLMS is the smallest change of w that meets the constraint (INSGD Eq. 7-8)",
    need=promises("least-squares"),
    draws=lambda spec: {"seed": strategies.seeds, "features": st.integers(1, 6)},
)
def constraint(spec: OptimizerSpec, case: Case) -> None:
    layer, x, truth = _neurons(case["seed"], 1, case["features"])
    target = x @ truth.T
    size = float(((x.abs() @ layer.weight.detach().abs().T) + target.abs()).max())
    _step(build(spec, layer, lr=1.0, eps=0.0), 0.5 * (target - layer(x)).square().mean())
    seen, slack = float(layer(x).detach()), 64 * case["features"] * _UNIT * size
    if not abs(seen - float(target)) <= slack:
        raise LawBroken(f"seen w x = {seen:.12g}, expected d = {float(target):.12g}")


@law(
    "zero-input",
    "x = 0 gives a zero step",
    domain="rules that promise least-squares or least-squares-l1 (NLMS)",
    source="INSGD Eq. 7: the step is a multiple of x",
    need=_either("least-squares", "least-squares-l1"),
    draws=lambda spec: {"seed": strategies.seeds, "lr": strategies.rates, "eps": st.sampled_from([1e-8, 0.0, 0.1])},
)
def zero_input(spec: OptimizerSpec, case: Case) -> None:
    layer, x, _ = _neurons(case["seed"], 1, 3)
    before = layer.weight.detach().clone()
    _step(build(spec, layer, lr=case["lr"], eps=case["eps"]), 0.5 * (1.0 - layer(0 * x)).square().mean())
    if not torch.equal(before, layer.weight.detach()):
        raise LawBroken(f"seen {layer.weight.tolist()}, expected {before.tolist()} as before")


@law(
    "distance",
    "on noiseless data the distance to the true weights never grows",
    domain="0 < lr < 2 for rules that promise least-squares; with least-squares-l1 only where lr ||x||_2^2 < 2 ||x||_1",
    source="the error's map is the identity less lr x x' / (eps + ||x||^2), of norm at most 1",
    need=_either("least-squares", "least-squares-l1"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "examples": st.integers(1, 4),
        "lr": st.sampled_from([1.0, 0.1, 1.9, 1.999]),
        "eps": st.sampled_from([1e-8, 0.0, 1.0]),
    },
)
def distance(spec: OptimizerSpec, case: Case) -> None:
    layer, _, truth = _neurons(case["seed"], 1, 4)
    optimizer = build(spec, layer, lr=case["lr"], eps=case["eps"])
    for step in range(case["steps"]):
        x = _within_domain(spec, _neurons(case["seed"] + step + 1, case["examples"], 4)[1], case["lr"])
        before = float((layer.weight.detach() - truth).norm())
        _step(optimizer, 0.5 * (x @ truth.T - layer(x)).square().mean())
        after = float((layer.weight.detach() - truth).norm())
        if not after <= before + 64 * _UNIT * (before + float(truth.norm())):
            raise LawBroken(f"step {step + 1}: seen a distance of {after:.12g}, expected at most {before:.12g}")


@law(
    "error-shrinks",
    "a step on one example leaves a smaller error on it",
    domain="0 < lr < 2 for rules that promise least-squares; with least-squares-l1 only where lr ||x||_2^2 < 2 ||x||_1",
    source="the error is multiplied by 1 - lr ||x||_2^2 / (eps + ||x||_p^p), which lies in (-1, 1)",
    need=_either("least-squares", "least-squares-l1"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "lr": st.sampled_from([1.0, 0.1, 1.9]),
        "features": st.integers(1, 6),
    },
)
def error_shrinks(spec: OptimizerSpec, case: Case) -> None:
    layer, x, truth = _neurons(case["seed"], 1, case["features"])
    x = _within_domain(spec, x, case["lr"])
    target = x @ truth.T
    before = float((target - layer(x)).abs().max().detach())
    _step(build(spec, layer, lr=case["lr"], eps=0.0), 0.5 * (target - layer(x)).square().mean())
    after = float((target - layer(x)).abs().max().detach())
    if not after < before:
        raise LawBroken(f"seen an error of {after:.9g} after {before:.9g}, expected it to shrink")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky-relu": lambda z: nn.functional.leaky_relu(z, 0.01),
}


@law(
    "behind-activation",
    "with InverseActivationLoss all neurons meet the constraint, and the distance to the true weights never grows",
    domain="rules that promise least-squares; sigmoid, tanh and leaky ReLU with targets inside their range (a ReLU has "
    "no inverse below 0)",
    source="INSGD Eq. 21-24",
    need=promises("least-squares"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "activation": st.sampled_from(sorted(_ACTIVATIONS)),
        "lr": st.sampled_from([1.0, 0.3, 1.9]),
        "outputs": st.integers(1, 3),
    },
)
def behind_activation(spec: OptimizerSpec, case: Case) -> None:
    activation, loss = _ACTIVATIONS[case["activation"]], InverseActivationLoss(case["activation"])
    layer, x, truth = _neurons(case["seed"], 1, 3, case["outputs"])
    # Preactivations of at most 1: there the slopes of the activations and their inverses lie between 1/100 and 100.
    x = x / (x.norm() * max(1.0, float(truth.norm())))
    target = activation(x @ truth.T)
    before = float((layer.weight.detach() - truth).norm())
    optimizer = build(spec, layer, lr=case["lr"], eps=0.0)
    _step(optimizer, loss(layer(x), target))
    slack = 64 * 100 * _UNIT * (1 + float(truth.norm()) + before)
    after = float((layer.weight.detach() - truth).norm())
    if not after <= before + slack * max(1.0, 1 / float(x.norm())):
        raise LawBroken(f"seen a distance of {after:.12g}, expected at most {before:.12g}")
    seen = activation(layer(x)).detach()
    if case["lr"] == 1.0 and not float((seen - target).abs().max()) <= slack:
        raise LawBroken(f"seen outputs {seen.tolist()}, expected d = {target.tolist()}")


LAWS = (constraint, zero_input, distance, error_shrinks, behind_activation)
