"""Whatever is wrong with a study file, the answer is a plan or a `ConfigError`, never another exception."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from insgd_lab.config import ConfigError, parse_study
from insgd_lab.store import to_json_value
from insgd_lab.studies.planning import Plan, study_info
from insgd_lab.studies.search import next_plan

DIGITS = {**tomllib.loads(resources.files("insgd_lab.experiments").joinpath("digits.toml").read_text()), "seeds": 1}
MULTI_STEP = {"name": "multi-step", "milestones": [2]}
RICH = {
    **{key: value for key, value in DIGITS.items() if key not in ("arm", "seeds")},
    "search": {"trials": 3, "seeds": 2, "final_seeds": 2, "method": "random", "seed": 1},
    "analysis": {"primary": {"test": "welch", "arm": "own", "baseline": "random", "margin": 0.5}},
    "arm": [
        {
            "name": "random", "optimizer": "insgd-lp", "grid": "random", "samples": 3, "sample_seed": 2,
            "axes": {"beta": [0, 0.5, 0.9], "p": {"range": [1, 3]}, "train.batch_size": {"range": [8, 64]}},
            "exclude": [{"beta": 0.5}], "include": [{"beta": 0.1}], "search": {"lr": {"log_range": [0.1, 1]}},
        },
        {
            "name": "own", "optimizer": "sgd", "task": {"model": {"name": "mlp", "hidden": [4]}},
            "train": {"epochs": 3, "schedule": {"name": "cosine"}}, "grid": "one-at-a-time",
            "axes": {"task.model.hidden": [[4], [8]], "train.epochs": [3, 2]}, "include": [{"train.epochs": 5}],
        },
    ],
}  # fmt: skip
JUNK = [
    3, -1, 0, 0.5, math.nan, math.inf, 10**400, True, "junk", "", "constant", [], [1, 2], ["sgd"], [["a"], {}], {},
    {"a": 1}, {"name": "sgd"}, MULTI_STEP, ["constant", MULTI_STEP], [0.1, 1, "a", True], datetime.date(2020, 1, 1),
    {"name": "cosine", "warmup": 99}, "inverse-sqrt", {"range": [0, 0.5]}, {"log_range": [0.1, 1], "steps": 3},
    {"range": [8, 64]}, {"range": "junk"}, {"log_range": [-1, 1]}, [{"lr": 0.1}], [{"beta": 0.0}], {"epochs": 3},
    {"model": "mlp"}, {"lr": {"range": [0.1, 1]}}, {"data": {"fraction": 0.5}}, "random", "zip", "one-at-a-time",
]  # fmt: skip
KEYS = [
    "junk", "", "name", "options", "axes", "tune", "lr", "eps", "p", "train", "task.", "train.", "train.schedule",
    "train.epochs", "train.augment", "task.model.batch_norm", "task.data.fraction", "task.model.hidden", "task.data",
    "train.packing", "packing", "accumulate", "clip_norm", "init_from", "task.init_from.path", "grid", "samples",
    "sample_seed", "include", "exclude", "search", "task", "trials", "seeds", "final_seeds", "metric", "method",
    "beta", "train.batch_size",
]  # fmt: skip


def tables(value: Any) -> Iterator[Any]:
    """Every table and list in `value`, from the top."""
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tables(inner)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The digits study, or a rich one, with one to three entries dropped, replaced, renamed or added."""
    study = copy.deepcopy(draw(st.sampled_from([DIGITS, RICH])))
    for _ in range(draw(st.integers(1, 3))):
        table = draw(st.sampled_from(list(tables(study))))
        keys = list(table) if isinstance(table, dict) else list(range(len(table)))
        deed = draw(st.sampled_from(["drop", "replace", "rename", "add"]))
        junk = copy.deepcopy(draw(st.sampled_from(JUNK)))
        if deed == "add" or not keys:
            table.append(junk) if isinstance(table, list) else table.update({draw(st.sampled_from(KEYS)): junk})
            continue
        key = draw(st.sampled_from(keys))
        if deed == "replace":
            table[key] = junk
        else:
            value = table.pop(key)
            if deed == "rename" and isinstance(table, dict):
                table[draw(st.sampled_from(KEYS))] = value
    return study


def planned(study: dict[str, Any]) -> Plan:
    plan = next_plan(parse_study(study))
    json.dumps(to_json_value(study_info(plan, versions={}, created="now")), allow_nan=False)
    return plan


def with_arm(**changes: Any) -> dict[str, Any]:
    return {**DIGITS, "arm": [{"name": "a", "optimizer": "sgd", **changes}]}


@example({**DIGITS, "arm": 3})
@example({**DIGITS, "arm": ["sgd"]})
@example({**DIGITS, "arm": [DIGITS["arm"][0], 7]})
@example(with_arm(optimizer={"name": "sgd", "lr": 10**400}))
@example(with_arm(optimizer=[], axes={"train.schedule": [[]]}))
@example(with_arm(axes={"lr": [datetime.date(2020, 1, 1)]}))
@given(mutated())
@budget(max_examples=300)
def test_a_study_file_is_planned_or_refused(study: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        planned(study)


def test_a_schedule_axis_is_written_and_compared_as_in_the_study_file() -> None:
    constant = {"name": "constant"}
    plan = planned(with_arm(grid="one-at-a-time", axes={"train.schedule": [constant, MULTI_STEP]}))
    whole = {**MULTI_STEP, "gamma": 0.1}
    assert [row["settings"] for row in plan.rows] == [{"train.schedule": "constant"}, {"train.schedule": whole}]
    info = study_info(plan, versions={}, created="now")
    assert info["arms"][0]["base"] == {"train.schedule": "constant"}
    assert info["arms"][0]["axes"] == {"train.schedule": ["constant", whole]}


def test_levels_over_the_task_are_in_the_types_of_their_options() -> None:
    plan = planned(with_arm(grid="one-at-a-time", axes={"task.data.fraction": [1, 0.5]}))
    assert json.dumps([row["settings"]["task.data.fraction"] for row in plan.rows]) == "[1.0, 0.5]"


def test_a_level_listed_twice_in_other_words_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'arm\.a\.axes\.train\.schedule = "constant": is listed twice'):
        planned(with_arm(axes={"train.schedule": ["constant", {"name": "constant"}]}))


def test_training_settings_are_judged_together() -> None:
    axes = {"train.epochs": [3, 9], "train.schedule": ["constant", {"name": "multi-step", "milestones": [5]}]}
    study = {**with_arm(axes=axes), "train": {"epochs": 9}}
    with pytest.raises(ConfigError, match=r"must lie before the last epoch, 3"):
        planned(study)
    study = with_arm(axes={**axes, "train.epochs": [9, 8]}, grid="zip")
    assert len(planned({**study, "train": {"epochs": 9}}).runs) == 2


def test_the_rich_study_is_valid_so_that_its_mutations_reach_far() -> None:
    assert len(planned(RICH).runs) == (4 * 3 + 4 * 3) * 2
