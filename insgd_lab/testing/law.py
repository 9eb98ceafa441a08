"""What a law is: a statement, where it holds, cases to try it on, and a judge.

A law reads the optimizer's registered spec (its options and capabilities) and never its name::

    @law(
        "gradients-untouched", "step() leaves p.grad as it was",
        domain="every optimizer", source="torch.optim's contract", draws=lambda spec: {"seed": strategies.seeds},
    )
    def gradients_untouched(spec, case): ...
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from insgd_lab.registry import OptimizerSpec

__all__ = ["BadCase", "Case", "Law", "LawBroken", "Need", "chain", "every", "law", "promises", "reads_inputs", "takes"]

Case = dict[str, Any]
Need = Callable[[OptimizerSpec], str | None]
"""Says why a law does not apply to a rule, or None where it does."""
Draws = Callable[[OptimizerSpec], Mapping[str, SearchStrategy[Any]]]
Judge = Callable[[OptimizerSpec, Case], None]


class LawBroken(AssertionError):
    """A law does not hold: what was seen, and what was expected."""


class BadCase(ValueError):
    """A case that is none of the law's."""


@dataclass(frozen=True)
class Law:
    """One property that optimizers should have.

    Attributes:
        name: as on the command line.
        title: the statement, in one line.
        domain: where it holds, in words.
        source: where it comes from.
        need: see :data:`Need`.
        draws: the ingredients of a case and how to draw them, for a rule.
        judge: raises :class:`LawBroken` where the law does not hold.
    """

    name: str
    title: str
    domain: str
    source: str
    need: Need
    draws: Draws
    judge: Judge

    def reason(self, spec: OptimizerSpec) -> str | None:
        """Why the law does not apply to the rule, or None."""
        return self.need(spec)

    def cases(self, spec: OptimizerSpec) -> SearchStrategy[Case]:
        """Plain dicts that survive JSON; all tensors derive from them."""
        return st.fixed_dictionaries(dict(self.draws(spec)))

    def hold(self, spec: OptimizerSpec, case: Case) -> None:
        """Try one case.

        Raises:
            LawBroken: what was seen and what was expected; an exception of the optimizer breaks the law too.
            BadCase: the case has not this law's keys.
        """
        wanted = set(self.draws(spec))
        if not isinstance(case, dict) or set(case) != wanted:
            raise BadCase(f"law {self.name}: a case is an object with the keys {sorted(wanted)}, got {case!r}")
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                # Gradients are set by hand: that some layer was never run is no news.
                warnings.filterwarnings("ignore", message=".*was not measured")
                torch.manual_seed(0)
                self.judge(spec, case)
        except LawBroken:
            raise
        except Exception as error:
            raise LawBroken(f"it raised {type(error).__name__}: {error}") from error


def law(
    name: str, title: str, *, domain: str, source: str, draws: Draws, need: Need = lambda spec: None
) -> Callable[[Judge], Law]:
    """Decorator: make a law of the function that judges its cases."""
    return lambda judge: Law(name, title, domain, source, need, draws, judge)


# ---------------------------------------------------------------------------------------- where laws apply


def every(*needs: Need) -> Need:
    """All of these; the first that is not met gives the reason."""
    return lambda spec: next((reason for need in needs if (reason := need(spec)) is not None), None)


def takes(*options: str) -> Need:
    """The rule has these options."""

    def need(spec: OptimizerSpec) -> str | None:
        missing = [option for option in options if option not in spec.defaults]
        return f"it has no option {', '.join(missing)}" if missing else None

    return need


def promises(name: str) -> Need:
    """The rule's capabilities name this invariance or bound."""

    def need(spec: OptimizerSpec) -> str | None:
        kept = (*spec.capabilities.invariances, *spec.capabilities.bounds)
        return None if name in kept else f"its capabilities do not promise {name}"

    return need


def chain(spec: OptimizerSpec) -> str | None:
    """The rule is a chain of the lab."""
    return None if spec.capabilities.chain else "it is no chain of rules (capability chain)"


def reads_inputs(spec: OptimizerSpec) -> str | None:
    """The rule measures what layers are fed."""
    return None if spec.capabilities.reads_inputs else "it does not read layers' inputs (capability reads_inputs)"
