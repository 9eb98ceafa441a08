import dataclasses

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis.aggregation import over_tasks
from insgd_lab.analysis.convergence import time_profile
from insgd_lab.analysis.runs import Cell, load_study
from insgd_lab.analysis.task_figures import by_task, draw_over_tasks, draw_profile, task_drawings

from .synthetic import arms, build_study


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    plain = [arm for arm in arms(rates=(0.03, 0.1, 0.3)) if arm["name"] in ("sgd", "adam")]
    return load_study(
        build_study(tmp_path_factory.mktemp("o") / "o", arm_list=plain, epochs=4, steps=20, failed=0).path
    )


def test_a_profile_is_drawn_as_steps_from_the_fastest_on():
    profile = pd.DataFrame(
        {"sgd": [0.5, 0.5, 1.0], "adam": [0.5, 1.0, 1.0]}, index=pd.Index([1.0, 2.0, 8.0], name="factor")
    )
    [ax] = draw_profile(profile, "steps").axes
    for line, arm in zip(ax.lines, profile, strict=True):
        assert line.get_label() == arm
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(line.get_xdata()[:-1], profile.index)
        np.testing.assert_allclose(line.get_ydata()[:-1], 100 * profile[arm])
    first, second = ax.lines
    assert first.get_linewidth() > second.get_linewidth(), "where they coincide, the first shows from under the second"
    assert first.get_linestyle() != second.get_linestyle()
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "steps to the target / those of the fastest arm"


def test_several_studies_are_drawn_together(study, other):
    studies, targets = {"digits": study, "other": other}, {"digits": 6.0, "other": 6.0}
    profile, means = task_drawings(studies, targets, unit="steps")
    expected = time_profile(studies, targets, "steps")
    lines = {line.get_label(): line for line in profile.figure.axes[0].lines}
    assert list(lines) == ["SGD", "Adam"]
    for label, arm in {"SGD": "sgd", "Adam": "adam"}.items():
        drawn = lines[label].get_ydata()[:-1]
        np.testing.assert_allclose(drawn, 100 * expected[arm])
    frame = over_tasks(studies)
    np.testing.assert_allclose(means.figure.axes[0].lines[0].get_xdata(), frame["iqm"])
    assert [label.get_text() for label in means.figure.axes[0].get_yticklabels()] == ["SGD", "Adam"]
    assert "Targets: digits 6, other 6." in profile.caption
    assert "median run of each task's baseline" in task_drawings(studies)[0].caption


def test_intervals_over_tasks_are_drawn(study, other):
    frame = over_tasks({"digits": study, "other": other}).assign(label=["SGD", "Adam"])
    accuracies, wins = draw_over_tasks(frame).axes
    ends = [(segment[0][0], segment[1][0]) for segment in accuracies.collections[0].get_segments()]
    np.testing.assert_allclose(ends, frame[["low", "high"]])
    np.testing.assert_allclose(wins.lines[0].get_xdata(), 100 * frame["improvement"])


def test_one_task_is_refused(study):
    with pytest.raises(ValueError, match="at least two"):
        task_drawings({"digits": study})


def test_a_study_over_a_task_axis_is_split_by_it(other):
    """`other` with its arms' seeds as if each tune had been a task of its own."""
    axis, rates = "task.data.fraction", (0.1, 0.5)
    cells, plan = {}, []
    for name in other.arms:
        tunes = other.tunes_of(name)[:2]
        for value, tune in zip(rates, tunes, strict=True):
            cell = Cell(name, {axis: value}, None)
            cells[name, cell.key] = cell
            rows = other.plan[(other.plan["arm"] == name) & (other.plan["tune"] == tune)].drop_duplicates("seed")
            plan.append(rows.assign(cell=cell.key))
    varied = {
        name: dataclasses.replace(arm, axes={axis: list(rates)}, base={axis: 0.1}) for name, arm in other.arms.items()
    }
    made = dataclasses.replace(other, arms=varied, cells=cells, plan=pd.concat(plan, ignore_index=True))
    parts = by_task(made)
    assert list(parts) == ["data fraction = 0.1", "data fraction = 0.5"]
    for value, part in zip(rates, parts.values(), strict=True):
        assert list(part.arms) == ["sgd", "adam"]
        assert part.shown_cell("adam").settings == {axis: value}
        assert set(part.scores["cell"]) == {part.shown_cell("sgd").key}
        assert len(part.scores) == 6
    assert len(task_drawings(parts)) == 2
    assert by_task(other) == {}
