import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis.convergence import target_times, time_profile, time_to_target
from insgd_lab.analysis.selection import tune_at
from insgd_lab.analysis.statistics import holm, kaplan_meier, log_rank

TARGET = 4.0


@pytest.fixture(scope="module")
def times(study):
    return target_times(study, TARGET)


def test_a_run_has_arrived_at_the_first_evaluation_at_or_below_the_target(study, times):
    for run, row in times.drop_duplicates("run").set_index("run").iterrows():
        curve = 100 * study.by_epoch([run], "test_error")[run].dropna()
        below = curve[curve <= TARGET]
        assert row["reached"] == (len(below) > 0)
        if len(below):
            assert row["epochs"] == below.index[0]
            assert row["steps"] == 20 * row["epochs"]
    assert 0 < times["reached"].mean() < 1


def test_who_did_not_arrive_is_censored_at_the_full_budget_diverged_or_not(times):
    late = times[~times["reached"]]
    assert {"done", "diverged"} <= set(late["status"])
    assert (late["epochs"] == 5).all()
    assert (late["steps"] == 100).all()


def test_a_run_that_diverged_in_its_first_epoch_is_censored_with_the_steps_of_its_like(study, times):
    first = study.runs.index[study.runs["diverged_epoch"] == 1]
    assert len(first)
    assert (times.loc[times["run"].isin(first), "steps"] == 100).all()


def test_seconds_are_those_of_the_epochs_that_were_clocked(study):
    runs = study.runs.copy()
    clock = [{"epoch": k, "seconds": float(k)} for k in range(1, 6)]
    runs["epochs"] = [clock for _ in range(len(runs))]
    found = target_times(dataclasses.replace(study, runs=runs), TARGET)
    there = found[found["reached"]]
    np.testing.assert_allclose(there["seconds"], there["epochs"] * (there["epochs"] + 1) / 2)


def test_seconds_are_in_proportion_where_no_epoch_was_clocked(times):
    there = times[times["reached"]]
    np.testing.assert_allclose(there["seconds"], 2.0 * there["epochs"] / 5)  # each synthetic run took 2 s


def test_a_quick_run_that_did_not_arrive_is_not_out_of_the_reckoning_before_a_slow_one_arrived(study, times):
    cells = times.groupby(["arm", "cell", "tune"])
    key, mixed = next((key, rows) for key, rows in cells if rows["reached"].nunique() == 2)
    runs = study.runs.copy()
    runs.loc[mixed.loc[mixed["reached"], "run"], "seconds"] = 50.0
    found = target_times(dataclasses.replace(study, runs=runs), TARGET).groupby(["arm", "cell", "tune"]).get_group(key)
    assert (found.loc[~found["reached"], "seconds"] == 50.0).all()
    assert (found.loc[found["reached"], "seconds"] <= 50.0).all()


def test_an_arm_with_a_longer_training_has_a_longer_budget(study):
    arm = dataclasses.replace(study.arms["sgd"], options={**study.arms["sgd"].options, "train.epochs": 50})
    found = target_times(dataclasses.replace(study, arms={**study.arms, "sgd": arm}), 0.001)
    assert found.groupby("arm")["epochs"].max().to_dict() == {"insgd": 5, "insgd-norms": 5, "sgd": 50, "adam": 5}


def test_an_easier_target_is_reached_no_later(study, times):
    easier = target_times(study, 2 * TARGET)
    assert (easier["epochs"] <= times["epochs"]).all()
    assert (easier["reached"] >= times["reached"]).all()
    assert not target_times(study, -1.0)["reached"].any()


def test_losses_have_their_own_unit(study):
    loss = target_times(study, 0.3, "val_loss")
    run = loss[loss["reached"]].iloc[0]
    assert study.curves.loc[(run["run"], int(run["epochs"])), "val_loss"] <= 0.3


@pytest.mark.parametrize(("target", "metric"), [(5.0, "accuracy"), (math.nan, "test_error")])
def test_impossible_targets_are_refused(study, target, metric):
    with pytest.raises(ValueError, match="expected a number, of one of"):
        target_times(study, target, metric)


# ------------------------------------------------------------------------------------------------ by cell


def test_medians_and_p_are_kaplan_meiers_and_the_log_ranks(study, choices, times):
    frame = time_to_target(study, TARGET, choices=choices)
    groups = dict(list(times.groupby(["arm", "cell", "tune"])))

    def at_best(arm):
        cell = study.shown_cell(arm)
        return groups[arm, cell.key, tune_at(study, choices, cell, "best")]

    insgd, sgd = at_best("insgd"), at_best("sgd")
    cell = study.shown_cell("insgd").key
    [row] = frame[(frame["arm"] == "insgd") & (frame["cell"] == cell) & (frame["unit"] == "steps")].to_dict("records")
    curve = kaplan_meier(insgd["steps"], insgd["reached"])
    assert (row["median"], row["low"], row["high"]) == (curve.median, curve.median_low, curve.median_high)
    assert row["reached"] == insgd["reached"].sum()
    assert row["p"] == log_rank(insgd["steps"], insgd["reached"], sgd["steps"], sgd["reached"])
    shown = frame[(frame["arm"] == "sgd") & (frame["cell"] == study.shown_cell("sgd").key)]
    assert shown["p"].isna().all()
    assert len(frame) == 3 * len(study.cells)
    np.testing.assert_array_equal(frame["p_holm"], holm(frame["p"].to_numpy()))  # of all units together


def test_the_order_of_runs_changes_no_bit(study, choices):
    shuffled = dataclasses.replace(study)
    shuffled.__dict__["scores"] = study.scores.sample(frac=1, random_state=1).reset_index(drop=True)
    one, other = (time_to_target(each, TARGET, choices=choices) for each in (study, shuffled))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_target_that_nobody_reaches_has_no_median(study):
    frame = time_to_target(study, 0.0001)
    assert np.isinf(frame["median"]).all()
    assert (frame["p"].dropna() == 1).all()


def test_a_study_without_a_clock_has_no_seconds(study):
    runs = study.runs.assign(seconds=None)
    frame = time_to_target(dataclasses.replace(study, runs=runs), TARGET)
    assert set(frame["unit"]) == {"epochs", "steps"}


# ------------------------------------------------------------------------------------------------ over tasks


def test_profile_over_tasks_takes_the_medians_of_shown_cells(study):
    profile = time_profile({"easy": study, "hard": study}, {"easy": 2 * TARGET, "hard": 0.0001}, unit="epochs")
    assert list(profile.columns) == ["insgd", "insgd-norms", "sgd", "adam"]
    assert (profile.iloc[-1] == 0.5).all()  # all do the easy task, nobody the hard one
    with pytest.raises(ValueError, match="one target a task"):
        time_profile({"easy": study}, {"hard": 1.0})
