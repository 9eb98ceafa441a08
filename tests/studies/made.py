"""Studies that were planned for real and never trained: each run ends as it is told to."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from insgd_lab.config import StudySpec
from insgd_lab.store import RunFolder, StudyFolder
from insgd_lab.studies.planning import Plan, make_plan, study_info

TEXT = """
name = "made"
seeds = 2
task = { data = "digits", model = "mlp" }
train = { epochs = 2 }
[[arm]]
name = "sgd"
optimizer = { name = "sgd", lr = 0.1 }
tune = { lr = [0.1, 1.0] }
[[arm]]
name = "insgd"
optimizer = { name = "insgd-lp", lr = 0.3 }
axes = { p = [1, inf], "task.model.batch_norm" = [false, true] }
"""
# A plugin whose optimizer trains as SGD does, or raises, or kills its process.
FATEFUL = """
import os, signal
import torch
from insgd_lab import register_optimizer

@register_optimizer("fateful")
class Fateful(torch.optim.SGD):
    def __init__(self, model, lr=0.1, fate="lived"):
        super().__init__(model.parameters(), lr=lr)
        self.fate = fate

    def step(self, closure=None):
        if self.fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "raised":
            raise RuntimeError("fate has struck")
        return super().step(closure)
"""
MADE = {
    "seed": 0, "error": None, "versions": {"insgd_lab": "0.1.0", "torch": "2.13.0"}, "commit": "abc", "dirty": False,
    "device": "cpu", "device_name": "Test processor", "threads": 1, "started": "2025-01-01T00:00:00+00:00",
    "finished": "2025-01-01T00:00:02+00:00", "seconds": 2.0, "epochs_done": 2, "diverged_at": None,
}  # fmt: skip


def plan_of(text: str = TEXT) -> Plan:
    return make_plan(StudySpec.model_validate(tomllib.loads(text)))


def make_study(path: Path, text: str = TEXT, finish: bool = True, **info: Any) -> StudyFolder:
    """Write a study; with `finish` all its runs are done, the later in the plan the better."""
    plan, folder = plan_of(text), StudyFolder(path)
    folder.write_info({**study_info(plan, versions={"insgd_lab": "0.1.0"}, created="2025-01-01"), **info})
    if finish:
        for number, run in enumerate(dict.fromkeys(row["run"] for row in plan.rows)):
            finish_run(folder.run(run), number / 100)
    return folder


def finish_run(run: RunFolder, accuracy: float, status: str = "done", **info: Any) -> None:
    rows = [(epoch, 10 * epoch, "val", "accuracy", accuracy + epoch / 1000) for epoch in (1, 2)]
    results = {"final_val_accuracy": rows[-1][-1]}
    run.finish({"id": run.id, **MADE, "status": status, "results": results, **info}, metrics(rows))


def metrics(rows: list[tuple[int, int, str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])


def run_of(folder: StudyFolder, arm: str, seed: int, **settings: Any) -> RunFolder:
    """The run of a row of the plan."""
    rows: list[Mapping[str, Any]] = folder.info()["plan"]
    for row in rows:
        given = {**row["settings"], **row["tune"]}
        if row["arm"] == arm and row["seed"] == seed and all(given[key] == value for key, value in settings.items()):
            return folder.run(row["run"])
    raise LookupError(f"no row of {arm} with {settings}")
