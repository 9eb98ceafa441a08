import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.convergence import NotLinear, linear_rate, linear_rates

STEPS = np.arange(1, 41)
MANY = np.arange(1, 401)


@given(st.floats(0.5, 0.999), st.floats(0.01, 100), st.integers(1, 50))
def test_the_factor_of_a_geometric_series_is_found(factor, scale, every):
    rate = linear_rate((every * STEPS).tolist(), (scale * factor ** STEPS.astype(float)).tolist())
    assert rate.factor == pytest.approx(factor ** (1 / every), rel=1e-9)
    assert rate.r_squared == pytest.approx(1)
    assert rate.factor**rate.halving == pytest.approx(0.5)


@given(st.floats(0.01, 100))
def test_other_units_of_loss_do_not_change_the_rate(unit):
    values = 0.9**STEPS * np.exp(0.02 * np.sin(3 * STEPS))
    one, other = linear_rate(STEPS.tolist(), values.tolist()), linear_rate(STEPS.tolist(), (unit * values).tolist())
    assert (other.factor, other.low, other.high) == pytest.approx((one.factor, one.low, one.high))


def test_interval_agrees_with_least_squares_and_covers():
    rng, hits = np.random.default_rng(0), []
    for _ in range(300):
        values = 0.95**STEPS * np.exp(0.05 * rng.normal(size=40))
        rate = linear_rate(STEPS.tolist(), values.tolist(), tail=1.0)
        hits.append(rate.low <= 0.95 <= rate.high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)
    fit = stats.linregress(STEPS, np.log(values))
    half = stats.t.ppf(0.975, 38) * fit.stderr
    assert (rate.low, rate.high) == pytest.approx((math.exp(fit.slope - half), math.exp(fit.slope + half)))


def test_gradient_descent_on_a_quadratic_has_its_known_rate():
    """With rate 0.1 on curvatures 1 and 4 the slow direction shrinks by 0.9 a step, the loss by 0.81."""
    x = np.array([1.0, 1.0])
    losses = []
    for _ in range(60):
        losses.append(float(0.5 * (x[0] ** 2 + 4 * x[1] ** 2)))
        x = x * (1 - 0.1 * np.array([1.0, 4.0]))
    assert linear_rate(list(range(60)), losses).factor == pytest.approx(0.81, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (1 / STEPS, "bends"),
        (1 / STEPS**2, "bends"),
        (0.5**STEPS + 1e-4, "bends|does not fall"),
        (1.1**STEPS, "does not fall"),
        (np.ones(40), "does not fall"),
        (np.exp(-0.05 * MANY + 1.5 * np.cos(np.pi * MANY)), "no line"),
    ],
    ids=["1/t", "1/t^2", "a floor of noise", "growth", "standstill", "noise"],
)
def test_what_is_not_linear_is_refused_with_the_reason(values, reason):
    with pytest.raises(NotLinear, match=reason):
        linear_rate(list(range(len(values))), values.tolist())


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([1, 2, 3], [1, 0.5, 0.2], "at least 6"),
        (list(range(20)), [1.0] * 19, "as many values"),
        ([1] * 20, [0.5] * 20, "ascending"),
        (list(range(20)), [0.0] * 20, "optimum given too high"),
    ],
)
def test_impossible_curves_are_refused(steps, values, message):
    with pytest.raises(ValueError, match=message):
        linear_rate(steps, values)


def test_a_study_has_a_row_a_cell_and_says_why_others_have_no_rate(study, choices):
    epochs = np.arange(1, 21)
    runs = study.runs.index
    index = pd.MultiIndex.from_product([runs, epochs], names=["run", "epoch"])
    factors = {run: 0.9 if k % 7 else 0.8 for k, run in enumerate(runs)}
    curve = [factors[run] ** (20 * epoch / 20) + 0.25 for run, epoch in index]
    steps = [20 * epoch for _, epoch in index]
    fast = dataclasses.replace(study, curves=pd.DataFrame({"step": steps, "test_loss": curve}, index=index))
    frame = linear_rates(fast, optimum=0.25, choices=choices)
    assert (frame["fitted"] == 3).all()
    assert frame["factor"].between(0.8 ** (1 / 20) - 1e-9, 0.9 ** (1 / 20) + 1e-9).all()
    spread = frame["low"].notna()  # three equal factors have no interval
    assert spread.any()
    assert (frame["low"] <= frame["factor"])[spread].all()
    assert frame["median"].between(0.8 ** (1 / 20) - 1e-9, 0.9 ** (1 / 20) + 1e-9).all()
    cell = study.shown_cell("insgd")
    lost = study.finished("insgd", cell.key, choices["insgd", cell.key].tune)["run"].tolist()[:2]
    scores = fast.scores.copy()
    scores.loc[scores["run"].isin(lost), "status"] = "diverged"
    partly = dataclasses.replace(fast)
    partly.__dict__["scores"] = scores
    row = linear_rates(partly, optimum=0.25, choices=choices).set_index(["arm", "cell"]).loc[("insgd", cell.key)]
    assert (row["runs"], row["diverged"], row["fitted"], row["refused"]) == (3, 2, 1, "diverged")
    assert row["median"] == math.inf
    assert row["factor"] < 1
    none = linear_rates(study, choices=choices)
    assert (none["fitted"] == 0).all()
    assert none["factor"].isna().all()
    assert none["refused"].str.contains("at least 6").all()
