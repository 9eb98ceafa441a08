"""NLMS as projections in the plane (INSGD Figure 1): two equations d = uᵀw, taken in turn, and where each step leads.

    work_off(StudyFolder("runs/theory/projection"))

Equation 8 says that a step with μ = 1 is the orthogonal projection of w onto the line d = uᵀw of the present sample, so
that the weights go from line to line towards the point that all have in common. Every iterate of the registry's `nlms`
on a linear layer is recorded, for μ = 1 and for steps that stop short of the line or go beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from insgd_lab import registry
from insgd_lab.experiments.theory.work import Tell, quietly
from insgd_lab.store import StudyFolder, run_id, to_json_value
from insgd_lab.training import provenance
from insgd_lab.training.progress import now

__all__ = ["RATES", "iterates", "work_off"]

_REVISION = 1
RATES = (0.5, 1.0, 1.5)
"""μ: half the way to the line, onto it, and as far beyond it as it was away."""
STEPS = 12
START = (-1.0, 1.5)
SOLUTION = (1.0, 0.5)
INPUTS = ((1.0, 0.3), (0.4, 1.0))
"""u of the two equations; their answers are those of the solution."""


def iterates(rate: float, steps: int = STEPS) -> pd.DataFrame:
    """The weights before the first step and after each, and the sample that it saw, as `metrics.parquet` has them.

    Returns:
        Columns epoch, step, split, metric, value: w0 and w1 at every step from 0, and u0, u1 and d from 1; float64.
    """
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    inputs, solution = (torch.tensor(values, dtype=torch.float64) for values in (INPUTS, SOLUTION))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([START]))
    optimizer = registry.create_optimizer("nlms", model, lr=rate, eps=0.0)
    rows = _rows(0, {"w": model.weight[0]})
    for step in range(1, steps + 1):
        sample = inputs[(step - 1) % len(inputs)]
        answer = sample @ solution
        optimizer.zero_grad()
        (0.5 * (model(sample[None]) - answer) ** 2).sum().backward()
        optimizer.step()
        rows += _rows(step, {"w": model.weight[0], "u": sample, "d": answer})
    return pd.DataFrame.from_records(rows, columns=["epoch", "step", "split", "metric", "value"])


def _rows(step: int, values: Mapping[str, Tensor]) -> list[tuple[int, int, str, str, float]]:
    named = {
        name if value.dim() == 0 else f"{name}{k}": float(part)
        for name, value in values.items()
        for k, part in enumerate(value.detach().reshape(-1))
    }
    return [(step, step, "train", name, value) for name, value in named.items()]


def work_off(folder: StudyFolder, *, workers: int = 1, tell: Tell = quietly) -> None:
    """Record what has not been recorded yet, and write `study.json`; it takes a moment, in this process."""
    folder.write_info(_study())
    for done, rate in enumerate(RATES):
        tell(done, len(RATES))
        run = folder.run(run_id(_spec(rate)))
        if run.is_finished:
            continue
        with run.locked():
            run.set_damage_aside()
            run.finish(_info(rate), iterates(rate))
    tell(len(RATES), len(RATES))


def _spec(rate: float) -> dict[str, Any]:
    entry = registry.get_optimizer("nlms")
    spec: dict[str, Any] = to_json_value({
        "program": "theory/projection", "revision": _REVISION, "steps": STEPS, "start": START, "solution": SOLUTION,
        "inputs": INPUTS, "seed": 0,
        "optimizer": {"name": entry.name, "options": {"lr": rate, "eps": 0.0}, "revision": entry.revision},
    })  # fmt: skip
    return spec


def _info(rate: float) -> dict[str, Any]:
    commit, dirty = provenance.commit()
    spec = _spec(rate)
    return {
        "id": run_id(spec), "spec": spec, "seed": 0, "status": "done", "error": None,
        "versions": dict(provenance.versions()), "commit": commit, "dirty": dirty, "device": "cpu",
        "device_name": provenance.device_name("cpu"), "threads": torch.get_num_threads(), "started": now(),
        "finished": now(), "epochs_done": STEPS, "diverged_at": None, "parameters": 2,
    }  # fmt: skip


def _study() -> dict[str, Any]:
    arm = {
        "name": "nlms", "label": "NLMS", "optimizer": "nlms", "options": {"eps": 0.0}, "grid": "full",
        "axes": {"lr": list(RATES)}, "base": {}, "tune": {}, "fixed": {},
    }  # fmt: skip
    plan = [
        {"arm": "nlms", "settings": {"lr": rate}, "varied": None, "tune": {}, "seed": 0, "run": run_id(_spec(rate))}
        for rate in RATES
    ]
    return {
        "name": "theory/projection",
        "title": "NLMS as projections in the plane",
        "description": "Two equations taken in turn; see docs/theory.md.",
        "program": "theory/projection",
        "seeds": [0],
        "classes": None,
        "arms": [arm],
        "plan": plan,
        "versions": dict(provenance.versions()),
    }
