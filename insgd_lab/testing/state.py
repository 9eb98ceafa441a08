"""Laws of state: what a step may touch, and what it must."""

from __future__ import annotations

import copy
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.law import Case, LawBroken, chain, law, takes
from insgd_lab.testing.problems import Layers, Script, build, feed, parameters, play

__all__ = ["LAWS"]


def _usual(spec: OptimizerSpec) -> dict[str, Any]:
    return {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "options": strategies.options(spec, "weight_decay", "momentum"),
    }


@law(
    "state-moves",
    "a step changes the parameters and every buffer",
    domain="every optimizer; outside chains, a buffer that is not zero may stay as it is",
    source="a popular AdaNorm wrote mul for mul_, and corrected nothing for several releases",
    draws=_usual,
)
def state_moves(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"], dead=True)
    optimizer = build(spec, layers, **case["options"])
    play(optimizer, layers, script, range(case["steps"]))
    weights, state = parameters(layers), copy.deepcopy(optimizer.state_dict()["state"])
    play(optimizer, layers, script, range(case["steps"], case["steps"] + 1))
    if all(torch.equal(a, b) for a, b in zip(weights, layers.parameters(), strict=True)):
        raise LawBroken("no parameter moved, expected a step")
    for number, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            old = state[number][slot]
            on_purpose = spec.capabilities.chain is False and _is_nonzero(value)
            if not _moved(old, value) and not on_purpose:
                shown = numerics.show(value) if isinstance(value, Tensor) else value
                raise LawBroken(f"{slot} of parameter {number} stayed {shown}, expected it to change")


def _moved(old: Any, new: Any) -> bool:
    if isinstance(new, Tensor):
        return new.numel() == 0 or not torch.equal(new, old)
    return not isinstance(new, (int, float)) or new != old


def _is_nonzero(value: Any) -> bool:
    return bool(value.count_nonzero()) if isinstance(value, Tensor) else bool(value)


@law(
    "gradients-untouched",
    "step() leaves p.grad as it was, and keeps no hold of it",
    domain="every optimizer; fresh gradients, and one tensor that each step's is written to",
    source="torch.optim's contract: gradients are the user's, and zero_grad(set_to_none=False) keeps their tensors",
    draws=lambda spec: {
        **_usual(spec),
        "options": strategies.options(spec, "weight_decay", "momentum", "maximize"),
        "kept": st.booleans(),
    },
)
def gradients_untouched(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"])
    optimizer = build(spec, layers, **case["options"])
    tensors: list[Tensor | None] = []
    for step in range(case["steps"]):
        feed(optimizer, layers, script, step)
        if case["kept"]:
            tensors = tensors or [param.grad for param in layers.parameters()]
            for param, tensor in zip(layers.parameters(), tensors, strict=True):
                if tensor is not None and param.grad is not None:
                    param.grad = tensor.copy_(param.grad)
        given = [param.grad for param in layers.parameters()]
        copies = [grad.clone() for grad in given if grad is not None]
        optimizer.step()
        left = [param.grad for param in layers.parameters()]
        if any(a is not b for a, b in zip(given, left, strict=True)):
            raise LawBroken(f"p.grad is another tensor after step {step + 1}, expected the same")
        numerics.same([grad for grad in left if grad is not None], copies, f"p.grad after step {step + 1}")
    fresh = Layers(case["seed"])
    play(build(spec, fresh, **case["options"]), fresh, script, range(case["steps"]))
    numerics.same(parameters(layers), parameters(fresh), "parameters whose gradients keep their tensors")


@law(
    "no-gradient-no-change",
    "parameters without gradients, and their state, are untouched",
    domain="every optimizer",
    source="torch.optim's contract",
    draws=lambda spec: {**_usual(spec), "fed": st.integers(0, 4)},
)
def no_gradient_no_change(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"])
    optimizer = build(spec, layers, **case["options"])
    params = list(layers.parameters())
    for step in range(case["steps"]):
        feed(optimizer, layers, script, step)
        for number, param in enumerate(params):
            param.grad = param.grad if number == case["fed"] % len(params) else None
        unfed = [param for param in params if param.grad is None]
        weights = [param.detach().clone() for param in unfed]
        state = [copy.deepcopy(optimizer.state.get(param, {})) for param in unfed]
        optimizer.step()
        numerics.same(unfed, weights, "a parameter without gradient")
        for param, old in zip(unfed, state, strict=True):
            new = optimizer.state.get(param, {})
            changed = [slot for slot, value in new.items() if slot not in old or not _equal(value, old[slot])]
            if changed:
                raise LawBroken(f"{', '.join(changed)} changed for a parameter without gradient, expected no change")


def _equal(left: Any, right: Any) -> bool:
    return torch.equal(left, right) if isinstance(left, Tensor) else bool(left == right)


@law(
    "zero-gradients",
    "zero gradients leave parameters finite",
    domain="every optimizer, float32 and float64",
    source="AdaNorm's published code divides by the gradient's norm and gives NaN",
    draws=lambda spec: {**_usual(spec), "dtype": st.sampled_from(["float32", "float64"]), "zero_at": st.integers(0, 5)},
)
def zero_gradients(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"], getattr(torch, case["dtype"])), Script(case["seed"])
    optimizer = build(spec, layers, **case["options"])
    for step in range(case["steps"] + 1):
        feed(optimizer, layers, script.but(grad_factor=0.0 if step >= case["zero_at"] else 1.0), step)
        optimizer.step()
    _expect_finite(layers)


@law(
    "extreme-gradients",
    "gradients of 1e30 and 1e-30 leave parameters finite",
    domain="every optimizer at its default options, float32 and float64",
    source="their squares overflow and vanish in float32",
    draws=lambda spec: {
        "dtype": st.sampled_from(["float32", "float64"]),
        "gradients": st.lists(strategies.gradient_sizes, min_size=1, max_size=5),
        "measured": st.booleans(),
    },
)
def extreme_gradients(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(0, getattr(torch, case["dtype"])), Script(0)
    optimizer = build(spec, layers)
    for step, size in enumerate(case["gradients"]):
        feed(optimizer, layers, script, step, measure=case["measured"])
        for param in layers.parameters():
            param.grad = torch.full_like(param, size)
        optimizer.step()
    _expect_finite(layers)


def _expect_finite(layers: Layers) -> None:
    for name, param in layers.named_parameters():
        if not param.isfinite().all():
            raise LawBroken(f"{name} is {numerics.show(param)}, expected finite numbers")


@law(
    "half-precision-state",
    "half-precision parameters keep their statistics in float32 or wider",
    domain="chains",
    source="torch casts buffers to the parameter's type",
    need=chain,
    draws=lambda spec: {**_usual(spec), "dtype": st.sampled_from(["float16", "bfloat16"])},
)
def half_precision_state(spec: OptimizerSpec, case: Case) -> None:
    layers = Layers(case["seed"], getattr(torch, case["dtype"]))
    optimizer = build(spec, layers, **case["options"])
    play(optimizer, layers, Script(case["seed"]), range(case["steps"]))
    for number, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.element_size() < 4:
                raise LawBroken(f"{slot} of parameter {number} is {value.dtype}, expected float32 or wider")


@law(
    "half-precision-steps",
    "half-precision parameters step as float32 ones do, to their own rounding, also where sums of squares overflow",
    domain="chains; norms of gradients and inputs above 65504",
    source="a float16 sum of squares overflows at 65504",
    need=chain,
    draws=lambda spec: {
        "seed": strategies.seeds,
        "dtype": st.sampled_from(["float16", "bfloat16"]),
        "size": st.sampled_from([1.0, 100.0]),
    },
)
def half_precision_steps(spec: OptimizerSpec, case: Case) -> None:
    half = getattr(torch, case["dtype"])
    script = Script(case["seed"], input_factor=case["size"], grad_factor=case["size"])
    layers, wide = Layers(case["seed"], half), Layers(case["seed"], half).float()
    seen, expected = build(spec, layers), build(spec, wide)
    feed(seen, layers, script, 0)
    feed(expected, wide, script, 0)
    for narrow, param in zip(layers.parameters(), wide.parameters(), strict=True):
        param.grad = None if narrow.grad is None else narrow.grad.float()
    seen.step()
    expected.step()
    # The parameter is rounded once; inputs were rounded before they were measured, which moves the step by as much,
    # times the order of their norm.
    unit = torch.finfo(half).eps
    weights = [w.float() for w in parameters(Layers(case["seed"], half))]
    allowed = [
        unit * (numerics.largest(new) + 16 * numerics.largest(new - old))
        for new, old in zip(wide.parameters(), weights, strict=True)
    ]
    numerics.near(parameters(layers), parameters(wide), allowed, f"{case['dtype']} parameters after a step")


@law(
    "deepcopy",
    "a deep copy of model and optimizer goes on alike, and apart",
    domain="every optimizer",
    source="torch.optim.Optimizer.__getstate__ keeps three fields only",
    draws=_usual,
)
def deepcopy_goes_on(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"])
    optimizer = build(spec, layers, **case["options"])
    play(optimizer, layers, script, range(case["steps"]))
    twin, other = copy.deepcopy((layers, optimizer))
    before = parameters(layers)
    play(other, twin, script, range(case["steps"], case["steps"] + 2))
    numerics.same(parameters(layers), before, "the original, after its copy stepped")
    play(optimizer, layers, script, range(case["steps"], case["steps"] + 2))
    numerics.same(parameters(twin), parameters(layers), "the copy")


@law(
    "maximize",
    "to climb is to descend on the negated gradient, to the bit",
    domain="optimizers with the option maximize",
    source="torch.optim's contract",
    need=takes("maximize"),
    draws=_usual,
)
def maximize(spec: OptimizerSpec, case: Case) -> None:
    up, down, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    play(build(spec, up, **case["options"], maximize=True), up, script, range(case["steps"]))
    play(build(spec, down, **case["options"]), down, script.but(grad_factor=-1.0), range(case["steps"]))
    numerics.same(parameters(up), parameters(down), "parameters that climbed")


@law(
    "closure",
    "step(closure) evaluates it with gradients on, uses what it gives, and returns its loss",
    domain="every optimizer",
    source="torch.optim's contract",
    draws=_usual,
)
def closure(spec: OptimizerSpec, case: Case) -> None:
    plain, closed, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    play(build(spec, plain, **case["options"]), plain, script, range(case["steps"]))
    optimizer = build(spec, closed, **case["options"])
    for step in range(case["steps"]):

        def evaluate(step: int = step) -> float:
            if not torch.is_grad_enabled():
                raise LawBroken("the closure ran without gradients, expected torch.enable_grad()")
            feed(optimizer, closed, script, step)
            return float(step)

        loss = optimizer.step(evaluate)
        if loss != step:
            raise LawBroken(f"step(closure) returned {loss!r}, expected the closure's {float(step)!r}")
    numerics.same(parameters(closed), parameters(plain), "parameters stepped with a closure")


LAWS = (
    state_moves, gradients_untouched, no_gradient_no_change, zero_gradients, extreme_gradients, half_precision_state,
    half_precision_steps, deepcopy_goes_on, maximize, closure,
)  # fmt: skip
