import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.analysis.ablation import lr_sensitivity, near_best

RATES = [0.001, 0.01, 0.1, 1.0, 10.0]
curves = st.dictionaries(st.integers(-40, 40).map(lambda k: 10 ** (k / 10)), st.integers(0, 90), min_size=2, max_size=8)


def test_a_v_in_the_logarithm_has_its_known_width():
    valley = near_best(RATES, [4, 2, 0, 2, 4], within=1)
    assert (valley.best_rate, valley.open_low, valley.open_high) == (0.1, False, False)
    assert valley.decades == pytest.approx(1.0)  # half a decade to either side
    assert (valley.low, valley.high) == pytest.approx((10**-1.5, 10**-0.5))


def test_the_end_of_what_was_tried_is_said():
    valley = near_best(RATES, [0, 0.5, 1, 5, 9], within=2)
    assert (valley.low, valley.open_low, valley.open_high) == (pytest.approx(0.001), True, False)
    assert valley.high == pytest.approx(10**-0.75)


def test_a_second_valley_beyond_a_ridge_does_not_count():
    assert near_best(RATES, [1, 50, 0, 50, 1], within=2).decades < 0.1


def test_a_valley_ends_at_the_last_rate_before_an_infinite_loss():
    valley = near_best(RATES, [4, 2, 0, np.inf, 2], within=1)
    assert (valley.high, valley.open_high) == (pytest.approx(0.1), False)


@given(curves, st.floats(0.5, 30), st.floats(0.1, 10), st.randoms())
def test_laws(curve, within, unit, random):
    valley = near_best(list(curve), list(curve.values()), within)
    items = random.sample(list(curve.items()), len(curve))
    assert near_best(*map(list, zip(*items, strict=True)), within) == valley
    assert valley.low <= valley.best_rate * (1 + 1e-12)
    assert valley.high >= valley.best_rate * (1 - 1e-12)
    assert near_best(list(curve), list(curve.values()), 2 * within).decades >= valley.decades - 1e-9
    shifted = near_best([unit * rate for rate in curve], [error + 1 for error in curve.values()], within)
    assert shifted.decades == pytest.approx(valley.decades, abs=1e-9)
    assert 0 <= valley.decades <= np.log10(max(curve) / min(curve)) + 1e-9


@pytest.mark.parametrize(
    ("rates", "errors", "within"),
    [([], [], 1), ([0.1], [1, 2], 1), ([0.1, 0.1], [1, 2], 1), ([0.0, 0.1], [1, 2], 1), ([0.1], [np.nan], 1),
     ([0.1, 1.0], [np.inf, np.inf], 1),
     ([0.1], [1], -1)],
)  # fmt: skip
def test_impossible_curves_are_refused(rates, errors, within):
    with pytest.raises(ValueError, match="expected an error for each"):
        near_best(rates, errors, within)


def test_a_study_has_the_valley_of_each_cell(study):
    frame = lr_sensitivity(study, within=3.0).set_index(["arm", "setting"])
    assert len(frame) == len(study.cells)
    key = study.shown_cell("insgd").key
    row = frame.loc[("insgd", key)]
    means = {
        study.tunes[tune]["lr"]: 100 * np.mean(list(study.by_seed("insgd", key, tune, "val_error").values()))
        for tune in study.tunes_of("insgd")
    }
    expected = near_best(list(means), list(means.values()), 3.0)
    assert (row["best_rate"], row["decades"]) == (expected.best_rate, pytest.approx(expected.decades))
    assert row["best_error"] == pytest.approx(min(means.values()))
    assert row["tried_within"] == sum(error <= min(means.values()) + 3 for error in means.values())
    assert row["share"] == pytest.approx(expected.decades / np.log10(max(means) / min(means)))
    assert frame["share"].between(0, 1).all()
