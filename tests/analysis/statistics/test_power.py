import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import detectable_difference, power_of, seeds_needed

from .samples import statsmodels

effects, sizes, levels = st.floats(0.3, 4), st.integers(2, 60), st.sampled_from([0.01, 0.05, 0.1])


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_cohens_small_medium_and_large_effects_need_the_known_numbers_of_pairs(effect, n):
    assert seeds_needed(effect, sd=1) == n


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_and_of_each_of_two_arms(effect, n):  # Cohen 1988, table 2.4.1: 393, 64, 26; 393.4 is exact
    assert seeds_needed(effect, sd=1, paired=False) == n


@budget(max_examples=40)
@given(effects, sizes, levels)
def test_power_agrees_with_statsmodels(effect, n, alpha):
    power = statsmodels("stats.power")
    expected = power.TTestPower().power(effect, n, alpha)
    if not math.isnan(expected):  # its lower tail underflows to NaN
        assert power_of(effect, 1, n, alpha) == pytest.approx(expected, abs=1e-6)
    expected = power.TTestIndPower().power(effect, n, alpha)
    if not math.isnan(expected):
        assert power_of(effect, 1, n, alpha, paired=False) == pytest.approx(expected, abs=1e-6)


@budget(max_examples=40)
@given(st.integers(2, 40), st.sampled_from([0.5, 0.8, 0.95]), levels, st.booleans())
def test_what_is_detectable_is_found_with_that_power_and_needs_those_seeds(n, power, alpha, paired):
    found = detectable_difference(n, 2.0, power, alpha, paired)
    assert power_of(found, 2.0, n, alpha, paired) == pytest.approx(power, abs=1e-6)
    assert seeds_needed(found * 1.0001, 2.0, power, alpha, paired) == n


@budget(max_examples=40)
@given(effects, sizes)
def test_more_seeds_and_larger_differences_have_more_power(effect, n):
    assert 0 <= power_of(effect, 1, n) <= 1
    assert power_of(effect, 1, n + 1) >= power_of(effect, 1, n) - 1e-9
    assert power_of(effect * 1.1, 1, n) >= power_of(effect, 1, n) - 1e-9
    assert detectable_difference(n + 1, 1) < detectable_difference(n, 1)
    assert seeds_needed(effect * 1.1, 1) <= seeds_needed(effect, 1)


@given(st.floats(0.01, 100))
def test_units_cancel(unit):
    assert seeds_needed(0.5 * unit, unit) == 34
    assert detectable_difference(5, unit) == pytest.approx(unit * detectable_difference(5, 1))
    assert seeds_needed(-0.5 * unit, unit) == 34


def test_five_seeds_find_it_as_often_as_reckoned():
    rng = np.random.default_rng(0)
    difference = detectable_difference(5, 1.0)
    assert difference == pytest.approx(1.6819, abs=1e-3)
    found = stats.ttest_1samp(rng.normal(difference, 1, (4000, 5)), 0, axis=1).pvalue < 0.05
    assert np.mean(found) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("n", "sd", "other_sd"), [(5, 1.2, 0.5), (3, 1.0, 0.1), (7, 0.43, 0.16), (6, 0.02, 1.0)])
def test_power_of_arms_with_sds_of_their_own_is_what_a_simulation_finds(n, sd, other_sd):
    numbers = np.random.default_rng(0).normal(size=(2, 20_000, n))
    difference = 2.2 * math.hypot(sd, other_sd) / math.sqrt(n)
    treated, control = difference + sd * numbers[0], other_sd * numbers[1]
    found = (stats.ttest_ind(treated, control, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert power_of(difference, sd, n, paired=False, other_sd=other_sd) == pytest.approx(found, abs=0.015)


@given(effects, sizes)
def test_arms_with_one_sd_are_the_special_case_and_their_order_is_free(effect, n):
    assert power_of(effect, 1, n, paired=False, other_sd=1) == power_of(effect, 1, n, paired=False)
    either = [power_of(effect, one, n, paired=False, other_sd=other) for one, other in ((1, 2), (2, 1))]
    assert either[0] == pytest.approx(either[1])
    assert seeds_needed(effect, 1, paired=False) <= seeds_needed(effect, 1, paired=False, other_sd=1.5)


def test_power_stays_a_number_where_scipys_tail_underflows():
    assert power_of(2, 1, 100) == 1
    assert power_of(10, 1, 3) == pytest.approx(0.999, abs=0.001)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seeds_needed(0.0, 1), "which no seeds find"),
        (lambda: seeds_needed(1e-9, 1), "needs more than"),
        (lambda: seeds_needed(1, 0), "above 0"),
        (lambda: seeds_needed(1, 1, power=0.01), "more than alpha"),
        (lambda: seeds_needed(1, 0, paired=False, other_sd=0), "sd = 0 and other_sd = 0: expected a finite"),
        (lambda: seeds_needed(1, 1, paired=False, other_sd=-1), "above 0"),
        (lambda: seeds_needed(1, 1, other_sd=2), "paired=False"),
        (lambda: power_of(1, 1, 1), "at least 2 seeds"),
        (lambda: detectable_difference(5, 1, power=1.0), "between 0 and 1"),
    ],
)
def test_impossible_questions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert math.isnan(detectable_difference(1, 1))
