"""How far a study has got: counts, the best so far, the time left, stale runs; once, or watched."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from insgd_lab.store import RunFolder, StudyFolder
from insgd_lab.studies import presence, status, watching
from insgd_lab.studies.status import ArmState, Lab, Survey, set_stale_aside, stale_runs

from .made import MADE, finish_run, make_study, run_of

Cli = Callable[..., subprocess.CompletedProcess[str]]
HERE = Lab("0.1.0", "abc")


def arms(folder: StudyFolder) -> dict[str, ArmState]:
    return {arm.name: arm for arm in Survey(folder, HERE).state().arms}


def start(run: RunFolder) -> None:
    run.write_info({**MADE, "status": "running", "seconds": 0})


def test_every_run_of_an_arm_is_counted_once_by_its_status(tmp_path: Path) -> None:
    folder = make_study(tmp_path, finish=False)
    for seed, lr, word in ((0, 0.1, "done"), (1, 0.1, "diverged"), (0, 1.0, "failed")):
        finish_run(run_of(folder, "sgd", seed, lr=lr), 0.5, word)
    start(run_of(folder, "sgd", 1, lr=1.0))
    run_of(folder, "insgd", 0).info_path.parent.mkdir()
    run_of(folder, "insgd", 0).info_path.write_text("{")
    counted = {name: {word: n for word, n in arm.counts.items() if n} for name, arm in arms(folder).items()}
    assert counted == {
        "sgd": {"done": 1, "diverged": 1, "failed": 1, "running": 1},
        "insgd": {"damaged": 1, "not started": 7},
    }
    assert [arm.runs for arm in arms(folder).values()] == [4, 8]


def test_the_best_cell_has_the_best_mean_over_its_seeds_and_tells_what_varies(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    best = arms(folder)["sgd"].best
    assert best is not None
    assert (best.metric, best.settings, best.seeds) == ("accuracy", {"lr": 1.0}, 2)
    assert best.value == pytest.approx((0.02 + 0.03) / 2 + 0.002)
    finish_run(run_of(folder, "sgd", 0, lr=0.1), 0.9)
    best = arms(folder)["sgd"].best
    assert best is not None
    assert best.settings == {"lr": 0.1}


def test_a_diverged_seed_is_the_worst_there_is(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    finish_run(run_of(folder, "sgd", 0, lr=1.0), 0.99, "diverged")
    best = arms(folder)["sgd"].best
    assert best is not None
    assert best.settings == {"lr": 0.1}
    for seed in (0, 1):
        finish_run(run_of(folder, "sgd", seed, lr=0.1), 0.99, "diverged")
    assert arms(folder)["sgd"].best is None


def test_without_accuracies_the_lowest_loss_is_best(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    for number, row in enumerate(folder.info()["plan"]):
        finish_run(folder.run(row["run"]), 0.0, results={"final_val_loss": float(number)})
    best = arms(folder)["sgd"].best
    assert best is not None
    assert (best.metric, best.value, best.settings) == ("loss", 0.5, {"lr": 0.1})


def test_the_time_left_is_what_is_left_at_the_pace_of_its_arm_by_those_at_work(tmp_path: Path) -> None:
    folder = make_study(tmp_path, finish=False)
    finish_run(run_of(folder, "sgd", 0, lr=0.1), 0.5, seconds=10.0)
    finish_run(run_of(folder, "insgd", 0), 0.5, seconds=100.0)
    start(run_of(folder, "sgd", 1, lr=0.1))
    start(run_of(folder, "insgd", 1))
    assert Survey(folder, HERE).state().seconds_left is None, "nobody runs it"
    with presence.at_work(folder):
        state = Survey(folder, HERE).state()
    assert state.in_use
    assert [arm.seconds_left for arm in state.arms] == [(5 + 2 * 10) / 2, (50 + 6 * 100) / 2]
    assert state.seconds_left == (25 + 650) / 2


def test_a_study_that_is_looked_at_again_opens_only_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(tmp_path)
    survey, opened = Survey(folder, HERE), []
    whole = RunFolder.checked_info

    def note(run: RunFolder) -> dict[str, Any]:
        opened.append(run.id)
        return whole(run)

    monkeypatch.setattr(RunFolder, "checked_info", note)
    survey.state()
    assert len(opened) == 12
    changed = run_of(folder, "sgd", 0, lr=0.1)
    finish_run(changed, 0.99)
    best = survey.state().arms[0].best
    assert opened[12:] == [changed.id]
    assert best is not None
    assert best.settings == {"lr": 0.1}


# ------------------------------------------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("made", "stale"),
    [
        ({"versions": {"insgd_lab": "0.1.0"}, "commit": "abc"}, False),
        ({"versions": {"insgd_lab": "0.2.0"}, "commit": "abc"}, True),
        ({"versions": {"insgd_lab": "0.1.0"}, "commit": "def"}, True),
        ({"versions": {"insgd_lab": "0.1.0"}, "commit": None}, False),
        ({"versions": {}, "commit": "def"}, False),
        ({}, False),
    ],
)
def test_a_run_is_stale_where_another_version_is_known_to_have_made_it(made: dict[str, Any], stale: bool) -> None:
    assert (list(stale_runs({"run": made}, HERE)) == ["run"]) == stale


def test_stale_runs_are_counted_and_set_aside_to_run_again(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    old, held = run_of(folder, "sgd", 0, lr=0.1), run_of(folder, "sgd", 1, lr=0.1)
    finish_run(old, 0.5, versions={"insgd_lab": "0.0.9"}, commit=None)
    start(held)
    held.write_info({**held.info(), "commit": "def"})
    held.checkpoint_path.write_bytes(b"checkpoint")
    metrics = old.metrics_path.read_bytes()
    state = Survey(folder, HERE).state()
    assert state.stale == {Lab("0.0.9"): 1, Lab("0.1.0", "def"): 1}
    assert [arm.stale for arm in state.arms] == [2, 0]
    runs = [row["run"] for row in folder.info()["plan"]]
    with held.locked():
        assert set_stale_aside(folder, runs, HERE) == [old.id]
    assert (old.path / "metrics.parquet.stale-1").read_bytes() == metrics
    assert old.id not in folder.statuses()
    assert set_stale_aside(folder, runs, HERE) == [held.id]
    assert (held.path / "checkpoint.pt.stale-1").read_bytes() == b"checkpoint"
    assert set_stale_aside(folder, runs, HERE) == []


# ------------------------------------------------------------------------------------------------ shown


def test_the_command_shows_arms_and_notes(tmp_path: Path, cli: Cli) -> None:
    folder = make_study(tmp_path / "made")
    run_of(folder, "sgd", 0, lr=0.1).metrics_path.write_bytes(b"")
    finish_run(run_of(folder, "sgd", 1, lr=0.1), 0.0, versions={"insgd_lab": "0.0.9"})
    for arguments in (("study", "status", "made"), ("study", "status", "made", "--watch")):
        shown = cli(*arguments, INSGD_LAB_COMMIT="abc")
        assert shown.returncode == 0, shown.stderr
        rows = [re.split(r"[│┃]", line)[1:-1] for line in shown.stdout.splitlines() if line.startswith(("│", "┃"))]
        header, sgd, insgd = ([cell.strip() for cell in row] for row in rows)
        assert header == ["arm", "runs", "done", "interrupted", "diverged", "failed", "not started", "damaged", "stale",
                          "best on validation", "time left"]  # fmt: skip
        assert sgd[:9] == ["sgd", "4", "3", "0", "0", "0", "0", "1", "1"]
        assert sgd[9] == "accuracy 0.0270 (learning rate = 1; 2 seeds)"
        assert insgd[9] == "accuracy 0.1070 (p = ∞, model batch norm = yes; 2 seeds)"
        assert "damaged: made/" in shown.stdout
        assert "metrics.parquet cannot be read (it has 0 bytes" in shown.stdout
        assert "stale: 1 runs are by other versions of the lab than 0.1.0 at abc: 0.0.9 at abc (1)" in shown.stdout


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_plan_is_named_with_the_remedy(tmp_path: Path, cli: Cli, content: str) -> None:
    folder = make_study(tmp_path / "made")
    folder.info_path.write_text(content)
    for arguments in (
        ("study", "status", "made"),
        ("report", "made"),
        ("study", "export", "made", "--out", "x.parquet"),
    ):
        result = cli(*arguments)
        assert result.returncode == 2
        assert "made/study.json cannot be read" in result.stderr
        assert "run the study again" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_study_in_a_folder_that_nobody_can_lock_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: StudyFolder) -> bool:
        raise PermissionError(13, "Permission denied", str(folder.path))

    folder = make_study(tmp_path)
    monkeypatch.setattr(status, "in_use", refuse)
    assert not Survey(folder, HERE).state().in_use


# ------------------------------------------------------------------------------------------------ watched


def watch(folder: StudyFolder, terminal: bool = True) -> tuple[status.StudyState, str]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    state = watching.watch(Survey(folder, HERE), lambda state: f"{state.arms[0].counts['done']} done", console, 0.0)
    assert isinstance(console.file, io.StringIO)
    return state, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_watching_ends_when_the_study_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study(tmp_path, finish=False)
    left = iter([row["run"] for row in folder.info()["plan"]])

    def work(seconds: float) -> None:
        finish_run(folder.run(next(left)), 0.5)

    monkeypatch.setattr(watching.time, "sleep", work)
    with presence.at_work(folder):
        state, shown = watch(folder)
    assert state.ended
    assert all(f"{done} done" in shown for done in range(5))


def test_watching_ends_when_nobody_runs_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr(watching.time, "sleep", looks.append)
    state, _ = watch(make_study(tmp_path, finish=False))
    assert not state.ended
    assert len(looks) == watching._IDLE_LOOKS


def test_watching_ends_by_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", press)
    folder = make_study(tmp_path, finish=False)
    with presence.at_work(folder):
        state, shown = watch(folder)
    assert state.in_use
    assert "0 done" in shown


def test_a_pipe_gets_one_picture(tmp_path: Path) -> None:
    folder = make_study(tmp_path, finish=False)
    with presence.at_work(folder):
        _, shown = watch(folder, terminal=False)
    assert shown == "0 done\n"
