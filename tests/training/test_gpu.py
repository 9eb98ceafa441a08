"""What only a GPU can show: the device's path, and steps replayed as one CUDA graph."""

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
