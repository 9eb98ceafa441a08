"""Plans: each grid asks for exactly its cells, and shared settings are one run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from insgd_lab.config import ConfigError, RunSpec, StudySpec, load_study, parse_study
from insgd_lab.store import from_json_value, to_json_value
from insgd_lab.studies.planning import make_plan, study_info

COMMON = """
name = "mine"
seeds = [7, 3]
task = { data = "digits", model = "digits-cnn" }
train = { epochs = 2 }
"""
BASE = {"beta": 0.9, "granularity": "layer"}


def study(*arms: str) -> StudySpec:
    return parse_study(tomllib.loads(COMMON + "".join(f"[[arm]]\n{arm}\n" for arm in arms)))


def settings(spec: StudySpec) -> list[tuple[dict[str, Any], str | None]]:
    return [(dict(cell.settings), cell.varied) for cell in spec.cells(spec.arm[0])]


def test_full_crosses_every_axis() -> None:
    spec = study('name = "a"\noptimizer = "insgd-lp"\naxes = { p = [1, inf], beta = [0, 0.9] }')
    assert settings(spec) == [
        ({"p": 1.0, "beta": 0.0}, None),
        ({"p": 1.0, "beta": 0.9}, None),
        ({"p": math.inf, "beta": 0.0}, None),
        ({"p": math.inf, "beta": 0.9}, None),
    ]


def test_zip_walks_the_axes_together() -> None:
    spec = study('name = "a"\noptimizer = "insgd-lp"\ngrid = "zip"\naxes = { p = [1, 2], beta = [0, 0.5] }')
    assert settings(spec) == [({"p": 1.0, "beta": 0.0}, None), ({"p": 2.0, "beta": 0.5}, None)]


def test_one_at_a_time_leaves_the_base_along_each_axis() -> None:
    spec = study(
        'name = "a"\noptimizer = "insgd-lp"\ngrid = "one-at-a-time"\n'
        'axes = { beta = [0, 0.9, 0.99], granularity = ["neuron", "layer"] }'
    )
    assert settings(spec) == [
        (BASE, None),
        ({**BASE, "beta": 0.0}, "beta"),
        ({**BASE, "beta": 0.99}, "beta"),
        ({**BASE, "granularity": "neuron"}, "granularity"),
    ]


def test_a_base_that_the_axis_does_not_list_is_added_to_one_at_a_time() -> None:
    spec = study(
        'name = "a"\noptimizer = { name = "insgd-lp", beta = 0.5 }\ngrid = "one-at-a-time"\naxes = { beta = [0] }'
    )
    assert settings(spec) == [({"beta": 0.5}, None), ({"beta": 0.0}, "beta")]


def test_an_arm_without_axes_is_one_cell_for_each_tuned_value_and_seed() -> None:
    plan = make_plan(study('name = "a"\noptimizer = { name = "sgd", lr = 0.1 }\ntune = { lr = [0.1, 1] }'))
    assert [(row["tune"], row["seed"]) for row in plan.rows] == [
        ({"lr": 0.1}, 7), ({"lr": 0.1}, 3), ({"lr": 1.0}, 7), ({"lr": 1.0}, 3),
    ]  # fmt: skip
    assert [run.seed for run in plan.runs.values()] == [7, 7, 3, 3], "all arms grow together, seed by seed"


def test_settings_reach_the_optimizer_the_task_and_the_training() -> None:
    axes = 'axes = { p = [inf], "task.model.batch_norm" = [true], "task.data.fraction" = [0.5], "train.epochs" = [5] }'
    run = next(iter(make_plan(study(f'name = "a"\noptimizer = "insgd-lp"\n{axes}')).runs.values()))
    assert run.optimizer.options == {"p": math.inf}
    assert run.task.model.options == {"batch_norm": True}
    assert run.task.data.options == {"fraction": 0.5}
    assert run.train.epochs == 5


def test_cells_that_arms_share_are_one_run_with_a_row_in_each() -> None:
    plan = make_plan(
        study(
            'name = "a"\noptimizer = "insgd-lp"\naxes = { p = [1, 2] }',
            'name = "b"\noptimizer = { name = "insgd-lp", p = 2 }\naxes = { beta = [0.9, 0] }',
        )
    )
    assert len(plan.rows) == 8
    assert len(plan.runs) == 6
    shared = {row["run"] for row in plan.rows if row["arm"] == "a"} & {
        row["run"] for row in plan.rows if row["arm"] == "b"
    }
    assert len(shared) == 2


def test_settings_that_are_impossible_together_are_refused() -> None:
    arm = 'name = "a"\noptimizer = "sgd"\naxes = { "train.epochs" = [4, 9], "train.schedule" = ["constant", "multi"] }'
    with pytest.raises(ConfigError, match=r"arm\.a\.axes\.train\.schedule"):
        study(arm)
    schedule = '{ name = "multi-step", milestones = [3] }'
    arm = f'name = "a"\noptimizer = "sgd"\naxes = {{ "train.epochs" = [2, 9], "train.schedule" = [{schedule}] }}'
    with pytest.raises(ConfigError, match="must lie before the last epoch, 2"):
        make_plan(study(arm))


def test_study_json_is_plain_and_holds_the_documented_keys() -> None:
    plan = make_plan(load_study("digits"))
    info = to_json_value(study_info(plan, versions={"python": "3"}, created="now"))
    assert from_json_value(json.loads(json.dumps(info, allow_nan=False))) == from_json_value(info)
    assert set(info) == {
        "name", "title", "description", "compare", "seeds", "task", "classes", "labels", "train", "record", "spec",
        "arms", "plan", "versions", "created",
    }  # fmt: skip
    first = info["arms"][0]
    assert first["base"] == {"beta": 0.9, "eps": 0.01, "granularity": "layer", "dampening": 0.9}
    assert first["fixed"] == {"lr": 1.0}
    assert set(info["plan"][0]) == {"run", "arm", "varied", "settings", "tune", "seed"}
    assert {row["run"] for row in info["plan"]} == set(plan.runs)


def test_the_digits_study_crosses_every_level_with_at_least_four_rates_and_five_seeds() -> None:
    study = load_study("digits")
    assert len(study.seeds) == 5
    assert study.task.model.options["batch_norm"] is False
    for arm in study.arm:
        assert len(arm.tune["lr"]) >= 4


def test_runs_of_many_seeds_have_the_names_that_each_would_have_alone() -> None:
    spec = study('name = "a"\noptimizer = { name = "insgd-lp", p = inf }\naxes = { "train.batch_size" = [16, 128] }')
    for name, run in make_plan(spec).runs.items():
        alone = RunSpec.model_validate(run.model_dump())
        assert name == run.id == alone.id
        assert run == alone


MEASURED = """
import re, resource, sys, time, tomllib
start = time.process_time()
from insgd_lab.config import parse_study
from insgd_lab.studies.planning import make_plan
plan = make_plan(parse_study(tomllib.loads(sys.argv[1])))
seconds = time.process_time() - start
try:  # of this process alone: Linux has its usage begin with what the process that started it had used
    size = int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
except FileNotFoundError:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(plan.runs), seconds, size)
"""


def test_ten_thousand_runs_are_planned_in_two_seconds_and_300_mib() -> None:
    axes = "axes = { beta = { range = [0, 0.9], steps = 100 }, eps = { log_range = [1e-4, 0.1], steps = 20 } }"
    text = COMMON.replace("[7, 3]", "5") + f'[[arm]]\nname = "a"\noptimizer = "insgd-lp"\n{axes}\n'
    result = subprocess.run([sys.executable, "-c", MEASURED, text], capture_output=True, text=True, check=True)
    runs, seconds, size = map(float, result.stdout.split())
    assert runs == 10_000
    assert seconds < 2
    assert size < 300 * 2**20
