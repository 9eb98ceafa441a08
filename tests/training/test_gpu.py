"""What only a GPU can show: the device's path, and steps replayed as one CUDA graph. Not run yet: none was at hand."""

import itertools

import pytest
import torch

from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import train
from insgd_lab.training.session import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

BASE = {
    "task": {"data": {"name": "digits", "fraction": 0.5}, "model": {"name": "custom-cnn", "dropout": 0.0}},
    "train": {"epochs": 3, "batch_size": 50, "augment": True, "schedule": "cosine"},
    "record": {"every": 4},
    "optimizer": {"name": "insgd-l2", "lr": 0.3},
    "seed": 1,
}


def make(name: str = "insgd-l2", **settings) -> RunSpec:
    return RunSpec.model_validate({**BASE, "train": {**BASE["train"], **settings}, "optimizer": {"name": name}})


def test_a_run_on_a_gpu_is_near_that_on_the_cpu():
    spec = make(epochs=1)
    cpu, gpu = (train(spec, device=device) for device in ("cpu", "cuda"))
    for name, value in cpu.model.state_dict().items():
        torch.testing.assert_close(gpu.model.state_dict()[name].cpu(), value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "insgd-l1", "insgd-l2", "adamnorm", "adam", "lars"])
def test_replayed_steps_are_the_plain_ones(name, tmp_path):
    folders = [RunFolder(tmp_path / kind) for kind in ("plain", "graphed")]
    outcomes = [
        train(make(name, cuda_graph=graph), folder, device="cuda")
        for folder, graph in zip(folders, (False, True), strict=True)
    ]
    for key, value in outcomes[0].model.state_dict().items():
        torch.testing.assert_close(outcomes[1].model.state_dict()[key], value, rtol=1e-3, atol=1e-5)
    plain, graphed = (folder.layers() for folder in folders)
    assert graphed.step.unique().tolist() == plain.step.unique().tolist()
    assert len(graphed) == len(plain)


def test_a_graph_is_replayed_and_not_only_recorded():
    training = Training(make(cuda_graph=True), device="cuda")
    calls = []
    take = training.take.take
    training.take.take = lambda *batch: calls.append(1) or take(*batch)
    for _ in training.epochs():
        pass
    assert training.progress.step == 36
    assert len(calls) == 3 + 1 + 3  # the first, the recorded one, and the short last batch of each epoch


def test_a_graphed_run_goes_on_from_its_checkpoint(tmp_path):
    """Under a schedule, with dropout, whose streams and rates a graph must go on reading where they are."""
    task = {**BASE["task"], "model": {"name": "custom-cnn", "dropout": 0.3}}
    spec = RunSpec.model_validate(
        {**BASE, "task": task, "train": {**BASE["train"], "cuda_graph": True, "clip_norm": 1}}
    )
    whole, broken, asked = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken"), itertools.count(1)
    train(spec, whole, device="cuda")
    with pytest.raises(KeyboardInterrupt):
        train(spec, broken, device="cuda", stop=lambda: next(asked) == 17)
    train(spec, broken, device="cuda")
    losses = [folder.metrics().query("metric == 'loss'").value.tolist() for folder in (whole, broken)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"accumulate": 2}, {"clip_norm": 0.1}])
@pytest.mark.parametrize("name", ["insgd-l2", "adamw", "rmsprop"])
def test_a_graph_holds_every_option_of_a_step(name, settings):
    plain, graphed = (train(make(name, cuda_graph=graph, **settings), device="cuda") for graph in (False, True))
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(graphed.model.state_dict()[key], value, rtol=1e-2, atol=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_graph_is_on_the_gpu_that_is_asked_for():
    outcome = train(make(cuda_graph=True), device="cuda:1")
    assert {p.device for p in outcome.model.parameters()} == {torch.device("cuda:1")}
    assert outcome.results["final_test_accuracy"] == pytest.approx(
        train(make(), device="cuda:0").results["final_test_accuracy"], abs=0.05
    )
