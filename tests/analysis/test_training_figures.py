import dataclasses
import math

import numpy as np
import pytest

from insgd_lab.analysis.convergence import time_to_target
from insgd_lab.analysis.result_drawings import PANELS, _first
from insgd_lab.analysis.runs import load_study
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.statistics import kaplan_meier, summarize
from insgd_lab.analysis.training_figures import draw_arrivals, draw_training
from insgd_lab.analysis.training_series import Arrival, Arrivals, arrivals, default_target, training_panels

from .synthetic import arms, build_study


@pytest.fixture(scope="module")
def rows(study, choices):
    return training_panels(study, choices)


def test_there_is_a_panel_for_each_curve_and_a_line_for_each_arm(rows):
    assert [[panel.title for panel in row] for row in rows] == [["train loss", "test loss", "test error (%)"]]
    labels = [[line.label for line in panel.lines] for panel in rows[0]]
    assert labels == [["INSGD, one at a time: 0.3", "SGD: 0.1", "Adam: 0.003333"]] * 3


def test_lines_are_means_over_seeds_with_their_intervals(study, choices, rows):
    cell = study.shown_cell("sgd")
    runs = study.finished("sgd", cell.key, tune_at(study, choices, cell, "best"))["run"].tolist()
    losses = [study.curves.loc[(run, 5), "test_loss"] for run in runs]
    line = rows[0][1].lines[1]
    expected = summarize(losses)
    assert (line.mean[-1], line.low[-1], line.high[-1]) == pytest.approx((expected.mean, expected.low, expected.high))
    errors = rows[0][2].lines[1]
    assert errors.mean[-1] == pytest.approx(100 * np.mean([study.curves.loc[(run, 5), "test_error"] for run in runs]))


def test_the_loss_of_an_arm_ends_where_a_run_diverged_and_its_error_is_that_of_guessing(study):
    run = study.runs.index[study.runs["status"] == "diverged"][0]
    epoch = study.runs.loc[run, "diverged_epoch"]
    losses, errors = (study.by_epoch([run], column)[run] for column in ("test_loss", "test_error"))
    assert np.isinf(losses.loc[epoch:]).all()
    assert np.isfinite(losses.loc[: epoch - 1]).all()
    assert (errors.loc[epoch:] == 0.9).all()


def test_the_figure_draws_the_lines_and_bands_of_its_panels(rows):
    figure = draw_training(rows)
    axes = figure.subfigs[0].axes
    assert [ax.get_ylabel() for ax in axes] == [panel.title for panel in rows[0]]
    for ax, panel in zip(axes, rows[0], strict=True):
        for drawn, line in zip(ax.lines, panel.lines, strict=True):
            np.testing.assert_array_equal(drawn.get_xydata(), np.column_stack([line.x, line.mean]))
        assert len(ax.collections) == len(panel.lines)
        assert len({line.get_marker() for line in ax.lines}) == len(panel.lines)
        assert ax.get_yscale() == "log"
    [key] = figure.subfigs[0].legends
    assert [text.get_text() for text in key.get_texts()] == [line.label for line in rows[0][0].lines]


def test_many_arms_take_rows_with_one_scale(rows):
    figure = draw_training([rows[0], rows[0][:]])
    first, second = figure.subfigs
    for ax, other in zip(first.axes, second.axes, strict=True):
        assert ax.get_ylim() == other.get_ylim()


def test_of_very_many_arms_the_first_are_drawn_and_that_is_said():
    assert _first(list("abcd"), range(24)) == (list("abcd"), "")
    shown, note = _first(list("abcdefghi"), range(54))
    assert len(shown) == PANELS
    assert note == "Drawn are the first 24 of 54 arms."


def test_a_task_with_losses_alone_has_two_panels_and_a_target(tmp_path):
    sgd = [{**arm, "axes": {}, "base": {}} for arm in arms(rates=(0.03, 0.1)) if arm["name"] in ("sgd", "adam")]
    folder = build_study(tmp_path / "s", arm_list=sgd, failed=0, epochs=4, steps=20)
    for run in folder.runs():
        metrics = run.metrics()
        run.write_metrics(metrics[metrics["metric"] != "accuracy"])
    study = load_study(folder.path)
    choices = choose(study)
    rows = training_panels(study, choices)
    assert [panel.title for panel in rows[0]] == ["train loss", "test loss"]
    target = default_target(study, choices)
    assert target is not None
    assert target[1] == "test_loss"
    sgd_arrival = arrivals(study, choices, *target).arms[0]
    assert sgd_arrival.curve.events >= 2


# ---------------------------------------------------------------------------------------------- targets


def test_the_target_is_what_the_median_run_of_the_baseline_ends_at(study, choices):
    cell = study.shown_cell("sgd")
    errors = sorted(study.by_seed("sgd", cell.key, tune_at(study, choices, cell, "best")).values())
    assert default_target(study, choices) == (100 * errors[1], "test_error")


def test_a_baseline_that_always_diverged_sets_no_target(study, choices):
    lost = dataclasses.replace(study, runs=study.runs.assign(status="diverged"))
    assert default_target(lost, choices) is None


def test_arrivals_are_the_curves_whose_medians_are_told(study, choices):
    found = arrivals(study, choices, 10.0)
    told = time_to_target(study, 10.0, choices=choices)
    told = told[told["unit"] == "epochs"].set_index(["arm", "cell"])
    for name, arm in zip(("insgd", "sgd", "adam"), found.arms, strict=True):
        row = told.loc[(name, study.shown_cell(name).key)]
        assert (arm.curve.median, arm.curve.events, arm.curve.runs) == (row["median"], row["reached"], row["runs"])
        assert arm.last == 5


def test_the_share_of_runs_is_drawn_in_steps_from_nobody_on():
    curve = kaplan_meier([3, 5, 8, 8], [True, True, True, False])
    never = kaplan_meier([8, 8], [False, False])
    found = Arrivals(5.0, "test_error", (Arrival("one", curve, 8.0), Arrival("other", never, 8.0)))
    [ax] = draw_arrivals(found).axes
    first, second = ax.lines
    assert first.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(first.get_xdata(), [0, 3, 5, 8, 8])
    np.testing.assert_allclose(first.get_ydata(), [0, 25, 50, 75, 75])
    np.testing.assert_allclose(second.get_ydata(), [0, 0, 0])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["one\n3 of 4, median epoch 5", "other\n0 of 2, median epoch ∞"]
    assert math.isinf(never.median)
