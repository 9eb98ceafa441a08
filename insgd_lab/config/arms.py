"""An arm of a study: an optimizer, what the arm changes of the study's task and training, and what varies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from insgd_lab import registry
from insgd_lab.config.base import Spec
from insgd_lab.config.grids import GRIDS, same
from insgd_lab.config.levels import Axis, Interval
from insgd_lab.config.options import Entry, NamedSpec, checked, checked_option
from insgd_lab.config.problems import Missing, Problem, raise_if_any, unknown

__all__ = ["AXES", "ArmSpec", "checked_axes", "repeated", "tables_of"]

AXES = ("axes", "tune", "search")
"""The tables that hold levels by path."""


class ArmSpec(Spec):
    """One line of the comparison: an optimizer, the axes that vary, and what is tuned at every setting.

    Attributes:
        name: of the arm; letters, digits and - _ . +.
        label: what reports call it; its name unless given.
        optimizer: its name and options.
        task: what this arm changes of the study's task, as tables laid over it.
        train: what it changes of the study's training.
        resources: what its runs ask for otherwise than the study says.
        grid: "full", "one-at-a-time", "zip" or "random".
        samples: cells of a random grid.
        sample_seed: what a random grid is drawn with.
        axes: by path, the levels to vary: an option of the optimizer, task.model.OPTION, task.data.OPTION, train.KEY.
        tune: by path, the levels at each of which every cell runs; or which the study's search tries.
        include: cells beside the grid's; axes that one does not name are at their value outside the axes.
        exclude: cells of the grid that have all values of one of these are left out.
        search: by path, what the study's search tries; without it and `tune`, what the registry recommends.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$")]
    label: str | None = None
    optimizer: NamedSpec
    task: dict[str, Any] = {}
    train: dict[str, Any] = {}
    resources: dict[str, Any] = {}
    grid: str = "full"
    samples: Annotated[Annotated[int, Field(ge=1)] | None, Field(validate_default=True)] = None
    sample_seed: Annotated[int, Field(ge=0)] = 0
    axes: Annotated[dict[str, Axis], Field(validate_default=True)] = {}
    tune: dict[str, Axis] = {}
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    search: dict[str, Axis] | None = None

    @field_validator("optimizer")
    @classmethod
    def _known(cls, value: NamedSpec) -> NamedSpec:
        return checked("optimizer", value)

    @field_validator("grid")
    @classmethod
    def _known_grid(cls, value: str) -> str:
        if value not in GRIDS:
            raise ValueError(unknown(value, GRIDS, "grid"))
        return value

    @field_validator("samples", "sample_seed")
    @classmethod
    def _as_read(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Refuse what only random grids read, and miss what they need."""
        grid = info.data.get("grid")
        if grid == "random" and value is None:
            raise_if_any([Problem((), Missing(), 'is required by grid = "random", such as 20')])
        if grid not in ("random", None) and value:
            raise ValueError('is read by grid = "random" only; leave it out')
        return value

    @field_validator(*AXES)
    @classmethod
    def _possible_levels(cls, value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        """Check the levels of the optimizer's options, and what the grid can do; those over task and training wait."""
        table, name, grid = value or {}, str(info.field_name), info.data.get("grid")
        problems = _unsuited(name, table, grid)
        if name != "axes":
            problems += _twice(table, info.data.get("axes", {}))
        if "optimizer" in info.data and value is not None:
            value, found = checked_axes(value, info.data["optimizer"].name)
            problems += found
        raise_if_any(problems)
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _option_cells(cls, value: list[dict[str, Any]], info: ValidationInfo) -> list[dict[str, Any]]:
        """Check the cells' values as levels of their axes."""
        message = "expected at least one axis with a value"
        problems = [Problem((k,), {}, message) for k, entry in enumerate(value) if not entry]
        if not {"optimizer", "axes"} <= info.data.keys():
            raise_if_any(problems)
            return value
        cells = []
        for k, entry in enumerate(value):
            cell, found = _checked_cell(entry, info.data["axes"], info.data["optimizer"].name)
            cells.append(cell)
            problems += [Problem((k, *p.path), p.value, p.message) for p in found]
        raise_if_any(problems)
        return cells


def _unsuited(name: str, table: Mapping[str, Any], grid: str | None) -> list[Problem]:
    """What the arm's grid cannot do with the levels of its `axes`, `tune` or `search`; nothing without a grid."""
    if grid is None or name == "search":
        return []
    if name == "axes" and grid == "random":
        return [] if table else [Problem((), Missing(), 'is required by grid = "random"')]
    remedy = ', or draw from it with grid = "random"' if name == "axes" else ""
    problems = [
        Problem((path,), levels.model_dump(), f"has no end of values; add steps{remedy}")
        for path, levels in table.items()
        if isinstance(levels, Interval)
    ]
    lengths = {path: len(levels) for path, levels in table.items() if isinstance(levels, list)}
    if name == "axes" and grid == "zip" and len(set(lengths.values())) > 1:
        problems.append(Problem((), lengths, "zip needs axes of equal length"))
    return problems


def _twice(table: Mapping[str, Any], axes: Mapping[str, Any]) -> list[Problem]:
    """Paths that are axes as well."""
    message = "is an axis as well; keep one of the two"
    return [Problem((path,), levels, message) for path, levels in table.items() if path in axes]


def tables_of(arm: Any) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """Every table of levels by path in an arm, or in the raw table of one, and where it is; cells as lists of one."""
    get = arm.get if isinstance(arm, Mapping) else lambda name: getattr(arm, name)
    for name in AXES:
        if isinstance(table := get(name), Mapping):
            yield (name,), table
    for name in ("include", "exclude"):
        entries = get(name)
        for k, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, Mapping):
                yield (name, k), {path: [value] for path, value in entry.items()}


def _checked_cell(
    entry: Mapping[str, Any], axes: Mapping[str, Any], optimizer: str
) -> tuple[dict[str, Any], list[Problem]]:
    strange = [path for path in entry if path not in axes]
    if strange:
        return {}, [Problem((path,), entry[path], unknown(path, axes, "axis of this arm")) for path in strange]
    levels, problems = checked_axes({path: [value] for path, value in entry.items()}, optimizer)
    return ({} if problems else {path: level for path, [level] in levels.items()}), problems


def checked_axes(axes: Mapping[str, Any], optimizer: str) -> tuple[dict[str, Any], list[Problem]]:
    """Return the axes, the levels of options in the types of their defaults, and the mistakes in them."""
    entry, result, problems = registry.get_optimizer(optimizer), dict(axes), []
    for path, levels in axes.items():
        if not path.startswith(("task.", "train.")):
            result[path], found = _checked_levels(entry, path, levels)
            problems += found
        problems += repeated(path, result[path])
    return result, problems


def _checked_levels(entry: Entry, path: str, levels: Any) -> tuple[Any, list[Problem]]:
    result: list[Any] = []
    problems: list[Problem] = []
    for level in levels.ends if isinstance(levels, Interval) else levels:
        try:
            result.append(checked_option("optimizer", entry, path, level))
        except ValueError as error:
            given = levels if path not in entry.defaults else level
            given = given.model_dump() if isinstance(given, Interval) else given
            problems.append(Problem((path,), given, str(error)))
            if path not in entry.defaults:  # whatever its levels
                break
    return (levels if problems or isinstance(levels, Interval) else result), problems


def repeated(path: str, levels: Any) -> list[Problem]:
    """The levels that are listed more than once."""
    if isinstance(levels, Interval):
        return []
    if all(isinstance(level, (str, int, float)) for level in levels) and len(set(levels)) == len(levels):
        return []  # at once: lists may be long
    return [
        Problem((path,), level, "is listed twice; keep one")
        for k, level in enumerate(levels)
        if any(same(level, other) and type(level) is type(other) for other in levels[:k])
    ]
