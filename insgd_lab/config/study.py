"""A study: what is common to all runs, the arms, and the axes along which each arm varies or is tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from insgd_lab import registry
from insgd_lab.config.base import Spec, WithPlugins, validated
from insgd_lab.config.options import LOOKUP, Entry, NamedSpec, checked, checked_option, jsonable
from insgd_lab.config.problems import Problem, ProblemsError, problems_of, raise_if_any, unknown
from insgd_lab.config.run import RecordSpec, RunSpec, TaskSpec, TrainSpec
from insgd_lab.config.schedules import ScheduleSpec

__all__ = ["ArmSpec", "CompareSpec", "StudySpec", "parse_study"]

GRIDS = ("full", "one-at-a-time", "zip")
_LATER_GRIDS = ("random",)
_Common = Mapping[str, Any]  # the study's "task" and "train", as far as they are valid
_SpecT = TypeVar("_SpecT", TaskSpec, TrainSpec)
Axis = Annotated[list[Any], Field(min_length=1)]


class ArmSpec(Spec):
    """One line of the comparison: an optimizer, the axes that vary, and what is tuned at every setting."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$")]
    label: str | None = None
    optimizer: NamedSpec
    grid: str = "full"
    axes: dict[str, Axis] = {}
    tune: dict[str, Axis] = {}

    @field_validator("optimizer")
    @classmethod
    def _known(cls, value: NamedSpec) -> NamedSpec:
        return checked("optimizer", value)

    @field_validator("grid")
    @classmethod
    def _known_grid(cls, value: str) -> str:
        if value in _LATER_GRIDS:
            raise ValueError(f"is not available yet; choose from {', '.join(GRIDS)}")
        if value not in GRIDS:
            raise ValueError(unknown(value, GRIDS, "grid"))
        return value

    @field_validator("axes", "tune")
    @classmethod
    def _option_axes(cls, value: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        """Check the axes over the optimizer's options; those over task and training wait for the study."""
        if "optimizer" not in info.data:
            return value
        value, problems = _checked_axes(value, info.data["optimizer"].name)
        raise_if_any(problems)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_if_any(
            [
                Problem(("tune", path), self.tune[path], "is an axis as well; keep one of the two")
                for path in self.tune
                if path in self.axes
            ]
        )
        lengths = {path: len(levels) for path, levels in self.axes.items()}
        if self.grid == "zip" and len(set(lengths.values())) > 1:
            raise ProblemsError([Problem(("axes",), lengths, "zip needs axes of equal length")])
        return self


def _checked_axes(axes: Mapping[str, Any], optimizer: str) -> tuple[dict[str, list[Any]], list[Problem]]:
    """Return the axes, the levels of options in the types of their defaults, and the mistakes in them."""
    entry, result, problems = registry.get_optimizer(optimizer), dict(axes), []
    for path, levels in axes.items():
        if not path.startswith(("task.", "train.")):
            result[path], found = _checked_levels(entry, path, levels)
            problems += found
        problems += _repeated(path, result[path])
    return result, problems


def _checked_levels(entry: Entry, path: str, levels: list[Any]) -> tuple[list[Any], list[Problem]]:
    result: list[Any] = []
    for level in levels:
        try:
            result.append(checked_option("optimizer", entry, path, level))
        except ValueError as error:
            if path not in entry.defaults:
                return [], [Problem((path,), levels, str(error))]
            return [], [Problem((path,), level, str(error))]
    return result, []


def _repeated(path: str, levels: Sequence[Any]) -> list[Problem]:
    return [
        Problem((path,), level, "is listed twice; keep one")
        for k, level in enumerate(levels)
        if any(level == other and type(level) is type(other) for other in levels[:k])
    ]


def _twice(arm: ArmSpec) -> list[Problem]:
    """Levels that a study file writes in two ways."""
    tables = (("axes", arm.axes), ("tune", arm.tune))
    return [
        Problem((name, *p.path), p.value, p.message)
        for name, table in tables
        for path, levels in table.items()
        for p in _repeated(path, levels)
    ]


class CompareSpec(Spec):
    """Which published table the report puts beside this study's results."""

    paper: str
    table: str


class StudySpec(WithPlugins):
    """A whole study: what is common to all runs, and the arms."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*$")]
    title: str = ""
    description: str = ""
    compare: CompareSpec | None = None
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]]
    task: TaskSpec
    train: TrainSpec
    record: RecordSpec = RecordSpec()
    arm: Annotated[list[ArmSpec], Field(min_length=1)]

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= 10_000:
                raise ValueError("expected a number of seeds from 1 to 10000, or a list of them")
            return list(range(value))
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if not value or len(set(value)) < len(value):
            raise ValueError("expected at least one seed, each once")
        return value

    @field_validator("arm", mode="wrap")
    @classmethod
    def _arms(cls, value: Any, handler: Any, info: ValidationInfo) -> list[ArmSpec]:
        """Check the arms, and beside their own mistakes those that need the study's task and training."""
        try:
            arms: list[ArmSpec] = handler(value)
        except ValidationError as error:
            problems = problems_of(error, ArmSpec)  # their paths are relative to this field
            arms = []
        else:
            problems = _repeated_names(arms)
        common: _Common = {key: info.data[key] for key in ("task", "train") if key in info.data}
        tables = arms or (value if isinstance(value, list) else [])
        for k, arm in enumerate(tables):
            found = _axis_problems(arm, common) if isinstance(arm, ArmSpec) else _raw_axis_problems(arm, common)
            problems += [Problem((k, *p.path), p.value, p.message) for p in found]
        raise_if_any(problems)
        if len(common) == 2:  # else the study is refused, for what is wrong with its task or training
            arms = [_with_plain_levels(arm, common) for arm in arms]
            raise_if_any([Problem((k, *p.path), p.value, p.message) for k, a in enumerate(arms) for p in _twice(a)])
        return arms

    def base(self, arm: ArmSpec, path: str) -> Any:
        """Return the value that an axis or tuned option of `arm` has when nothing varies it."""
        return _base(arm, path, {"task": self.task, "train": self.train})

    def run(self, arm: ArmSpec, settings: Mapping[str, Any], seed: int) -> RunSpec:
        """Return the run of `arm` in which each path of `settings` has the given value.

        Raises:
            ValueError: values that are possible one by one but not together.
        """
        optimizer = {key: value for key, value in settings.items() if not key.startswith(("task.", "train."))}
        overrides = {path: value for path, value in settings.items() if path not in optimizer}
        return RunSpec(
            task=_overridden(self.task, {p: v for p, v in overrides.items() if p.startswith("task.")}),
            train=_overridden(self.train, {p: v for p, v in overrides.items() if p.startswith("train.")}),
            record=self.record,
            optimizer=NamedSpec(name=arm.optimizer.name, options={**arm.optimizer.options, **optimizer}),
            seed=seed,
            plugins=self.plugins,
        )


def _repeated_names(arms: Sequence[ArmSpec]) -> list[Problem]:
    names = [arm.name for arm in arms]
    return [
        Problem((k, "name"), name, "is the name of an earlier arm; names must differ")
        for k, name in enumerate(names)
        if name in names[:k]
    ]


def _overridden(spec: _SpecT, settings: Mapping[str, Any]) -> _SpecT:
    """Return `spec`, the task or the training, with the value at each path ("train.batch_size") replaced.

    Raises:
        ValueError: there is nothing at a path, or the values are impossible.
    """
    plain = spec.model_dump()
    for path, value in settings.items():
        root, *keys = path.split(".")
        if root == "task":
            if len(keys) != 2 or keys[0] not in ("data", "model"):
                raise ValueError("expected task.model.OPTION or task.data.OPTION")
            plain[keys[0]]["options"][keys[1]] = value
        else:
            if len(keys) != 1 or keys[0] not in plain:
                raise ValueError(unknown(".".join(keys), plain, f"key of {root}"))
            if keys[0] == "packing":
                raise ValueError(
                    "cannot vary: it says how runs share a device, and changes no result; set it in [train]"
                )
            plain[keys[0]] = value
    try:
        return type(spec).model_validate(plain)
    except ValidationError as error:
        raise ValueError("; ".join(p.message for p in problems_of(error, type(spec)))) from None


def _with_plain_levels(arm: ArmSpec, common: _Common) -> ArmSpec:
    """Return a valid arm whose levels over task and training read as the values that they stand for."""
    tables = {"axes": arm.axes, "tune": arm.tune}
    return arm.model_copy(
        update={
            name: {path: [_plain_level(arm, path, level, common) for level in levels] for path, levels in table.items()}
            for name, table in tables.items()
        }
    )


def _plain_level(arm: ArmSpec, path: str, level: Any, common: _Common) -> Any:
    root = path.split(".")[0] if "." in path else "optimizer"
    if root not in common:
        return level
    return _base(arm, path, {**common, root: _overridden(common[root], {path: level})})


def _axis_problems(arm: ArmSpec, common: _Common) -> list[Problem]:
    """What only the study can tell about the axes of a valid arm."""
    problems = _task_axis_problems("axes", arm.axes, common) + _task_axis_problems("tune", arm.tune, common)
    return problems or (_fixed_problems(arm, common) if len(common) == 2 else [])


def _raw_axis_problems(arm: Any, common: _Common) -> list[Problem]:
    """The mistakes in the axes of an arm that has others, so that all are reported at once."""
    problems: list[Problem] = []
    for table in ("axes", "tune") if isinstance(arm, Mapping) else ():
        axes = arm.get(table, {})
        if isinstance(axes, Mapping) and all(isinstance(levels, list) for levels in axes.values()):
            problems += _task_axis_problems(table, axes, common) + _unchecked_axis_problems(arm, table, axes)
    return problems


def _unchecked_axis_problems(arm: Mapping[str, Any], table: str, axes: Mapping[str, Any]) -> list[Problem]:
    """What `ArmSpec` left out where the optimizer's own options are wrong but its name is right."""
    try:
        name = NamedSpec.model_validate(arm.get("optimizer")).name
        registry.get_optimizer(name)
    except (ValidationError, registry.UnknownName):
        return []
    try:
        checked("optimizer", NamedSpec.model_validate(arm["optimizer"]))
    except ProblemsError:
        _, problems = _checked_axes(axes, name)
        return [Problem((table, *p.path), p.value, p.message) for p in problems]
    return []


def _task_axis_problems(table: str, axes: Mapping[str, Any], common: _Common) -> list[Problem]:
    problems = []
    for path, levels in axes.items():
        spec = common.get(path.split(".")[0]) if "." in path else None
        if spec is None:
            continue
        for level in levels:
            try:
                _overridden(spec, {path: level})
            except ValueError as error:
                problems.append(Problem((table, path), level, str(error)))
    return problems


def _base(arm: ArmSpec, path: str, common: _Common) -> Any:
    root, *keys = path.split(".")
    if root == "train":
        value = getattr(common["train"], keys[0])
        return value.plain() if isinstance(value, ScheduleSpec) else value
    named: NamedSpec = getattr(common["task"], keys[0]) if root == "task" else arm.optimizer
    entry = LOOKUP[keys[0] if root == "task" else "optimizer"](named.name)
    option = keys[1] if root == "task" else path
    return named.options.get(option, jsonable(entry.defaults[option]))


def _fixed_problems(arm: ArmSpec, common: _Common) -> list[Problem]:
    """A tuned option needs its fixed value in the list; an axis varied alone needs a level to return to."""
    problems = []
    for path, levels in arm.tune.items():
        fixed = _base(arm, path, common)
        if fixed not in levels:
            remedy = f"does not hold {fixed!r}, the value outside tuning; add it, or set {path} to one of these"
            problems.append(Problem(("tune", path), levels, remedy))
    for path, levels in arm.axes.items():
        if arm.grid == "one-at-a-time" and _base(arm, path, common) is None:
            remedy = f"has no value to return to; set {path} in the optimizer's table"
            problems.append(Problem(("axes", path), levels, remedy))
    return problems


def parse_study(raw: Mapping[str, Any], source: str = "study", plugins: Sequence[str] = ()) -> StudySpec:
    """Check a study given as the tables of its TOML; `source` names it in messages.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    return validated(StudySpec, raw, source, plugins)
