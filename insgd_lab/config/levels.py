"""What an axis takes: a list of levels, or a range of numbers.

axes = { p = [1, 2, inf], beta = { range = [0, 0.9], steps = 4 }, lr = { log_range = [1e-3, 1.0], steps = 4 } }

A range with `steps` is a list from here on, evenly spaced with both ends in it. One without is drawn from, by the grid
"random" or by a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, model_serializer

from insgd_lab.config.base import Spec
from insgd_lab.config.problems import Problem, raise_if_any, unknown

__all__ = ["Axis", "Interval", "is_number", "read_levels"]

_KINDS = ("range", "log_range")
_MOST_STEPS = 10_000
_DIGITS = 6  # of a drawn number: finer than any option's effect, short enough to be read
_STEP_DIGITS = 12  # of an evenly spaced one, so that 1e-3 to 1 in four steps holds 0.1 and not 0.09999999999999999


class Interval(Spec):
    """A range of numbers to draw from, evenly or (`log`) evenly in the logarithm; `whole`: whole numbers only."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_serializer
    def _as_written(self) -> dict[str, list[float]]:
        return {"log_range" if self.log else "range": self.ends}

    @property
    def ends(self) -> list[float]:
        """The lowest and the highest value, as the option has them."""
        return [int(end) if self.whole else end for end in (self.low, self.high)]

    def at(self, share: float) -> float:
        """The value at `share` in [0, 1) of the way from the low to the high end; whole ones are equally likely."""
        margin = 0.5 if self.whole else 0.0
        return self.rounded(_between(self.low - margin, self.high + margin, share, log=self.log))

    def rounded(self, value: float) -> float:
        """The value as the option has it: short enough to be read, and within the range."""
        value = math.floor(value + 0.5) if self.whole else _rounded(value, _DIGITS)
        return min(max(value, self.ends[0]), self.ends[1])


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _between(low: float, high: float, share: float, *, log: bool) -> float:
    if not log:
        return low + (high - low) * share
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def read_levels(value: Any) -> list[Any] | Interval:
    """Read what a study file says of an axis.

    Raises:
        ValueError: it is neither a list of levels nor a range.
    """
    if isinstance(value, Interval):
        return value
    if isinstance(value, list):
        if not value:
            raise ValueError("expected at least one entry")
        return value
    if not isinstance(value, Mapping):
        raise ValueError("expected a list of values, or a range such as { range = [0, 1], steps = 5 }")
    raise_if_any(_problems(value))
    [kind] = [key for key in _KINDS if key in value]
    low, high = value[kind]
    interval = Interval(low=float(low), high=float(high), log=kind == "log_range")
    if "steps" not in value:
        return interval
    return _steps(interval, value["steps"], whole=isinstance(low, int) and isinstance(high, int))


def _problems(table: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the table of a range."""
    known = (*_KINDS, "steps")
    problems = [Problem((key,), table[key], unknown(key, known, "key of a range")) for key in table if key not in known]
    kinds = [key for key in _KINDS if key in table]
    if len(kinds) != 1:
        return [*problems, Problem((), dict(table), "expected either range = [low, high] or log_range = [low, high]")]
    [kind] = kinds
    ends, steps = table[kind], table.get("steps", 2)
    if not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)) and ends[0] < ends[1]):
        problems.append(Problem((kind,), ends, "expected two finite numbers, the lower first"))
    elif kind == "log_range" and ends[0] <= 0:
        problems.append(Problem((kind,), ends, "expected numbers above 0, for they are spaced by their logarithms"))
    if not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= _MOST_STEPS:
        problems.append(Problem(("steps",), steps, f"expected a whole number from 2 to {_MOST_STEPS}"))
    return problems


def _steps(interval: Interval, steps: int, *, whole: bool) -> list[Any]:
    """Evenly spaced levels from end to end; whole numbers where the ends are and all levels come out so."""
    inner = [_between(interval.low, interval.high, k / (steps - 1), log=interval.log) for k in range(1, steps - 1)]
    levels = [interval.low, *(_rounded(level, _STEP_DIGITS) for level in inner), interval.high]
    return [int(level) for level in levels] if whole and all(level.is_integer() for level in levels) else levels


Axis = Annotated[Any, BeforeValidator(read_levels)]
"""A list of levels, at least one, or an `Interval`."""
