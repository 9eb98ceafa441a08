import dataclasses
import math

import numpy as np
import pytest

from insgd_lab.analysis.convergence import loss_areas
from insgd_lab.analysis.convergence.areas import areas_by_run
from insgd_lab.analysis.selection import tune_at
from insgd_lab.analysis.statistics import summarize


def test_heights_are_numpys_trapezoids_over_the_epochs_between(study):
    heights = areas_by_run(study)
    for run in study.runs.index[study.runs["status"] == "done"][:20]:
        curve = study.curves.loc[run]["train_loss"].dropna()
        expected = np.trapezoid(curve, curve.index) / (curve.index[-1] - curve.index[0])
        assert heights[run] == pytest.approx(expected)
    assert np.isinf(heights[study.runs["status"] == "diverged"]).all()


def test_epochs_between_evaluations_count_by_their_number(study):
    curves = study.curves.copy()
    curves.loc[(slice(None), [2, 3]), "val_loss"] = np.nan
    run = study.runs.index[study.runs["status"] == "done"][0]
    loss = curves.loc[run]["val_loss"]
    found = areas_by_run(dataclasses.replace(study, curves=curves), "val_loss")[run]
    assert found == pytest.approx((3 * (loss[1] + loss[4]) / 2 + (loss[4] + loss[5]) / 2) / 4)


def test_cells_have_the_t_interval_of_the_runs_that_did_not_diverge(study, choices):
    frame = loss_areas(study, choices=choices).set_index(["arm", "cell"])
    cell = study.shown_cell("insgd")
    runs = study.finished("insgd", cell.key, tune_at(study, choices, cell, "best"))["run"]
    expected = summarize(areas_by_run(study)[runs].tolist())
    row = frame.loc[("insgd", cell.key)]
    assert (row["mean"], row["low"], row["n"], row["diverged"]) == (expected.mean, expected.low, 3, 0)


def test_diverged_runs_count_as_infinitely_high_in_the_median_alone(study, choices):
    cell = study.shown_cell("insgd")
    runs = study.finished("insgd", cell.key, tune_at(study, choices, cell, "best"))["run"].tolist()
    status = study.runs["status"].where(~study.runs.index.isin(runs[:1]), "diverged")
    made = dataclasses.replace(study, runs=study.runs.assign(status=status))
    row = loss_areas(made, choices=choices).set_index(["arm", "cell"]).loc[("insgd", cell.key)]
    left = areas_by_run(study)[runs[1:]].tolist()
    assert (row["n"], row["diverged"], row["mean"]) == (2, 1, pytest.approx(np.mean(left)))
    assert row["median"] == max(left)


def test_a_lower_curve_has_a_smaller_area_and_errors_are_in_percent(study):
    lower = dataclasses.replace(study, curves=study.curves * 0.5)
    finite = np.isfinite(areas_by_run(study))
    np.testing.assert_allclose(areas_by_run(lower)[finite], 0.5 * areas_by_run(study)[finite])
    assert 1 < areas_by_run(study, "test_error")[finite].max() < 100


def test_single_points_have_no_area_and_unknown_curves_are_refused(study):
    one = dataclasses.replace(study, curves=study.curves[study.curves.index.get_level_values("epoch") == 1])
    assert areas_by_run(one)[study.runs["status"] == "done"].isna().all()
    assert math.isnan(loss_areas(one)["mean"].iloc[0])
    with pytest.raises(ValueError, match="expected one of"):
        areas_by_run(study, "loss")
