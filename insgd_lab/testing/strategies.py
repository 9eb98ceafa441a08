"""Hypothesis strategies from which laws draw their cases: numbers, names and options, all of them plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from insgd_lab.registry import OptimizerSpec

__all__ = ["dtypes", "factors", "gradient_sizes", "options", "rates", "seeds", "steps", "usual"]

seeds = st.integers(0, 2**16)
"""From which weights, gradients and inputs derive."""

steps = st.integers(1, 6)
"""How many steps to take."""

rates = st.sampled_from([0.5, 0.1, 0.01])
"""Learning rates."""

factors = st.sampled_from([2.0, 0.5, 1e3, 1e-3, 7.0])
"""By which something is scaled."""

gradient_sizes = st.sampled_from([1.0, 0.0, 1e-30, -1e30, 1e30])
"""Gradients that overflow or vanish when they are squared in float32."""

dtypes = st.sampled_from(["float64", "float32", "bfloat16"])
"""Names of torch's types."""

_VALUES: Mapping[str, tuple[Any, ...]] = {
    "weight_decay": (0.0, 0.1),
    "betas": ([0.9, 0.999], [0.5, 0.7], [0.0, 0.9]),
    "eps": (1e-8, 0.1),
    "gamma": (0.95, 0.5),
    "beta": (0.9, 0.0),
    "granularity": ("layer", "neuron", "channel"),
    "maximize": (False, True),
}
"""Values worth trying of options that mean the same in every rule that has them; the simplest comes first.

A case names those that differ from the rule's default."""

_MOMENTA: tuple[dict[str, Any], ...] = (
    {"momentum": 0.0},
    {"momentum": 0.5},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.5, "dampening": 0.0, "nesterov": True},
)
"""Momentum and what goes with it."""


def options(spec: OptimizerSpec, *names: str, **values: tuple[Any, ...]) -> SearchStrategy[dict[str, Any]]:
    """Settings of those of the named options that the rule has; what is left out keeps its default.

    Args:
        spec: the rule.
        *names: options of the kit's own table (``weight_decay``, ``betas``, …); "momentum" stands for momentum,
            dampening and Nesterov's form together.
        **values: options with values of one's own.
    """
    table = {name: _VALUES[name] for name in names if name != "momentum"} | values
    single = {name: st.sampled_from(choice) for name, choice in table.items() if name in spec.defaults}
    momenta = [choice for choice in _MOMENTA if choice.keys() <= spec.defaults.keys()]
    together = st.sampled_from([{}, *momenta]) if "momentum" in names else st.just({})

    def chosen(plain: dict[str, Any], momentum: dict[str, Any]) -> dict[str, Any]:
        return {**{name: value for name, value in plain.items() if value != _plain(spec.defaults[name])}, **momentum}

    return st.builds(chosen, st.fixed_dictionaries(single), together)


def usual(spec: OptimizerSpec) -> dict[str, SearchStrategy[Any]]:
    """What most laws draw: a seed, a number of steps, weight decay and momentum."""
    return {"seed": seeds, "steps": steps, "options": options(spec, "weight_decay", "momentum")}


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    return list(value) if isinstance(value, tuple) else value
