"""Names of the registry with their options, checked against the registry's defaults."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import model_validator

from insgd_lab import registry, store
from insgd_lab.config.base import Spec
from insgd_lab.config.problems import Problem, ProblemsError, raise_if_any, unknown

__all__ = ["LOOKUP", "Entry", "NamedSpec", "checked", "checked_option", "jsonable"]


class Entry(Protocol):
    """What the registry says of an optimizer, a model or a data set."""

    @property
    def name(self) -> str:
        """What it is called in TOML."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Its options and what they are unless set."""

    @property
    def revision(self) -> int:
        """Raised whenever the same options give other numbers."""

    @property
    def domains(self) -> Mapping[str, Any]:
        """By option, the values it may take."""


LOOKUP: Mapping[str, Callable[[str], Entry]] = {
    "optimizer": registry.get_optimizer,
    "model": registry.get_model,
    "data": registry.get_data,
}


class NamedSpec(Spec):
    """A name of the registry and the options that differ from its defaults.

    In TOML either `"digits-cnn"` or `{ name = "digits-cnn", batch_norm = true }`.
    """

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and not set(value) <= {"name", "options"}:
            return {
                **({"name": value["name"]} if "name" in value else {}),
                "options": {key: item for key, item in value.items() if key != "name"},
            }
        return value

    def changed(self, entry: Entry) -> dict[str, Any]:
        """Return the options that differ from the defaults of `entry`, in JSON types."""
        return {
            key: store.to_json_value(value)
            for key, value in sorted(self.options.items())
            if key not in entry.defaults or value != jsonable(entry.defaults[key])
        }

    def canonical(self, kind: str) -> dict[str, Any]:
        """Return the plain form that is hashed; `kind` is "optimizer", "model" or "data"."""
        entry = LOOKUP[kind](self.name)
        return {"name": self.name, "options": self.changed(entry), "revision": entry.revision}


def jsonable(value: Any) -> Any:
    """Return a default as TOML and JSON would give it: tuples as lists."""
    return list(value) if isinstance(value, tuple) else value


def checked(kind: str, spec: NamedSpec) -> NamedSpec:
    """Return `spec` with its options in the types of their defaults, so that 1 and 1.0 are one learning rate.

    Raises:
        ValueError: an unknown name, or unknown or impossible options, all of them.
    """
    try:
        entry: Entry = LOOKUP[kind](spec.name)
    except registry.UnknownName as error:
        raise ProblemsError([Problem((), spec.name, str(error))]) from None
    options, problems = {}, []
    for name, value in spec.options.items():
        try:
            options[name] = checked_option(kind, entry, name, value)
        except ValueError as error:
            problems.append(Problem((name,), value, str(error)))
    raise_if_any(problems)
    return NamedSpec(name=spec.name, options=options)


def checked_option(kind: str, entry: Entry, name: str, value: Any) -> Any:
    """Return the value of one option in the type of its default.

    Raises:
        ValueError: the option is unknown or the value impossible.
    """
    if name not in entry.defaults:
        if name == "adanorm" and isinstance(entry, registry.OptimizerSpec):
            raise ValueError(registry.no_correction(entry))
        raise ValueError(unknown(name, entry.defaults, f"option of {entry.name}"))
    value = _like(value, entry.defaults[name], number=kind == "optimizer")
    domain = entry.domains.get(name)
    if domain is not None and not domain.accepts(value):
        raise ValueError(f"expected {domain.expected}")
    return value


def _like(value: Any, default: Any, *, number: bool) -> Any:
    """Return `value` in the type of `default`; `number` lets a fraction stand where the default is whole."""
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("expected a number, got nan")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(f"expected a number of at most {sys.float_info.max:.2g}")
    if isinstance(default, bool):
        return _of_type(value, bool, "true or false")
    if isinstance(default, int):
        if isinstance(value, float) and (value.is_integer() or number):
            return int(value) if value.is_integer() else value
        return _of_type(value, int, f"a whole number, such as {default}")
    if isinstance(default, float):
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        return _of_type(value, float, f"a number, such as {default}")
    if isinstance(default, str):
        return _of_type(value, str, f'a text, such as "{default}"')
    if isinstance(default, (list, tuple)):
        return _like_sequence(value, default, number=number)
    if default is None and number and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _of_type(value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"expected {expected}")
    return value


def _like_sequence(value: Any, default: Sequence[Any], *, number: bool) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list, such as {list(default)}")
    if isinstance(default, tuple) and len(value) != len(default):
        raise ValueError(f"expected {len(default)} values, such as {list(default)}")
    return [_like(item, default[0], number=number) for item in value] if default else list(value)
