"""The largest stable step size of every rule on a quadratic, by bisection; each size tried is a run like any other.

The task is `least-squares`: a linear layer, a batch that is the whole set, the largest curvature L = 1. A learning
rate is stable if the loss ends below where it started, and never rises above 100 000 times that on the way (closed
forms are about the end; rules whose momentum starts with a whole gradient jump first); losses are means over epochs
of ten steps. From 1 the bracket is widened by factors of 4, then halved in the logarithm until its ends are less than
1 % apart. Each rule is tried from two distances: a limit that belongs to the curvature is the same from both, one
that grows with the distance is a matter of step lengths.

    work_off(StudyFolder("runs/theory/stability"), workers=2)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pandas as pd
import torch

from insgd_lab import registry
from insgd_lab.config import RunSpec
from insgd_lab.experiments.theory.work import Tell, in_parallel, quietly
from insgd_lab.store import StudyFolder, to_json_value
from insgd_lab.training import loop, provenance
from insgd_lab.training.session import Training

__all__ = ["ARMS", "DISTANCES", "Arm", "bisect", "is_stable", "probe", "work_off"]

DISTANCES = (1.0, 10.0)
FEATURES = 10
CONDITION = 100.0
STEPS, EPOCHS = 10, 30
RESOLUTION = 1.01
RISE = 1e5
_FARTHEST = (1e-9, 1e9)


@dataclass(frozen=True)
class Arm:
    """A rule of the registry with options."""

    name: str
    optimizer: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _arms() -> Iterator[Arm]:
    """Every rule of the registry, with and without momentum where it has one."""
    for name in registry.list_optimizers():
        spec = registry.get_optimizer(name)
        if not str(spec.factory).startswith("insgd_lab."):
            continue  # a plugin's rules are its own affair
        rest = {"weight_decay": 0.0} if spec.defaults.get("weight_decay") else {}
        if name == "insgd-lp":
            rest["p"] = 4.0
        if "momentum" in spec.defaults:
            damped = {"dampening": 0.9} if spec.defaults.get("dampening", 0.0) is None else {}
            yield Arm(name, name, {**rest, "momentum": 0.0, **({"dampening": 0.0} if damped else {})})
            yield Arm(f"{name}-momentum", name, {**rest, "momentum": 0.9, **damped})
        elif "betas" in spec.defaults:
            yield Arm(f"{name}-momentum", name, rest)
            yield Arm(name, name, {**rest, "betas": [0.0, 0.999]})
        else:
            yield Arm(name, name, rest)
    yield Arm("sgd-damped", "sgd", {"momentum": 0.9, "dampening": 0.9})
    yield Arm("sgd-nesterov", "sgd", {"momentum": 0.9, "nesterov": True})
    yield Arm("sgd-corrected", "sgd", {"adanorm": 0.95})
    yield Arm("insgd-l2-undamped", "insgd-l2", {"momentum": 0.9, "dampening": 0.0})
    yield Arm("insgd-l2-nesterov", "insgd-l2", {"momentum": 0.9, "dampening": 0.0, "nesterov": True})
    yield Arm("insgd-l2-corrected", "insgd-l2", {"momentum": 0.0, "dampening": 0.0, "adanorm": 0.95})


ARMS: tuple[Arm, ...] = tuple(_arms())


def probe(arm: Arm, distance: float, lr: float) -> RunSpec:
    """The run that tries one learning rate; of rules that read their inputs the step scale is recorded."""
    reads = registry.get_optimizer(arm.optimizer).capabilities.reads_inputs
    return RunSpec.model_validate({
        "task": {
            "data": {"name": "least-squares", "features": FEATURES, "condition": CONDITION, "distance": distance,
                     "steps": STEPS},
            "model": {"name": "linear", "bias": False},
        },
        "train": {"epochs": EPOCHS, "batch_size": FEATURES, "eval_every": EPOCHS},
        "optimizer": {"name": arm.optimizer, "lr": lr, **arm.options},
        "record": {"every": STEPS * EPOCHS - 1 if reads else 0},
        "seed": 0,
    })  # fmt: skip


def is_stable(status: str, metrics: pd.DataFrame, start: float) -> bool:
    """Whether a run ended below the loss that it started with, and never rose to `RISE` times that."""
    losses = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")].sort_values("epoch")["value"]
    return status == "done" and bool(losses.iloc[-1] < start and losses.max() < RISE * start)


@cache
def start_loss(distance: float) -> float:
    """The loss before the first step, which is the same for all rules."""
    training = Training(probe(Arm("sgd", "sgd"), distance, 1.0))
    inputs, answers = next(iter(training.feed.evaluate("val")))
    with torch.no_grad():
        return float(training.objective.loss(training.model(inputs), answers))


def bisect(arm: Arm, distance: float, folder: StudyFolder) -> list[float]:
    """The learning rates tried for one rule from one distance, in order; those finished before are read."""
    tried: list[float] = []

    def stable(lr: float) -> bool:
        spec = probe(arm, distance, lr)
        outcome = loop.train(spec, folder.run(spec.id))
        tried.append(lr)
        return is_stable(outcome.status, outcome.metrics, start_loss(distance))

    low = high = 1.0
    if stable(low):
        while stable(high := 4 * high) and high < _FARTHEST[1]:
            low = high
    else:
        while not stable(low := low / 4) and low > _FARTHEST[0]:
            high = low
    while high / low > RESOLUTION and _FARTHEST[0] < low and high < _FARTHEST[1]:
        middle = float(f"{math.sqrt(low * high):.6g}")
        low, high = (middle, high) if stable(middle) else (low, middle)
    return tried


def work_off(
    folder: StudyFolder,
    *,
    arms: Sequence[Arm] = ARMS,
    distances: Sequence[float] = DISTANCES,
    workers: int = 1,
    tell: Tell = quietly,
) -> None:
    """Search for every limit, going on from what has been tried, and write `study.json`.

    Args:
        folder: of the study.
        arms: the rules.
        distances: where they start from the minimum.
        workers: processes.
        tell: called with how many limits are found, and how many there are.
    """
    jobs = [(folder, arm, distance) for arm in arms for distance in distances]
    folder.write_info(_study(arms, []))  # a study under way can be looked at
    in_parallel(_search, jobs, workers, tell)
    plan = [
        {"arm": arm.name, "settings": {"task.data.distance": distance}, "varied": None, "tune": {"lr": lr}, "seed": 0,
         "run": probe(arm, distance, lr).id}
        for _, arm, distance in jobs for lr in bisect(arm, distance, folder)
    ]  # fmt: skip
    folder.write_info(_study(arms, plan))


def _search(folder: StudyFolder, arm: Arm, distance: float) -> None:
    bisect(arm, distance, folder)


def _study(arms: Sequence[Arm], plan: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What study.json says: an arm a rule, whose axis is the distance; the learning rates tried are its tunes."""
    told = [
        {"name": arm.name, "label": arm.name, "optimizer": arm.optimizer,
         "options": to_json_value({**registry.get_optimizer(arm.optimizer).defaults, **arm.options}),
         "grid": "full", "axes": {"task.data.distance": list(DISTANCES)}, "base": {}, "fixed": {},
         "tune": {"lr": sorted({row["tune"]["lr"] for row in plan if row["arm"] == arm.name})}}
        for arm in arms
    ]  # fmt: skip
    return {
        "name": "theory/stability",
        "title": "The largest stable step size on a quadratic",
        "description": "By bisection, a run for each step size tried; see docs/theory.md.",
        "program": "theory/stability",
        "curvature": 1.0,
        "rise": RISE,
        "start": {str(distance): start_loss(distance) for distance in DISTANCES},
        "seeds": [0],
        "classes": None,
        "arms": told,
        "plan": list(plan),
        "versions": dict(provenance.versions()),
    }
