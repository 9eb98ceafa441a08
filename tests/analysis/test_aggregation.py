import dataclasses

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis.aggregation import over_tasks
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.statistics import improvement_over_tasks, stratified_bootstrap


@pytest.fixture(scope="module")
def studies(study):
    harder = dataclasses.replace(study)
    harder.__dict__["scores"] = study.scores.assign(test_error=(study.scores["test_error"] + 0.1).clip(upper=0.9))
    return {"easy": study, "hard": harder}


def normalised(studies, choices, arm):
    """By task, accuracies of which guessing is 0 and SGD's mean 1."""
    found = {}
    for task, study in studies.items():
        errors = {}
        for name in (arm, "sgd"):
            cell = study.shown_cell(name)
            errors[name] = list(study.by_seed(name, cell.key, tune_at(study, choices, cell, "best")).values())
        found[task] = [(0.9 - error) / (0.9 - np.mean(errors["sgd"])) for error in errors[arm]]
    return found


def test_an_arm_with_data_of_its_own_is_measured_from_its_own_guessing(study):
    others = dataclasses.replace(study, runs=study.runs.copy())
    runs = others.plan.loc[others.plan["arm"] == "insgd", "run"]
    others.runs.loc[runs, "guess"] = 0.99
    before, after = (over_tasks({"one": one, "two": one}).set_index("arm")["iqm"] for one in (study, others))
    sgd = study.shown_cell("sgd")
    errors = study.by_seed("sgd", sgd.key, tune_at(study, choose(study), sgd, "best")).values()
    assert after["insgd"] - before["insgd"] == pytest.approx(0.09 / (0.9 - np.mean(list(errors))))
    assert after["adam"] == before["adam"]


def test_every_number_is_that_of_its_routine(studies, choices):
    frame = over_tasks(studies).set_index("arm")
    ours, theirs = (normalised(studies, choices, arm) for arm in ("insgd", "sgd"))
    pooled, beats = stratified_bootstrap(ours), improvement_over_tasks(ours, theirs)
    row = frame.loc["insgd"]
    assert (row["iqm"], row["low"], row["high"]) == pytest.approx((pooled.value, pooled.low, pooled.high))
    assert (row["improvement"], row["improvement_low"]) == pytest.approx((beats.value, beats.low))
    assert (row["tasks"], row["runs"]) == (2, 6)
    assert np.isnan(frame.loc["sgd", "improvement"])
    assert list(frame.index) == ["insgd", "insgd-norms", "sgd", "adam"]
    assert frame.loc["sgd", "iqm"] == pytest.approx(1, abs=0.01)


def test_a_task_weighs_the_same_however_hard_it_is(study):
    """Accuracies between guessing and the baseline's shrunk to a fifth change nothing."""
    hard = dataclasses.replace(study)
    hard.__dict__["scores"] = study.scores.assign(test_error=0.9 - (0.9 - study.scores["test_error"]) / 5)
    both, twice = over_tasks({"a": study, "b": hard}), over_tasks({"a": study, "b": study})
    pd.testing.assert_frame_equal(both, twice)


def test_arms_that_a_study_lacks_are_left_out(studies):
    arms = {name: arm for name, arm in studies["hard"].arms.items() if name != "adam"}
    lacking = dataclasses.replace(studies["hard"], arms=arms)
    lacking.__dict__["scores"] = studies["hard"].scores.query("arm != 'adam'")
    frame = over_tasks({"easy": studies["easy"], "hard": lacking})
    assert frame["arm"].tolist() == ["insgd", "insgd-norms", "sgd"]
    with pytest.raises(ValueError, match=r"baseline 'adam': .* \['hard'\] lack it; name another"):
        over_tasks({"easy": studies["easy"], "hard": lacking}, baseline="adam")


def test_what_cannot_be_normalised_is_refused(studies):
    losses = dataclasses.replace(studies["hard"], info={**studies["hard"].info, "labels": False})
    with pytest.raises(ValueError, match="hard has losses alone, without a level of guessing"):
        over_tasks({"easy": studies["easy"], "hard": losses})
    guessing = dataclasses.replace(studies["hard"])
    guessing.__dict__["scores"] = studies["hard"].scores.assign(test_error=0.9)
    with pytest.raises(ValueError, match="expected a baseline with finished runs that are better than guessing"):
        over_tasks({"easy": studies["easy"], "hard": guessing})


def test_one_task_is_none_to_aggregate(studies):
    with pytest.raises(ValueError, match="at least two tasks"):
        over_tasks({"easy": studies["easy"]})
