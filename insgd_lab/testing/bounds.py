"""Bounds: what a step, or a statistic, can be at most."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from insgd_lab.chain import ChainOptimizer
from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import strategies
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, LawBroken, chain, every, law, promises, takes
from insgd_lab.testing.problems import Layers, Script, feed

__all__ = ["LAWS"]

_UNIT = torch.finfo(torch.float64).eps


def _corrects(spec: OptimizerSpec) -> str | None:
    if "norm-correction" in spec.capabilities.bounds or "adanorm" in spec.defaults:
        return None
    return "it neither corrects norms (bound norm-correction) nor takes adanorm"


def _single(optimizer: torch.optim.Optimizer, theta: Tensor, grad: list[list[float]]) -> None:
    theta.grad = torch.tensor(grad, dtype=theta.dtype)
    optimizer.step()


@law(
    "norm-average",
    "(1 - gamma^t) min ||g|| <= e_t <= (1 - gamma^t) max ||g||",
    domain="rules that correct norms, by themselves or with adanorm; state exp_avg_norm",
    source="e_t is a weighted mean of the norms so far, with weights that sum to 1 - gamma^t (AdaNorm Eq. 2-3)",
    need=_corrects,
    draws=lambda spec: {
        "gamma": st.sampled_from([0.95, 0.5, 0.0]),
        "norms": st.lists(st.sampled_from([1.0, 5.0, 1e-3, 1e4, 0.3]), min_size=1, max_size=6),
    },
)
def norm_average(spec: OptimizerSpec, case: Case) -> None:
    layer, gamma = nn.Linear(2, 1, bias=False, dtype=torch.float64), case["gamma"]
    optimizer = build(spec, layer, **_correction(spec, gamma))
    for t, norm in enumerate(case["norms"], 1):
        _single(optimizer, layer.weight, [[0.6 * norm, -0.8 * norm]])
        seen = float(optimizer.state[layer.weight]["exp_avg_norm"])
        weight, past, slack = 1 - gamma**t, case["norms"][:t], 16 * t * _UNIT
        low, high = weight * min(past) * (1 - slack), weight * max(past) * (1 + slack)
        if not low <= seen <= high:
            raise LawBroken(f"step {t}: seen e = {seen:.9g}, expected {low:.9g} to {high:.9g}")


def _correction(spec: OptimizerSpec, gamma: float) -> Case:
    return {"gamma": gamma, "lr": 0.1} if "gamma" in spec.defaults else {"adanorm": gamma, "lr": 0.1}


@law(
    "norm-raised",
    "for g != 0 the corrected gradient s is parallel to g and at least as long as e",
    domain="chains that correct norms, by themselves or with adanorm, and keep exp_avg or have scalar gains",
    source="AdaNorm Eq. 4: s = g max(1, e / ||g||)",
    need=every(
        chain,
        _corrects,
        lambda spec: (
            None
            if spec.capabilities.scalar_gain or "betas" in spec.defaults
            else "what it makes of the corrected gradient cannot be seen"
        ),
    ),
    draws=lambda spec: {
        "gamma": st.sampled_from([0.95, 0.5]),
        "norms": st.lists(st.sampled_from([1.0, 5.0, 0.1, 10.0, 0.3]), min_size=1, max_size=6),
    },
)
def norm_raised(spec: OptimizerSpec, case: Case) -> None:
    layer = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    bare = {"momentum": 0.0, "weight_decay": 0.0, "exclude": "none"}
    optimizer = build(spec, layer, **bare, **_correction(spec, case["gamma"]))
    old = torch.zeros(1, 2, dtype=torch.float64)
    for t, norm in enumerate(case["norms"], 1):
        g = torch.tensor([[0.6 * norm, -0.8 * norm]], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(g)  # of g's own size, for rules that look at it
        _chain(optimizer).listen()
        _single(optimizer, layer.weight, g.tolist())
        state, gain = optimizer.state[layer.weight], float(_chain(optimizer).notes["norm_gain"][layer.weight])
        e, slack = float(state["exp_avg_norm"]), 16 * _UNIT * norm
        if not gain * norm >= e - slack:
            raise LawBroken(f"step {t}: seen ||s|| = {gain * norm:.9g}, expected at least e = {e:.9g}")
        if "exp_avg" in state:
            beta = optimizer.param_groups[0]["betas"][0]
            s = (state["exp_avg"] - beta * old) / (1 - beta)
            slack += 16 * _UNIT * float(old.norm()) / (1 - beta)
            old = state["exp_avg"].clone()
            if not float((s - gain * g).norm()) <= slack + 16 * _UNIT * gain * norm:
                raise LawBroken(f"step {t}: the first moment saw {s.tolist()}, expected {gain:.9g} times {g.tolist()}")
        else:  # the step is s times some positive number
            s = g - layer.weight.detach()
            along = float((s * g).sum()) / norm**2
            if not (along > 0 and float((s - along * g).norm()) <= 16 * _UNIT * (norm + float(s.norm()))):
                raise LawBroken(f"step {t}: the step {s.tolist()} is not parallel to g = {g.tolist()}")


def _chain(optimizer: torch.optim.Optimizer) -> ChainOptimizer:
    if not isinstance(optimizer, ChainOptimizer):
        raise TypeError(f"a {type(optimizer).__name__} is no ChainOptimizer, though its capabilities say so")
    return optimizer


@law(
    "gain-over-eps",
    "a step is at most lr ||g|| / eps long, and never uphill",
    domain="rules that promise it; no momentum, no decay; input powers below and above 1",
    source="INSGD Eq. 25, 27: the divisor is never below eps; log P alone is negative where P < 1",
    need=every(promises("gain-over-eps"), takes("eps")),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "input_size": st.sampled_from([0.1, 1e-2, 1e-6, 0.0, 1.0]),
        "eps": st.sampled_from([0.01, 1e-8, 2.0]),
        "options": strategies.options(spec, "beta", "granularity", damping=("log", "additive")),
    },
)
def gain_over_eps(spec: OptimizerSpec, case: Case) -> None:
    layers, script, lr = Layers(case["seed"]), Script(case["seed"], input_factor=case["input_size"]), 0.1
    bare = {"momentum": 0.0, "weight_decay": 0.0, "eps": case["eps"], "lr": lr}
    optimizer = build(spec, layers, **{**case["options"], **bare})
    for step in range(case["steps"]):
        with torch.no_grad():
            for param in layers.parameters():
                param.zero_()
        feed(optimizer, layers, script, step)
        optimizer.step()
        for name, param in layers.named_parameters():
            if param.grad is None or name.partition(".")[2] != "weight":
                continue  # what has no input power takes the plain step
            bound = lr * float(param.grad.norm()) / case["eps"] * (1 + 64 * _UNIT)
            if not float(param.detach().norm()) <= bound:
                raise LawBroken(
                    f"{name}, step {step + 1}: seen {float(param.detach().norm()):.9g}, expected <= {bound:.9g}"
                )
            if not float((param.detach() * param.grad).sum()) <= 0:
                raise LawBroken(f"{name}, step {step + 1}: seen a step uphill, expected one against the gradient")


@law(
    "adam-step",
    "no coordinate steps further than lr (1-b1)/(1-b1^t) sqrt((1-b2^t)/(1-b2)) sqrt((1-r^t)/(1-r)), r = b1^2/b2",
    domain="rules that promise it; no decay; the gradients that come nearest to it, and others",
    source="Cauchy-Schwarz between m and the root of v; equality at |g_i| proportional to (b2 / b1)^i",
    need=every(promises("adam-step"), takes("betas")),
    draws=lambda spec: {
        "betas": st.sampled_from([[0.9, 0.999], [0.5, 0.9], [0.9, 0.7]]),
        "steps": st.integers(1, 10),
        "worst": st.booleans(),
        "seed": strategies.seeds,
    },
)
def adam_step(spec: OptimizerSpec, case: Case) -> None:
    (beta1, beta2), lr = case["betas"], 0.1
    layer = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    optimizer = build(spec, layer, lr=lr, betas=case["betas"], eps=0.0, weight_decay=0.0)
    script, ratio = Script(case["seed"]), beta1**2 / beta2
    for t in range(1, case["steps"] + 1):
        worst = torch.full((1, 3), (beta2 / beta1) ** t, dtype=torch.float64)
        layer.weight.grad = worst if case["worst"] else torch.from_numpy(script.grads(t, [(1, 3)])[0])
        with torch.no_grad():
            layer.weight.zero_()
        optimizer.step()
        powers = math.fsum(ratio**k for k in range(t))
        bound = lr * (1 - beta1) / (1 - beta1**t) * math.sqrt((1 - beta2**t) / (1 - beta2) * powers)
        seen = float(layer.weight.detach().abs().max())
        if not seen <= bound * (1 + 64 * t * _UNIT):
            raise LawBroken(f"step {t}: seen a coordinate step {seen:.12g}, expected at most {bound:.12g}")


@law(
    "unbounded-step",
    "no such bound: gradients (1, 0), then (0, 1e-10) step more than a million learning rates",
    domain="rules that say so (AdamNorm) at their defaults; a law that exhibits the example",
    source="s is raised to the norm of the past, v is not",
    need=promises("unbounded-step"),
    draws=lambda spec: {"lr": st.sampled_from([1e-3, 0.1])},
)
def unbounded_step(spec: OptimizerSpec, case: Case) -> None:
    layer = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    optimizer = build(spec, layer, lr=case["lr"])
    _single(optimizer, layer.weight, [[1.0, 0.0]])
    before = float(layer.weight.detach()[0, 1])
    _single(optimizer, layer.weight, [[0.0, 1e-10]])
    seen = abs(float(layer.weight.detach()[0, 1]) - before) / case["lr"]
    if not seen > 1e6:
        raise LawBroken(f"the second step is {seen:.6g} learning rates, expected more than 1e6")


LAWS = (norm_average, norm_raised, gain_over_eps, adam_step, unbounded_step)
