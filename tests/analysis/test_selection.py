import dataclasses

import numpy as np
import pytest

from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.runs import Study, load_study
from insgd_lab.analysis.selection import choose, tune_at, tune_label
from insgd_lab.analysis.statements import findings

from .synthetic import arms, best_rate, build_study

SGD_ONLY = [arm for arm in arms() if arm["name"] == "sgd"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "sgd"
    return build_study(path, arm_list=SGD_ONLY, failed=0, epochs=3, steps=20).path


def with_scores(path, change) -> Study:
    """A study whose scores are `change(rate, seed, row)`, a dict of columns to overwrite."""
    study = load_study(path)
    scores = study.scores.copy()
    for index, row in scores.iterrows():
        for name, value in change(study.tunes[row["tune"]]["lr"], row["seed"]).items():
            scores.loc[index, name] = value
    fresh = dataclasses.replace(study)
    fresh.__dict__["scores"] = scores
    return fresh


def chosen_rates(study):
    return {study.tunes[choice.tune]["lr"] for choice in choose(study).values()}


def test_each_cell_gets_the_rate_at_the_bottom_of_its_bowl(study, choices):
    for (arm, key), choice in choices.items():
        settings = study.cells[arm, key].settings
        assert study.tunes[choice.tune]["lr"] == pytest.approx(best_rate(study.arms[arm].optimizer, settings), rel=0.2)


def test_the_test_split_has_no_say(folder):
    flattering = with_scores(folder, lambda rate, seed: {"test_error": 0.0 if rate == 1.0 else 0.5})
    assert chosen_rates(flattering) == chosen_rates(load_study(folder))
    blind = load_study(folder)
    blind.__dict__["scores"] = blind.scores.drop(columns=["test_error", "best_test_error"])
    assert choose(blind) == choose(load_study(folder))


def test_ties_go_to_the_lower_loss(folder):
    losses = {0.03: 3.0, 0.1: 2.0, 0.3: 1.0, 1.0: 2.0}
    study = with_scores(folder, lambda rate, seed: {"val_error": 0.02, "val_loss": losses[rate]})
    assert chosen_rates(study) == {0.3}


def test_full_ties_go_to_the_smaller_rate(folder):
    study = with_scores(folder, lambda rate, seed: {"val_error": 0.02, "val_loss": 1.0})
    assert chosen_rates(study) == {0.03}


def test_one_diverged_seed_costs_a_rate_its_place(folder):
    def scores(rate, seed):
        if rate == 0.3:
            return {"val_error": 0.9, "val_loss": np.inf} if seed == 0 else {"val_error": 0.0, "val_loss": 0.0}
        return {"val_error": 0.05 if rate == 0.1 else 0.06, "val_loss": 1.0}

    assert chosen_rates(with_scores(folder, scores)) == {0.1}


def without(path, lost):
    """A study in which the runs of which `lost(rate, seed)` have crashed."""
    study = with_scores(path, lambda rate, seed: {"val_error": 0.01 if rate == 0.3 else 0.05, "val_loss": 1.0})
    rates = study.scores["tune"].map(lambda tune: study.tunes[tune]["lr"])
    gone = [lost(rate, seed) for rate, seed in zip(rates, study.scores["seed"], strict=True)]
    study.__dict__["scores"] = study.scores[~np.array(gone)].reset_index(drop=True)
    return study


def test_a_rate_whose_runs_crashed_does_not_win_on_the_seed_that_is_left(folder):
    study = without(folder, lambda rate, seed: rate == 0.3 and seed > 0)
    assert chosen_rates(study) == {0.03}
    for choice in choose(study).values():
        assert choice.seeds == 3
        assert [study.tunes[tune]["lr"] for tune in choice.left_out] == [0.3]


def test_where_every_rate_lost_as_many_seeds_all_take_part(folder):
    study = without(folder, lambda rate, seed: seed > 0)
    assert chosen_rates(study) == {0.3}
    assert {(choice.seeds, choice.left_out) for choice in choose(study).values()} == {(1, ())}


def test_what_was_left_out_for_missing_seeds_is_said(folder):
    study = without(folder, lambda rate, seed: rate == 0.3 and seed > 0)
    [said] = [s for s in findings(study, choose(study), compare(study), []) if "left out" in s]
    assert "In 2 of 2 cells tuned values were left out" in said
    assert "SGD / base (learning rate 0.3; chosen among those with 3 seeds)" in said


@pytest.mark.parametrize(("best", "edge"), [(0.03, "lowest"), (0.1, None), (1.0, "highest")])
def test_a_rate_at_the_end_of_its_grid_is_said_to_be(folder, best, edge):
    study = with_scores(folder, lambda rate, seed: {"val_error": 0.01 if rate == best else 0.5, "val_loss": 1.0})
    assert {choice.edge for choice in choose(study).values()} == {edge}


def test_the_fixed_tune_is_the_arms_own(study, choices):
    cell = study.base_cell("insgd")
    assert study.tunes[tune_at(study, choices, cell, "fixed")] == {"lr": 0.3}


def test_labels_of_tunes(study, choices):
    cell = study.base_cell("sgd")
    tune = tune_at(study, choices, cell, "best")
    assert tune_label(study, tune) == "learning rate 0.1"
    assert tune_label(study, tune, name=False) == "0.1"
    assert tune_label(study, None) == "–"
