"""Tests from printed summaries: against scipy on raw samples, brute force over roundings, and known answers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.audit.summaries import Summary, interval, p_range, p_value, runs_needed, sd_bound
from insgd_lab.analysis.statistics import holm

MEANS = st.floats(-100, 100).map(lambda x: round(x, 2))
SDS = st.floats(0.02, 20).map(lambda x: round(x, 2))
SUMMARIES = st.builds(Summary, MEANS, SDS, st.integers(2, 12))


def sample(summary: Summary) -> np.ndarray:
    """Numbers with exactly this mean and standard deviation."""
    shape = np.arange(summary.n) ** 1.5
    return summary.mean + summary.sd * (shape - shape.mean()) / shape.std(ddof=1)


@given(SUMMARIES, SUMMARIES)
def test_welch_is_scipys_on_samples_with_these_means_and_sds(arm, base):
    test = stats.ttest_ind(sample(arm), sample(base), equal_var=False)
    assert p_value(arm, base) == pytest.approx(1.0 if arm.mean == base.mean else test.pvalue, rel=1e-6, abs=1e-12)
    oracle = test.confidence_interval(0.95)
    assert interval(arm, base) == pytest.approx((oracle.low, oracle.high), rel=1e-6, abs=1e-9)


@given(SUMMARIES, SUMMARIES)
def test_swapping_the_arms_turns_the_interval_round(arm, base):
    low, high = interval(arm, base)
    assert interval(base, arm) == pytest.approx((-high, -low))
    assert p_value(base, arm) == pytest.approx(p_value(arm, base))


def test_without_any_spread_a_difference_is_certain():
    assert p_value(Summary(2.0, 0.0, 3), Summary(1.0, 0.0, 3)) == 0.0
    assert interval(Summary(2.0, 0.0, 3), Summary(1.0, 0.0, 3)) == (1.0, 1.0)
    assert p_value(Summary(2.0, 0.0, 3), Summary(2.0, 0.0, 3)) == 1.0
    assert runs_needed(Summary(2.0, 0.0, 3), Summary(1.0, 0.0, 3)) == 2


# ------------------------------------------------------------------------------------------------ rounding

ROUNDED = [
    (Summary(92.67, 0.13, 7), Summary(92.57, 0.11, 7)),
    (Summary(93.10, 0.01, 7), Summary(93.06, 0.11, 7)),
    (Summary(83.50, 0.18, 7), Summary(79.90, 0.21, 7)),
    (Summary(64.85, 10.98, 7), Summary(11.07, 2.74, 7)),
    (Summary(75.92, 0.43, 3), Summary(75.60, 0.14, 3)),
    (Summary(75.90, 0.14, 3), Summary(75.60, 0.14, 3)),
    (Summary(1.02, 0.01, 2), Summary(1.00, 0.01, 5)),
]


def rounded(summary: Summary, half: float = 0.005) -> Summary:
    """The same, printed with digits of which the last is worth twice `half`."""
    return replace(summary, half=half, sd_half=half)


def brute_force(arm: Summary, base: Summary, half: float, points: int) -> tuple[float, float]:
    """The extremes of p over a grid of what the four rounded figures can have been."""
    steps = np.linspace(-half, half, points)
    sd, base_sd = np.meshgrid(np.maximum(arm.sd + steps, 0), np.maximum(base.sd + steps, 0))
    found = []
    for shift in np.linspace(-2 * half, 2 * half, 2 * points - 1):  # only the difference of the means counts
        difference = arm.mean - base.mean + shift
        test = stats.ttest_ind_from_stats(difference, sd, arm.n, 0.0, base_sd, base.n, equal_var=False)
        found += [float(test.pvalue.min()), float(test.pvalue.max())]
    return min(found), max(found)


@pytest.mark.parametrize(("arm", "base"), ROUNDED)
def test_the_rounding_range_is_that_of_a_fine_grid(arm, base):
    low, high = p_range(rounded(arm), rounded(base))
    grid_low, grid_high = brute_force(arm, base, 0.005, 41)
    assert low <= grid_low * (1 + 1e-9)
    assert low == pytest.approx(grid_low, rel=2e-3)
    assert high >= grid_high * (1 - 1e-9)
    assert high == pytest.approx(grid_high, rel=2e-3)


@settings(max_examples=30)
@given(SUMMARIES, SUMMARIES, st.sampled_from([0.005, 0.05]))
def test_no_corner_lies_outside_the_rounding_range(arm, base, half):
    low, high = p_range(rounded(arm, half), rounded(base, half))
    for signs in np.ndindex(2, 2, 2, 2):
        a, b, c, d = (half * (2 * sign - 1) for sign in signs)
        corner = p_value(
            Summary(arm.mean + a, max(arm.sd + b, 0), arm.n), Summary(base.mean + c, max(base.sd + d, 0), base.n)
        )
        assert low * (1 - 1e-7) - 1e-300 <= corner <= high * (1 + 1e-7)
    assert low * (1 - 1e-7) <= p_value(arm, base) <= high * (1 + 1e-7)


def test_the_extremes_are_not_always_in_a_corner():
    arm, base = Summary(83.50, 0.18, 7), Summary(79.90, 0.21, 7)
    corners = [
        p_value(Summary(arm.mean + 0.01, arm.sd + a, 7), Summary(base.mean, base.sd + b, 7))
        for a in (-0.005, 0.005)
        for b in (-0.005, 0.005)
    ]
    assert p_range(rounded(arm), rounded(base))[0] < 0.995 * min(corners)


def test_a_difference_that_rounding_can_undo_has_a_p_of_up_to_one():
    arm, base = Summary(92.44, 0.23, 7), Summary(92.43, 0.23, 7)
    assert p_range(rounded(arm), rounded(base))[1] == 1.0
    assert p_range(rounded(arm, 0.0005), rounded(base, 0.0005))[1] < 1.0
    assert p_range(arm, base) == (p_value(arm, base), p_value(arm, base))


def test_figures_of_different_precision_have_their_own_rounding():
    arm, base = Summary(94.16, 0.10, 3), Summary(94.1, 0.10, 3)
    narrow, wide = (p_range(rounded(arm), rounded(base, half)) for half in (0.005, 0.05))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


# ------------------------------------------------------------------------------------------------ power


@pytest.mark.parametrize(("effect", "runs"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_runs_needed_are_cohens(effect, runs):
    """Cohen 1988, Table 2.4.1: two-sided 5 %, 80 % power (his 393 for d = 0.2 is the normal approximation's)."""
    assert runs_needed(Summary(effect, 1.0, 7), Summary(0.0, 1.0, 7)) == runs


@given(st.floats(0.1, 30), st.floats(0.1, 5), st.floats(0.1, 5))
def test_runs_needed_are_the_fewest(difference, sd, base_sd):
    runs = runs_needed(Summary(difference, sd, 3), Summary(0.0, base_sd, 3))
    assert runs is not None
    assert power(difference, sd, base_sd, runs) >= 0.8
    assert runs == 2 or power(difference, sd, base_sd, runs - 1) < 0.8


def power(difference: float, sd: float, base_sd: float, n: int) -> float:
    """Of Welch's test, from the noncentral distribution's definition: a normal over the root of a chi-square."""
    error = math.hypot(sd, base_sd) / math.sqrt(n)
    degrees = (sd**2 + base_sd**2) ** 2 * (n - 1) / (sd**4 + base_sd**4)
    critical = stats.t.ppf(0.975, degrees)
    at = stats.chi2(degrees).ppf((np.arange(20_000) + 0.5) / 20_000)  # equal shares of the chi-square
    bound = critical * np.sqrt(at / degrees)
    shift = difference / error
    return float((stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)).mean())


def test_equal_means_never_differ():
    assert runs_needed(Summary(1.0, 1.0, 3), Summary(1.0, 2.0, 3)) is None


@given(st.floats(0.01, 50), st.integers(2, 9), st.integers(2, 9), st.sampled_from([0.05, 0.05 / 36]))
def test_at_the_sd_bound_p_is_the_level(difference, n, base_n, level):
    sd = sd_bound(difference, n, base_n, level)
    assert p_value(Summary(difference, sd, n), Summary(0.0, sd, base_n)) == pytest.approx(level, rel=1e-6)
    assert sd_bound(-difference, n, base_n, level) == sd


def test_the_sd_bound_of_three_runs_by_hand():
    """t(0.975, 4) = 2.776445; the error of a difference of two means of 3 is sd sqrt(2/3)."""
    assert sd_bound(5.46, 3, 3) == pytest.approx(5.46 / (2.776445 * math.sqrt(2 / 3)), rel=1e-6)


# ------------------------------------------------------------------------------------------------ Holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(P_VALUES)
def test_holm_raises_no_further_than_bonferroni_and_keeps_the_order(values):
    adjusted, raw = holm(values), np.array(values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * len(raw), 1.0)).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_follows_its_values_when_they_are_shuffled(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert holm([values[at] for at in order]) == pytest.approx(holm(values)[order])


@given(P_VALUES, st.data())
def test_holm_rises_with_every_p(values, data):
    """So the least and the largest p of each comparison bound every corrected p."""
    raised = [data.draw(st.floats(value, 1)) for value in values]
    assert (holm(raised) >= holm(values) - 1e-15).all()
