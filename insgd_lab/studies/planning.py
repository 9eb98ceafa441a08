"""A study becomes a plan: every run that it asks for, decided before the first one starts.

    plan = make_plan(load_study("digits"))
    len(plan.runs)                    # how many trainings
    plan.rows[0]                      # {"run": "0123…", "arm": "insgd", "varied": None, "settings": {…}, …}

An arm's cells come from its grid; each cell is crossed with every tuned value and every seed. Cells that two
arms share are one run with a row in each. There is no torch here: planning is quick.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from insgd_lab import registry
from insgd_lab.config import ArmSpec, ConfigError, Problem, RunSpec, StudySpec, TrainSpec

__all__ = ["Cell", "Plan", "cells", "make_plan", "study_info"]


@dataclass(frozen=True)
class Cell:
    """One setting of an arm's axes; `varied` is the axis moved away from the base, in one-at-a-time grids."""

    settings: Mapping[str, Any]
    varied: str | None = None


@dataclass(frozen=True)
class Plan:
    """All runs of a study by name, in the order in which they are worked off, and the rows that use them."""

    study: StudySpec
    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, RunSpec] = field(default_factory=dict)


def cells(study: StudySpec, arm: ArmSpec) -> list[Cell]:
    """Return the settings that the arm's grid asks for, the base cell first where there is one."""
    if arm.grid == "one-at-a-time":
        return list(_one_at_a_time(study, arm))
    combine = zip if arm.grid == "zip" else itertools.product
    if not arm.axes:
        return [Cell({})]
    return [Cell(dict(zip(arm.axes, levels, strict=True))) for levels in combine(*arm.axes.values())]


def _one_at_a_time(study: StudySpec, arm: ArmSpec) -> Iterator[Cell]:
    base = {path: study.base(arm, path) for path in arm.axes}
    yield Cell(base)
    for path, levels in arm.axes.items():
        for level in levels:
            if level != base[path]:
                yield Cell({**base, path: level}, varied=path)


def make_plan(study: StudySpec) -> Plan:
    """Work out every run of the study. Runs are ordered by seed, so that all arms grow together.

    Raises:
        ConfigError: settings that are possible one by one but not together.
    """
    plan = Plan(study)
    runs: dict[str, RunSpec] = {}
    for arm in study.arm:
        for cell, tuned, seed in itertools.product(cells(study, arm), _tuned(arm), study.seeds):
            run = _run(study, arm, {**cell.settings, **tuned}, seed)
            runs.setdefault(run.id, run)
            plan.rows.append(
                {
                    "run": run.id,
                    "arm": arm.name,
                    "varied": cell.varied,
                    "settings": dict(cell.settings),
                    "tune": tuned,
                    "seed": seed,
                }
            )
    order = {seed: k for k, seed in enumerate(study.seeds)}
    plan.runs.update(sorted(runs.items(), key=lambda item: order[item[1].seed]))
    return plan


def _tuned(arm: ArmSpec) -> list[dict[str, Any]]:
    return [dict(zip(arm.tune, values, strict=True)) for values in itertools.product(*arm.tune.values())]


def _run(study: StudySpec, arm: ArmSpec, settings: Mapping[str, Any], seed: int) -> RunSpec:
    try:
        return study.run(arm, settings, seed)
    except ValueError as error:
        raise ConfigError(study.name, [Problem(("arm", arm.name), dict(settings), _message(error))]) from None


def _message(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors())
    return str(error)


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
        "train": _train_info(study.train),
        "record": study.record.model_dump(),
        "spec": study.model_dump(),
        "arms": [_arm_info(study, arm) for arm in study.arm],
        "plan": plan.rows,
        "versions": versions,
        "created": created,
    }


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
        "axes": arm.axes,
        "base": {path: study.base(arm, path) for path in arm.axes},
        "tune": arm.tune,
        "fixed": {path: study.base(arm, path) for path in arm.tune},
    }
