"""Searches: equal budgets, winners by the validation split alone, fresh seeds, plans that only the store decides."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from insgd_lab import registry
from insgd_lab.analysis.runs import StudyError
from insgd_lab.analysis.runs import load_study as read_results
from insgd_lab.analysis.setup import setup
from insgd_lab.cli import app
from insgd_lab.config import ArmSpec, ConfigError, StudySpec, load_study, parse_study, read_study
from insgd_lab.store import StudyFolder, to_json_value
from insgd_lab.studies import search as searching
from insgd_lab.studies.planning import Plan, make_plan, study_info
from insgd_lab.studies.search import SearchPlan, final_runs, next_plan
from insgd_lab.training.loop import train

Cli = Callable[..., subprocess.CompletedProcess[str]]

RATES = {"lr": {"log_range": [1e-3, 1.0]}}
COMMON = {"name": "mine", "task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 1}}


def arm(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "optimizer": "sgd", "search": RATES, **more}


def study(*arms: dict[str, Any], **search: Any) -> StudySpec:
    return parse_study({**COMMON, "search": {"trials": 4, **search}, "arm": list(arms) or [arm()]})


def plan_of(spec: StudySpec, folder: StudyFolder | None = None) -> SearchPlan:
    plan = next_plan(spec, folder)
    assert isinstance(plan, SearchPlan)
    return plan


def rows(plan: Plan, stage: str, arm: str = "a") -> list[dict[str, Any]]:
    return [row for row in plan.rows if row["stage"] == stage and row["arm"] == arm]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


def finish(
    folder: StudyFolder, run: str, accuracy: float | None = None, loss: float = 1.0, status: str = "done"
) -> None:
    """Leave what a run leaves: its results and its losses."""
    named = {"best_val_loss": loss} if accuracy is None else {"best_val_accuracy": accuracy}
    info = {"id": run, "status": status, "results": {} if status == "diverged" else named}
    frame = pd.DataFrame(
        [(1, 1, "val", "loss", loss), (2, 2, "val", "loss", 9.0)], columns=["epoch", "step", "split", "metric", "value"]
    )
    folder.run(run).finish(info, frame.astype({"epoch": "int32", "step": "int64"}))


def finish_trials(folder: StudyFolder, plan: Plan, *scores: Any, arm: str = "a") -> None:
    """Finish trials in their order, all seeds alike; "diverged" and other words are statuses."""
    for row in rows(plan, "trial", arm):
        score = scores[row["trial"]]
        accuracy, loss = score if isinstance(score, tuple) else (score, 1.0)
        if isinstance(accuracy, str):
            finish(folder, row["run"], status=accuracy)
        else:
            finish(folder, row["run"], accuracy, loss)


# --------------------------------------------------------------------------------------------------- trials


@pytest.mark.parametrize("method", ["quasi-random", "random"])
def test_every_arm_gets_the_same_number_of_trials_on_the_same_seeds(method: str) -> None:
    spec = study(arm(), arm("b", optimizer="adam"), arm("c", axes={"dampening": [0, 0.5]}), seeds=2, method=method)
    plan = plan_of(spec)
    seeds = [1_000_000, 1_000_001]
    for name, cells in (("a", 1), ("b", 1), ("c", 2)):
        found = rows(plan, "trial", name)
        assert [row["seed"] for row in found] == seeds * 4 * cells
        assert len({(str(row["settings"]), row["tune"]["lr"]) for row in found}) == 4 * cells
    assert [row["tune"] for row in rows(plan, "trial", "a")] == [row["tune"] for row in rows(plan, "trial", "b")]
    assert not any(rows(plan, "final", name) for name in "abc")
    assert final_runs(spec) == 4 * 5


def test_quasi_random_trials_fall_once_into_each_part_of_every_range() -> None:
    space = {"lr": {"log_range": [1e-4, 1.0]}, "momentum": {"range": [0, 0.9]}, "weight_decay": {"range": [0, 1]}}
    found = [row["tune"] for row in rows(plan_of(study(arm(search=space), trials=16)), "trial")]
    parts = {
        "lr": [int(4 * (math.log10(one["lr"]) + 4)) for one in found],
        "momentum": [int(16 * one["momentum"] / 0.9) for one in found],
        "weight_decay": [int(16 * one["weight_decay"]) for one in found],
    }
    assert {name: sorted(each) for name, each in parts.items()} == {key: list(range(16)) for key in parts}


def test_trials_are_the_same_everywhere() -> None:
    found = {method: [row["tune"]["lr"] for row in rows(plan_of(study(method=method)), "trial")] for method in PINNED}
    assert found == PINNED
    assert [row["tune"]["lr"] for row in rows(plan_of(study(seed=1)), "trial")] != PINNED["quasi-random"]


PINNED = {
    "quasi-random": [0.0169765, 0.182323, 0.0478516, 0.00288598],
    "random": [0.341402, 0.187872, 0.018269, 0.00598068],
}


def test_a_space_with_fewer_settings_than_trials_is_tried_whole() -> None:
    space = {"lr": [0.1, 1], "momentum": [0, 0.9]}
    found = [row["tune"] for row in rows(plan_of(study(arm(search=space), trials=9)), "trial")]
    assert found == [{"lr": lr, "momentum": m} for lr in (0.1, 1.0) for m in (0.0, 0.9)]


def test_without_a_space_of_its_own_an_arm_tries_what_the_registry_recommends_and_it_does_not_set() -> None:
    plain = {"name": "a", "optimizer": {"name": "insgd-lp", "p": 2}, "axes": {"granularity": ["layer", "neuron"]}}
    spec = study(plain, trials=32)
    found = [row["tune"] for row in rows(plan_of(spec), "trial")]
    assert all(one.keys() == {"lr", "beta"} for one in found)
    assert {one["beta"] for one in found} == {0.0, 0.9, 0.99}
    assert 0.001 <= min(one["lr"] for one in found) < 0.002 < 0.5 < max(one["lr"] for one in found) <= 1
    assert len({one["lr"] for one in found}) > 7


def test_a_search_laid_over_a_tuned_study_tries_what_was_tuned() -> None:
    tuned = {"name": "a", "optimizer": {"name": "adam", "lr": 0.1}, "tune": {"lr": [0.1, 1]}}
    plan = plan_of(study(tuned))
    assert [row["tune"] for row in plan.rows] == [{"lr": 0.1}, {"lr": 1.0}]
    [info] = study_info(plan, versions={}, created="now")["arms"]
    assert (info["tune"], info["fixed"], info["search"]) == ({}, {}, {"lr": [0.1, 1.0]}), "a report has no choice left"


def test_a_search_has_no_plan_that_does_without_results() -> None:
    with pytest.raises(ValueError, match=r"mine has a search, .* use studies\.search\.next_plan"):
        make_plan(study())


def recommended(monkeypatch: pytest.MonkeyPatch, search: Any) -> StudySpec:
    """A study of a rule for which the registry recommends this, without a space of its own."""
    spec = dataclasses.replace(registry.get_optimizer("sgd"), search=search)
    monkeypatch.setitem(registry._optimizers._specs, "sgd", spec)
    return study({"name": "a", "optimizer": "sgd"}, trials=2)


def test_a_plugin_may_recommend_values_or_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = recommended(monkeypatch, {"lr": {"range": [0.5, 1]}, "momentum": [0, 0.9]})
    assert all(row["tune"]["lr"] >= 0.5 and row["tune"]["momentum"] in (0.0, 0.9) for row in plan_of(spec).rows)


@pytest.mark.parametrize("search", [{"lr": 3}, {"lr": (-1, 1)}, {"rate": (1, 2)}, {}])
def test_a_recommendation_that_cannot_be_asks_for_a_space(monkeypatch: pytest.MonkeyPatch, search: Any) -> None:
    with pytest.raises(ConfigError, match=r"arm\.a\.search: .*; say what to try, such as search = "):
        recommended(monkeypatch, search)


def test_whole_numbers_are_searched_as_such() -> None:
    space = {"train.batch_size": {"log_range": [8, 64]}}
    sizes = [row["tune"]["train.batch_size"] for row in rows(plan_of(study(arm(search=space), trials=16)), "trial")]
    assert len(set(sizes)) == 16
    assert all(isinstance(size, int) and 8 <= size <= 64 for size in sizes)


# -------------------------------------------------------------------------------------------------- winners


def winner(folder: StudyFolder, spec: StudySpec, *scores: Any) -> int | None:
    finish_trials(folder, plan_of(spec), *scores)
    return plan_of(spec, folder).verdicts[0].trial


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.1, 0.8, 0.9, 0.2), 2),
        ((0.9, 0.8, 0.9, 0.2), 0),
        (((0.9, 0.3), 0.8, (0.9, 0.2), (0.9, 0.4)), 2),
        (("diverged", 0.8, "diverged", 0.2), 1),
        (("diverged", 0.01, "diverged", "diverged"), 1),
        (("diverged",) * 4, 0),
        ((0.9, 0.8, "failed", 0.2), None),
        ((0.9, 0.8, "running", 0.2), None),
    ],
    ids=["best", "tie", "tie-by-loss", "diverged", "worse-than-a-guess", "all-diverged", "failed", "unfinished"],
)
def test_the_best_on_the_validation_split_wins(folder: StudyFolder, scores: tuple[Any, ...], expected: int) -> None:
    assert winner(folder, study(), *scores) == expected


def test_a_winner_is_chosen_by_its_mean_over_seeds_of_which_a_diverged_one_counts_as_a_guess(
    folder: StudyFolder,
) -> None:
    spec = study(seeds=2, trials=2)
    one, two, three, four = rows(plan_of(spec), "trial")
    finish(folder, one["run"], 0.9)
    finish(folder, two["run"], status="diverged")
    finish(folder, three["run"], 0.5)
    finish(folder, four["run"], 0.49)
    [verdict] = plan_of(spec, folder).verdicts
    assert (verdict.trial, verdict.diverged) == (0, 0)
    assert verdict.score == pytest.approx((0.9 + 0.1) / 2), "ten digits: a guess is right once in ten"


def test_where_there_is_no_accuracy_or_it_is_asked_for_the_loss_decides(folder: StudyFolder, tmp_path: Path) -> None:
    assert winner(folder, study(), (None, 0.3), (None, 0.1), (None, 0.2), "diverged") == 1
    other = StudyFolder(tmp_path / "other")
    assert winner(other, study(metric="loss"), (0.9, 0.3), (0.1, 0.1), (0.5, 0.2), "diverged") == 1
    with pytest.raises(ConfigError, match=r'search\.metric = "accuracy": the runs of a have no validation accuracy'):
        plan_of(study(metric="accuracy"), folder)


def test_the_winner_runs_on_fresh_seeds_and_trials_stay_as_they_are(folder: StudyFolder) -> None:
    spec = study(arm(), arm("b", optimizer="adam"), final_seeds=3)
    first = plan_of(spec, folder)
    finish_trials(folder, first, 0.1, 0.9, 0.2, 0.3)
    finish_trials(folder, first, 0.1, 0.2, "failed", 0.3, arm="b")
    plan = plan_of(spec, folder)
    final = rows(plan, "final")
    assert [row["seed"] for row in final] == [0, 1, 2]
    assert all(row["tune"] == rows(first, "trial")[1]["tune"] and row["trial"] == 1 for row in final)
    assert not {row["run"] for row in final} & first.runs.keys()
    assert [row for row in plan.rows if row["stage"] == "trial"] == first.rows
    assert not rows(plan, "final", "b"), "an arm waits for its failed trial, the others go on"
    for row in final:
        finish(folder, row["run"], 0.0)
    again = plan_of(spec, folder)
    assert (again.rows, list(again.runs)) == (plan.rows, list(plan.runs)), "what final runs score changes nothing"


def test_a_damaged_trial_is_waited_for(folder: StudyFolder) -> None:
    spec = study()
    first = plan_of(spec)
    finish_trials(folder, first, 0.1, 0.9, 0.9, 0.3)
    tied = folder.run(rows(first, "trial")[2]["run"])
    whole = tied.metrics_path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * len(whole)):
        tied.metrics_path.write_bytes(damaged)
        assert plan_of(spec, folder).verdicts[0].trial is None
    tied.metrics_path.write_bytes(whole)
    assert plan_of(spec, folder).verdicts[0].trial == 1
    tied.info_path.write_text("{")
    assert plan_of(spec, folder).verdicts[0].trial is None


def test_each_cell_has_a_winner_of_its_own(folder: StudyFolder) -> None:
    spec = study(arm(axes={"dampening": [0, 0.5]}), final_seeds=1)
    plan = plan_of(spec)
    for row in plan.rows:
        finish(folder, row["run"], float(row["trial"] == (1 if row["settings"]["dampening"] else 2)))
    final = rows(plan_of(spec, folder), "final")
    assert [(row["settings"]["dampening"], row["trial"]) for row in final] == [(0.0, 2), (0.5, 1)]


def test_the_studys_own_seeds_are_the_final_ones() -> None:
    raw = {**COMMON, "seeds": [7, 8], "search": {"trials": 2}, "arm": [arm()]}
    assert parse_study(raw).seeds == [7, 8]
    assert study().seeds == [0, 1, 2, 3, 4]
    assert parse_study(parse_study(raw).model_dump()) == parse_study(raw)


def test_study_json_tells_trials_from_results_and_a_report_wants_results(folder: StudyFolder) -> None:
    spec = study()
    plan = plan_of(spec, folder)
    info = to_json_value(study_info(plan, versions={}, created="now"))
    assert {row["stage"] for row in info["plan"]} == {"trial"}
    assert info["search"]["trials"] == 4
    assert info["arms"][0]["search"] == RATES
    folder.write_info(info)
    with pytest.raises(StudyError, match="has trials of a search, and no winner of one yet; run the study on"):
        read_results(folder.path)


# --------------------------------------------------------------------------------------------------- optuna


def test_without_optuna_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r'search\.method = "optuna": needs the package optuna; install it with'):
        plan_of(study(method="optuna"))


def test_trials_of_equal_settings_count_as_the_one_run_that_they_are(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice_the_same(spec: StudySpec, arm: ArmSpec, enter: Callable[..., list[float] | None]) -> bool:
        return all(enter([{"lr": rate}]) is not None for rate in (0.1, 0.1, 0.2))

    monkeypatch.setattr(searching, "_ask_optuna", twice_the_same)
    spec = study(arm(), {**arm(), "name": "b", "optimizer": "adam"}, method="optuna", trials=3, seeds=1)
    assert plan_of(spec, folder).stages.trials == 6
    for row in (row for _ in range(3) for row in rows(plan_of(spec, folder), "trial")):
        finish(folder, row["run"], 0.5)
    assert plan_of(spec, folder).stages.trials == 2 + 3
    for row in (row for _ in range(3) for row in rows(plan_of(spec, folder), "trial", "b")):
        finish(folder, row["run"], 0.5)
    plan = plan_of(spec, folder)
    assert all(verdict.trial is not None for verdict in plan.verdicts)
    assert plan.stages.trials == len({row["run"] for row in plan.rows if row["stage"] == "trial"}) == 4


def test_optuna_learns_from_round_to_round_and_says_again_what_it_said(folder: StudyFolder) -> None:
    pytest.importorskip("optuna")
    space = {**RATES, "momentum": [0.0, 0.9], "train.batch_size": {"log_range": [8, 64]}}
    spec = study(arm(search=space), method="optuna", trials=40, trials_at_once=8)
    seen = 0
    while not (plan := plan_of(spec, folder)).verdicts[0].trials:
        known = rows(plan, "trial")
        assert len(known) == seen + 8
        for row in known[seen:]:
            finish(folder, row["run"], 1 - abs(math.log10(row["tune"]["lr"]) + 1) / 3)
        seen = len(known)
    assert seen == 40
    assert plan_of(spec, folder).rows == plan.rows
    late = [abs(math.log10(row["tune"]["lr"]) + 1) for row in rows(plan, "trial")]
    assert sum(late[20:]) < sum(late[:20]), "the later trials are nearer to the best rate"


# ---------------------------------------------------------------------------------------------- as a user does


STUDY = """
name = "small"
task = { data = { name = "digits", fraction = 0.1 }, model = { name = "mlp", hidden = [8] } }
train = { epochs = 1, batch_size = 16 }
search = { trials = 3, final_seeds = 2 }
[[arm]]
name = "sgd"
optimizer = "sgd"
search = { lr = { log_range = [0.03, 1.0] } }
[[arm]]
name = "wild"
optimizer = "sgd"
search = { lr = [1e28, 1e29, 1e30] }
"""


def work_off(spec: StudySpec, folder: StudyFolder) -> Plan:
    """Train what a study asks for, here, until it asks for nothing more; the last plan."""
    while True:
        plan = next_plan(spec, folder)
        if folder.statuses(list(plan.runs)).keys() == plan.runs.keys():
            return plan
        for name, run in plan.runs.items():
            if not folder.run(name).exists:
                train(run, folder.run(name))


def test_a_search_goes_on_from_anywhere_to_the_same_bytes(folder: StudyFolder) -> None:
    spec = parse_study(tomllib.loads(STUDY))
    plan = work_off(spec, folder)
    before = {run.id: run.metrics_path.read_bytes() for run in folder.runs()}
    assert before.keys() == plan.runs.keys()
    assert len(before) == 6 + 4
    for row in (plan.rows[0], *(row for row in plan.rows[1:] if row["stage"] == "final")):
        shutil.rmtree(folder.run(row["run"]).path, ignore_errors=True)  # as if it had been stopped earlier
    assert work_off(spec, folder).rows == plan.rows
    assert {run.id: run.metrics_path.read_bytes() for run in folder.runs()} == before


def test_only_the_winners_runs_are_reported(folder: StudyFolder) -> None:
    plan = work_off(parse_study(tomllib.loads(STUDY)), folder)
    folder.write_info(study_info(plan, versions={}, created="now"))
    results = read_results(folder.path)
    assert set(results.plan["run"]) == {row["run"] for row in plan.rows if row["stage"] == "final"}
    assert list(results.runs["status"]) == ["done"] * 2 + ["diverged"] * 2
    facts = dict(setup(results).facts)
    assert "each cell was tuned by 3 trials (quasi-random), run with the seeds 1000000" in facts["Choice of settings"]
    assert facts["Runs"] == "4 planned: 2 diverged, 2 done"
    [cell] = results.cells_of("sgd")
    assert results.cell_label(cell).startswith("learning rate = ")


def test_one_command_searches_and_reruns_the_winners(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    plan = cli("study", "plan", "small.toml")
    assert "6 runs of trials: 3 quasi-random trials in each cell, 1 seeds; then 4 final runs" in plan.stdout
    done = cli("study", "run", "small.toml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("; see insgd-lab report runs/small") == 1, "the trials are no results to look at"
    assert done.stdout.startswith("small: trials 0 of 6, final runs 0 of 4; 1 worker; ")
    assert "small: trials 6 of 6, final runs 4 of 4: 5 done, 5 diverged, 0 failed (" in done.stdout
    assert "sgd: best of 3 trials: lr = " in done.stdout
    assert "wild: all 3 trials diverged; the first one stands for the arm" in done.stdout
    folder = StudyFolder(tmp_path / "runs/small")
    assert {row["stage"] for row in folder.info()["plan"]} == {"trial", "final"}
    assert sorted(folder.statuses().values()) == ["diverged"] * 5 + ["done"] * 5


def called(*arguments: str) -> str:
    """What a command prints, called here."""
    result = CliRunner().invoke(app, ["study", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_settings_on_the_command_line_make_another_plan_of_the_same_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in STUDY.splitlines() if not line.startswith("search")]
    Path("small.toml").write_text("\n".join(["seeds = 2", *lines]))
    folder = StudyFolder("runs/small")
    for name in make_plan(load_study("small.toml")).runs:
        finish(folder, name, 0.5)
    assert "all 2 runs are finished" in called("run", "small.toml")
    settings = ("--set", "seeds=1", "--set", "arm.wild.optimizer.lr=0.5")
    assert "2 runs in all (shared ones counted once), 1 seeds, 1 epochs" in called("plan", "small.toml", *settings)
    finish(
        folder,
        next(name for name in make_plan(with_rate("small.toml", 0.5)).runs if name not in folder.statuses()),
        0.5,
    )
    again = called("run", "small.toml", *settings)
    assert "1 runs of an earlier plan are kept and ignored" in again
    assert "all 2 runs are finished" in again
    spec = folder.info()["spec"]
    assert (spec["seeds"], spec["arm"][1]["optimizer"]["options"]) == ([0], {"lr": 0.5})


def with_rate(path: str, rate: float) -> StudySpec:
    """The study with one seed and another learning rate of its last arm."""
    raw, _ = read_study(path)
    raw["arm"][-1]["optimizer"] = {"name": "sgd", "lr": rate}
    return parse_study({**raw, "seeds": 1})


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("lr=1", "--set lr: expected seeds, a key of training such as epochs, task.KEY"),
        ("epochs", "--set epochs: expected KEY=VALUE"),
        ("epochs=0", "digits with epochs=0: 1 problem\n  train.epochs = 0: expected greater"),
        ("arm.nope.optimizer.lr=1", "--set arm.nope: there is no such arm; there are: insgd, "),
        ("arm.sgd=1", "--set arm.sgd: expected seeds"),
        ("seeds.x=1", "seeds.x: seeds is not a table, but 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: str, expected: str) -> None:
    result = CliRunner().invoke(app, ["study", "plan", "digits", "--set", setting])
    assert result.exit_code == 2
    assert expected in result.output
