"""How settings and numbers read in tables and figures: β = 0.9, ε = 1e-4, p = ∞.

describe({"beta": 0.9, "p": "inf"})    # "β = 0.9, p = ∞"
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

__all__ = [
    "describe",
    "half_up",
    "interval",
    "metric_label",
    "name_label",
    "number",
    "option_name",
    "p_equation",
    "p_text",
    "p_words",
    "percent",
    "signed",
    "value_label",
]

_SYMBOLS = {
    "beta": "β",
    "eps": "ε",
    "gamma": "γ",
    "lr": "learning rate",
    "betas": "(β1, β2)",
}
MISSING = "–"


def name_label(option: str) -> str:
    """The printed name of an option: `beta` is β, `train.batch_size` is "batch size"."""
    last = option.removeprefix("task.").removeprefix("train.")
    return _SYMBOLS.get(last, last.replace("_", " ").replace(".", " "))


def option_name(value: Any) -> str:
    """The name in a spec's `"digits"` or `{"name": "digits", …}`."""
    return str(value.get("name", "?")) if isinstance(value, Mapping) else str(value)


def metric_label(metric: str) -> str:
    """What a column of scores or curves is, with its unit: "test error (%)", "test loss"."""
    words = metric.replace("val_", "validation_").replace("_", " ")
    return f"{words} (%)" if metric.endswith("error") else words


def value_label(value: Any) -> str:
    """A setting's value, compactly: 0.9, 1e-4, ∞, "yes" and "no" for booleans."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(float(value))
    if isinstance(value, str):
        return {"inf": "∞", "-inf": "-∞"}.get(value, value)
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(value_label, value)) + ")"
    if isinstance(value, Mapping):
        rest = {key: item for key, item in value.items() if key != "name"}
        return " ".join(filter(None, [str(value.get("name", "")), describe(rest)]))
    return "none" if value is None else json.dumps(value)


def number(value: float) -> str:
    """Four significant digits without padding: 0.9, 128, 1e-4."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, MISSING)
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def describe(settings: Mapping[str, Any]) -> str:
    """All settings in one line: "β = 0.9, p = ∞"; empty for none."""
    return ", ".join(f"{name_label(name)} = {value_label(value)}" for name, value in settings.items())


def percent(value: float) -> str:
    """A number that is a percentage already, with two decimals."""
    return MISSING if math.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return MISSING if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def interval(low: float, high: float) -> str:
    """An interval of percentages, "1.90 to 2.38"; a dash where there is none."""
    return MISSING if math.isnan(low) or math.isnan(high) else f"{percent(low)} to {percent(high)}"


def p_text(p: float) -> str:
    """A p-value to two decimals, below 0.1 to two digits: 0.25, 0.031, 0.0045, <0.001; halves are rounded up."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else half_up(p, 2 if p >= 0.0995 else 3 if p >= 0.00995 else 4)


def half_up(value: float, decimals: int) -> str:
    """A number with so many decimals; halves go up, so 0.125, which a rank test gives, is 0.13 as one expects."""
    return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def p_equation(p: float) -> str:
    """A p-value by itself: "p = 0.031", "p < 0.001"."""
    return f"p {p_text(p)}".replace("<", "< ") if p < 0.001 else f"p = {p_text(p)}"


def p_words(p: float, corrected: float) -> str:
    """A p-value and what it is corrected to: "p = 0.031, corrected 0.25", "p < 0.001, corrected <0.001"."""
    return f"{p_equation(p)}, corrected {p_text(corrected)}"
