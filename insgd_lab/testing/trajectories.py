"""Closed forms: every rule's steps against its textbook recursion, also where layers are not measured as usual."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.closed_forms import LayerInput, Recursion
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, every, law, reads_inputs
from insgd_lab.testing.problems import INPUTS, Array, Layers, Script, feed, parameters, present, weights_of

__all__ = ["LAWS"]


def has_closed_form(spec: OptimizerSpec) -> str | None:
    """The spec names a recursion; Capabilities know which there are."""
    return None if spec.capabilities.closed_form else "its capabilities name no closed_form"


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
        owner = name.partition(".")[0]
        layer, x = getattr(layers, owner), inputs.get(owner, np.empty(0))
        if not name.endswith("weight"):
            found.append(None)
        elif isinstance(layer, nn.Conv2d):
            geometry = (layer.kernel_size[0], layer.stride[0], int(layer.padding[0]), layer.groups)
            found.append(LayerInput(x, param.shape[0], *geometry))
        else:
            found.append(LayerInput(x))
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


def _expect_textbook(spec: OptimizerSpec, case: Case, given: Callable[[Script, int], dict[str, Array]]) -> None:
    """The rule follows its recursion where the layers are fed what ``given`` has for each step."""
    script, layers = Script(case["seed"]), Layers(case["seed"])
    options, shapes = {**case["options"], "lr": 0.1}, [tuple(param.shape) for param in layers.parameters()]
    optimizer = build(spec, layers, **options)
    for step in range(case["steps"]):
        present(optimizer, layers, script.grads(step, shapes), given(script, step))
        optimizer.step()

    def textbook(nudge: float) -> list[Tensor]:
        nudged, fresh = script.but(nudge=nudge), Layers(case["seed"])
        weights = [nudged.nudged(w) for w in weights_of(fresh)]
        recursion = Recursion(str(spec.capabilities.closed_form), {**spec.defaults, **options})
        for step in range(case["steps"]):
            weights = recursion.step(weights, nudged.grads(step, shapes), _layer_inputs(fresh, given(nudged, step)))
        return [torch.from_numpy(np.asarray(w)) for w in weights]

    start = max(map(numerics.largest, parameters(Layers(case["seed"]))))
    numerics.follows(parameters(layers), textbook, case["steps"], f"parameters after {case['steps']} steps", size=start)


def _input_case(spec: OptimizerSpec) -> dict[str, Any]:
    """A layer whose input is to be missing or broken, at some step."""
    return {
        "seed": strategies.seeds,
        "steps": st.integers(2, 6),
        "layer": st.sampled_from(sorted(INPUTS)),
        "options": strategies.options(
            spec, "momentum", "weight_decay", "beta", "granularity",
            p=(2.0, 1.0, math.inf), damping=("log", "additive"), center=(False, True), power=(True, False),
        ),
    }  # fmt: skip


@law(
    "unmeasured-keeps-power",
    "a layer that was not measured since the last step keeps its power, if the rule keeps one",
    domain="rules that read inputs and whose spec names a closed form; the published codes keep none, and take scale 1",
    source="INSGD Algorithm 1 updates P from what it is fed: where that is nothing, there is nothing to update it from",
    need=every(reads_inputs, has_closed_form),
    draws=lambda spec: {**_input_case(spec), "missing": st.lists(st.integers(1, 5), min_size=1, max_size=4)},
)
def unmeasured_keeps_power(spec: OptimizerSpec, case: Case) -> None:
    def given(script: Script, step: int) -> dict[str, Array]:
        absent = {case["layer"]} if step in case["missing"] else set()
        return {name: x for name, x in script.inputs(step).items() if name not in absent}

    _expect_textbook(spec, case, given)


@law(
    "never-measured",
    "a layer that was never measured takes scale 1, and begins with its first measurement",
    domain="rules that read inputs and whose spec names a closed form",
    source="frozen or unused layers that get gradients by another way: the plain step is the one that is safe",
    need=every(reads_inputs, has_closed_form),
    draws=lambda spec: {**_input_case(spec), "first": st.integers(1, 6)},
)
def never_measured(spec: OptimizerSpec, case: Case) -> None:
    def given(script: Script, step: int) -> dict[str, Array]:
        absent = {case["layer"]} if step < case["first"] else set()
        return {name: x for name, x in script.inputs(step).items() if name not in absent}

    _expect_textbook(spec, case, given)


@law(
    "non-finite-input",
    "a statistic that is not finite is as one that was not measured",
    domain="rules that read inputs and whose spec names a closed form; one input is NaN or infinite, gradients are "
    "given and finite",
    source="one overflow in a forward pass, whose gradients a scaler discards, must not stay in P",
    need=every(reads_inputs, has_closed_form),
    draws=lambda spec: {
        **_input_case(spec),
        "at": st.integers(0, 2),
        "value": st.sampled_from(["nan", "inf", "-inf"]),
    },
)
def non_finite_input(spec: OptimizerSpec, case: Case) -> None:
    def given(script: Script, step: int) -> dict[str, Array]:
        inputs = script.inputs(step)
        if step == case["at"]:
            x = inputs[case["layer"]]
            x.flat[case["seed"] % x.size] = float(case["value"])
        return inputs

    _expect_textbook(spec, case, given)


LAWS = (closed_form, quadratic, unmeasured_keeps_power, never_measured, non_finite_input)
