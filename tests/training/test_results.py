"""What is told of a run: metrics, the final and the best results, and the clock."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch.nn import functional

from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder
from insgd_lab.training.data import digits
from insgd_lab.training.feeds import BatchPlan
from insgd_lab.training.loop import train
from insgd_lab.training.objectives import Classification
from insgd_lab.training.progress import results


def row(epoch, split, metric, value):
    return (epoch, 10 * epoch, split, metric, value)


def rows(metric, val, test):
    return [
        row(epoch, split, metric, value)
        for split, values in (("val", val), ("test", test))
        for epoch, value in values.items()
    ]


def test_final_best_and_chosen_are_told_apart():
    found = results(rows("accuracy", {2: 0.5, 4: 0.9, 6: 0.8}, {2: 0.4, 4: 0.6, 6: 0.7}))
    assert found == {
        "final_val_accuracy": 0.8, "best_val_accuracy": 0.9, "best_val_accuracy_epoch": 4,
        "final_test_accuracy": 0.7, "best_test_accuracy": 0.7, "best_test_accuracy_epoch": 6,
        "test_accuracy_at_best_val": 0.6,
    }  # fmt: skip


def test_of_equal_bests_the_first_is_told():
    assert results(rows("accuracy", {1: 0.5, 2: 0.5}, {1: 0.1, 2: 0.2}))["test_accuracy_at_best_val"] == 0.1


def test_a_task_without_accuracy_is_judged_by_its_loss_and_nothing_by_what_is_not_finite():
    found = results(rows("loss", {1: 2.0, 2: 1.0, 3: math.nan}, {1: 3.0, 2: 4.0, 3: math.inf}))
    assert (found["best_val_loss"], found["best_test_loss"], found["best_test_loss_epoch"]) == (1.0, 3.0, 1)
    assert found["test_loss_at_best_val"] == 4.0
    assert found["final_test_loss"] == math.inf
    assert results(rows("loss", {1: math.nan}, {1: math.nan})).keys() == {"final_val_loss", "final_test_loss"}


scores = st.integers(1, 40).flatmap(
    lambda n: st.tuples(st.lists(st.integers(0, 7), min_size=n, max_size=n), st.integers(0, 2**31))
)


@given(scores, st.integers(1, 40))
def test_a_tally_over_batches_gives_scikit_learns_metrics_of_the_whole(drawn, size):
    labels, seed = torch.tensor(drawn[0]), drawn[1]
    outputs = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(seed))
    tally = Classification(8).tally("cpu")
    for k, (part, wanted) in enumerate(zip(outputs.split(size), labels.split(size), strict=True)):
        tally.add(part, wanted, functional.cross_entropy(part, wanted) if k % 2 else None)
    found, names = tally.metrics(), list(range(8))
    probabilities = outputs.double().softmax(1)
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities, labels=names), rel=1e-5)
    assert found["accuracy"] == top_k_accuracy_score(labels, outputs, k=1, labels=names)
    assert found["top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, outputs, k=5, labels=names))


def test_five_classes_have_no_top_five():
    tally = Classification(5).tally("cpu")
    tally.add(torch.eye(5), torch.arange(5))
    assert tally.metrics().keys() == {"loss", "accuracy"}


def test_the_ranks_of_a_plan_share_each_batch_and_miss_no_image():
    def parts(rank, ranks):
        plan = BatchPlan(0, 100, 70, True, torch.device("cpu"), rank, ranks)
        feed = digits().feed(plan)
        return list(feed.epoch(2)), list(feed.evaluate("val"))

    (whole, val), *shares = parts(0, 1), *(parts(r, 3) for r in range(3))
    for k, (images, labels) in enumerate(whole):
        for r, (share, _) in enumerate(shares):
            assert torch.equal(share[k][0], images[r::3])
            assert torch.equal(share[k][1], labels[r::3])
    assert sum(len(y) for _, evaluated in shares for _, y in evaluated) == sum(len(y) for _, y in val) == 300


@pytest.mark.parametrize("first", [1, 5, 11])
def test_a_feed_goes_on_from_any_batch(first):
    feed = digits().feed(BatchPlan(0, 100, 70, True, torch.device("cpu")))
    whole, rest = list(feed.epoch(3)), list(feed.epoch(3, first))
    assert len(whole) == 12
    assert len(rest) == 12 - first
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[first:], rest, strict=True))


def test_run_json_has_the_results_and_the_clock_of_each_epoch(tmp_path):
    spec = RunSpec.model_validate(
        {
            "task": {"data": {"name": "digits", "fraction": 0.2}, "model": "digits-cnn"},
            "train": {"epochs": 3, "batch_size": 50},
            "optimizer": "sgd",
        }
    )
    folder, seen = RunFolder(tmp_path / spec.id), []
    outcome = train(spec, folder, on_epoch=seen.append)
    info = folder.info()
    assert info["results"] == outcome.results
    metrics = outcome.metrics
    last = metrics[(metrics.split == "test") & (metrics.metric == "accuracy")].value.tolist()
    assert outcome.results["final_test_accuracy"] == last[-1]
    assert outcome.results["best_test_accuracy"] == max(last)
    assert [each["epoch"] for each in info["epochs"]] == [1, 2, 3]
    assert [(e["seconds"], e["images_per_second"]) for e in seen] == [
        (e["seconds"], e["images_per_second"]) for e in info["epochs"]
    ]
    assert sum(each["seconds"] for each in info["epochs"]) == pytest.approx(info["seconds"])
    assert "seconds" not in set(metrics.metric)  # the bytes of metrics.parquet do not depend on the clock
