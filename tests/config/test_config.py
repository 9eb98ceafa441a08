"""Study files: what is accepted is one thing only, and what is not is named with its path and remedy, all at once."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab import registry
from insgd_lab.config import ConfigError, RunSpec, list_studies, load_study, options, parse_run, parse_study, read_toml
from insgd_lab.studies.planning import make_plan

STUDY = tomllib.loads("""
name = "mine"
seeds = 2
[task]
data = "digits"
model = { name = "digits-cnn", batch_norm = true }
[train]
epochs = 4
[[arm]]
name = "insgd"
optimizer = { name = "insgd-lp", p = 2, lr = 0.1, dampening = 0.9 }
grid = "one-at-a-time"
axes = { beta = [0, 0.9], p = [1, inf], "task.model.batch_norm" = [true, false], "train.batch_size" = [32, 128] }
tune = { lr = [0.1, 1] }
[[arm]]
name = "sgd"
optimizer = "sgd"
""")

SGD = STUDY["arm"][1]
SEARCHED = [SGD]


def edited(**changes: Any) -> dict[str, Any]:
    """The study with the value at each path ("arm__0__optimizer__lr") replaced."""
    study = copy.deepcopy(STUDY)
    for path, value in changes.items():
        *parents, last = [int(key) if key.isdigit() else key for key in path.split("__")]
        table: Any = study
        for key in parents:
            table = table[key]
        table[last] = value
    return study


def problems(study: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_study(study)
    return [str(problem) for problem in caught.value.problems]


def run(**optimizer: Any) -> RunSpec:
    return parse_run(
        {
            "task": {"data": "digits", "model": "digits-cnn"},
            "train": {"epochs": 2},
            "optimizer": {"name": "insgd-lp", **optimizer},
        }
    )


@pytest.mark.parametrize("name", list_studies())
def test_packaged_studies_are_valid_and_named_as_they_are_called(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert study.title
    assert study.description


def test_a_file_always_asks_for_the_same_runs(tmp_path: Path) -> None:
    text = 'seed = 3\noptimizer = { name = "insgd-lp", p = inf, lr = 1e-1 }\n'
    text += 'train = { epochs = 2 }\ntask = { data = "digits", model = "digits-cnn" }\n'
    (tmp_path / "run.toml").write_text(text)
    assert len({parse_run(read_toml(tmp_path / "run.toml")).id for _ in range(3)}) == 1
    assert parse_run(read_toml(tmp_path / "run.toml")).id == "ef93f80c5abf6fc0"


def test_an_explicit_default_changes_nothing() -> None:
    spec = registry.get_optimizer("insgd-lp")
    assert run(**spec.defaults).id == run().id
    explicit = parse_run(
        {
            "task": {
                "data": {"name": "digits", "fraction": 1.0},
                "model": {"name": "digits-cnn", "batch_norm": False},
            },
            "train": {"epochs": 2, "batch_size": 128, "augment": False, "schedule": "constant"},
            "record": {"every": 10},
            "optimizer": "insgd-lp",
            "seed": 0,
        }
    )
    assert explicit.id == run().id


@pytest.mark.parametrize(
    ("one", "other"), [({"lr": 1}, {"lr": 1.0}), ({"p": 2}, {"p": 2.0}), ({"eps": 1}, {"eps": 1.0})]
)
def test_whole_numbers_and_floats_are_one_value(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert run(**one).id == run(**other).id


def test_what_changes_the_numbers_changes_the_name() -> None:
    base = run()
    others = [run(lr=0.2), run(p=math.inf), base.model_copy(update={"seed": 1})]
    assert len({each.id for each in [base, *others]}) == len(others) + 1


def test_a_changed_copy_has_a_name_of_its_own() -> None:
    base = run()
    assert base.id == next(base.with_seeds([0])).id
    longer = base.model_copy(update={"train": base.train.model_copy(update={"epochs": 3})})
    assert longer.id == next(longer.with_seeds([0])).id == RunSpec.model_validate(longer.model_dump()).id
    assert longer.id != base.id
    assert base.model_copy().id == base.id


LATER_TRAINING = {
    "schedule": {"name": "cosine", "warmup": 1},
    "precision": "bfloat16",
    "accumulate": 2,
    "clip_norm": 1,
    "label_smoothing": 0.1,
    "channels_last": False,
    "compile": True,
    "cuda_graph": True,
}


def trained(optimizer: Any = "adam", **train: Any) -> RunSpec:
    task = {"data": "digits", "model": "digits-cnn"}
    return parse_run({"task": task, "train": {"epochs": 10, **train}, "optimizer": optimizer})


@pytest.mark.parametrize("key", LATER_TRAINING)
def test_every_training_option_is_part_of_the_name(key: str) -> None:
    spec = trained(**{key: LATER_TRAINING[key]})
    assert spec.id != trained().id
    assert RunSpec.from_canonical(spec.canonical()).id == spec.id


def test_how_runs_share_a_device_is_not_part_of_the_name() -> None:
    assert trained(packing=4).id == trained(packing="auto").id == trained().id


# Computed before the training options of LATER_TRAINING were there.
EARLIER = [
    ("43f6b5af092bef72", {"train": {"epochs": 2}, "optimizer": "insgd-lp"}),
    (
        "1aff1daeb51a596c",
        {
            "task": {"data": {"name": "cifar10", "fraction": 0.5}, "model": "resnet20"},
            "train": {
                "epochs": 200,
                "batch_size": 64,
                "augment": True,
                "schedule": {"name": "multi-step", "milestones": [60, 120], "gamma": 0.2},
            },
            "optimizer": {"name": "adamnorm", "lr": 1e-3, "betas": [0.8, 0.99]},
            "seed": 3,
        },
    ),
    (
        "a4173219352327ec",
        {
            "train": {
                "epochs": 9,
                "eval_every": 3,
                "eval_batch_size": 10,
                "schedule": {"name": "multi-step", "milestones": [3]},
            },
            "record": {"every": 0},
            "optimizer": {"name": "insgd-lp", "p": math.inf},
        },
    ),
]


@pytest.mark.parametrize(("name", "raw"), EARLIER)
def test_runs_keep_the_names_that_they_had_before_options_were_added(name: str, raw: dict[str, Any]) -> None:
    assert parse_run({"task": {"data": "digits", "model": "digits-cnn"}, **raw}).id == name


SCHEDULES = [
    "constant",
    {"name": "constant", "warmup": 2.0},
    {"name": "multi-step", "milestones": [2], "gamma": 0.5},
    {"name": "step", "step_size": 3, "gamma": 0.1},
    "cosine",
    {"name": "cosine", "floor": 0.1},
    {"name": "cosine-restarts", "period": 2, "period_factor": 3, "floor": 0.0, "warmup": 0.5},
    "inverse-sqrt",
    {"name": "inverse-sqrt", "beta1_decay": 0.99},
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_reads_back_as_it_was_written(schedule: Any) -> None:
    spec = trained(schedule=schedule)
    assert spec.train.schedule.plain() == schedule
    assert RunSpec.from_canonical(spec.canonical()) == spec


def test_schedules_are_an_axis_of_a_study() -> None:
    study = edited(train__epochs=10, arm__1__axes={"train.schedule": SCHEDULES[:-1]})
    plan = make_plan(parse_study(study))
    assert [row["settings"]["train.schedule"] for row in plan.rows if row["arm"] == "sgd"][::2] == SCHEDULES[:-1]


def test_a_schedule_of_the_betas_needs_an_optimizer_that_has_some() -> None:
    schedule = {"name": "inverse-sqrt", "beta1_decay": 0.99}
    assert trained("adamnorm", schedule=schedule).train.schedule.beta1_decay == 0.99
    with pytest.raises(ConfigError, match=r"train\.schedule\.beta1_decay = 0\.99: sgd has no option 'betas' to change"):
        trained("sgd", schedule=schedule)


@pytest.mark.parametrize(("schedule", "key"), [("cosine", r'name = "cosine"'), ({"warmup": 1}, "warmup = 1.0")])
def test_a_schedule_needs_an_optimizer_with_a_learning_rate(
    schedule: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sgd = registry.get_optimizer("sgd")
    options = {name: value for name, value in sgd.defaults.items() if name != "lr"}
    monkeypatch.setattr(registry, "get_optimizer", lambda name: dataclasses.replace(sgd, defaults=options))
    assert trained("sgd").train.schedule.plain() == "constant"
    with pytest.raises(ConfigError, match=rf"train\.schedule\.{key}: sgd has no option 'lr' to change"):
        trained("sgd", schedule=schedule)


WITHOUT_LABELS = ("quadratic", "rosenbrock", "system-identification", "teacher-student", "least-squares")


@pytest.mark.parametrize("data", WITHOUT_LABELS)
@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"augment": True}, "train.augment = True: {} has no images to crop and mirror; leave it out"),
        ({"label_smoothing": 0.1}, "train.label_smoothing = 0.1: {} has no classes whose labels could be smoothed"),
    ],
)
def test_what_needs_images_or_labels_is_refused_where_the_data_have_none(
    data: str, train: dict[str, Any], expected: str
) -> None:
    task = {"data": data, "model": registry.get_data(data).model or "linear"}
    parse_run({"task": task, "train": {"epochs": 1}, "optimizer": "sgd"})
    with pytest.raises(ConfigError, match=re.escape(expected.format(data))):
        parse_run({"task": task, "train": {"epochs": 1, **train}, "optimizer": "sgd"})
    study = {"name": "s", "seeds": 1, "task": task, "train": {"epochs": 1, **train}}
    with pytest.raises(ConfigError, match=re.escape(expected.format(data))):
        make_plan(parse_study({**study, "arm": [{"name": "a", "optimizer": "sgd"}]}))


@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [
        ("quadratic", "mlp", 'task.model = "mlp": quadratic is for the model point; name that one'),
        (
            "digits",
            "point",
            'task.model = "point": is for quadratic and rosenbrock, not for digits; name another model',
        ),
    ],
)
def test_what_is_made_for_each_other_is_not_parted(data: str, model: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse_run({"task": {"data": data, "model": model}, "train": {"epochs": 1}, "optimizer": "sgd"})


@pytest.mark.parametrize("data", sorted(set(registry.list_data()) - set(WITHOUT_LABELS)))
def test_sets_of_labelled_images_are_augmented_and_their_labels_smoothed(data: str) -> None:
    train = {"epochs": 1, "augment": True, "label_smoothing": 0.1}
    assert parse_run({"task": {"data": data, "model": "linear"}, "train": train, "optimizer": "sgd"}).train.augment


def test_a_graph_needs_an_optimizer_that_it_can_hold() -> None:
    assert trained("adadelta", cuda_graph=True).train.cuda_graph
    expected = "train.cuda_graph = True: adagrad cannot be held in a CUDA graph; leave it out, or take another"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        trained("adagrad", cuda_graph=True)


def test_all_that_data_and_optimizer_are_not_up_to_is_named_at_once() -> None:
    schedule = {"name": "inverse-sqrt", "beta1_decay": 0.9}
    task = {"data": "quadratic", "model": "point"}
    train = {"epochs": 1, "augment": True, "label_smoothing": 0.1, "schedule": schedule}
    with pytest.raises(ConfigError) as caught:
        parse_run({"task": task, "train": train, "optimizer": "sgd"})
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [("train", "schedule", "beta1_decay"), ("train", "augment"), ("train", "label_smoothing")]


def test_a_raised_revision_renames_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run().id
    raised = dataclasses.replace(registry.get_optimizer("insgd-lp"), revision=99)
    monkeypatch.setattr(options, "LOOKUP", {**options.LOOKUP, "optimizer": lambda name: raised})
    assert run().id != before


def test_plugins_are_not_part_of_the_name() -> None:
    assert parse_run(run().model_dump(), plugins=["json"]).id == run().id


@given(
    lr=st.floats(0, 10),
    p=st.sampled_from([1, 2, 3.5, math.inf]),
    granularity=st.sampled_from(["layer", "neuron", "channel"]),
    center=st.booleans(),
)
def test_a_run_is_rebuilt_from_its_canonical_form(**options: Any) -> None:
    spec = run(**options)
    again = RunSpec.from_canonical(spec.canonical())
    assert again.id == spec.id
    assert again.canonical() == spec.canonical()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seedz": 3}, "seedz = 3: unknown key 'seedz'; did you mean 'seeds'?"),
        ({"name": "a b"}, 'name = "a b": expected letters, digits'),
        ({"seeds": 0}, "seeds = 0: expected a number of seeds"),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: expected at least one seed, each once"),
        ({"seeds": [-1]}, "seeds.0 = -1: expected greater than or equal to 0"),
        ({"task__data": "digit"}, "task.data = \"digit\": unknown data set 'digit'; did you mean 'digits'?"),
        ({"task__data": {"name": "digits", "fraction": 2}}, "task.data.fraction = 2: expected a number above 0"),
        ({"task__model__batch_norm": 1}, "task.model.batch_norm = 1: expected true or false"),
        ({"task__model__batchnorm": True}, "task.model.batchnorm = True: unknown option of digits-cnn"),
        ({"train__epochs": "8"}, 'train.epochs = "8": expected an integer; write 8 without quotes'),
        ({"train__epochs": 0}, "train.epochs = 0: expected greater than or equal to 1"),
        ({"train__batchsize": 8}, "train.batchsize = 8: unknown key 'batchsize'; did you mean 'batch_size'"),
        ({"train__schedule": "cosin"}, "train.schedule.name = \"cosin\": expected 'constant', 'multi-step'"),
        ({"train__schedule": {"name": "multi-step"}}, "train.schedule.milestones: is required, such as [60, 120]"),
        (
            {"train__schedule": {"name": "multi-step", "milestones": [9]}},
            "train.schedule.milestones = [9]: milestones must lie before the last epoch, 4; set them as well, such as",
        ),
        (
            {"train__schedule": {"name": "multi-step", "milestones": [3, 2]}},
            "train.schedule.milestones = [3, 2]: expected epochs in rising order",
        ),
        (
            {"train__schedule": {"milestones": [3]}},
            'train.schedule.milestones = [3]: is not read by the schedule "constant", only by "multi-step"',
        ),
        (
            {"train__schedule": {"name": "cosine", "gamma": 0.5}},
            'train.schedule.gamma = 0.5: is not read by the schedule "cosine", only by "multi-step" and "step"',
        ),
        ({"train__schedule": "step"}, "train.schedule.step_size: is required, such as 30"),
        ({"train__schedule": "cosine-restarts"}, "train.schedule.period: is required, such as 10"),
        (
            {"train__schedule": {"name": "step", "step_size": 4}},
            "train.schedule.step_size = 4: step_size must lie before the last epoch, 4",
        ),
        (
            {"train__schedule": {"name": "cosine", "warmup": 4.5}},
            "train.schedule.warmup = 4.5: warmup must not be longer than the run, 4 epochs",
        ),
        ({"train__schedule": {"warmup": math.inf}}, "train.schedule.warmup = inf: expected a finite number"),
        ({"train__schedule": {"name": "cosine", "floor": 1}}, "train.schedule.floor = 1: expected less than 1"),
        (
            {"train__schedule": {"name": "inverse-sqrt", "beta1_decay": 0}},
            "train.schedule.beta1_decay = 0: expected greater than 0",
        ),
        (
            {"train__cuda_graph": True, "train__schedule": {"name": "inverse-sqrt", "beta1_decay": 0.9}},
            "train.schedule.beta1_decay = 0.9: cannot change from step to step in a CUDA graph; set train.cuda_graph",
        ),
        (
            {"train__precision": "half"},
            "train.precision = \"half\": expected 'float32', 'tf32', 'bfloat16' or 'float16'",
        ),
        ({"train__accumulate": 129}, "train.accumulate = 129: a batch of 128 cannot be computed in more parts"),
        ({"train__clip_norm": 0}, "train.clip_norm = 0: expected greater than 0"),
        ({"train__clip_norm": math.nan}, "train.clip_norm = nan: expected greater than 0"),
        ({"train__label_smoothing": 1}, "train.label_smoothing = 1: expected less than 1"),
        ({"train__packing": "all"}, 'train.packing = "all": expected "off", "auto" or a whole number of runs'),
        ({"train__packing": True}, 'train.packing = True: expected "off", "auto" or a whole number of runs'),
        ({"train__packing": 0}, 'train.packing = 0: expected "off", "auto" or a whole number of runs, at least 1'),
        ({"arm__0__axes__train.packing": [2]}, "arm.insgd.axes.train.packing = 2: cannot vary: it says how runs share"),
        ({"record": {"every": -1}}, "record.every = -1: expected greater than or equal to 0"),
        ({"arm": []}, "arm = []: expected at least one entry"),
        ({"arm__1__name": "insgd"}, 'arm.1.name = "insgd": is the name of an earlier arm'),
        ({"arm__1__optimizer": "sdg"}, "arm.sgd.optimizer = \"sdg\": unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ({"arm__0__optimizer__betta": 1}, "arm.insgd.optimizer.betta = 1: unknown option of insgd-lp 'betta'"),
        ({"arm__0__optimizer__lr": -1.0}, "arm.insgd.optimizer.lr = -1.0: expected a finite number >= 0"),
        ({"arm__0__optimizer__lr": math.nan}, "arm.insgd.optimizer.lr = nan: expected a number, got nan"),
        ({"arm__0__optimizer__p": 20}, "arm.insgd.optimizer.p = 20: expected a number in [1, 16], or inf"),
        ({"arm__0__optimizer__p": True}, "arm.insgd.optimizer.p = True: expected a number"),
        ({"arm__0__optimizer__center": 1}, "arm.insgd.optimizer.center = 1: expected true or false"),
        ({"arm__0__grid": "random"}, 'arm.insgd.samples: is required by grid = "random", such as 20'),
        ({"arm__1__grid": "random", "arm__1__samples": 3}, 'arm.sgd.axes: is required by grid = "random"'),
        ({"arm__0__samples": 3}, 'arm.insgd.samples = 3: is read by grid = "random" only'),
        ({"arm__0__sample_seed": 3}, 'arm.insgd.sample_seed = 3: is read by grid = "random" only'),
        ({"arm__0__axes__beta": 3}, "arm.insgd.axes.beta = 3: expected a list of values, or a range such as"),
        ({"arm__0__axes__beta": {"range": [0, 0.9]}}, "arm.insgd.axes.beta = {'range': [0.0, 0.9]}: has no end of"),
        (
            {"arm__0__tune__lr": {"range": [0.1, 1]}},
            "arm.insgd.tune.lr = {'range': [0.1, 1.0]}: has no end of values; add",
        ),
        (
            {"arm__0__axes__beta": {"steps": 3}},
            "arm.insgd.axes.beta = {'steps': 3}: expected either range = [low, high]",
        ),
        (
            {"arm__0__axes__beta": {"range": [1, 0], "steps": 3}},
            "arm.insgd.axes.beta.range = [1, 0]: expected two finite",
        ),
        (
            {"arm__0__axes__beta": {"range": [0, math.inf], "steps": 3}},
            "arm.insgd.axes.beta.range = [0, inf]: expected",
        ),
        ({"arm__0__axes__beta": {"log_range": [0, 1], "steps": 3}}, "arm.insgd.axes.beta.log_range = [0, 1]: expected"),
        (
            {"arm__0__axes__beta": {"range": [0, 1], "steps": 1}},
            "arm.insgd.axes.beta.steps = 1: expected a whole number",
        ),
        ({"arm__0__axes__beta": {"range": [0, 1], "step": 3}}, "arm.insgd.axes.beta.step = 3: unknown key of a range"),
        (
            {"arm__0__axes__beta": {"range": [0, 1], "steps": 3}},
            "arm.insgd.axes.beta = 1.0: expected a number in [0, 1)",
        ),
        ({"arm__0__include": [{}]}, "arm.insgd.include.0 = {}: expected at least one axis"),
        ({"arm__0__include": [{"bta": 0.5}]}, "arm.insgd.include.0.bta = 0.5: unknown axis of this arm 'bta'; did you"),
        ({"arm__0__include": [{"beta": 5}]}, "arm.insgd.include.0.beta = 5: expected a number in [0, 1)"),
        ({"arm__0__include": [{"train.batch_size": 0}]}, "arm.insgd.include.0.train.batch_size = 0: expected greater"),
        ({"arm__0__include": [{"beta": 0}]}, "arm.insgd.include.0 = {'beta': 0.0}: is a cell of the grid already"),
        ({"arm__0__exclude": [{"beta": 0.5}]}, "arm.insgd.exclude.0 = {'beta': 0.5}: matches no cell of the grid"),
        ({"arm__0__exclude": [{"beta": 0, "p": 1}]}, "arm.insgd.exclude.0 = {'beta': 0.0, 'p': 1.0}: matches no cell"),
        ({"arm__0__exclude": [{"beta": 0}, {"beta": 0.9}]}, "arm.insgd.exclude = "),
        ({"arm__1__train": {"epoch": 1}}, "arm.sgd.train.epoch = 1: unknown key 'epoch'; did you mean 'epochs'"),
        ({"arm__1__train": 3}, "arm.sgd.train = 3: expected a"),
        ({"arm__1__task": {"model": {"width": 3}}}, "arm.sgd.task.model.width = 3: unknown option of digits-cnn"),
        ({"arm__1__task": {"model": "mpl"}}, "arm.sgd.task.model = \"mpl\": unknown model 'mpl'; did you mean 'mlp'?"),
        (
            {"arm__1__task": {"model": "vit"}, "arm__1__axes": {"task.model.width": [1]}},
            "arm.sgd.axes.task.model.width = 1: unk",
        ),
        ({"search": {"trial": 3}, "arm": SEARCHED}, "search.trial = 3: unknown key 'trial'; did you mean 'trials'"),
        ({"search": {"trials": 0}, "arm": SEARCHED}, "search.trials = 0: expected greater than or equal to 1"),
        (
            {"search": {"method": "grid"}, "arm": SEARCHED},
            "search.method = \"grid\": expected 'quasi-random', 'random'",
        ),
        ({"search": {"seeds": 0}, "arm": SEARCHED}, "search.seeds = 0: expected a number of seeds from 1 to 10000"),
        (
            {"search": {"seeds": [1]}, "arm": SEARCHED},
            "search.seeds = [1]: 1 is one of the final runs' seeds too, and a",
        ),
        (
            {"search": {"final_seeds": 5}, "arm": SEARCHED},
            "search.final_seeds = [0, 1, 2, 3, 4]: are other seeds than the study's own",
        ),
        ({"search": {"trials_at_once": 2}, "arm": SEARCHED}, 'search.trials_at_once = 2: is read by method = "optuna"'),
        (
            {"search": {}, "arm__0__search": {"lr": [1]}},
            "arm.insgd.tune = ['lr']: is what the study's [search] would try",
        ),
        ({"search": {}, "arm__0__tune": {}, "arm__0__search": {"p": [1]}}, "arm.insgd.search.p = [1]: is an axis as"),
        ({"search": {}, "arm": [{**SGD, "search": {"lr": [-1]}}]}, "arm.sgd.search.lr = -1: expected a finite number"),
        (
            {"search": {}, "arm": [{**SGD, "search": {"lr": 3}}]},
            "arm.sgd.search.lr = 3: expected a list of values, or a",
        ),
        (
            {"search": {}, "arm": [{**SGD, "search": {}}]},
            "arm.sgd.search: sgd has no option left that the registry would",
        ),
        (
            {"search": {}, "arm": [{**SGD, "optimizer": {"name": "sgd", "lr": 1, "momentum": 0.9}}]},
            "arm.sgd.search: sgd has no option left that the registry would tune; say what to try",
        ),
        (
            {"search": {}, "arm": [{**SGD, "search": {"train.batch_size": {"range": [1, 2.5]}}}]},
            "arm.sgd.search.train.batch_size = 2.5: expected an integer",
        ),
        ({"arm__1__search": {"lr": [0.1]}}, "arm.sgd.search = ['lr']: is read by studies with a [search] only"),
        ({"arm__0__grid": "one"}, "arm.insgd.grid = \"one\": unknown grid 'one'"),
        ({"arm__0__grid": "zip", "arm__0__axes__beta": [0]}, "arm.insgd.axes = "),
        ({"arm__0__axes__beta": []}, "arm.insgd.axes.beta = []: expected at least one entry"),
        ({"arm__0__axes__beta": [0, 0.0]}, "arm.insgd.axes.beta = 0.0: is listed twice; keep one"),
        ({"arm__0__axes__beta": [0, 2]}, "arm.insgd.axes.beta = 2: expected a number in [0, 1)"),
        ({"arm__0__axes__foo": [0]}, "arm.insgd.axes.foo = [0]: unknown option of insgd-lp 'foo'"),
        ({"arm__0__axes__train.batch_size": [0]}, "arm.insgd.axes.train.batch_size = 0: expected greater"),
        ({"arm__0__axes__train.batch": [0]}, "arm.insgd.axes.train.batch = 0: unknown key of train 'batch'"),
        ({"arm__0__axes__task.model.norm": [0]}, "arm.insgd.axes.task.model.norm = 0: unknown option of digits-cnn"),
        ({"arm__0__axes__task.model": [0]}, "arm.insgd.axes.task.model = 0: expected task.model.OPTION"),
        ({"arm__0__axes__eps": [0.1, 1]}, "arm.insgd.axes.eps = [0.1, 1.0]: has no value to return to; set eps"),
        ({"arm__0__axes__lr": [0.1]}, "arm.insgd.tune.lr = [0.1, 1]: is an axis as well"),
        ({"arm__0__tune__lr": [1]}, "arm.insgd.tune.lr = [1.0]: does not hold 0.1, the value outside tuning"),
        ({"arm__0__tune": 3}, "arm.insgd.tune = 3: expected a"),
    ],
)
def test_mistakes_are_refused_with_path_value_and_remedy(changes: dict[str, Any], expected: str) -> None:
    found = problems(edited(**changes))
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_all_mistakes_of_a_file_are_listed_at_once() -> None:
    study = edited(
        seeds=0, train__epochs="8", arm__0__optimizer__lr=-1, arm__0__axes__beta=[2], arm__1__optimizer="sdg"
    )
    study["arm"][0]["axes"]["task.model.norm"] = [1]
    assert [text.split(" = ")[0] for text in problems(study)] == [
        "seeds",
        "train.epochs",
        "arm.insgd.optimizer.lr",
        "arm.sgd.optimizer",
        "arm.insgd.axes.task.model.norm",
        "arm.insgd.axes.beta",
    ]


def test_a_missing_key_is_named() -> None:
    study = edited()
    del study["train"], study["arm"][1]["name"]
    assert problems(study) == ["train: is required and missing", "arm.1.name: is required and missing"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digit", "unknown study 'digit'; did you mean 'digits'?"),
        ("no.toml", "No such file or directory; check the path"),
    ],
)
def test_a_study_that_is_not_there_is_refused(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="1 problem") as caught:
        load_study(name)
    assert expected in str(caught.value)


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("name = ")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_study(path)


def test_plugins_are_imported_before_names_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from insgd_lab.registry import ModelSpec, register_model\n"
    code += 'register_model(ModelSpec("config-test-model", "nowhere:model", defaults={"width": 3}))\n'
    (tmp_path / "config_test_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    study = parse_study(edited(task__model="config-test-model", arm=[STUDY["arm"][1]]), plugins=["config_test_plugin"])
    assert study.task.model.name == "config-test-model"
    assert study.run(study.arm[0], {}, 0).plugins == ["config_test_plugin"]
    assert "config_test_plugin" in sys.modules


def test_a_plugin_that_cannot_be_imported_is_one_of_the_mistakes() -> None:
    found = problems(edited(plugins=["no_such_plugin"], seeds=0))
    assert found[0].startswith("plugins = ['no_such_plugin']: plugin module 'no_such_plugin' could not be imported")
    assert found[1].startswith("seeds")


def test_options_that_do_not_go_together_are_refused_before_anything_runs() -> None:
    run = {"task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 1}}
    with pytest.raises(ConfigError, match=r"optimizer: insgd-l1: nesterov needs .*set dampening to 0"):
        parse_run({**run, "optimizer": {"name": "insgd-l1", "nesterov": True}})


def test_a_key_that_belongs_into_a_table_inside_is_told_where() -> None:
    assert [text for text in problems(edited(epochs=3)) if text.endswith("; train has it: write train.epochs")]
    found = problems(edited(analysis={"test": "welch"}))
    assert [text for text in found if text.endswith("; primary has it: write primary.test")]
