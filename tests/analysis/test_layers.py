"""What layers did, against records with known answers."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from insgd_lab.analysis import layer_figures, layers
from insgd_lab.analysis.layer_findings import interventions_table, layer_findings, speeds_table
from insgd_lab.analysis.runs import Arm
from insgd_lab.analysis.statistics import holm

from .synthetic import LAYERS


def records_of(optimizer, values, label=None):
    """Records of an arm; `values` maps (seed, step, parameter, quantity) to a value."""
    arm = Arm(optimizer, label or optimizer, optimizer, {}, "full", {}, {}, {}, {})
    rows = [(*key, value) for key, value in values.items()]
    frame = pd.DataFrame(rows, columns=["seed", "step", "parameter", "quantity", "value"])
    seeds = frame["seed"].unique()
    runs = pd.DataFrame({"seed": seeds, "status": "done", "digest": [f"{optimizer} {seed}" for seed in seeds]})
    return layers.LayerRecords(arm, arm.label, frame, runs)


def steps_of(factors, seeds=3, steps=(1, 11, 21)):
    """An effective step for each layer: its factor, times what depends on step and seed and must cancel."""
    return {
        (seed, step, name, "effective_step"): factor * (1 + seed) / step
        for seed in range(seeds)
        for step in steps
        for name, factor in factors.items()
    }


SGD = records_of("sgd", steps_of({"a": 1.0, "b": 1.0, "c": 1.0}))


def test_speeds_are_ratios_to_sgd_and_relative_ones_leave_out_what_all_layers_share():
    mine = records_of("mine", steps_of({"a": 2.0, "b": 4.0, "c": 8.0}))
    speeds = layers.speeds([SGD, mine]).set_index("parameter")
    assert speeds["ratio"].to_dict() == pytest.approx({"a": 2, "b": 4, "c": 8})
    assert speeds["relative"].to_dict() == pytest.approx({"a": 0.5, "b": 1, "c": 2})
    assert speeds[["low", "high"]].isna().all(axis=None)  # all seeds agree, which is no certainty
    assert set(speeds["n"]) == {3}


def test_runs_that_are_one_run_again_are_no_sample_of_speeds():
    values = steps_of({"a": 2.0, "b": 4.0, "c": 8.0})
    jitter = {
        place: value * (1 + 0.01 * place[0] * len(place[2]) * (place[2] == "a")) for place, value in values.items()
    }
    mine = records_of("mine", jitter)
    same = [dataclasses.replace(each, runs=each.runs.assign(digest="x")) for each in (SGD, mine)]
    assert (layers.speeds(same)["n"] == 1).all()
    assert layers.speeds(same)["p"].isna().all()
    for pair in ([SGD, same[1]], [same[0], mine]):  # one of the two is a sample
        assert (layers.speeds(pair)["n"] == 3).all()


def test_a_rule_that_is_sgd_at_another_rate_moves_no_layer_relative_to_another():
    mine = records_of("mine", steps_of({"a": 0.3, "b": 0.3, "c": 0.3}))
    speeds = layers.speeds([mine, SGD])
    np.testing.assert_allclose(speeds[["ratio", "relative"]], [[0.3, 1.0]] * 3)


def test_speeds_are_of_the_seeds_and_steps_that_both_arms_recorded():
    more = steps_of({"a": 2.0, "b": 4.0, "c": 8.0}, seeds=5, steps=(1, 11, 21, 31))
    more |= {(0, 1, "a", "effective_step"): 0.0, (1, 1, "a", "effective_step"): 1e-9}
    speeds = layers.speeds([SGD, records_of("mine", more)]).set_index("parameter")
    assert set(speeds["n"]) == {3}
    assert speeds["ratio"]["b"] == pytest.approx(4)
    logs = [math.log(2), np.mean([math.log(1e-9 / 2), math.log(2), math.log(2)]), math.log(2)]
    assert speeds["ratio"]["a"] == pytest.approx(math.exp(np.mean(logs)))


def test_the_p_of_a_layer_is_that_of_a_t_test_of_its_relative_logarithms_over_seeds():
    rng = np.random.default_rng(3)
    noise = {(seed, name): rng.normal(0, 0.2) for seed in range(5) for name in "abc"}
    values = {
        (seed, 1, name, "effective_step"): factor * math.exp(noise[seed, name])
        for seed in range(5)
        for name, factor in {"a": 1.0, "b": 1.3, "c": 2.0}.items()
    }
    plain = records_of("sgd", dict.fromkeys(values, 0.5))
    found = layers.speeds([plain, records_of("mine", values)]).set_index("parameter")
    logs = np.log([[values[seed, 1, name, "effective_step"] for name in "abc"] for seed in range(5)])
    expected = stats.ttest_1samp(logs - logs.mean(axis=1, keepdims=True), 0.0).pvalue
    np.testing.assert_allclose(found["p"], expected, rtol=1e-4)
    np.testing.assert_array_equal(found["p_holm"], holm(found["p"].to_numpy()))
    turned = {(4 - seed, *rest): value for (seed, *rest), value in values.items()}
    again = layers.speeds([plain, records_of("mine", turned)]).set_index("parameter")
    pd.testing.assert_frame_equal(again[["p", "p_holm"]], found[["p", "p_holm"]], check_exact=True)


def test_what_rounding_in_single_precision_does_is_no_speed_and_one_layer_or_seed_has_no_p():
    factors = {"a": 0.3, "b": 0.3 * (1 + 3e-8), "c": 0.3 * (1 - 3e-8)}
    assert layers.speeds([SGD, records_of("mine", steps_of(factors))])["p"].tolist() == [1.0, 1.0, 1.0]
    lone = [records_of(name, steps_of({"a": factor})) for name, factor in {"sgd": 1.0, "mine": 2.0}.items()]
    assert layers.speeds(lone)["p"].isna().all()
    assert layers.speeds([SGD, records_of("mine", steps_of({"a": 2.0, "b": 1.0, "c": 1.0}, 1))])["p"].isna().all()


def test_of_two_layers_one_test_counts_once_and_is_told_once():
    """Relative to their mean, one layer's ratio is 1 over the other's, seed by seed."""
    rng = np.random.default_rng(1)
    pairs = ((seed, name) for seed in range(4) for name in "ab")
    values = {(seed, 1, name, "effective_step"): math.exp(rng.normal(name == "b", 0.1)) for seed, name in pairs}
    plain, mine = records_of("sgd", dict.fromkeys(values, 1.0), "SGD"), records_of("mine", values, "Mine")
    found = layers.speeds([plain, mine])
    assert found["relative"].prod() == pytest.approx(1)
    assert found["p"].notna().tolist() == [True, False]
    assert found["p_holm"][0] == found["p"][0], "a family of one"
    [told] = layer_findings([plain, mine], found)
    beside = "Mine, beside SGD and relative to its own mean over layers: its two layers, which are one test, are "
    assert told.startswith(f"{beside}told apart after correction; slowed down is a, 0.")
    assert told.endswith(", and the other one the reverse.")
    assert "it stands with the first" in speeds_table(found).caption


def test_one_layer_alone_has_no_relative_speed_to_show():
    lone = [records_of(name, steps_of({"a": factor})) for name, factor in {"sgd": 1.0, "mine": 2.0}.items()]
    found = layers.speeds(lone)
    assert speeds_table(found).titles == ["arm", "parameter", "seeds", "effective step / that of SGD"]
    assert "last ratio" not in speeds_table(found).caption
    assert len(layer_figures.draw_speeds(found).axes) == 1
    assert layer_findings(lone, found) == []


def test_without_sgd_there_are_no_speeds():
    assert layers.speeds([records_of("mine", steps_of({"a": 2.0}))]).empty


def test_the_share_of_steps_at_which_the_correction_acts_and_what_it_multiplies_by():
    gains = {"a": (1.0, 1.0, 4.0, 1.0), "b": (2.0, 8.0, 1.0, 1.0)}
    values = {
        (seed, step, name, "norm_gain"): gain
        for seed in range(2)
        for name, all_gains in gains.items()
        for step, gain in enumerate(all_gains)
    }
    found = layers.interventions([records_of("adam-norm", values)]).set_index("parameter")
    assert found["share"].to_dict() == pytest.approx({"all": 3 / 8, "a": 1 / 4, "b": 1 / 2})
    assert found["gain"].to_dict() == pytest.approx({"all": 4.0, "a": 4.0, "b": 4.0})
    assert math.isnan(found["low"]["all"])  # both seeds agree


def test_what_never_acts_has_no_gain_and_a_share_of_a_layer_counts_as_one():
    values = {(seed, 1, "a", "norm_gain"): 1.0 for seed in range(2)}
    values |= {(seed, step, "a", "clipped"): 0.25 for seed in range(2) for step in (1, 2)}
    gain, clipped = (
        rows.iloc[0] for _, rows in layers.interventions([records_of("mine", values)]).groupby("quantity", sort=False)
    )
    assert (gain["share"], clipped["share"]) == (0.0, 0.25)
    assert math.isnan(gain["gain"])
    assert math.isnan(clipped["gain"])


def test_an_interval_of_a_share_stays_among_shares():
    values = {(seed, 1, "a", "clipped"): float(seed == 0) for seed in range(3)}
    found = layers.interventions([records_of("mine", values)]).iloc[0]
    assert (found["low"], found["high"]) == (0.0, 1.0)


def test_the_norm_of_the_gradient_is_that_of_all_parameters_together():
    values = {
        (seed, 1, name, "grad_norm"): norm for seed in range(2) for name, norm in {"a": 3.0, "a.bias": 4.0}.items()
    }
    values |= {(seed, 2, "a", "grad_norm"): 10.0**seed for seed in range(2)} | {(2, 2, "a", "grad_norm"): 0.0}
    norms = layers.gradient_norms([records_of("sgd", values)]).set_index("step")
    assert norms["mean"][1] == pytest.approx(5)
    assert norms["mean"][2] == pytest.approx(10**0.5)
    assert (norms["n"] == 2).all()


def test_heat_maps_are_geometric_means_over_parts_of_the_training():
    steps = range(1, 2 * layers.BINS + 1)
    values = {(0, step, name, "effective_step"): 2.0 ** (step % 2) for step in steps for name in ("late", "early")}
    values[0, 1, "late", "effective_step"] = 0.0
    [trace] = layers.layer_traces([records_of("sgd", values)])
    table = layers.heat_maps(trace)["effective_step"]
    assert list(table.index) == ["late", "early"]
    assert list(table.columns) == list(steps[1::2])
    np.testing.assert_allclose(table.loc["early"], 2**0.5)
    np.testing.assert_allclose(table.loc["late"], [1.0, *[2**0.5] * (layers.BINS - 1)])


def test_records_of_a_study_are_of_the_chosen_runs_and_every_seed(study, choices):
    insgd, sgd, adam = layers.layer_records(study, choices)
    assert [records.seeds for records in (insgd, sgd, adam)] == [3, 3, 3]
    assert insgd.weights == list(LAYERS)
    assert "conv1.bias" in set(sgd.frame["parameter"])
    speeds = layers.speeds([insgd, sgd, adam])
    rows = speeds[speeds["arm"] == "insgd"].set_index("parameter")
    order = rows["relative"].to_numpy()
    assert (np.diff(order) < 0).all()  # the powers of the synthetic layers grow, so its steps shrink


def test_the_figure_of_speeds_draws_every_ratio_and_its_interval(study, choices):
    speeds = layers.speeds(layers.layer_records(study, choices))
    absolute, relative = layer_figures.draw_speeds(speeds).axes
    for ax, column in ((absolute, "ratio"), (relative, "relative")):
        points = [line for line in ax.lines if line.get_label() in set(speeds["label"])]
        assert [line.get_label() for line in points] == list(speeds["label"].unique())
        for line in points:
            drawn = speeds.loc[speeds["label"] == line.get_label(), column]
            np.testing.assert_allclose(line.get_xdata(), drawn)
    assert absolute.get_xlabel() == "effective step / that of SGD"
    assert [tick.get_text() for tick in absolute.get_yticklabels()] == list(LAYERS)


def test_the_figure_of_gradient_norms_draws_the_means_and_bands(study, choices):
    norms = layers.gradient_norms(layers.layer_records(study, choices))
    (ax,) = layer_figures.draw_gradient_norms(norms).axes
    for line, (label, rows) in zip(ax.lines, norms.groupby("label", sort=False), strict=True):
        assert line.get_label() == label
        np.testing.assert_allclose(line.get_ydata(), rows["mean"])
    assert len(ax.collections) == norms["label"].nunique()


def test_heat_maps_of_one_quantity_share_their_colours(study, choices):
    traces = layers.shown_traces(layers.layer_traces(layers.layer_records(study, choices)))
    figure = layer_figures.draw_heat_maps(traces)
    maps = [ax for ax in figure.axes if ax.get_title(loc="left")]
    steps = maps[: len(traces)]
    assert len({ax.collections[0].get_clim() for ax in steps}) == 1
    drawn = np.asarray(steps[0].collections[0].get_array()).ravel()
    np.testing.assert_allclose(drawn, layers.heat_maps(traces[0])["effective_step"].to_numpy().ravel())


def test_a_constant_quantity_can_be_drawn(study, choices):
    trace = layers.layer_traces(layers.layer_records(study, choices))[0]
    flat = dataclasses.replace(trace, frame=trace.frame.assign(value=1.0))
    assert layer_figures.draw_heat_maps([flat]).axes


def test_sentences_name_the_layers_that_are_told_apart_and_how_often_rules_acted():
    jitter = {(seed, step): 1 + 0.01 * seed * step for seed in range(3) for step in (1, 2)}
    factors = {"a": 2.0, "b": 4.0, "c": 8.0}
    values = {
        (seed, step, name, "effective_step"): factor * wobble ** (k - 1)
        for (seed, step), wobble in jitter.items()
        for k, (name, factor) in enumerate(factors.items())
    }
    sgd = dict.fromkeys(values, 1.0)
    gains = {(seed, step, "a", "norm_gain"): 2.0 if step == 1 else 1.0 for seed, step in jitter}
    mine, plain = records_of("mine", values | gains, "Mine"), records_of("sgd", sgd, "SGD")
    speeds = layers.speeds([plain, mine])
    speed, often = layer_findings([plain, mine], speeds)
    beside = "Mine, beside SGD and relative to its own mean over layers: "
    told = f"{beside}2 of 3 layers are told apart from the others after correction; sped up most is c, 2.0"
    assert speed.startswith(told)
    assert "; slowed down most is a, 0.49" in speed
    assert speed.count("; p < 0.001, corrected <0.001)") == 2
    barely = speeds.assign(p_holm=[0.01, 0.2, 0.2])
    assert layer_findings([plain, mine], barely)[0].startswith(f"{beside}1 of 3 layers is told apart")
    assert "sped up" not in layer_findings([plain, mine], barely)[0]
    assert often == (
        "Mine: the norm correction raised a parameter's gradient in 50 % of the "
        "recorded steps, most often at a (50 %); where it did, by 2 times (geometric mean)."
    )
    same = records_of("mine", sgd, "Mine")
    assert layer_findings([plain, same], layers.speeds([plain, same])) == [
        "Mine, beside SGD and relative to its own mean over layers: none of 3 layers is told apart from the others at "
        "0.05 after correction."
    ]
    [lone] = layer_findings([plain, mine], speeds.assign(p=math.nan))
    assert lone == often


def test_a_rule_that_never_acted_is_said_to(study, choices):
    records = layers.layer_records(study, choices)
    sentences = layer_findings(records, layers.speeds(records))
    assert any("log P stood below its floor ε in none of the recorded steps." in sentence for sentence in sentences)


def test_the_tables_hold_what_the_figures_show(study, choices):
    records = layers.layer_records(study, choices)
    speeds = layers.speeds(records)
    pd.testing.assert_frame_equal(speeds_table(speeds).frame, speeds)
    pd.testing.assert_frame_equal(interventions_table(records).frame, layers.interventions(records))
    assert "INSGD" in speeds_table(speeds).markdown()
