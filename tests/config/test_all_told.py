"""Whatever mistakes a study has, all that do not follow from one another are told in one go."""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from insgd_lab.config import ConfigError, parse_run, parse_study
from insgd_lab.studies.planning import make_plan
from insgd_lab.studies.search import next_plan

STUDY: dict[str, Any] = {
    "name": "mine",
    "task": {"data": "digits", "model": {"name": "mlp", "hidden": [8]}},
    "train": {"epochs": 4, "batch_size": 64},
    "search": {"trials": 3, "final_seeds": 2},
    "analysis": {"primary": {"arm": "insgd", "baseline": "sgd"}},
    "arm": [
        {"name": "sgd", "optimizer": "sgd"},
        {"name": "insgd", "optimizer": {"name": "insgd-lp", "lr": 0.1}, "axes": {"p": [1, 2]}, "tune": {"lr": [0.1]}},
        {"name": "random", "optimizer": "adam", "grid": "random", "samples": 2, "axes": {"lr": {"range": [0.1, 1]}},
         "search": {"weight_decay": [0.0, 0.1]}},
        {"name": "own", "optimizer": "sgd", "task": {"model": {"hidden": [4]}}, "train": {"epochs": 3},
         "axes": {"train.batch_size": [8, 16]}, "exclude": [{"train.batch_size": 8}]},
    ],
}  # fmt: skip
# By the place that is told, a value put where the dotted path says; each is a mistake of its own.
MISTAKES: Mapping[str, tuple[str, Any]] = {
    "name": ("name", "no name"),
    "titel": ("titel", "x"),
    "seeds": ("seeds", "three"),
    "search.trials": ("search.trials", 0),
    "search.final_seeds": ("search.final_seeds", "x"),
    "search.seeds": ("search.seeds", [1]),
    "search.trials_at_once": ("search.trials_at_once", 2),
    "analysis.primary.test": ("analysis.primary.test", "anova"),
    "analysis.primary.arm": ("analysis.primary.arm", "nobody"),
    "resources.gpus": ("resources.gpus", 1.5),
    "record.every": ("record.every", -1),
    "task.data": ("task.data", "digit"),
    "task.model": ("task", {"data": "quadratic", "model": "pont"}),
    "plugins": ("plugins", ["no_such_plugin"]),
    "task.model.widht": ("task.model.widht", 3),
    "train.eval_every": ("train.eval_every", 0),
    "train.accumulate": ("train.accumulate", 128),
    "train.cuda_graph": ("train", {"epochs": 4, "batch_size": 64, "cuda_graph": True, "precision": "float16"}),
    "train.schedule.milestones": ("train.schedule", {"name": "multi-step", "milestones": [9]}),
    "train.schedule.floor": ("train.schedule.floor", 0.5),
    "arm.sgd.optimizer.momentun": ("arm.0.optimizer.momentun", 1),
    "arm.sgd.label": ("arm.0.label", 3),
    "arm.sgd.samples": ("arm.0.samples", 3),
    "arm.sgd.search.lr": ("arm.0.search.lr", 3),
    "arm.insgd.axes.p": ("arm.1.axes.p", [0.5]),
    "arm.insgd.tune.lr": ("arm.1.tune.lr", [0.2]),
    "arm.insgd.tune.p": ("arm.1.tune.p", [1, 2]),
    "arm.random.samples": ("arm.2.samples", None),
    "arm.random.search.lr": ("arm.2.search.lr", [0.1]),
    "arm.own.train.epochs": ("arm.3.train.epochs", 0),
    "arm.own.task.model.hidden": ("arm.3.task.model.hidden", 4),
    "arm.own.exclude.0": ("arm.3.exclude.0", {"train.batch_size": 9}),
    "arm.own.optimizer": ("arm.3.optimizer", {"name": "diffgrad", "adanorm": 0.95, "betas": [0.9, 2]}),
    "arm.own.axes.train.batch_size": ("arm.3.axes", {"train.batch_size": [8, 2.5]}),
}  # fmt: skip
# What waits until something else is mended: an arm's own model until the data are known, and inside one arm what
# depends on its axes, optimizer, task or training; names that a plugin may register until it can be imported; seeds
# until those are known that they may not be.
WAITS = {
    ("arm.own.task.model.hidden", "task.data"),
    ("arm.own.task.model.hidden", "task.model"),
    ("search.seeds", "search.final_seeds"),
    ("task.data", "plugins"),
    ("task.model", "plugins"),
    ("arm.insgd.tune.lr", "arm.insgd.axes.p"),
    ("arm.insgd.tune.p", "arm.insgd.axes.p"),
    ("arm.insgd.tune.lr", "arm.insgd.tune.p"),
    ("arm.own.exclude.0", "arm.own.train.epochs"),
    ("arm.own.axes.train.batch_size", "arm.own.train.epochs"),
    ("arm.own.exclude.0", "arm.own.task.model.hidden"),
    ("arm.own.exclude.0", "arm.own.optimizer"),
    ("arm.own.exclude.0", "arm.own.axes.train.batch_size"),
}


def put(study: dict[str, Any], path: str, value: Any) -> None:
    table: Any = study
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys:
        if isinstance(table, dict) and not isinstance(table.get(key), (dict, list)):
            table[key] = {"name": table[key]} if isinstance(table.get(key), str) else {}
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value


def told(study: dict[str, Any]) -> list[str]:
    """Where a study is said to have mistakes."""
    with pytest.raises(ConfigError) as caught:
        next_plan(parse_study(study))
    return [".".join(map(str, problem.path)) for problem in caught.value.problems]


def with_mistakes(*places: str) -> dict[str, Any]:
    study = copy.deepcopy(STUDY)
    for place in places:
        put(study, *MISTAKES[place])
    return study


@pytest.mark.parametrize("place", MISTAKES)
def test_one_mistake_is_told_once_and_where_it_is(place: str) -> None:
    (found,) = told(with_mistakes(place))
    assert found.startswith(place)


def test_the_study_is_right_without_them() -> None:
    assert len(next_plan(parse_study(STUDY)).runs) > 10


def test_any_two_are_told_together_and_nothing_else() -> None:
    waits = set()
    for one, other in itertools.combinations(MISTAKES, 2):
        places = [MISTAKES[one][0], MISTAKES[other][0]]
        if any(a.startswith(b) for a, b in itertools.permutations(places)):
            continue  # one would be put over the other
        found = told(with_mistakes(one, other))
        assert all(place.startswith((one, other)) for place in found), (one, other, found)
        assert len(found) == len(set(found))
        waits |= {(a, b) for a, b in ((one, other), (other, one)) if not any(place.startswith(a) for place in found)}
    assert waits == WAITS


BASE = {"name": "mine", "seeds": 1, "task": STUDY["task"], "train": STUDY["train"]}


def impossible(name: str) -> dict[str, Any]:
    """An arm two of whose four cells end before their milestone."""
    axes = {"train.epochs": [3, 9], "train.schedule": ["constant", {"name": "multi-step", "milestones": [5]}]}
    return {"name": name, "optimizer": "sgd", "axes": {**axes, "weight_decay": [0.0, 0.1]}}


def test_impossible_cells_of_all_arms_are_told_the_like_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(parse_study({**BASE, "train": {"epochs": 9}, "arm": [impossible("a"), impossible("b")]}))
    assert [problem.path for problem in caught.value.problems] == [("arm", "a"), ("arm", "b")]
    assert all("must lie before the last epoch, 3" in p.message for p in caught.value.problems)
    assert all(p.message.endswith("(and 1 more cells)") for p in caught.value.problems)


def test_impossible_cells_are_told_beside_mistakes_elsewhere() -> None:
    arms = [{"name": "a", "optimizer": "no-such"}, impossible("b")]
    study = {**BASE, "name": "no name", "train": {"epochs": 9}, "arm": arms}
    assert told(study) == ["name", "arm.a.optimizer", "arm.b"]


def test_what_a_plugin_would_register_is_no_mistake_while_it_cannot_be_imported() -> None:
    arms = [{"name": "a", "optimizer": "mine"}, {"name": "b", "optimizer": {"name": "sgd", "momentun": 1}}]
    assert told({**BASE, "plugins": ["no_such_plugin"], "arm": arms}) == ["plugins", "arm.b.optimizer.momentun"]


def test_empty_cells_are_told_beside_axes_that_cannot_be() -> None:
    arm = {"name": "a", "optimizer": "sgd", "axes": {"lr": {"range": [0.1, 1.0]}}, "include": [{}], "exclude": [{}]}
    assert told({**BASE, "arm": [arm]}) == ["arm.a.axes.lr", "arm.a.include.0", "arm.a.exclude.0"]


def with_arm(train: dict[str, Any], arm: dict[str, Any]) -> dict[str, Any]:
    return {**BASE, "train": train, "arm": [{"name": "a", "optimizer": "sgd", **arm}]}


MANY = {"name": "multi-step", "milestones": [90]}


@pytest.mark.parametrize(
    ("train", "place", "arm"),
    [
        ({"epochs": 4, "batchsize": 256}, "train.batchsize", {"train": {"accumulate": 200}}),
        ({"epochs": 4, "batch_size": "256"}, "train.batch_size", {"train": {"accumulate": 200}}),
        ({"epochs": 4, "batch_size": "256"}, "train.batch_size", {"axes": {"train.accumulate": [1, 200]}}),
        ({"epochs": 4, "batch_size": "256"}, "train.batch_size", {"tune": {"train.batch_size": [256]}}),
        ({"epochs": "100"}, "train.epochs", {"train": {"schedule": MANY}}),
        ({"epochs": "100"}, "train.epochs", {"tune": {"train.epochs": [100]}}),
        (
            {"epochs": 4, "batch_size": 0},
            "train.batch_size",
            {"axes": {"train.batch_size": [128, 256], "lr": [0.1]}, "exclude": [{"lr": 0.5}]},
        ),
        (
            {"epochs": 4, "schedule": {"name": "step", "step_size": "2"}},
            "train.schedule.step_size",
            {"train": {"schedule": {"gamma": 0.5}}},
        ),
    ],
)
def test_what_depends_on_a_wrong_key_of_the_training_is_not_told(
    train: dict[str, Any], place: str, arm: dict[str, Any]
) -> None:
    assert told(with_arm(train, arm)) == [place]


def test_a_mistake_that_depends_on_no_wrong_key_is_told_whatever_its_letters() -> None:
    arm = {"train": {"accumulate": 0}, "tune": {"lr": [0.2]}, "axes": {"train.eval_every": [0]}}
    for train in ({"epochs": "4"}, {"epochs": 4, "l": 1}, {"epochs": 4, "schedule": "p"}, {"epochs": 4, "lr": 1}):
        found = told(with_arm(train, arm))
        assert {"arm.a.train.accumulate", "arm.a.tune.lr"} <= set(found), found
    assert "arm.a.train.batch_size" in told(with_arm({"epochs": 4, "batchsize": 8}, {"train": {"batch_size": 0}}))


def test_what_a_search_samples_is_not_enumerated() -> None:
    tune = {"lr": [k / 1000 for k in range(1, 1000)], "weight_decay": [k / 1000 for k in range(1000)]}
    study = {**BASE, "titel": "x", "search": {"trials": 2}, "arm": [impossible("a"), {**impossible("b"), "tune": tune}]}
    study["train"], study["seeds"] = {"epochs": 9}, 2
    del study["arm"][1]["axes"]["weight_decay"]
    assert told(study) == ["titel", "arm.a", "arm.b"]


def test_no_more_cells_are_looked_at_than_takes_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {**impossible("b"), "optimizer": {"name": "sgd", "lr": 0.1}, "tune": {"lr": [0.1, 0.01]}}
    study = {**BASE, "titel": "x", "train": {"epochs": 9}, "arm": [impossible("a"), many]}
    module = importlib.import_module("insgd_lab.config.unseen")
    for most, found in ((16, ["titel", "arm.a", "arm.b"]), (15, ["titel", "arm.a"])):
        monkeypatch.setattr(module, "_MOST_CELLS", most)
        assert told(study) == found


def test_mistakes_of_a_run_are_told_together() -> None:
    run = {
        "task": {"data": "quadratic", "model": {"name": "mlp", "widht": 3}, "init_from": "nowhere.pt"},
        "train": {"epochs": 2, "augment": True, "schedule": {"name": "step", "step_size": 9, "gamma": 2}},
        "optimizer": {"name": "sgd", "lr": "high"},
    }
    with pytest.raises(ConfigError) as caught:
        parse_run(run)
    assert [".".join(map(str, problem.path)) for problem in caught.value.problems] == [
        "task.model.widht", "task.model", "task.init_from.path", "optimizer.lr", "train.schedule.gamma",
    ]  # fmt: skip
