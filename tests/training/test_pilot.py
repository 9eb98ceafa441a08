"""A pilot times what a run does, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from insgd_lab import registry
from insgd_lab.config import RunSpec, parse_run
from insgd_lab.training.pilot import Pace, pilot

NAP = 0.02


class Sleepy(torch.optim.SGD):
    """Takes its time at each step."""

    def __init__(self, model: torch.nn.Module, **options: Any) -> None:
        super().__init__(model.parameters(), lr=1e-3)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Sleep."""
        time.sleep(NAP)


@pytest.fixture
def sleepy(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(registry.get_optimizer("sgd"), factory=Sleepy)
    monkeypatch.setitem(registry._optimizers._specs, "sgd", spec)


def run(**train: Any) -> RunSpec:
    task = {"data": {"name": "digits", "fraction": 0.1}, "model": {"name": "mlp", "hidden": [8]}}
    return parse_run({"task": task, "train": {"epochs": 3, **train}, "optimizer": "sgd"})


@pytest.mark.parametrize(("size", "steps"), [(16, 8), (200, 1)], ids=["steps", "one-step-an-epoch"])
def test_a_step_takes_what_its_optimizer_takes(sleepy: None, size: int, steps: int) -> None:
    pace = pilot(run(batch_size=size, schedule="cosine"))
    assert pace.steps == steps
    assert NAP <= pace.step < 5 * NAP
    assert 0 < pace.evaluation < 1
    assert 0 < pace.start < 1


def test_a_run_is_its_start_its_steps_and_its_evaluations() -> None:
    pace = Pace(start=1.0, step=0.1, steps=20, evaluation=5.0)
    assert pace.seconds(epochs=7, eval_every=3) == pytest.approx(1 + 7 * 20 * 0.1 + 3 * 5)


def test_a_pilot_that_diverges_is_timed_as_well() -> None:
    spec = parse_run({**run(batch_size=16).model_dump(), "optimizer": {"name": "sgd", "lr": 1e30}})
    assert pilot(spec).step > 0


def test_a_pilot_changes_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    pilot(run(batch_size=16))
    assert torch.equal(torch.rand(4), expected)
