"""How the workers of one machine share its cores and GPUs; no GPU is needed to know."""

from __future__ import annotations

import tomllib

import pytest

from insgd_lab.config import ResourcesSpec, parse_study
from insgd_lab.studies.placement import demand_of, device_of, gpu_slots, worker_count
from insgd_lab.studies.planning import make_plan


@pytest.mark.parametrize(
    ("cpus", "cores", "expected"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (16, 8, 1), (0.5, 2, 4), (0.1, 2, 20)]
)
def test_on_processors_there_are_as_many_workers_as_have_their_cores(cpus: float, cores: int, expected: int) -> None:
    assert worker_count(ResourcesSpec(cpus=cpus, gpus=1), "cpu", cores=cores, gpus=4, runs=99) == expected


@pytest.mark.parametrize(
    ("gpus", "there", "expected"),
    [(0, 4, 4), (1, 4, 4), (2, 4, 2), (3, 4, 1), (8, 4, 1), (0.5, 4, 8), (0.3, 4, 12), (0.7, 4, 4), (0.1, 1, 10)],
)
def test_on_gpus_there_are_as_many_workers_as_have_their_share(gpus: float, there: int, expected: int) -> None:
    assert worker_count(ResourcesSpec(cpus=64, gpus=gpus), "cuda", cores=2, gpus=there, runs=99) == expected


def test_there_are_no_more_workers_than_runs() -> None:
    assert worker_count(ResourcesSpec(cpus=0.01), "cpu", cores=64, gpus=0, runs=3) == 3
    assert worker_count(ResourcesSpec(gpus=0.01), "cuda", cores=64, gpus=8, runs=3) == 3
    assert worker_count(ResourcesSpec(), "cpu", cores=64, gpus=0, runs=0) == 1


def test_a_gpu_that_is_named_is_the_only_one() -> None:
    assert worker_count(ResourcesSpec(gpus=0.5), "cuda:1", cores=64, gpus=4, runs=99) == 2
    assert {device_of(worker, "cuda:1", gpus=4) for worker in range(8)} == {"cuda:1"}


def test_workers_take_the_gpus_in_turn() -> None:
    devices = [device_of(worker, "cuda", gpus=3) for worker in range(7)]
    assert devices == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert device_of(5, "cuda", gpus=1) == "cuda"
    assert device_of(5, "cpu", gpus=3) == "cpu"


def test_no_run_is_split_between_two_gpus() -> None:
    assert gpu_slots(3, 0.6) == 3
    assert gpu_slots(0, 0.6) == 0


def test_the_greediest_run_counts() -> None:
    raw = tomllib.loads("""
        name = "mine"
        seeds = 1
        task = { data = "digits", model = "mlp" }
        train = { epochs = 2 }
        resources = { cpus = 2 }
        [[arm]]
        name = "sgd"
        optimizer = "sgd"
        resources = { gpus = 0.5 }
        [[arm]]
        name = "adam"
        optimizer = "adam"
        resources = { cpus = 3, memory = "1 KiB" }
    """)
    whole = demand_of(make_plan(parse_study(raw)).runs.values())
    assert whole == ResourcesSpec.model_validate({"cpus": 3, "gpus": 0.5, "memory": 1024})
    assert demand_of([]) == ResourcesSpec()
