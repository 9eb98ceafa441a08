"""Neutral settings: options at their neutral values give the parent rule."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import strategies as st

from insgd_lab.registry import OptimizerSpec, get_optimizer
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.closed_forms import Recursion
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, LawBroken, chain, every, law, promises, reads_inputs, takes
from insgd_lab.testing.order import names_of_readers
from insgd_lab.testing.problems import INPUTS, Layers, Script, feed, parameters, play, present, weights_of

__all__ = ["LAWS"]


def _has_base(spec: OptimizerSpec) -> str | None:
    return None if spec.capabilities.base else "its capabilities name no base"


def _shared(spec: OptimizerSpec) -> list[str]:
    """Options that the rule and its base have in common; weight decay only where it can enter alike."""
    base = get_optimizer(str(spec.capabilities.base))
    alike = spec.capabilities.decay == base.capabilities.decay or "decoupled" in base.defaults
    names = ["betas", "eps", "maximize", *(["weight_decay"] if alike else [])]
    return [name for name in names if name in base.defaults and name not in spec.capabilities.neutral]


@law(
    "neutral-base",
    "at its neutral settings it is its base, to the bit",
    domain="rules whose capabilities name a base and neutral settings, with the options that both have",
    source="AdaNorm with gamma = 0 is the base; the published RadamNorm is RAdam",
    need=_has_base,
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": st.integers(1, 8),
        "options": strategies.options(spec, *_shared(spec), decoupled=(False, True)),
    },
)
def neutral_base(spec: OptimizerSpec, case: Case) -> None:
    base = get_optimizer(str(spec.capabilities.base))
    left, right, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    options = {**spec.defaults, **case["options"], **spec.capabilities.neutral}
    # What the base has no option for, build leaves out; decay enters it as it enters the rule.
    passed = {"decoupled": spec.capabilities.decay == "decoupled", **options}
    play(build(spec, left, **{**case["options"], **spec.capabilities.neutral}), left, script, range(case["steps"]))
    play(build(base, right, **passed), right, script, range(case["steps"]))
    numerics.same(parameters(left), parameters(right), f"parameters beside those of {base.name}")


@law(
    "neutral-correction",
    "adanorm = 0 in front of it changes nothing, to the bit",
    domain="chains that the correction can be put in front of",
    source="AdaNorm Eq. 2-4 at gamma = 0: e = ||g||, so s = g",
    need=every(chain, takes("adanorm")),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "options": strategies.options(spec, "weight_decay", "momentum"),
    },
)
def neutral_correction(spec: OptimizerSpec, case: Case) -> None:
    left, right, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    play(build(spec, left, **case["options"], adanorm=0.0), left, script, range(case["steps"]))
    play(build(spec, right, **case["options"], adanorm=None), right, script, range(case["steps"]))
    numerics.same(parameters(left), parameters(right), "parameters with adanorm = 0")


@law(
    "input-power-e",
    "inputs of power e make it SGD",
    domain="rules that read inputs and have logarithmic damping: 1 / log e = 1",
    source="INSGD Eq. 27-28",
    need=every(reads_inputs, takes("damping", "p")),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "p": st.sampled_from([2.0, 1.0, 3.0, math.inf]),
        "options": strategies.options(spec, "weight_decay", "momentum", "beta"),
    },
)
def input_power_e(spec: OptimizerSpec, case: Case) -> None:
    layers, script, p = Layers(case["seed"]), Script(case["seed"]), case["p"]
    options = {**case["options"], "p": p, "damping": "log", "power": True, "center": False, "granularity": "layer"}
    optimizer = build(spec, layers, **options, lr=0.1)
    one_hot = {name: np.zeros((2, *shape)) for name, shape in INPUTS.items()}
    for x in one_hot.values():
        x.reshape(2, -1)[:, 0] = math.e if p == math.inf else math.e ** (1 / p)
    shapes = [tuple(param.shape) for param in layers.parameters()]
    for step in range(case["steps"]):
        present(optimizer, layers, script.grads(step, shapes), one_hot)
        optimizer.step()

    def sgd(nudge: float) -> list[torch.Tensor]:
        nudged = script.but(nudge=nudge)
        weights = [nudged.nudged(w) for w in weights_of(Layers(case["seed"]))]
        names = ("momentum", "dampening", "nesterov", "weight_decay")
        settings = {**spec.defaults, **options}
        recursion = Recursion("sgd", {name: settings[name] for name in names if name in settings} | {"lr": 0.1})
        for step in range(case["steps"]):
            weights = recursion.step(weights, nudged.grads(step, [w.shape for w in weights]))
        return [torch.from_numpy(w) for w in weights]

    numerics.follows(parameters(layers), sgd, case["steps"], "parameters beside SGD's")


@law(
    "trusted-gradient",
    "where trust_coefficient ||theta|| = ||g|| it is SGD",
    domain="rules with a trust coefficient that do not see the gradient's scale; no decay, eps = 0, nothing excluded",
    source="LARS's local rate is then 1 (INSGD Eq. 17)",
    need=every(promises("gradient-scale"), takes("trust_coefficient")),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "trust": st.sampled_from([0.001, 0.5]),
        "options": strategies.options(spec, "momentum"),
    },
)
def trusted_gradient(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"])
    fixed = {"trust_coefficient": case["trust"], "weight_decay": 0.0, "eps": 0.0, "exclude": "none", "lr": 0.1}
    optimizer = build(spec, layers, **{**case["options"], **fixed})
    momentum = {**spec.defaults, **case["options"]}.get("momentum", 0.0)
    recursion = Recursion("sgd", {"lr": 0.1, "momentum": momentum})
    expected = weights_of(layers)
    for step in range(case["steps"]):
        feed(optimizer, layers, script, step)
        for param in layers.parameters():
            if param.grad is not None:
                param.grad *= case["trust"] * param.detach().norm() / param.grad.norm()
        grads = [param.grad.numpy().copy() for param in layers.parameters() if param.grad is not None]
        expected = recursion.step(expected, grads)
        optimizer.step()
    # Weights and steps shrink and grow by at most 1.1 a step, so errors of a roundoff each only add up.
    unit = torch.finfo(torch.float64).eps
    allowed = [64 * case["steps"] * unit * 1.2 ** case["steps"] * float(abs(w).max()) for w in expected]
    numerics.near(parameters(layers), [torch.from_numpy(w) for w in expected], allowed, "parameters beside SGD's")


@law(
    "large-gradient-gain",
    "the gain lies between 1 and 1 + 1 / ||g||, and so tends to 1 as ||g|| grows",
    domain="rules that promise large-gradient-gain; no weight decay",
    source="LSALR, INSGD Eq. 18: log(1 + 1/n) <= 1/n",
    need=promises("large-gradient-gain"),
    draws=lambda spec: {"seed": strategies.seeds, "size": st.sampled_from([1.0, 1e2, 1e4, 1e8])},
)
def large_gradient_gain(spec: OptimizerSpec, case: Case) -> None:
    layers = Layers(case["seed"])
    with torch.no_grad():  # so that what is measured is the step alone
        for param in layers.parameters():
            param.zero_()
    optimizer = build(spec, layers, lr=1.0, weight_decay=0.0)
    feed(optimizer, layers, Script(case["seed"], grad_factor=case["size"]), 0)
    optimizer.step()
    for name, param in layers.named_parameters():
        if param.grad is None:
            continue
        norm = float(param.grad.norm())
        gain = float(param.detach().norm()) / norm
        slack = 64 * torch.finfo(torch.float64).eps
        if not 1 - slack <= gain <= 1 + 1 / norm + slack:
            raise LawBroken(
                f"{name} at ||g|| = {norm:.6g}: seen a gain of {gain:.12g}, expected 1 to 1 + {1 / norm:.3g}"
            )


def _dampens_momentum_alone(spec: OptimizerSpec) -> str | None:
    """No rule of a chain but Momentum reads dampening."""
    readers = names_of_readers(getattr(build(spec, Layers()), "rules", ()), ["dampening"])
    others = [name for name in readers if name != "Momentum"]
    return f"its dampening is more than momentum's: {', '.join(others)} reads it too" if others else None


@law(
    "no-momentum-no-dampening",
    "without momentum, dampening has no effect, to the bit",
    domain="rules with momentum and dampening as options; chains in which only Momentum reads dampening",
    source="torch.optim.SGD: dampening belongs to the running mean",
    need=every(takes("momentum", "dampening"), _dampens_momentum_alone),
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps, "dampening": st.sampled_from([0.5, 1.0])},
)
def no_momentum_no_dampening(spec: OptimizerSpec, case: Case) -> None:
    left, right, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    play(build(spec, left, momentum=0.0, dampening=case["dampening"]), left, script, range(case["steps"]))
    play(build(spec, right, momentum=0.0, dampening=0.0), right, script, range(case["steps"]))
    numerics.same(parameters(left), parameters(right), f"parameters with dampening = {case['dampening']}")


@law(
    "no-momentum-no-memory",
    "without momentum, a step depends on no gradient before it",
    domain="rules with scalar gains and momentum as an option; no correction; the same inputs at every step",
    source="INSGD Algorithm 1: without momentum the step is lr h_t",
    need=every(takes("momentum"), lambda spec: None if spec.capabilities.scalar_gain else "its gains are no scalars"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "options": strategies.options(spec, "weight_decay"),
    },
)
def no_momentum_no_memory(spec: OptimizerSpec, case: Case) -> None:
    script, steps = Script(case["seed"]), case["steps"]
    options = {**case["options"], "momentum": 0.0}

    def last(nudge: float, history: int) -> list[torch.Tensor]:
        """The weights after a step from the same place, behind so many other steps."""
        layers = Layers(case["seed"])
        optimizer, nudged = build(spec, layers, **options), script.but(nudge=nudge)
        shapes = [tuple(param.shape) for param in layers.parameters()]
        for step in (*range(1, history + 1), 0):
            present(optimizer, layers, nudged.grads(step, shapes), nudged.inputs(0))
            with torch.no_grad():
                for param, start in zip(layers.parameters(), parameters(Layers(case["seed"])), strict=True):
                    param.copy_(start)
            optimizer.step()
        return parameters(layers)

    numerics.follows(last(0.0, steps), lambda nudge: last(nudge, 0), steps + 1, f"the step after {steps} others")


@law(
    "no-decay-no-pull",
    "without weight decay, a step does not depend on where the parameters are",
    domain="rules with weight decay as an option that do not scale by the weight's norm",
    source="weight decay is what reads theta",
    need=every(
        takes("weight_decay"),
        lambda spec: None if spec.capabilities.decay else "its capabilities do not say how decay enters",
        lambda spec: (
            "its step is as long as the weights ask for" if "gradient-scale" in spec.capabilities.invariances else None
        ),
    ),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "options": strategies.options(spec, "momentum"),
    },
)
def no_decay_no_pull(spec: OptimizerSpec, case: Case) -> None:
    script, span = Script(case["seed"]), range(case["steps"])

    def moved(nudge: float, shift: float) -> list[torch.Tensor]:
        layers = Layers(case["seed"])
        with torch.no_grad():
            for param in layers.parameters():
                param.mul_(shift)
        start = parameters(layers)
        play(build(spec, layers, **case["options"], weight_decay=0.0), layers, script.but(nudge=nudge), span)
        return [new - old for new, old in zip(parameters(layers), start, strict=True)]

    size = 4 * max(map(numerics.largest, parameters(Layers(case["seed"]))))
    seen = moved(0.0, -2.0)
    numerics.follows(seen, lambda nudge: moved(nudge, 1.0), case["steps"], "the way from elsewhere", size=size)


LAWS = (
    neutral_base, neutral_correction, input_power_e, trusted_gradient, large_gradient_gain, no_momentum_no_dampening,
    no_momentum_no_memory, no_decay_no_pull,
)  # fmt: skip
