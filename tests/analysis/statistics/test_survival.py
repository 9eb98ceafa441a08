import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.analysis.statistics import kaplan_meier, log_rank

from .samples import statsmodels

runs = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=9)
FREIREICH = {  # weeks of remission with 6-mercaptopurine and with placebo (Freireich et al., Blood 21, 1963)
    "6-mp": [(6, 1), (6, 1), (6, 1), (6, 0), (7, 1), (9, 0), (10, 1), (10, 0), (11, 0), (13, 1), (16, 1), (17, 0),
             (19, 0), (20, 0), (22, 1), (23, 1), (25, 0), (32, 0), (32, 0), (34, 0), (35, 0)],
    "placebo": [(t, 1) for t in (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)],
}  # fmt: skip


def split(rows):
    return [float(time) for time, _ in rows], [bool(there) for _, there in rows]


def test_the_leukaemia_trial_of_the_textbooks():
    treated, placebo = kaplan_meier(*split(FREIREICH["6-mp"])), kaplan_meier(*split(FREIREICH["placebo"]))
    assert (treated.median, placebo.median) == (23, 8)
    assert 1 - treated.reached[treated.times == 10][0] == pytest.approx(0.753, abs=5e-4)  # Cox and Oakes, table 4.3
    assert (treated.events, treated.runs) == (9, 21)
    assert log_rank(*split(FREIREICH["6-mp"]), *split(FREIREICH["placebo"])) == pytest.approx(4.17e-5, rel=0.01)


@given(runs)
def test_curve_and_median_agree_with_statsmodels(rows):
    survival = statsmodels("duration.survfunc").SurvfuncRight(*split(rows))
    found = kaplan_meier(*split(rows))
    theirs = dict(zip(survival.surv_times, survival.surv_prob, strict=True))
    ours = dict(zip(found.times, 1 - found.reached, strict=True))
    assert {time: ours[time] for time in theirs} == pytest.approx(theirs)
    if found.events and abs(found.reached - 0.5).min() > 1e-9:  # at one half theirs goes to the next step
        expected = survival.quantile(0.5)
        assert found.median == (expected if np.isfinite(expected) else math.inf)


@given(runs, runs)
def test_log_rank_agrees_with_statsmodels(one, other):
    times, reached = zip(*one + other, strict=True)
    group = [0] * len(one) + [1] * len(other)
    p = log_rank(*split(one), *split(other))
    assert 0 <= p <= 1
    try:
        with np.errstate(all="ignore"):
            _, expected = statsmodels("duration.survfunc").survdiff(np.array(times), np.array(reached, int), group)
    except np.linalg.LinAlgError:  # there is nothing to tell them apart by
        expected = 1.0
    assert p == pytest.approx(float(expected), rel=1e-6)
    assert log_rank(*split(other), *split(one)) == pytest.approx(p)


@given(runs, st.randoms())
def test_order_of_runs_changes_no_bit_and_the_band_holds_the_curve(rows, random):
    found = kaplan_meier(*split(rows))
    again = kaplan_meier(*split(random.sample(rows, len(rows))))
    assert repr(again) == repr(found)
    known = ~np.isnan(found.low) & ~np.isnan(found.high)
    assert (found.low[known] <= found.reached[known] + 1e-12).all()
    assert (found.high[known] >= found.reached[known] - 1e-12).all()
    assert (np.diff(found.reached) >= -1e-12).all()
    assert found.median_low <= found.median <= found.median_high


@given(runs, st.sampled_from([0.5, 3.0, 100.0]))
def test_other_units_of_time_scale_medians_and_nothing_else(rows, unit):
    times, reached = split(rows)
    found, scaled = kaplan_meier(times, reached), kaplan_meier([unit * time for time in times], reached)
    assert scaled.median == unit * found.median
    np.testing.assert_array_equal(scaled.reached, found.reached)


def test_band_agrees_with_the_log_log_formula():
    found = kaplan_meier(*split(FREIREICH["6-mp"]))
    k = int(np.flatnonzero(found.times == 10)[0])
    s, variance = 0.7529412, 3 / (21 * 18) + 1 / (17 * 16) + 1 / (15 * 14)  # Greenwood's sum up to week 10
    half = 1.959964 * math.sqrt(variance) / abs(math.log(s))
    assert (1 - found.low[k], 1 - found.high[k]) == pytest.approx((s ** math.exp(-half), s ** math.exp(half)), abs=1e-4)


def test_runs_that_never_get_there_have_no_median():
    found = kaplan_meier([8, 8, 8], [False, False, False])
    assert (found.median, found.median_low, found.events) == (math.inf, math.inf, 0)
    assert log_rank([8, 8], [False, False], [8, 8], [False, False]) == 1
    half = kaplan_meier([3, 8], [True, False])
    assert half.median == 3


def test_leaving_out_those_that_never_got_there_would_flatter():
    times, reached = [2, 3, 10, 10, 10], [True, True, False, False, False]
    assert np.median([2, 3]) < kaplan_meier(times, reached).median == math.inf


@pytest.mark.parametrize(
    ("times", "reached"), [([], []), ([1.0], [True, False]), ([-1.0], [True]), ([math.inf], [False])]
)
def test_impossible_times_are_refused(times, reached):
    with pytest.raises(ValueError, match="expected"):
        kaplan_meier(times, reached)
