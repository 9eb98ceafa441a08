"""Closed forms: every rule's steps against its textbook recursion, on given gradients and on a quadratic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.closed_forms import CLOSED_FORMS, LayerInput, Recursion
from insgd_lab.testing.law import Case, every, law
from insgd_lab.testing.problems import Array, Layers, Script, build, feed, parameters

__all__ = ["LAWS"]


def has_closed_form(spec: OptimizerSpec) -> str | None:
    """The spec names a recursion that the kit knows."""
    name = spec.capabilities.closed_form
    if name is None:
        return "its capabilities name no closed_form"
    return None if name in CLOSED_FORMS else f"the kit has no closed form {name!r}"


def can_forget(spec: OptimizerSpec) -> str | None:
    """The rule has no momentum, or an option that turns it off."""
    has = spec.capabilities.momentum and "momentum" not in spec.defaults
    return "it has momentum that no option turns off" if has else None


def _all_options(spec: OptimizerSpec) -> Any:
    return strategies.options(
        spec, "momentum", "weight_decay", "betas", "eps", "gamma", "beta", "granularity", "maximize",
        p=(2.0, 1.0, 3.0, math.inf), damping=("log", "additive"), center=(False, True), power=(True, False),
        decay=("after", "before"), decoupled=(False, True), amsgrad=(False, True), scope=("tensor", "global"),
        correct=("first", "second", "both"), belief=("corrected", "raw"), threshold=(5.0, 4.0),
        exclude=("1d", "none"), trust_coefficient=(0.001, 0.5), adanorm=(None, 0.9),
        project=(None, {"box": [-0.5, 0.8]}, {"ball": 1.0}), lr_decay=(0.0, 0.5),
        initial_accumulator_value=(0.0, 0.1), rho=(0.9, 0.5), alpha=(0.99, 0.5), centered=(False, True),
    )  # fmt: skip


def _layer_inputs(layers: Layers, inputs: dict[str, Array]) -> list[LayerInput | None]:
    """What the owner of each parameter is fed, in the order of the parameters; None for biases and the offset."""
    found: list[LayerInput | None] = []
    for name, param in layers.named_parameters():
        layer = getattr(layers, name.partition(".")[0])
        if not name.endswith("weight"):
            found.append(None)
        elif isinstance(layer, nn.Conv2d):
            geometry = (layer.kernel_size[0], layer.stride[0], int(layer.padding[0]), layer.groups)
            found.append(LayerInput(inputs[name.partition(".")[0]], param.shape[0], *geometry))
        else:
            found.append(LayerInput(inputs[name.partition(".")[0]]))
    return found


@law(
    "closed-form",
    "several steps on given gradients follow the textbook recursion, also through a change of the learning rate",
    domain="rules whose spec names a closed form; some inputs dead, and a tensor that starts at zero and once has no "
    "gradient",
    source="the papers' equations, written a second time in insgd_lab.testing.closed_forms",
    need=has_closed_form,
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": st.integers(1, 8),
        "lr": strategies.rates,
        "later_lr": strategies.rates,
        "dead": st.booleans(),
        "blank": st.booleans(),
        "options": _all_options(spec),
    },
)
def closed_form(spec: OptimizerSpec, case: Case) -> None:
    script, change = Script(case["seed"], dead=case["dead"]), case["steps"] // 2
    layers = Layers(case["seed"])
    blank = layers.conv.weight if case["blank"] else torch.empty(0)
    nn.init.zeros_(blank)
    optimizer = build(spec, layers, **case["options"], lr=case["lr"])
    for step in range(case["steps"]):
        if step == change:
            for group in optimizer.param_groups:
                group["lr"] = case["later_lr"]
        feed(optimizer, layers, script, step)
        if step == 1 and blank.grad is not None:
            blank.grad.zero_()
        optimizer.step()
    blanks = [param is blank for param in layers.parameters()]

    def textbook(nudge: float) -> list[Tensor]:
        nudged, fresh = script.but(nudge=nudge), Layers(case["seed"])
        weights = [nudged.nudged(w.numpy()) * (not it) for it, w in zip(blanks, parameters(fresh), strict=True)]
        recursion = Recursion(
            str(spec.capabilities.closed_form), {**spec.defaults, **case["options"], "lr": case["lr"]}
        )
        for step in range(case["steps"]):
            if step == change:
                recursion.options["lr"] = case["later_lr"]
            grads = nudged.grads(step, [w.shape for w in weights])
            grads = [g * (not (it and step == 1)) for it, g in zip(blanks, grads, strict=True)]
            weights = recursion.step(weights, grads, _layer_inputs(fresh, nudged.inputs(step)))
        return [torch.from_numpy(np.asarray(w)) for w in weights]

    start = max(map(numerics.largest, parameters(Layers(case["seed"]))))
    numerics.follows(parameters(layers), textbook, case["steps"], f"parameters after {case['steps']} steps", size=start)


@law(
    "quadratic",
    "on h theta^2 / 2 a rule without momentum follows its scalar recursion",
    domain="rules whose spec names a closed form, with momentum at 0",
    source="as closed-form; here the gradient is autograd's, h theta",
    need=every(has_closed_form, can_forget),
    draws=lambda spec: {
        "steps": st.integers(1, 10),
        "lr": strategies.rates,
        "h": st.sampled_from([1.0, 0.2, 3.0]),  # none is a weight decay, which could cancel it
        "start": st.sampled_from([1.0, -2.0, 0.3]),
        "x": st.sampled_from([2.0, 0.5, -3.0]),
        "options": strategies.options(spec, "weight_decay", "maximize", "gamma", "beta"),
    },
)
def quadratic(spec: OptimizerSpec, case: Case) -> None:
    h, x, options = case["h"], case["x"], {**case["options"], "momentum": 0.0, "lr": case["lr"]}
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, case["start"])
    optimizer, size = build(spec, layer, **options), 0.0
    for _ in range(case["steps"]):
        size = max(size, numerics.largest(layer.weight))
        optimizer.zero_grad()
        output = layer(torch.tensor([[x]], dtype=torch.float64))
        (0.5 * h * (output / x).square()).sum().backward()
        optimizer.step()

    def textbook(nudge: float) -> list[Tensor]:
        theta = np.array([[case["start"] * (1 + nudge)]])
        recursion = Recursion(str(spec.capabilities.closed_form), {**spec.defaults, **options})
        for _ in range(case["steps"]):
            [theta] = recursion.step([theta], [h * theta], [LayerInput(np.array([[x]]))])
        return [torch.from_numpy(theta)]

    numerics.follows(parameters(layer), textbook, case["steps"], f"theta after {case['steps']} steps", size=size)


LAWS = (closed_form, quadratic)
