"""A primary test that is changed when results are there is remembered; before, it may be changed freely."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.analysis.primary import changes_of
from insgd_lab.analysis.runs import load_study
from insgd_lab.store import StudyFolder
from insgd_lab.studies.history import joined_changes, primary_changes, remembered
from insgd_lab.studies.merging import merge

from .made import TEXT, finish_run, make_study

Cli = Callable[..., subprocess.CompletedProcess[str]]
WELCH = {"analysis": {"primary": {"test": "welch", "arm": "insgd"}}}
WELCH_STOOD = {"test": "welch", "arm": "insgd", "baseline": None, "metric": "test_error", "margin": None}


@pytest.fixture
def finished(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path / "finished")


@pytest.fixture
def fresh(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path / "fresh", finish=False)


def edited(folder: StudyFolder, spec: dict[str, Any], **info: Any) -> list[dict[str, Any]]:
    before = remembered(folder)
    return primary_changes(folder, before, {"labels": True, **before, **info, "spec": {**before["spec"], **spec}})


def test_before_any_run_has_finished_nothing_is_remembered(fresh: StudyFolder, finished: StudyFolder) -> None:
    assert edited(fresh, WELCH) == []
    assert primary_changes(fresh, {}, {"spec": WELCH}) == []
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


@pytest.mark.parametrize("metric", [None, "test_error"])
def test_the_usual_metric_of_losses_alone_is_no_change_however_a_version_wrote_it(tmp_path: Path, metric: Any) -> None:
    quadratic = TEXT.replace('data = "digits", model = "mlp"', 'data = "quadratic", model = "point"')
    primary = {"analysis": {"primary": {"test": "welch", "metric": metric}}}
    folder = make_study(tmp_path / "made", quadratic.replace(', "task.model.batch_norm" = [false, true]', ""))
    info = folder.info()
    assert info.pop("labels") is False
    folder.write_info({**info, "spec": {**info["spec"], **primary}})
    resolved = {"analysis": {"primary": {"test": "welch", "metric": "test_loss"}}}
    assert edited(folder, resolved, labels=False) == []
    [change] = edited(
        folder, {"analysis": {"primary": {**resolved["analysis"]["primary"], "margin": 0.1}}}, labels=False
    )
    assert change["before"]["metric"] == "test_loss"


def test_runs_that_were_set_aside_had_finished_too(finished: StudyFolder) -> None:
    first, second, *others = finished.runs()
    first.set_aside("stale")
    second.set_aside("damaged")
    assert edited(finished, WELCH) == [{"before": None, "finished": len(others) + 2}]
    for run in others:
        run.set_aside("stale")
    finish_run(first, 0.5)
    assert edited(finished, WELCH) == [{"before": None, "finished": len(others) + 2}]


def test_a_study_json_that_was_set_aside_is_remembered_as_far_as_it_can_be_read(finished: StudyFolder) -> None:
    change = {"before": WELCH_STOOD, "finished": 3}
    info = finished.info()
    finished.write_info({"primary_changes": [change], "spec": {**info["spec"], **WELCH}, "labels": True, "plan": []})
    text = finished.info_path.read_text()
    finished.info_path.write_text(text[: text.index('"plan"') + 4])
    assert finished.set_damage_aside()
    assert not finished.exists
    assert edited(finished, {}) == [change]
    assert [one["finished"] for one in edited(finished, {"analysis": None})] == [3, 12]


def test_a_merge_keeps_what_any_of_its_sources_remembers(tmp_path: Path) -> None:
    one, two = (make_study(tmp_path / name) for name in "ab")
    change = {"before": WELCH_STOOD, "finished": 3}
    two.write_info({**two.info(), "primary_changes": [change]})
    target = StudyFolder(tmp_path / "c")
    merge([one], target)
    assert "primary_changes" not in target.info()
    for _ in range(2):
        merge([two], target)
        assert target.info()["primary_changes"] == [change]
    assert {**target.info(), "primary_changes": None} == {**one.info(), "primary_changes": None}


def test_one_edit_on_several_machines_is_one_change_however_often_it_is_merged() -> None:
    first, second = {"before": None, "finished": 3}, {"before": WELCH_STOOD, "finished": 5}
    one, two = {"primary_changes": [first, second]}, {"primary_changes": [{**first, "finished": 4}]}
    both = [{**first, "finished": 7}, second]
    assert joined_changes([one, two], {}) == both
    assert joined_changes([one, two], {"primary_changes": both}) == both
    assert joined_changes([one, {"primary_changes": [second]}], {}) == [first, second, second]


def test_a_merge_changes_nothing_else_of_a_study_json_that_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (make_study(tmp_path / name) for name in "ab")
    source.write_info({**source.info(), "primary_changes": [{"before": WELCH_STOOD, "finished": 3}]})
    hold = StudyFolder.writing

    @contextmanager
    def wait_for_another(folder: StudyFolder) -> Iterator[None]:
        folder.write_info({**folder.info(), "title": "Another"})
        with hold(folder):
            yield

    monkeypatch.setattr(StudyFolder, "writing", wait_for_another)
    merge([source], target)
    assert (target.info()["title"], len(target.info()["primary_changes"])) == ("Another", 1)


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
