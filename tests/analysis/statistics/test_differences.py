import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import holm, paired_t, welch, welch_error, wilcoxon

from .samples import ERRORS, lists, paired, shuffled

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's plants, crossed minus self-fertilised, in eighths of an inch: Fisher, The design of experiments, 1935."""


def against_zero(differences):
    return dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0)


def test_fisher_on_darwins_plants():
    test = paired_t(*against_zero(DARWIN))
    assert test.t == pytest.approx(2.148, abs=5e-4)  # as Fisher printed it
    assert test.p == pytest.approx(0.0497, abs=5e-5)
    assert test.low == pytest.approx(0.03, abs=5e-3)
    assert wilcoxon(*against_zero(DARWIN)).p == pytest.approx(stats.wilcoxon(DARWIN, method="exact").pvalue)


@given(paired())
def test_paired_t_agrees_with_scipy(arms):
    treated, control = arms
    found = paired_t(treated, control)
    seeds = sorted(treated)
    differences = np.array([treated[s] - control[s] for s in seeds])
    assume(differences.std() > 1e-9)
    expected = stats.ttest_1samp(differences, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)


@given(lists(), lists())
def test_welch_agrees_with_scipy(treated, control):
    assume(min(np.std(treated), np.std(control)) > 1e-4)  # scipy warns of constant ones
    found, expected = welch(treated, control), stats.ttest_ind(treated, control, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (found.t, found.degrees) == pytest.approx((expected.statistic, expected.df), rel=1e-6, abs=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-12)


@given(paired(1), st.randoms())
def test_the_order_of_seeds_changes_no_bit(arms, random):
    treated, control = arms
    again = shuffled(treated, random), shuffled(control, random)
    assert repr(paired_t(*again)) == repr(paired_t(*arms))
    assert repr(welch(*(list(arm.values()) for arm in again))) == repr(welch(*(list(arm.values()) for arm in arms)))
    assert repr(wilcoxon(*again)) == repr(wilcoxon(*arms))


@given(paired())
def test_swapping_the_arms_flips_the_sign_and_keeps_p(arms):
    treated, control = arms
    one, other = paired_t(treated, control), paired_t(control, treated)
    assert other.difference == pytest.approx(-one.difference, abs=1e-15)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-12, nan_ok=True)
    assert other.p == pytest.approx(one.p, rel=1e-9, nan_ok=True)
    assert wilcoxon(control, treated).p == wilcoxon(treated, control).p
    values = list(treated.values()), list(control.values())
    assert welch(*reversed(values)).p == pytest.approx(welch(*values).p, rel=1e-9, nan_ok=True)


@given(paired(), st.sampled_from([0.125, 0.5, 2.0]), st.floats(0.01, 100))
def test_shifting_both_arms_changes_nothing_and_units_scale(arms, shift, unit):
    treated, control = arms
    test = paired_t(treated, control)
    moved = paired_t(*({seed: (value + shift) * unit for seed, value in arm.items()} for arm in arms))
    assert moved.difference == pytest.approx(test.difference * unit, abs=1e-12 * max(unit, 1))
    width, rounding = (test.high - test.low) * unit, 1e-10 * max(unit, 1)
    assert moved.high - moved.low == pytest.approx(width, rel=1e-6, abs=rounding, nan_ok=True)


@given(paired(), lists(), lists())
def test_p_is_a_probability_and_the_interval_holds_the_difference(arms, treated, control):
    for test in (paired_t(*arms), welch(treated, control)):
        if math.isnan(test.low):  # nothing spreads
            assert math.isnan(test.p) if test.difference else test.p == 1
            continue
        assert 0 <= test.p <= 1
        assert test.low <= test.difference <= test.high
        if 1e-12 < test.p < 1:  # the test and its interval agree
            assert (test.p < 0.05) == (test.low > 0 or test.high < 0)
    ranks = wilcoxon(*arms)
    assert 0 < ranks.smallest_p <= ranks.p <= 1


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_wilcoxon_is_exact_with_ties_by_counting_all_signs(differences):
    found = wilcoxon(*against_zero(differences))
    moved = [d for d in differences if d]
    if not moved:
        assert (found.p, found.zeros) == (1.0, len(differences))
        return
    ranks = stats.rankdata(np.abs(moved))
    centre, sums = ranks.sum() / 2, [
        float(np.dot(signs, ranks)) for signs in itertools.product([0, 1], repeat=len(ranks))
    ]  # fmt: skip
    observed = abs(float(ranks[np.array(moved) > 0].sum()) - centre)
    assert found.p == pytest.approx(np.mean([abs(total - centre) >= observed - 1e-9 for total in sums]))


@given(st.lists(st.integers(-99, 99).filter(bool), min_size=1, max_size=12, unique_by=abs))
def test_wilcoxon_without_ties_agrees_with_scipy(differences):
    expected = stats.wilcoxon(differences, method="exact")
    assert wilcoxon(*against_zero(differences)).p == pytest.approx(expected.pvalue)


def test_wilcoxon_of_many_pairs_agrees_with_scipy():
    differences = np.random.default_rng(0).normal(0.2, 1, 80)
    found = wilcoxon(*against_zero(differences))
    assert found.p == pytest.approx(stats.wilcoxon(differences, method="asymptotic").pvalue)
    few = wilcoxon(*against_zero(differences[:50]))  # where the two meet they say the same
    assert few.p == pytest.approx(stats.wilcoxon(differences[:50], method="asymptotic").pvalue, abs=0.002)


def test_differences_that_only_rounding_tells_apart_tie():
    treated, control = {0: 0.3, 1: 0.2, 2: 0.8}, {0: 0.2, 1: 0.1, 2: 0.9}  # 0.1, 0.1 and -0.1, but not in floats
    assert len({abs(treated[s] - control[s]) for s in treated}) > 1
    assert wilcoxon(treated, control).statistic == 4.0  # two of three equal ranks
    same = paired_t({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1})
    assert same.difference == pytest.approx(0.1)
    assert math.isnan(same.p)


@pytest.mark.parametrize(("pairs", "smallest"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_few_seeds_cannot_reach_a_small_p(pairs, smallest):
    test = wilcoxon(*against_zero([float(k) for k in range(1, pairs + 1)]))
    assert test.p == test.smallest_p == smallest


def test_a_diverged_run_ranks_worst_whatever_the_other_one_lost():
    control = {0: 0.2, 1: 0.2, 2: 0.9, 3: math.inf}
    test = wilcoxon({0: 0.1, 1: 0.1, 2: math.inf, 3: math.inf}, control)
    assert (test.pairs, test.zeros, test.statistic) == (4, 1, 3.0)  # the two worst of all do not differ
    with pytest.raises(ValueError, match="score diverged runs first"):
        paired_t({0: math.inf}, {0: 0.1})
    with pytest.raises(ValueError, match="leave out runs without a score"):
        wilcoxon({0: math.nan}, {0: 0.1})


def test_what_too_few_scores_cannot_say_is_nan():
    alone = paired_t({0: 0.3}, {0: 0.1})
    assert (alone.difference, alone.sizes) == (pytest.approx(0.2), (1,))
    assert math.isnan(alone.p)
    assert math.isnan(welch([0.1], [0.2, 0.3]).p)
    assert math.isnan(wilcoxon({}, {}).p)


def test_a_setting_that_changes_nothing_has_p_of_one_and_a_constant_change_is_untested():
    """scipy says p = 0 of the second, and NaN of the first."""
    same = {0: 0.1, 1: 0.2, 2: 0.4}
    assert paired_t(same, same).p == 1
    assert welch([0.5, 0.5], [0.5, 0.5]).p == 1
    for test in (paired_t({0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.25}), welch([0.5, 0.5], [0.25, 0.25])):
        assert test.difference == 0.25
        assert np.isnan([test.p, test.t, test.low, test.high]).all()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(2, 7), st.sampled_from([1.0, 100.0, 1e-3, 1e6]))
def test_what_only_rounding_spreads_does_not_spread(wrong, other, seeds, unit):
    """Of errors on 300 images, in any unit, each computed in another way."""
    ways = (lambda n: n / 300, lambda n: 1 - (300 - n) / 300, lambda n: n * (1 / 300))
    ours, theirs = (
        {seed: unit * ways[(seed + k) % 3](n) for seed in range(seeds)} for k, n in enumerate((wrong, other))
    )
    for test in (paired_t(ours, theirs), welch(list(ours.values()), list(theirs.values()))):
        assert test.p == 1 if wrong == other else math.isnan(test.p)


@pytest.mark.parametrize("seeds", [2, 3])
def test_small_test_sets_find_nothing_where_there_is_nothing(seeds):
    """Two equal arms, 2.5 % of 300 images wrong: over 24 comparisons Holm's method keeps its word.

    A p of 0 for pairs that differ by the same number of images would break it in 4 of 5 families of 2 seeds. As p is
    looked up by the counts of images that pairs differ by, thousands of families cost a few tests.
    """
    rng = np.random.default_rng(0)
    wrong = np.sort(rng.binomial(300, 0.025, (500, 24, seeds)) - rng.binomial(300, 0.025, (500, 24, seeds)), axis=-1)
    kinds, of = np.unique(wrong.reshape(-1, seeds), axis=0, return_inverse=True)
    p = np.array([paired_t(*against_zero([n / 3 for n in kind])).p for kind in kinds.tolist()])
    families = p[of.ravel()].reshape(500, 24)
    assert np.mean([(holm(family) < 0.05).any() for family in families]) <= 0.05


def test_the_level_of_the_t_test_is_what_it_says():
    rng = np.random.default_rng(1)
    found = [paired_t(*against_zero(rng.normal(size=5))).p for _ in range(1000)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.02)


@given(ERRORS, ERRORS, st.integers(2, 9), st.integers(2, 9))
def test_welchs_degrees_lie_between_those_of_the_smaller_arm_and_of_both(sd, other_sd, n, other_n):
    degrees = welch_error(sd, n, other_sd, other_n).degrees
    assert min(n, other_n) - 1 - 1e-9 <= degrees <= n + other_n - 2 + 1e-9


def test_welchs_error_refuses_single_scores():
    with pytest.raises(ValueError, match="at least two of each"):
        welch_error(0.1, 1, 0.1, 5)


@pytest.mark.parametrize("test", [paired_t, wilcoxon])
def test_scores_that_are_not_by_seed_are_not_paired(test):
    with pytest.raises(TypeError, match=r"scores of type list: .* dict\(enumerate\(scores\)\)"):
        test([1.0, 2.0], [2.0, 2.5])
    with pytest.raises(TypeError, match="scores of type list"):
        test({0: 1.0, 1: 2.0}, [2.0, 2.5])
