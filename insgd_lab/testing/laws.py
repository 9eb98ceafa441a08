"""All laws, and the way to try them on a rule.

>>> from insgd_lab.testing import laws
>>> [outcome.verdict for outcome in laws.check("sgd", pattern="zero-g*")]
['pass']
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky

from insgd_lab.registry import OptimizerSpec, check_known, get_optimizer
from insgd_lab.testing import (
    bounds,
    declared,
    least_squares,
    neutral,
    order,
    scale,
    state,
    time,
    trajectories,
)  # fmt: skip
from insgd_lab.testing.construction import CannotBuild, accepted
from insgd_lab.testing.law import BadCase, Case, Law, LawBroken

__all__ = [
    "LAWS", "BadCase", "CannotBuild", "Case", "Law", "LawBroken", "Outcome", "check", "find", "get", "outcomes",
    "replay",
]  # fmt: skip

LAWS: tuple[Law, ...] = (
    *state.LAWS, *neutral.LAWS, *scale.LAWS, *bounds.LAWS, *least_squares.LAWS, *order.LAWS, *time.LAWS,
    *declared.LAWS, *trajectories.LAWS,
)  # fmt: skip
"""Every law, in the order in which they are printed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one law on one rule.

    Attributes:
        law: its name.
        verdict: "pass", "fail" or "not applicable".
        detail: what was seen and expected, or why it does not apply.
        case: the smallest case that fails, to be replayed.
    """

    law: str
    verdict: str
    detail: str = ""
    case: Case | None = None


def find(pattern: str) -> list[Law]:
    """The laws whose names match a shell-style pattern.

    Raises:
        UnknownName: none does; near misses are suggested.
    """
    found = [law for law in LAWS if fnmatch.fnmatchcase(law.name, pattern)]
    if not found:
        check_known(pattern, [law.name for law in LAWS], "law")
    return found


def get(name: str) -> Law:
    """The law of that exact name.

    Raises:
        UnknownName: there is none; near misses are suggested.
    """
    check_known(name, [law.name for law in LAWS], "law")
    return next(law for law in LAWS if law.name == name)


def check(
    rule: str | OptimizerSpec, *, pattern: str = "*", examples: int = 20, derandomize: bool = True
) -> list[Outcome]:
    """Try laws on a rule; each failure comes with the smallest case that Hypothesis found.

    Args:
        rule: a registered name, or a spec.
        pattern: shell-style, over the laws' names.
        examples: how many cases to try of each law.
        derandomize: try the same cases every time.

    Raises:
        UnknownName: no such optimizer or law.
        CannotBuild: the rule cannot be made, so there is nothing to try.
    """
    return list(outcomes(rule, pattern=pattern, examples=examples, derandomize=derandomize))


def outcomes(rule: str | OptimizerSpec, *, pattern: str, examples: int, derandomize: bool) -> Iterator[Outcome]:
    """As :func:`check`, one by one, each when it is known."""
    spec = get_optimizer(rule) if isinstance(rule, str) else rule
    chosen = find(pattern)
    accepted(spec)  # said once, not by every law
    for law in chosen:
        reason = law.reason(spec)
        yield Outcome(law.name, "not applicable", reason) if reason else _try(law, spec, examples, derandomize)


def _try(law: Law, spec: OptimizerSpec, examples: int, derandomize: bool) -> Outcome:
    broken: list[tuple[Case, LawBroken]] = []

    @settings(
        max_examples=examples, derandomize=derandomize, database=None, deadline=None, report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink), verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(law.cases(spec))
    def holds(case: Case) -> None:
        try:
            law.hold(spec, case)
        except LawBroken as error:
            broken.append((case, error))
            raise

    try:
        holds()
    except LawBroken:
        case, error = broken[-1]  # Hypothesis ends with the smallest
        return Outcome(law.name, "fail", str(error), case)
    except Flaky:
        case, error = broken[-1]
        return Outcome(law.name, "fail", f"{error} (but not every time: is the rule random?)", case)
    return Outcome(law.name, "pass")


def replay(name: str, rule: str | OptimizerSpec, case: Any) -> Outcome:
    """Try one case of one law.

    Raises:
        BadCase: the case is none of the law's.
        CannotBuild: the rule cannot be made.
    """
    spec = get_optimizer(rule) if isinstance(rule, str) else rule
    law = get(name)
    accepted(spec)
    if reason := law.reason(spec):
        return Outcome(name, "not applicable", reason)
    try:
        law.hold(spec, case)
    except LawBroken as error:
        return Outcome(name, "fail", str(error), case)
    return Outcome(name, "pass")
