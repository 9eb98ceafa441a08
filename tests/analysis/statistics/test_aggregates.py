"""Against rliable 1.2.0, recorded: it calls arch with an argument that arch 8 refuses, so it cannot be a dependency.

The numbers below are of its own functions (`aggregate_iqm`, `get_interval_estimates` with 50,000 resamples,
`probability_of_improvement`, `create_performance_profile` with 20,000), with that one argument taken out.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import (
    improvement_over_tasks,
    iqm,
    probability_of_improvement,
    score_profile,
    stratified_bootstrap,
)

from .samples import ERRORS, lists, shuffled

ONE = {
    "a": [0.852, 0.949, 0.872, 0.964, 0.663],
    "b": [0.788, 0.713, 0.872, 0.776, 0.967],
    "c": [0.728, 0.618, 0.816, 0.912, 0.731],
    "d": [0.830, 0.691, 0.694, 0.921, 0.597],
}
OTHER = {
    "a": [0.827, 0.965, 0.799, 0.871, 0.606],
    "b": [0.730, 0.674, 0.833, 0.736, 1.011],
    "c": [0.694, 0.600, 0.743, 0.843, 0.793],
    "d": [0.800, 0.593, 0.671, 0.946, 0.572],
}

tasks = st.dictionaries(st.sampled_from("abcd"), lists(2, 5), min_size=2)


def test_iqm_is_rliables():
    assert iqm(list(ONE.values())) == pytest.approx(0.7978, abs=1e-12)
    assert iqm(list(OTHER.values())) == pytest.approx(0.7629, abs=1e-12)
    assert iqm([1, 2, 3, 100]) == 2.5


@pytest.mark.parametrize(("scores", "low", "high"), [(ONE, 0.7386, 0.8615), (OTHER, 0.6991, 0.8210)])
def test_stratified_bootstrap_is_rliables(scores, low, high):
    found = stratified_bootstrap(scores)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)


def test_improvement_over_tasks_is_rliables():
    found = improvement_over_tasks(ONE, OTHER, resamples=10_000)
    assert found.value == pytest.approx(0.61)
    assert (found.low, found.high) == pytest.approx((0.42, 0.79), abs=0.011)


def test_score_profile_is_rliables():
    found = score_profile(ONE, [0.9, 0.8, 0.7, 0.6], resamples=10_000)
    assert found["threshold"].tolist() == [0.6, 0.7, 0.8, 0.9]
    np.testing.assert_allclose(found["share"], [0.95, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(found["low"], [0.85, 0.6, 0.3, 0.1], atol=0.051)  # shares go in steps of a twentieth
    np.testing.assert_allclose(found["high"], [1, 0.9, 0.7, 0.45], atol=0.051)


def test_seeds_are_drawn_within_tasks():
    far = {"easy": [0.99, 0.98, 0.99], "hard": [0.10, 0.11, 0.12]}
    whole = stratified_bootstrap(far, np.mean)
    assert whole.high - whole.low < 0.02  # drawn from all six alike it would be 0.7 wide


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_interval_over_tasks_covers_where_that_of_a_single_arm_does_not(method):
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        scores = {str(k): rng.normal(k, 1, 5).tolist() for k in range(8)}
        found = stratified_bootstrap(scores, np.mean, resamples=400, method=method)
        hits.append(found.low <= 3.5 <= found.high)
    assert np.mean(hits) > 0.86  # 75 to 88 % is what a single arm has; see the t-interval's test


@budget(max_examples=25)
@given(tasks, st.randoms())
def test_order_of_tasks_and_seeds_changes_no_bit(scores, random):
    again = {task: random.sample(values, len(values)) for task, values in shuffled(scores, random).items()}
    assert stratified_bootstrap(again, resamples=50) == stratified_bootstrap(scores, resamples=50)
    assert improvement_over_tasks(again, scores, resamples=50) == improvement_over_tasks(scores, again, resamples=50)


@budget(max_examples=25)
@given(tasks, st.sampled_from([0.25, 1.0, 2.0]))
def test_shifting_all_scores_shifts_the_aggregate(scores, shift):
    before = stratified_bootstrap(scores, resamples=50)
    after = stratified_bootstrap({task: [v + shift for v in row] for task, row in scores.items()}, resamples=50)
    moved = (before.value + shift, before.low + shift, before.high + shift)
    assert (after.value, after.low, after.high) == pytest.approx(moved)


def test_what_a_bootstrap_is_no_tool_for_is_refused():
    with pytest.raises(ValueError, match="of a single task give the t-interval"):
        stratified_bootstrap({"digits": [0.97, 0.98, 0.99]})
    with pytest.raises(ValueError, match="two runs or more"):
        stratified_bootstrap({"digits": [0.97, 0.98], "cifar10": [0.9]})
    with pytest.raises(ValueError, match="expected the same of both arms"):
        improvement_over_tasks({"a": [1, 2]}, {"b": [1, 2]})
    constant = stratified_bootstrap({"a": [1, 1], "b": [2, 2]}, np.mean, method="BCa")
    assert (constant.low, constant.value, constant.high) == (1.5, 1.5, 1.5)


# ------------------------------------------------------------------------------------------------ two arms, one task


@given(lists(1), lists(1))
def test_improvement_is_mann_and_whitneys_u(treated, control):
    found = probability_of_improvement(treated, control)
    u = stats.mannwhitneyu(treated, control, method="asymptotic").statistic if len(set(treated + control)) > 1 else None
    assert found.value == pytest.approx(0.5 if u is None else u / (len(treated) * len(control)))
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(lists(1), lists(1), st.randoms())
def test_improvement_does_not_know_the_order_and_flips_with_the_arms(treated, control, random):
    found = probability_of_improvement(treated, control)
    assert probability_of_improvement(random.sample(treated, len(treated)), control) == found
    swapped = probability_of_improvement(control, treated)
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx(
        (1 - found.value, 1 - found.high, 1 - found.low), abs=1e-9
    )


@given(lists(1), lists(1), st.integers(-5, 5))
def test_only_ranks_count(treated, control, shift):
    found = probability_of_improvement(treated, control)
    cubed = ([(10 * value) ** 3 + shift for value in arm] for arm in (treated, control))
    assert probability_of_improvement(*cubed) == found


@given(lists(1, 5), st.lists(ERRORS, min_size=1, max_size=5))
def test_a_diverged_run_is_beaten_by_all_others(treated, control):
    assert probability_of_improvement(treated, [-np.inf] * len(control)).value == 1


def test_newcombes_interval_solves_his_equation():
    """Method 5: at either end (value - share)^2 = z^2 variance(share); here written out for m = 4, n = 6."""
    found = probability_of_improvement([3, 5, 7, 9], [1, 2, 4, 6, 8, 10])
    assert found.value == pytest.approx(14 / 24)
    for share in (found.low, found.high):
        bracket = 1 + 4 * (1 - share) / (2 - share) + 4 * share / (1 + share)
        assert (found.value - share) ** 2 == pytest.approx(1.959963985**2 * share * (1 - share) * bracket / 24)


def test_improvement_covers_and_has_a_width_without_overlap():
    rng = np.random.default_rng(0)
    true = stats.norm.cdf(1 / np.sqrt(2))
    found = [probability_of_improvement(rng.normal(1, 1, 5), rng.normal(0, 1, 5)) for _ in range(1000)]
    assert np.mean([one.low <= true <= one.high for one in found]) > 0.93
    apart = probability_of_improvement([4, 5, 6], [1, 2, 3])
    assert (apart.value, apart.high) == (1, 1)
    assert 0.4 < apart.low < 0.7
