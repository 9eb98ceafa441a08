"""One run on several processes, as torchrun starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import train

# 37 images in the last batch, which two processes share unevenly, and each share in two uneven parts.
RUN = """
seed = 3
record = { every = 2, weights = true }
optimizer = { name = "insgd-l2", lr = 0.3 }
[task]
data = { name = "digits", fraction = 0.2 }
model = "digits-cnn"
[train]
epochs = 2
batch_size = 101
accumulate = 2
augment = true
"""


def torchrun(*arguments: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
        "-m", "insgd_lab", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder, str]:
    """The same run on one process and on two, and what the two printed."""
    folder = tmp_path_factory.mktemp("ranks")
    config = folder / "run.toml"
    config.write_text(RUN)
    done = torchrun("train", str(config), "--out", str(folder / "two"))
    assert done.returncode == 0, done.stderr
    two = RunFolder(next((folder / "two").glob("*/run.json")).parent)
    spec = RunSpec.from_canonical(two.info()["spec"])
    one = RunFolder(folder / "one" / spec.id)
    train(spec, one)
    return one, two, done.stdout


def test_two_processes_give_the_result_of_one(shared: tuple[RunFolder, RunFolder, str]) -> None:
    one, two, _ = shared
    weights = [torch.load(folder.weights_path, weights_only=True) for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)
    metrics = [folder.metrics() for folder in (one, two)]
    pd.testing.assert_frame_equal(*metrics, rtol=1e-4, atol=0.005)  # one image may be on the brink
    layers = [folder.layers().sort_values(["step", "parameter", "quantity"]) for folder in (one, two)]
    layers = [frame[frame.quantity.isin(["grad_norm", "input_power", "step_scale"])] for frame in layers]
    pd.testing.assert_frame_equal(*layers, rtol=1e-3, check_categorical=False)


def test_the_first_process_alone_writes_and_speaks(shared: tuple[RunFolder, RunFolder, str]) -> None:
    _, two, printed = shared
    assert json.loads(two.info_path.read_text())["processes"] == 2
    assert [line.split(";")[0][:9] for line in printed.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert printed.count("done: ") == 1
    assert len(list(Path(two.path).parent.iterdir())) == 1
