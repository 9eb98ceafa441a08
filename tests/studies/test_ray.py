"""Studies on a real Ray: one of a study's own, and a cluster of nodes on this machine, which lose workers and die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.store import RunFolder, StudyFolder
from insgd_lab.studies.ray_executor import lifetime

from .made import FATEFUL

Start = Callable[..., subprocess.Popen[str]]

# Two Rays at a time disturb each other's timing; under --dist loadgroup these tests stay together.
pytestmark = [pytest.mark.xdist_group("ray")]

TASK = """
[task]
data = { name = "digits", fraction = 0.1 }
model = { name = "mlp", hidden = [8] }
"""
STUDY = f"""
name = "small"
seeds = 4
{TASK}
[train]
epochs = 6
batch_size = 16
[[arm]]
name = "insgd"
optimizer = {{ name = "insgd-lp", lr = 0.3 }}
axes = {{ p = [1, 2, inf] }}
"""
FATES = f"""
name = "fates"
seeds = 1
plugins = ["fateful_on_ray"]
{TASK}
[train]
epochs = 1
[[arm]]
name = "fateful"
optimizer = "fateful"
axes = {{ fate = ["killed", "raised", "lived"] }}
"""
HELD = f"""
name = "held"
seeds = 1
plugins = ["held_on_ray"]
{TASK}
[train]
epochs = 2
batch_size = 16
[[arm]]
name = "held"
optimizer = "held"
axes = {{ lr = [0.1, 0.2, 0.3] }}
"""
# A run tells on which node it trains, and waits there until it may go on.
HOLDER = """
import time
from pathlib import Path
import ray
import torch
from insgd_lab import register_optimizer

HERE = Path(__file__).parent

@register_optimizer("held")
class Held(torch.optim.SGD):
    def __init__(self, model, lr=0.1):
        super().__init__(model.parameters(), lr=lr)
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps == 3 and ray.is_initialized():
            with (HERE / "begun").open("a") as file:
                file.write(f"{self.param_groups[0]['lr']} {ray.get_runtime_context().get_node_id()}\\n")
            while not (HERE / "go").exists():
                time.sleep(0.02)
        return super().step(closure)
"""
SECONDS = 300  # as the fixture cli has


def run(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "insgd_lab", "study", "run", *map(str, arguments)],
        cwd=folder, env={**os.environ, "PYTHONWARNINGS": "error", **environment}, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "fateful_on_ray.py").write_text(FATEFUL)
    (folder / "held_on_ray.py").write_text(HOLDER)
    return folder


@pytest.fixture(scope="module")
def cluster(plugins: Path) -> Iterator[Any]:
    """A head that trains nothing and a node of one core; tests add others."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(plugins)  # of the nodes' workers
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.toml").write_text(STUDY)
    result = run(folder, "small.toml")
    assert result.returncode == 0, result.stderr
    return StudyFolder(folder / "runs/small")


@pytest.fixture
def small(tmp_path: Path) -> StudyFolder:
    (tmp_path / "small.toml").write_text(STUDY)
    return StudyFolder(tmp_path / "runs/small")


def results(study: StudyFolder) -> dict[str, tuple[bytes, bytes]]:
    return {run.id: (run.metrics_path.read_bytes(), run.layers_path.read_bytes()) for run in study.runs()}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def count(study: StudyFolder, status: str) -> int:
    return list(study.statuses().values()).count(status)


def test_a_ray_of_ones_own_ends_with_the_bytes_of_local_workers(
    tmp_path: Path, small: StudyFolder, undisturbed: StudyFolder
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    result = run(tmp_path, "small.toml", "--executor", "ray")
    assert result.returncode == 0, result.stderr
    assert "small: 12 runs; a Ray of its own; results in runs/small" in result.stdout
    assert "12 of 12 runs: 12 done, 0 diverged, 0 failed" in result.stdout
    assert result.stderr == "", "what Ray says is in its log"
    assert "local Ray instance" in (small.path / "logs/ray.log").read_text()
    assert results(small) == results(undisturbed)
    assert {run.info()["threads"] for run in small.runs()} == {1}
    again = run(tmp_path, "small.toml", "--executor", "ray")
    assert "all 12 runs are finished" in again.stdout


def test_a_node_that_is_killed_costs_nothing_but_time(
    cluster: Any, start_cli: Start, tmp_path: Path, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun() -> list[tuple[str, str]]:
        """The runs that have begun, and on which nodes."""
        lines = (plugins / "begun").read_text().splitlines() if (plugins / "begun").exists() else []
        return [(run, node) for run, node in map(str.split, lines)]

    monkeypatch.setenv("PYTHONPATH", str(plugins))
    (tmp_path / "held.toml").write_text(HELD)
    study, doomed = StudyFolder(tmp_path / "runs/held"), cluster.add_node(num_cpus=1)
    process = start_cli("study", "run", "held.toml", "--ray", cluster.address)
    wait_for(lambda: len({node for _, node in begun()}) == 2, process)
    (lost,) = [run for run, node in begun() if node == doomed.node_id]
    assert count(study, "running") == 2
    cluster.remove_node(doomed, allow_graceful=False)
    # A worker lives on for a moment after its node, and could end its run.
    wait_for(lambda: [run.is_held for run in study.runs()].count(True) == 1, process)
    assert count(study, "done") == 0
    (plugins / "go").touch()
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert "3 of 3 runs: 3 done, 0 diverged, 0 failed" in out
    assert sorted(run for run, _ in begun()) == sorted(["0.1", "0.2", "0.3", lost]), "only the lost one began twice"
    assert run(tmp_path, "held.toml", "--out", "undisturbed").returncode == 0
    assert results(study) == results(StudyFolder(tmp_path / "undisturbed"))
    assert {path.name for run in study.runs() for path in run.path.iterdir()} == {
        "run.json", "metrics.parquet", "layers.parquet",
    }  # fmt: skip


def test_a_run_that_kills_its_worker_is_tried_again_and_then_recorded_as_failed(
    cluster: Any, tmp_path: Path, plugins: Path
) -> None:
    (tmp_path / "fates.toml").write_text(FATES)
    result = run(tmp_path, "fates.toml", "--ray", cluster.address, PYTHONPATH=str(plugins))
    assert result.returncode == 1, result.stderr
    assert "1 done, 0 diverged, 2 failed" in result.stdout
    assert "Traceback" not in result.stderr
    study = StudyFolder(tmp_path / "runs/fates")
    infos = {row["settings"]["fate"]: RunFolder(study.path / row["run"]).info() for row in study.info()["plan"]}
    assert {fate: info["status"] for fate, info in infos.items()} == {
        "killed": "failed", "raised": "failed", "lived": "done",
    }  # fmt: skip
    assert "its worker died: 2 tries on Ray, at last WorkerCrashedError" in infos["killed"]["error"]
    assert "RuntimeError: fate has struck" in infos["raised"]["error"]


def test_a_node_that_is_not_up_to_the_study_ends_it(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "at_home.py").write_text(FATEFUL)  # the working directory is none of the nodes' business
    (tmp_path / "fates.toml").write_text(FATES.replace("fateful_on_ray", "at_home"))
    result = run(tmp_path, "fates.toml", "--ray", cluster.address, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert re.search(r"error: node \S+ lacks what the study needs: plugin module 'at_home' could not", result.stderr)
    assert "Traceback" not in result.stderr
    assert not list(StudyFolder(tmp_path / "runs/fates").runs())


def test_what_no_node_has_is_refused_at_once(cluster: Any, tmp_path: Path, small: StudyFolder) -> None:
    result = run(tmp_path, "small.toml", "--ray", cluster.address, "--set", "arm.insgd.resources.cpus=1.5")
    assert result.returncode == 2
    assert "a run of insgd takes 1.5 cpus, 0 gpus, and no node of the Ray cluster has that" in result.stderr
    assert "(nodes: 0 cpus, 0 gpus, 1 cpus, 0 gpus)" in result.stderr
    assert "such as --set arm.insgd.resources.cpus=1, or add a node" in result.stderr
    assert not list(small.runs())


def test_ctrl_c_ends_the_runs_and_leaves_the_cluster(cluster: Any, start_cli: Start, small: StudyFolder) -> None:
    import ray

    process = start_cli("study", "run", "small.toml", "--ray", cluster.address)
    wait_for(lambda: count(small, "done") >= 1, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "interrupted after" in err
    assert "the same command goes on" in err
    assert "Traceback" not in out + err
    until = time.monotonic() + SECONDS
    while any(run.is_held for run in small.runs()):  # Ray ends the processes soon after
        assert time.monotonic() < until
        time.sleep(0.1)
    ray.init(cluster.address, log_to_driver=False)
    try:
        assert any(node["Alive"] and node["Resources"].get("CPU") for node in ray.nodes())
    finally:
        ray.shutdown()


def test_a_process_never_sees_two_gpus(cluster: Any) -> None:
    import ray

    def look() -> tuple[int, str]:
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]

    node = cluster.add_node(num_cpus=1, num_gpus=2)  # it says so; nothing of ours asks them anything
    ray.init(cluster.address, log_to_driver=False)
    try:
        task = ray.remote(**lifetime("cuda", 0))(look).options(num_cpus=0.1, num_gpus=1)
        seen = ray.get([task.remote() for _ in range(4)])
    finally:
        ray.shutdown()
        cluster.remove_node(node)
    assert len({process for process, _ in seen}) == 4
    assert {gpu for _, gpu in seen} == {"0", "1"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--executor", "local", "--ray", "auto"], "--executor local and --ray auto contradict each other"),
        (["--ray", "127.0.0.1:1"], "there is no Ray to join at 127.0.0.1:1: "),
        (["--executor", "ray", "--device", "cuda:1"], "--device cuda:1: on Ray a run has the GPU that it is given"),
        (["--executor", "ray", "--set", "resources.gpus=1"], "the study asks (in insgd) for GPUs, and --device is cpu"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, small: StudyFolder, options: list[str], expected: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    result = run(tmp_path, "small.toml", *options)
    assert result.returncode == 2
    assert f"error: {expected}" in result.stderr
    assert not list(small.runs())


def test_a_lab_without_ray_says_how_to_get_it(tmp_path: Path, small: StudyFolder) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')")
    result = run(tmp_path, "small.toml", "--executor", "ray", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert "install it with pip install 'insgd-lab[ray]', or use --executor local" in result.stderr
    assert not small.exists
