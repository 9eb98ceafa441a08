"""How laws make optimizers: from parameters, from groups of them or from a whole model, whichever a factory takes.

What it takes is found out once, by calling it with its default options on small layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from insgd_lab.registry import OptimizerSpec, raised_in, resolve_factory
from insgd_lab.testing.problems import Layers

__all__ = ["CannotBuild", "accepted", "build", "takes_groups", "takes_parameters"]


class CannotBuild(ValueError):
    """A factory that makes an optimizer neither of parameters nor of a model, with its default options."""


def build(spec: OptimizerSpec, model: nn.Module, params: Any = None, **options: Any) -> torch.optim.Optimizer:
    """The rule over a model, or over some parameters or groups of it; options it does not have are left out."""
    chosen = {**spec.defaults, **{name: value for name, value in options.items() if name in spec.defaults}}
    if params is not None:
        return _called(spec, params, chosen, model)
    whole = "model" in accepted(spec) and (spec.capabilities.reads_inputs or "parameters" not in accepted(spec))
    return _called(spec, model if whole else list(model.parameters()), chosen, model)


def accepted(spec: OptimizerSpec) -> frozenset[str]:
    """What the factory takes: "model", "parameters", "groups".

    Raises:
        CannotBuild: neither a model nor parameters; the message has what it raised.
    """
    taken, complaints = _probed(_Identified(spec))
    if not taken & {"model", "parameters"}:
        raise CannotBuild(f"{spec.name} cannot be built with its defaults {dict(spec.defaults)}: {complaints}")
    return taken


def takes_parameters(spec: OptimizerSpec) -> str | None:
    """The factory takes a list of parameters."""
    return None if "parameters" in accepted(spec) else "it takes a whole model, not parameters"


def takes_groups(spec: OptimizerSpec) -> str | None:
    """The factory takes a list of parameter groups."""
    if takes_parameters(spec) is None and "groups" not in accepted(spec):
        return "it takes parameters, but no groups of them"
    return takes_parameters(spec)


class _Identified:
    """A spec as a key: alike are those with the same factory, not an equal one, and the same defaults."""

    def __init__(self, spec: OptimizerSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec.factory)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Identified)
            and self.spec.factory is other.spec.factory
            and self.spec.defaults == other.spec.defaults
            and self.spec.capabilities.reads_inputs == other.spec.capabilities.reads_inputs
        )


@lru_cache(maxsize=256)
def _probed(key: _Identified) -> tuple[frozenset[str], str]:
    """What the factory takes, and what it said of the rest."""
    layers, spec = Layers(), key.spec
    params = list(layers.parameters())
    ways = {
        "parameters": ("a list of parameters", params),
        "groups": ("a list of parameter groups", [{"params": params[:2]}, {"params": params[2:]}]),
        "model": ("a model", layers),
    }
    taken, complaints = set(), []
    for way, (words, given) in ways.items():
        try:
            _called(spec, given, spec.defaults, layers)
        except Exception as error:  # a user's factory may raise anything
            where = raised_in(error, resolve_factory(spec.factory))
            complaints.append(f"called with {words} it raised {type(error).__name__}: {error}{where}")
        else:
            taken.add(way)
    return frozenset(taken), "; ".join(complaints)


def _called(spec: OptimizerSpec, given: Any, options: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    # JSON has no tuples.
    chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    if spec.capabilities.reads_inputs and not isinstance(given, nn.Module):
        chosen["model"] = model
    optimizer = resolve_factory(spec.factory)(given, **chosen)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"the factory of {spec.name} made a {type(optimizer).__name__}, no torch.optim.Optimizer")
    return optimizer
