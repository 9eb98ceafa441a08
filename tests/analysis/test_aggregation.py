import dataclasses

import numpy as np
import pytest

from insgd_lab.analysis.aggregation import over_tasks
from insgd_lab.analysis.selection import tune_at
from insgd_lab.analysis.statistics import improvement_over_tasks, stratified_bootstrap


@pytest.fixture(scope="module")
def studies(study):
    harder = dataclasses.replace(study)
    harder.__dict__["scores"] = study.scores.assign(test_error=(study.scores["test_error"] + 0.1).clip(upper=0.9))
    return {"easy": study, "hard": harder}


def accuracies(studies, choices, arm):
    cell = next(iter(studies.values())).shown_cell(arm)
    return {
        task: [100 - 100 * e for e in s.by_seed(arm, cell.key, tune_at(s, choices, cell, "best")).values()]
        for task, s in studies.items()
    }


def test_every_number_is_that_of_its_routine(studies, choices):
    frame = over_tasks(studies).set_index("arm")
    ours, theirs = (accuracies(studies, choices, arm) for arm in ("insgd", "sgd"))
    pooled, beats = stratified_bootstrap(ours), improvement_over_tasks(ours, theirs)
    row = frame.loc["insgd"]
    assert (row["iqm"], row["low"], row["high"]) == pytest.approx((pooled.value, pooled.low, pooled.high))
    assert (row["improvement"], row["improvement_low"]) == pytest.approx((beats.value, beats.low))
    assert (row["tasks"], row["runs"]) == (2, 6)
    assert np.isnan(frame.loc["sgd", "improvement"])
    assert list(frame.index) == ["insgd", "insgd-norms", "sgd", "adam"]


def test_arms_that_a_study_lacks_are_left_out(studies):
    arms = {name: arm for name, arm in studies["hard"].arms.items() if name != "sgd"}
    lacking = dataclasses.replace(studies["hard"], arms=arms)
    lacking.__dict__["scores"] = studies["hard"].scores.query("arm != 'sgd'")
    frame = over_tasks({"easy": studies["easy"], "hard": lacking})
    assert frame["arm"].tolist() == ["insgd", "insgd-norms", "adam"]
    assert frame["improvement"].isna().all()


def test_one_task_is_none_to_aggregate(studies):
    with pytest.raises(ValueError, match="at least two tasks"):
        over_tasks({"easy": studies["easy"]})
