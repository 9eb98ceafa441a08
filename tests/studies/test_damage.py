"""A study whose files are damaged, or whose disk is full: named, set aside, done again to the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from insgd_lab.config import RunSpec, StudySpec
from insgd_lab.store import DiskError, RunFolder, StudyFolder
from insgd_lab.studies.planning import make_plan, study_info
from insgd_lab.training.loop import train

Cli = Callable[..., subprocess.CompletedProcess[str]]
STUDY = """
name = "small"
seeds = 3
task = { data = { name = "digits", fraction = 0.1 }, model = { name = "mlp", hidden = [8] } }
train = { epochs = 3, batch_size = 16 }
[[arm]]
name = "sgd"
optimizer = "sgd"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The study, run once."""
    plan = make_plan(StudySpec.model_validate(tomllib.loads(STUDY)))
    folder = StudyFolder(tmp_path_factory.mktemp("runs") / "small")
    folder.write_info(study_info(plan, versions={"insgd_lab": "0.1.0"}, created="2025-01-01"))
    for spec in plan.runs.values():
        train(spec, folder.run(spec.id))
    return folder


@pytest.fixture
def study(tmp_path: Path, finished: StudyFolder) -> StudyFolder:
    """A copy of it to spoil."""
    (tmp_path / "small.toml").write_text(STUDY)
    return StudyFolder(shutil.copytree(finished.path, tmp_path / "runs/small"))


def results(study: StudyFolder) -> dict[str, tuple[bytes, bytes]]:
    return {run.id: (run.metrics_path.read_bytes(), run.layers_path.read_bytes()) for run in study.runs()}


def flip(path: Path) -> None:
    """One wrong bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_damaged_result_is_named_set_aside_and_made_again(tmp_path: Path, cli: Cli, study: StudyFolder) -> None:
    whole = results(study)
    first, second, third = study.runs()
    first.info_path.write_bytes(first.info_path.read_bytes()[:100])
    second.metrics_path.write_bytes(b"")
    flip(third.layers_path)
    study.info_path.write_bytes(b"")

    status = cli("study", "status", "runs/small")
    assert status.returncode == 2
    assert "runs/small/study.json cannot be read" in status.stderr

    again = cli("study", "run", "small.toml", "--workers", 1)
    assert again.returncode == 0, again.stderr
    for path in (study.info_path, first.info_path, second.metrics_path, third.layers_path):
        assert f"set aside: {path.relative_to(tmp_path)}, which could not be read (" in again.stderr
        assert path.with_name(f"{path.name}.damaged-1").exists()
    assert "3 of 3 runs: 3 done" in again.stdout
    assert results(study) == whole


def test_a_report_of_a_study_with_damage_is_written_and_names_it(cli: Cli, study: StudyFolder) -> None:
    first, second, _ = study.runs()
    first.info_path.write_bytes(b"")
    second.metrics_path.write_bytes(second.metrics_path.read_bytes()[:50])
    report = cli("report", "runs/small")
    assert report.returncode == 0, report.stderr
    page = (study.report_path / "report.html").read_text()
    assert f"{first.id}/run.json" in page
    assert f"{second.id}/metrics.parquet" in page
    assert "1 of 3 runs have finished (2 unreadable)" in page


def begin_again(run: RunFolder) -> None:
    run.write_info({**run.info(), "status": "running"})


@pytest.mark.parametrize("name", ["checkpoint.pt", "layers/part-00000.parquet", "run.json"])
@pytest.mark.filterwarnings("ignore:.*the run starts over:RuntimeWarning")
def test_an_unfinished_run_with_damage_ends_with_the_same_bytes(study: StudyFolder, name: str) -> None:
    run = next(study.runs())
    whole, spec = results(study)[run.id], RunSpec.from_canonical(run.info()["spec"])

    def stop(epoch: dict[str, object]) -> None:
        if epoch["epoch"] == 2:
            raise KeyboardInterrupt

    begin_again(run)
    with pytest.raises(KeyboardInterrupt):
        train(spec, run, on_epoch=stop, checkpoint_seconds=0)
    path = run.path / name
    path.write_bytes(path.read_bytes()[:30])
    train(spec, run)
    assert results(study)[run.id] == whole
    aside = {each.name for each in run.path.iterdir() if ".damaged-1" in each.name}
    assert aside >= {name.split("/")[0] + ".damaged-1"}


def fill_disk(path: Path) -> None:
    """Have the next write of `path` meet a full disk, a real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.new").symlink_to("/dev/full")


has_full_disk = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full to write to")


@has_full_disk
def test_a_full_disk_stops_the_study_with_the_remedy_and_the_same_command_goes_on(
    tmp_path: Path, cli: Cli, study: StudyFolder
) -> None:
    whole, run = results(study), next(study.runs())
    shutil.rmtree(run.path)
    fill_disk(run.metrics_path)
    stopped = cli("study", "run", "small.toml", "--workers", 1)
    assert stopped.returncode == 2, stopped.stdout
    path = run.metrics_path.relative_to(tmp_path)
    assert f"error: {path} cannot be written (No space left on device); free some" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    again = cli("study", "run", "small.toml", "--workers", 1)
    assert again.returncode == 0, again.stderr
    assert results(study) == whole


@has_full_disk
def test_a_plan_that_does_not_fit_is_a_full_disk(cli: Cli, study: StudyFolder) -> None:
    study.info_path.unlink()
    fill_disk(study.info_path)
    stopped = cli("study", "run", "small.toml")
    assert stopped.returncode == 2
    assert "study.json cannot be written (No space left on device); free some" in stopped.stderr
    assert "Traceback" not in stopped.stderr


@has_full_disk
@pytest.mark.parametrize("name", ["run.json", "checkpoint.pt", "metrics.parquet", "layers/part-00000.parquet"])
def test_a_run_that_meets_a_full_disk_says_so_and_goes_on_to_the_same_bytes(study: StudyFolder, name: str) -> None:
    whole, run = results(study), next(study.runs())
    spec = RunSpec.from_canonical(run.info()["spec"])
    shutil.rmtree(run.path)
    fill_disk(run.path / name)
    with pytest.raises(DiskError, match=f"{name} cannot be written"):
        train(spec, run, checkpoint_seconds=0)
    train(spec, run)
    assert results(study) == whole


def test_a_run_whose_failure_cannot_be_written_down_fails_for_its_own_reason(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(study.runs())
    spec = RunSpec.from_canonical(run.info()["spec"])

    def fail(epoch: dict[str, object]) -> None:
        monkeypatch.setattr(RunFolder, "write_info", full)
        raise ValueError("its own reason")

    def full(run: RunFolder, info: object) -> None:
        raise DiskError("the disk is full")

    begin_again(run)
    with pytest.raises(ValueError, match="its own reason"):
        train(spec, run, on_epoch=fail)
