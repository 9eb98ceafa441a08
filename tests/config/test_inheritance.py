"""Studies over a base, arms over their study, and settings over both: what is said last holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from insgd_lab.config import ConfigError, StudySpec, load_study, parse_study
from insgd_lab.config.merging import merged, merged_study
from insgd_lab.studies.planning import make_plan, study_info

BASE = """
name = "base"
title = "Of the base"
seeds = 5
[task]
data = "digits"
model = { name = "digits-cnn", batch_norm = true }
[train]
epochs = 4
schedule = { name = "multi-step", milestones = [2] }
[[arm]]
name = "sgd"
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
tune = { lr = [0.1, 0.3] }
[[arm]]
name = "adam"
optimizer = "adam"
"""
CHILD = """
base = "base.toml"
name = "child"
seeds = [3]
[task.model]
batch_norm = false
[train]
epochs = 6
[[arm]]
name = "insgd"
optimizer = "insgd-lp"
[[arm]]
name = "sgd"
optimizer = { momentum = 0.5 }
tune = { lr = [0.1] }
"""


@pytest.mark.parametrize(
    ("beneath", "over", "expected"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        (
            {"model": {"name": "mlp", "hidden": [4]}},
            {"model": {"hidden": [8]}},
            {"model": {"name": "mlp", "hidden": [8]}},
        ),
        ({"model": {"name": "mlp", "hidden": [4]}}, {"model": {"name": "vit"}}, {"model": {"name": "vit"}}),
        ({"model": {"name": "mlp", "hidden": [4]}}, {"model": "vit"}, {"model": "vit"}),
        ({"model": "mlp"}, {"model": {"hidden": [8]}}, {"model": {"name": "mlp", "hidden": [8]}}),
        (
            {"model": {"name": "mlp", "options": {"hidden": [4]}}},
            {"model": {"batch_norm": True}},
            {"model": {"name": "mlp", "hidden": [4], "batch_norm": True}},
        ),
        ({"init_from": "a.pt"}, {"init_from": {"frozen": ["x"]}}, {"init_from": {"path": "a.pt", "frozen": ["x"]}}),
        ({"lr": {"range": [0, 1], "steps": 3}}, {"lr": {"log_range": [1, 2]}}, {"lr": {"log_range": [1, 2]}}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_tables_merge_and_all_else_replaces(beneath: Any, over: Any, expected: Any) -> None:
    assert merged(beneath, over) == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "child.toml").write_text(CHILD)
    return tmp_path


def test_a_study_lies_over_its_base(folder: Path) -> None:
    study = load_study(folder / "child.toml")
    assert (study.name, study.title, study.seeds) == ("child", "Of the base", [3])
    assert study.task.model.options == {"batch_norm": False}
    assert (study.train.epochs, study.train.schedule.milestones) == (6, [2])
    assert [arm.name for arm in study.arm] == ["sgd", "adam", "insgd"]
    assert study.arm[0].optimizer.options == {"lr": 0.1, "momentum": 0.5}
    assert study.arm[0].tune == {"lr": [0.1]}


def test_a_base_has_a_base_relative_to_its_own_file(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "grandchild.toml").write_text('base = "../child.toml"\nname = "grandchild"\n')
    study = load_study(folder / "inner" / "grandchild.toml")
    assert (study.name, study.seeds) == ("grandchild", [3])


def test_a_packaged_study_is_a_base(folder: Path) -> None:
    (folder / "mine.toml").write_text('base = "digits"\nname = "mine"\ntrain = { epochs = 2 }\n')
    study, digits = load_study(folder / "mine.toml"), load_study("digits")
    assert study.train == digits.train.model_copy(update={"epochs": 2})
    assert study.arm == digits.arm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('base = "nowhere.toml"\nname = "x"', r"nowhere\.toml: 1 problem\n  No such file or directory; check the path"),
        ('base = "digit"\nname = "x"', "unknown study 'digit'; did you mean 'digits'"),
        ('base = 3\nname = "x"', r"bad\.toml: 1 problem\n  base = 3: expected the path of a \.toml file"),
        ('base = "bad.toml"\nname = "x"', r"base = \"bad\.toml\": comes back to itself: bad\.toml over bad\.toml"),
        ('base = "base.toml"', r"bad\.toml over base\.toml: 1 problem\n  name: is required and missing"),
        (
            'base = "base.toml"\nname = "x"\n[train]\nepochs = 0',
            r"bad\.toml over base\.toml: 1 problem\n  train\.epochs = 0",
        ),
        ('base = "base.toml"\nname = "x"\narm = 3', r"arm = 3: expected a list"),
    ],
)
def test_a_base_that_cannot_be_is_refused(folder: Path, text: str, expected: str) -> None:
    (folder / "bad.toml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_study(folder / "bad.toml")


def test_two_files_that_are_each_others_base_are_refused(folder: Path) -> None:
    (folder / "one.toml").write_text('base = "two.toml"\nname = "one"')
    (folder / "two.toml").write_text('base = "one.toml"\nname = "two"')
    with pytest.raises(ConfigError, match=r"one\.toml over two\.toml over one\.toml; end the chain"):
        load_study(folder / "one.toml")


def test_arms_without_names_are_left_to_the_study_to_refuse() -> None:
    assert merged_study({"arm": [{"name": "a"}]}, {"arm": [{"optimizer": "sgd"}]})["arm"] == [{"optimizer": "sgd"}]


# ---------------------------------------------------------------------------------------- arms over their study


def study(**arm: Any) -> StudySpec:
    common = {
        "task": {"data": "digits", "model": {"name": "digits-cnn", "batch_norm": True}},
        "train": {"epochs": 9, "batch_size": 64, "schedule": {"name": "step", "step_size": 3}},
    }
    plain = {"name": "plain", "optimizer": "sgd"}
    return parse_study({"name": "mine", "seeds": 2, **common, "arm": [plain, {"name": "a", "optimizer": "sgd", **arm}]})


def test_an_arm_has_its_own_task_and_training() -> None:
    spec = study(train={"batch_size": 32, "schedule": {"gamma": 0.5}}, task={"model": "mlp"})
    runs = list(make_plan(spec).runs.values())
    plain, own = (next(run for run in runs if run.train.batch_size == size) for size in (64, 32))
    assert plain.task.model.options == {"batch_norm": True}
    assert (own.task.model.name, own.task.model.options) == ("mlp", {})
    assert own.train.schedule.plain() == {"name": "step", "step_size": 3, "gamma": 0.5}
    assert own.train.epochs == 9


def test_an_arm_that_says_what_the_study_says_is_the_same_run() -> None:
    spec = study(train={"batch_size": 64}, task={"model": {"batch_norm": True}})
    plan = make_plan(spec)
    assert (len(plan.rows), len(plan.runs)) == (4, 2)


def test_an_arms_axes_return_to_its_own_base() -> None:
    spec = study(train={"batch_size": 32}, axes={"train.batch_size": [16, 32, 64]}, grid="one-at-a-time")
    assert [cell.settings["train.batch_size"] for cell in spec.cells(spec.arm[1])] == [32, 16, 64]


def test_what_an_arm_changes_is_in_study_json() -> None:
    plan = make_plan(study(train={"batch_size": 32}, task={"model": "mlp", "data": {"name": "cifar100"}}))
    plain, own = study_info(plan, versions={}, created="now")["arms"]
    assert not {"overrides", "classes"} & plain.keys()
    assert own["overrides"] == {
        "train.batch_size": 32,
        "task.model": {"name": "mlp"},
        "task.data": {"name": "cifar100"},
    }
    assert own["classes"] == 100
