"""The scores of an arm crossed in full, as one array: a dimension for each of its axes, the last one for seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.runs import Arm, Study, key_of, sampled
from insgd_lab.analysis.selection import Choices, tune_at

__all__ = ["Crossed", "How", "crossed"]

How = Literal["best", "fixed", "every"]
"""At each cell's own best tune, at the arm's fixed one, or at every tune: then tuned options are axes too."""


@dataclass(frozen=True)
class Crossed:
    """An arm's scores, errors in percent: `scores[i, j, …, seed]` at the i-th level of the first axis, and so on."""

    arm: str
    at: How
    levels: dict[str, list[Any]]
    base: dict[str, int]
    """By axis, the place of the base level; the first where the arm's own value is not among them."""
    scores: np.ndarray


def crossed(study: Study, choices: Choices, at: How) -> Iterator[Crossed]:
    """Every arm whose grid is full and complete, with two axes of several levels or more.

    Seeds that lack a run anywhere are left out, and all but one where they change nothing (see `runs.sampled`). So is
    an arm of whose cells one was excluded, or has no seed in common with the others: without it effects and
    interactions cannot be told apart.
    """
    for arm in study.arms.values():
        axes = {**arm.axes, **(arm.tune if at == "every" else {})}
        levels = {axis: list(values) for axis, values in axes.items() if len(values) > 1}
        single = {axis: values[0] for axis, values in axes.items() if len(values) == 1}
        if arm.grid != "full" or len(levels) < 2 or (at != "best" and not arm.tuned):
            continue
        scores = _scores(study, choices, arm, levels, single, at)
        if scores is not None:
            fixed = {**arm.base, **arm.fixed}
            base = {axis: _place(values, fixed.get(axis)) for axis, values in levels.items()}
            yield Crossed(arm.name, at, levels, base, scores)


def _place(levels: list[Any], value: Any) -> int:
    return next((k for k, level in enumerate(levels) if key_of({"": level}) == key_of({"": value})), 0)


def _scores(
    study: Study, choices: Choices, arm: Arm, levels: dict[str, list[Any]], single: dict[str, Any], at: How
) -> np.ndarray | None:
    primary = primary_of(study)
    tables, runs = [], []
    for values in itertools.product(*levels.values()):
        settings = {**single, **dict(zip(levels, values, strict=True))}
        cell = study.find_cell(arm.name, {axis: settings[axis] for axis in arm.axes})
        if cell is None:
            return None
        every = key_of({axis: settings[axis] for axis in arm.tune}) if at == "every" else None
        tune = tune_at(study, choices, cell, at) if at != "every" else every
        if tune is None:
            return None
        runs.append(study.finished(arm.name, cell.key, tune))
        tables.append(study.by_seed(arm.name, cell.key, tune, primary.metric))
    seeds = sampled(set.intersection(*map(set, tables)), runs)
    if not seeds:
        return None
    rows = np.array([[table[seed] for seed in seeds] for table in tables]) * primary.unit
    return rows.reshape(*map(len, levels.values()), len(seeds)) if np.isfinite(rows).all() else None
