"""A study: what is common to all runs, the arms, and the axes along which each arm varies or is tuned."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from insgd_lab import registry, store
from insgd_lab.config.analysis import AnalysisSpec
from insgd_lab.config.arms import AXES, ArmSpec, checked_axes, repeated, tables_of
from insgd_lab.config.base import Spec, WithPlugins, validated
from insgd_lab.config.grids import Cell, cells
from insgd_lab.config.levels import Interval
from insgd_lab.config.merging import merged
from insgd_lab.config.options import LOOKUP, NamedSpec, checked, jsonable
from insgd_lab.config.problems import Missing, Problem, ProblemsError, problems_of, raise_if_any, unknown
from insgd_lab.config.resources import ResourcesSpec, laid_over, resource_problems
from insgd_lab.config.run import RecordSpec, RunSpec, TaskSpec, TrainSpec
from insgd_lab.config.schedules import ScheduleSpec
from insgd_lab.config.search import SearchSpec, Seeds, default_space, seeds_of
from insgd_lab.config.unseen import unseen

__all__ = ["CompareSpec", "StudySpec", "alike", "cell_problem", "parse_study"]

_Common = Mapping[str, Any]  # the "task" and "train" of a study or arm, as far as they are valid
_SpecT = TypeVar("_SpecT", TaskSpec, TrainSpec)
_ROOTS: Mapping[str, type[BaseModel]] = {"task": TaskSpec, "train": TrainSpec}
_DEFAULT_SEEDS = 5
_EXAMPLE = "such as search = { lr = { log_range = [1e-4, 1.0] } }"


class CompareSpec(Spec):
    """Which published table the report puts beside this study's results."""

    paper: str
    table: str


class StudySpec(WithPlugins):
    """A whole study: what is common to all runs, and the arms. `seeds` are those of the final runs if it searches."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*$")]
    title: str = ""
    description: str = ""
    compare: CompareSpec | None = None
    seeds: Seeds
    task: TaskSpec
    train: TrainSpec
    record: RecordSpec = RecordSpec()
    resources: ResourcesSpec = ResourcesSpec()
    search: SearchSpec | None = None
    arm: Annotated[list[ArmSpec], Field(min_length=1)]
    analysis: AnalysisSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _seeds_of_search(cls, value: Any) -> Any:
        """Put the final seeds of a search where a plain study has its seeds."""
        search = value.get("search") if isinstance(value, Mapping) else None
        if not isinstance(search, Mapping) or "seeds" in value:
            return value
        final = search.get("final_seeds")
        try:
            SearchSpec(final_seeds=final)
        except ValidationError as error:
            if any(found["loc"][:1] == ("final_seeds",) for found in error.errors()):  # the search is refused for it
                final = None
        return {**value, "seeds": _DEFAULT_SEEDS if final is None else final}

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return seeds_of(value)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if not value or len(set(value)) < len(value):
            raise ValueError("expected at least one seed, each once")
        return value

    @field_validator("search")
    @classmethod
    def _fresh(cls, value: SearchSpec | None, info: ValidationInfo) -> SearchSpec | None:
        if value is not None:
            raise_if_any(value.beside(info.data["seeds"]) if "seeds" in info.data else [])
        return value

    @field_validator("arm", mode="wrap")
    @classmethod
    def _arms(cls, value: Any, handler: Any, info: ValidationInfo) -> list[ArmSpec]:
        """Check the arms, and beside their own mistakes those that need the study's task and training."""
        arms, problems = _read_arms(value, handler)
        common: _Common = {key: info.data[key] for key in _ROOTS if key in info.data}
        tables = value if isinstance(value, list) else []
        problems += _repeated_names(tables)
        for k, table in enumerate(tables):
            found = resource_problems(table)
            if k in arms:
                arms[k], more = _in_study(arms[k], common, info.data)
            else:
                own, more = _common_of(table, common)
                more = more + _raw_axis_problems(table, own)
            problems += [Problem((k, *p.path), p.value, p.message) for p in found + more]
        raise_if_any(problems)
        return list(arms.values())

    @field_validator("analysis")
    @classmethod
    def _between_arms(cls, value: AnalysisSpec | None, info: ValidationInfo) -> AnalysisSpec | None:
        if value is None or "arm" not in info.data:
            return value
        arms: list[ArmSpec] = info.data["arm"]
        common = {"task": info.data["task"]} if "task" in info.data else {}
        tasks = {arm.name: _common_of(arm, common)[0].get("task") for arm in arms}
        data = {name: registry.get_data(task.data.name) for name, task in tasks.items() if task is not None}
        unlabelled = {name: entry.name for name, entry in data.items() if not entry.labels}
        found = value.primary.problems([arm.name for arm in arms], unlabelled)
        raise_if_any([Problem(("primary", *p.path), p.value, p.message) for p in found])
        return value.model_copy(update={"primary": value.primary.resolved(unlabelled)})

    @model_validator(mode="wrap")
    @classmethod
    def _all_told(cls, value: Any, handler: Any) -> Any:
        """Beside the mistakes that hold up the study, tell those that would only be seen once they are mended."""
        try:
            return handler(value)
        except ValidationError as error:
            problems = problems_of(error, cls)
        raise ProblemsError([*problems, *(unseen(value, problems, handler, cls) if isinstance(value, Mapping) else [])])

    def impossible_cells(self, arms: Sequence[ArmSpec]) -> list[Problem]:
        """Return what is wrong with cells whose values are possible one by one but not together, arm by arm."""
        problems = []
        for arm in arms:
            for cell, tuned in itertools.product(self.cells(arm), self.tuned(arm)):
                settings = {**cell.settings, **tuned}
                try:
                    self.run(arm, settings, seed=0)
                except ValueError as error:
                    problems.append(cell_problem(arm.name, settings, error))
        return alike(problems)

    def tuned(self, arm: ArmSpec) -> list[dict[str, Any]]:
        """Return the settings at each of which every cell of `arm` runs; one without any where a search tries them."""
        tables = {} if self.search is not None else arm.tune
        return [dict(zip(tables, values, strict=True)) for values in itertools.product(*tables.values())]

    @cached_property
    def _commons(self) -> dict[str, _Common]:
        common = {"task": self.task, "train": self.train}
        return {arm.name: _common_of(arm, common)[0] for arm in self.arm}

    @cached_property
    def _cells(self) -> dict[str, list[Cell]]:
        return {arm.name: cells(arm, {path: self.base(arm, path) for path in arm.axes}) for arm in self.arm}

    @cached_property
    def _overridden(self) -> dict[str, Any]:
        return {}

    def task_of(self, arm: ArmSpec) -> TaskSpec:
        """Return what `arm` learns when no axis varies it."""
        task: TaskSpec = self._commons[arm.name]["task"]
        return task

    def train_of(self, arm: ArmSpec) -> TrainSpec:
        """Return how `arm` is trained when no axis varies it."""
        train: TrainSpec = self._commons[arm.name]["train"]
        return train

    def resources_of(self, arm: ArmSpec) -> ResourcesSpec:
        """Return what each run of `arm` asks of the machine that trains it."""
        return laid_over(self.resources, arm.resources)

    def cells(self, arm: ArmSpec) -> list[Cell]:
        """Return the settings that `arm` asks for, the base cell first where its grid has one."""
        return self._cells[arm.name]

    def space(self, arm: ArmSpec) -> dict[str, Any]:
        """Return what the search tries in `arm`: by path, a list of levels or an `Interval`."""
        return _space(arm)

    def base(self, arm: ArmSpec, path: str) -> Any:
        """Return the value that an axis or tuned option of `arm` has when nothing varies it."""
        return _base(arm, path, self._commons[arm.name])

    def run(self, arm: ArmSpec, settings: Mapping[str, Any], seed: int) -> RunSpec:
        """Return the run of `arm` in which each path of `settings` has the given value.

        Raises:
            ValueError: values that are possible one by one but not together.
        """
        optimizer = {key: value for key, value in settings.items() if not key.startswith(("task.", "train."))}
        return RunSpec(
            task=self._varied(arm, "task", settings),
            train=self._varied(arm, "train", settings),
            record=self.record,
            optimizer=NamedSpec(name=arm.optimizer.name, options={**arm.optimizer.options, **optimizer}),
            seed=seed,
            resources=self.resources_of(arm),
            plugins=self.plugins,
        )

    def _varied(self, arm: ArmSpec, root: str, settings: Mapping[str, Any]) -> Any:
        """The task or training of a run; remembered, for a grid comes back to each many times."""
        overrides = {path: value for path, value in settings.items() if path.startswith(f"{root}.")}
        spec = self._commons[arm.name][root]
        if not overrides:
            return spec
        key = store.canonical_json({"arm": arm.name, **overrides})
        if key not in self._overridden:
            self._overridden[key] = _overridden(spec, overrides)
        return self._overridden[key]


def _read_arms(value: Any, handler: Any) -> tuple[dict[int, ArmSpec], list[Problem]]:
    """Return the arms that are valid in themselves, by number, and the mistakes of the others."""
    try:
        return dict(enumerate(handler(value))), []
    except ValidationError as error:
        problems = problems_of(error, ArmSpec)  # their paths are relative to this field
    wrong = {p.path[0] for p in problems if p.path}
    tables = value if isinstance(value, list) else []
    return {k: ArmSpec.model_validate(arm) for k, arm in enumerate(tables) if k not in wrong}, problems


def _repeated_names(arms: Sequence[Any]) -> list[Problem]:
    names = [arm.get("name") if isinstance(arm, Mapping) else getattr(arm, "name", None) for arm in arms]
    return [
        Problem((k, "name"), name, "is the name of an earlier arm; names must differ")
        for k, name in enumerate(names)
        if isinstance(name, str) and name in names[:k]
    ]


def _in_study(arm: ArmSpec, common: _Common, study: Mapping[str, Any]) -> tuple[ArmSpec, list[Problem]]:
    """Return an arm with levels in the types of what they stand for, and what only the study can tell of it."""
    own, problems = _common_of(arm, common)
    problems = problems + _axis_problems(arm, own)
    roots = {path.split(".")[0] for _, table in tables_of(arm) for path in table if "." in path}
    if problems or not roots <= own.keys():  # else the arm waits for what is wrong with its task or training
        return arm, problems
    arm = _with_plain_levels(arm, own)
    return arm, _late_problems(arm, own, study)


def cell_problem(arm: str, settings: Mapping[str, Any], error: ValueError) -> Problem:
    """Return the mistake of a cell that `StudySpec.run` refuses."""
    problems = problems_of(error, RunSpec) if isinstance(error, ValidationError) else []
    message = "; ".join(map(str, problems)) if problems else str(error)
    return Problem(("arm", arm), dict(settings), message)


def alike(problems: Sequence[Problem]) -> list[Problem]:
    """Return one problem for all cells of an arm that have the same one, with the settings of the first."""
    groups: dict[tuple[tuple[str | int, ...], str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.path, problem.message), []).append(problem)
    return [
        Problem(path, found[0].value, message + (f" (and {len(found) - 1} more cells)" if _are_cells(found) else ""))
        for (path, message), found in groups.items()
    ]


def _are_cells(found: Sequence[Problem]) -> bool:
    return len(found) > 1 and found[0].path[:1] == ("arm",)


# ---------------------------------------------------------------------------------- an arm's task and training


def _common_of(arm: Any, common: _Common) -> tuple[_Common, list[Problem]]:
    """Return the task and training of an arm, or of the raw table of one, and what is wrong with its own part.

    A part that is wrong, or whose study's part is, is left out.
    """
    own, problems = dict(common), []
    for root in common:
        over = arm.get(root) if isinstance(arm, Mapping) else getattr(arm, root, None)
        if not isinstance(over, Mapping) or not over:
            continue
        model = _ROOTS[root]
        try:
            own[root] = model.model_validate(merged(_written(common[root]), over))
        except ValidationError as error:
            del own[root]
            problems += [Problem((root, *p.path), p.value, p.message) for p in problems_of(error, model)]
    return own, problems


def _written(spec: TaskSpec | TrainSpec) -> dict[str, Any]:
    """The task or training as a study file would have it."""
    if isinstance(spec, TrainSpec):
        return {**spec.model_dump(exclude={"schedule"}), "schedule": spec.schedule.plain()}
    named = {key: {"name": named.name, **named.options} for key, named in (("data", spec.data), ("model", spec.model))}
    if spec.init_from is None:
        return named
    return {**named, "init_from": spec.init_from.model_dump(exclude={"sha256"})}  # which an arm's own file has not


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


def _base(arm: ArmSpec, path: str, common: _Common) -> Any:
    root, *keys = path.split(".")
    if root == "train":
        value = getattr(common["train"], keys[0])
        return value.plain() if isinstance(value, ScheduleSpec) else value
    named: NamedSpec = getattr(common["task"], keys[0]) if root == "task" else arm.optimizer
    entry = LOOKUP[keys[0] if root == "task" else "optimizer"](named.name)
    option = keys[1] if root == "task" else path
    return named.options.get(option, jsonable(entry.defaults[option]))


# ------------------------------------------------------------------------------------------- levels over both


def _with_plain_levels(arm: ArmSpec, common: _Common) -> ArmSpec:
    """Return a valid arm whose levels over task and training read as the values that they stand for."""
    tables = {name: table for name in AXES if (table := getattr(arm, name)) is not None}
    plain: dict[str, Any] = {
        name: {path: _plain_levels(arm, path, levels, common) for path, levels in table.items()}
        for name, table in tables.items()
    }
    for name in ("include", "exclude"):
        entries = getattr(arm, name)
        plain[name] = [{path: _plain_level(arm, path, v, common) for path, v in entry.items()} for entry in entries]
    return arm.model_copy(update=plain)


def _plain_levels(arm: ArmSpec, path: str, levels: Any, common: _Common) -> Any:
    if not isinstance(levels, Interval):
        return [_plain_level(arm, path, level, common) for level in levels]
    base = _base(arm, path, common)
    whole = "." in path and isinstance(base, int)  # an optimizer's whole numbers have fractions between them
    return levels.model_copy(update={"whole": whole})


def _plain_level(arm: ArmSpec, path: str, level: Any, common: _Common) -> Any:
    root = path.split(".")[0] if "." in path else "optimizer"
    if root not in common:
        return level
    return _base(arm, path, {**common, root: _overridden(common[root], {path: level})})


def _axis_problems(arm: ArmSpec, common: _Common) -> list[Problem]:
    """What only the study can tell about the levels of a valid arm."""
    problems = [p for where, table in tables_of(arm) for p in _task_axis_problems(where, table, common)]
    unknown_paths = {str(p.path[-1]) for p in problems}
    return problems + _fixed_problems(arm, common, unknown_paths)


def _raw_axis_problems(arm: Any, common: _Common) -> list[Problem]:
    """The mistakes in the levels of an arm that has others, so that all are reported at once."""
    problems: list[Problem] = []
    for where, table in tables_of(arm) if isinstance(arm, Mapping) else ():
        lists = {path: levels for path, levels in table.items() if isinstance(levels, list) and levels}
        problems += _task_axis_problems(where, lists, common) + _unchecked_axis_problems(arm, where, lists)
    return problems


def _unchecked_axis_problems(
    arm: Mapping[str, Any], where: tuple[str | int, ...], axes: Mapping[str, Any]
) -> list[Problem]:
    """What `ArmSpec` left out where the optimizer's own options are wrong but its name is right."""
    try:
        name = NamedSpec.model_validate(arm.get("optimizer")).name
        registry.get_optimizer(name)
    except (ValidationError, registry.UnknownName):
        return []
    try:
        checked("optimizer", NamedSpec.model_validate(arm["optimizer"]))
    except ProblemsError:
        _, problems = checked_axes(axes, name)
        return [Problem((*where, *p.path), p.value, p.message) for p in problems]
    return []


def _task_axis_problems(where: tuple[str | int, ...], axes: Mapping[str, Any], common: _Common) -> list[Problem]:
    problems = []
    for path, levels in axes.items():
        spec = common.get(path.split(".")[0]) if "." in path else None
        if spec is None:
            continue
        for level in _whole_ends(levels) if isinstance(levels, Interval) else levels:
            try:
                _overridden(spec, {path: level})
            except ValueError as error:
                problems.append(Problem((*where, path), level, str(error)))
    return problems


def _whole_ends(interval: Interval) -> list[float]:
    """The ends of a range, whole where they can be: an option may ask for that, and none refuses it."""
    return [int(end) if end.is_integer() else end for end in (interval.low, interval.high)]


def _fixed_problems(arm: ArmSpec, common: _Common, but: Collection[str]) -> list[Problem]:
    """A tuned option needs its fixed value in the list; an axis varied alone, or left out, a level to return to.

    Paths in `but`, and those over a task or training that is not known, are passed over.
    """
    problems = []
    known = [path for path in (*arm.tune, *arm.axes) if _is_known(path, common) and path not in but]
    for path, levels in arm.tune.items():
        if path not in known:
            continue
        fixed = _base(arm, path, common)
        if fixed not in levels:
            remedy = f"does not hold {fixed!r}, the value outside tuning; add it, or set {path} to one of these"
            problems.append(Problem(("tune", path), levels, remedy))
    left_out = {path for entry in arm.include for path in arm.axes if path not in entry}
    for path, levels in arm.axes.items():
        if path not in known:
            continue
        if (arm.grid == "one-at-a-time" or path in left_out) and _base(arm, path, common) is None:
            remedy = f"has no value to return to; set {path} in the optimizer's table"
            problems.append(Problem(("axes", path), levels, remedy))
    return problems


def _is_known(path: str, common: _Common) -> bool:
    return "." not in path or path.split(".")[0] in common


def _late_problems(arm: ArmSpec, common: _Common, study: Mapping[str, Any]) -> list[Problem]:
    """What can be told once all levels are plain: those written in two ways, idle cells, and what a search needs."""
    problems = [
        Problem((*where, *p.path), p.value, p.message)
        for where, table in tables_of(arm)
        for path, levels in table.items()
        for p in repeated(path, levels)
    ]
    if not problems:
        try:
            cells(arm, {path: _base(arm, path, common) for path in arm.axes})
        except ProblemsError as error:
            problems = error.problems
    return problems + (_search_problems(arm, study["search"]) if "search" in study else [])


# ----------------------------------------------------------------------------------------------------- search


def _space(arm: ArmSpec) -> dict[str, Any]:
    if arm.search is not None or arm.tune:
        return arm.tune if arm.search is None else arm.search
    return {path: levels for path, levels in default_space(arm.optimizer).items() if path not in arm.axes}


def _search_problems(arm: ArmSpec, search: SearchSpec | None) -> list[Problem]:
    if search is None:
        message = "is read by studies with a [search] only; add one, or leave this out"
        return [] if arm.search is None else [Problem(("search",), list(arm.search), message)]
    if arm.tune and arm.search is not None:
        return [Problem(("tune",), list(arm.tune), "is what the study's [search] would try; keep tune or search")]
    try:
        if _space(arm):
            return []
        reason = f"{arm.optimizer.name} has no option left that the registry would tune"
    except ValueError as error:
        reason = f"what the registry would tune of {arm.optimizer.name} cannot be ({error})"
    return [Problem(("search",), Missing(), f"{reason}; say what to try, {_EXAMPLE}")]


def parse_study(raw: Mapping[str, Any], source: str = "study", plugins: Sequence[str] = ()) -> StudySpec:
    """Check a study given as the tables of its TOML; `source` names it in messages.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    return validated(StudySpec, raw, source, plugins)
