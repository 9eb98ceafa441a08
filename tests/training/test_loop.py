import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder, StoreError
from insgd_lab.training import checkpoint
from insgd_lab.training.data import digits
from insgd_lab.training.files import DataError
from insgd_lab.training.loop import train
from insgd_lab.training.session import build_model, load_data

PLAIN = {
    "task": {"data": {"name": "digits", "fraction": 0.2}, "model": "digits-cnn"},
    "train": {"epochs": 4, "batch_size": 50},
    "record": {"every": 3},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "seed": 1,
}
# Every source of chance and every kind of state at once.
RICH = {
    **PLAIN,
    "task": {"data": {"name": "digits", "fraction": 0.2}, "model": {"name": "custom-cnn", "dropout": 0.5}},
    "train": {
        "epochs": 4, "batch_size": 50, "augment": True, "eval_every": 2,
        "schedule": {"name": "multi-step", "milestones": [2], "gamma": 0.1},
    },
    "optimizer": {"name": "insgd-l2", "lr": 0.5},
}  # fmt: skip


def make(base=PLAIN, **changes) -> RunSpec:
    return RunSpec.model_validate({**base, **changes})


def outputs(folder: RunFolder) -> tuple[bytes, bytes]:
    return folder.metrics_path.read_bytes(), folder.layers_path.read_bytes()


def column(metrics, split, metric) -> list[float]:
    return metrics[(metrics.split == split) & (metrics.metric == metric)].value.tolist()


def test_a_run_learns_and_leaves_its_record(tmp_path):
    spec = make(task={"data": "digits", "model": "digits-cnn"})
    folder = RunFolder(tmp_path / spec.id)
    seen = []
    outcome = train(spec, folder, on_epoch=seen.append)
    assert outcome.status == "done"
    assert column(outcome.metrics, "test", "accuracy")[-1] > 0.9
    assert folder.metrics().equals(outcome.metrics.astype({"epoch": "int32"}))
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "layers.parquet",
        "metrics.parquet",
        "run.json",
    ]
    assert outcome.metrics.step.iloc[-1] == 4 * math.ceil(1197 / 50)  # the last, partial batch is kept
    assert folder.layers().step.unique().tolist() == list(range(1, 97, 3))
    assert [(row["epoch"], row["epochs"]) for row in seen] == [(k, 4) for k in (1, 2, 3, 4)]
    assert seen[-1]["val_accuracy"] == column(outcome.metrics, "val", "accuracy")[-1]


def test_run_json_tells_what_was_run_on_what(tmp_path):
    spec = make()
    folder = RunFolder(tmp_path / spec.id)
    train(spec, folder)
    info = folder.info()
    assert (info["id"], info["seed"], info["status"], info["error"]) == (spec.id, 1, "done", None)
    assert RunSpec.from_canonical(info["spec"]).id == spec.id
    assert info["versions"].keys() == {"insgd_lab", "torch", "torchvision", "pillow", "numpy", "python"}
    assert info["threads"] == torch.get_num_threads()
    assert info["started"] <= info["finished"]
    assert info["images_per_second"] > 0
    assert info["seconds"] > 0
    assert (info["epochs_done"], info["parameters"], info["diverged_at"]) == (4, 3818, None)


def test_metrics_are_those_of_the_model():
    outcome = train(make())
    sets = digits()
    with torch.no_grad():
        scores = outcome.model((sets.test.images / 16 - sets.mean[0]) / sets.std[0])
    loss = functional.cross_entropy(scores, sets.test.labels)
    assert column(outcome.metrics, "test", "loss")[-1] == pytest.approx(float(loss), rel=1e-5)
    accuracy = (scores.argmax(1) == sets.test.labels).double().mean()
    assert column(outcome.metrics, "test", "accuracy")[-1] == float(accuracy)


def test_evaluation_and_schedule_keep_to_their_epochs():
    metrics = train(make(RICH)).metrics
    assert column(metrics, "train", "lr") == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert metrics[metrics.split == "val"].epoch.unique().tolist() == [2, 4]
    metrics = train(make(train={"epochs": 3, "batch_size": 50, "eval_every": 2})).metrics
    assert metrics[metrics.split == "test"].epoch.unique().tolist() == [2, 3]


@pytest.mark.parametrize("base", [PLAIN, RICH])
def test_equal_specs_give_equal_bytes(tmp_path, base):
    folders = [RunFolder(tmp_path / name) for name in ("one", "two")]
    for k, folder in enumerate(folders):
        torch.manual_seed(k)  # what the caller draws does not matter
        train(make(base), folder)
    assert outputs(folders[0]) == outputs(folders[1])


@pytest.mark.parametrize("base", [PLAIN, RICH])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_ends_with_the_bytes_of_an_unbroken_one(tmp_path, base, stop):
    spec, unbroken, broken = make(base), RunFolder(tmp_path / "unbroken"), RunFolder(tmp_path / "broken")
    train(spec, unbroken)

    def halt(epoch):
        if epoch["epoch"] == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(spec, broken, on_epoch=halt, checkpoint_seconds=0)
    assert broken.info()["status"] == "running"
    epochs = []
    train(spec, broken, on_epoch=lambda epoch: epochs.append(epoch["epoch"]))
    assert epochs == list(range(stop + 1, 5))
    assert outputs(broken) == outputs(unbroken)
    assert broken.info()["epochs_done"] == 4


KILLED = """
import json, sys, torch
from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import train
torch.set_num_threads(int(sys.argv[3]))
spec = RunSpec.model_validate(json.loads(sys.argv[1]))
train(spec, RunFolder(sys.argv[2]), on_epoch=lambda e: print(e["epoch"], flush=True), checkpoint_seconds=0)
"""


def test_a_run_killed_outright_is_resumed_to_the_same_bytes(tmp_path):
    plan = {**RICH, "train": {**RICH["train"], "epochs": 6}}
    unbroken, killed = RunFolder(tmp_path / "unbroken"), RunFolder(tmp_path / "killed")
    train(make(plan), unbroken)
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        KILLED,
        json.dumps(plan),
        str(killed.path),
        str(torch.get_num_threads()),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.stdout.readline().strip() != "2":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert killed.info()["status"] == "running"
    assert killed.checkpoint_path.exists()
    train(make(plan), killed)
    assert outputs(killed) == outputs(unbroken)


def stopped_run(folder: RunFolder, spec: RunSpec) -> None:
    def halt(epoch):
        if epoch["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(spec, folder, on_epoch=halt, checkpoint_seconds=0)


def truncate(folder: RunFolder) -> None:
    path = folder.checkpoint_path
    path.write_bytes(path.read_bytes()[:500])


def empty(folder: RunFolder) -> None:
    folder.checkpoint_path.write_bytes(b"")


def lose_a_part(folder: RunFolder) -> None:
    folder.parts()[0].unlink()


def age(folder: RunFolder) -> None:
    state = torch.load(folder.checkpoint_path, weights_only=True)
    torch.save({**state, "layout": 0}, folder.checkpoint_path)


@pytest.mark.parametrize("spoil", [truncate, empty, lose_a_part, age])
def test_an_unusable_checkpoint_means_starting_over_with_a_warning(tmp_path, spoil):
    spec, clean, spoilt = make(), RunFolder(tmp_path / "clean"), RunFolder(tmp_path / "spoilt")
    train(spec, clean)
    stopped_run(spoilt, spec)
    spoil(spoilt)
    with pytest.warns(RuntimeWarning, match=r"checkpoint\.pt .*; the run starts over"):
        train(spec, spoilt)
    assert outputs(spoilt) == outputs(clean)


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path):
    folder = RunFolder(tmp_path / "run")
    stopped_run(folder, make())
    with pytest.warns(RuntimeWarning, match="belongs to run"):
        assert checkpoint.load(folder, make(seed=2).id) is None


def test_divergence_is_a_result_with_its_record_kept(tmp_path):
    folder = RunFolder(tmp_path / "run")
    outcome = train(make(optimizer={"name": "sgd", "lr": 1e6}), folder)
    info = folder.info()
    assert outcome.status == info["status"] == "diverged"
    assert info["error"] is None
    assert info["diverged_at"]["epoch"] == 1
    assert 1 < info["diverged_at"]["step"] <= 5
    assert not math.isfinite(column(folder.metrics(), "train", "loss")[-1])
    assert len(column(folder.metrics(), "test", "loss")) == info["epochs_done"] == 1
    assert len(folder.layers()) > 0
    assert not folder.checkpoint_path.exists()


def test_a_loss_that_is_not_finite_only_in_evaluation_is_divergence_too():
    # One step an epoch: the training loss was computed before the step that blew up.
    outcome = train(make(train={"epochs": 3, "batch_size": 2000}, optimizer={"name": "sgd", "lr": 1e30}))
    assert outcome.status == "diverged"
    assert math.isfinite(column(outcome.metrics, "train", "loss")[0])
    assert outcome.metrics.epoch.max() == 1


def test_chance_depends_on_the_seed_and_never_on_the_arm():
    """At learning rate 0 every optimizer sees the same weights, order, augmentation and dropout."""
    runs = [{"name": "sgd", "lr": 0.0}, {"name": "adam", "lr": 0.0}, {"name": "insgd-l1", "lr": 0.0}]
    losses = [column(train(make(RICH, optimizer=optimizer)).metrics, "train", "loss") for optimizer in runs]
    assert losses[0] == losses[1] == losses[2]
    assert len(set(losses[0])) == 4  # epochs differ
    assert column(train(make(RICH, optimizer=runs[0], seed=2)).metrics, "train", "loss") != losses[0]


def test_splits_do_not_depend_on_the_seed_but_initial_weights_do():
    assert load_data(make(seed=0)) is load_data(make(seed=3))
    weights = [next(build_model(make(seed=k), (1, 8, 8), 10).parameters()) for k in (0, 0, 3)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_leaves_the_callers_global_state_alone():
    torch.manual_seed(11)
    before, threads, dtype = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    train(make(RICH))
    assert torch.equal(torch.get_rng_state(), before)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_no_layers_are_recorded_at_every_0(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(make(record={"every": 0}), folder, checkpoint_seconds=0)
    assert not folder.layers_path.exists()
    assert folder.info()["status"] == "done"


def test_recording_does_not_change_the_numbers(tmp_path):
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    train(make(RICH, record={"every": 1}), one)
    train(make(RICH, record={"every": 0}), two)
    assert one.metrics_path.read_bytes() == two.metrics_path.read_bytes()


def test_a_run_that_another_process_trains_is_left_alone(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked(), pytest.raises(StoreError, match="is being trained by another process"):
        train(make(), folder)
    assert not folder.exists


def test_a_run_that_another_process_has_finished_is_read_and_not_trained(tmp_path):
    spec, folder = make(), RunFolder(tmp_path / "run")
    trained = train(spec, folder)
    info, times = folder.info(), {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    epochs = []
    found = train(spec, folder, on_epoch=epochs.append)
    assert (found.status, found.results, found.model, found.optimizer) == (trained.status, trained.results, None, None)
    assert found.metrics.equals(trained.metrics.astype({"epoch": "int32"}))
    assert not epochs
    assert folder.info() == info
    assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == times


# 239 training images. Of the planes that batch norm sees, those of custom-cnn have shrunk to one pixel.
@pytest.mark.parametrize("size", [238, 1])
@pytest.mark.parametrize("model", ["mlp", "custom-cnn"])
def test_a_batch_of_one_image_that_batch_norm_cannot_take_is_refused_at_once(tmp_path, model, size):
    task = {"data": PLAIN["task"]["data"], "model": {"name": model, "batch_norm": True}}
    spec = make(task=task, train={"epochs": 1, "batch_size": size})
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=f"batch_size = {size}: leaves a batch of one of the 239 training images"):
        train(spec, folder)
    assert folder.info()["epochs_done"] == 0
    assert train(make(spec.model_dump(), train={"epochs": 1, "batch_size": 237})).status == "done"


def test_a_batch_of_one_image_is_trained_where_batch_norm_has_pixels_enough():
    task = {"data": PLAIN["task"]["data"], "model": {"name": "digits-cnn", "batch_norm": True}}
    assert train(make(task=task, train={"epochs": 1, "batch_size": 238})).status == "done"


def test_an_error_is_written_down_and_raised(tmp_path):
    folder = RunFolder(tmp_path / "run")
    missing = {"data": "cifar10", "model": "custom-cnn"}
    with pytest.raises(DataError, match="CIFAR-10 is not complete"):
        train(make(task=missing), folder, data_dir=Path(tmp_path / "nothing"))
    info = folder.info()
    assert info["status"] == "failed"
    assert info["error"].startswith("DataError: CIFAR-10 is not complete")
    assert info["finished"] is not None
