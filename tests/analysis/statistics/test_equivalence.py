import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import paired_t, tost_paired, tost_published, tost_welch, welch

from .samples import lists, paired, statsmodels


@given(lists(2), lists(2), st.floats(0.01, 1))
def test_agrees_with_statsmodels_as_if_the_published_runs_were_there(ours, theirs, margin):
    assume(np.std(ours) > 1e-4 and np.std(theirs) > 1e-4)
    expected = statsmodels("stats.weightstats").ttost_ind(ours, theirs, -margin, margin, usevar="unequal")
    found = tost_published(ours, float(np.mean(theirs)), float(np.std(theirs, ddof=1)), len(theirs), margin)
    assert found.p == pytest.approx(expected[0], rel=1e-6, abs=1e-12)
    assert (found.p_below, found.p_above) == pytest.approx((expected[1][1], expected[2][1]), rel=1e-6, abs=1e-12)


@given(lists(2), lists(2), st.floats(0.01, 1))
def test_two_samples_agree_with_statsmodels(ours, theirs, margin):
    assume(np.std(ours) > 1e-4 and np.std(theirs) > 1e-4)
    expected = statsmodels("stats.weightstats").ttost_ind(ours, theirs, -margin, margin, usevar="unequal")
    assert tost_welch(ours, theirs, margin).p == pytest.approx(expected[0], rel=1e-6, abs=1e-12)
    assert math.isnan(tost_welch(ours[:1], theirs, margin).p)


@given(paired(), st.floats(0.01, 1))
def test_pairs_agree_with_statsmodels(arms, margin):
    treated, control = arms
    one, other = np.array([treated[s] for s in treated]), np.array([control[s] for s in treated])
    assume(np.std(one - other) > 1e-4)
    expected = statsmodels("stats.weightstats").ttost_paired(one, other, -margin, margin)
    assert tost_paired(treated, control, margin).p == pytest.approx(expected[0], rel=1e-6, abs=1e-12)


@given(paired(), lists(), lists(), st.floats(0.001, 1))
def test_p_is_below_alpha_exactly_where_the_interval_lies_within_the_margin(arms, ours, theirs, margin):
    published = (float(np.mean(theirs)), float(np.std(theirs, ddof=1)), len(theirs))
    for found in (tost_paired(*arms, margin), tost_published(ours, *published, margin)):
        if math.isnan(found.low):  # nothing spreads
            assert math.isnan(found.p)
            assert not found.equivalent
            continue
        assert 0 <= found.p <= 1
        assert found.low <= found.difference <= found.high
        slack = min(abs(found.low + margin), abs(found.high - margin))
        assume(slack > 1e-9)
        assert found.equivalent == (-margin < found.low and found.high < margin)


@given(paired(), st.floats(0.01, 0.5), st.floats(1.01, 3))
def test_a_wider_margin_is_easier(arms, margin, factor):
    wide, narrow = tost_paired(*arms, margin * factor), tost_paired(*arms, margin)
    assert wide.p <= narrow.p or (math.isnan(wide.p) and math.isnan(narrow.p))


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_at_the_end_of_scipys_interval_equivalence_begins(shift, alpha):
    """The margin at which p is alpha is the farther end of the interval at 1 - 2 alpha; statsmodels says the same."""
    rng = np.random.default_rng(1)
    ours, theirs = list(93 + shift + 0.4 * rng.normal(size=6)), list(93 + 0.2 * rng.normal(size=7))
    pairs = dict(enumerate(ours)), dict(enumerate(theirs[:6]))
    summary = (float(np.mean(theirs)), float(np.std(theirs, ddof=1)), len(theirs))
    weightstats = statsmodels("stats.weightstats")
    cases = [
        (stats.ttest_ind(ours, theirs, equal_var=False), lambda margin: tost_welch(ours, theirs, margin, alpha)),
        (stats.ttest_ind(ours, theirs, equal_var=False), lambda margin: tost_published(ours, *summary, margin, alpha)),
        (stats.ttest_rel(ours, theirs[:6]), lambda margin: tost_paired(*pairs, margin, alpha)),
    ]
    for test, found in cases:
        ends = test.confidence_interval(1 - 2 * alpha)
        bound = max(abs(ends.low), abs(ends.high))
        assert found(bound).p == pytest.approx(alpha, rel=1e-6)
        assert found(bound * 1.0001).equivalent
        assert not found(bound * 0.9999).equivalent
        assert (found(bound).low, found(bound).high) == pytest.approx((ends.low, ends.high))
        if test is cases[0][0]:
            assert weightstats.ttost_ind(ours, theirs, -bound, bound, usevar="unequal")[0] == pytest.approx(alpha)


def test_no_difference_found_is_not_equivalence():
    ours, theirs = [93.0, 95.5, 91.2], [92.0, 94.9, 93.8]
    assert welch(ours, theirs).p > 0.5
    assert not tost_published(ours, float(np.mean(theirs)), float(np.std(theirs, ddof=1)), 3, margin=0.5).equivalent


def test_a_small_difference_can_be_both_found_and_too_small_to_matter():
    treated, control = {k: 0.1 + 1e-5 * k for k in range(6)}, dict.fromkeys(range(6), 0.099)
    assert paired_t(treated, control).p < 1e-6
    assert tost_paired(treated, control, margin=0.01).equivalent


def test_errors_are_rare_where_the_true_difference_is_the_margin():
    rng = np.random.default_rng(0)
    found = [tost_published(rng.normal(0.5, 1, 7), 0.0, 1.0, 1000, margin=0.5).equivalent for _ in range(500)]
    assert np.mean(found) <= 0.06
    sharp = [tost_published(rng.normal(2.0, 1, 7), 0.0, 1.0, 1000, margin=2.0).equivalent for _ in range(1000)]
    assert np.mean(sharp) == pytest.approx(0.05, abs=0.02)


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="expected a difference above 0"):
        tost_paired({0: 1.0}, {0: 1.0}, margin=0.0)
    with pytest.raises(ValueError, match="level"):
        tost_paired({0: 1.0}, {0: 1.0}, margin=1.0, alpha=0.6)
    with pytest.raises(ValueError, match="at least two of each"):
        tost_published([1.0, 2.0], 1.0, 0.1, 1, margin=1.0)
    single = tost_published([1.0], 1.5, 0.1, 7, margin=1.0)
    assert single.difference == -0.5
    assert math.isnan(single.p)
    assert not single.equivalent


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_what_does_not_spread_is_not_shown_to_be_equivalent(shift):
    ours, theirs = {0: 1.0 + shift, 1: 2.0 + shift}, {0: 1.0, 1: 2.0}
    steady = tost_welch([1.0 + shift] * 3, [1.0] * 3, margin=1.0)
    for found in (tost_paired(ours, theirs, margin=1.0), steady, tost_published([1.0 + shift] * 3, 1.0, 0.0, 3, 1.0)):
        assert np.isnan([found.p, found.low, found.high]).all()
        assert not found.equivalent
