"""Laws of time: resuming, batching, evaluating, scheduling."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import numerics, strategies
from insgd_lab.testing.construction import build, takes_parameters
from insgd_lab.testing.law import Case, LawBroken, chain, every, law, reads_inputs, takes
from insgd_lab.testing.problems import Layers, Net, Script, feed, parameters, play

__all__ = ["LAWS"]


@law(
    "resume",
    "saved by torch.save, loaded with weights_only=True, it goes on to the bit, every slot in its type",
    domain="every optimizer; float64, float32 and bfloat16 parameters",
    source="torch's load_state_dict casts buffers to the parameter's type: a running power of 1234567 became 1236992",
    draws=lambda spec: {
        **strategies.usual(spec),
        "options": strategies.options(
            spec, "weight_decay", "momentum", amsgrad=(False, True), scope=("tensor", "global")
        ),
        "dtype": strategies.dtypes,
    },
)
def resume(spec: OptimizerSpec, case: Case) -> None:
    dtype, script, steps = getattr(torch, case["dtype"]), Script(case["seed"], input_factor=30.0), case["steps"]
    straight, first, second = (Layers(case["seed"], dtype) for _ in range(3))
    play(build(spec, straight, **case["options"]), straight, script, range(steps + 2))
    optimizer = build(spec, first, **case["options"])
    play(optimizer, first, script, range(steps))
    saved = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), saved)
    saved.seek(0)
    weights, state = torch.load(saved, weights_only=True)
    second.load_state_dict(weights)
    resumed = build(spec, second, lr=0.7)  # the checkpoint's options replace these
    resumed.load_state_dict(state)
    loaded = resumed.state_dict()["state"]
    for number, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor) and (
                loaded[number][slot].dtype != value.dtype or not torch.equal(loaded[number][slot], value)
            ):
                seen = f"{numerics.show(loaded[number][slot])} in {loaded[number][slot].dtype}"
                expected = f"{numerics.show(value)} in {value.dtype}"
                raise LawBroken(f"{slot} of parameter {number} was loaded as {seen}, expected {expected}")
    play(resumed, second, script, range(steps, steps + 2))
    numerics.same(parameters(second), parameters(straight), "parameters after resuming")


def _batch(seed: int, step: int, size: int, nudge: float = 0.0) -> Tensor:
    script = Script(seed, nudge)
    return torch.from_numpy(
        script.nudged(np.random.default_rng([seed, step, 8]).standard_normal((size, 2, 5, 5)), step)
    )


@law(
    "micro-batches",
    "several micro-batches, equal or not, step as one batch",
    domain="every optimizer; no batch norm or dropout, losses weighted by their examples",
    source="gradients add up; what is measured of inputs must too, weighted by examples",
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": st.integers(1, 3),
        "sizes": st.lists(st.integers(1, 4), min_size=2, max_size=4),
    },
)
def micro_batches(spec: OptimizerSpec, case: Case) -> None:
    sizes, total = case["sizes"], sum(case["sizes"])

    def weights(parts: list[int], nudge: float) -> list[Tensor]:
        net = Net(case["seed"])
        optimizer = build(spec, net)
        for step in range(case["steps"]):
            optimizer.zero_grad()
            for x in torch.split(_batch(case["seed"], step, total, nudge), parts):
                (net(x).square().mean() * len(x) / total).backward()
            optimizer.step()
        return parameters(net)

    seen, what = weights(sizes, 0.0), f"parameters after micro-batches of {sizes}"
    numerics.follows(seen, lambda nudge: weights([total], nudge), case["steps"], what, size=1.0)


def _train(optimizer: torch.optim.Optimizer, net: Net, case: Case, between: Any = None) -> None:
    for step in range(case["steps"]):
        x = _batch(case["seed"], step, 4)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        if between is not None:
            between(x)
        optimizer.step()


@law(
    "evaluation-between",
    "evaluating between backward and step changes nothing, to the bit",
    domain="every optimizer",
    source="hooks that measure evaluation passes too",
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps},
)
def evaluation_between(spec: OptimizerSpec, case: Case) -> None:
    plain, watched = Net(case["seed"]), Net(case["seed"])

    def evaluate(x: Tensor) -> None:
        watched.eval()
        seen = (100 * x).requires_grad_()
        torch.autograd.grad(watched(seen).sum(), seen)  # a saliency map: gradient flows back, but not in training
        watched.train()
        with torch.no_grad():
            watched(100 * x)

    _train(build(spec, plain), plain, case)
    _train(build(spec, watched), watched, case, evaluate)
    numerics.same(parameters(watched), parameters(plain), "parameters of the evaluated model")


@law(
    "discarded-loss",
    "a forward whose loss is thrown away changes nothing, to the bit",
    domain="rules that read inputs; others see gradients only",
    source="insgd_lab.sensors: a call counts when gradient flows back through it",
    need=reads_inputs,
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps},
)
def discarded_loss(spec: OptimizerSpec, case: Case) -> None:
    plain, wasteful = Net(case["seed"]), Net(case["seed"])
    _train(build(spec, plain), plain, case)
    _train(build(spec, wasteful), wasteful, case, lambda x: wasteful(100 * x).sum())
    numerics.same(parameters(wasteful), parameters(plain), "parameters of the model that was run once more")


@law(
    "cleared-gradients",
    "what zero_grad clears leaves no trace, to the bit",
    domain="rules that read inputs; others see gradients only",
    source="insgd_lab.sensors: zero_grad discards what has been counted and no step has used",
    need=reads_inputs,
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps},
)
def cleared_gradients(spec: OptimizerSpec, case: Case) -> None:
    plain, cleared = Net(case["seed"]), Net(case["seed"])
    _train(build(spec, plain), plain, case)
    optimizer = build(spec, cleared)
    for step in range(case["steps"]):
        cleared(100 * _batch(case["seed"], step + 100, 3)).square().mean().backward()
        optimizer.zero_grad()
        cleared(_batch(case["seed"], step, 4)).square().mean().backward()
        optimizer.step()
    numerics.same(parameters(cleared), parameters(plain), "parameters after cleared gradients")


@law(
    "checkpointing",
    "activation checkpointing of a part of the batch, of either kind, changes nothing",
    domain="rules that read inputs; others see gradients only",
    source="its second forward makes hooks count twice, and so weigh that part double",
    need=reads_inputs,
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps, "reentrant": st.booleans()},
)
def checkpointing(spec: OptimizerSpec, case: Case) -> None:
    def weights(saving: bool, nudge: float) -> list[Tensor]:
        net = Net(case["seed"])
        optimizer = build(spec, net)
        for step in range(case["steps"]):
            x, other = _batch(case["seed"], step, 2, nudge), 3 * _batch(case["seed"], step + 100, 2, nudge)
            optimizer.zero_grad()
            part = checkpoint(net, x.requires_grad_(), use_reentrant=case["reentrant"]) if saving else net(x)
            torch.autograd.backward(torch.cat([part, net(other)]).square().mean())
            optimizer.step()
        return parameters(net)

    seen, what = weights(True, 0.0), "parameters of the checkpointed model"
    numerics.follows(seen, lambda nudge: weights(False, nudge), case["steps"], what, size=1.0)


@law(
    "module-twice",
    "a layer used twice in one pass steps as one that is fed both inputs in one batch",
    domain="rules that read inputs; others see gradients only",
    source="insgd_lab.sensors: several calls before a step are averaged, each weighted by its examples",
    need=reads_inputs,
    draws=lambda spec: {"seed": strategies.seeds, "steps": strategies.steps, "first": st.integers(1, 3)},
)
def module_twice(spec: OptimizerSpec, case: Case) -> None:
    def weights(split: int, nudge: float) -> list[Tensor]:
        net = Net(case["seed"])
        optimizer = build(spec, net)
        for step in range(case["steps"]):
            x = _batch(case["seed"], step, 4, nudge)
            optimizer.zero_grad()
            twice = [net(part) for part in torch.split(x, [split, 4 - split])]
            torch.autograd.backward(torch.cat(twice).square().mean())
            optimizer.step()
        return parameters(net)

    seen, what = weights(case["first"], 0.0), "parameters of a layer used twice"
    numerics.follows(seen, lambda nudge: weights(4, nudge), case["steps"], what, size=1.0)


@law(
    "schedule",
    "a scheduler's learning rate is used at the next step",
    domain="optimizers with the option lr",
    source="a rate captured at construction makes schedulers do nothing",
    need=takes("lr"),
    draws=strategies.usual,
)
def schedule(spec: OptimizerSpec, case: Case) -> None:
    constant, scheduled, script = Layers(case["seed"]), Layers(case["seed"]), Script(case["seed"])
    span = range(case["steps"])
    first, second = build(spec, constant, **case["options"]), build(spec, scheduled, **case["options"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(second, lambda epoch: 1.0 if epoch == 0 else 0.25)
    for optimizer, layers in ((first, constant), (second, scheduled)):
        play(optimizer, layers, script, span)
    numerics.same(parameters(scheduled), parameters(constant), "parameters before the schedule changes anything")
    scheduler.step()
    for optimizer, layers in ((first, constant), (second, scheduled)):
        feed(optimizer, layers, script, case["steps"])
        optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(scheduled.parameters(), constant.parameters(), strict=True)]
    if not all(moved):
        raise LawBroken(f"parameter {moved.index(False)} stepped at a quarter of the rate as at the whole")


@law(
    "own-clock",
    "a parameter counts its own steps: one that gets its first gradient late steps as a fresh one",
    domain="chains that take parameters",
    source="t counts a parameter's own steps; a clock shared by all spoils bias corrections",
    need=every(chain, takes_parameters),
    draws=lambda spec: {**strategies.usual(spec), "late": st.integers(0, 4)},
)
def own_clock(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"])
    optimizer, number = build(spec, layers, **case["options"]), case["late"]
    late = list(layers.parameters())[number]
    for step in range(3):
        feed(optimizer, layers, script, step + 100)
        late.grad = None
        optimizer.step()
    optimizer.zero_grad()
    play(optimizer, layers, script, range(case["steps"]))

    def alone(nudge: float) -> list[Tensor]:
        other = Layers(case["seed"])
        param = list(other.parameters())[number]
        play(build(spec, other, [param], **case["options"]), other, script.but(nudge=nudge), range(case["steps"]))
        return [param.detach().clone()]

    size, what = numerics.largest(parameters(Layers(case["seed"]))[number]), "the parameter whose gradients came late"
    numerics.follows([late], alone, case["steps"], what, size=size)


LAWS = (
    resume, micro_batches, evaluation_between, discarded_loss, cleared_gradients, checkpointing, module_twice, schedule,
    own_clock,
)  # fmt: skip
