import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from insgd_lab.analysis.statistics import holm, holm_together

from .samples import statsmodels

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_holms_own_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@budget(max_examples=5)  # theirs collects garbage at every call, half a second of it
@given(probabilities)
def test_agrees_with_statsmodels(values):
    expected = statsmodels("stats.multitest").multipletests(values, method="holm")[1]
    np.testing.assert_allclose(holm(values), expected)


@given(probabilities, st.randoms())
def test_between_p_and_bonferroni_and_every_order_is_the_same(values, random):
    adjusted = holm(values)
    assert (adjusted >= values).all()
    assert (adjusted <= np.minimum(1, len(values) * np.array(values))).all()
    order = random.sample(range(len(values)), len(values))
    assert holm([values[k] for k in order]).tolist() == adjusted[order].tolist()


@given(probabilities, st.integers(0, 20))
def test_what_was_not_tested_is_not_counted(values, place):
    place = min(place, len(values))
    found = holm([*values[:place], np.nan, *values[place:]])
    assert np.isnan(found[place])
    assert np.delete(found, place).tolist() == holm(values).tolist()


@given(st.lists(probabilities, min_size=1, max_size=4))
def test_lists_are_corrected_as_one_and_a_further_list_lowers_none(lists):
    found = holm_together(*lists)
    assert [len(part) for part in found] == [len(part) for part in lists]
    np.testing.assert_array_equal(np.concatenate(found), holm(np.concatenate(lists)))
    for before, after in zip(holm_together(*lists[:-1]) if lists[1:] else [], found, strict=False):
        assert (after >= before).all()


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.1, wrong])
    assert len(holm([])) == 0
