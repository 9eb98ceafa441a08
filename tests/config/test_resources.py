"""What runs ask of a machine: checked like everything else, and no part of what they are."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest

from insgd_lab.config import ConfigError, ResourcesSpec, RunSpec, parse_study
from insgd_lab.studies.planning import make_plan
from insgd_lab.studies.queue import RunQueue

STUDY = tomllib.loads("""
name = "mine"
seeds = 2
task = { data = "digits", model = "mlp" }
train = { epochs = 2, packing = 8 }
[[arm]]
name = "sgd"
optimizer = "sgd"
[[arm]]
name = "adam"
optimizer = "adam"
""")


def study(common: Any = None, sgd: Any = None) -> dict[str, Any]:
    raw = copy.deepcopy(STUDY)
    if common is not None:
        raw["resources"] = common
    if sgd is not None:
        raw["arm"][0]["resources"] = sgd
    return raw


def runs(**tables: Any) -> list[RunSpec]:
    return list(make_plan(parse_study(study(**tables))).runs.values())


def test_an_arms_table_lies_over_the_studys() -> None:
    common, sgd = {"cpus": 2, "memory": "2 GiB"}, {"gpus": 0.5, "cpus": 4}
    found = {run.optimizer.name: run.resources for run in runs(common=common, sgd=sgd)}
    assert found["adam"] == ResourcesSpec.model_validate({"cpus": 2, "memory": 2**31})
    assert found["sgd"] == ResourcesSpec.model_validate({"cpus": 4, "gpus": 0.5, "memory": 2**31})
    assert str(found["sgd"]) == "4 cpus, 0.5 gpus, 2.0GiB of memory"


def test_what_a_run_asks_for_is_not_part_of_its_name() -> None:
    assert [run.id for run in runs(common={"gpus": 2}, sgd={"memory": "1 GB"})] == [run.id for run in runs()]


def test_a_run_that_arms_share_asks_for_what_is_enough_for_each() -> None:
    raw = study(common={"cpus": 2}, sgd={"gpus": 0.5, "memory": 10**9})
    raw["arm"][1] = {"name": "again", "optimizer": "sgd", "resources": {"cpus": 3, "memory": 10}}
    shared = list(make_plan(parse_study(raw)).runs.values())
    assert len(shared) == 2
    assert {run.resources for run in shared} == {
        ResourcesSpec.model_validate({"cpus": 3, "gpus": 0.5, "memory": 10**9})
    }


def test_runs_that_ask_for_different_things_are_not_packed_together() -> None:
    queue = RunQueue()
    for run in runs(sgd={"cpus": 2}):
        queue.add(run)
    assert {run.optimizer.name for run in queue.take()} == {"sgd"}
    assert {run.optimizer.name for run in queue.take()} == {"adam"}
    for run in runs():
        queue.add(run)
    assert {run.optimizer.name for run in queue.take()} == {"sgd", "adam"}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"cpus": 0}, "cpus = 0: expected greater than or equal to 0.01"),
        ({"cpus": 0.009}, "cpus = 0.009: expected greater than or equal to 0.01"),
        ({"cpus": "2"}, 'cpus = "2": expected a number; write 2 without quotes'),
        ({"cpus": float("inf")}, "cpus = inf: expected a finite number"),
        ({"gpus": -1}, "gpus = -1: expected greater than or equal to 0"),
        ({"gpus": 1e-9}, "gpus = 1e-09: expected 0, or at least 0.01 of a GPU"),
        ({"gpus": 1.5}, "gpus = 1.5: expected a share of one GPU, such as 0.5, or a whole number of them"),
        ({"memory": "2 gigs"}, 'memory = "2 gigs": expected bytes, or a size such as "2 GiB"'),
        ({"memory": "much"}, 'memory = "much": expected bytes, or a size such as "2 GiB"'),
        ({"memory": 0}, "memory = 0: expected greater than 0"),
        ({"gpu": 1}, "gpu = 1: unknown key 'gpu'; did you mean 'gpus'?"),
    ],
)
def test_mistakes_are_named_in_the_study_and_in_its_arms(table: dict[str, Any], expected: str) -> None:
    for raw, where in ((study(common=table), "resources"), (study(sgd=table), "arm.sgd.resources")):
        with pytest.raises(ConfigError) as caught:
            parse_study(raw)
        (problem,) = map(str, caught.value.problems)
        assert problem.startswith(f"{where}.{expected}"), problem


def test_all_mistakes_are_listed_at_once() -> None:
    raw = study(common={"cpus": 0}, sgd={"gpus": -1})
    raw["arm"][0]["optimizer"] = {"name": "sgd", "lr": "much"}
    with pytest.raises(ConfigError) as caught:
        parse_study(raw)
    places = {".".join(map(str, problem.path)) for problem in caught.value.problems}
    assert places == {"resources.cpus", "arm.sgd.resources.gpus", "arm.sgd.optimizer.lr"}
