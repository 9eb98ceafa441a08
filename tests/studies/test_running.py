"""Studies as a user runs them: real workers that print, raise and die, a scheduler that is killed or interrupted."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from insgd_lab.config import RunSpec
from insgd_lab.store import DiskError, RunFolder, StudyFolder
from insgd_lab.studies import executor, presence
from insgd_lab.training.loop import train

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

TASK = """
[task]
data = { name = "digits", fraction = 0.1 }
model = { name = "mlp", hidden = [8] }
"""
# Long enough that a signal comes in the middle, short enough to wait for.
STUDY = f"""
name = "small"
seeds = 8
{TASK}
[train]
epochs = 4
batch_size = 16
[[arm]]
name = "insgd"
optimizer = {{ name = "insgd-lp", lr = 0.3 }}
axes = {{ p = [1, 2, inf] }}
"""
FATES = f"""
name = "fates"
seeds = 1
plugins = ["fateful"]
{TASK}
[train]
epochs = 1
[[arm]]
name = "fateful"
optimizer = "fateful"
axes = {{ fate = ["killed", "raised", "lived", "lived on"] }}
"""
PLUGIN = """
import os, signal, time
import torch
from insgd_lab import register_optimizer

print("a plugin may print when it is imported")

@register_optimizer("fateful")
class Fateful(torch.optim.SGD):
    def __init__(self, model, lr=0.1, fate="lived"):
        super().__init__(model.parameters(), lr=lr)
        self.fate = fate

    def step(self, closure=None):
        print('{"event": "ended", "run": "noise on stdout"}', flush=True)
        if self.fate == "killed" and "MERCY" not in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "killed once" and not os.path.exists(os.environ["NO_MORE_WORKERS"]):
            open(os.environ["NO_MORE_WORKERS"], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "outlives" and not self.state:
            while not os.path.exists(os.environ["NO_MORE_WORKERS"]):
                time.sleep(0.02)
            time.sleep(1)
            self.state["outlived"] = True
        if self.fate == "raised" and "MERCY" not in os.environ:
            raise RuntimeError("fate has struck")
        return super().step(closure)
"""


# Python imports this at its start: there, once a file says so, every worker dies.
DYING = """
import os, sys

if "insgd_lab.studies.worker" in sys.orig_argv and os.path.exists(os.environ["NO_MORE_WORKERS"]):
    print("no memory for a worker", file=sys.stderr, flush=True)
    os._exit(3)
"""


@pytest.fixture
def fates(tmp_path: Path, cli: Cli) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the study of fates, of which the keywords leave some; workers die at their start from a fate on."""
    (tmp_path / "fateful.py").write_text(PLUGIN)
    (tmp_path / "sitecustomize.py").write_text(DYING)
    variables = {"PYTHONPATH": str(tmp_path), "NO_MORE_WORKERS": str(tmp_path / "no-more-workers")}

    def run(axis: str, workers: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "fates.toml").write_text(re.sub(r"fate = \[.*\]", f"fate = {axis}", FATES))
        return cli("study", "run", "fates.toml", "--workers", workers, **variables, **environment)

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(STUDY)
    return tmp_path


def wait_for_some(study: StudyFolder, process: subprocess.Popen[str]) -> None:
    while list(study.statuses().values()).count("done") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def results(study: StudyFolder) -> dict[str, tuple[bytes, bytes]]:
    return {run.id: (run.metrics_path.read_bytes(), run.layers_path.read_bytes()) for run in study.runs()}


def info(study: StudyFolder, **settings: Any) -> dict[str, Any]:
    row = next(row for row in study.info()["plan"] if row["settings"] == settings)
    return RunFolder(study.path / row["run"]).info()


def test_a_killed_study_leaves_no_worker_and_goes_on_to_the_same_bytes(small: Path, cli: Cli, start_cli: Start) -> None:
    study, whole = StudyFolder(small / "runs/small"), StudyFolder(small / "whole")
    assert cli("study", "run", "small.toml", "--out", "whole", "--workers", 2).returncode == 0
    process = start_cli("study", "run", "small.toml", "--workers", 2)
    wait_for_some(study, process)
    workers = children(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their scheduler"
        time.sleep(0.02)
    assert list(study.statuses().values()).count("done") < 24

    again = cli("study", "run", "small.toml", "--workers", 2)
    assert again.returncode == 0, again.stderr
    assert "of them finished earlier" in again.stdout
    assert results(study) == results(whole)
    assert {path.name for run in study.runs() for path in run.path.iterdir()} == {
        "run.json", "metrics.parquet", "layers.parquet",
    }  # fmt: skip


def test_ctrl_c_says_how_to_go_on(small: Path, cli: Cli, start_cli: Start) -> None:
    (small / "small.toml").write_text(STUDY.replace("seeds = 8", "seeds = 80"))
    process = start_cli("study", "run", "small.toml")
    wait_for_some(StudyFolder(small / "runs/small"), process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after" in err
    assert "the same command goes on" in err
    assert "Traceback" not in out + err
    begun = "running" in StudyFolder(small / "runs/small").statuses().values()  # no worker may have been at a run
    assert ("interrupted" in cli("study", "status", "runs/small").stdout) == begun


def test_a_finished_study_is_not_run_again(small: Path, cli: Cli) -> None:
    study = StudyFolder(small / "runs/small")
    assert cli("study", "run", "small.toml").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in study.path.rglob("[a-z0-9]*.*")}
    again = cli("study", "run", "small.toml")
    assert again.returncode == 0
    assert "all 24 runs are finished (0 diverged)" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in study.path.rglob("[a-z0-9]*.*")} == before


def test_an_edited_study_keeps_what_still_belongs(small: Path, cli: Cli) -> None:
    study = StudyFolder(small / "runs/small")
    assert cli("study", "run", "small.toml").returncode == 0
    (small / "small.toml").write_text(STUDY.replace("[1, 2, inf]", "[2, 3]").replace("seeds = 8", "seeds = 2"))
    edited = cli("study", "run", "small.toml")
    assert "22 runs of an earlier plan are kept and ignored" in edited.stdout
    assert "4 runs, 2 of them finished earlier" in edited.stdout
    assert len(study.info()["plan"]) == 4
    other = cli("study", "run", "digits", "--out", "runs/small")
    assert other.returncode == 2
    assert "holds the study 'small', not 'digits'" in other.stderr


def test_a_worker_that_dies_takes_only_its_own_run_along(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "fates.toml").write_text(FATES)
    (tmp_path / "fateful.py").write_text(PLUGIN)
    path, study = str(tmp_path), StudyFolder(tmp_path / "runs/fates")
    first = cli("study", "run", "fates.toml", "--workers", 2, PYTHONPATH=path)
    assert first.returncode == 1, first.stderr
    assert "2 done, 0 diverged, 2 failed" in first.stdout
    killed, raised = info(study, fate="killed"), info(study, fate="raised")
    assert killed["status"] == raised["status"] == "failed"
    assert "its worker died 2 times" in killed["error"]
    assert "killed by SIGKILL" in killed["error"]
    assert "RuntimeError: fate has struck" in raised["error"]
    assert "Traceback" in raised["error"]
    assert info(study, fate="lived on")["status"] == "done"
    assert "RuntimeError: fate has struck" in first.stderr
    assert "Traceback" not in first.stderr
    assert "noise on stdout" in (study.path / "logs/worker-0.log").read_text()

    again = cli("study", "run", "fates.toml", PYTHONPATH=path, MERCY="1")
    assert again.returncode == 0, again.stderr
    assert "4 done, 0 diverged, 0 failed" in again.stdout
    assert set(study.statuses().values()) == {"done"}


def test_how_often_a_lost_run_is_tried_again_is_ones_own_choice(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "fates.toml").write_text(re.sub(r"fate = \[.*\]", 'fate = ["killed once"]', FATES))
    (tmp_path / "fateful.py").write_text(PLUGIN)
    environment = {"PYTHONPATH": str(tmp_path), "NO_MORE_WORKERS": str(tmp_path / "killed")}
    never = cli("study", "run", "fates.toml", "--retries", 0, "--out", "never", **environment)
    assert never.returncode == 1
    assert "its worker died: killed by SIGKILL" in info(StudyFolder(tmp_path / "never"), fate="killed once")["error"]
    (tmp_path / "killed").unlink()
    once = cli("study", "run", "fates.toml", "--retries", 1, "--out", "once", **environment)
    assert once.returncode == 0, once.stderr


def test_there_are_as_many_workers_as_have_the_cores_that_a_run_takes(small: Path, cli: Cli) -> None:
    cores = f"resources.cpus={len(os.sched_getaffinity(0))}"
    result = cli("study", "run", "small.toml", "--set", cores, "--set", "seeds=1", "--set", "epochs=1")
    assert "small: 3 runs; 1 worker; results in runs/small" in result.stdout, result.stderr


def test_a_plan_shows_what_runs_take_where_it_is_not_as_usual(small: Path, cli: Cli) -> None:
    assert "a run takes" not in cli("study", "plan", "small.toml").stdout
    setting = "arm.insgd.resources.memory=2 GiB"
    table = cli("study", "plan", "small.toml", "--set", "resources.gpus=0.5", "--set", setting).stdout
    assert "a run takes" in table
    assert "1 cpus, 0.5 gpus, 2.0GiB of memory" in table


def test_a_worker_that_cannot_be_replaced_leaves_its_run_to_the_others(tmp_path: Path, fates: Cli) -> None:
    result = fates('["killed once", "outlives", "lived"]', workers=2)
    assert result.returncode == 0, result.stderr
    assert "3 done, 0 diverged, 0 failed" in result.stdout
    assert re.search(
        r"worker \d could not be replaced: exit code 3; end of .*no memory for a worker", result.stderr, re.S
    )


def test_a_worker_that_dies_before_any_is_ready_does_not_stop_the_others(tmp_path: Path, fates: Cli) -> None:
    once = "os.mkdir(os.environ['NO_MORE_WORKERS'])"  # only one can
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif 'insgd_lab.studies.worker' in sys.orig_argv:\n    {once}\n    os._exit(3)\n"
    )
    result = fates('["lived", "lived on"]', workers=2)
    assert result.returncode == 0, result.stderr
    assert re.search(r"worker \d could not start: exit code 3", result.stderr)
    assert "2 done, 0 diverged, 0 failed" in result.stdout


def test_without_any_worker_left_the_study_ends_with_what_it_has(tmp_path: Path, fates: Cli) -> None:
    axis, study = '["lived", "killed once", "lived on"]', StudyFolder(tmp_path / "runs/fates")
    result = fates(axis)
    assert result.returncode == 1, result.stderr
    assert "1 of 3 runs: 1 done" in result.stdout
    assert "no worker is left for 2 runs; the same command goes on" in result.stderr
    assert sorted(study.statuses().values()) == ["done", "running"]
    again = fates(axis)
    assert again.returncode == 2, "not one worker starts"
    assert "worker 0 could not start: exit code 3" in again.stderr
    (tmp_path / "sitecustomize.py").unlink()
    again = fates(axis)
    assert again.returncode == 0, again.stderr
    assert "3 runs, 1 of them finished earlier" in again.stdout


def test_a_failed_run_keeps_what_it_has_until_it_runs_again(tmp_path: Path, fates: Cli) -> None:
    assert fates('["raised"]').returncode == 1
    (run,) = StudyFolder(tmp_path / "runs/fates").runs()
    assert run.info()["status"] == "failed"
    run.checkpoint_path.write_bytes(b"checkpoint")
    (tmp_path / "no-more-workers").touch()
    assert fates('["raised"]').returncode == 2
    assert "fate has struck" in run.info()["error"]
    assert run.checkpoint_path.exists()


def test_a_run_that_fails_again_starts_afresh_the_next_time(tmp_path: Path, fates: Cli) -> None:
    assert fates('["raised"]').returncode == 1
    (run,) = StudyFolder(tmp_path / "runs/fates").runs()
    run.checkpoint_path.with_name(".checkpoint.pt.new").write_bytes(b"half a checkpoint")
    (run.path / "layers").mkdir(exist_ok=True)
    assert fates('["raised"]').returncode == 1
    assert {path.name for path in run.path.iterdir()} == {"run.json", ".lock"}


def test_a_failed_run_goes_on_from_its_checkpoint(small: Path, cli: Cli) -> None:
    assert cli("study", "run", "small.toml").returncode == 0
    run = next(StudyFolder(small / "runs/small").runs())
    metrics, spec = run.metrics_path.read_bytes(), RunSpec.from_canonical(run.info()["spec"])

    def fail(epoch: dict[str, Any]) -> None:
        if epoch["epoch"] == 2:
            raise OSError("the disk is full")

    run.write_info({**run.info(), "status": "running"})
    with pytest.raises(OSError, match="the disk is full"):
        train(spec, run, on_epoch=fail, checkpoint_seconds=0)
    assert run.info()["status"] == "failed"
    state = torch.load(run.checkpoint_path, weights_only=True)
    torch.save({**state, "started": "long ago"}, run.checkpoint_path)
    again = cli("study", "run", "small.toml")
    assert "24 runs, 23 of them finished earlier" in again.stdout
    assert run.info()["status"] == "done", again.stderr
    assert run.info()["started"] == "long ago"
    assert run.metrics_path.read_bytes() == metrics


def test_what_a_worker_killed_at_the_very_end_left_is_swept(small: Path, cli: Cli) -> None:
    assert cli("study", "run", "small.toml").returncode == 0
    run = next(StudyFolder(small / "runs/small").runs())
    before = {path.name for path in run.path.iterdir()}
    for name in ("checkpoint.pt", ".checkpoint.pt.new", ".lock"):
        (run.path / name).touch()
    (run.path / "layers").mkdir()
    (run.path / "layers/part-00000.parquet").touch()
    assert cli("study", "run", "small.toml").returncode == 0
    assert {path.name for path in run.path.iterdir()} == before


def test_a_run_that_someone_else_holds_is_waited_for_and_taken_over(small: Path, cli: Cli, start_cli: Start) -> None:
    study = StudyFolder(small / "runs/small")
    assert cli("study", "run", "small.toml").returncode == 0
    before = results(study)
    run = next(study.runs())
    run.write_info({**run.info(), "status": "running"})
    with run.locked():
        process = start_cli("study", "run", "small.toml")
        assert process.stdout is not None
        while f"1 held by other processes, such as {run.id}" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        assert "23 of 24 runs" in line
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "24 of 24 runs: 24 done" in stdout
    assert results(study) == before


def test_a_look_at_the_state_does_not_number_a_starting_study_as_a_second_one(tmp_path: Path) -> None:
    look = FileLock(tmp_path / ".lock", thread_local=False)
    look.acquire()
    timer = threading.Timer(0.2, look.release)
    timer.start()
    with presence.at_work(StudyFolder(tmp_path)) as number:
        assert number == 0
        assert presence.in_use(StudyFolder(tmp_path))
    timer.join()
    assert not presence.in_use(StudyFolder(tmp_path))


def test_who_is_at_work_knows_of_the_others_whatever_their_numbers(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    first = presence.at_work(folder)
    assert first.__enter__() == 0
    with presence.at_work(folder) as second:
        assert presence.join(folder, 0, "digest") == []
        assert presence.join(folder, second, "digest") == ["digest"]
        first.__exit__(None, None, None)
        with presence.at_work(folder) as third:
            assert third == 0, "the number of one that has left"
            assert presence.join(folder, third, "another") == ["digest"]
            assert presence.join(folder, second, "digest") == ["another"]
    with presence.at_work(folder) as alone:
        assert presence.join(folder, alone, "digest") == []


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock, *args: object, **options: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    folder = StudyFolder(tmp_path)
    (tmp_path / ".lock").touch()
    for look in (presence.at_work(folder).__enter__, folder.writing().__enter__, lambda: presence.in_use(folder)):
        with pytest.raises(DiskError, match=r"cannot be locked .*; its disk has no locks between processes"):
            look()


def test_the_last_words_of_a_worker_are_its_own_and_few(tmp_path: Path) -> None:
    log = tmp_path / "logs/worker-0.log"
    log.parent.mkdir()
    log.write_text("an earlier worker's end\n")
    silent = executor._Worker(0, [sys.executable, "-c", "pass"], log)
    assert silent.dismiss() == 0
    assert silent.last_words() == ""
    talker = executor._Worker(0, [sys.executable, "-c", "import sys; print('x' * 10**6, file=sys.stderr)"], log)
    assert talker.dismiss() == 0
    assert set(talker.last_words()) == {"x"}
    assert len(talker.last_words()) < 20_000


def test_a_plugin_that_workers_cannot_find_is_refused_before_anything_runs(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "fates.toml").write_text(FATES)
    result = cli("study", "run", "fates.toml")
    assert result.returncode == 2
    assert "plugin module 'fateful' could not be imported" in result.stderr
    assert not (tmp_path / "runs").exists()
