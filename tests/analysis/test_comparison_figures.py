import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis.comparison_figures import draw_forest, draw_published, forest_limit, forest_pages
from insgd_lab.analysis.comparison_series import forest_of
from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.result_drawings import _forest_note


@pytest.fixture(scope="module")
def compared(study, choices):
    return compare(study, choices)


@pytest.fixture(scope="module")
def forest(study, compared):
    return forest_of(study, compared)


def marked(rows):
    """The name of each row, and whether a run of either side diverged."""
    return zip(rows["name"], rows["diverged"] + rows["reference_diverged"] > 0, strict=True)


def points(ax):
    """Of every point that stands within the axis, its place and x."""
    drawn = [line for line in ax.lines if line.get_marker() in ("o", "D")]
    return {y: x for line in drawn for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def test_arms_come_first_then_levels_at_their_own_best(forest, compared):
    own = compared[compared["at"] == "best"]
    assert len(forest.rows) == len(own)
    assert forest.rows["kind"].tolist() == sorted(forest.rows["kind"])  # "arm" before "level"
    assert (forest.left_out, forest.lacking) == (0, 0)
    assert forest.fixed == (compared["at"] == "fixed").sum() > 0
    groups = list(dict.fromkeys(forest.rows["group"]))
    assert groups == [
        "Arms against SGD",
        *(f"{arm}, against its base" for arm in ("INSGD, one at a time", "INSGD, p × granularity", "SGD")),
    ]
    names = forest.rows["name"].tolist()
    assert {"INSGD, one at a time", "Adam", "β: 0 against 0.9", "p: ∞ against 2"} <= set(names)


def test_p_is_what_the_verdict_goes_by(forest):
    primary = forest.rows["role"] == "primary"
    pd.testing.assert_series_equal(forest.rows.loc[primary, "p_shown"], forest.rows.loc[primary, "p_primary"],
                                   check_names=False)  # fmt: skip
    pd.testing.assert_series_equal(forest.rows.loc[~primary, "p_shown"], forest.rows.loc[~primary, "p_holm"],
                                   check_names=False)  # fmt: skip


def test_of_too_many_comparisons_the_primary_ones_stay_and_those_of_smallest_p(study, compared):
    few = forest_of(study, compared, most=5)
    own = compared[compared["at"] == "best"]
    others = own[own["role"] != "primary"].sort_values("p")["p"]
    primary = int((own["role"] == "primary").sum())
    assert (few.rows["role"] == "primary").sum() == primary
    assert sorted(few.rows.loc[few.rows["role"] != "primary", "p"]) == others.iloc[: 5 - primary].tolist()
    assert few.left_out == len(own) - 5
    assert f"the exploratory comparisons with the largest p ({few.left_out})" in _forest_note(few)


def test_the_forest_draws_every_difference_its_interval_and_its_numbers(forest):
    figure = draw_forest(forest)
    names, ax, texts = figure.axes
    rows = forest.rows
    drawn = points(ax)
    np.testing.assert_allclose([drawn[place] for place in sorted(drawn)], rows["difference"])
    spans = {segment[0][1]: (segment[0][0], segment[1][0]) for c in ax.collections for segment in c.get_segments()}
    limit = forest_limit(forest)
    ends = rows[["low", "high"]].apply(lambda end: end.fillna(rows["difference"]))  # ε changes nothing: no interval
    assert rows["low"].isna().sum() == 2
    np.testing.assert_allclose(
        [spans[place] for place in sorted(spans)], ends.clip(-limit, limit).to_numpy(), atol=1e-12
    )
    plain = [text.get_text() for text in names.texts if text.get_fontweight() == "normal"]
    assert not ax.texts, "nothing is written into the plot"
    assert " ".join(plain) == " ".join(f"{name} †" if lost else name for name, lost in marked(rows))
    written = [text.get_text() for text in texts.texts]
    first = rows.iloc[0]
    numbers = f"{first['difference']:+.2f}\n({first['low']:+.2f} to {first['high']:+.2f})".replace("-", "−")
    assert written[:3] == ["difference\n(95 % interval)", "n", "p"]
    assert written[3:5] == [numbers, "3"]
    assert len(written) == 3 + 3 * len(rows)
    heads = [text.get_text() for text in names.texts if text.get_fontweight() == "bold"]
    assert " ".join(heads) == " ".join(dict.fromkeys(rows["group"]))


def test_primary_and_resolved_comparisons_have_marks_of_their_own(forest):
    rows = forest.rows.assign(verdict=["lower"] + ["unresolved"] * (len(forest.rows) - 1))
    ax = draw_forest(dataclasses.replace(forest, rows=rows)).axes[1]
    marks = {line.get_marker(): 0 for line in ax.lines}
    for line in ax.lines:
        marks[line.get_marker()] += len(line.get_ydata())
    assert marks["D"] == (rows["role"] == "primary").sum()
    assert marks["o"] == (rows["role"] == "exploratory").sum()
    filled = [line for line in ax.lines if line.get_marker() == "D" and line.get_markerfacecolor() != "white"]
    assert [list(line.get_xdata()) for line in filled] == [[rows["difference"].iloc[0]]]


def test_one_arm_far_off_becomes_an_arrow_and_leaves_the_others_room(forest):
    rows = forest.rows.copy()
    rows.loc[0, ["difference", "low", "high"]] = (80.0, 75.0, 85.0)
    rows.loc[0, "diverged"] = 2
    far = dataclasses.replace(forest, rows=rows)
    names, ax, _ = draw_forest(far).axes
    assert ax.get_xlim()[1] == pytest.approx(forest_limit(far))
    assert forest_limit(far) < 20
    arrows = [line for line in ax.lines if line.get_marker() == ">"]
    assert [len(line.get_xdata()) for line in arrows] == [1]
    assert len(points(ax)) == len(rows) - 1
    first = [text.get_text() for text in names.texts if text.get_fontweight() == "normal"]
    assert " ".join(first).startswith(f"{rows['name'].iloc[0]} † ")
    assert "†: some run diverged" in _forest_note(far)
    assert "arrow" in _forest_note(far)


def test_its_letters_are_six_points_high_in_a_column_and_nothing_leaves_it(forest):
    long = forest.rows.assign(name=[f"{name}, learning rate = 0.001234, (β1, β2) = (0.9, 0.999), ε = 1e-8"
                                    for name in forest.rows["name"]])  # fmt: skip
    for page in forest_pages(dataclasses.replace(forest, rows=long)):
        figure = draw_forest(page)
        figure.draw_without_rendering()
        width = figure.get_size_inches()[0]
        for ax in figure.axes:
            assert all(label.get_fontsize() * 3.5 / width >= 6 for label in ax.get_xticklabels())
            for text in [*ax.texts, ax.xaxis.label]:
                assert text.get_fontsize() * 3.5 / width >= 6
                box = text.get_window_extent()
                assert box.x0 >= 0, text.get_text()
                assert box.x1 <= width * figure.dpi, text.get_text()
        names, ax, texts = figure.axes
        left = ax.get_window_extent().x0
        assert all(text.get_window_extent().x1 < left for text in names.texts), "no name reaches into the plot"
        numbers = [text for text in texts.texts if "(" in text.get_text() and text.get_fontweight() == "normal"]
        assert max(text.get_window_extent().x1 for text in numbers) < min(
            text.get_window_extent().x0 for text in texts.texts if text.get_text().isdigit()
        )


def test_many_comparisons_go_on_several_pages_that_share_an_axis(study, compared, forest):
    many = dataclasses.replace(forest, rows=pd.concat([forest.rows] * 3, ignore_index=True))
    pages = forest_pages(many)
    assert len(pages) > 1
    pd.testing.assert_frame_equal(pd.concat([page.rows for page in pages]), many.rows)
    assert max(draw_forest(page, 3.0).get_size_inches()[1] for page in pages) < 8
    assert {draw_forest(page, 3.0).axes[1].get_xlim() for page in pages} == {(-3.0, 3.0)}
    assert [len(page.rows) for page in forest_pages(dataclasses.replace(forest, rows=forest.rows.iloc[:1]))] == [1]


def test_the_margin_is_a_band_that_is_always_seen(forest):
    stated = dataclasses.replace(forest, margin=50.0)
    figure = draw_forest(stated)
    [band] = figure.axes[1].patches
    assert (band.get_x(), band.get_width()) == (-50.0, 100.0)
    assert figure.axes[1].get_xlim()[1] > 50
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "within the margin"


def test_a_comparison_without_a_difference_is_counted_not_drawn(study, compared):
    lacking = compared.assign(difference=[math.nan, *compared["difference"].iloc[1:]])
    forest = forest_of(study, lacking)
    assert forest.lacking == 1
    assert "since runs are missing or a loss is infinite: 1." in _forest_note(forest)


# ---------------------------------------------------------------------------------------------- published


@pytest.fixture
def table():
    rows = [
        ("SGD", "batch = 128", 92.6, 0.1, 3, 60.0, 1.0, 59.0, np.nan, np.nan, np.nan, np.nan),
        ("INSGD", "batch = 128", 92.7, np.nan, 3, 61.0, 2.0, 60.5, 0.1, 1.0, -0.5, 2.5),
        ("SGD", "batch = 256", 92.4, 0.2, 0, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan),
    ]
    names = ["printed", "condition", "paper_mean", "paper_sd", "seeds", "best_mean", "best_sd", "final_mean",
             "paper_lead", "lead", "lead_low", "lead_high"]  # fmt: skip
    return pd.DataFrame(rows, columns=names).assign(final_sd=0.5, baseline=[None, "SGD", None])


def test_published_means_stand_beside_ours_and_leads_beside_leads(table):
    accuracies, leads = draw_published(table).axes
    drawn = {line.get_label(): line.get_xdata() for line in accuracies.lines}
    np.testing.assert_array_equal(drawn["paper"], table["paper_mean"])
    np.testing.assert_array_equal(drawn["here, best epoch"], table["best_mean"])
    np.testing.assert_array_equal(drawn["here, last epoch"], table["final_mean"])
    first = accuracies.collections[0].get_segments()[0]
    assert (first[0][0], first[1][0]) == pytest.approx((92.5, 92.7))
    [lead] = [line for line in leads.lines if line.get_label() == "here, best epoch"]
    np.testing.assert_array_equal(lead.get_xdata(), table["lead"])
    ends = leads.collections[0].get_segments()[1]
    assert (ends[0][0], ends[1][0]) == (-0.5, 2.5)
    assert len({line.get_marker() for line in accuracies.lines}) == 3
    assert leads.get_xlabel() == "lead over SGD (percentage points)"
    several = draw_published(table.assign(baseline=["Adam", "SGD", None])).axes[1]
    assert several.get_xlabel() == "lead over the baseline (percentage points)"


def test_rows_are_grouped_by_condition(table):
    ax = draw_published(table).axes[0]
    assert [text.get_text() for text in ax.texts] == ["batch = 128", "batch = 256"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SGD", "INSGD", "SGD"]
    low, high = ax.get_xlim()
    assert low < 59
    assert high > 92.7
