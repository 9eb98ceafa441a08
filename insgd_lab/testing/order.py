"""Laws of order: how parameters are listed, grouped and numbered does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.construction import build, takes_groups, takes_parameters
from insgd_lab.testing.law import Case, LawBroken, chain, every, law, takes
from insgd_lab.testing.problems import Layers, Script, parameters, play, present

__all__ = ["LAWS", "names_of_readers"]


def _any_scope(spec: OptimizerSpec) -> dict[str, Any]:
    """As usual, and norms of one tensor or of all of them."""
    names = ("weight_decay", "momentum")
    return {**strategies.usual(spec), "options": strategies.options(spec, *names, scope=("tensor", "global"))}


def _expect_same_way(spec: OptimizerSpec, case: Case, arrange: Callable[[Layers], Any], what: str) -> None:
    """The rule over ``arrange(layers)`` goes the way it goes over the layers as they are, to rounding."""
    script, span = Script(case["seed"]), range(case["steps"])

    def plain(nudge: float) -> list[Tensor]:
        layers = Layers(case["seed"])
        play(build(spec, layers, **case["options"]), layers, script.but(nudge=nudge), span)
        return parameters(layers)

    layers = Layers(case["seed"])
    play(build(spec, layers, arrange(layers), **case["options"]), layers, script, span)
    size = max(map(numerics.largest, parameters(Layers(case["seed"]))))
    numerics.follows(parameters(layers), plain, case["steps"], what, size=size)


@law(
    "parameter-order",
    "the order of the parameters does not matter",
    domain="optimizers that take parameters; norms of a tensor and of all",
    source="a rule that pairs state with position, or sums in one buffer, breaks it",
    need=takes_parameters,
    draws=_any_scope,
)
def parameter_order(spec: OptimizerSpec, case: Case) -> None:
    def shuffled(layers: Layers) -> list[Tensor]:
        params = list(layers.parameters())
        return [params[i] for i in np.random.default_rng([case["seed"], 6]).permutation(len(params))]

    _expect_same_way(spec, case, shuffled, "parameters listed in another order")


@law(
    "group-splitting",
    "splitting the parameters into groups does not matter",
    domain="optimizers that take groups; norms of a tensor and of all",
    source="torch.optim's contract: a group is its settings, and a norm of all is that of all groups",
    need=takes_groups,
    draws=lambda spec: {**_any_scope(spec), "groups": st.integers(2, 5)},
)
def group_splitting(spec: OptimizerSpec, case: Case) -> None:
    def split(layers: Layers) -> list[dict[str, Any]]:
        params, count = list(layers.parameters()), case["groups"]
        return [{"params": params[i::count]} for i in range(min(count, len(params)))]

    _expect_same_way(spec, case, split, f"parameters in {case['groups']} groups")


@law(
    "group-settings",
    "a group's learning rate and weight decay are its own",
    domain="optimizers with the option lr that take groups; gradients are given",
    source="torch.optim's contract",
    need=every(takes("lr"), takes_groups),
    draws=lambda spec: {**strategies.usual(spec), "lr": st.sampled_from([0.3, 0.0])},
)
def group_settings(spec: OptimizerSpec, case: Case) -> None:
    script, span = Script(case["seed"]), range(case["steps"])
    extreme = {"lr": case["lr"], **({"weight_decay": 0.5} if "weight_decay" in spec.defaults else {})}
    layers, alone = Layers(case["seed"]), Layers(case["seed"])
    watched, rest = list(layers.parameters())[::2], list(layers.parameters())[1::2]
    play(
        build(spec, layers, [{"params": rest, **extreme}, {"params": watched}], **case["options"]), layers, script, span
    )
    halves = [{"params": list(alone.parameters())[1::2]}, {"params": list(alone.parameters())[::2]}]
    play(build(spec, alone, halves, **case["options"]), alone, script, span)
    expected = list(alone.parameters())
    numerics.same(watched, expected[::2], "parameters beside a group with settings of its own")
    if all(torch.equal(a, b) for a, b in zip(rest, expected[1::2], strict=True)):
        raise LawBroken(f"a group with {extreme} stepped as with the default settings, expected its own")


@law(
    "tensor-rate",
    "a tensor learning rate belongs to its group",
    domain="chains",
    source="torch.optim puts one default tensor into every group: changing one group's rate changes all",
    need=every(chain, takes("lr"), takes_groups),
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps},
)
def tensor_rate(spec: OptimizerSpec, case: Case) -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    layers, plain, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    groups = [{"params": list(layers.parameters())[:2]}, {"params": list(layers.parameters())[2:]}]
    optimizer = build(spec, layers, groups, lr=rate)
    optimizer.param_groups[0]["lr"].fill_(0.5)
    halves = [{"params": list(plain.parameters())[:2], "lr": 0.5}, {"params": list(plain.parameters())[2:]}]
    play(optimizer, layers, script, range(case["steps"]))
    play(build(spec, plain, halves, lr=0.1), plain, script, range(case["steps"]))
    # A rate as a tensor is multiplied in another order than one folded into a factor.
    unit = torch.finfo(torch.float64).eps
    starts = parameters(Layers(case["seed"]))
    allowed = [
        64 * case["steps"] * unit * (numerics.largest(a) + numerics.largest(b))
        for a, b in zip(starts, plain.parameters(), strict=True)
    ]
    numerics.near(parameters(layers), parameters(plain), allowed, "parameters under a tensor rate")
    if float(rate) != 0.1:
        raise LawBroken(f"the caller's tensor became {float(rate):g}, expected 0.1 as given")


@law(
    "tensors-apart",
    "what one tensor does does not depend on the others",
    domain="chains at their default scope; others may couple tensors on purpose",
    source="running statistics that are shared by parameters, or a norm over all of them where one tensor's is meant",
    need=every(chain, takes_parameters),
    draws=lambda spec: {**strategies.usual(spec), "alone": st.integers(0, 4)},
)
def tensors_apart(spec: OptimizerSpec, case: Case) -> None:
    script, span = Script(case["seed"]), range(case["steps"])
    number = case["alone"]

    def alone(nudge: float) -> list[Tensor]:
        layers = Layers(case["seed"])
        optimizer = build(spec, layers, [list(layers.parameters())[number]], **case["options"])
        play(optimizer, layers, script.but(nudge=nudge), span)
        return [parameters(layers)[number]]

    layers = Layers(case["seed"])
    play(build(spec, layers, **case["options"]), layers, script, span)
    size = numerics.largest(parameters(Layers(case["seed"]))[number])
    seen = [parameters(layers)[number]]
    numerics.follows(seen, alone, case["steps"], f"parameter {number} among others", size=size)


@law(
    "neuron-order",
    "permuting neurons together with their inputs changes nothing",
    domain="every optimizer, at every granularity",
    source="networks have no first neuron; a mean over the wrong axis breaks it",
    draws=lambda spec: {
        **strategies.usual(spec),
        "options": strategies.options(spec, "weight_decay", "momentum", "granularity", center=(False, True)),
    },
)
def neuron_order(spec: OptimizerSpec, case: Case) -> None:
    numbers = np.random.default_rng([case["seed"], 7])
    rows = {"linear": numbers.permutation(3), "conv": numbers.permutation(4), "depthwise": numbers.permutation(3)}
    columns = {"linear": numbers.permutation(5), "conv": numbers.permutation(2), "depthwise": rows["depthwise"]}
    offset = numbers.permutation(3)

    def permuted(name: str, value: Tensor) -> Tensor:
        layer, _, kind = name.partition(".")
        if layer == "offset":
            return value[offset]
        value = value[rows[layer]]
        return value if kind == "bias" or layer == "depthwise" else value[:, columns[layer]]

    script, span = Script(case["seed"]), range(case["steps"])

    def plain(nudge: float) -> list[Tensor]:
        layers = Layers(case["seed"])
        play(build(spec, layers, **case["options"]), layers, script.but(nudge=nudge), span)
        return [permuted(name, param.detach()) for name, param in layers.named_parameters()]

    layers = Layers(case["seed"])
    with torch.no_grad():
        for name, param in layers.named_parameters():
            param.copy_(permuted(name, param.clone()))
    optimizer, names = build(spec, layers, **case["options"]), [name for name, _ in layers.named_parameters()]
    for step in span:
        given = zip(names, script.grads(step, [tuple(param.shape) for param in layers.parameters()]), strict=True)
        grads = [np.ascontiguousarray(permuted(name, torch.from_numpy(grad))) for name, grad in given]
        inputs = {name: np.ascontiguousarray(x[:, columns[name]]) for name, x in script.inputs(step).items()}
        present(optimizer, layers, grads, inputs)
        optimizer.step()
    size = max(map(numerics.largest, parameters(Layers(case["seed"]))))
    numerics.follows(parameters(layers), plain, case["steps"], "parameters of permuted neurons", size=size)


# Rules of a chain that settings can turn off: how, and the settings under which it has them.
_OFF: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "L2Penalty": ({"weight_decay": 0.0}, {"decoupled": False}),
    "DecoupledDecay": ({"weight_decay": 0.0}, {"decoupled": True}),
    "Momentum": ({"momentum": 0.0}, {}),
    "NormCorrection": ({"gamma": 0.0}, {}),
}


def _skippable(spec: OptimizerSpec) -> list[str]:
    """Those that the rule's chain has, and that alone read the settings that turn them off."""
    found = []
    for name, (off, under) in _OFF.items():
        rules = getattr(build(spec, Layers(), **off, **under), "rules", ())
        if names_of_readers(rules, off) == [name]:
            found.append(name)
    return found


def names_of_readers(rules: Iterable[Any], options: Iterable[str]) -> list[str]:
    """The rules of a chain that read any of these options, by the names that a group's ``skip`` has for them."""
    wanted = set(options)
    return [type(rule).__name__ for rule in rules if wanted & rule.hyperparameters().keys()]


@law(
    "skip",
    "a group that skips a rule of the chain steps as if that rule were turned off, to the bit",
    domain="chains that take groups; weight decay of either kind, momentum and norm correction, where no other rule "
    "reads their settings",
    source="insgd_lab.chain: a group may name rules to leave out",
    need=every(
        chain,
        takes_groups,
        lambda spec: (
            None
            if _skippable(spec)
            else "its chain has no weight decay, momentum or norm correction that one setting turns off alone"
        ),
    ),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "rule": st.sampled_from(_skippable(spec)),
    },
)
def skip(spec: OptimizerSpec, case: Case) -> None:
    name = case["rule"]
    off, under = _OFF[name]
    on = {option: 0.3 for option in off if not spec.defaults.get(option)}
    skipping, turned_off, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    groups = [{"params": list(skipping.parameters()), "skip": (name,)}]
    play(build(spec, skipping, groups, **on, **under), skipping, script, range(case["steps"]))
    play(build(spec, turned_off, **off, **under), turned_off, script, range(case["steps"]))
    numerics.same(parameters(skipping), parameters(turned_off), f"parameters of a group that skips {name}")


LAWS = (parameter_order, group_splitting, group_settings, tensor_rate, tensors_apart, skip, neuron_order)
