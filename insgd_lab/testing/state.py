"""Laws of state: what a step may touch, and what it must."""

from __future__ import annotations

import copy
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, LawBroken, chain, law, takes
from insgd_lab.testing.problems import Array, Layers, Script, feed, parameters, play, present

__all__ = ["LAWS"]


@law(
    "state-moves",
    "a step changes the parameters and every buffer",
    domain="every optimizer; outside chains, a buffer that is not zero may stay as it is",
    source="a popular AdaNorm wrote mul for mul_, and corrected nothing for several releases",
    draws=strategies.usual,
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
    domain="every optimizer, with decay, maximize and correction each in turn; fresh gradients, and one tensor that "
    "each step's is written to",
    source="torch.optim's contract: gradients are the user's, and zero_grad(set_to_none=False) keeps their tensors",
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": st.integers(2, 6),  # what was kept of the first gradient shows at the second
        "options": strategies.options(spec, "momentum"),
    },
)
def gradients_untouched(spec: OptimizerSpec, case: Case) -> None:
    # All of them in every case: each hides what another shows, as a sum that is a new tensor hides a kept gradient.
    for extra in ({}, {"weight_decay": 0.1}, {"maximize": True}, {"adanorm": 0.9}):
        if extra.keys() <= spec.defaults.keys():
            options = {**case["options"], **extra}
            what = ", ".join(f"{name} = {value}" for name, value in options.items()) or "default options"
            fresh = _untouched(spec, case, options, what, keep=False)
            kept = _untouched(spec, case, options, what, keep=True)
            numerics.same(kept, fresh, f"{what}: parameters whose gradients keep their tensors")


def _untouched(spec: OptimizerSpec, case: Case, options: Case, what: str, *, keep: bool) -> list[Tensor]:
    """The parameters after steps that left the gradients alone; ``keep`` writes each into the first one's tensor."""
    layers, script = Layers(case["seed"]), Script(case["seed"])
    optimizer = build(spec, layers, **options)
    tensors: list[Tensor | None] = []
    for step in range(case["steps"]):
        feed(optimizer, layers, script, step)
        if keep:
            tensors = tensors or [param.grad for param in layers.parameters()]
            for param, tensor in zip(layers.parameters(), tensors, strict=True):
                if tensor is not None and param.grad is not None:
                    param.grad = tensor.copy_(param.grad)
        given = [param.grad for param in layers.parameters()]
        copies = [grad.clone() for grad in given if grad is not None]
        optimizer.step()
        left = [param.grad for param in layers.parameters()]
        if any(a is not b for a, b in zip(given, left, strict=True)):
            raise LawBroken(f"{what}: p.grad is another tensor after step {step + 1}, expected the same")
        numerics.same([grad for grad in left if grad is not None], copies, f"{what}: p.grad after step {step + 1}")
    return parameters(layers)


@law(
    "no-gradient-no-change",
    "parameters without gradients, and their state, are untouched",
    domain="every optimizer",
    source="torch.optim's contract",
    draws=lambda spec: {**strategies.usual(spec), "fed": st.integers(0, 4)},
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
    draws=lambda spec: {
        **strategies.usual(spec),
        "dtype": st.sampled_from(["float32", "float64"]),
        "zero_at": st.integers(0, 5),
    },
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
    draws=lambda spec: {**strategies.usual(spec), "dtype": st.sampled_from(["float16", "bfloat16"])},
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
    "half-precision parameters step as float32 ones do, rounded once, also where sums of squares overflow",
    domain="chains; the same gradients and inputs for both, and before each step the same weights; norms of gradients "
    "and inputs above 65504",
    source="a float16 sum of squares overflows at 65504; what is rounded on the way is rounded more than once",
    need=chain,
    draws=lambda spec: {
        "seed": strategies.seeds,
        "dtype": st.sampled_from(["float16", "bfloat16"]),
        "size": st.sampled_from([1.0, 100.0]),
        "steps": st.integers(1, 4),
        "start": st.sampled_from([0.0, 1.0]),  # from zero, the step's own rounding shows
        "options": strategies.options(
            spec, "weight_decay", "momentum", "betas", decoupled=(False, True), adanorm=(None, 0.9)
        ),
    },
)
def half_precision_steps(spec: OptimizerSpec, case: Case) -> None:
    half = getattr(torch, case["dtype"])
    script = Script(case["seed"], input_factor=case["size"], grad_factor=case["size"])
    layers, wide = Layers(case["seed"], half), Layers(case["seed"], half).float()
    seen, expected = build(spec, layers, **case["options"]), build(spec, wide, **case["options"])
    starts = [case["start"] * start for start in parameters(layers)]
    shapes = [tuple(start.shape) for start in starts]
    for step in range(case["steps"]):
        grads = [_rounded(grad, half) for grad in script.grads(step, shapes)]
        inputs = {name: _rounded(x, half) for name, x in script.inputs(step).items()}
        for optimizer, model in ((seen, layers), (expected, wide)):
            with torch.no_grad():
                for param, start in zip(model.parameters(), starts, strict=True):
                    param.copy_(start)
            present(optimizer, model, grads, inputs)
            optimizer.step()
        for (name, param), exact, start in zip(layers.named_parameters(), wide.parameters(), starts, strict=True):
            _expect_rounded(param.detach(), exact.detach(), start, f"{case['dtype']} {name} after step {step + 1}")


def _rounded(values: Array, dtype: torch.dtype) -> Array:
    return torch.from_numpy(values).to(dtype).double().numpy()


def _expect_rounded(seen: Tensor, exact: Tensor, start: Tensor, what: str) -> None:
    """Raise unless ``seen`` is ``exact`` after a single rounding, element by element."""
    narrow, wide = torch.finfo(seen.dtype), torch.finfo(torch.float32)
    # To nearest, and the float32 run has its own error, of norms for instance; below, float16 has subnormals.
    noise = 64 * wide.eps * (exact.abs() + start.float().abs() + (exact - start.float()).abs())
    allowed = narrow.eps / 2 * exact.abs() + noise + narrow.smallest_normal * narrow.eps
    error = (seen.float() - exact).abs()
    fits = (error <= allowed) | (exact.abs() > narrow.max * (1 - narrow.eps))
    if not fits.all():
        worst = int((~fits).flatten().nonzero()[0])
        raise LawBroken(
            f"{what}, element {worst}: seen {float(seen.flatten()[worst]):.9g}, expected "
            f"{float(exact.flatten()[worst]):.9g} to {float(allowed.flatten()[worst]):.3g}"
        )


@law(
    "deepcopy",
    "a deep copy of model and optimizer goes on alike, and apart",
    domain="every optimizer",
    source="torch.optim.Optimizer.__getstate__ keeps three fields only",
    draws=strategies.usual,
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
    draws=strategies.usual,
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
    draws=strategies.usual,
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
