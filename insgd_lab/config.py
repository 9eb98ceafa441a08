"""What to run: `RunSpec`, one training run, and `StudySpec`, a study file; both validated without torch.

A study file is TOML. It is checked as a whole before anything runs, and every mistake in it is reported at
once with its dotted path, its value and the remedy:

    study = load_study("digits")              # packaged with insgd_lab, or the path of a .toml file
    study.arm[0].optimizer                    # NamedSpec(name="insgd-lp", options={"p": 2, "lr": 0.1})

    study.toml: 2 problems
      arm.insgd.optimizer.betta = 0.9: unknown option of insgd-lp 'betta'; did you mean 'beta'?
      train.epochs = "8": expected an integer; write 8 without quotes

A run is named by the hash of its canonical form, in which everything that equals its default is left out: an
explicitly written default changes nothing.
"""

from __future__ import annotations

import importlib.resources
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from insgd_lab import hyperparameters, registry, store

__all__ = [
    "ArmSpec",
    "ConfigError",
    "NamedSpec",
    "Problem",
    "RecordSpec",
    "RunSpec",
    "ScheduleSpec",
    "StudySpec",
    "TaskSpec",
    "TrainSpec",
    "list_studies",
    "load_study",
    "parse_run",
    "parse_study",
    "read_toml",
]

_Model = TypeVar("_Model", bound=BaseModel)

GRIDS = ("full", "one-at-a-time", "zip")
_LATER_GRIDS = ("random",)


# ---------------------------------------------------------------------------------------------- problems


@dataclass(frozen=True)
class Problem:
    """One mistake: where (keys from the top), what was given, and what to do instead."""

    path: tuple[str | int, ...]
    value: Any
    message: str

    def __str__(self) -> str:
        where = ".".join(str(key) for key in self.path) + _shown(self.value)
        return f"{where}: {self.message}" if where else self.message


class _Missing:
    """Stands for the value of a key that is not there."""


def _shown(value: Any) -> str:
    if isinstance(value, _Missing):
        return ""
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return " = " + (text if len(text) <= 60 else text[:57] + "...")


class ConfigError(ValueError):
    """A study or run that cannot be; `problems` lists every mistake found in it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{source}: {count}", *map(str, problems)]))


class _ProblemsError(ValueError):
    """Carries several problems through one pydantic validator; their paths are relative to it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(map(str, self.problems)))


def _raise_if_any(problems: Sequence[Problem]) -> None:
    if problems:
        raise _ProblemsError(problems)


def _unknown(name: str, known: Iterable[str], what: str) -> str:
    """Return what is wrong with `name`, which is not among the `known` ones, and the nearest of them."""
    try:
        registry.check_known(name, known, what)
    except registry.UnknownName as error:
        return str(error)
    raise AssertionError(f"{name} is known")


def _problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    found: list[Problem] = []
    for item in error.errors(include_url=False):
        path = tuple(item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, _ProblemsError):
            found += [Problem(path + p.path, p.value, p.message) for p in cause.problems]
        elif item["type"] == "missing":
            found.append(Problem(path, _Missing(), "is required and missing"))
        elif item["type"] == "extra_forbidden":
            message = _unknown(str(path[-1]), _fields_at(model, path[:-1]), "key")
            found.append(Problem(path, item["input"], message))
        else:
            found.append(Problem(path, item["input"], _plain_message(item["type"], item["msg"], item["input"])))
    return found


_PLAIN = {
    "string_pattern_mismatch": "expected letters, digits and - _ . +, with a letter or digit first",
    "too_short": "expected at least one entry",
}


def _plain_message(kind: str, message: str, value: Any) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    message = message.removeprefix("Value error, ").replace("Input should be", "expected")
    message = message.replace("a valid ", "a ").replace("a integer", "an integer").replace("a boolean", "true or false")
    if isinstance(value, str) and re.search(r"integer|number|true or false", message):
        message += f"; write {value} without quotes"
    return message


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for key in path:
        if isinstance(key, int):
            continue
        annotation = model.model_fields[key].annotation
        nested = [annotation, *getattr(annotation, "__args__", ())]
        model = next(kind for kind in nested if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)


# ------------------------------------------------------------------------------------- names and options


class _Entry(Protocol):
    """What the registry says of an optimizer, a model or a data set."""

    @property
    def name(self) -> str: ...
    @property
    def defaults(self) -> Mapping[str, Any]: ...
    @property
    def revision(self) -> int: ...


_LOOKUP: Mapping[str, Callable[[str], _Entry]] = {
    "optimizer": registry.get_optimizer,
    "model": registry.get_model,
    "data": registry.get_data,
}

_TASK_DOMAINS: Mapping[str, hyperparameters.Domain] = {
    "fraction": hyperparameters.Domain(lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    "dropout": hyperparameters.Domain(lambda x: 0 <= x < 1, "a number from 0 to below 1"),
    "hidden": hyperparameters.Domain(lambda x: bool(x) and min(x) >= 1, "widths of at least 1"),
}


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedSpec(_Spec):
    """A name of the registry and the options that differ from its defaults.

    In TOML either `"digits-cnn"` or `{ name = "digits-cnn", batch_norm = true }`.
    """

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and not set(value) <= {"name", "options"}:
            return {
                **({"name": value["name"]} if "name" in value else {}),
                "options": {key: item for key, item in value.items() if key != "name"},
            }
        return value

    def changed(self, entry: _Entry) -> dict[str, Any]:
        """Return the options that differ from the defaults of `entry`, in JSON types."""
        return {
            key: store.to_json_value(value)
            for key, value in sorted(self.options.items())
            if key not in entry.defaults or value != _jsonable(entry.defaults[key])
        }

    def canonical(self, kind: str) -> dict[str, Any]:
        """Return the plain form that is hashed; `kind` is "optimizer", "model" or "data"."""
        entry = _LOOKUP[kind](self.name)
        return {"name": self.name, "options": self.changed(entry), "revision": entry.revision}


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def checked(kind: str, spec: NamedSpec) -> NamedSpec:
    """Return `spec` with its options in the types of their defaults, so that 1 and 1.0 are one learning rate.

    Raises:
        ValueError: an unknown name, or unknown or impossible options, all of them.
    """
    try:
        entry: _Entry = _LOOKUP[kind](spec.name)
    except registry.UnknownName as error:
        raise _ProblemsError([Problem((), spec.name, str(error))]) from None
    options, problems = {}, []
    for name, value in spec.options.items():
        try:
            options[name] = checked_option(kind, entry, name, value)
        except ValueError as error:
            problems.append(Problem((name,), value, str(error)))
    _raise_if_any(problems)
    return NamedSpec(name=spec.name, options=options)


def checked_option(kind: str, entry: _Entry, name: str, value: Any) -> Any:
    """Return the value of one option in the type of its default.

    Raises:
        ValueError: the option is unknown or the value impossible.
    """
    if name not in entry.defaults:
        raise ValueError(_unknown(name, entry.defaults, f"option of {entry.name}"))
    value = _like(value, entry.defaults[name], number=kind == "optimizer")
    domain = (hyperparameters.DOMAINS if kind == "optimizer" else _TASK_DOMAINS).get(name)
    if domain is not None and not domain.accepts(value):
        raise ValueError(f"expected {domain.expected}")
    return value


def _like(value: Any, default: Any, *, number: bool) -> Any:
    """Return `value` in the type of `default`; `number` lets a fraction stand where the default is whole."""
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("expected a number, got nan")
    if isinstance(default, bool):
        return _of_type(value, bool, "true or false")
    if isinstance(default, int):
        if isinstance(value, float) and (value.is_integer() or number):
            return int(value) if value.is_integer() else value
        return _of_type(value, int, f"a whole number, such as {default}")
    if isinstance(default, float):
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        return _of_type(value, float, f"a number, such as {default}")
    if isinstance(default, str):
        return _of_type(value, str, f'a text, such as "{default}"')
    if isinstance(default, (list, tuple)):
        return _like_sequence(value, default, number=number)
    if default is None and number and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _of_type(value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"expected {expected}")
    return value


def _like_sequence(value: Any, default: Sequence[Any], *, number: bool) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list, such as {list(default)}")
    if isinstance(default, tuple) and len(value) != len(default):
        raise ValueError(f"expected {len(default)} values, such as {list(default)}")
    return [_like(item, default[0], number=number) for item in value] if default else list(value)


# -------------------------------------------------------------------------------------------- one run


class TaskSpec(_Spec):
    """What is learned: the data and the model."""

    data: NamedSpec
    model: NamedSpec

    @field_validator("data", "model")
    @classmethod
    def _known(cls, value: NamedSpec, info: ValidationInfo) -> NamedSpec:
        return checked(str(info.field_name), value)


class ScheduleSpec(_Spec):
    """How the learning rate changes: not at all, or times `gamma` after each of the milestones (epochs)."""

    name: Literal["constant", "multi-step"] = "constant"
    milestones: list[Annotated[int, Field(ge=1)]] = []
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name == "constant" and (self.milestones or self.gamma != 0.1):
            raise _ProblemsError([Problem((), self.name, 'takes no options; did you mean name = "multi-step"?')])
        if self.name == "multi-step" and not self.milestones:
            raise _ProblemsError([Problem(("milestones",), _Missing(), "is required, such as [60, 120]")])
        if self.milestones != sorted(set(self.milestones)):
            raise _ProblemsError([Problem(("milestones",), self.milestones, "expected epochs in rising order")])
        return self


class TrainSpec(_Spec):
    """How long and in which batches; `augment` crops with 4 pixels of padding and flips horizontally."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 128
    augment: bool = False
    eval_every: Annotated[int, Field(ge=1)] = 1
    eval_batch_size: Annotated[int, Field(ge=1)] = 1000
    schedule: ScheduleSpec = ScheduleSpec()

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        late = [m for m in self.schedule.milestones if m >= self.epochs]
        _raise_if_any(
            [Problem(("schedule", "milestones"), m, f"must lie before the last epoch, {self.epochs}") for m in late]
        )
        return self


class RecordSpec(_Spec):
    """What is watched: layer quantities at every `every`-th step; 0 watches nothing."""

    every: Annotated[int, Field(ge=0)] = 10


class _WithPlugins(_Spec):
    plugins: list[str] = []

    @field_validator("plugins")
    @classmethod
    def _loaded(cls, value: list[str]) -> list[str]:
        """Import the plugins; being the first field, before anything is looked up that they may register."""
        try:
            registry.load_plugins(value)
        except ImportError as error:
            raise ValueError(str(error)) from None
        return value


class RunSpec(_WithPlugins):
    """One training run, complete: same spec, same numbers. Plugins are listed but not part of its name."""

    task: TaskSpec
    train: TrainSpec
    record: RecordSpec = RecordSpec()
    optimizer: NamedSpec
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @field_validator("optimizer")
    @classmethod
    def _known(cls, value: NamedSpec) -> NamedSpec:
        spec = checked("optimizer", value)
        try:
            defaults = registry.get_optimizer(spec.name).defaults
            hyperparameters.check_together(spec.name, {**defaults, **spec.options})
        except ValueError as error:
            raise _ProblemsError([Problem((), _Missing(), str(error))]) from None
        return spec

    def canonical(self) -> dict[str, Any]:
        """Return the run in plain JSON types: defaults left out, revisions and the seed in."""
        plain = {
            "task": {"data": self.task.data.canonical("data"), "model": self.task.model.canonical("model")},
            "train": self.train.model_dump(exclude_defaults=True),
            "optimizer": self.optimizer.canonical("optimizer"),
            "seed": self.seed,
        }
        record = self.record.model_dump(exclude_defaults=True)
        result: dict[str, Any] = store.to_json_value({**plain, **({"record": record} if record else {})})
        return result

    @cached_property
    def id(self) -> str:
        """The run's name: the hash of `canonical()`."""
        return store.run_id(self.canonical())

    @classmethod
    def from_canonical(cls, canonical: Mapping[str, Any], plugins: Sequence[str] = ()) -> RunSpec:
        """Undo `canonical`; revisions are those of the registry now, so the id tells if they changed."""
        plain = store.from_json_value(store.to_json_value(canonical))
        for named in (plain["optimizer"], plain["task"]["data"], plain["task"]["model"]):
            named.pop("revision", None)
        return cls.model_validate({**plain, "plugins": list(plugins)})


def parse_run(raw: Mapping[str, Any], source: str = "run", plugins: Sequence[str] = ()) -> RunSpec:
    """Check one run given as the tables of its TOML: a study's, with `optimizer` and `seed` for the arms.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    return _validated(RunSpec, raw, source, plugins)


# -------------------------------------------------------------------------------------------- a study


_Common = Mapping[str, Any]  # the study's "task" and "train", as far as they are valid
Axis = Annotated[list[Any], Field(min_length=1)]


class ArmSpec(_Spec):
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
            raise ValueError(_unknown(value, GRIDS, "grid"))
        return value

    @field_validator("axes", "tune")
    @classmethod
    def _option_axes(cls, value: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        """Check the axes over the optimizer's options; those over task and training wait for the study."""
        if "optimizer" not in info.data:
            return value
        value, problems = _checked_axes(value, info.data["optimizer"].name)
        _raise_if_any(problems)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _raise_if_any(
            [
                Problem(("tune", path), self.tune[path], "is an axis as well; keep one of the two")
                for path in self.tune
                if path in self.axes
            ]
        )
        lengths = {path: len(levels) for path, levels in self.axes.items()}
        if self.grid == "zip" and len(set(lengths.values())) > 1:
            raise _ProblemsError([Problem(("axes",), lengths, "zip needs axes of equal length")])
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


def _checked_levels(entry: _Entry, path: str, levels: list[Any]) -> tuple[list[Any], list[Problem]]:
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


class CompareSpec(_Spec):
    """Which published table the report puts beside this study's results."""

    paper: str
    table: str


class StudySpec(_WithPlugins):
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
            problems = _problems_of(error, ArmSpec)  # their paths are relative to this field
            arms = []
        else:
            problems = _repeated_names(arms)
        common: _Common = {key: info.data[key] for key in ("task", "train") if key in info.data}
        tables = arms or [arm for arm in value if isinstance(value, list)]
        for k, arm in enumerate(tables):
            found = _axis_problems(arm, common) if isinstance(arm, ArmSpec) else _raw_axis_problems(arm, common)
            problems += [Problem((k, *p.path), p.value, p.message) for p in found]
        _raise_if_any(problems)
        return arms

    def base(self, arm: ArmSpec, path: str) -> Any:
        """Return the value that an axis or tuned option of `arm` has when nothing varies it."""
        return _base(arm, path, {"task": self.task, "train": self.train})

    def run(self, arm: ArmSpec, settings: Mapping[str, Any], seed: int) -> RunSpec:
        """Return the run of `arm` in which each path of `settings` has the given value."""
        optimizer = {key: value for key, value in settings.items() if not key.startswith(("task.", "train."))}
        common: dict[str, Any] = {"task": self.task, "train": self.train}
        for path in settings.keys() - optimizer.keys():
            root = path.split(".")[0]
            common[root] = _overridden(common[root], path, settings[path])
        return RunSpec(
            **common,
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


def _overridden(spec: Any, path: str, value: Any) -> Any:
    """Return `spec`, the task or the training, with the value at `path` ("train.batch_size") replaced.

    Raises:
        ValueError: there is nothing at `path`, or the value is impossible.
    """
    root, *keys = path.split(".")
    plain = spec.model_dump()
    if root == "task":
        if len(keys) != 2 or keys[0] not in plain:
            raise ValueError("expected task.model.OPTION or task.data.OPTION")
        plain[keys[0]]["options"][keys[1]] = value
    else:
        if len(keys) != 1 or keys[0] not in plain:
            raise ValueError(_unknown(".".join(keys), plain, f"key of {root}"))
        plain[keys[0]] = value
    try:
        return type(spec).model_validate(plain)
    except ValidationError as error:
        raise ValueError("; ".join(p.message for p in _problems_of(error, type(spec)))) from None


def _axis_problems(arm: ArmSpec, common: _Common) -> list[Problem]:
    """What only the study can tell about the axes of a valid arm."""
    problems = _task_axis_problems("axes", arm.axes, common) + _task_axis_problems("tune", arm.tune, common)
    return problems or (_fixed_problems(arm, common) if len(common) == 2 else [])


def _raw_axis_problems(arm: Any, common: _Common) -> list[Problem]:
    """The mistakes in the axes of an arm that has others, so that all are reported at once."""
    problems: list[Problem] = []
    for table in ("axes", "tune"):
        axes = arm.get(table, {}) if isinstance(arm, Mapping) else {}
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
    except _ProblemsError:
        _, problems = _checked_axes(axes, name)
        return [Problem((table, *p.path), p.value, p.message) for p in problems]
    return []


def _task_axis_problems(table: str, axes: Mapping[str, Any], common: _Common) -> list[Problem]:
    problems = []
    for path, levels in axes.items():
        spec = common.get(path.split(".")[0]) if "." in path else None
        for level in levels if spec is not None else ():
            try:
                _overridden(spec, path, level)
            except ValueError as error:
                problems.append(Problem((table, path), level, str(error)))
    return problems


def _base(arm: ArmSpec, path: str, common: _Common) -> Any:
    root, *keys = path.split(".")
    if root == "train":
        return getattr(common["train"], keys[0])
    named: NamedSpec = getattr(common["task"], keys[0]) if root == "task" else arm.optimizer
    entry = _LOOKUP[keys[0] if root == "task" else "optimizer"](named.name)
    option = keys[1] if root == "task" else path
    return named.options.get(option, _jsonable(entry.defaults[option]))


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


# ------------------------------------------------------------------------------------------ reading TOML


def list_studies() -> list[str]:
    """Return the names of the studies packaged with insgd_lab."""
    root = importlib.resources.files("insgd_lab.experiments")
    with importlib.resources.as_file(root) as folder:
        found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.toml"))
        return sorted(name.as_posix() for name in found if name.parts[0] not in ("papers", "results"))


def load_study(name_or_path: str | Path, plugins: Sequence[str] = ()) -> StudySpec:
    """Read and check a study: the path of a .toml file, or the name of a packaged one such as "digits".

    Raises:
        ConfigError: there is no such study, it is not TOML, or it has mistakes (all are listed).
    """
    name = str(name_or_path)
    if name.endswith(".toml"):
        return parse_study(read_toml(name), name, plugins)
    if name not in list_studies():
        message = f"{_unknown(name, list_studies(), 'study')} (a file of your own ends in .toml)"
        raise ConfigError("study", [Problem((), _Missing(), message)])
    resource = importlib.resources.files("insgd_lab.experiments").joinpath(f"{name}.toml")
    with importlib.resources.as_file(resource) as path:
        return parse_study(read_toml(path), name, plugins)


def parse_study(raw: Mapping[str, Any], source: str = "study", plugins: Sequence[str] = ()) -> StudySpec:
    """Check a study given as the tables of its TOML; `source` names it in messages.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    return _validated(StudySpec, raw, source, plugins)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise ConfigError(str(path), [Problem((), _Missing(), f"{reason}; check the path")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [Problem((), _Missing(), f"is not TOML: {error}")]) from None


def _validated(model: type[_Model], raw: Mapping[str, Any], source: str, plugins: Sequence[str]) -> _Model:
    given = raw.get("plugins", [])
    merged = [*given, *(p for p in plugins if p not in given)] if isinstance(given, list) else given
    try:
        return model.model_validate({**raw, "plugins": merged})
    except ValidationError as error:
        problems = [Problem(_named_arms(p.path, raw), p.value, p.message) for p in _problems_of(error, model)]
        raise ConfigError(source, problems) from None


def _named_arms(path: tuple[str | int, ...], raw: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return `path` with the number of an arm replaced by its name, where it has one of its own."""
    match path:
        case ("arm", int(k), *rest):
            arms = raw["arm"]
            name = arms[k].get("name") if isinstance(arms[k], dict) else None
            names = [arm.get("name") for arm in arms if isinstance(arm, dict)]
            return ("arm", name if isinstance(name, str) and names.count(name) == 1 else k, *rest)
    return path
