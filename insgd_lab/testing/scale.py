"""Laws of scale: what gradients, inputs and targets may be multiplied by."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, LawBroken, every, law, promises, takes
from insgd_lab.testing.problems import Layers, Script, feed, parameters, play

__all__ = ["LAWS"]

# Nothing that has a scale of its own: no decay, no eps, every tensor treated alike.
_BARE = {"weight_decay": 0.0, "eps": 0.0, "exclude": "none", "adanorm": None}


def _weights(spec: OptimizerSpec, script: Script, steps: int, options: Case) -> list[Tensor]:
    layers = Layers(script.seed)
    if script.nudge:
        with torch.no_grad():
            for param in layers.parameters():
                param.copy_(torch.from_numpy(script.nudged(param.numpy())))
    play(build(spec, layers, **options), layers, script, range(steps))
    return parameters(layers)


def _expect_alike(spec: OptimizerSpec, case: Case, options: Case, other: Case, script: Script, what: str) -> None:
    """The script under other options, or another script, leads to the same weights, to rounding."""
    plain, steps = Script(case["seed"]), case["steps"]
    size = max(map(numerics.largest, parameters(Layers(case["seed"]))))
    seen = _weights(spec, script, steps, other)
    numerics.follows(seen, lambda nudge: _weights(spec, plain.but(nudge=nudge), steps, options), steps, what, size=size)


@law(
    "gradient-scale",
    "multiplying every gradient by one number changes nothing",
    domain="rules that promise it; no decay, eps = 0, non-zero norms, nothing excluded",
    source="LARS divides by ||g|| (INSGD Eq. 17)",
    need=promises("gradient-scale"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "factor": strategies.factors,
        "options": strategies.options(spec, "momentum"),
    },
)
def gradient_scale(spec: OptimizerSpec, case: Case) -> None:
    options = {**case["options"], **_BARE}
    script = Script(case["seed"], grad_factor=case["factor"])
    _expect_alike(spec, case, options, options, script, f"parameters under gradients times {case['factor']}")


@law(
    "gradient-scale-cancels-correction",
    "AdaNorm's correction in front of it changes nothing",
    domain="rules that promise gradient-scale and take adanorm; no decay, eps = 0, non-zero norms, nothing excluded",
    source="the correction multiplies each gradient by one number (AdaNorm Eq. 4)",
    need=every(promises("gradient-scale"), takes("adanorm")),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "gamma": st.sampled_from([0.95, 0.5]),
        "options": strategies.options(spec, "momentum"),
    },
)
def gradient_scale_cancels_correction(spec: OptimizerSpec, case: Case) -> None:
    options = {**case["options"], **_BARE}
    corrected = {**options, "adanorm": case["gamma"]}
    _expect_alike(spec, case, options, corrected, Script(case["seed"]), f"parameters with adanorm = {case['gamma']}")


@law(
    "gradient-scale-limit",
    "as eps goes to 0, multiplying every gradient by one number changes nothing",
    domain="rules that promise it (not diffGrad, whose friction sees |g - g'|, nor RAdam at first); no decay",
    source="Kingma and Ba 2015, Section 2.1; at eps = 0 the law is exact, to rounding",
    need=promises("gradient-scale-limit"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "factor": strategies.factors,
        # At beta1 = 0 AdaBelief has no surprise to divide by.
        "options": strategies.options(spec, "gamma", betas=([0.9, 0.999], [0.5, 0.7])),
    },
)
def gradient_scale_limit(spec: OptimizerSpec, case: Case) -> None:
    options = {**case["options"], **_BARE}
    script = Script(case["seed"], grad_factor=case["factor"])
    _expect_alike(spec, case, options, options, script, f"parameters under gradients times {case['factor']}")


@law(
    "input-free",
    "its steps do not depend on what layers are fed",
    domain="rules that promise it; every plane has a standard deviation of at least 0.01",
    source="the published INSGD-l2 standardises planes, so that their norms are the number of pixels less 1",
    need=promises("input-free"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "factor": st.sampled_from([2.0, 0.1, 1e3]),
        "options": strategies.options(spec, "momentum", "weight_decay"),
    },
)
def input_free(spec: OptimizerSpec, case: Case) -> None:
    script = Script(case["seed"], input_factor=case["factor"], batch=5, input_seed=1)
    _expect_alike(spec, case, case["options"], case["options"], script, "parameters under other inputs")


@law(
    "input-scale-monotone",
    "scaling the whole history of inputs up never lengthens a step",
    domain="rules that promise it, at a given gradient; no momentum, decay or centring",
    source="INSGD Eq. 27-28: the divisor grows with P",
    need=promises("input-scale-monotone"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "small": st.sampled_from([1.0, 0.1, 0.01]),
        "factor": st.sampled_from([2.0, 1.01, 100.0]),
        "options": strategies.options(spec, "beta", "granularity", p=(2.0, 1.0, 3.0), damping=("log", "additive")),
    },
)
def input_scale_monotone(spec: OptimizerSpec, case: Case) -> None:
    options = {**case["options"], "momentum": 0.0, "weight_decay": 0.0, "center": False}
    lengths = [
        _step_lengths(spec, Script(case["seed"], input_factor=case["small"] * factor), case["steps"], options)
        for factor in (1.0, case["factor"])
    ]
    slack = 64 * torch.finfo(torch.float64).eps
    for step, (before, after) in enumerate(zip(*lengths, strict=True), 1):
        for number, (a, b) in enumerate(zip(before, after, strict=True)):
            if not b <= a * (1 + slack):
                raise LawBroken(
                    f"parameter {number}, step {step}: {a:.9g} long; under inputs times {case['factor']} seen "
                    f"{b:.9g}, expected no more"
                )


def _step_lengths(spec: OptimizerSpec, script: Script, steps: int, options: Case) -> list[list[float]]:
    """How far each parameter moves at each step, each time from zero: nothing is lost to the weights' rounding."""
    layers = Layers(script.seed)
    optimizer, lengths = build(spec, layers, **options), []
    for step in range(steps):
        with torch.no_grad():
            for param in layers.parameters():
                param.zero_()
        feed(optimizer, layers, script, step)
        optimizer.step()
        lengths.append([float(param.detach().norm()) for param in layers.parameters()])
    return lengths


@law(
    "joint-scale",
    "scaling inputs and targets together changes nothing",
    domain="rules that promise it (NLMS-l2): a linear layer without bias, mean of e^2 / 2, eps = 0",
    source="INSGD Eq. 7-8: the error and the input are both scaled, their product divided by the square",
    need=promises("joint-scale"),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "examples": st.integers(1, 4),
        "lr": st.sampled_from([1.0, 0.3, 1.9]),
        "factor": strategies.factors,
    },
)
def joint_scale(spec: OptimizerSpec, case: Case) -> None:
    def weights(factor: float, nudge: float) -> list[Tensor]:
        script, layer = Script(case["seed"], nudge=nudge, batch=case["examples"]), Layers(case["seed"]).linear
        layer = _without_bias(layer)
        optimizer = build(spec, layer, lr=case["lr"], eps=0.0)
        for step in range(case["steps"]):
            x = factor * torch.from_numpy(script.inputs(step)["linear"])
            [targets] = script.grads(step, [(len(x), 3)])
            optimizer.zero_grad()
            (0.5 * (factor * torch.from_numpy(targets) - layer(x)).square().sum(1)).mean().backward()
            optimizer.step()
        return parameters(layer)

    scaled, what = weights(case["factor"], 0.0), f"weights at scale {case['factor']}"
    numerics.follows(scaled, lambda nudge: weights(1.0, nudge), case["steps"], what)


def _without_bias(layer: nn.Linear) -> nn.Linear:
    bare = nn.Linear(layer.in_features, layer.out_features, bias=False, dtype=torch.float64)
    bare.load_state_dict({"weight": layer.weight})
    return bare


LAWS = (
    gradient_scale, gradient_scale_cancels_correction, gradient_scale_limit, joint_scale, input_scale_monotone,
    input_free,
)  # fmt: skip
