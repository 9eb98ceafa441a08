import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import hedges_g, hedges_g_paired, small_sample_correction

from .samples import lists, paired, shuffled, statsmodels


@pytest.mark.parametrize(
    ("degrees", "correction"), [(2, 0.5642), (3, 0.7236), (4, 0.7979), (5, 0.8408), (10, 0.9228), (50, 0.9849)]
)
def test_correction_is_that_of_hedges_table(degrees, correction):
    assert small_sample_correction(degrees) == pytest.approx(correction, abs=1e-4)  # Hedges 1981, Table 1


def test_correction_makes_g_unbiased():
    rng = np.random.default_rng(0)
    found = [hedges_g(rng.normal(0.8, 1, 4), rng.normal(0, 1, 4)).g for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_g_agrees_with_statsmodels_up_to_its_approximate_correction():
    meta = statsmodels("stats.meta_analysis")
    rng = np.random.default_rng(1)
    treated, control = rng.normal(0.5, 1, 7), rng.normal(0, 1.2, 9)
    moments = (value for arm in (treated, control) for value in (arm.mean(), arm.std(ddof=1), len(arm)))
    expected, _ = meta.effectsize_smd(*moments)
    approximate = 1 - 3 / (4 * 14 - 1)
    assert hedges_g(treated, control).g / small_sample_correction(14) == pytest.approx(expected / approximate)


@given(lists(2, 7), lists(2, 7))
def test_interval_is_where_t_is_an_extreme_draw(treated, control):
    assume(min(np.std(treated), np.std(control)) > 1e-4)
    size, degrees = hedges_g(treated, control), len(treated) + len(control) - 2
    t = stats.ttest_ind(treated, control).statistic
    assume(abs(t) < 30)
    unit = small_sample_correction(degrees) / math.sqrt(len(treated) * len(control) / (degrees + 2))
    assert stats.nct.cdf(t, degrees, size.low / unit) == pytest.approx(0.975, abs=1e-4)
    assert stats.nct.cdf(t, degrees, size.high / unit) == pytest.approx(0.025, abs=1e-4)


@given(paired(3), st.randoms())
def test_order_sign_and_interval(arms, random):
    treated, control = arms
    size = hedges_g_paired(treated, control)
    assert repr(hedges_g_paired(shuffled(treated, random), control)) == repr(size)
    assume(not math.isnan(size.g) and abs(size.g) < 20)
    assert size.low <= size.g <= size.high
    swapped = hedges_g_paired(control, treated)
    assert (swapped.g, swapped.low, swapped.high) == pytest.approx((-size.g, -size.high, -size.low), rel=1e-3, abs=1e-4)


@given(lists(3), lists(3), st.floats(0.1, 100), st.sampled_from([0.0, 0.5, 3.0]))
def test_units_and_shifts_leave_g(treated, control, unit, shift):
    assume(np.std(treated) + np.std(control) > 1e-3)
    moved = ([unit * value + shift for value in arm] for arm in (treated, control))
    assert hedges_g(*moved).g == pytest.approx(hedges_g(treated, control).g, rel=1e-6, abs=1e-9)


def test_pairing_gives_a_larger_g_where_seeds_share_much():
    seeds = np.random.default_rng(2).normal(0, 1, 6)
    treated = {k: seed + 0.3 + 0.1 * (-1) ** k for k, seed in enumerate(seeds)}
    control = dict(enumerate(seeds))
    assert hedges_g_paired(treated, control).g > 2
    assert abs(hedges_g(list(treated.values()), list(control.values())).g) < 1


def test_too_few_or_constant_scores_have_no_g():
    assert math.isnan(hedges_g_paired({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.5}).g)
    assert math.isnan(hedges_g([1.0], [0.0, 1.0]).g)
    assert math.isnan(hedges_g([1.0, 1.0], [0.0, 0.0]).g)
    with pytest.raises(ValueError, match="more than 1"):
        small_sample_correction(1)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    sizes = [hedges_g_paired(dict(enumerate(rng.normal(1, 1, 5))), dict.fromkeys(range(5), 0.0)) for _ in range(1000)]
    unbiased = small_sample_correction(4)  # the interval is that of J times the true size
    assert np.mean([size.low <= unbiased <= size.high for size in sizes]) == pytest.approx(0.95, abs=0.02)
