import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.analysis.statistics import performance_profile

times = st.lists(st.sampled_from([1.0, 2.0, 3.0, 8.0, math.inf]), min_size=3, max_size=3)


def test_dolan_and_mores_profile_by_hand():
    found = performance_profile({"sgd": [10, 40, math.inf, math.inf], "insgd": [20, 20, 90, math.inf]})
    assert found.index.tolist() == [1.0, 2.0]
    assert found["sgd"].tolist() == [0.25, 0.5]  # fastest once, within twice the fastest once more
    assert found["insgd"].tolist() == [0.5, 0.75]  # a task that no arm solves counts for nobody


@given(st.dictionaries(st.sampled_from("abc"), times, min_size=1), st.floats(0.1, 10))
def test_profiles_rise_to_the_share_of_tasks_solved_and_know_no_unit(rows, unit):
    found = performance_profile(rows)
    assert (found.diff().iloc[1:] >= 0).all(axis=None)
    for arm, row in rows.items():
        assert found[arm].iloc[-1] == pytest.approx(np.isfinite(row).mean())
    best = np.array(list(rows.values())).min(axis=0)
    assert found.loc[1.0].sum() >= np.isfinite(best).mean() - 1e-12  # each task solved has a fastest arm
    scaled = performance_profile({arm: [unit * time for time in row] for arm, row in rows.items()})
    assert scaled.iloc[0].tolist() == pytest.approx(found.iloc[0].tolist())


@given(st.dictionaries(st.sampled_from("abc"), times, min_size=2), st.permutations(range(3)))
def test_order_of_tasks_changes_nothing(rows, order):
    again = performance_profile({arm: [row[k] for k in order] for arm, row in rows.items()})
    assert again.equals(performance_profile(rows))


@pytest.mark.parametrize("wrong", [{}, {"a": []}, {"a": [1.0], "b": [1.0, 2.0]}, {"a": [0.0]}, {"a": [math.nan]}])
def test_impossible_times_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        performance_profile(wrong)
