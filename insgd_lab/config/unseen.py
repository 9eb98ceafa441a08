"""Mistakes of a study that others hide: what pydantic would only come to once those that it found are mended.

It does not look at what depends on a value that is wrong. These looks do, where that is sound: at the primary test by
the arms' names alone, at arms over a task or training without its wrong keys, at cells of the arms that are right.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from insgd_lab.config.analysis import PrimarySpec
from insgd_lab.config.problems import Problem, problems_of
from insgd_lab.config.run import TrainSpec

if TYPE_CHECKING:
    from insgd_lab.config.study import StudySpec

__all__ = ["unseen"]

Path = tuple[str | int, ...]
Handler = Callable[[Any], "StudySpec"]
_COMMON = ("plugins", "task", "train", "record", "resources")
# In place of wrong ones, which others depend on: nothing lies beyond so many epochs, and such a batch has enough parts.
# Without its precision, graph or schedule any training is possible.
_STAND_INS: Mapping[str, int] = {"epochs": 10**9, "batch_size": 10**9}
_MOST_CELLS = 10_000  # that are looked at, some 10,000 a second


def unseen(raw: Mapping[str, Any], seen: Sequence[Problem], handler: Handler, model: type[StudySpec]) -> list[Problem]:
    """Return the mistakes of a study's tables that those already `seen` have hidden.

    Args:
        raw: the tables.
        seen: what pydantic has found in them.
        handler: validates tables.
        model: what it makes of them.
    """
    hidden = [*_of_analysis(raw), *_of_arms(raw, seen, handler, model)]
    hidden += _of_cells(raw, [*seen, *hidden], handler)
    told = set(map(_key, seen))
    return [p for p in hidden if _key(p) not in told]


def _key(problem: Problem) -> tuple[Path, str]:
    return problem.path, problem.message


def _of_analysis(raw: Mapping[str, Any]) -> list[Problem]:
    """What the primary test says of arms, going by their names."""
    arms, analysis = raw.get("arm"), raw.get("analysis")
    primary = analysis.get("primary") if isinstance(analysis, Mapping) else None
    given = [arm.get("name") if isinstance(arm, Mapping) else None for arm in arms] if isinstance(arms, list) else []
    names = [name for name in given if isinstance(name, str)]
    if not isinstance(primary, Mapping) or not names or len(names) < len(given):
        return []
    said = {key: primary[key] for key in ("arm", "baseline") if isinstance(primary.get(key), str)}
    found = PrimarySpec(**said).problems(names, {}) if said else []
    return [Problem(("analysis", "primary", *p.path), p.value, p.message) for p in found]


# ------------------------------------------------------------------------------------------------ arms


def _of_arms(
    raw: Mapping[str, Any], seen: Sequence[Problem], handler: Handler, model: type[StudySpec]
) -> list[Problem]:
    """What is wrong with arms over a task or training whose own wrong keys are left out.

    Left out as well is what depends on such a key: it may be right once the key is.
    """
    wrong = [p.path for p in seen if p.path[:1] in (("task",), ("train",))]
    mended = _without(raw, wrong)
    if not wrong or mended is None:
        return []
    try:
        handler(mended)
    except ValidationError as error:
        found = [p for p in problems_of(error, model) if p.path[:1] == ("arm",) and len(p.path) > 1]
        keys = {".".join(map(str, path)) for path in wrong if path[0] == "task"}
        keys |= {f"train.{key}" for path in wrong if path[0] == "train" for key in _meant(str(path[1]))}
        return [p for p in found if not _depends(p, raw["arm"][int(p.path[1])], keys)]
    return []


def _meant(key: str) -> list[str]:
    """The keys of a training that a wrong one may be: itself, or if it is none those that it resembles."""
    known = list(TrainSpec.model_fields)
    return [key] if key in known else difflib.get_close_matches(key, known, n=3, cutoff=0.6)


def _without(raw: Mapping[str, Any], wrong: Sequence[Path]) -> dict[str, Any] | None:
    """The tables without those keys; None where that makes no task or training to go by."""
    mended = {**raw, **{root: dict(raw[root]) for root in ("task", "train") if isinstance(raw.get(root), Mapping)}}
    for path in wrong:
        if len(path) < 2 or not isinstance(mended.get(str(path[0])), dict):
            return None
        if path[0] == "train":
            mended["train"].pop(path[1], None)
            for key in _meant(str(path[1])):
                if key in _STAND_INS:
                    mended["train"].setdefault(key, _STAND_INS[key])
            mended["train"].setdefault("epochs", _STAND_INS["epochs"])
            continue
        named = mended["task"].get(path[1])
        if len(path) != 3 or not isinstance(named, Mapping) or path[2] not in named or path[2] == "name":
            return None
        mended["task"][path[1]] = {key: value for key, value in named.items() if key != path[2]}
    return mended


def _depends(problem: Problem, arm: Any, keys: Iterable[str]) -> bool:
    """Whether an arm's problem may go once these keys of the study's task and training are right."""
    where = problem.path[2:]
    if where[:1] in (("task",), ("train",)):  # which the arm lays over the study's, so only tables have a part of both
        return (where[:2] == ("train", "schedule") and "train.schedule" in keys) or _names(problem, keys)
    if where[:1] in (("include",), ("exclude",)):  # cells without a value of their own have the study's
        axes = arm.get("axes")
        return any(key in axes for key in keys) if isinstance(axes, Mapping) else False
    return any(key in map(str, where) for key in keys) or _names(problem, keys)


def _names(problem: Problem, keys: Iterable[str]) -> bool:
    """Whether the message names an option of the task, in a word: options may depend on one another."""
    options = [key.rpartition(".")[2] for key in keys if key.startswith("task.")]
    return any(re.search(rf"\b{re.escape(option)}\b", problem.message) for option in options)


# ------------------------------------------------------------------------------------------------ cells


def _of_cells(raw: Mapping[str, Any], seen: Sequence[Problem], handler: Handler) -> list[Problem]:
    """The impossible cells of the arms that are right, if the task and training are.

    Of a study that searches they are looked at without what it tries; arms with too many cells wait.
    """
    wrong = {p.path[:2] if p.path[:1] == ("arm",) else p.path[:1] for p in seen}
    kept = {key: raw[key] for key in _COMMON if key in raw}
    arms = raw.get("arm")
    if not isinstance(arms, list) or any((key,) in wrong for key in (*kept, "arm")):
        return []
    right = [k for k in range(len(arms)) if ("arm", k) not in wrong]
    tried = {"tune", "search"} if "search" in raw else set()
    bare = [{key: value for key, value in arms[k].items() if key not in tried} for k in right]
    try:
        rest = handler({**kept, "name": "rest", "seeds": 1, "arm": bare})
    except ValidationError:  # none is left, or they have a search of their own and the study has none
        return []
    numbers = {arm.name: k for arm, k in zip(rest.arm, right, strict=True)}
    few = [a for a in rest.arm if len(rest.cells(a)) * math.prod(map(len, a.tune.values())) <= _MOST_CELLS]
    found = rest.impossible_cells(few)
    return [Problem(("arm", numbers[str(p.path[1])]), p.value, p.message) for p in found]
