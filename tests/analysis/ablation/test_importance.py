import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from insgd_lab.analysis.ablation import forest_importance, importance, omega_squared, variance_shares

from ..statistics.samples import statsmodels
from .grids import crossed_study, noise

grids = st.tuples(st.integers(2, 3), st.integers(2, 4), st.integers(2, 3), st.integers(0, 10_000)).map(
    lambda drawn: np.random.default_rng(drawn[3]).normal(size=(*drawn[:3], 3))
)


@budget(max_examples=15)
@given(grids)
def test_sums_of_squares_agree_with_statsmodels(scores):
    rows = [(*place[:3], value) for place, value in np.ndenumerate(scores)]
    frame = pd.DataFrame(rows, columns=["a", "b", "c", "y"])
    fitted = statsmodels("formula.api").ols("y ~ C(a) * C(b) * C(c)", frame).fit()
    table = statsmodels("stats.anova").anova_lm(fitted, typ=2)["sum_sq"]
    names = {0: "C(a)", 1: "C(b)", 2: "C(c)"}
    for effect, square in variance_shares(scores).items():
        assert square == pytest.approx(table[":".join(names[k] for k in effect) or "Residual"], rel=1e-6, abs=1e-9)


@budget(max_examples=15)
@given(grids)
def test_omega_squared_is_that_of_statsmodels_table(scores):
    rows = [(*place[:3], value) for place, value in np.ndenumerate(scores)]
    frame = pd.DataFrame(rows, columns=["a", "b", "c", "y"])
    fitted = statsmodels("formula.api").ols("y ~ C(a) * C(b) * C(c)", frame).fit()
    table = statsmodels("stats.anova").anova_lm(fitted, typ=2)
    noise = table.loc["Residual", "sum_sq"] / table.loc["Residual", "df"]
    expected = (table["sum_sq"] - table["df"] * noise) / (table["sum_sq"].sum() + noise)
    names = {0: "C(a)", 1: "C(b)", 2: "C(c)"}
    found = omega_squared(variance_shares(scores), scores.shape)
    for effect in found:
        if effect:
            assert found[effect] == pytest.approx(expected[":".join(names[k] for k in effect)], rel=1e-6, abs=1e-9)
    assert sum(found.values()) == pytest.approx(1)


def test_noise_alone_has_a_share_and_on_average_no_corrected_one():
    rng = np.random.default_rng(0)
    drawn_ones = [rng.normal(size=(3, 4, 3)) for _ in range(400)]
    raw = np.mean([variance_shares(one)[(1,)] / ((one - one.mean()) ** 2).sum() for one in drawn_ones])
    corrected = np.mean([omega_squared(variance_shares(one), one.shape)[(1,)] for one in drawn_ones])
    assert raw == pytest.approx(3 / 35, abs=0.01)
    assert corrected == pytest.approx(0, abs=0.01)
    one_seed = np.arange(6.0).reshape(2, 3, 1)
    assert np.isnan(omega_squared(variance_shares(one_seed), one_seed.shape)[(0,)])


@given(grids, st.floats(0.1, 10), st.floats(-5, 5), st.randoms())
def test_they_add_up_scale_and_do_not_know_the_order_of_seeds(scores, unit, shift, random):
    squares = variance_shares(scores)
    assert sum(squares.values()) == pytest.approx(((scores - scores.mean()) ** 2).sum())
    order = random.sample(range(3), 3)
    assert variance_shares(scores[..., order]) == squares
    moved = variance_shares(unit * scores + shift)
    assert list(moved.values()) == pytest.approx([unit**2 * square for square in squares.values()], rel=1e-6, abs=1e-8)


def test_shares_of_a_known_function(study):
    """a takes ±3, b ±1, their product ±1 times 2: squares 9, 1 and 4 on average."""

    def score(seed, a, b, idle):
        return 3 * a + b + 2 * a * b

    frame = importance(crossed_study(study, {"a": [-1, 1], "b": [-1, 1], "idle": [0, 1, 2]}, score))
    shares = frame.set_index("effect")["share"]
    expected = {"a": 9 / 14, "b": 1 / 14, "a × b": 4 / 14, "idle": 0, "seeds": 0, "a × b × idle": 0}
    assert {name: shares[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert frame["order"].tolist() == [1, 1, 1, 2, 2, 2, 3, 0]
    corrected = frame.set_index("effect")["omega_squared"]
    assert {name: corrected[name] for name in expected} == pytest.approx(expected, abs=1e-12), (
        "no noise, nothing to correct"
    )


def test_at_every_tune_the_learning_rate_is_an_axis(study):
    def score(seed, a, b, lr):
        return 0.1 * (lr == 1.0) + 0.01 * a * (lr == 0.1) + 0.001 * noise(seed, a, b, lr)

    made = crossed_study(study, {"a": [0, 1], "b": [0, 1]}, score, tune={"lr": [0.1, 1.0]})
    frame = importance(made).set_index(["at", "effect"])["share"]
    assert frame["every", "learning rate"] > 0.9
    assert frame["fixed", "a"] > 0.8
    assert frame["best"].sum() == pytest.approx(1)
    assert set(importance(made)["at"]) == {"best", "fixed", "every"}


def test_nothing_that_varies_leaves_no_shares(study):
    frame = importance(crossed_study(study, {"a": [0, 1], "b": [0, 1]}, lambda seed, a, b: 0.5))
    assert frame["share"].isna().all()
    with pytest.raises(ValueError, match="expected finite ones"):
        variance_shares(np.full((2, 2, 3), np.inf))


# ------------------------------------------------------------------------------------------------ random grids


def drawn(study, count=40, score=lambda a, b, c: 0.5 * a + 0.1 * a * b):
    """A study of one random grid over a, b and c, each evenly drawn from 0 to 1."""
    values = np.random.default_rng(0).uniform(size=(count, 3)).round(3).tolist()
    settings = [dict(zip("abc", row, strict=True)) for row in values]
    made = crossed_study(study, {"place": list(range(count))}, lambda seed, place: score(**settings[place]), seeds=2)
    arm = dataclasses.replace(made.arms["arm"], grid="random")
    cells = {
        key: dataclasses.replace(cell, settings=settings[cell.settings["place"]]) for key, cell in made.cells.items()
    }
    random = dataclasses.replace(made, arms={"arm": arm}, cells=cells)
    random.__dict__["scores"] = made.scores
    return random


def test_a_forest_leans_on_what_matters_and_is_named(study):
    frame = forest_importance(drawn(study)).set_index("axis")
    assert frame["importance"].idxmax() == "a"
    assert frame.loc["a", "importance"] > 10 * abs(frame.loc["c", "importance"])
    assert (frame["method"] == "permutation importance of a random forest").all()
    assert (frame["settings"] == 40).all()
    assert (frame["r_squared"] > 0.7).all()
    assert (frame["low"] <= frame["importance"]).all()
    assert (frame["lost"] == 0).all()


def noisy(a, b, c):
    return noise(a, b, c)


def test_a_forest_of_noise_says_that_it_knows_nothing(study):
    frame = forest_importance(drawn(study, score=noisy))
    assert (frame["r_squared"] < 0.2).all()


def test_the_forest_does_not_know_the_order_of_runs_and_few_settings_have_none(study):
    made = drawn(study, count=20)
    shuffled = dataclasses.replace(made)
    shuffled.__dict__["scores"] = made.scores.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(forest_importance(shuffled), forest_importance(made), check_exact=True)
    assert forest_importance(drawn(study, count=9)).empty
    assert forest_importance(study).empty
