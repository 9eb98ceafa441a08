"""The cells of an arm: which combinations of its axes' levels its grid asks for, with `include` and `exclude`.

Numbers come from `random.Random(seed).random()`, which Python promises to be the same in every version.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from insgd_lab import store
from insgd_lab.config.levels import Interval
from insgd_lab.config.problems import Problem, raise_if_any

if TYPE_CHECKING:
    from insgd_lab.config.arms import ArmSpec

__all__ = ["GRIDS", "Cell", "cells", "drawn", "point", "same"]

GRIDS = ("full", "one-at-a-time", "zip", "random")
_MOST_CELLS = 1_000_000
_DRAWS_A_CELL = 100  # far more than it takes to meet each of a few cells once

Levels = list[Any] | Interval


@dataclass(frozen=True)
class Cell:
    """One setting of an arm's axes; `varied` is the axis moved away from the base, in one-at-a-time grids."""

    settings: Mapping[str, Any]
    varied: str | None = None


def cells(arm: ArmSpec, base: Mapping[str, Any]) -> list[Cell]:
    """Return the settings that the arm asks for, the base cell first where the grid has one.

    Args:
        arm: a valid one.
        base: by axis, the value when nothing varies it.

    Raises:
        ProblemsError: entries of `exclude` or `include` that change nothing, or nothing is left.
    """
    if arm.grid == "random":
        found = _random(arm)
    else:
        _check_size(arm)
        found = [cell for cell in _regular(arm, base) if not _excluded(arm, cell.settings)]
    problems = _idle(arm, base)
    for k, entry in enumerate(arm.include):
        settings = {**base, **entry}
        if any(_equal(settings, cell.settings) for cell in found):
            problems.append(Problem(("include", k), dict(entry), "is a cell of the grid already; leave it out"))
        found.append(Cell(settings, _varied(settings, base) if arm.grid == "one-at-a-time" else None))
    if not found and not problems:
        problems.append(Problem(("exclude",), arm.exclude, "leaves no cell; keep some"))
    raise_if_any(problems)
    return found


def _regular(arm: ArmSpec, base: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells of every grid but the random one, before `exclude`."""
    if arm.grid == "one-at-a-time":
        yield Cell(dict(base))
        for path, levels in arm.axes.items():
            yield from (Cell({**base, path: level}, path) for level in levels if not same(level, base[path]))
    elif arm.grid == "zip" and arm.axes:
        yield from (Cell(dict(zip(arm.axes, levels, strict=True))) for levels in zip(*arm.axes.values(), strict=True))
    else:
        product = itertools.product(*arm.axes.values())
        yield from (Cell(dict(zip(arm.axes, levels, strict=True))) for levels in product)


def _check_size(arm: ArmSpec) -> None:
    count = math.prod(map(len, arm.axes.values())) if arm.grid == "full" else 0
    if count > _MOST_CELLS:
        message = f'ask for {count:,} cells; shorten the lists, or draw some with grid = "random"'
        raise_if_any([Problem(("axes",), list(arm.axes), message)])


def same(one: Any, other: Any) -> bool:
    """Whether two levels are one: 1 and 1.0 are, 1 and true are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())


def _matches(entry: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(path in settings and same(value, settings[path]) for path, value in entry.items())


def _excluded(arm: ArmSpec, settings: Mapping[str, Any]) -> bool:
    return any(_matches(entry, settings) for entry in arm.exclude)


def _idle(arm: ArmSpec, base: Mapping[str, Any]) -> list[Problem]:
    """The entries of `exclude` that match no cell of the grid; a random one may not have met a cell by chance."""
    if not arm.exclude:
        return []
    grid = [] if arm.grid == "random" else [cell.settings for cell in _regular(arm, base)]
    return [
        Problem(("exclude", k), dict(entry), "matches no cell of the grid; correct it, or leave it out")
        for k, entry in enumerate(arm.exclude)
        if not (_possible(arm, entry) if arm.grid == "random" else any(_matches(entry, cell) for cell in grid))
    ]


def _possible(arm: ArmSpec, entry: Mapping[str, Any]) -> bool:
    return all(_holds(arm.axes[path], value) for path, value in entry.items())


def _holds(levels: Levels, value: Any) -> bool:
    if isinstance(levels, Interval):
        return bool(levels.low <= value <= levels.high)
    return any(same(level, value) for level in levels)


def _varied(settings: Mapping[str, Any], base: Mapping[str, Any]) -> str | None:
    moved = [path for path, value in settings.items() if not same(value, base[path])]
    return moved[0] if len(moved) == 1 else None


# ------------------------------------------------------------------------------------------------ random


def _random(arm: ArmSpec) -> list[Cell]:
    """Cells drawn evenly from the axes, none twice."""
    assert arm.samples is not None
    generator = random.Random(arm.sample_seed)
    shares = ([generator.random() for _ in arm.axes] for _ in range(_DRAWS_A_CELL * (arm.samples + 10)))
    found = drawn(arm.axes, shares, arm.samples, lambda settings: not _excluded(arm, settings))
    if len(found) < arm.samples:
        message = f'the axes have only {len(found)} different cells to draw; ask for as many, or for grid = "full"'
        raise_if_any([Problem(("samples",), arm.samples, message)])
    return [Cell(settings) for settings in found]


def drawn(
    space: Mapping[str, Levels],
    shares: Iterable[Sequence[float]],
    count: int,
    wanted: Callable[[Mapping[str, Any]], bool] = lambda settings: True,
) -> list[dict[str, Any]]:
    """Return the first `count` different settings of a space that are `wanted`, or fewer where it has no more.

    Args:
        space: by path, a list of levels or a range.
        shares: points of the unit cube, a coordinate in [0, 1) for each path.
        count: how many to find.
        wanted: which settings count.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in shares:
        settings = point(space, one)
        if wanted(settings):
            found.setdefault(store.canonical_json(settings), settings)
        if len(found) == count:
            break
    return list(found.values())


def point(space: Mapping[str, Levels], shares: Sequence[float]) -> dict[str, Any]:
    """Return the settings at a point of the unit cube."""
    return {path: _at(levels, share) for (path, levels), share in zip(space.items(), shares, strict=True)}


def _at(levels: Levels, share: float) -> Any:
    return levels.at(share) if isinstance(levels, Interval) else levels[int(share * len(levels))]
