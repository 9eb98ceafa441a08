"""What values the options of optimizers, models and data sets may take: one table, without torch.

An option means the same thing throughout the lab, so its domain is looked up by its name::

    check_option("arm[0].optimizer.lr", -1.0, DOMAINS["lr"])
    # ValueError: arm[0].optimizer.lr = -1.0: expected a finite number >= 0; choose a value in that range

Rules and plugins whose options mean something else bring domains of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DOMAINS", "Domain", "check_option", "check_together"]


@dataclass(frozen=True)
class Domain:
    """The values that an option may take: a test, and the words that say what it asks for."""

    accepts: Callable[[Any], bool]
    expected: str


def _number(value: Any) -> float:
    """A real number as a float; NaN for anything else (a 0-dim tensor counts as its value)."""
    if isinstance(value, bool):
        return math.nan
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, (int, float)) else math.nan


def _interval(low: float, high: float = math.inf, *, open_high: bool = False) -> Domain:
    def accepts(value: Any) -> bool:
        number = _number(value)
        below = number < high if open_high else number <= high
        return math.isfinite(number) and low <= number and below

    if math.isinf(high):
        return Domain(accepts, f"a finite number >= {low:g}")
    return Domain(accepts, f"a number in [{low:g}, {high:g}{')' if open_high else ']'}")


def _choice(*names: str) -> Domain:
    return Domain(lambda value: value in names, "one of " + ", ".join(repr(name) for name in names))


def _optional(domain: Domain) -> Domain:
    return Domain(lambda value: value is None or domain.accepts(value), domain.expected)


def _pair(domain: Domain) -> Domain:
    def accepts(value: Any) -> bool:
        return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(domain.accepts, value))

    return Domain(accepts, f"a pair, each {domain.expected}")


_flag = Domain(lambda value: isinstance(value, bool), "true or false")
_decay_rate = _interval(0, 1, open_high=True)


def _is_order(value: Any) -> bool:
    return 1 <= _number(value) <= 16 or _number(value) == math.inf


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_widths(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(_number(width) >= 1 for width in value)


def _is_point(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(math.isfinite(_number(x)) for x in value)


def _is_set(value: Any) -> bool:
    """A box or a ball, with its numbers."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    if "ball" in value:
        return 0 < _number(value["ball"]) < math.inf
    box = value.get("box")
    return isinstance(box, (list, tuple)) and len(box) == 2 and _number(box[0]) <= _number(box[1])


_share = Domain(lambda value: 0 < _number(value) < 1, "a number above 0 and below 1")
_count = Domain(_is_count, "a whole number >= 1")

DOMAINS: Mapping[str, Domain] = {
    "lr": _interval(0),
    "p": Domain(_is_order, "a number in [1, 16], or inf"),
    "beta": _decay_rate,
    "betas": _pair(_decay_rate),
    "gamma": _decay_rate,
    "eps": _optional(_interval(0)),
    "damping": _choice("log", "additive"),
    "granularity": _choice("layer", "neuron", "channel"),
    "center": _flag,
    "power": _flag,
    "momentum": _interval(0, 1),
    "dampening": _optional(_interval(0, 1)),
    "weight_decay": _interval(0),
    "decoupled": _flag,
    "amsgrad": _flag,
    "scope": _choice("tensor", "global"),
    "correct": _choice("first", "second", "both"),
    "belief": _choice("corrected", "raw"),
    "threshold": _interval(4),
    "trust_coefficient": _interval(0),
    "exclude": _choice("1d", "none"),
    "adanorm": _optional(_decay_rate),
    "project": _optional(Domain(_is_set, "{ box = [low, high] } with low <= high, or { ball = radius } above 0")),
    "decay": _choice("after", "before"),
    "nesterov": _flag,
    "centered": _flag,
    "alpha": _interval(0, 1),
    "rho": _interval(0, 1),
    "lr_decay": _interval(0),
    "initial_accumulator_value": _interval(0),
    "maximize": _flag,
    "fraction": Domain(lambda value: 0 < _number(value) <= 1, "a number above 0 and at most 1"),
    "shots": _optional(_count),
    "imbalance": _choice("none", "exponential", "step"),
    "imbalance_ratio": _interval(1),
    "path": Domain(lambda value: isinstance(value, str), "a folder's path"),
    "size": _count,
    "stream": _flag,
    "val_share": _share,
    "test_share": _share,
    "dropout": _interval(0, 1, open_high=True),
    "hidden": Domain(_are_widths, "a list of widths, each at least 1"),
    "batch_norm": _flag,
    "layer_norm": _flag,
    "width": _count,
    "patch": _count,
    "dim": _count,
    "depth": _count,
    "heads": _count,
    "mlp_dim": _count,
    "stem": _choice("3x3", "7x7"),
    "stem_stride": Domain(lambda value: _is_count(value) and value <= 2, "1 or 2"),
    "bias": _flag,
    "start": Domain(_is_point, "a list of finite numbers, at least one"),
    "dimension": _count,
    "condition": _interval(1),
    "noise": _interval(0),
    "steps": _count,
    "taps": _count,
    "colour": Domain(lambda value: -1 < _number(value) < 1, "a number above -1 and below 1"),
    "snr": Domain(lambda value: _number(value) > -math.inf, "a number of decibels, or inf for no noise"),
    "drift": _interval(0),
    "samples": _count,
    "regressors": _choice("delay-line", "independent"),
    "curvature": Domain(lambda value: 0 < _number(value) < math.inf, "a finite number above 0"),
    "distance": _interval(0),
    "features": _count,
    "examples": _count,
}

PAIRS: Mapping[str, Domain] = {
    **DOMAINS,
    "dimension": Domain(lambda value: _is_count(value) and value % 2 == 0, "an even whole number >= 2"),
}
"""For tasks whose coordinates come in pairs."""

NO_LAYER: Mapping[str, Domain] = {
    **DOMAINS,
    "hidden": Domain(lambda value: value in ([], ()) or _are_widths(value), "a list of widths, each at least 1"),
}
"""For perceptrons that may have no hidden layer."""


def check_option(path: str, value: Any, domain: Domain | None) -> None:
    """Refuse a value outside its domain; ``path`` says where it stands. Without a domain anything passes.

    Raises:
        ValueError: what was given, what was expected, and the remedy.
    """
    if domain is not None and not domain.accepts(value):
        raise ValueError(f"{path} = {value!r}: expected {domain.expected}; choose a value in that range")


def check_together(path: str, options: Mapping[str, Any]) -> None:
    """Refuse options that are possible one by one but not together; ``path`` says where they stand.

    Raises:
        ValueError: what was given, what was expected, and the remedy.
    """
    if {"damping", "eps"} <= options.keys() and options["damping"] == "log" and options["eps"] == 0:
        raise ValueError(f"{path}: eps = 0 with damping = 'log' divides by 0 where P <= 1; give a floor, such as 0.01")
    if {"nesterov", "momentum", "dampening"} <= options.keys():
        _check_nesterov(path, options)


def _check_nesterov(path: str, options: Mapping[str, Any]) -> None:
    if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
        given = f"momentum = {options['momentum']}, dampening = {options['dampening']}"
        raise ValueError(f"{path}: nesterov needs momentum > 0 and dampening = 0, got {given}; set dampening to 0")
