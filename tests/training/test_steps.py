"""Options of the training step, and going on from any step."""

import copy
import itertools
import math
import time

import pytest
import torch
from torch import nn
from torch.nn import functional

import insgd_lab as lab
from insgd_lab.config import RunSpec
from insgd_lab.recorders import Recorder
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import train
from insgd_lab.training.session import Training

CNN = {"name": "custom-cnn", "dropout": 0.5}
BASE = {
    "task": {"data": {"name": "digits", "fraction": 0.2}, "model": "digits-cnn"},
    "train": {"epochs": 2, "batch_size": 50},
    "record": {"every": 3},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "seed": 1,
}
# Every source of chance, every kind of state, and every part of a step at once: 5 batches an epoch.
RICH = {
    "task": {"data": {"name": "digits", "fraction": 0.2}, "model": CNN},
    "train": {
        "epochs": 3, "batch_size": 50, "augment": True, "precision": "float16", "accumulate": 3, "clip_norm": 0.5,
        "label_smoothing": 0.1, "eval_every": 2, "schedule": {"name": "cosine", "warmup": 0.5},
    },
    "optimizer": {"name": "insgd-l2", "lr": 0.5},
}  # fmt: skip


def make(base=BASE, **changes) -> RunSpec:
    return RunSpec.model_validate({**BASE, **base, **changes})


def with_train(**changes) -> RunSpec:
    return make(train={**BASE["train"], **changes})


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def outputs(folder: RunFolder) -> tuple[bytes, bytes]:
    return folder.metrics_path.read_bytes(), folder.layers_path.read_bytes()


def column(metrics, split, metric) -> list[float]:
    return metrics[(metrics.split == split) & (metrics.metric == metric)].value.tolist()


def stop_after(steps: int):
    asked = itertools.count(1)
    return lambda: next(asked) >= steps


@pytest.fixture(scope="module", params=[BASE, RICH], ids=["plain", "rich"])
def unbroken(request, tmp_path_factory):
    spec = make(request.param)
    folder = RunFolder(tmp_path_factory.mktemp("unbroken") / "run")
    train(spec, folder)
    return spec, folder


# Of the rich run: in the first epoch, before, at and after its end, and just before the run's.
@pytest.mark.parametrize("steps", [1, 4, 5, 6, 8, 14])
def test_a_run_stopped_at_any_step_goes_on_to_the_bytes_of_an_unbroken_one(unbroken, tmp_path, steps):
    spec, whole = unbroken
    broken = RunFolder(tmp_path / "broken")
    if steps >= 5 * spec.train.epochs:
        steps = 7
    with pytest.raises(KeyboardInterrupt):
        train(spec, broken, stop=stop_after(steps), checkpoint_seconds=math.inf)
    assert torch.load(broken.checkpoint_path, weights_only=True)["step"] == steps
    train(spec, broken)
    assert outputs(broken) == outputs(whole)
    assert len(broken.info()["epochs"]) == spec.train.epochs


def test_a_run_may_be_stopped_after_every_step(unbroken, tmp_path):
    spec, whole = unbroken
    broken = RunFolder(tmp_path / "broken")
    for _ in range(5 * spec.train.epochs - 1):
        with pytest.raises(KeyboardInterrupt):
            train(spec, broken, stop=lambda: True)
    train(spec, broken, stop=lambda: True)
    assert outputs(broken) == outputs(whole)


@pytest.mark.parametrize("parts", [2, 7, 50])
@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.1}, {"name": "insgd-l2", "lr": 0.5}])
def test_a_batch_in_parts_gives_the_step_of_the_whole(parts, optimizer):
    whole, split = (train(make(train={**BASE["train"], "accumulate": k}, optimizer=optimizer)) for k in (1, parts))
    torch.testing.assert_close(weights(split.model), weights(whole.model), rtol=2e-4, atol=2e-6)
    assert column(split.metrics, "train", "loss") == pytest.approx(column(whole.metrics, "train", "loss"), rel=1e-4)
    assert column(split.metrics, "train", "accuracy") == column(whole.metrics, "train", "accuracy")


def test_the_gradient_of_all_parameters_together_is_clipped():
    training = Training(make(optimizer={"name": "sgd", "lr": 1.0}, train={**BASE["train"], "clip_norm": 0.01}))
    before = weights(training.model)
    training.step(*next(training.feed.epoch(1)), training.tally, 50)
    assert float((weights(training.model) - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_clipping_far_above_every_gradient_changes_nothing():
    assert train(with_train(clip_norm=1e6)).metrics.equals(train(with_train()).metrics)


def test_a_recorder_sees_the_clipped_gradient(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(with_train(clip_norm=0.01), folder)
    layers = folder.layers()
    norms = layers[(layers.quantity == "grad_norm") & (layers.step == 1)].value
    assert float((norms**2).sum()) == pytest.approx(1e-4, rel=1e-3)


def test_labels_are_smoothed_in_training_and_not_in_evaluation():
    training = Training(with_train(label_smoothing=0.3))
    x, y = next(training.feed.epoch(1))
    scores = training.model(x).detach()
    loss = training.step(x, y, training.tally, len(y))
    target = functional.one_hot(y, 10) * 0.7 + 0.03
    assert float(loss) == pytest.approx(float(-(target * scores.log_softmax(1)).sum(1).mean()), rel=1e-5)
    training.model.eval()
    with torch.no_grad():
        plain = sum(
            float(functional.cross_entropy(training.model(x), y, reduction="sum"))
            for x, y in training.feed.evaluate("test")
        )
    assert training._measure("test")["loss"] == pytest.approx(plain / 300, rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_and_keeps_its_state_in_float32(precision):
    plain, half = (train(with_train(epochs=4, precision=p)) for p in ("float32", precision))
    losses = [column(outcome.metrics, "train", "loss") for outcome in (plain, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[0] != losses[1]
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    buffers = [value for state in half.optimizer.state.values() for value in state.values()]
    assert {b.dtype for b in buffers if isinstance(b, torch.Tensor)} <= {torch.float32, torch.float64}


def test_float16_scales_the_loss_and_skips_steps_that_overflow():
    training = Training(with_train(precision="float16"))
    before = weights(training.model)
    training.step.scaler._init_scale = 2.0**60
    training.step(*next(training.feed.epoch(1)), training.tally, 50)
    assert torch.equal(weights(training.model), before)
    assert training.step.scaler.get_scale() < 2.0**60


def test_precisions_leave_the_callers_settings_alone():
    def allowed(report=None):
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()  # torch's compiler reads both

    before, seen = allowed(), []
    train(with_train(precision="tf32"), on_epoch=lambda report: seen.append(allowed()))
    train(with_train(), on_epoch=lambda report: seen.append(allowed()))
    assert seen == [(True, "high")] * 2 + [(False, "highest")] * 2
    assert allowed() == before


def test_where_the_channels_lie_is_a_matter_of_rounding():
    inner, outer = (train(with_train(channels_last=value)) for value in (True, False))
    assert inner.model.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert outer.model.conv2.weight.is_contiguous()
    torch.testing.assert_close(weights(inner.model), weights(outer.model), rtol=1e-4, atol=1e-6)


@pytest.fixture
def _uncompiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, in tracing
@pytest.mark.usefixtures("_uncompiled")
def test_a_compiled_model_takes_the_same_steps(monkeypatch):
    # Without the code generator, which takes a minute: what is compiled, when and with which hooks is the same.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="eager"))
    optimizer = {"name": "insgd-l2", "lr": 0.5}
    plain, compiled = (
        train(make(optimizer=optimizer, train={**BASE["train"], "compile": value})) for value in (False, True)
    )
    torch.testing.assert_close(weights(compiled.model), weights(plain.model), rtol=1e-5, atol=1e-7)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())


def test_trained_weights_are_kept_where_asked(tmp_path):
    folder = RunFolder(tmp_path / "run")
    outcome = train(make(record={"every": 0, "weights": True}), folder)
    kept = torch.load(folder.weights_path, weights_only=True)
    for name, value in outcome.model.state_dict().items():
        assert torch.equal(kept[name], value)


@pytest.mark.parametrize("name", ["sgd", "insgd-l2", "adamnorm"])
def test_nothing_asks_for_a_value_inside_an_epoch(name):
    """On a device whose tensors have no values, whoever asks for one gets an error."""
    settings = {**RICH["train"], "precision": "float32"}
    training = Training(make(RICH, optimizer={"name": name}, train=settings), device="meta")
    training.optimizer.capturable = True  # as on a GPU with `cuda_graph`
    for group in training.optimizer.param_groups:
        group["lr"] = torch.tensor(0.1, dtype=torch.float64, device="meta")
    training.model.train()
    for k, (x, y) in enumerate(training.feed.epoch(1)):
        assert x.is_meta
        training.losses[k] = training.take(x, y, len(y))
    assert k == 4


def test_a_recorder_counts_steps_that_it_is_told_of():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder, due = Recorder(model, optimizer, every=3), []
    for _ in range(7):
        due.append(recorder.due)
        if recorder.due:
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        else:
            recorder.pass_by()  # as after the replay of a graph
    assert due == [step % 3 == 1 for step in range(1, 8)]
    assert recorder.frame().step.unique().tolist() == [1, 4, 7]


def test_looking_at_the_state_after_each_step_does_not_disturb_a_run():
    spec, seen = make(RICH), []
    training = Training(spec)
    for _ in training.epochs(lambda: seen.append(copy.deepcopy(training.state_dict()))):
        pass
    assert training.progress.table().equals(train(spec).metrics)
    assert [state["partial"]["batch"] for state in seen] == [1, 2, 3, 4] * 3


@pytest.mark.parametrize("name", ["insgd-l2", "adamw"])
@pytest.mark.parametrize("saved", [0.05, torch.tensor(0.05, dtype=torch.float64)])
def test_loading_a_state_keeps_the_tensor_of_the_rate_that_a_graph_reads(name, saved):
    training = Training(make(optimizer={"name": name, "lr": 0.1}))
    state = training.state_dict()
    state["optimizer"]["param_groups"][0]["lr"] = saved
    (group,) = training.optimizer.param_groups
    rate = group["lr"] = torch.tensor(0.1, dtype=torch.float64)
    training.load_state_dict(state)
    assert training.optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.05


def test_a_rate_that_was_a_tensor_is_a_number_where_no_graph_reads_it():
    training = Training(make())
    state = training.state_dict()
    state["optimizer"]["param_groups"][0]["lr"] = torch.tensor(0.05)
    training.load_state_dict(state)
    assert isinstance(training.optimizer.param_groups[0]["lr"], float)


def test_steps_that_float16_skips_are_told_and_leave_the_numbers_of_steps_in_line(tmp_path, monkeypatch):
    start = Training.__init__

    def with_a_large_scale(self, *args, **kwargs):
        start(self, *args, **kwargs)
        self.step.scaler._init_scale = 2.0**40

    monkeypatch.setattr(Training, "__init__", with_a_large_scale)
    folder = RunFolder(tmp_path / "run")
    train(make(record={"every": 1}, train={**BASE["train"], "precision": "float16", "epochs": 8}), folder)
    skipped = folder.info()["skipped_steps"]
    assert 0 < skipped < 40
    steps = folder.layers().step.unique()
    assert (len(steps), steps.max()) == (40 - skipped, 40)


def test_run_json_tells_how_far_a_run_has_come_when_it_stops_and_while_it_goes_on(tmp_path):
    folder, spec, seen = RunFolder(tmp_path / "run"), make(RICH), []
    with pytest.raises(KeyboardInterrupt):
        train(spec, folder, stop=stop_after(7))
    stopped = folder.info()
    assert (stopped["status"], stopped["epochs_done"]) == ("running", 1)
    train(spec, folder, on_epoch=lambda report: seen.append(folder.info()))
    assert (seen[0]["epochs_done"], seen[0]["started"]) == (1, stopped["started"])


def test_the_time_that_checkpoints_take_is_not_the_trainings():
    training = Training(make())
    for _ in training.epochs(lambda: time.sleep(0.05)):
        pass
    assert sum(training.progress.training_seconds) < 8 * 0.05


def test_a_run_whose_data_changed_since_its_checkpoint_starts_over(tmp_path, monkeypatch):
    folder, spec = RunFolder(tmp_path / "run"), make()
    with pytest.raises(KeyboardInterrupt):
        train(spec, folder, stop=stop_after(7))
    monkeypatch.setattr(Training, "fingerprint", "other")
    with pytest.warns(RuntimeWarning, match="its data changed since the checkpoint was written; the run starts over"):
        train(spec, folder)
    assert folder.metrics().value.tolist() == train(spec).metrics.value.tolist()


def test_only_weights_with_four_axes_have_their_channels_last():
    class Volumes(nn.Module):
        def __init__(self, shape, classes):
            super().__init__()
            self.conv = nn.Conv3d(1, 2, 3)
            self.head = nn.Linear(2 * 6 * 6, classes)

        def forward(self, x):
            return self.head(self.conv(x[:, :, None].expand(-1, -1, 3, -1, -1)).flatten(1))

    lab.register_model(lab.ModelSpec("volumes", Volumes))
    assert train(make(task={**BASE["task"], "model": "volumes"})).status == "done"
