import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score

from insgd_lab.config import ConfigError, RunSpec, parse_run
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import train
from insgd_lab.training.recall import by_class

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_recalls_are_those_of_scikit_learn(pairs):
    labels, guesses = map(torch.tensor, zip(*pairs, strict=True))
    counts = torch.bincount(labels, minlength=4)
    found = by_class(torch.bincount(labels[labels == guesses], minlength=4), counts)
    present = labels.unique().tolist()
    expected = recall_score(labels, guesses, labels=present, average=None, zero_division=0.0)
    assert [found[f"recall/{k}"] for k in present] == pytest.approx(expected.tolist())
    assert all(math.isnan(found[f"recall/{k}"]) for k in range(4) if k not in present)
    if len(present) > 1 and set(guesses.tolist()) <= set(present):  # scikit-learn warns of the others
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses))


def spec(**data) -> RunSpec:
    return RunSpec.model_validate(
        {
            "task": {"data": {"name": "digits", **data}, "model": {"name": "mlp", "hidden": [16]}},
            "train": {"epochs": 2, "batch_size": 50},
            "record": {"every": 0},
            "optimizer": {"name": "sgd", "lr": 0.1},
        }
    )


def names(metrics, split) -> list[str]:
    return metrics[(metrics.split == split) & (metrics.epoch == 1)].metric.tolist()


RECALLS = ["balanced_accuracy", *(f"recall/{k}" for k in range(10))]


@pytest.mark.parametrize("data", [{"shots": 20}, {"imbalance": "step"}, {"imbalance": "exponential", "fraction": 0.5}])
def test_few_shots_and_unequal_classes_add_recalls(data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    seen = []
    outcome = train(spec(**data), folder, on_epoch=seen.append)
    assert names(outcome.metrics, "train") == ["loss", "accuracy", "top5_accuracy", *RECALLS, "lr"]
    for split in ("val", "test"):
        assert names(outcome.metrics, split) == ["loss", "accuracy", "top5_accuracy", *RECALLS]
    assert folder.metrics().metric.tolist() == outcome.metrics.metric.tolist()
    last = seen[-1]
    mean = sum(last[f"test_recall/{k}"] for k in range(10)) / 10
    assert last["test_balanced_accuracy"] == pytest.approx(mean)
    assert last["test_accuracy"] == pytest.approx(last["test_balanced_accuracy"], abs=0.02)  # the test split is even


@pytest.mark.parametrize("data", [{}, {"fraction": 0.2}, {"imbalance_ratio": 50.0}])
def test_all_other_runs_do_not_tell_classes_apart(data):
    metrics = train(spec(**data)).metrics
    for split in ("val", "test"):
        assert names(metrics, split) == ["loss", "accuracy", "top5_accuracy"]


def test_a_subset_is_part_of_a_runs_name_and_its_defaults_are_not():
    plain = {"fraction": 1.0, "shots": None, "imbalance": "none", "imbalance_ratio": 10}
    assert spec(**plain).id == spec().id
    changes = [{"shots": 5}, {"imbalance": "step"}, {"imbalance": "exponential"}, {"imbalance_ratio": 5}]
    assert len({spec(**change).id for change in [{}, *changes]}) == 5
    again = RunSpec.from_canonical(spec(shots=5).canonical())
    assert again.id == spec(shots=5).id


def test_a_subset_that_the_data_cannot_give_is_a_mistake_in_the_spec(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.data\.shots = 1000: the smallest class has 116 training images"):
        train(spec(shots=1000), RunFolder(tmp_path / "run"))
    assert "choose 116 or fewer" in RunFolder(tmp_path / "run").info()["error"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"shots": 0}, "task.data.shots = 0: expected a whole number >= 1"),
        ({"shots": "all"}, 'task.data.shots = "all": expected a whole number >= 1'),
        ({"imbalance": "linear"}, "expected one of 'none', 'exponential', 'step'"),
        (
            {"imbalance": "step", "imbalance_ratio": 0.5},
            "task.data.imbalance_ratio = 0.5: expected a finite number >= 1",
        ),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(data, message):
    run = {"task": {"data": {"name": "cifar100", **data}, "model": "mlp"}, "train": {"epochs": 1}, "optimizer": "sgd"}
    with pytest.raises(ConfigError) as caught:
        parse_run(run)
    assert message in str(caught.value)
