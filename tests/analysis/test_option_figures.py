import dataclasses

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis.ablation import forest_importance, importance, interactions, lr_sensitivity, tuning_budget
from insgd_lab.analysis.option_figures import draw_budgets, draw_importances, draw_interactions, draw_shares
from insgd_lab.analysis.option_series import (
    EFFECTS,
    Shares,
    budget_note,
    budget_panels,
    importances_of,
    interaction_maps,
    shares_of,
    valleys_table,
)
from insgd_lab.analysis.runs import load_study
from insgd_lab.analysis.selection import choose

from .ablation.grids import crossed_study, noise
from .ablation.test_importance import drawn as random_grid
from .synthetic import arms, build_study


def test_shares_are_those_of_the_decomposition_the_largest_first(study, choices):
    parts = shares_of(study, choices)
    assert [(part.arm, part.at) for part in parts] == [
        ("INSGD, p × granularity", "own best learning rate"),
        ("INSGD, p × granularity", "fixed learning rate"),
        ("INSGD, p × granularity", "every learning rate"),
    ]
    known = importance(study, choices).query("at == 'best'").set_index("effect")["share"]
    frame = parts[0].frame
    np.testing.assert_allclose(frame["share"], [100 * known[effect] for effect in frame["effect"]])
    assert frame["effect"].iloc[-1] == "seeds"
    assert frame["share"].iloc[:-1].is_monotonic_decreasing
    assert frame["share"].sum() == pytest.approx(100)


def test_small_effects_are_added_up(study):
    axes = {name: [0, 1] for name in "abcd"}
    made = crossed_study(study, axes, lambda seed, **levels: 0.1 + 0.01 * noise(seed, *levels.values()), seeds=2)
    [part] = shares_of(made, choose(made))
    assert part.at == ""
    assert part.frame["effect"].iloc[-2] == f"{15 - EFFECTS} others"
    assert part.frame["share"].sum() == pytest.approx(100)


def test_bars_are_as_long_as_shares_and_those_without_noise_lie_on_them(study, choices):
    parts = shares_of(study, choices)
    figure = draw_shares(parts)
    assert len(figure.axes) == len(parts)
    for ax, part in zip(figure.axes, parts, strict=True):
        shares, inner = ax.patches[: len(part.frame)], ax.patches[len(part.frame) :]
        np.testing.assert_allclose([bar.get_width() for bar in shares], part.frame["share"])
        np.testing.assert_allclose([bar.get_width() for bar in inner], part.frame["corrected"].iloc[:-1].clip(lower=0))
        assert [label.get_text() for label in ax.get_yticklabels()] == part.frame["effect"].tolist()
        colours = [bar.get_facecolor() for bar in shares]
        assert len(set(colours[:-1])) == 1
        assert colours[-1] not in colours[:-1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "as found (η²)",
        "without noise (ω²)",
        "seeds",
    ]


def test_small_shares_are_not_printed_as_nothing_nor_negative_ones():
    [ax] = draw_shares([Shares("x", "", shares_frame(("a", 99.98, 99.0), ("b", 0.02, -0.3), ("seeds", 0.0, 1.3)))]).axes
    assert [text.get_text() for text in ax.texts] == ["100.0 (99.0)", "< 0.1 (0.0)", "0.0"]


def shares_frame(*rows):
    frame = pd.DataFrame(rows, columns=["effect", "share", "corrected"])
    return frame.assign(seeds=frame["effect"] == "seeds")


def test_importances_of_random_grids_are_drawn_with_what_they_are_worth(study):
    made = random_grid(study, count=20)
    [part] = importances_of(made)
    known = forest_importance(made)
    assert (part.settings, part.lost, part.r_squared) == (20, 0, known["r_squared"].iloc[0])
    assert part.frame["importance"].tolist() == sorted(known["importance"], reverse=True)
    [ax] = draw_importances([part]).axes
    points = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(points.get_xdata(), part.frame["importance"])
    np.testing.assert_allclose([s[:, 0] for s in ax.collections[0].get_segments()], part.frame[["low", "high"]])
    assert ax.get_title(loc="left") == f"arm: R² = {part.r_squared:.2f} over 20 settings"
    assert ax.get_xlabel().endswith("in percentage points")
    assert importances_of(study) == []


def test_interactions_are_drawn_with_their_intervals_and_bold_where_told_apart(study, choices):
    known = interactions(study, choices=choices)
    [one] = interaction_maps(study, known)
    assert (one.first, one.second) == ("p (against 2)", "granularity (against layer)")
    [row] = known[(known["first_level"] == "inf") & (known["second_level"] == "neuron")].to_dict("records")
    assert one.tables["interaction"].loc["∞", "neuron"] == row["interaction"]
    sure = {**one.tables, "p_holm": one.tables["p_holm"] * 0 + np.array([[0.2, 0.2], [0.01, 0.2]])}
    [ax] = draw_interactions([dataclasses.replace(one, tables=sure)]).axes
    texts = [text.get_text() for text in ax.texts]
    values = f"{row['interaction']:+.2f}\n({row['low']:+.2f} to {row['high']:+.2f})".replace("-", "−")
    assert texts[2] == values
    assert [text.get_fontweight() for text in ax.texts] == ["normal", "normal", "bold", "normal"]
    drawn = np.ma.getdata(ax.collections[0].get_array()).ravel()
    np.testing.assert_allclose(drawn, one.tables["interaction"].to_numpy().ravel())
    low, high = ax.collections[0].get_clim()
    assert low == -high


def test_of_many_pairs_those_of_smallest_p_are_shown(study):
    def score(seed, a, b, c, d, e):
        return 0.1 + 0.05 * (c * d) + 0.001 * noise(seed, a, b, c, d, e)

    made = crossed_study(study, {name: [0, 1] for name in "abcde"}, score)
    maps = interaction_maps(made, interactions(made))
    assert len(maps) == 6
    assert ("c (against 0)", "d (against 0)") in [(one.first, one.second) for one in maps]


def test_budgets_are_drawn_by_arm(study):
    [panel] = budget_panels(study)
    known = tuning_budget(study)
    assert [line.label for line in panel.lines] == [study.arms[arm].label for arm in known["arm"].unique()]
    [ax] = draw_budgets([panel], "test error (%)").axes
    for drawn, arm in zip(ax.lines, known["arm"].unique(), strict=True):
        rows = known[known["arm"] == arm]
        np.testing.assert_array_equal(drawn.get_xydata(), rows[["budget", "expected"]])
    assert ax.get_ylabel() == "expected test error (%)"
    assert len(ax.collections) == len(panel.lines)


def test_arms_with_few_settings_have_no_budget_and_searches_count_their_trials(tmp_path):
    only = [arm for arm in arms() if arm["name"] == "adam"]
    folder = build_study(tmp_path / "s", arm_list=only, failed=0, epochs=2, steps=10, seeds=2)
    [panel] = budget_panels(load_study(folder.path))
    assert panel.lines[0].x[-1] == 4
    info = folder.info()
    finals = [{**row, "stage": "trial"} for row in info["plan"]] + info["plan"][:2]
    folder.write_info({**info, "plan": finals})
    study = load_study(folder.path)
    assert len(study.plan) == 2
    [panel] = budget_panels(study)
    assert panel.lines[0].x[-1] == 4
    folder.write_info({**info, "plan": info["plan"][:6]})
    assert budget_panels(load_study(folder.path)) == []


def test_infinite_and_absent_budgets_are_told(study):
    label = study.arms["adam"].label
    frame = pd.DataFrame({"arm": "adam", "budget": range(1, 6), "expected": [np.inf, np.inf, 1.0, 0.1, 0.01]})
    frame = frame.assign(low=0.005, high=[np.inf] * 3 + [0.2, 0.02])
    [panel] = budget_panels(study, frame)
    note = budget_note(study, frame)
    assert f"{label} is infinite up to 2 settings tried" in note
    assert "no band where its upper end would be infinite" in note
    assert "SGD is left out: no run has finished." in note
    assert "fewer settings than 4 (2)" in budget_note(study, frame.tail(2))
    [ax] = draw_budgets([panel], "test loss").axes
    assert ax.get_yscale() == "log"
    corners = np.concatenate([path.vertices for band in ax.collections for path in band.get_paths()])
    assert corners[:, 0].min() == 4, "a band begins where it has an upper end"
    assert corners[:, 1].max() == pytest.approx(0.2)


def test_the_table_of_valleys_is_that_of_the_ablation_in_words(study):
    table = valleys_table(study)
    known = lr_sensitivity(study)
    np.testing.assert_array_equal(table.frame["decades"], known["decades"])
    assert table.frame["words"].tolist()[:2] == ["base", "β = 0"]
    texts = table.markdown()
    assert ("≥" in texts.split("\n\n", 1)[1]) == bool((known["open_low"] | known["open_high"]).any())
