import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from insgd_lab.analysis.ablation import interaction_f, interaction_tests, interactions
from insgd_lab.analysis.selection import tune_at
from insgd_lab.analysis.statistics import holm, paired_t

from ..statistics.samples import statsmodels
from .grids import ARM, crossed_study, noise

tables = st.tuples(st.integers(2, 4), st.integers(2, 3), st.integers(2, 5), st.integers(0, 10_000)).map(
    lambda drawn: np.random.default_rng(drawn[3]).normal(size=drawn[:3])
)


def test_a_known_interaction_is_found_and_additive_axes_have_none(study):
    def score(seed, a, b, c):
        return 0.1 + 0.02 * a + 0.03 * b + 0.05 * (a == 2 and b == 1) + 0.01 * c + 0.001 * noise(seed, a, b, c)

    frame = interactions(crossed_study(study, {"a": [0, 1, 2], "b": [0, 1], "c": [0, 1]}, score))
    found = frame.set_index(["first", "second", "first_level", "second_level"])
    assert found.loc[("a", "b", 2, 1), "interaction"] == pytest.approx(5, abs=0.3)
    assert found.loc[("a", "b", 2, 1), "p_holm"] < 0.05
    others = found.drop(("a", "b", 2, 1))
    assert others["interaction"].abs().max() < 0.3
    assert (others["p_holm"] > 0.05).all()
    assert len(found) == 2 + 2 + 1
    np.testing.assert_array_equal(frame["p_holm"], holm(frame["p"].to_numpy()))


def test_it_is_the_paired_difference_of_differences(study, choices):
    def scores(p, granularity):
        cell = study.find_cell("insgd-norms", {"p": p, "granularity": granularity})
        return study.by_seed("insgd-norms", cell.key, tune_at(study, choices, cell, "best"))

    frame = interactions(study, choices=choices)
    [row] = frame[(frame["first_level"] == "inf") & (frame["second_level"] == "channel")].to_dict("records")
    corners = [scores(p, g) for p, g in itertools.product(["inf", 2], ["channel", "layer"])]
    changed, alone = ({s: one[s] - other[s] for s in one} for one, other in (corners[:2], corners[2:]))
    expected = paired_t(changed, alone)
    assert (row["interaction"], row["low"]) == pytest.approx((100 * expected.difference, 100 * expected.low))
    assert row["p"] == pytest.approx(expected.p)
    assert (row["arm"], row["pairs"], len(frame)) == ("insgd-norms", 3, 4)


def test_only_complete_grids_have_interactions(study):
    made = crossed_study(study, {"a": [0, 1], "b": [0, 1]}, lambda seed, a, b: a * b + 0.01 * seed)
    assert len(interactions(made)) == len(interaction_tests(made)) == 1
    lacking = dataclasses.replace(made)
    lacking.__dict__["scores"] = made.scores.iloc[1:]
    assert interactions(lacking)["pairs"].tolist() == [3]
    excluded = dataclasses.replace(made, cells=dict(list(made.cells.items())[1:]))
    excluded.__dict__["scores"] = made.scores
    assert interactions(excluded).empty
    assert interaction_tests(excluded).empty


@budget(max_examples=25)
@given(tables)
def test_f_agrees_with_statsmodels_repeated_measures(table):
    rows = [(*place, value) for place, value in np.ndenumerate(table)]
    frame = pd.DataFrame([(a, b, s, v) for a, b, s, v in rows], columns=["a", "b", "seed", "y"])
    anova = statsmodels("stats.anova").AnovaRM(frame, "y", "seed", within=["a", "b"]).fit().anova_table
    found = interaction_f(table)
    assert found.f == pytest.approx(anova.loc["a:b", "F Value"], rel=1e-6)
    assert found.p == pytest.approx(anova.loc["a:b", "Pr > F"], rel=1e-6)
    assert found.degrees == (anova.loc["a:b", "Num DF"], anova.loc["a:b", "Den DF"])


@given(st.integers(3, 8), st.integers(0, 1000))
def test_two_by_two_it_is_the_square_of_the_paired_t(seeds, start):
    table = np.random.default_rng(start).normal(size=(2, 2, seeds))
    both = table[1, 1] - table[1, 0] - table[0, 1] + table[0, 0]
    test = paired_t(dict(enumerate(both)), dict.fromkeys(range(seeds), 0.0))
    assert (interaction_f(table).f, interaction_f(table).p) == pytest.approx((test.t**2, test.p), rel=1e-6)


@given(tables, st.floats(0.1, 100), st.randoms())
def test_order_of_seeds_shifts_and_units_leave_f(table, unit, random):
    a, b, n = table.shape
    found = interaction_f(table)
    order = random.sample(range(n), n)
    assert repr(interaction_f(table[:, :, order])) == repr(found)
    rows, columns, seeds = np.arange(a)[:, None, None], np.arange(b)[None, :, None], np.arange(n)
    assert interaction_f(unit * (table + rows - 2 * columns + seeds)).f == pytest.approx(found.f, rel=1e-6)
    assert 0 <= found.p <= 1


def test_exact_tables_have_p_of_one_or_are_untested():
    additive = np.arange(2)[:, None, None] + np.arange(3)[None, :, None] + np.zeros((2, 3, 4))
    assert interaction_f(additive).p == 1
    together = additive.copy()
    together[1, 2] += 1
    assert math.isnan(interaction_f(together).p)
    assert math.isnan(interaction_f(together[:, :, :1]).p)
    with pytest.raises(ValueError, match="2 x 2 or more"):
        interaction_f(np.zeros((1, 3, 4)))


def test_runs_that_are_one_run_again_are_no_sample_of_interactions(study):
    def score(seed, a, b):
        return 0.1 + 0.05 * a * b + 0.001 * noise(seed, a)

    made, again = (crossed_study(study, {"a": [0, 1], "b": [0, 1]}, score) for _ in range(2))
    assert interactions(made)["pairs"].tolist() == [4]
    again.scores["digest"] = again.scores["cell"]
    [row] = interactions(again).to_dict("records")
    assert row["pairs"] == 1
    assert math.isnan(row["p"])


def test_tests_of_a_study_are_those_of_its_tables(study):
    def score(seed, a, b):
        return 0.1 + 0.05 * (a == 2 and b == 1) + 0.001 * noise(seed, a, b)

    [row] = interaction_tests(crossed_study(study, {"a": [0, 1, 2], "b": [0, 1]}, score)).to_dict("records")
    assert (row["arm"], row["df"], row["df_error"], row["seeds"]) == (ARM, 2, 6, 4)
    assert row["p"] == row["p_holm"] < 0.001
