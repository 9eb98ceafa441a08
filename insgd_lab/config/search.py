"""How a study tunes its arms: each with the same number of trials, then the winner on fresh seeds.

[search]
trials = 16
final_seeds = 5
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from insgd_lab import registry
from insgd_lab.config.base import Spec
from insgd_lab.config.levels import Interval, is_number, read_levels
from insgd_lab.config.options import NamedSpec, checked_option, jsonable
from insgd_lab.config.problems import Problem, raise_if_any

__all__ = ["SearchSpec", "Seeds", "default_space", "seeds_of"]

Seeds = list[Annotated[int, Field(ge=0, lt=2**32)]]
_FIRST_SEARCH_SEED = 1_000_000  # above every counted final seed, so that more final seeds change no trial
_MOST_SEEDS = 10_000
_AT_ONCE = 4


def seeds_of(value: Any, first: int = 0) -> Any:
    """Return the seeds that a number stands for, counted from `first`; anything else as it is.

    Raises:
        ValueError: the number is no number of seeds.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= _MOST_SEEDS:
            raise ValueError(f"expected a number of seeds from 1 to {_MOST_SEEDS}, or a list of them")
        return list(range(first, first + value))
    return value


class SearchSpec(Spec):
    """The search of a study.

    Attributes:
        trials: settings tried in each arm (in each cell of one with axes).
        method: how they are chosen: "quasi-random", a scrambled Sobol sequence; "random"; or "optuna", whose every
            `trials_at_once` trials learn from those before.
        seed: of the method.
        seeds: of the trials: a number of them, counted from 1,000,000, or a list.
        final_seeds: of the winners' runs: a number, counted from 0, or a list; the study's `seeds` if it is left out.
        metric: the best value of it on the validation split decides: "accuracy", or "loss"; unless given, the accuracy
            where there is one.
        trials_at_once: trials that are chosen together; read by "optuna" only.
    """

    trials: Annotated[int, Field(ge=1, le=100_000)] = 16
    method: Literal["quasi-random", "random", "optuna"] = "quasi-random"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    seeds: Seeds = [_FIRST_SEARCH_SEED]
    final_seeds: Seeds | None = None
    metric: Literal["accuracy", "loss"] | None = None
    trials_at_once: Annotated[int, Field(ge=1)] = _AT_ONCE

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return seeds_of(value, _FIRST_SEARCH_SEED)

    @field_validator("final_seeds", mode="before")
    @classmethod
    def _counted_final(cls, value: Any) -> Any:
        return seeds_of(value)

    @field_validator("seeds", "final_seeds")
    @classmethod
    def _distinct(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("expected at least one seed, each once")
        return value

    @model_validator(mode="after")
    def _fresh(self) -> Self:
        raise_if_any(self.overlap(self.final_seeds or [], "final_seeds"))
        if self.method != "optuna" and self.trials_at_once != _AT_ONCE:
            message = 'is read by method = "optuna" only; leave it out'
            raise_if_any([Problem(("trials_at_once",), self.trials_at_once, message)])
        return self

    def overlap(self, final: list[int], key: str) -> list[Problem]:
        """Return what is wrong if seeds of trials are among the `final` ones, which stand under `key`."""
        shared = [seed for seed in self.seeds if seed in final]
        if not shared:
            return []
        message = f"{shared[0]} is one of {key} too, and a winner is judged on seeds that had no say; take others"
        return [Problem(("seeds",), self.seeds, message)]


def default_space(optimizer: NamedSpec) -> dict[str, Any]:
    """Return what the registry recommends to try of the options that are not set.

    These are lists of values; learning rates are the range from the lowest to the highest.

    Raises:
        ValueError: the registry has something else than values or a range, or values that the option cannot have.
    """
    entry = registry.get_optimizer(optimizer.name)
    space: dict[str, Any] = {}
    for path, values in entry.search.items():
        if path in optimizer.options:
            continue
        levels = read_levels(list(values) if isinstance(values, tuple) else values)
        ends = levels.ends if isinstance(levels, Interval) else levels
        space[path] = [checked_option("optimizer", entry, path, jsonable(level)) for level in ends]
        if isinstance(levels, Interval):
            space[path] = levels
        elif path == "lr" and len(levels) > 1 and all(is_number(level) and level > 0 for level in levels):
            space[path] = Interval(low=min(levels), high=max(levels), log=True)
    return space
