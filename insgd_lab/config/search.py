"""How a study tunes its arms: each with the same number of trials, then the winner on fresh seeds.

[search]
trials = 16
final_seeds = 5
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

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
    if isinstance(value, list) or value is None:
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_SEEDS:
        raise ValueError(f"expected a number of seeds from 1 to {_MOST_SEEDS}, or a list of them")
    return list(range(first, first + value))


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
    final_seeds: Seeds | None = None  # before `seeds`, whose check reads them
    seeds: Annotated[Seeds, Field(validate_default=True)] = [_FIRST_SEARCH_SEED]
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

    @field_validator("seeds")
    @classmethod
    def _fresh(cls, value: list[int], info: ValidationInfo) -> list[int]:
        raise_if_any(_overlap(value, info.data.get("final_seeds") or [], "final_seeds"))
        return value

    @field_validator("trials_at_once")
    @classmethod
    def _read(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("method", "optuna") != "optuna" and value != _AT_ONCE:
            raise ValueError('is read by method = "optuna" only; leave it out')
        return value

    def beside(self, study_seeds: list[int]) -> list[Problem]:
        """Return what is wrong with the seeds of the search in a study with these seeds, those of the final runs."""
        if self.final_seeds not in (None, study_seeds):
            message = "are other seeds than the study's own, which are those of the final runs too; keep one of the two"
            return [Problem(("final_seeds",), self.final_seeds, message)]
        found = _overlap(self.seeds, study_seeds, "the final runs' seeds")
        return [Problem(("seeds",), p.value, p.message) for p in found]


def _overlap(seeds: list[int], final: list[int], key: str) -> list[Problem]:
    """What is wrong if seeds of trials are among the `final` ones, which stand under `key`."""
    shared = [seed for seed in seeds if seed in final]
    if not shared:
        return []
    message = f"{shared[0]} is one of {key} too, and a winner is judged on seeds that had no say; take others"
    return [Problem((), seeds, message)]


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
