"""Mistakes of a study that others hide: what pydantic would only come to once those that it found are mended.

It does not look at what depends on a value that is wrong. These looks do, where that is sound: at the primary test by
the arms' names alone, at arms over a task or training without its wrong keys, at cells of the arms that are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from insgd_lab.config.analysis import PrimarySpec
from insgd_lab.config.problems import Problem, problems_of

if TYPE_CHECKING:
    from insgd_lab.config.study import StudySpec

__all__ = ["unseen"]

Path = tuple[str | int, ...]
_COMMON = ("plugins", "task", "train", "record", "resources")
_MANY_EPOCHS = 10**9  # in place of a wrong number of them: nothing lies beyond


def unseen(raw: Mapping[str, Any], seen: Sequence[Problem], handler: Callable[[Any], StudySpec]) -> list[Problem]:
    """Return the mistakes of a study's tables that those already `seen` have hidden; `handler` validates tables."""
    found: list[Problem] = []
    for look in (_of_analysis, _of_arms, _of_cells):
        found += [p for p in look(raw, [*seen, *found], handler) if _key(p) not in map(_key, [*seen, *found])]
    return found


def _key(problem: Problem) -> tuple[Path, str]:
    return problem.path, problem.message


def _of_analysis(raw: Mapping[str, Any], seen: Sequence[Problem], handler: Callable[[Any], StudySpec]) -> list[Problem]:
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


def _of_arms(raw: Mapping[str, Any], seen: Sequence[Problem], handler: Callable[[Any], StudySpec]) -> list[Problem]:
    """What is wrong with arms over a task or training whose own wrong keys are left out.

    Left out as well is what names such a key: it may be right once the key is.
    """
    wrong = [p.path for p in seen if p.path[:1] in (("task",), ("train",))]
    mended = _without(raw, wrong)
    if not wrong or mended is None:
        return []
    try:
        handler(mended)
    except ValidationError as error:
        keys = [str(path[-1] if path[0] == "task" else path[1]) for path in wrong]
        found = [p for p in problems_of(error, _study()) if p.path[:1] == ("arm",)]
        return [p for p in found if not any(key in f"{p.path} {p.value} {p.message}" for key in keys)]
    return []


def _study() -> type[StudySpec]:
    from insgd_lab.config.study import StudySpec  # which imports this module

    return StudySpec


def _without(raw: Mapping[str, Any], wrong: Sequence[Path]) -> dict[str, Any] | None:
    """The tables without those keys; None where that makes no task or training to go by."""
    mended = {**raw, **{root: dict(raw[root]) for root in ("task", "train") if isinstance(raw.get(root), Mapping)}}
    for path in wrong:
        if len(path) < 2 or not isinstance(mended.get(str(path[0])), dict):
            return None
        if path[0] == "train":
            mended["train"].pop(path[1], None)
            mended["train"].setdefault("epochs", _MANY_EPOCHS)
            continue
        named = mended["task"].get(path[1])
        if len(path) != 3 or not isinstance(named, Mapping) or path[2] not in named or path[2] == "name":
            return None
        mended["task"][path[1]] = {key: value for key, value in named.items() if key != path[2]}
    return mended


def _of_cells(raw: Mapping[str, Any], seen: Sequence[Problem], handler: Callable[[Any], StudySpec]) -> list[Problem]:
    """The impossible cells of the arms that are right, if the task and training are."""
    wrong = {p.path[:2] if p.path[:1] == ("arm",) else p.path[:1] for p in seen}
    kept = {key: raw[key] for key in _COMMON if key in raw}
    arms = raw.get("arm")
    if not isinstance(arms, list) or any((key,) in wrong for key in (*kept, "arm")):
        return []
    right = [k for k in range(len(arms)) if ("arm", k) not in wrong]
    try:
        rest = handler({**kept, "name": "rest", "seeds": 1, "arm": [arms[k] for k in right]})
    except ValidationError:  # none is left, or they cannot do without the study's search
        return []
    numbers = {arm.name: k for arm, k in zip(rest.arm, right, strict=True)}
    return [Problem(("arm", numbers[str(p.path[1])]), p.value, p.message) for p in rest.impossible_cells()]
