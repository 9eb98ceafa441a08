"""A primary test that is changed when results are there is remembered; before, it may be changed freely."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.analysis.primary import changes_of
from insgd_lab.analysis.runs import load_study
from insgd_lab.store import StudyFolder
from insgd_lab.studies.history import joined_changes, primary_changes
from insgd_lab.studies.merging import merge

from .made import make_study

Cli = Callable[..., subprocess.CompletedProcess[str]]
WELCH = {"analysis": {"primary": {"test": "welch", "arm": "insgd"}}}
WELCH_STOOD = {"test": "welch", "arm": "insgd", "baseline": None, "metric": "test_error", "margin": None}


@pytest.fixture
def finished(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path / "finished")


@pytest.fixture
def fresh(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path / "fresh", finish=False)


def edited(folder: StudyFolder, spec: dict[str, Any]) -> list[dict[str, Any]]:
    return primary_changes(folder, folder.info(), {**folder.info()["spec"], **spec})


def test_before_any_run_has_finished_nothing_is_remembered(fresh: StudyFolder, finished: StudyFolder) -> None:
    assert edited(fresh, WELCH) == []
    assert primary_changes(fresh, {}, WELCH) == []
    assert edited(finished, {"title": "another"}) == []


def test_what_stood_there_and_how_many_runs_had_finished_is_kept(finished: StudyFolder) -> None:
    runs = len(list(finished.runs()))
    once = edited(finished, WELCH)
    assert once == [{"before": None, "finished": runs}]
    info = finished.info()
    finished.write_info({**info, "primary_changes": once, "spec": {**info["spec"], **WELCH}})
    assert edited(finished, WELCH) == once
    back = edited(finished, {"analysis": None})
    assert back == [*once, {"before": WELCH_STOOD, "finished": runs}], "changing it back does not undo the look"


def test_keys_that_an_earlier_version_did_not_write_are_no_change(finished: StudyFolder) -> None:
    info = finished.info()
    finished.write_info({**info, "spec": {**info["spec"], **WELCH}})
    assert edited(finished, {"analysis": {"primary": WELCH_STOOD}}) == []


def test_a_merge_keeps_what_any_of_its_sources_remembers(tmp_path: Path) -> None:
    one, two = (make_study(tmp_path / name) for name in "ab")
    change = {"before": WELCH_STOOD, "finished": 3}
    two.write_info({**two.info(), "primary_changes": [change]})
    assert joined_changes([one.info(), two.info(), two.info()]) == [change]
    target = StudyFolder(tmp_path / "c")
    merge([one], target)
    assert "primary_changes" not in target.info()
    merge([two], target)
    assert target.info()["primary_changes"] == [change]
    assert {**target.info(), "primary_changes": None} == {**one.info(), "primary_changes": None}


STUDY = """
name = "s"
seeds = 2
task = { data = { name = "digits", fraction = 0.1 }, model = "mlp" }
train = { epochs = 1 }
[[arm]]
name = "a"
optimizer = "sgd"
[[arm]]
name = "b"
optimizer = "adam"
"""


def test_the_command_remembers_it_and_leaves_the_runs_alone(cli: Cli, tmp_path: Path) -> None:
    file, folder = tmp_path / "s.toml", StudyFolder(tmp_path / "runs")
    file.write_text(STUDY)
    assert cli("study", "run", "s.toml", "--out", "runs", "--workers", 1).returncode == 0
    assert "primary_changes" not in folder.info()
    before = {path: path.read_bytes() for run in folder.runs() for path in run.path.iterdir() if path.is_file()}
    file.write_text(STUDY + '[analysis]\nprimary = { arm = "b" }\n')
    for _ in range(2):
        again = cli("study", "run", "s.toml", "--out", "runs", "--workers", 1)
        assert again.returncode == 0
        assert "the primary test was changed when 4 runs had finished" in " ".join(again.stdout.split())
    assert folder.info()["primary_changes"] == [{"before": None, "finished": 4}]
    assert {path: path.read_bytes() for path in before} == before
    reported = cli("report", "runs")
    assert "the primary test was changed when 4 runs had finished" in " ".join(reported.stdout.split())
    [change] = changes_of(load_study(folder.path))
    assert (change.finished, change.before.arm, change.before.declared) == (4, None, False)
