import dataclasses

import numpy as np
import pytest

from insgd_lab.analysis.effects import ablated_axes, inert_levels, level_cells, level_notes, main_effects
from insgd_lab.analysis.runs import Cell, load_study
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.statistics import paired_difference, summarize

from .synthetic import BASE, arms, build_study


def row(effects, arm, axis, level, at):
    rows = effects.query("arm == @arm and axis == @axis and at == @at").to_dict("records")
    [found] = [row for row in rows if row["level"] == level]
    return found


def scores(study, choices, arm, settings, at):
    cell = study.find_cell(arm, settings)
    return study.by_seed(arm, cell.key, tune_at(study, choices, cell, at))


@pytest.mark.parametrize("at", ["best", "fixed"])
@pytest.mark.parametrize(("axis", "level"), [("beta", 0.0), ("granularity", "channel"), ("dampening", 0.0)])
def test_one_at_a_time_effects_are_paired_differences_from_base(study, choices, effects, axis, level, at):
    base = scores(study, choices, "insgd", BASE, at)
    moved = scores(study, choices, "insgd", {**BASE, axis: level}, at)
    expected = paired_difference(moved, base)
    found = row(effects, "insgd", axis, level, at)
    assert found["difference"] == pytest.approx(100 * expected.mean)
    assert found["difference_low"] == pytest.approx(100 * expected.low)
    assert found["pairs"] == 3
    assert found["mean"] == pytest.approx(100 * summarize(list(moved.values())).mean)


def test_full_grid_effects_average_over_the_other_axis(study, choices, effects):
    grids = [scores(study, choices, "insgd-norms", {"p": 1, "granularity": g}, "best")
             for g in ("layer", "neuron", "channel")]  # fmt: skip
    expected = np.mean([[grid[seed] for seed in range(3)] for grid in grids])
    assert row(effects, "insgd-norms", "p", 1, "best")["mean"] == pytest.approx(100 * expected)


def test_the_base_level_has_no_difference_from_itself(effects):
    base = effects[effects["base"]]
    assert base["difference"].isna().all()
    assert len(base) == 2 * (4 + 2 + 1)


def test_fixed_and_best_are_different_questions(effects):
    best = row(effects, "insgd-norms", "p", "inf", "best")
    fixed = row(effects, "insgd-norms", "p", "inf", "fixed")
    assert best["diverged"] == 0
    assert fixed["diverged"] == 9
    assert fixed["mean"] == pytest.approx(90)
    assert best["mean"] < 5


def test_shifting_all_errors_shifts_means_and_keeps_differences(study, effects):
    shifted = dataclasses.replace(study)
    shifted.__dict__["scores"] = study.scores.assign(test_error=study.scores["test_error"] + 0.01)
    after = main_effects(shifted, choose(shifted))
    np.testing.assert_allclose(after["mean"], effects["mean"] + 1)
    np.testing.assert_allclose(after["difference"], effects["difference"], atol=1e-9)


def test_eps_is_inert_and_the_reason_is_shown(study):
    [inert] = inert_levels(study)
    assert (inert.arm, inert.axis, inert.whole) == ("insgd", "eps", True)
    assert inert.levels == (0.001, 0.1)
    assert inert.pairs == 2 * 4 * 3
    assert inert.clipped == 0
    sentence = inert.sentence(study)
    assert "ε is inert" in sentence
    assert "log P never fell below ε" in sentence


def test_one_different_bit_ends_inertness(tmp_path):
    folder = build_study(tmp_path / "s", arm_list=arms()[:1], failed=0, epochs=3, steps=20, rates=(0.1, 0.3))
    study = load_study(folder.path)
    key = study.find_cell("insgd", {**BASE, "eps": 0.1}).key
    run = folder.run(study.plan.loc[study.plan["cell"] == key, "run"].iloc[0])
    metrics = run.metrics()
    metrics.loc[0, "value"] = np.nextafter(metrics.loc[0, "value"], 2)
    run.write_metrics(metrics)
    [inert] = inert_levels(load_study(folder.path))
    assert inert.levels == (0.001,)
    assert not inert.whole
    assert "ε = 0.001 changes nothing" in inert.sentence(study)


def test_an_axis_of_a_zip_grid_has_no_effect_of_its_own(study):
    arm = dataclasses.replace(study.arms["insgd"], grid="zip")
    assert ablated_axes(arm) == []


def test_level_cells_of_a_full_grid_are_all_that_have_the_level(study):
    assert len(level_cells(study, "insgd-norms", "p", "inf")) == 3
    assert len(level_cells(study, "insgd", "beta", 0.0)) == 1


def test_levels_are_averaged_over_the_same_cells_where_some_are_left_out_or_added(study):
    left_out = {"p": 2, "granularity": "neuron"}
    cells = {k: c for k, c in study.cells.items() if c.arm != "insgd-norms" or dict(c.settings) != left_out}
    assert len(cells) == len(study.cells) - 1
    more = Cell("insgd-norms", {"p": 3, "granularity": "layer"}, None)
    fewer = dataclasses.replace(study, cells={**cells, (more.arm, more.key): more})
    for level in (1, 2, "inf"):
        found = level_cells(fewer, "insgd-norms", "p", level)
        assert [cell.settings["granularity"] for cell in found] == ["layer", "channel"]
    assert all(cell.settings["p"] != 3 for cell in level_cells(fewer, "insgd-norms", "granularity", "layer"))


def test_nothing_tuned_leaves_one_way_of_judging(tmp_path):
    arm = {**arms()[2], "tune": {}, "axes": {"lr": [0.03, 0.1]}, "base": {"lr": 0.1}, "fixed": {"lr": 0.1}}
    folder = build_study(tmp_path / "s", arm_list=[{**arm, "fixed": {}}], failed=0, epochs=2, steps=20)
    study = load_study(folder.path)
    assert not study.tuned
    assert set(main_effects(study, choose(study))["at"]) == {"best"}


def test_what_levels_are_averaged_over_is_said_where_cells_take_no_part(study):
    assert level_notes(study) == []
    gone = study.find_cell("insgd-norms", {"p": "inf", "granularity": "channel"})
    plan = study.plan[~((study.plan["arm"] == "insgd-norms") & (study.plan["cell"] == gone.key))]
    cells = {key: cell for key, cell in study.cells.items() if cell != gone}
    [note] = level_notes(dataclasses.replace(study, plan=plan, cells=cells))
    planned = "cells whose other settings were planned at every level"
    assert note == (
        f"Main effects of INSGD, p × granularity: a level of p is averaged over the 2 {planned}; "
        f"a level of granularity is averaged over the 2 {planned}."
    )
    assert all(len(level_cells(dataclasses.replace(study, plan=plan, cells=cells), "insgd-norms", "p", p)) == 2
               for p in (1, 2, "inf"))  # fmt: skip
