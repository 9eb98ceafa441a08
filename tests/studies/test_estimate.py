"""How long a study takes, by hand: families of runs, their epochs, and the workers that share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from insgd_lab.cli import app
from insgd_lab.config import StudySpec, parse_study
from insgd_lab.studies.estimate import families, in_words, study_seconds
from insgd_lab.studies.search import next_plan


def study(*arms: dict[str, Any], **more: Any) -> StudySpec:
    common = {"name": "mine", "task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 4}}
    return parse_study({**common, **({} if "search" in more else {"seeds": 3}), **more, "arm": list(arms)})


def of_run(epochs: int, eval_every: int) -> float:
    """A second an epoch, ten an evaluation."""
    return epochs + 10 * (epochs // eval_every)


def test_runs_of_one_optimizer_task_and_batch_are_a_family() -> None:
    spec = study(
        {"name": "a", "optimizer": "sgd", "axes": {"lr": [0.1, 1], "train.epochs": [2, 4]}},
        {"name": "b", "optimizer": {"name": "sgd", "momentum": 0.5}, "train": {"schedule": "cosine"}},
        {"name": "c", "optimizer": "sgd", "train": {"batch_size": 8}},
        {"name": "d", "optimizer": "adam"},
        {"name": "e", "optimizer": "adam", "task": {"model": {"hidden": [4]}}},
    )
    found = families(next_plan(spec))
    assert [family.runs for family in found] == [
        {(2, 1): 6, (4, 1): 6 + 3}, {(4, 1): 3}, {(4, 1): 3}, {(4, 1): 3},
    ]  # fmt: skip
    assert found[0].seconds(of_run) == 6 * 22 + 9 * 44


def test_workers_share_the_work_but_none_is_done_before_the_longest_run() -> None:
    found = families(next_plan(study({"name": "a", "optimizer": "sgd", "axes": {"train.epochs": [2, 4]}})))
    parts = [(family, of_run) for family in found]
    assert study_seconds(parts, 1) == 3 * 22 + 3 * 44
    assert study_seconds(parts, 2) == (3 * 22 + 3 * 44) / 2
    assert study_seconds(parts, 100) == 44


@pytest.mark.parametrize("method", ["quasi-random", "random"])
def test_a_search_counts_the_winners_runs_that_are_still_to_be_planned(method: str) -> None:
    search = {"trials": 8, "seeds": 2, "final_seeds": 3, "method": method}
    arm = {"optimizer": "sgd", "search": {"lr": {"log_range": [0.1, 1]}, "train.batch_size": [8, 64]}}
    found = families(next_plan(study({"name": "a", **arm}, {"name": "b", **arm}, search=search)))
    assert {family.example.train.batch_size for family in found} == {8, 64}
    assert sum(sum(family.runs.values()) for family in found) == pytest.approx(8 * 2 * 2 + 3 * 2)


def test_optunas_trials_to_come_are_counted() -> None:
    pytest.importorskip("optuna")
    arm = {"name": "a", "optimizer": "sgd", "search": {"lr": {"log_range": [0.1, 1]}}}
    [family] = families(next_plan(study(arm, search={"trials": 30, "method": "optuna", "final_seeds": 5})))
    assert family.count == 35


def test_times_are_told_in_units_that_fit() -> None:
    assert [in_words(seconds) for seconds in (0.0123, 7, 119, 720, 7200, 86400 * 10)] == [
        "0.0123 s", "7 s", "119 s", "12 min", "2 h", "10 days",
    ]  # fmt: skip


SMALL = """
name = "small"
seeds = 4
task = { data = "digits", model = { name = "mlp", hidden = [8] } }
train = { epochs = 2, batch_size = 64 }
[[arm]]
name = "adam"
optimizer = "adam"
"""


def test_a_plan_says_what_its_estimate_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    shown = CliRunner().invoke(app, ["study", "plan", "small.toml", "--pilot", "--workers", "3"])
    assert shown.exit_code == 0, shown.output
    assert "on 3 workers (cpu): steps times epochs" in shown.stdout
    assert "│ adam      │ digits │ mlp   │ 64    │ 4    │ 19" in shown.stdout
    assert not (tmp_path / "runs").exists()
