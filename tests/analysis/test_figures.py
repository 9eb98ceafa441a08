import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from insgd_lab.analysis import canvas, figures, layer_figures, layers, series
from insgd_lab.analysis.drawings import _layers_note, drawings
from insgd_lab.analysis.effects import main_effects
from insgd_lab.analysis.measures import MEASURES
from insgd_lab.analysis.runs import load_study
from insgd_lab.analysis.selection import choose, tune_at, tuned_name
from insgd_lab.analysis.statistics import summarize
from insgd_lab.analysis.tables import effects_table

from .synthetic import LAYERS, RATES, arms, build_study


def panel_of(panels, title):
    [panel] = [panel for panel in panels if panel.title == title]
    return panel


def axes_of(figure, title):
    [ax] = [ax for ax in figure.axes if ax.get_title(loc="left").replace("\n", " ") == title]
    return ax


@pytest.fixture(scope="module")
def curves(study, choices):
    return series.test_curves(study, choices)


@pytest.fixture(scope="module")
def rates(study, choices):
    return series.sensitivity(study, choices)


# ---------------------------------------------------------------------------------------------- the numbers


def test_there_is_a_panel_for_each_comparison_and_few_lines_in_it(curves):
    titles = [panel.title for panel in curves]
    assert titles == [
        "Arms at their base",
        *(f"INSGD, one at a time: {axis}" for axis in ("β", "ε", "granularity", "dampening")),
        *(f"INSGD, p × granularity: p = {p}" for p in ("1", "2", "∞")),
        "SGD: dampening",
    ]
    assert all(len(panel.lines) <= series.LINES for panel in curves)


def test_an_arm_that_repeats_anothers_base_is_not_drawn_twice(study):
    assert [arm.name for arm in series.main_arms(study)] == ["insgd", "sgd", "adam"]


def test_large_comparisons_are_split(study):
    cells = tuple((str(k), cell) for k, cell in enumerate(study.cells.values()))
    parts = list(series._split(series.Group("many", "", cells)))
    assert sum(len(part.members) for part in parts) == len(cells)
    assert max(len(part.members) for part in parts) == series.LINES


def test_a_curve_ends_at_the_tables_value(study, choices, curves):
    line = panel_of(curves, "INSGD, one at a time: β").lines[1]
    cell = study.base_cell("insgd")
    expected = summarize(list(study.by_seed("insgd", cell.key, tune_at(study, choices, cell, "best")).values())) * 100
    assert line.label == "0.9 (base): 0.3"
    assert panel_of(curves, "INSGD, one at a time: β").legend == "β: learning rate"
    assert (line.mean[-1], line.low[-1], line.high[-1]) == pytest.approx((expected.mean, expected.low, expected.high))
    np.testing.assert_array_equal(line.x, [1, 2, 3, 4, 5])


def test_a_diverged_run_counts_as_guessing_from_then_on(study):
    run = study.runs.index[study.runs["status"] == "diverged"][0]
    healthy = study.runs.index[study.runs["status"] == "done"][0]
    for runs in ([run, healthy], [run]):
        table = study.by_epoch(runs, "test_error")
        assert list(table.index) == [1, 2, 3, 4, 5]
        assert (table.loc[study.runs.loc[run, "diverged_epoch"] :, run] == 0.9).all()
        assert table.notna().all(axis=None)


def test_sensitivity_uses_the_validation_split_and_marks_divergence(study, rates):
    line = panel_of(rates, "SGD: dampening").lines[0]
    cell = study.base_cell("sgd")
    for k, rate in enumerate(RATES):
        errors = list(study.by_seed("sgd", cell.key, f'{{"lr":{rate}}}', "val_error").values())
        assert line.mean[k] == pytest.approx(100 * np.mean(errors))
        assert (line.low[k], line.high[k]) == pytest.approx((100 * min(errors), 100 * max(errors)))
    assert line.crosses == (1.0,)
    assert line.chosen == 0.1


def traces_of(study, choices):
    return layers.layer_traces(layers.layer_records(study, choices))


def test_layer_traces_are_of_every_arm_with_records_on_weights(study, choices):
    traces = traces_of(study, choices)
    assert [trace.arm for trace in traces] == ["insgd", "sgd", "adam"]
    assert {tuple(trace.frame["parameter"].unique()) for trace in traces} == {LAYERS}
    first = traces[0]
    assert first.seeds == 3
    powers = first.frame.query("quantity == 'input_power' and parameter == 'conv1.weight'")["value"]
    assert powers.iloc[0] == pytest.approx(50, rel=0.02)


def test_grid_is_in_the_order_of_the_axes(study, choices):
    [grid] = series.grids(study, choices)
    assert list(grid.best.index) == ["1", "2", "∞"]
    assert list(grid.best.columns) == ["layer", "neuron", "channel"]
    cell = study.find_cell("insgd-norms", {"p": "inf", "granularity": "neuron"})
    errors = study.by_seed(cell.arm, cell.key, tune_at(study, choices, cell, "best"))
    assert grid.best.loc["∞", "neuron"] == pytest.approx(100 * np.mean(list(errors.values())))
    assert grid.fixed.loc["∞", "neuron"] == pytest.approx(90)
    assert grid.best_tunes.loc["∞", "neuron"] == "0.03"


# ---------------------------------------------------------------------------------------------- what is drawn


def test_curves_draw_the_lines_and_bands_of_their_panels(curves):
    figure = figures.draw_curves(curves)
    ax = axes_of(figure, "INSGD, one at a time: granularity")
    panel = panel_of(curves, "INSGD, one at a time: granularity")
    assert len(ax.lines) == len(ax.collections) == len(panel.lines)
    for drawn, line in zip(ax.lines, panel.lines, strict=True):
        np.testing.assert_array_equal(drawn.get_xydata(), np.column_stack([line.x, line.mean]))
    assert ax.get_xlabel() == "epoch"
    assert figure.axes[0].get_ylabel() == "test error (%)"
    assert len({line.get_marker() for line in ax.lines}) == len(panel.lines)


def test_lone_points_are_no_curve_of_sensitivity(study, choices):
    chosen = {place: choice.tune for place, choice in choices.items()}
    kept = [chosen.get((arm, cell)) == tune for arm, cell, tune in study.plan[["arm", "cell", "tune"]].values]
    alone = dataclasses.replace(study, plan=study.plan[kept].reset_index(drop=True))
    assert series.sensitivity(alone, choices) == []


def test_sides_share_an_axis_unless_one_spans_far_more():
    rows = {"at": ["best", "best", "fixed", "fixed"], "mean": [1.0, 2.0, 1.5, 3.0]}
    frame = pd.DataFrame(rows).assign(low=lambda f: f["mean"], high=lambda f: f["mean"])
    spans = figures.effect_spans(MEASURES["test_error"], frame)
    assert spans["best"] == spans["fixed"]
    far = frame.assign(mean=[1.0, 1.1, 10.0, 90.0], low=[1.0, 1.1, 10.0, 90.0], high=[1.0, 1.1, 10.0, 90.0])
    spans = figures.effect_spans(MEASURES["test_error"], far)
    assert spans["best"] != spans["fixed"]


def test_a_figure_is_saved_into_a_folder_that_is_not_there_yet(tmp_path):
    paths = canvas.save_figure(Figure(figsize=(1, 1)), tmp_path / "new" / "folder", "empty")
    assert all(path.is_file() for path in paths.values())


def test_sensitivity_draws_crosses_above_the_data_and_marks_the_choice(rates):
    figure = figures.draw_sensitivity(rates)
    ax = axes_of(figure, "SGD: dampening")
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    chosen = [line for line in ax.lines if line.get_markersize() == 8]
    assert [list(line.get_xdata()) for line in crosses] == [[1.0], [1.0]]
    assert [list(line.get_xdata()) for line in chosen] == [[0.1], [0.1]]
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[1] > 90
    assert max(tick for tick in ax.get_yticks() if tick <= ax.get_ylim()[1]) <= 100


def test_effects_draw_a_point_and_a_bar_for_each_level(study, effects):
    figure = figures.draw_effects(study, effects, [("insgd", "eps")])
    ax = axes_of(figure, "INSGD, one at a time: β")
    rows = effects.query("arm == 'insgd' and axis == 'beta' and at == 'best'")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), rows["mean"])
    [bars] = [c for c in ax.collections if len(c.get_segments()) == 3]
    np.testing.assert_allclose([segment[1][0] for segment in bars.get_segments()], rows["high"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "0.9 (base)", "0.99"]
    assert axes_of(figure, "INSGD, one at a time: ε (inert)")


def test_heat_map_prints_every_number(study, choices):
    grids = series.grids(study, choices)
    figure = figures.draw_grids(grids)
    best, fixed = figure.axes[:2]
    texts = [text.get_text() for text in best.texts]
    expected = [f"{grids[0].best.loc[a, b]:.2f}" for a in grids[0].best.index for b in grids[0].best.columns]
    assert [text.split("\n")[0] for text in texts] == expected
    assert texts[-1].endswith("\n(0.03)")
    assert fixed.texts[-1].get_text().startswith("90.00")
    assert best.get_ylabel() == "p"


def test_layers_draw_one_line_a_layer(study, choices):
    figure = layer_figures.draw_layers(traces_of(study, choices))
    assert [ax.get_ylabel() for ax in figure.axes] == [
        *["effective step ‖Δθ‖ / ‖g‖"] * 3, "input power P", "step scale 1 / f(P)",
    ]  # fmt: skip
    assert {len(ax.lines) for ax in figure.axes} == {len(LAYERS)}
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_of_many_layers_eight_are_drawn_first_and_last_among_them(study, choices):
    trace, *_ = traces_of(study, choices)
    copies = [trace.frame.assign(parameter=f"layer{k:02}.weight") for k in range(30)]
    many = dataclasses.replace(trace, frame=pd.concat(copies))
    shown = layer_figures.shown_layers([many])
    assert len(shown) == layer_figures.LAYER_LINES
    assert (shown[0], shown[-1]) == ("layer00.weight", "layer29.weight")
    assert len(layer_figures.draw_layers([many]).axes[0].lines) == layer_figures.LAYER_LINES


def only(tmp_path, *names, **fields):
    found = load_study(build_study(tmp_path / "s", arm_list=[
        {**arm, **fields} for arm in arms() if arm["name"] in names
    ], failed=0, epochs=2, steps=20).path)  # fmt: skip
    return found, choose(found)


def test_a_study_of_other_optimizers_has_a_figure_of_layers(tmp_path):
    found, chosen = only(tmp_path, "adam")
    [trace] = traces_of(found, chosen)
    assert tuple(trace.frame["parameter"].unique()) == LAYERS  # biases are left out
    assert [ax.get_ylabel() for ax in layer_figures.draw_layers([trace]).axes] == ["effective step ‖Δθ‖ / ‖g‖"]


def test_the_arms_shown_are_chosen_by_what_they_record(study, choices):
    insgd, sgd, adam = traces_of(study, choices)
    assert layers.shown_traces([sgd, adam, insgd]) == [sgd, adam, insgd]
    kinds = [sgd, adam, sgd, sgd, insgd, insgd, insgd]
    many = [dataclasses.replace(trace, label=str(k)) for k, trace in enumerate(kinds)]
    assert [trace.label for trace in layers.shown_traces(many)] == ["0", "1", "4", "5"]
    assert [trace.label for trace in layers.shown_traces(many[:4])] == ["0", "1", "2", "3"]
    assert [trace.label for trace in layers.shown_traces(many[3:])] == ["3", "4", "5", "6"]


def test_the_captions_explain_the_marks_that_are_there(tmp_path):
    swept = {"axes": {"lr": [0.03, 1.0]}, "base": {"lr": 0.03}, "tune": {}, "fixed": {}}
    found, chosen = only(tmp_path, "sgd", **swept)
    [caption] = [
        d.caption for d in drawings(found, chosen, main_effects(found, chosen), [], []) if d.name == "sensitivity"
    ]
    assert "A cross at the top" in caption
    assert "The large marker" not in caption


def test_what_is_left_out_of_the_figure_of_layers_is_said(study, choices):
    insgd, sgd, adam = traces_of(study, choices)
    shown = layers.shown_traces([insgd, sgd, adam, insgd, insgd])
    assert "Arms: 4 of 5, the first two" in _layers_note([insgd, sgd, adam, insgd, insgd], shown)
    copies = [insgd.frame.assign(parameter=f"stages.{k:02}.weight") for k in range(22)]
    many = dataclasses.replace(insgd, frame=pd.concat(copies))
    assert "of these 22 the 8 spread evenly from the input to the output side." in _layers_note([many], [many])
    assert _layers_note([insgd], [insgd]) == "Parameters: those with a measured input power."


def test_an_untuned_crossed_arm_has_one_map(tmp_path):
    found, chosen = only(tmp_path, "insgd-norms", tune={}, fixed={})
    grids = series.grids(found, chosen)
    maps = [ax for ax in figures.draw_grids(grids).axes if ax.texts]
    assert [ax.get_title(loc="left") for ax in maps] == ["INSGD, p × granularity"]
    assert "(" not in maps[0].texts[0].get_text()


def test_texts_name_the_option_that_was_tuned(tmp_path, study):
    as_study = {name: dataclasses.replace(arm, tune={"momentum": [0.5, 0.9]}) for name, arm in study.arms.items()}
    assert tuned_name(study) == "learning rate"
    assert tuned_name(dataclasses.replace(study, arms=as_study)) == "momentum"
    assert tuned_name(dataclasses.replace(study, arms={**as_study, "sgd": study.arms["sgd"]})) == "setting"


def test_an_arm_that_tunes_nothing_is_judged_one_way_beside_one_that_does(tmp_path):
    plain = [{**arm, "tune": {}, "fixed": {}} if arm["name"] == "sgd" else arm for arm in arms()]
    plain = [arm for arm in plain if arm["name"] in ("insgd", "sgd")]
    found = load_study(build_study(tmp_path / "s", arm_list=plain, failed=0, epochs=2, steps=20).path)
    effects = main_effects(found, choose(found))
    assert set(effects.query("arm == 'sgd'")["at"]) == {"best"}
    assert set(effects.query("arm == 'insgd'")["at"]) == {"best", "fixed"}
    frame = effects_table(found, effects).frame.set_index("arm")
    assert frame.loc["sgd", "fixed_mean"].isna().all()
    assert frame.loc["insgd", "fixed_mean"].notna().all()
    drawn = figures.draw_effects(found, effects).axes
    assert [text.get_text() for ax in drawn for text in ax.texts] == ["nothing tuned"]


def test_zero_errors_stay_on_a_logarithmic_axis(curves):
    line = curves[0].lines[0]
    perfect = dataclasses.replace(line, mean=np.array([50.0, 5, 1, 0, 0]), low=np.full(5, -1.0))
    figure = figures.draw_curves([dataclasses.replace(curves[0], lines=(perfect,))])
    assert figure.axes[0].get_yscale() == "log"
    assert (figure.axes[0].lines[0].get_ydata() > 0).all()


def test_legends_stand_outside_and_no_texts_overlap(curves):
    figure = figures.draw_curves(curves)
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in figure.axes]
    legends = [ax.get_legend().get_window_extent() for ax in figure.axes]
    titles = [ax._left_title.get_window_extent() for ax in figure.axes]
    for k, legend in enumerate(legends):
        assert legend.x1 <= figure.bbox.x1 + 1
        assert not any(_overlap(legend, box) for box in boxes)
        assert not any(_overlap(legend, other) for other in legends[:k])
        assert not any(_overlap(titles[k], other) for other in titles[:k])


def _overlap(a, b):
    return a.x0 < b.x1 - 1 and b.x0 < a.x1 - 1 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1


def test_equal_numbers_give_equal_files(tmp_path, rates):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        canvas.save_figure(figures.draw_sensitivity(rates[-1:]), folder, "x")
    for ending in canvas.FORMATS:
        first, second = ((folder / f"x.{ending}").read_bytes() for folder in folders)
        assert first == second


def test_figures_leave_no_state_behind(curves):
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    assert isinstance(figures.draw_curves(curves[:1]), Figure)
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("low", "high"), [(0.8, 1.3), (0.04, 9.0), (0.97, 1.02), (0.2, 40.0), (1e-4, 3e3), (0.37, 1.9)]
)
@pytest.mark.parametrize("room", [0.7, 1.2, 2.5])
def test_logarithmic_axes_have_three_ticks_at_least(low, high, room):
    ax = Figure().subplots()
    ax.set(xscale="log", xlim=(low, high))
    canvas.plain_log(ax.xaxis, room)
    ticks = [tick for tick in ax.xaxis.get_majorticklocs() if low <= tick <= high]
    assert len(ticks) >= 3


@pytest.mark.parametrize("label", [r"$\frac$ of it", "5$ to 6$"])
def test_a_dollar_in_a_name_is_a_dollar(label, tmp_path):
    [plain] = [arm for arm in arms() if arm["name"] == "sgd"]
    folder = build_study(tmp_path / "study", arm_list=[{**plain, "label": label}], failed=0, epochs=3, steps=20)
    study = load_study(folder.path)
    figure = figures.draw_curves(series.test_curves(study, choose(study)))
    canvas.save_figure(figure, tmp_path, "curves")
    assert label in (tmp_path / "curves.svg").read_text(encoding="utf-8")  # above the outlines of its letters


def test_grids_without_a_finite_value_are_drawn(study, choices):
    [grid, *_] = series.grids(study, choices)
    lost = dataclasses.replace(grid, best=grid.best * np.inf, fixed=grid.fixed * np.inf)
    figure = figures.draw_grids([lost], MEASURES["test_loss"])
    assert {text.get_text().split("\n")[0] for ax in figure.axes for text in ax.texts} == {"∞"}
