"""An optimizer in words: its chain rule by rule, and its options with their meanings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from insgd_lab.chain import ChainOptimizer, Rule
from insgd_lab.registry import OptimizerSpec, resolve_factory

__all__ = ["RuleText", "meanings", "rules_of"]


@dataclass(frozen=True)
class RuleText:
    """One rule of a chain: its name, its equation, its settings, and whether these leave it nothing to do."""

    name: str
    equation: str
    settings: Mapping[str, Any]
    idle: bool


def rules_of(spec: OptimizerSpec) -> list[RuleText]:
    """The chain that the spec's defaults make, in order; empty for an optimizer that is no chain."""
    if not spec.capabilities.chain:
        return []
    optimizer: ChainOptimizer = resolve_factory(spec.factory)(nn.Linear(1, 1), **spec.defaults)
    group = optimizer.param_groups[0]
    return [
        RuleText(type(rule).__name__, _equation(rule), rule.hyperparameters(), rule.idle(group))
        for rule in optimizer.rules
    ]


def _equation(rule: Rule) -> str:
    return rule.equation or (inspect.getdoc(rule) or "").partition("\n")[0]


def meanings(spec: OptimizerSpec) -> dict[str, str]:
    """What the docstring of the factory (and of its bases) says of each option, under Args."""
    factory = resolve_factory(spec.factory)
    classes = factory.__mro__ if inspect.isclass(factory) else (factory,)
    found: dict[str, str] = {}
    for documented in reversed(classes):
        found |= _arguments(inspect.cleandoc(documented.__doc__ or ""))
    return {option: found[option] for option in spec.defaults if option in found}


def _arguments(doc: str) -> dict[str, str]:
    """The entries of a docstring's Args section, each on one line."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "").rstrip(".") for name, text in entries}
