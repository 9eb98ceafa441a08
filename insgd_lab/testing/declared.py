"""Measured equals declared: what a rule publishes of its gains is what it does."""

from __future__ import annotations

import numpy as np
import torch

from insgd_lab.recorders import Recorder
from insgd_lab.registry import OptimizerSpec
from insgd_lab.testing import strategies
from insgd_lab.testing.construction import build
from insgd_lab.testing.law import Case, LawBroken, chain, every, law
from insgd_lab.testing.problems import Layers, Script, play

__all__ = ["LAWS"]

GAINS = ("step_scale", "norm_gain", "trust_ratio", "lsalr_gain")
"""The recorder's quantities that multiply a gradient."""


@law(
    "measured-equals-declared",
    "lr times the product of the recorded gains is the measured ||step|| / ||g||",
    domain="chains with scalar gains; no momentum, no decay, granularity layer; parameters large beside roundings",
    source="a recorder that tells something else than what happens is worse than none",
    need=every(
        chain,
        lambda spec: None if spec.capabilities.scalar_gain else "its gains are no scalars",
        lambda spec: (
            "its input powers may be one a channel, and no option granularity makes them one a layer"
            if spec.capabilities.reads_inputs and "granularity" not in spec.defaults
            else None
        ),
    ),
    draws=lambda spec: {
        "seed": strategies.seeds,
        "steps": strategies.steps,
        "lr": strategies.rates,
        "options": strategies.options(spec, "beta", "eps", adanorm=(None, 0.9), damping=("log", "additive")),
    },
)
def measured_equals_declared(spec: OptimizerSpec, case: Case) -> None:
    layers, script = Layers(case["seed"]), Script(case["seed"])
    bare = {"momentum": 0.0, "weight_decay": 0.0, "granularity": "layer", "lr": case["lr"]}
    optimizer = build(spec, layers, **{**case["options"], **bare})
    with Recorder(layers, optimizer, every=1) as recorder:
        play(optimizer, layers, script, range(case["steps"]))
    table = recorder.frame().pivot_table(
        index=["step", "parameter"], columns="quantity", values="value", observed=True, dropna=False
    )
    gains = [table[name].fillna(1.0) for name in GAINS if name in table]
    declared = case["lr"] * np.prod(np.array([np.ones(len(table)), *gains]), axis=0)
    measured = table["effective_step"].to_numpy()
    # The frame is in float32; before it, the step was lost in part to the weights' own rounding.
    narrow, wide = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
    slack = (len(gains) + 3) * narrow + 8 * wide / table["relative_update"].to_numpy()
    wrong = ~(np.abs(measured / declared - 1) <= slack)
    if wrong.any():
        worst = int(np.argmax(wrong))
        step, name = table.index[worst]
        raise LawBroken(
            f"{name}, step {step}: seen ||step|| / ||g|| = {measured[worst]:.9g}, declared {declared[worst]:.9g}"
        )


LAWS = (measured_equals_declared,)
