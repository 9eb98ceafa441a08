"""What a machine of a cluster says to a job, and how many jobs machines hold; no Ray is needed to know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.config import ResourcesSpec
from insgd_lab.store import StudyFolder
from insgd_lab.studies.jobs import job_of
from insgd_lab.studies.ray_executor import requested, slots

from .made import finish_run, make_study, plan_of

Answer = Callable[..., list[dict[str, Any]]]

STUDY = """
name = "made"
seeds = 2
task = { data = { name = "digits", fraction = 0.1 }, model = "mlp" }
train = { epochs = 1 }
[[arm]]
name = "sgd"
optimizer = "sgd"
"""


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    """Ask a fresh process to train two runs; keywords replace what it is told."""
    plan = plan_of(STUDY)
    make_study(tmp_path / "study", STUDY, finish=False)

    def ask(data: str | None = None, **changed: Any) -> list[dict[str, Any]]:
        job = json.loads(json.dumps(job_of(list(plan.runs.values()))))
        if data is not None:
            job["runs"][0]["spec"]["task"]["data"] = {"name": data, "options": {}}
        asked = {
            "study": str(tmp_path / "study"), "created": "2025-01-01", "device": "cpu", "data_dir": str(tmp_path),
            "loaders": 0, "version": version("insgd-lab"), "directory": str(tmp_path), "job": job, **changed,
        }  # fmt: skip
        code = "import json, sys; from insgd_lab.studies.ray_task import answer; print(json.dumps(answer(json.loads("
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", f"{code}sys.stdin.read()))))"], input=json.dumps(asked), text=True,
            capture_output=True, check=False, env={**os.environ, "RANK": "0", "WORLD_SIZE": "2"},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        events: list[dict[str, Any]] = json.loads(result.stdout)
        return events

    return ask


def test_a_node_that_is_up_to_it_trains(answer: Answer, tmp_path: Path) -> None:
    first, second = plan_of(STUDY).runs
    folder = StudyFolder(tmp_path / "study")
    finish_run(folder.run(first), 0.5)
    before = folder.run(first).info()
    assert answer() == [
        {"event": "ended", "run": first, "status": "done"},
        {"event": "ended", "run": second, "status": "done"},
    ]
    assert folder.run(first).info() == before, "what a lost worker had finished is not trained again"
    assert folder.run(second).info()["threads"] == 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"version": "0.0.1"}, "and the study is run by 0.0.1; install the same on all nodes"),
        (
            {"study": "/nowhere/study"},
            "does not see /nowhere/study/study.json; its folder must be on a disk that all nodes share",
        ),
        ({"created": "2024-12-31"}, "created 2025-01-01; its folder must be on a disk that all nodes share"),
        ({"device": "cuda:77"}, "cannot train on cuda:77"),
        ({"data": "cifar10"}, "lacks what the study needs: CIFAR-10"),
    ],
)
def test_a_node_that_is_not_says_what_it_lacks(answer: Answer, told: dict[str, Any], expected: str) -> None:
    (event,) = answer(**told)
    assert event["event"] == "unfit"
    assert expected in event["reason"]


def test_a_task_asks_for_what_its_run_takes() -> None:
    assert requested(ResourcesSpec(), "cpu") == {"num_cpus": 1, "num_gpus": 0}
    assert requested(ResourcesSpec(), "cuda") == {"num_cpus": 1, "num_gpus": 1}
    demand = ResourcesSpec.model_validate({"cpus": 0.01001, "gpus": 1 / 3, "memory": "1 KiB"})
    assert requested(demand, "cuda") == {"num_cpus": 0.01, "num_gpus": 0.3333, "memory": 1024}


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        ({}, 10),
        ({"cpus": 3}, 2),
        ({"cpus": 0.5}, 20),
        ({"cpus": 8}, 1),
        ({"cpus": 9}, 0),
        ({"gpus": 1}, 3),
        ({"gpus": 0.5}, 6),
        ({"gpus": 0.6}, 3),
        ({"gpus": 2}, 1),
        ({"gpus": 4}, 0),
        ({"memory": 1500}, 3),
        ({"memory": 10000}, 0),
    ],
)
def test_no_task_is_split_between_nodes_or_gpus(demand: dict[str, Any], expected: int) -> None:
    nodes = [{"CPU": 8.0, "GPU": 3.0, "memory": 4000.0}, {"CPU": 2.0, "memory": 2000.0}, {"memory": 9000.0}]
    assert slots(requested(ResourcesSpec.model_validate(demand), "cpu"), nodes) == expected
