"""How far a study has got: counts, the best so far, the time left, stale runs; once, or watched."""

from __future__ import annotations

import io
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from insgd_lab.cli import study_tools
from insgd_lab.cli.study_tools import gaps
from insgd_lab.config import StudySpec
from insgd_lab.store import RunFolder, StudyFolder
from insgd_lab.studies import presence, status, watching
from insgd_lab.studies.planning import study_info
from insgd_lab.studies.search import next_plan
from insgd_lab.studies.status import ArmState, Best, Lab, Survey, set_stale_aside, stale_runs

from .made import MADE, finish_run, make_study, run_of

Cli = Callable[..., subprocess.CompletedProcess[str]]
HERE = Lab("0.1.0", "abc")


def arms(folder: StudyFolder) -> dict[str, ArmState]:
    return {arm.name: arm for arm in Survey(folder, HERE).state().arms}


def rows_of(table: str) -> list[list[str]]:
    """The header and the rows of a table that was printed."""
    rows = [re.split(r"[│┃]", line)[1:-1] for line in table.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in row] for row in rows]


def begin(run: RunFolder, **info: Any) -> None:
    run.write_info({**MADE, "status": "running", "seconds": 0, **info})


@contextmanager
def at(*runs: RunFolder) -> Iterator[None]:
    """Hold runs, as those who train them do."""
    with ExitStack() as held:
        for run in runs:
            held.enter_context(run.locked())
        yield


def test_every_run_of_an_arm_is_counted_once_by_its_status(tmp_path: Path) -> None:
    folder = make_study(tmp_path, finish=False)
    for seed, lr, word in ((0, 0.1, "done"), (1, 0.1, "diverged"), (0, 1.0, "failed")):
        finish_run(run_of(folder, "sgd", seed, lr=lr), 0.5, word)
    begin(run_of(folder, "sgd", 1, lr=1.0))
    begin(run_of(folder, "insgd", 1))
    run_of(folder, "insgd", 0).info_path.parent.mkdir()
    run_of(folder, "insgd", 0).info_path.write_text("{")
    with at(run_of(folder, "sgd", 1, lr=1.0)):
        counted = {name: {word: n for word, n in arm.counts.items() if n} for name, arm in arms(folder).items()}
    assert counted == {
        "sgd": {"done": 1, "diverged": 1, "failed": 1, "running": 1},
        "insgd": {"damaged": 1, "interrupted": 1, "not started": 6},
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


def test_a_report_tells_damaged_runs_and_how_many_have_no_result(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    assert list(gaps(folder.path)) == []
    broken = run_of(folder, "sgd", 0, lr=0.1)
    broken.metrics_path.write_bytes(b"")
    [damaged, incomplete] = gaps(folder.path)
    assert damaged == f"damaged: {Survey(folder, HERE).state().damaged[broken.id]}"
    runs = len(folder.info()["plan"])
    assert incomplete == f"incomplete: {runs - 1} of {runs} runs"


def test_losses_are_shown_with_three_digits() -> None:
    assert study_tools._best(Best("loss", 0.000123456, {}, 2)) == "loss 0.000123 (2 seeds)"
    assert study_tools._best(Best("accuracy", 0.5, {}, 1)) == "accuracy 0.5000 (1 seed)"


def test_the_time_left_is_what_is_left_at_the_pace_of_its_arm_by_those_at_work(tmp_path: Path) -> None:
    folder = make_study(tmp_path, finish=False)
    finish_run(run_of(folder, "sgd", 0, lr=0.1), 0.5, seconds=10.0)
    finish_run(run_of(folder, "insgd", 0), 0.5, seconds=100.0)
    begun = run_of(folder, "sgd", 1, lr=0.1), run_of(folder, "insgd", 1)
    for run in (*begun, run_of(folder, "sgd", 0, lr=1.0)):  # the last was interrupted
        begin(run)
    assert Survey(folder, HERE).state().seconds_left is None, "nobody runs it"
    with presence.at_work(folder), at(*begun):
        state = Survey(folder, HERE).state()
    assert state.in_use
    assert [arm.seconds_left for arm in state.arms] == [(5 + 2 * 10) / 2, (50 + 6 * 100) / 2]
    assert state.seconds_left == (25 + 650) / 2


@pytest.mark.parametrize(("running", "hands"), [(8, 2), (7, 2), (4, 1)])
def test_the_runs_of_a_pack_are_one_at_work_and_their_seconds_are_shares(
    tmp_path: Path, running: int, hands: int
) -> None:
    folder = make_study(tmp_path, finish=False)
    runs = [folder.run(name) for name in dict.fromkeys(row["run"] for row in folder.info()["plan"])]
    for run in runs[: 12 - running]:
        finish_run(run, 0.5, seconds=30.0, packing=4)
    for run in runs[12 - running :]:
        begin(run, packing=4)
    with presence.at_work(folder), at(*runs[12 - running :]):
        assert Survey(folder, HERE).state().seconds_left == running * 15 / hands


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


# ------------------------------------------------------------------------------------------------ searches

SEARCH = """
name = "made"
task = { data = "digits", model = "mlp" }
train = { epochs = 2 }
search = { trials = 3, seeds = 2, final_seeds = 4 }
[[arm]]
name = "sgd"
optimizer = "sgd"
search = { lr = [0.1, 0.2, 0.3] }
[[arm]]
name = "adam"
optimizer = "adam"
axes = { amsgrad = [false, true] }
search = { lr = [0.1, 0.2, 0.3] }
"""


def plan_further(folder: StudyFolder) -> list[dict[str, Any]]:
    """Plan what follows from the finished runs; its final runs."""
    plan = next_plan(StudySpec.model_validate(tomllib.loads(SEARCH)), folder)
    folder.write_info(study_info(plan, versions={}, created="2025-01-01"))
    return [row for row in plan.rows if row["stage"] == "final"]


@pytest.fixture
def searching(tmp_path: Path) -> StudyFolder:
    """A search whose trials have been planned."""
    folder = StudyFolder(tmp_path / "made")
    plan_further(folder)
    return folder


def stages(folder: StudyFolder) -> dict[tuple[str, str], ArmState]:
    return {(arm.name, arm.stage): arm for arm in Survey(folder, HERE).state().arms}


def finish_trials(folder: StudyFolder, arm: str) -> None:
    """The later in the plan the better at best, and the worse after the last epoch."""
    for number, row in enumerate(folder.info()["plan"]):
        if row["arm"] == arm and row["stage"] == "trial":
            results = {"best_val_accuracy": number / 100, "final_val_accuracy": -number / 100}
            finish_run(folder.run(row["run"]), 0.0, results=results, seconds=10.0)


def test_final_runs_count_apart_from_trials_and_before_their_winners_are_known(searching: StudyFolder) -> None:
    found = stages(searching)
    assert {key: arm.runs for key, arm in found.items()} == {
        ("sgd", "trial"): 6, ("sgd", "final"): 4, ("adam", "trial"): 12, ("adam", "final"): 8,
    }  # fmt: skip
    assert all(arm.counts["not started"] == arm.runs for arm in found.values())
    finish_trials(searching, "sgd")
    for row in plan_further(searching):
        finish_run(searching.run(row["run"]), 0.5)
    found = stages(searching)
    assert [found["sgd", stage].counts["done"] for stage in ("trial", "final")] == [6, 4]
    assert found["adam", "final"].counts["not started"] == 8


def test_optuna_has_as_many_trials_before_it_has_chosen_them(searching: StudyFolder) -> None:
    info = searching.info()
    rows = [row for row in info["plan"] if row["trial"] == 0]
    searching.write_info({**info, "plan": rows, "search": {**info["search"], "method": "optuna"}})
    assert stages(searching)["adam", "trial"].runs == 12


def test_the_best_is_that_of_final_runs_once_there_is_one(searching: StudyFolder) -> None:
    finish_trials(searching, "sgd")
    best = stages(searching)["sgd", "trial"].best
    assert best is not None
    assert (best.value, best.settings, best.seeds) == (pytest.approx((0.04 + 0.05) / 2), {"lr": 0.3}, 2), (
        "what decides between trials is their best epoch"
    )
    final = plan_further(searching)
    finish_run(searching.run(final[0]["run"]), 0.0, results={"best_val_accuracy": 0.9, "final_val_accuracy": 0.02})
    found = stages(searching)
    best = found["sgd", "final"].best
    assert best is not None
    assert (best.value, best.settings, best.seeds) == (0.02, {"lr": 0.3}, 1)
    assert found["sgd", "trial"].best is None


def test_a_search_has_not_ended_and_takes_longer_while_winners_are_to_be_run(searching: StudyFolder) -> None:
    finish_trials(searching, "sgd")
    finish_trials(searching, "adam")
    assert not Survey(searching, HERE).state().ended
    final = plan_further(searching)
    for row in final:
        if row["arm"] == "sgd":
            finish_run(searching.run(row["run"]), 0.0, seconds=10.0)
    begin(searching.run(final[-1]["run"]))
    with presence.at_work(searching), at(searching.run(final[-1]["run"])):
        assert Survey(searching, HERE).state().seconds_left == 75
    for row in final:
        finish_run(searching.run(row["run"]), 0.0)
    assert Survey(searching, HERE).state().ended


def test_the_time_left_is_that_of_winners_to_come_too(searching: StudyFolder) -> None:
    trials = [searching.run(row["run"]) for row in searching.info()["plan"]]
    for run in trials[1:]:
        finish_run(run, 0.0, seconds=10.0)
    begin(trials[0])
    with presence.at_work(searching), at(trials[0]):
        assert Survey(searching, HERE).state().seconds_left == 5 + 10 * 12


def test_the_command_shows_the_stages_of_a_search(searching: StudyFolder, cli: Cli) -> None:
    finish_trials(searching, "sgd")
    finish_run(searching.run(plan_further(searching)[0]["run"]), 0.5)
    shown = rows_of(cli("study", "status", "made").stdout)
    assert shown[0][:4] == ["arm", "stage", "runs", "done"]
    assert [row[:4] for row in shown[1:]] == [
        ["sgd", "trials", "6", "6"], ["sgd", "final runs", "4", "1"],
        ["adam", "trials", "12", "0"], ["adam", "final runs", "8", "0"],
    ]  # fmt: skip
    assert [row[9] for row in shown[1:3]] == ["", "accuracy 0.5020 (learning rate = 0.3; 1 seed)"]


# ------------------------------------------------------------------------------------------------ failures

RAISED = """Traceback (most recent call last):
  File "a.py", line 1, in step
    raise KeyError(1)
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 2, in step
    raise ValueError(message)
ValueError: batch of 1 image
of two lines
"""
DIED = ["its worker died 2 times, at last: exit code 3; end of " + log for log in
        ("logs/worker-0.log:\n" + RAISED, "logs/worker-12.log:\n")]  # fmt: skip


def test_failures_are_told_by_reason_the_most_common_first(tmp_path: Path, cli: Cli) -> None:
    folder = make_study(tmp_path / "made")
    runs = list(dict.fromkeys(row["run"] for row in folder.info()["plan"]))[2:]
    errors = [*DIED, RAISED, RAISED, RAISED, "OSError: its own\nof two lines", ""]
    for run, error in zip(runs, errors, strict=False):
        folder.run(run).write_info({**MADE, "status": "failed", "error": error})
    told = [line for line in cli("study", "status", "made").stdout.splitlines() if line.startswith("failed: ")]
    paths = [f"made/{run}/run.json" for run in runs]
    assert told == [
        f"failed: 3 runs of insgd: ValueError: batch of 1 image; one of them: {paths[2]}",
        f"failed: 2 runs of sgd: its worker died 2 times, at last: exit code 3; one of them: {paths[0]}",
        f"failed: a run of insgd: OSError: its own; see {paths[5]}",
        f"failed: a run of insgd: it left no error; see {paths[6]}",
    ]


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
    begin(held)
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
        header, sgd, insgd = rows_of(shown.stdout)
        assert header == ["arm", "runs", "done", "running", "diverged", "failed", "not started", "damaged", "stale",
                          "best on validation", "time left"]  # fmt: skip
        assert sgd[:9] == ["sgd", "4", "3", "0", "0", "0", "0", "1", "1"]
        assert sgd[9] == "accuracy 0.0270 (learning rate = 1; 2 seeds)"
        assert insgd[9] == "accuracy 0.1070 (p = ∞, model batch norm = yes; 2 seeds)"
        assert "damaged: made/" in shown.stdout
        assert "metrics.parquet cannot be read (it has 0 bytes" in shown.stdout
        assert "stale: 1 runs are by other versions of the lab than 0.1.0 at abc: 0.0.9 at abc (1)" in shown.stdout


def test_the_command_tells_a_run_that_was_interrupted_from_one_that_runs(tmp_path: Path, cli: Cli) -> None:
    folder = make_study(tmp_path / "made")
    begun = [run_of(folder, "sgd", seed, lr=0.1) for seed in (0, 1)]
    for run in begun:
        begin(run)
    with at(begun[0]):
        header, sgd, _ = rows_of(cli("study", "status", "made").stdout)
    assert header[:6] == ["arm", "runs", "done", "running", "interrupted", "diverged"]
    assert sgd[:6] == ["sgd", "4", "2", "1", "1", "0"]


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
