"""One run on several processes, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch

from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder
from insgd_lab.training.loop import train
from insgd_lab.training.ranks import Ranks
from insgd_lab.training.session import Training

# 3 images in the last batch, which two processes share unevenly, and each share in two uneven parts.
RUN = """
seed = 3
record = { every = 2, weights = true }
optimizer = { name = "insgd-l2", lr = 0.3 }
[task]
data = { name = "digits", fraction = 0.2 }
model = "digits-cnn"
[train]
epochs = 2
batch_size = 118
accumulate = 2
augment = true
"""


# Every process sees parts of the batches here, with statistics and dropouts of its own.
OWN = """
seed = 3
record = { every = 0, weights = true }
optimizer = { name = "insgd-l2", lr = 0.3 }
[task]
data = { name = "digits", fraction = 0.2 }
model = { name = "custom-cnn", dropout = 0.3 }
[train]
epochs = 60
batch_size = 80
"""
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "insgd_lab",
]  # fmt: skip


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=120
    )


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


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
    pd.testing.assert_frame_equal(*layers, rtol=1e-4, check_categorical=False)


def test_the_first_process_alone_writes_and_speaks(shared: tuple[RunFolder, RunFolder, str]) -> None:
    _, two, printed = shared
    assert json.loads(two.info_path.read_text())["processes"] == 2
    assert [line.split(";")[0][:9] for line in printed.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert printed.count("done: ") == 1
    assert len(list(Path(two.path).parent.iterdir())) == 1


def test_processes_stop_together_go_on_together_and_report_on_the_model_that_is_kept(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(OWN)
    command = ("train", str(config), "--out", str(tmp_path / "runs"))
    with subprocess.Popen(
        [*TORCHRUN, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while not process.stdout.readline().startswith("epoch 2/"):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, stderr = process.communicate(timeout=60)
    (run,) = (RunFolder(path.parent) for path in (tmp_path / "runs").glob("*/run.json"))
    assert stderr.count("Stopping after this epoch") == 1
    info = run.info()
    assert (info["status"], info["error"]) == ("running", None)
    assert info["epochs_done"] == torch.load(run.checkpoint_path, weights_only=True)["epoch"] >= 2
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"epoch {info['epochs_done'] + 1}/60")
    training = Training(RunSpec.from_canonical(run.info()["spec"]))
    training.model.load_state_dict(torch.load(run.weights_path, weights_only=True))
    assert training._measure("test")["accuracy"] == run.info()["results"]["final_test_accuracy"]


def test_processes_drop_out_different_units() -> None:
    spec = RunSpec.model_validate({**tomllib.loads(OWN), "train": {"epochs": 1, "batch_size": 80}})
    outputs = []
    for rank in range(2):
        training = Training(spec)
        training.ranks = Drawing(rank)
        training.take = lambda x, y, count: outputs.append(torch.rand(5)) or torch.zeros(())
        with suppress(ZeroDivisionError):  # nothing has been counted
            training.run_epoch()
    assert not torch.equal(outputs[0], outputs[len(outputs) // 2])


class Drawing(Ranks):
    """One of two processes as far as random streams go."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, 1)


def test_a_refused_setting_is_told_once_below_all_that_torchrun_says() -> None:
    done = torchrun("train", "--optimizer", "sgd", "--set", "lr=-1")
    assert done.returncode != 0
    last = [line.strip() for line in done.stderr.splitlines() if line.strip(" =")][-2:]
    assert last == [
        "traceback : error: options: 1 problem", "optimizer.lr = -1: expected a finite number >= 0",
    ]  # fmt: skip
    assert done.stderr.count("expected a finite number") == 1
