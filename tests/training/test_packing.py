"""Packed equals alone: the same numbers up to rounding, the same tables, the same ends."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from insgd_lab import registry
from insgd_lab.config import RunSpec
from insgd_lab.input_statistics import (
    ConvShape,
    Settings,
    conv_statistic,
    conv_statistics,
    vector_statistic,
    vector_statistics,
)
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import Outcome, train
from insgd_lab.training.models import custom_cnn, digits_cnn, linear, mlp, resnet20, vit
from insgd_lab.training.packing import NotPackable, PackedModel, PackedTraining, train_packed, worth_packing
from insgd_lab.training.packing.optimizers import share_optimizers
from insgd_lab.training.session import Training
from insgd_lab.training.streams import generator, global_stream

INSGD = {"name": "insgd-lp", "lr": 0.1}
# With Adam's own eps a gradient that is nothing but rounding makes a whole step.
ADAMNORM = {"name": "adamnorm", "lr": 0.01, "eps": 1e-3}
OPTIMIZERS = [
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    {**INSGD, "p": 1.0},
    {**INSGD, "p": 1.0},
    {**INSGD, "p": 2.0, "granularity": "channel", "center": True},
    {**INSGD, "p": math.inf, "granularity": "neuron"},
    {**INSGD, "p": 3.0, "beta": 0.0, "damping": "additive", "eps": 1.0, "granularity": "neuron", "center": True},
    ADAMNORM,
    {**ADAMNORM, "scope": "global"},
    {**ADAMNORM, "scope": "global"},
    {"name": "lars", "lr": 1.0},
    {"name": "rmsprop", "lr": 0.001, "eps": 1e-3},
]
BASE = {
    "task": {"data": {"name": "digits", "fraction": 0.2}, "model": "digits-cnn"},
    "train": {"epochs": 3, "batch_size": 50},
    "record": {"every": 3},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
}
# Every part of a step, every source of chance and every kind of state that a pack knows: 5 batches an epoch.
RICH = {
    **BASE,
    "task": {"data": {"name": "digits", "fraction": 0.2}, "model": {"name": "custom-cnn", "dropout": 0.5}},
    "train": {
        "epochs": 3, "batch_size": 50, "augment": True, "accumulate": 2, "clip_norm": 0.5, "label_smoothing": 0.1,
        "eval_every": 2, "schedule": {"name": "cosine", "warmup": 0.5},
    },
}  # fmt: skip


def runs(base: dict[str, object] = BASE, optimizers: list[dict[str, object]] = OPTIMIZERS) -> list[RunSpec]:
    """A run of each optimizer, each with a seed of its own."""
    return [RunSpec.model_validate({**base, "optimizer": o, "seed": seed}) for seed, o in enumerate(optimizers)]


def folders(tmp_path, specs: list[RunSpec], name: str) -> list[RunFolder]:
    return [RunFolder(tmp_path / name / spec.id) for spec in specs]


def off_by(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


# ---------------------------------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize(
    ("factory", "shape", "steps"),
    [
        (digits_cnn, (1, 8, 8), 4),
        (lambda *task: custom_cnn(*task, dropout=0.5), (3, 8, 8), 4),
        (lambda *task: mlp(*task, batch_norm=True, hidden=(20, 12)), (1, 8, 8), 4),
        (mlp, (1, 8, 8), 4),
        (linear, (1, 8, 8), 4),
        (resnet20, (3, 8, 8), 2),
        (lambda *task: resnet20(*task, batch_norm=False), (3, 8, 8), 2),
    ],
    ids=["digits-cnn", "custom-cnn", "mlp-bn", "mlp", "linear", "resnet20", "resnet20-plain"],
)
def test_in_float64_packed_equals_alone_to_eleven_digits(
    factory: Callable[..., nn.Module], shape: tuple[int, ...], steps: int
) -> None:
    specs = runs()
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(steps, len(specs), 6, *shape, generator=stream, dtype=torch.float64)
    labels = torch.randint(0, 5, (steps, len(specs), 6), generator=stream)
    members = []
    for spec in specs:
        with global_stream(spec.seed, "initial weights"):
            members.append(factory(shape, 5).double())
    alone = copy.deepcopy(members)
    for spec, model, x, y in zip(specs, alone, images.unbind(1), labels.unbind(1), strict=True):
        optimizer = registry.create_optimizer(spec.optimizer.name, model, **spec.optimizer.options)
        with global_stream(spec.seed, "dropout"):
            for step in range(steps):
                optimizer.zero_grad()
                functional.cross_entropy(model(x[step]), y[step]).backward()
                optimizer.step()
    packed = PackedModel(members, shape)
    packed.set_streams([generator(spec.seed, "dropout") for spec in specs])
    shared = share_optimizers(specs, packed)
    for step in range(steps):
        packed.clear_gradients()
        outputs = packed.apart(packed(packed.together(images[step])))
        losses = functional.cross_entropy(outputs.flatten(0, 1), labels[step].flatten(), reduction="none")
        losses.view(len(specs), -1).mean(1).sum().backward()
        packed.share_gradients()
        for each in shared:
            each.optimizer.step()
    for spec, member, wanted in zip(specs, members, alone, strict=True):
        for name, value in wanted.state_dict().items():
            assert off_by(member.state_dict()[name].double(), value.double()) < 1e-11, (spec.optimizer, name)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("granularity", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("center", [False, True])
def test_statistics_side_by_side_are_those_of_each(p: float, granularity: str, center: bool) -> None:
    settings = Settings(p, granularity, center)
    x = torch.randn(
        3, 5, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).exp()  # members first
    x[1] *= 1e-30  # its powers, and no one else's, vanish in float32
    shape = ConvShape(2, (3, 3), (2, 1), (1, 2), (1, 1, 0, 2), "zeros")
    beside = x.float().transpose(0, 1).flatten(1, 2)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = conv_statistics(beside.contiguous(memory_format=layout), settings, shape, 3)
        wanted = torch.stack([conv_statistic(each, settings, shape) for each in x])
        torch.testing.assert_close(found.squeeze(), wanted.squeeze().view(found.squeeze().shape), rtol=1e-5, atol=1e-5)
    vectors = x.flatten(2).float()
    found = vector_statistics(vectors.transpose(0, 1).flatten(1, 2), settings, 3)
    wanted = torch.stack([vector_statistic(each, settings) for each in vectors])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_members_with_one_optimizer_and_its_options_share_it_unless_a_rule_looks_at_all_parameters() -> None:
    specs = runs()
    packed = PackedModel([digits_cnn((1, 8, 8), 5) for _ in specs], (1, 8, 8))
    assert sorted(each.members for each in share_optimizers(specs, packed)) == [
        [0], [1, 2], [3], [4], [5], [6], [7], [8], [9], [10],
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- the runs


def close(found: Outcome, wanted: Outcome) -> None:
    """Float32, 15 steps: weights and losses to 1e-3; an image at the boundary may change sides."""
    assert found.status == wanted.status
    keys = ["epoch", "step", "split", "metric"]
    assert found.metrics[keys].equals(wanted.metrics[keys])
    is_loss = wanted.metrics.metric.isin(["loss", "lr"]).to_numpy()
    np.testing.assert_allclose(found.metrics.value[is_loss], wanted.metrics.value[is_loss], rtol=1e-3)
    np.testing.assert_allclose(found.metrics.value, wanted.metrics.value, rtol=1e-3, atol=0.01)
    for name, value in wanted.model.state_dict().items():
        assert off_by(found.model.state_dict()[name].double(), value.double()) < 1e-3, name


def same_records(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert (found.dtypes == wanted.dtypes).all()
    keys = ["step", "parameter", "quantity"]
    assert found[keys].astype(str).equals(wanted[keys].astype(str))
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-2, atol=1e-4)  # cosines of what nearly cancels


@pytest.mark.parametrize("base", [BASE, RICH], ids=["plain", "rich"])
def test_packed_runs_leave_what_they_leave_alone(tmp_path, base) -> None:
    specs = runs(base)
    kept, own = folders(tmp_path, specs, "packed"), folders(tmp_path, specs, "alone")
    packed = train_packed(specs, kept)
    for spec, outcome, folder, other in zip(specs, packed, kept, own, strict=True):
        close(outcome, train(spec, other))
        same_records(folder.layers(), other.layers())
        assert sorted(path.name for path in folder.path.iterdir()) == sorted(p.name for p in other.path.iterdir())
        found, wanted = folder.info(), other.info()
        assert (found["packing"], wanted["packing"]) == (len(specs), 1)
        assert found.keys() == wanted.keys()
        for key in ("id", "spec", "seed", "status", "epochs_done", "diverged_at", "parameters"):
            assert found[key] == wanted[key]


@pytest.mark.parametrize(
    ("data", "model", "size"), [("system-identification", "linear", 50), ("teacher-student", "mlp", 64)]
)
def test_data_and_objectives_of_any_kind_are_packed(data: str, model: str, size: int) -> None:
    """Streams that differ from seed to seed, and losses that are known for one member only."""
    base = {**BASE, "task": {"data": data, "model": model}, "train": {"epochs": 1, "batch_size": size}}
    rules = [{"name": "sgd", "lr": 0.01}, {"name": "nlms", "lr": 0.1}, {**INSGD, "lr": 0.01}]
    pack = PackedTraining(runs(base, rules))
    members = list(pack.members)
    for _ in pack.epochs():
        pass
    for member in members:
        alone = Training(member.spec)
        for _ in alone.epochs():
            pass
        found, wanted = member.progress.table(), alone.progress.table()
        assert found.metric.tolist() == wanted.metric.tolist()
        np.testing.assert_allclose(found.value, wanted.value, rtol=1e-3, atol=1e-6)


def test_a_member_that_diverges_leaves_at_its_own_step_and_disturbs_no_one(tmp_path) -> None:
    wild = {"name": "sgd", "lr": 1e18}
    specs = runs(BASE, [OPTIMIZERS[0], wild, OPTIMIZERS[1], OPTIMIZERS[2], {**INSGD, "p": 1.0, "lr": 1e30}])
    ended: list[str] = []
    packed = train_packed(specs, folders(tmp_path, specs, "packed"), on_end=lambda spec, _: ended.append(spec.id))
    for spec, outcome, folder in zip(specs, packed, folders(tmp_path, specs, "packed"), strict=True):
        other = RunFolder(tmp_path / "alone" / spec.id)
        wanted = train(spec, other)
        assert outcome.status == wanted.status
        assert folder.info()["diverged_at"] == other.info()["diverged_at"]
        assert folder.info()["epochs_done"] == other.info()["epochs_done"]
        if wanted.status == "done":
            close(outcome, wanted)
            same_records(folder.layers(), other.layers())
    assert ended[:2] == [specs[1].id, specs[4].id]
    assert [outcome.status for outcome in packed] == ["done", "diverged", "done", "done", "diverged"]


def stop_after(steps: int) -> Callable[[], bool]:
    asked = itertools.count(1)
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("steps", [5, 8])
def test_a_pack_that_was_stopped_goes_on_packed_or_alone(tmp_path, steps: int) -> None:
    specs = runs(RICH)
    unbroken, broken = folders(tmp_path, specs, "unbroken"), folders(tmp_path, specs, "broken")
    whole = train_packed(specs, unbroken)
    with pytest.raises(KeyboardInterrupt):
        train_packed(specs, broken, stop=stop_after(steps))
    assert {folder.info()["status"] for folder in broken} == {"running"}
    close(train(specs[3], broken[3]), whole[3])
    others = [k for k in range(len(specs)) if k != 3]
    resumed = train_packed([specs[k] for k in others], [broken[k] for k in others])
    for k, outcome in zip(others, resumed, strict=True):
        close(outcome, whole[k])
        same_records(broken[k].layers(), unbroken[k].layers())


def test_runs_stopped_alone_go_on_packed_those_at_one_step_together(tmp_path) -> None:
    specs = runs(RICH, OPTIMIZERS[:4])
    started = folders(tmp_path, specs, "started")
    for spec, folder, steps in zip(specs[:3], started, (7, 7, 12), strict=False):
        with pytest.raises(KeyboardInterrupt):
            train(spec, folder, stop=stop_after(steps))
    outcomes = train_packed(specs, started)
    for spec, outcome, folder in zip(specs, outcomes, started, strict=True):
        other = RunFolder(tmp_path / "alone" / spec.id)
        close(outcome, train(spec, other))
        same_records(folder.layers(), other.layers())
    assert [folder.info()["packing"] for folder in started] == [2, 2, 1, 1]


# --------------------------------------------------------------------------------- what cannot be packed


class Mixed(nn.Module):
    """Channels, or chance, outside of the layers that are packed."""

    def __init__(self, mixes: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.mixes = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), mixes

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mixes(self.conv(x)).mean((2, 3)))
        return out


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: x.softmax(1),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x.flip(1),
        lambda x: functional.dropout(x, 0.1),
    ],
    ids=["softmax", "centred", "flipped", "dropped"],
)
def test_forward_code_that_mixes_channels_is_refused(mixes: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(NotPackable, match=r"Mixed\.forward does not compute side by side"):
        PackedModel([Mixed(mixes) for _ in range(3)], (1, 8, 8))


@pytest.mark.usefixtures("vision")
def test_torchvisions_mobilenet_is_packed() -> None:
    entry = registry.get_model("mobilenetv3")
    factory = registry.resolve_factory(entry.factory)
    PackedModel([factory((3, 32, 32), 10, **entry.defaults) for _ in range(2)], (3, 32, 32))


def test_parameters_outside_of_known_layers_are_refused() -> None:
    with pytest.raises(NotPackable, match="VisionTransformer itself has parameters"):
        PackedModel([vit((1, 8, 8), 3, dim=16, depth=1, heads=2, mlp_dim=8) for _ in range(2)], (1, 8, 8))
    with pytest.raises(NotPackable, match="shares a parameter"):
        PackedModel([tied() for _ in range(2)], (8,))
    with pytest.raises(NotPackable, match="momentum=None"):
        PackedModel([nn.Sequential(nn.BatchNorm1d(8, momentum=None)) for _ in range(2)], (8,))
    with pytest.raises(NotPackable, match="unlike architecture"):
        PackedModel([nn.Linear(8, 2), nn.Linear(8, 3)], (8,))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize("option", [{"precision": "float16"}, {"compile": True}, {"cuda_graph": True}])
def test_settings_without_packed_form_are_refused_before_anything_is_written(tmp_path, option) -> None:
    specs = runs({**BASE, "train": {**BASE["train"], **option}}, OPTIMIZERS[:2])
    with pytest.raises(NotPackable, match=next(iter(option))):
        train_packed(specs, folders(tmp_path, specs, "runs"))
    assert not any(folder.exists for folder in folders(tmp_path, specs, "runs"))
    with pytest.raises(NotPackable, match="differ in task, train or record"):
        train_packed([*runs()[:1], *specs], folders(tmp_path, [*runs()[:1], *specs], "unlike"))


def test_packing_is_worth_it_where_a_batch_is_little_arithmetic() -> None:
    assert worth_packing(runs()[0])
    large = {"task": {"data": "digits", "model": "resnet20"}, "train": {"epochs": 1, "batch_size": 128}}
    assert not worth_packing(runs({**BASE, **large})[0])


def test_a_model_that_leaves_a_pack_holds_its_own_numbers_only(tmp_path) -> None:
    specs = runs({**BASE, "record": {"every": 0, "weights": True}}, OPTIMIZERS[:4])
    kept = folders(tmp_path, specs, "packed")
    outcomes = train_packed(specs, kept)
    for spec, outcome, folder in zip(specs, outcomes, kept, strict=True):
        saved = torch.load(folder.weights_path, weights_only=True)
        for name, value in outcome.model.state_dict().items():
            assert torch.equal(saved[name], value)
            assert saved[name].untyped_storage().nbytes() == saved[name].nbytes
        close(outcome, train(spec))
