"""A study that was never trained: files as the store writes them, with numbers from closed forms.

`build_study` writes a miniature of the digits study: INSGD one factor at a time, p x granularity in full, SGD
and Adam, each crossed with learning rates; too large rates diverge, ε is inert, one run can be made to fail.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.store import RunFolder, StudyFolder, run_id

RATES = (0.03, 0.1, 0.3, 1.0)
AXES = {
    "beta": [0.0, 0.9, 0.99],
    "eps": [0.001, 0.01, 0.1],
    "granularity": ["layer", "neuron", "channel"],
    "dampening": [0.0, 0.9],
}
BASE = {"beta": 0.9, "eps": 0.01, "granularity": "layer", "dampening": 0.9}
LAYERS = ("conv1.weight", "conv2.weight", "conv3.weight", "fc.weight")


def arms(rates: Sequence[float] = RATES) -> list[dict[str, Any]]:
    def arm(name: str, optimizer: str, **fields: Any) -> dict[str, Any]:
        return {
            "name": name, "label": name, "optimizer": optimizer, "options": {"lr": fields["fixed"]["lr"]},
            "grid": "one-at-a-time", "axes": {}, "base": {}, "tune": {"lr": list(rates)}, **fields,
        }  # fmt: skip

    full = {"p": [1, 2, "inf"], "granularity": ["layer", "neuron", "channel"]}
    return [
        arm("insgd", "insgd-lp", label="INSGD, one at a time", axes=AXES, base=BASE, fixed={"lr": 0.3}),
        arm("insgd-norms", "insgd-lp", label="INSGD, p × granularity", grid="full", axes=full,
            base={"p": 2, "granularity": "layer"}, fixed={"lr": 0.3}),
        arm("sgd", "sgd", label="SGD", axes={"dampening": [0.0, 0.9]}, base={"dampening": 0.0},
            fixed={"lr": 0.1}),
        arm("adam", "adam", label="Adam", tune={"lr": [rate / 30 for rate in rates]}, fixed={"lr": 0.1 / 30}),
    ]  # fmt: skip


def cells(arm: Mapping[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    if arm["grid"] == "full":
        return [
            (None, dict(zip(arm["axes"], values, strict=True))) for values in itertools.product(*arm["axes"].values())
        ]
    moved = [
        (axis, {**arm["base"], axis: value})
        for axis, values in arm["axes"].items()
        for value in values
        if value != arm["base"][axis]
    ]
    return [(None, dict(arm["base"])), *moved]


def best_rate(optimizer: str, settings: Mapping[str, Any]) -> float:
    """Where the bowl of error over log-rate has its lowest point."""
    rate = {"insgd-lp": 0.3, "sgd": 0.1}.get(optimizer, 0.1 / 30)
    rate *= {1: 1.0, 2: 1.0, "inf": 0.1}.get(settings.get("p", 2), 1.0)
    return rate * (0.3 if settings.get("dampening") == 0.0 and optimizer == "insgd-lp" else 1.0)


def error_at_best(optimizer: str, settings: Mapping[str, Any]) -> float:
    error = {"insgd-lp": 0.021, "sgd": 0.027}.get(optimizer, 0.024)
    error += {0.0: 0.004, 0.99: 0.002}.get(settings.get("beta", 0.9), 0.0)
    return error + {"neuron": 0.003, "channel": 0.006}.get(settings.get("granularity", "layer"), 0.0)


def metrics(
    optimizer: str, settings: Mapping[str, Any], rate: float, seed: int, epochs: int
) -> tuple[pd.DataFrame, int | None]:
    """Metrics of one run and the epoch in which it diverged, if it did. ε changes nothing."""
    words = {name: value for name, value in settings.items() if name != "eps"}
    rng = np.random.default_rng(int(run_id({"o": optimizer, "s": words, "rate": rate, "seed": seed}), 16))
    distance = math.log10(rate / best_rate(optimizer, settings))
    diverged = int(rng.integers(1, 4)) if distance > 0.9 else None
    final = error_at_best(optimizer, settings) + 0.03 * distance**2 + rng.normal(0, 0.002) + 0.001 * seed
    rows = []
    for epoch in range(1, (diverged or epochs) + 1):
        error = final + (0.9 - final) * math.exp(-1.2 * epoch)
        values = {
            ("train", "loss"): 3 * error if epoch != diverged else math.nan,
            ("train", "accuracy"): 1 - error,
            ("train", "lr"): rate,
        }
        if epoch != diverged:
            values |= {
                ("val", "loss"): 3.3 * error,
                ("val", "accuracy"): 1 - error - 0.001,
                ("test", "loss"): 3.5 * error,
                ("test", "accuracy"): 1 - error * rng.uniform(0.97, 1.03),
            }
        rows += [(epoch, 20 * epoch, split, metric, value) for (split, metric), value in values.items()]
    return pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"]), diverged


def layers(optimizer: str, settings: Mapping[str, Any], rate: float, steps: int) -> pd.DataFrame:
    rows = []
    for step in range(1, steps + 1, 10):
        for k, name in enumerate(LAYERS):
            power = 50.0 * 3**k * (1 + 0.5 * math.tanh(step / 60))
            scale = 1 / math.log(power) if optimizer.startswith("insgd") else 1.0
            values = {"grad_norm": 1 / step, "update_norm": rate / step, "effective_step": rate * scale}
            if optimizer.startswith("insgd"):
                values |= {"input_power": power, "step_scale": scale, "clipped": 0.0}
            rows += [(step, name, quantity, value) for quantity, value in values.items()]
            rows.append((step, name.replace("weight", "bias"), "effective_step", rate))
    return pd.DataFrame(rows, columns=["step", "parameter", "quantity", "value"])


def build_study(
    path: Path,
    *,
    seeds: int = 3,
    epochs: int = 6,
    rates: Sequence[float] = RATES,
    steps: int = 120,
    failed: int = 1,
    missing: int = 0,
    fields: Mapping[str, Any] | None = None,
    arm_list: Sequence[Mapping[str, Any]] | None = None,
) -> StudyFolder:
    """Write a study; the last planned `missing` runs are not started, `failed` of Adam's have failed."""
    study, plan = StudyFolder(path), []
    for arm in arm_list or arms(rates):
        for varied, settings in cells(arm):
            for rate in arm["tune"].get("lr", [None]):
                for seed in range(seeds):
                    tune = {} if rate is None else {"lr": rate}
                    full = {**arm["options"], **settings, **tune}
                    if arm["name"] == "insgd":
                        full |= {"p": 2}
                    if arm["name"] == "insgd-norms":
                        full |= {name: value for name, value in BASE.items() if name not in settings}
                    run = run_id({"optimizer": arm["optimizer"], **full, "seed": seed})
                    plan.append(
                        {
                            "run": run,
                            "arm": arm["name"],
                            "varied": varied,
                            "settings": settings,
                            "tune": tune,
                            "seed": seed,
                        }
                    )
                    if not study.run(run).exists:
                        write_run(study.run(run), arm["optimizer"], full, seed, epochs, steps)
    for row in plan[len(plan) - missing :]:
        folder = study.run(row["run"])
        for file in folder.path.iterdir():
            file.unlink()
    for row in [row for row in plan if row["arm"] == "adam"][:failed]:
        folder = study.run(row["run"])
        folder.write_info({**folder.info(), "status": "failed", "error": "RuntimeError: worker 1 died"})
    task = {"data": {"name": "digits"}, "model": {"name": "digits-cnn"}}
    train = {"epochs": epochs, "batch_size": 64}
    study.write_info(
        {
            "name": "digits", "title": "INSGD on handwritten digits", "description": "A synthetic miniature.",
            "compare": None, "seeds": list(range(seeds)), "task": task, "classes": 10, "train": train,
            "record": {"every": 10},
            "spec": {}, "arms": list(arm_list or arms(rates)), "plan": plan,
            "versions": {"insgd_lab": "0.1.0", "torch": "2.13.0"}, "created": "2025-01-01T00:00:00+00:00",
            **(fields or {}),
        }
    )  # fmt: skip
    return study


def write_run(
    folder: RunFolder, optimizer: str, options: Mapping[str, Any], seed: int, epochs: int, steps: int
) -> None:
    frame, diverged = metrics(optimizer, {k: v for k, v in options.items() if k != "lr"}, options["lr"], seed, epochs)
    folder.write_metrics(frame)
    folder.write_layers_part(0, layers(optimizer, options, options["lr"], steps))
    folder.merge_layers()
    folder.write_info(
        {
            "id": folder.id, "spec": {}, "seed": seed, "error": None,
            "status": "diverged" if diverged else "done",
            "diverged_at": {"epoch": diverged, "step": 20 * diverged - 3} if diverged else None,
            "versions": {"insgd_lab": "0.1.0", "torch": "2.13.0", "python": "3.11"},
            "commit": "abc123", "dirty": False,
            "device": "cpu", "device_name": "Test processor", "threads": 1, "started": "2025-01-01T00:00:00+00:00",
            "finished": "2025-01-01T00:00:02+00:00", "seconds": 2.0, "images_per_second": 4000.0,
            "epochs_done": diverged or epochs, "parameters": 5000,
        }
    )  # fmt: skip
    folder.remove_scratch()
