import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import binomial_interval, paired_difference, summarize

from .samples import lists

errors = lists()


@given(errors)
def test_summary_agrees_with_scipy(values):
    summary = summarize(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-15)
    assert summary.sd == pytest.approx(np.std(values, ddof=1), abs=1e-14)
    spread = stats.sem(values)
    if spread > 1e-12:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread)
        assert (summary.low, summary.high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_equal_numbers_have_no_spread_and_no_interval():
    """numpy gives three times 90.1 a standard deviation of 1.7e-14, and so a t of 1e15."""
    for values in ([90.1] * 3, [90.1, 90.1 + 1e-13, 90.1 - 1e-13]):
        summary = summarize(values)
        assert (summary.n, summary.mean, summary.sd) == (3, pytest.approx(90.1), 0.0)
        assert np.isnan([summary.low, summary.high]).all()


def test_interval_of_known_numbers():
    summary = summarize([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # the 97.5 % quantile of t with 2 degrees of freedom, from tables
    assert (summary.mean, summary.sd) == (2.0, 1.0)
    assert (summary.low, summary.high) == pytest.approx((2 - half, 2 + half))


@given(errors, st.randoms())
def test_order_of_seeds_changes_no_bit(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    assert repr(summarize(shuffled)) == repr(summarize(values))


@given(errors, st.floats(-1, 1))
def test_shifting_shifts_mean_and_interval_and_leaves_sd(values, shift):
    before, after = summarize(values), summarize([value + shift for value in values])
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-12)
    assert after.low == pytest.approx(before.low + shift, abs=1e-9, nan_ok=True)
    assert after.sd == pytest.approx(before.sd, abs=1e-12)


@given(errors, st.floats(0.01, 100))
def test_units_scale_everything(values, factor):
    summary, scaled = summarize(values) * factor, summarize([value * factor for value in values])
    assert scaled.mean == pytest.approx(summary.mean, abs=1e-9)
    assert scaled.high == pytest.approx(summary.high, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seeds", [3, 4, 5, 6, 7])
def test_t_interval_covers_what_it_says_with_few_seeds_and_a_percentile_bootstrap_does_not(seeds):
    rng = np.random.default_rng(seeds)
    samples = rng.normal(size=(1000, seeds))
    summaries = [summarize(sample) for sample in samples]
    covered = np.mean([summary.low <= 0 <= summary.high for summary in summaries])
    resampled = samples[:, rng.integers(0, seeds, (400, seeds))].mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert covered == pytest.approx(0.95, abs=0.03)
    assert np.mean((low <= 0) & (high >= 0)) < 0.91


def test_one_seed_has_a_mean_and_no_interval():
    summary = summarize([0.3])
    assert (summary.n, summary.mean) == (1, 0.3)
    assert math.isnan(summary.sd)
    assert math.isnan(summary.low)
    assert summarize([]).n == 0


def test_infinite_scores_are_refused():
    with pytest.raises(ValueError, match="score diverged runs first"):
        summarize([0.1, math.inf])


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_impossible_levels_are_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        summarize([0.1, 0.2], level)


@given(errors, st.floats(-1, 1))
def test_pairing_removes_what_seeds_share(values, effect):
    control = dict(enumerate(values))
    difference = paired_difference({seed: value + effect for seed, value in control.items()}, control)
    assert difference.mean == pytest.approx(effect, abs=1e-12)
    assert difference.sd == pytest.approx(0, abs=1e-12)


def test_pairing_uses_common_seeds_only():
    difference = paired_difference({0: 1.0, 1: 2.0, 7: 100.0}, {0: 0.5, 1: 1.0, 2: 3.0})
    assert (difference.n, difference.mean) == (2, 0.75)


@given(st.integers(1, 40), st.data())
def test_binomial_interval_agrees_with_scipy(trials, data):
    successes = data.draw(st.integers(0, trials))
    exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert binomial_interval(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_binomial_interval_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="5 of 3"):
        binomial_interval(5, 3)
