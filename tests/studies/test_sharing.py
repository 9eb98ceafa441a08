"""Several schedulers at work on one study: they share its runs, and none is run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from insgd_lab.store import StudyFolder

Start = Callable[..., subprocess.Popen[str]]

STUDY = """
name = "shared"
seeds = 4
plugins = ["counted"]
task = { data = { name = "digits", fraction = 0.2 }, model = { name = "mlp", hidden = [8] } }
record = { every = 0 }
[train]
epochs = 2
[[arm]]
name = "counted"
optimizer = "counted"
axes = { lr = [0.1, 0.2] }
"""
# Each run counts itself, for the process that gives it out, and waits until it may go on.
PLUGIN = """
import os
import time
import torch
from insgd_lab import register_optimizer

@register_optimizer("counted")
class Counted(torch.optim.SGD):
    def __init__(self, model, lr=0.1):
        super().__init__(model.parameters(), lr=lr)
        with open(os.environ["COUNT"], "a") as file:
            file.write(f"{os.getppid()}\\n")
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.02)
"""


@pytest.fixture
def start(start_cli: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], subprocess.Popen[str]]:
    (tmp_path / "shared.toml").write_text(STUDY)
    (tmp_path / "counted.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.setenv("GO", str(tmp_path / "go"))
    return lambda: start_cli("study", "run", "shared.toml", "--workers", 1)


def counted(folder: Path) -> list[str]:
    path = folder / "count"
    return path.read_text().split() if path.exists() else []


def wait_for(folder: Path, runs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(counted(folder)) < runs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def statuses(folder: Path) -> list[str]:
    return list(StudyFolder(folder / "runs/shared").statuses().values())


def test_two_schedulers_share_the_runs_and_none_is_run_twice(
    start: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = start()
    wait_for(tmp_path, 1, first)
    second = start()
    wait_for(tmp_path, 2, second)
    assert len(set(counted(tmp_path))) == 2, "both have a hand in it"
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=240) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert statuses(tmp_path) == ["done"] * 8
    assert len(counted(tmp_path)) == 8
    assert "another process is at work on it; sharing what is left" in outputs[1][0]
    assert all("8 done" in stdout for stdout, _ in outputs)


def test_what_a_killed_scheduler_leaves_is_taken_over(
    start: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    doomed = start()
    wait_for(tmp_path, 1, doomed)
    heir = start()
    wait_for(tmp_path, 2, heir)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    (tmp_path / "go").touch()
    stdout, stderr = heir.communicate(timeout=240)
    assert heir.returncode == 0, stderr
    assert "8 of 8 runs: 8 done" in stdout
    assert statuses(tmp_path) == ["done"] * 8
    assert Counter(counted(tmp_path)) == {str(doomed.pid): 1, str(heir.pid): 8}, "what was under way is begun again"


def test_another_version_of_a_study_is_not_run_beside_it(
    start: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = start()
    wait_for(tmp_path, 1, running)
    (tmp_path / "shared.toml").write_text(STUDY.replace("0.2]", "0.3]"))
    other = start()
    _, stderr = other.communicate(timeout=120)
    assert other.returncode == 2
    assert "is being run by another process, from another version of this study" in stderr
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
