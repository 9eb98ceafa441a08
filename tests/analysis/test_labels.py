import math

import pytest

from insgd_lab.analysis.labels import describe, interval, name_label, number, percent, signed, value_label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9, "0.9"), (1e-4, "1e-4"), (0.01, "0.01"), (3.0, "3"), (128, "128"), (1.5e-8, "1.5e-8"),
        (50000, "50000"), (0.0, "0"), (math.inf, "∞"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_are_compact(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("inf", "∞"), ("layer", "layer"), (True, "yes"), (None, "none"), ([0.9, 0.999], "(0.9, 0.999)"),
     ({"name": "mlp", "batch_norm": False}, "mlp batch norm = no")],
)  # fmt: skip
def test_values_are_readable(value, text):
    assert value_label(value) == text


def test_settings_read_as_mathematics():
    assert describe({"beta": 0.9, "eps": 1e-4, "p": "inf", "weight_decay": 5e-4}) == (
        "β = 0.9, ε = 1e-4, p = ∞, weight decay = 5e-4"
    )
    assert name_label("train.batch_size") == "batch size"


def test_missing_numbers_are_dashes():
    assert percent(math.nan) == signed(math.nan) == interval(math.nan, 1.0) == "–"
    assert interval(1.0, 2.345) == "1.00 to 2.35"
    assert signed(-0.5) == "\N{MINUS SIGN}0.50"


def test_what_rounds_to_nought_has_no_minus():
    assert [signed(value) for value in (-0.004, 0.0, 0.004, -0.006)] == ["+0.00", "+0.00", "+0.00", "−0.01"]
