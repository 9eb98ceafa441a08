"""What an update rule can do and what laws it promises to keep: declared in its spec, read by tests and laws.

>>> Capabilities(momentum=True, decay="decoupled", closed_form="adam").reads_inputs
False
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["BOUNDS", "CLOSED_FORMS", "DECAYS", "INVARIANCES", "Capabilities"]

INVARIANCES = (
    "gradient-scale", "gradient-scale-limit", "joint-scale", "input-scale-monotone", "input-free", "least-squares",
    "least-squares-l1",
)  # fmt: skip
"""Scale laws that a rule may promise; `insgd-lab check` says what each means."""

BOUNDS = ("gain-over-eps", "adam-step", "norm-correction", "unbounded-step", "large-gradient-gain")
"""Bounds on its step that a rule may promise."""

CLOSED_FORMS = (
    "sgd", "lars", "lsalr", "nlms", "insgd", "insgd-reference-l1", "insgd-reference-l2", "adam", "diffgrad", "radam",
    "adabelief", "adamw", "adamnorm-reference", "radamnorm-reference", "adagrad", "adadelta", "rmsprop",
)  # fmt: skip
"""Textbook recursions that a rule may claim to follow (:mod:`insgd_lab.testing.closed_forms`)."""

DECAYS = ("coupled", "decoupled")
"""How weight decay may enter."""

_TYPES: Mapping[str, tuple[Any, str]] = {
    "base": ((str, type(None)), "a registered name, or None"),
    "neutral": (Mapping, "a table of options"),
    "decay": ((str, type(None)), "'coupled', 'decoupled' or None"),
    "invariances": (tuple, "a tuple of names"),
    "bounds": (tuple, "a tuple of names"),
    "closed_form": ((str, type(None)), "a name, or None"),
}


@dataclass(frozen=True)
class Capabilities:
    """What a rule can do and what laws it promises to keep; generic tests read these fields.

    Attributes:
        reads_inputs: needs the model, to measure what its layers are fed.
        chain: is a chain of rules, so that its steps can be watched rule by rule.
        base: the rule that ``neutral`` settings turn it into.
        neutral: options under which it equals ``base``.
        decay: how weight decay enters: "coupled", "decoupled", or None.
        momentum: keeps a running mean of past updates.
        invariances: names of the scale laws it promises to keep.
        bounds: names of the bounds on its step that it promises to keep.
        sparse: accepts sparse gradients.
        complex: accepts complex parameters.
        capturable: steps without looking at device values, so that a CUDA graph can hold it.
        correctable: AdaNorm's correction can be put in front of it.
        scalar_gain: without momentum and weight decay, its step is the gradient times one number a tensor (or a
            channel of it).
        closed_form: the textbook recursion that it claims to follow, by its name in
            ``insgd_lab.testing.closed_forms``; its options are passed on.

    Raises:
        TypeError: a field of another type.
        ValueError: a name that no law, decay or recursion has; the nearest is suggested.
    """

    reads_inputs: bool = False
    chain: bool = False
    base: str | None = None
    neutral: Mapping[str, Any] = field(default_factory=dict)
    decay: str | None = None
    momentum: bool = False
    invariances: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    sparse: bool = False
    complex: bool = False
    capturable: bool = False
    correctable: bool = False
    scalar_gain: bool = False
    closed_form: str | None = None

    def __post_init__(self) -> None:
        for field_ in fields(self):
            _check_type(field_.name, getattr(self, field_.name))
        for name in self.invariances:
            _check_name("invariances", name, INVARIANCES)
        for name in self.bounds:
            _check_name("bounds", name, BOUNDS)
        if self.closed_form is not None:
            _check_name("closed_form", self.closed_form, CLOSED_FORMS)
        if self.decay is not None:
            _check_name("decay", self.decay, DECAYS)


def _check_type(name: str, value: Any) -> None:
    kind, expected = _TYPES.get(name, (bool, "True or False"))
    if not isinstance(value, kind):
        raise TypeError(f"Capabilities: {name} = {value!r}: expected {expected}")


def _check_name(field_: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise ValueError(f"Capabilities: {field_} names {name!r}; {hint}")
