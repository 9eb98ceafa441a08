"""A study becomes a plan: every run that it asks for, decided before the first one starts.

    plan = make_plan(load_study("digits"))
    len(plan.runs)                    # how many trainings
    plan.rows[0]                      # {"run": "0123…", "arm": "insgd", "varied": None, "settings": {…}, …}

An arm's cells come from its grid; each cell is crossed with every tuned value and every seed. Cells that two
arms share are one run with a row in each. There is no torch here, and each cell is checked once for all its seeds:
planning is quick.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from insgd_lab import registry
from insgd_lab.config import ArmSpec, Cell, ConfigError, Interval, Problem, RunSpec, StudySpec, TrainSpec
from insgd_lab.config.merging import as_table
from insgd_lab.config.study import alike, cell_problem

__all__ = ["Plan", "Stages", "essence_of", "gathered", "make_plan", "study_info"]


@dataclass(frozen=True)
class Stages:
    """What a search comes to in all, as far as can be told.

    Attributes:
        trials: runs of trials, those that are not chosen yet as well.
        finals: final runs, those of winners that are not known yet as well.
        final: the names of those that are planned.
    """

    trials: int
    finals: int
    final: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """All runs of a study by name, in the order in which they are worked off, and the rows that use them."""

    study: StudySpec
    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, RunSpec] = field(default_factory=dict)

    def add(self, arm: ArmSpec, cell: Cell, tuned: Mapping[str, Any], seeds: Sequence[int], **more: Any) -> list[str]:
        """Add the runs of one cell of `arm`, a row for each seed, to which `more` is written; return their names.

        Raises:
            ConfigError: settings that are possible one by one but not together.
        """
        names = []
        for run in _run(self.study, arm, {**cell.settings, **tuned}).with_seeds(seeds):
            names.append(run.id)
            self.runs[run.id] = _shared(self.runs.get(run.id), run)
            row = {"run": run.id, "arm": arm.name, "varied": cell.varied, "settings": cell.settings, "tune": tuned}
            self.rows.append({**row, "seed": run.seed, **more})
        return names

    @property
    def stages(self) -> Stages | None:
        """The two stages of a search; None where the study has none."""
        return None

    def sort(self, seeds: Sequence[int]) -> None:
        """Put the runs in the order of their seeds, so that all arms grow together."""
        order = {seed: k for k, seed in enumerate(seeds)}
        ordered = sorted(self.runs.items(), key=lambda item: order[item[1].seed])
        self.runs.clear()
        self.runs.update(ordered)


def make_plan(study: StudySpec) -> Plan:
    """Work out every run of a study that has no search (else see `studies.search`).

    Raises:
        ConfigError: settings that are possible one by one but not together.
        ValueError: the study has a search.
    """
    if study.search is not None:
        raise ValueError(f"{study.name} has a search, whose plan depends on its results; use studies.search.next_plan")
    plan = Plan(study)
    with gathered(study) as refused:
        for arm in study.arm:
            for cell, tuned in itertools.product(study.cells(arm), study.tuned(arm)):
                with refused():
                    plan.add(arm, cell, tuned, study.seeds)
    plan.sort(study.seeds)
    return plan


@contextmanager
def gathered(study: StudySpec) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Give a context for each part of a plan, and in the end tell what all of them were refused for.

    Raises:
        ConfigError: one of them was.
    """
    problems: list[Problem] = []

    @contextmanager
    def refused() -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            problems.extend(error.problems)

    yield refused
    if problems:
        raise ConfigError(study.name, alike(problems))


def _shared(there: RunSpec | None, run: RunSpec) -> RunSpec:
    """A run that several arms may share: it asks for what is enough for each of them."""
    if there is None or there.resources == run.resources:
        return there or run
    return run.model_copy(update={"resources": there.resources.covering(run.resources)})


def _run(study: StudySpec, arm: ArmSpec, settings: Mapping[str, Any]) -> RunSpec:
    try:
        return study.run(arm, settings, seed=0)
    except ValueError as error:
        raise ConfigError(study.name, [cell_problem(arm.name, settings, error)]) from None


def study_info(plan: Plan, versions: Mapping[str, str], created: str) -> dict[str, Any]:
    """Return the contents of `study.json`."""
    study = plan.study
    return {
        "name": study.name,
        "title": study.title,
        "description": study.description,
        "compare": study.compare.model_dump() if study.compare else None,
        "seeds": study.seeds,
        "task": study.task.canonical(),
        "classes": registry.get_data(study.task.data.name).classes,
        "labels": any(registry.get_data(study.task_of(arm).data.name).labels for arm in study.arm),
        "train": _train_info(study.train),
        "record": study.record.model_dump(),
        **({"search": study.search.model_dump()} if study.search else {}),
        "spec": study.model_dump(),
        "arms": [_arm_info(study, arm) for arm in study.arm],
        "plan": plan.rows,
        "versions": versions,
        "created": created,
    }


_WORDS = frozenset({"title", "description", "plugins", "resources"})  # of a study, and of its arms


def essence_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's spec, as `study.json` has it, without what says nothing of its results."""
    arms = [{key: value for key, value in arm.items() if key not in _WORDS} for arm in spec.get("arm", [])]
    return {**{key: value for key, value in spec.items() if key not in _WORDS}, "arm": arms}


# What a report says of the training even where it is as usual; of the rest it says what is not.
_TOLD = {"epochs", "batch_size", "augment", "eval_every", "eval_batch_size"}


def _train_info(train: TrainSpec) -> dict[str, Any]:
    changed = train.model_dump(exclude_defaults=True)
    return {**train.model_dump(include=_TOLD), **changed, "schedule": train.schedule.plain()}


def _arm_info(study: StudySpec, arm: ArmSpec) -> dict[str, Any]:
    return {
        "name": arm.name,
        "label": arm.label or arm.name,
        "optimizer": arm.optimizer.name,
        "options": arm.optimizer.options,
        "grid": arm.grid,
        "axes": {path: _levels(study, arm, path) for path in arm.axes},
        "base": {path: study.base(arm, path) for path in arm.axes},
        **_tuned_info(study, arm),
        **_own_info(study, arm),
    }


def _tuned_info(study: StudySpec, arm: ArmSpec) -> dict[str, Any]:
    """What a report chooses from, each cell for itself; nothing where a search has chosen already."""
    if study.search is not None:
        searched = {path: _written(levels) for path, levels in study.space(arm).items()}
        return {"tune": {}, "fixed": {}, "search": searched}
    return {"tune": arm.tune, "fixed": {path: study.base(arm, path) for path in arm.tune}}


def _levels(study: StudySpec, arm: ArmSpec, path: str) -> list[Any]:
    """The levels of an axis: of a range those that were drawn."""
    levels = arm.axes[path]
    if not isinstance(levels, Interval):
        return list(levels)
    return sorted({cell.settings[path] for cell in study.cells(arm)})


def _own_info(study: StudySpec, arm: ArmSpec) -> dict[str, Any]:
    """What the arm changes of the study's task and training, and the number of classes that it learns."""
    if not (arm.task or arm.train):
        return {}
    task = {f"task.{key}": as_table(key, value) for key, value in arm.task.items()}
    return {
        "overrides": {**task, **{f"train.{key}": value for key, value in arm.train.items()}},
        "classes": registry.get_data(study.task_of(arm).data.name).classes,
    }


def _written(levels: Any) -> Any:
    """The levels of an axis as a study file has them."""
    return levels.model_dump() if isinstance(levels, Interval) else levels
