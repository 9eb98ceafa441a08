"""What a machine of a cluster says to a job, and how many jobs machines hold; no Ray is needed to know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from insgd_lab.config import ResourcesSpec
from insgd_lab.store import StudyFolder
from insgd_lab.studies import ray_executor
from insgd_lab.studies.executor import ExecutionError
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


class LostRay:
    """A Ray whose cluster is lost at the given call."""

    def __init__(self, call: str, error: Exception) -> None:
        self.exceptions = SimpleNamespace(
            **{name: type(name, (RayError,), {}) for name in GONE}, RayError=RayError, RayTaskError=RayTaskError
        )
        self.lost, self.error = call, error

    def _come_to(self, call: str) -> None:
        if call == self.lost:
            raise self.error

    def init(self, *_: Any, **__: Any) -> None:
        """Join a cluster that is still there."""

    def shutdown(self) -> None:
        """Leave it."""

    def nodes(self) -> list[dict[str, Any]]:
        self._come_to("nodes")
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **_: Any) -> Any:
        return lambda function: self

    def options(self, **_: Any) -> Any:
        def start(asked: dict[str, Any]) -> str:
            self._come_to("remote")
            return str(asked["job"]["runs"][0]["run"])

        return SimpleNamespace(remote=start)

    def wait(self, tasks: list[str], **_: Any) -> tuple[list[str], list[str]]:
        self._come_to("wait")
        return tasks, []

    def get(self, task: str) -> list[dict[str, Any]]:
        self._come_to("get")
        return [{"event": "ended", "run": task, "status": "done"}]


GONE = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError, RuntimeError):
    """As Ray's: of the kind of what the task raised, too."""

    ip = "10.0.0.2"


@pytest.mark.parametrize("error", [ConnectionError("the head is gone"), RuntimeError("the head is gone")])
@pytest.mark.parametrize("call", ["nodes", "remote", "wait", "get"])
def test_a_cluster_that_is_lost_ends_the_study_as_one_that_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    folder = make_study(tmp_path / "study", STUDY, finish=False)
    ray = LostRay(call, error)
    monkeypatch.setattr(ray_executor, "require_ray", lambda: ray)
    with pytest.raises(ExecutionError, match=r"^the Ray cluster is lost: the head is gone; the same command goes on$"):
        ray_executor.execute(plan_of(STUDY), folder, address="auto")
    ray.lost = "never"
    assert ray_executor.execute(plan_of(STUDY), folder, address="auto").done == 2


def test_an_error_of_a_node_is_not_taken_for_a_lost_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study(tmp_path / "study", STUDY, finish=False)
    monkeypatch.setattr(ray_executor, "require_ray", lambda: LostRay("get", RayTaskError("no torch here")))
    with pytest.raises(ExecutionError, match=r"a node \(10\.0\.0\.2\) cannot train runs: no torch here"):
        ray_executor.execute(plan_of(STUDY), folder, address="auto")
